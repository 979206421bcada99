"""A service proxy towards its clients: joins, updates and acks, notifications, closes, heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from proxy.core.admission import Admission
from proxy.core.catch_up import CatchUp
from proxy.core.client_session import HELD_MAX, ClientSession
from proxy.core.conference import Conference
from proxy.core.log_keeper import LogKeeper
from proxy.core.outbox import Outbox, conference_and_device
from proxy.core.packing import STATES_MAX_BYTES, pieces
from proxy.core.positions import vector_digest
from proxy.core.session_key import check_heartbeat
from proxy.core.trust import PRESENCE_EVENTS, QUIET_LEAVE, Grant, Refusal, place_of, seal
from proxy.wire.message_names import (
    HEARTBEAT,
    NOTIFY,
    REVOKE,
    MessageName,
    message_name,
    node_prefix,
    without_parameters_digest,
)
from proxy.wire.messages import (
    FIRST_JOIN,
    HANDING_OVER,
    ClientHeartbeat,
    CloseRequest,
    FpUpdate,
    JoinReply,
    JoinRequest,
    Notification,
    Position,
    Revocations,
    Sealed,
    SignedUpdate,
    StreamEntry,
    SyncUpdate,
    UpdateAck,
)
from proxy.wire.packet import Interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: Why a join is refused, where the device can do something about it (log in again) or has to know (it is out).
TOLD: Final = frozenset(
    {"token_expired", "token_forged", "token_of_other_device", "token_of_other_conference", "revoked"}
)
#: How long news of who comes and goes wait for more of them: 250 notifications a second tell them, whatever happens.
GATHER_S_PER_CLIENT: Final = 0.004
#: With so few clients they do not wait.
GATHER_CLIENTS_MIN: Final = 8
GATHER_MAX_S: Final = 0.5


class ClientSide:
    """*open_conference* finds or makes a conference; *on_accepted* is told of every new entry of our own stream."""

    def __init__(
        self,
        out: Outbox,
        conferences: dict[str, Conference],
        *,
        open_conference: Callable[[str], Conference],
        on_accepted: Callable[[Conference, StreamEntry], None],
        keeper: LogKeeper,
        catch_up: CatchUp,
    ) -> None:
        self._out, self._conferences, self._keeper, self._catch_up = out, conferences, keeper, catch_up
        self._open_conference, self._on_accepted = open_conference, on_accepted
        #: More packets have come than we could look at: what they bring goes to each client in one notification.
        self.collects = False
        self._collected: dict[tuple[str, str], None] = {}  #: (conference, device), in order
        self.gathered_s: float | None = None  #: when to call `send_gathered`; None while nothing is gathered
        self._told_s = float("-inf")  #: when that was done last
        #: the last notification: entries, positions, parameters
        self._told: tuple[list[StreamEntry], tuple[Position, ...], bytes] = ([], (), b"")
        self._admission = Admission(
            out.trust, proxy=out.device, joins_per_s=out.config.joins_per_s, joins_burst=out.config.joins_burst
        )

    def on_join(self, interest: Interest, name: MessageName, *, admits: bool) -> None:
        """A client joins or re-joins; *admits*: here, or it is sent to the next proxy. Raises: Refusal, MalformedError."""
        now_s = self._out.now_s
        conference_name, device = conference_and_device(name.parts)
        self._admission.check_rate(device, now_s=now_s)
        try:
            request = decode(interest.parameters, JoinRequest)
            grant = self._admission.check_join(request, name, now_s=now_s)
        except (Refusal, MalformedError) as problem:
            self._admission.note_failure(now_s=now_s)
            if isinstance(problem, Refusal) and problem.reason in TOLD:
                self._out.reply_sealed(interest, JoinReply(False, problem.reason, (), None, ()))
            raise
        if not admits:
            self._send_on(interest, conference_name, device)
            return
        conference = self._open_conference(conference_name)
        session = conference.clients.get(device)
        if session is None or session.boot != request.boot:
            self._forget(conference, device)
            session = ClientSession(grant, request.boot, name.seq, heard_s=now_s, sent_s=now_s)
            conference.clients[device] = session
            self._out.counters["joins"] += 1
            if name.seq > FIRST_JOIN:  # another proxy may believe that it has it still, and would miss it
                self._tell_roster(conference, session, "present")
        else:
            if name.seq > session.join + 1:  # it may have been at another proxy, and that may still think it is
                session.present = False
            session.grant, session.join = grant, name.seq
            self._heard(conference, session)
        session.key = self._out.exchange.session_key(
            request.exchange_key, conference=conference_name, device=device, proxy=self._out.device
        )
        session.accepted_seq = max(session.accepted_seq, request.acked_seq)
        missed = self._catch_up.missed(conference, request.known, is_partial=request.is_partial)
        own_seq = max(session.accepted_seq, conference.log.view.seq(device, request.boot))
        self._out.reply_sealed(
            interest,
            JoinReply(
                True,
                "",
                missed.current,
                missed.snapshot,
                missed.entries,
                own_seq,
                missed.manifest,
                self._out.exchange.public_key,
            ),
        )

    def _send_on(self, interest: Interest, conference_name: str, device: str) -> None:
        """Let a device join elsewhere; that it has come back here shows that it is there, and that it could not yet."""
        self._out.counters["joins_sent_on"] += 1
        conference = self._conferences.get(conference_name)
        session = conference.clients.get(device) if conference is not None else None
        if session is not None:
            session.heard_s = self._out.now_s
        self._out.reply_sealed(interest, JoinReply(False, HANDING_OVER, (), None, ()))

    def drop(self, conference: Conference, device: str) -> None:
        """End the session of a client; its join, said again, does not bring it back."""
        self._forget(conference, device)
        self._admission.end_join(conference.name, device)

    def _forget(self, conference: Conference, device: str) -> None:
        session = conference.clients.pop(device, None)
        if session is not None:
            for n in session.outstanding:
                self._out.consumer.cancel(("notify", conference.name, device, n, session.boot))

    def _heard(self, conference: Conference, session: ClientSession) -> None:
        """A client is there; tell everybody where they were told that it is away."""
        session.heard_s = self._out.now_s
        if not session.present:
            session.present = True
            self._tell_roster(conference, session, "present")

    def _has_moved(self, conference: Conference, session: ClientSession) -> bool:
        """Tell whether another proxy has said of a client that it joined there, later than here."""
        told = conference.log.view.presence_of(session.device)
        return told is not None and told.order > (session.boot, session.join, session.roster_version)

    def _tell_roster(
        self, conference: Conference, session: ClientSession, state: Literal["present", "away", "left"]
    ) -> None:
        """Put a roster event into our stream, unless nobody has been told of the device yet, nor need be."""
        if self._out.config.announce != "at-join" and not self._is_announced(conference, session):
            session.owes_presence = state == "present"
            return
        session.owes_presence = False
        event = session.next_roster_event(state)
        conference.log.view.note(event)
        entry = conference.log.append_own(conference.own, (), signer=self._out.signer, roster=(event,))
        self._out.counters[f"roster_{state}"] += 1
        self._on_accepted(conference, entry)
        self.notify(conference, entry)

    @staticmethod
    def _is_announced(conference: Conference, session: ClientSession) -> bool:
        """Tell whether everybody knows of a client, as far as we have heard."""
        return conference.log.view.is_joined(session.device, session.boot)

    def _expel(self, conference: Conference, session: ClientSession, reason: str) -> None:
        """End a session for good: tell its client why, and everybody that it has left."""
        self._out.counters[f"sessions_ended_{reason}"] += 1
        self._send_heartbeat(conference, session, self._heartbeat(conference, (), session.device, ended=reason))
        self.drop(conference, session.device)
        self._tell_roster(conference, session, "left")

    def _session(self, conference_name: str, device: str, boot: int) -> tuple[Conference, ClientSession]:
        conference = self._conferences.get(conference_name)
        session = conference.clients.get(device) if conference is not None else None
        if conference is None or session is None or session.boot != boot:
            raise Refusal("not_joined")
        return conference, session

    def on_update(self, interest: Interest, name: MessageName) -> None:
        """A client publishes. Raises: Refusal, MalformedError."""
        signed = decode(interest.parameters, SignedUpdate)
        update = decode(signed.update, FpUpdate)
        conference_name, device = conference_and_device(name.parts)
        try:
            conference, session = self._session(conference_name, device, name.boot)
            accepted_seq = max(session.accepted_seq, conference.log.view.seq(device, name.boot))
            session.accepted_seq = accepted_seq
            grant = self._admission.check_update(signed, update, session, name, now_s=self._out.now_s)
        except Refusal as refusal:
            self._refuse(interest, name, refusal.reason)
            raise
        self._heard(conference, session)
        if update.seq <= accepted_seq:
            self._out.counters["updates_repeated"] += 1
            self._keeper.ack(conference, session, interest.name, session.acks.get(update.seq, 0))
        elif update.seq > accepted_seq + 1:
            if len(session.held) < HELD_MAX:
                session.held[update.seq] = (signed, interest.name, grant)
        else:
            self._accept(conference, session, update.seq, signed, interest.name, grant)
            while (held := session.held.pop(session.accepted_seq + 1, None)) is not None:
                self._accept(conference, session, session.accepted_seq + 1, *held)

    def _refuse(self, interest: Interest, name: MessageName, reason: str) -> None:
        """Tell a publisher why its update is not accepted. That it is not joined needs no proof, so floods cost little."""
        ack = UpdateAck("refused", reason, self._out.device, self._out.boot, 0)
        if reason == "not_joined":
            self._out.send_data(interest.name, encode(ack))
        else:
            _, session = self._session(*conference_and_device(name.parts), name.boot)
            self._out.ack(interest.name, ack, session.key)

    def _accept(
        self,
        conference: Conference,
        session: ClientSession,
        seq: int,
        signed: SignedUpdate,
        interest_name: bytes,
        grant: Grant,
    ) -> None:
        if grant.token.expires_s > session.grant.token.expires_s:
            session.grant = grant
        entry = conference.log.append_own(conference.own, (signed,), signer=self._out.signer)
        session.remember_ack(seq, entry.seq)
        session.accepted_seq = seq
        self._out.counters["updates_accepted"] += 1
        self._on_accepted(conference, entry)
        self._keeper.ack(conference, session, interest_name, entry.seq)
        self.notify(conference, entry, except_device=session.device)
        conference.log.view.offer(signed, "push", grant=grant)  # the others need not wait for that

    def notify(self, conference: Conference, entry: StreamEntry, except_device: str = "") -> None:
        """Push an entry to every client that is there; one that only says who comes and goes, in a while."""
        is_urgent = not tells_presence_only(entry)
        for device, session in conference.clients.items():
            if device == except_device or not session.present:
                continue
            if not session.enqueue(entry):
                self._out.counters["notification_queue_dropped"] += 1
            if not is_urgent:
                if self.gathered_s is None:  # the first at once, what follows it close behind together
                    self.gathered_s = max(self._out.now_s, self._told_s + gather_s(len(conference.clients)))
                continue
            session.is_urgent = True
            if self.collects:
                self._collected[conference.name, device] = None
            else:
                self._flush(conference, session)

    def send_collected(self) -> None:
        """Notify those for whom something was collected."""
        self.collects = False
        while self._collected:
            conference_name, device = next(iter(self._collected))
            del self._collected[conference_name, device]
            conference = self._conferences.get(conference_name)
            session = conference.clients.get(device) if conference is not None else None
            if conference is not None and session is not None:
                self._flush(conference, session)

    def send_gathered(self) -> None:
        """Tell everybody who has come and gone meanwhile, if it is time; who has not acked the last time, when it has."""
        if self.gathered_s is None or self._out.now_s < self.gathered_s:
            return
        self.gathered_s, self._told_s = None, self._out.now_s
        for conference in self._conferences.values():
            for session in conference.clients.values():
                session.is_due = bool(session.queue)
                self._flush(conference, session)

    def _flush(self, conference: Conference, session: ClientSession) -> None:
        while session.has_room:
            parameters = self._told_in(conference, session, session.next_batch())
            n = session.next_notification
            session.next_notification += 1
            session.outstanding.add(n)
            session.sent_s = self._out.now_s
            self._out.effects.extend(
                self._out.consumer.express(
                    ("notify", conference.name, session.device, n, session.boot),
                    message_name(
                        node_prefix(session.device),
                        NOTIFY,
                        conference.name,
                        self._out.device,
                        boot=self._out.boot,
                        seq=n,
                    ),
                    now_s=self._out.now_s,
                    peer=session.device,
                    parameters=parameters,
                    attempts_max=6,
                )
            )

    def _told_in(self, conference: Conference, session: ClientSession, batch: list[StreamEntry]) -> bytes:
        """Return the parameters of a notification; as a rule all clients are told the same, which is encoded once."""
        if session.queue:  # told of what follows, it would ask for that
            after = _after(batch)
        else:
            after = conference.log.positions({(entry.proxy, entry.boot) for entry in batch})
        current = session.current(after, conference.own.key)
        told_batch, told_current, parameters = self._told
        if batch != told_batch or current != told_current:
            parameters = encode(Notification(_before(batch), current, tuple(batch)))
            self._told = (batch, current, parameters)
        return parameters

    def on_notification_ack(self, conference: Conference, device: str, n: int) -> None:
        """A client has taken in notification *n*: there is room for the next."""
        session = conference.clients.get(device)
        if session is not None:
            session.outstanding.discard(n)
            self._heard(conference, session)
            self._flush(conference, session)

    def on_notification_given_up(self, conference: Conference, device: str, n: int) -> None:
        """The client recovers by itself once it is heard again: heartbeats tell it what it has missed."""
        self._out.counters["notifications_given_up"] += 1
        session = conference.clients.get(device)
        if session is not None:
            session.outstanding.discard(n)
            self._flush(conference, session)

    def on_heartbeat(self, interest: Interest, name: MessageName) -> None:
        """A client is there. Raises: Refusal, MalformedError."""
        beat = decode(interest.parameters, ClientHeartbeat)
        conference, session = self._session(*conference_and_device(name.parts), name.boot)
        check_heartbeat(beat, without_parameters_digest(interest.name), session.key)
        if name.seq <= session.last_beat:
            raise Refusal("heartbeat_replayed")
        session.last_beat = name.seq
        self._heard(conference, session)

    def on_close(self, interest: Interest, name: MessageName) -> None:
        """A client leaves. Raises: Refusal, MalformedError."""
        signed = decode(interest.parameters, CloseRequest).leave
        update = decode(signed.update, FpUpdate)
        conference_name, device = conference_and_device(name.parts)
        conference = self._conferences.get(conference_name)
        if conference is not None and conference.log.view.seq(device, name.boot) >= update.seq:
            self._keeper.ack(conference, None, interest.name, 0)  # the reply got lost, the close did not
            return
        try:
            conference, session = self._session(conference_name, device, name.boot)
        except Refusal as refusal:  # it has to join again before it can leave
            self._refuse(interest, name, refusal.reason)
            raise
        grant = self._admission.check_update(signed, update, session, name, now_s=self._out.now_s)
        accepted_seq = max(session.accepted_seq, conference.log.view.seq(device, name.boot))
        is_quiet = update.event == QUIET_LEAVE and not self._is_announced(conference, session)
        if not (is_quiet or update.event == "leave") or update.seq != accepted_seq + 1:
            raise Refusal("close_out_of_order")
        if is_quiet:
            self._keeper.ack(conference, None, interest.name, 0)
        else:
            self._accept(conference, session, update.seq, signed, interest.name, grant)
        self.drop(conference, device)
        self._out.counters["closes"] += 1

    def notice_silence(self, conference: Conference, *, detection_time_s: float) -> None:
        """Clients not heard for the detection time are away, after a grace period they have left; or they have moved.

        Those whose token has run out are not served any more; they come back with a new one.
        """
        for device, session in list(conference.clients.items()):
            if session.owes_presence and self._is_announced(conference, session):
                self._tell_roster(conference, session, "present")
            silence_s = self._out.now_s - session.heard_s
            if session.grant.token.expires_s <= self._out.now_s:
                self._expel(conference, session, "token_expired")
            elif silence_s > detection_time_s and self._has_moved(conference, session):
                self._out.counters["clients_moved"] += 1
                self.drop(conference, device)
            elif session.present and silence_s > detection_time_s:
                session.present = False
                session.drop_queue()
                self._out.counters["clients_away"] += 1
                self._tell_roster(conference, session, "away")
            elif silence_s > detection_time_s + self._out.config.leave_grace_s:
                self.drop(conference, device)
                self._tell_roster(conference, session, "left")

    def send_away(self, conference: Conference) -> None:
        """Tell all clients to go to the next proxy; they are served until they have."""
        for session in conference.clients.values():
            beat = self._heartbeat(conference, (), session.device, ended=HANDING_OVER)
            self._send_heartbeat(conference, session, beat)

    def forget_gone(self, conference: Conference, *, silent_s: float) -> None:
        """End the sessions of clients that have joined elsewhere, or are silent; the latter have left."""
        for device, session in list(conference.clients.items()):
            event = conference.log.view.presence_of(device)
            if event is not None and (event.boot, event.join) > (session.boot, session.join):
                self.drop(conference, device)
            elif self._out.now_s - session.heard_s > silent_s:
                self.drop(conference, device)
                self._tell_roster(conference, session, "left")

    def on_revocations(self, interest: Interest, name: MessageName) -> bool:
        """The login server says whose tokens are void; tell whether our own device is among them.

        Raises: Refusal, MalformedError.
        """
        if len(name.parts) != 1:
            raise MalformedError("revocations without their sender")
        sealed = decode(interest.parameters, Sealed)
        place = place_of(REVOKE, *name.parts, boot=name.boot, seq=0)
        revocations = self._out.trust.open_from_login(sealed, Revocations, place).revocations
        revoked = list(self._admission.revoke(revocations))
        for device in revoked:
            self._out.counters["revocations"] += 1
            for conference in self._conferences.values():
                session = conference.clients.get(device)
                if session is not None and self._admission.is_revoked(session.grant):
                    self._expel(conference, session, "revoked")
        return self._out.device in revoked

    def send_heartbeats(self, conference: Conference, *, always: bool) -> None:
        """Tell every quiet client where we are; *always*: the others too."""
        interval_s = self._out.config.liveness.desired_min_tx_s
        vector = conference.log.vector()
        for_all: list[tuple[int, bytes]] = []
        for_waiting: list[tuple[int, bytes]] = []
        for session in conference.clients.values():
            if not always and session.present and self._out.now_s - session.sent_s < 0.7 * interval_s:
                continue
            told = session.current(vector, conference.own.key)
            if session.queue:  # it would ask for what waits for it already
                beats = for_waiting = for_waiting or self._heartbeats(conference, ())
            elif told is not vector:
                beats = self._heartbeats(conference, told)
            else:
                beats = for_all = for_all or self._heartbeats(conference, vector)
            for beat in beats:
                self._send_heartbeat(conference, session, beat)

    def _heartbeats(self, conference: Conference, vector: tuple[Position, ...]) -> list[tuple[int, bytes]]:
        return [self._heartbeat(conference, piece) for piece in pieces(vector, STATES_MAX_BYTES)]

    def _heartbeat(
        self, conference: Conference, vector: tuple[Position, ...], device: str = "", *, ended: str = ""
    ) -> tuple[int, bytes]:
        """Return a heartbeat's number and parameters; one that says the same to all clients is signed once."""
        number = self._out.next_number()
        place = place_of(HEARTBEAT, conference.name, self._out.device, device, boot=self._out.boot, seq=number)
        beat = ClientHeartbeat(vector_digest(vector), vector, ended)
        return number, encode(seal(self._out.signer, beat, place))

    def _send_heartbeat(self, conference: Conference, session: ClientSession, beat: tuple[int, bytes]) -> None:
        session.sent_s = self._out.now_s
        number, parameters = beat
        name = message_name(
            node_prefix(session.device), HEARTBEAT, conference.name, self._out.device, boot=self._out.boot, seq=number
        )
        self._out.send_unanswered(name, parameters)


