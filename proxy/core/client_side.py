"""A service proxy towards its clients: joins, updates and acks, notifications, closes, heartbeats."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.admission import Admission, Refusal
from proxy.core.client_session import HELD_MAX, IN_FLIGHT_MAX, ClientSession
from proxy.core.conference import Conference
from proxy.core.log_keeper import LogKeeper
from proxy.core.outbox import Outbox, conference_and_device
from proxy.core.positions import vector_digest
from proxy.wire.messages import (
    HEARTBEAT,
    NOTIFY,
    ClientHeartbeat,
    CloseRequest,
    FpUpdate,
    JoinReply,
    JoinRequest,
    MessageName,
    Notification,
    Position,
    SignedUpdate,
    StreamEntry,
    UpdateAck,
    decode,
    encode,
    message_name,
    node_prefix,
)
from proxy.wire.packet import Interest

#: A client that is not heard for so many detection times is forgotten; it re-joins when it comes back.
FORGET_AFTER = 50


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
    ) -> None:
        self._out, self._conferences, self._keeper = out, conferences, keeper
        self._open_conference, self._on_accepted = open_conference, on_accepted
        self._admission = Admission(out.config.login_public_key_hex)

    def on_join(self, interest: Interest, name: MessageName) -> None:
        """A client joins or re-joins. Raises: Refusal, MalformedError."""
        request = decode(interest.parameters, JoinRequest)
        conference_name, device = conference_and_device(name.parts)
        try:
            token = self._admission.check_token(request.token, device, conference_name, now_s=self._out.now_s)
        except Refusal as refusal:
            self._out.reply(interest, JoinReply(False, refusal.reason, (), None, ()))
            raise
        conference = self._open_conference(conference_name)
        session = conference.clients.get(device)
        if session is None or session.boot != request.boot:
            self.drop(conference, device)
            now_s = self._out.now_s
            session = ClientSession(token, request.boot, self._admission.verifier(token), heard_s=now_s, sent_s=now_s)
            conference.clients[device] = session
            self._out.counters["joins"] += 1
        session.heard_s, session.present = self._out.now_s, True
        session.accepted_seq = max(session.accepted_seq, request.acked_seq)
        entries = None if request.known is None else conference.log.suffix(request.known)
        snapshot = conference.log.snapshot() if entries is None else None
        own_seq = max(session.accepted_seq, conference.log.view.seq(device, request.boot))
        reply = JoinReply(True, "", conference.log.vector(), snapshot, tuple(entries or ()), own_seq)
        self._out.reply(interest, reply)

    def drop(self, conference: Conference, device: str) -> None:
        """Forget a client."""
        session = conference.clients.pop(device, None)
        if session is not None:
            for n in session.outstanding:
                self._out.consumer.cancel(("notify", conference.name, device, n, session.boot))

    def _session(self, conference_name: str, device: str, boot: int) -> tuple[Conference, ClientSession]:
        conference = self._conferences.get(conference_name)
        session = conference.clients.get(device) if conference is not None else None
        if conference is None or session is None or session.boot != boot:
            raise Refusal("not_joined")
        session.heard_s, session.present = self._out.now_s, True
        return conference, session

    def on_update(self, interest: Interest, name: MessageName) -> None:
        """A client publishes. Raises: Refusal, MalformedError."""
        signed = decode(interest.parameters, SignedUpdate)
        update = decode(signed.update, FpUpdate)
        conference_name, device = conference_and_device(name.parts)
        try:
            conference, session = self._session(conference_name, device, name.boot)
            self._admission.check_update(signed, update, session, name, now_s=self._out.now_s)
        except Refusal as refusal:
            self._out.reply(interest, UpdateAck("refused", refusal.reason, self._out.device, self._out.boot, 0))
            raise
        accepted_seq = max(session.accepted_seq, conference.log.view.seq(device, name.boot))
        if update.seq <= accepted_seq:
            self._out.counters["updates_repeated"] += 1
            self._keeper.ack(conference, session, interest.name, session.acks.get(update.seq, 0))
        elif update.seq > accepted_seq + 1:
            if len(session.held) < HELD_MAX:
                session.held[update.seq] = (signed, interest.name)
        else:
            self._accept(conference, session, update.seq, signed, interest.name)
            while (held := session.held.pop(session.accepted_seq + 1, None)) is not None:
                self._accept(conference, session, session.accepted_seq + 1, *held)

    def _accept(
        self, conference: Conference, session: ClientSession, seq: int, signed: SignedUpdate, interest_name: bytes
    ) -> None:
        conference.log.view.offer(signed, "push")
        entry = conference.log.append_own(conference.own, (signed,))
        session.remember_ack(seq, entry.seq)
        session.accepted_seq = seq
        self._out.counters["updates_accepted"] += 1
        self._on_accepted(conference, entry)
        self._keeper.ack(conference, session, interest_name, entry.seq)
        self.notify(conference, entry, except_device=session.device)

    def notify(self, conference: Conference, entry: StreamEntry, except_device: str = "") -> None:
        """Push an entry to every client that is there."""
        for device, session in conference.clients.items():
            if device == except_device or not session.present:
                continue
            if not session.enqueue(entry):
                self._out.counters["notification_queue_dropped"] += 1
            self._flush(conference, session)

    def _flush(self, conference: Conference, session: ClientSession) -> None:
        while session.queue and len(session.outstanding) < IN_FLIGHT_MAX:
            batch = session.next_batch()
            streams = {(entry.proxy, entry.boot) for entry in batch}
            vector = tuple(position for position in conference.log.vector() if position[:2] in streams)
            current = session.current(vector, conference.own.key)
            last = _before(batch)
            n = session.next_notification
            session.next_notification += 1
            session.outstanding.add(n)
            session.sent_s = self._out.now_s
            self._out.effects += self._out.consumer.express(
                ("notify", conference.name, session.device, n, session.boot),
                message_name(
                    node_prefix(session.device), NOTIFY, conference.name, self._out.device, boot=self._out.boot, seq=n
                ),
                now_s=self._out.now_s,
                peer=session.device,
                parameters=encode(Notification(last, current, tuple(batch))),
                attempts_max=6,
            )

    def on_notification_ack(self, conference: Conference, device: str, n: int) -> None:
        """A client has taken in notification *n*: there is room for the next."""
        session = conference.clients.get(device)
        if session is not None:
            session.outstanding.discard(n)
            session.heard_s, session.present = self._out.now_s, True
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
        decode(interest.parameters, ClientHeartbeat)
        self._session(*conference_and_device(name.parts), name.boot)

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
            self._out.reply(interest, UpdateAck("refused", refusal.reason, self._out.device, self._out.boot, 0))
            raise
        self._admission.check_update(signed, update, session, name, now_s=self._out.now_s)
        accepted_seq = max(session.accepted_seq, conference.log.view.seq(device, name.boot))
        if update.event != "leave" or update.seq != accepted_seq + 1:
            raise Refusal("close_out_of_order")
        self._accept(conference, session, update.seq, signed, interest.name)
        self.drop(conference, device)
        self._out.counters["closes"] += 1

    def notice_silence(self, conference: Conference, *, detection_time_s: float) -> None:
        """Clients not heard for the detection time are away; they are forgotten much later."""
        for device, session in list(conference.clients.items()):
            silence_s = self._out.now_s - session.heard_s
            if session.present and silence_s > detection_time_s:
                session.present = False
                session.queue.clear()
                self._out.counters["clients_away"] += 1
            elif silence_s > FORGET_AFTER * detection_time_s:
                self.drop(conference, device)

    def send_heartbeats(self, conference: Conference, *, always: bool) -> None:
        """Tell every quiet client where we are; *always*: the others too."""
        vector, interval_s = conference.log.vector(), self._out.config.liveness.desired_min_tx_s
        parameters = encode(ClientHeartbeat(vector_digest(vector), vector))
        for device, session in conference.clients.items():
            if not always and session.present and self._out.now_s - session.sent_s < 0.7 * interval_s:
                continue
            session.sent_s = self._out.now_s
            told = session.current(vector, conference.own.key)
            name = message_name(
                node_prefix(device),
                HEARTBEAT,
                conference.name,
                self._out.device,
                boot=self._out.boot,
                seq=self._out.next_number(),
            )
            beat = parameters if told is vector else encode(ClientHeartbeat(vector_digest(told), told))
            self._out.send_unanswered(name, beat)


def _before(batch: list[StreamEntry]) -> tuple[Position, ...]:
    """Return the positions just before the first entry of each stream in a batch."""
    first: dict[tuple[str, int], int] = {}
    for entry in batch:
        key = (entry.proxy, entry.boot)
        first[key] = min(first.get(key, entry.seq), entry.seq)
    return tuple((proxy, boot, seq - 1) for (proxy, boot), seq in sorted(first.items()))