def _before(batch: list[StreamEntry]) -> tuple[Position, ...]:
    """Return the positions just before the first entry of each stream in a batch."""
    first: dict[tuple[str, int], int] = {}
    for entry in batch:
        key = (entry.proxy, entry.boot)
        first[key] = min(first.get(key, entry.seq), entry.seq)
    return tuple((proxy, boot, seq - 1) for (proxy, boot), seq in sorted(first.items()))


def _after(batch: list[StreamEntry]) -> tuple[Position, ...]:
    """Return the positions of the last entry of each stream in a batch."""
    last: dict[tuple[str, int], int] = {}
    for entry in batch:
        key = (entry.proxy, entry.boot)
        last[key] = max(last.get(key, entry.seq), entry.seq)
    return tuple((proxy, boot, seq) for (proxy, boot), seq in sorted(last.items()))


def tells_presence_only(entry: StreamEntry) -> bool:
    """Tell whether an entry says only who comes and goes. Raises: MalformedError."""
    signed = decode(entry.content, SyncUpdate).updates
    return all(decode(each.update, FpUpdate).event in PRESENCE_EVENTS for each in signed)


def gather_s(clients: int) -> float:
    """Return how long news of who comes and goes are gathered, in seconds: the more clients there are to be told, the longer.

    RFC 4575 section 3.10 recommends that notifications of a conference's state leave no oftener than every 5 s.

    >>> gather_s(3), gather_s(36), gather_s(10_000)
    (0.0, 0.144, 0.5)
    """
    return min(GATHER_MAX_S, GATHER_S_PER_CLIENT * clients) if clients > GATHER_CLIENTS_MIN else 0.0
