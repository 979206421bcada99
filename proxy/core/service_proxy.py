"""The service proxy of a node, for all its conferences: takes packets apart and hands them to the half they are for.

In mode ``central`` there is no other proxy: this is the focus of a star (RFC 4353, section 3), which accepts every update and
notifies every client (RFC 4575). The position in its stream is the version, which grows by one with each update; a
notification is partial, saying from which version to which it leads; who joins gets the full state, and who sees a gap asks
for what is missing, of which RFC 4575 would send the full state again. Notifications are not held back (section 3.10 of the
RFC recommends 5 s between two), repeated until they are acked, and an update is acked as in the other modes.

Control plane only. Its only face leads to the forwarder of its CSR, or of the UE that serves a network without one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proxy.config import ProxyConfig
from proxy.core.catch_up import CatchUp
from proxy.core.client_side import ClientSide
from proxy.core.conference import Conference
from proxy.core.digest_log import DigestLog
from proxy.core.events import (
    CarrierChanged,
    Effect,
    Event,
    PacketReceived,
    Persisted,
    PersistFailed,
    Restored,
    StoredConference,
    TimerExpired,
)
from proxy.core.face import JITTER_RATIO
from proxy.core.hand_over import HandOver
from proxy.core.liveness import detection_time_s
from proxy.core.log_keeper import LogKeeper
from proxy.core.outbox import Outbox, RequestKey
from proxy.core.packing import heartbeats
from proxy.core.publishing_pace import PublishingPace
from proxy.core.snapshot_transfer import SnapshotFetch
from proxy.core.starvation import Starvation
from proxy.core.stream_sync import StreamSync
from proxy.core.timers import Timers
from proxy.core.trust import Refusal, place_of, place_of_message, seal
from proxy.core.view import View
from proxy.wire.lp import decode_link_packet
from proxy.wire.message_names import (
    CLOSE,
    HEARTBEAT,
    JOIN,
    KEYS,
    PRESENCE,
    PUSH,
    RECOVER,
    REVOKE,
    SERVE,
    SNAPSHOT,
    SYNC,
    UPDATE,
    parse_message_name,
)
from proxy.wire.messages import ConferenceState, KeysReply, ProxyHeartbeat, RecoveryReply, Sealed, StreamEntry
from proxy.wire.packet import INTEREST, Data, Interest, decode_data, decode_interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: Where no stream is followed with sync interests, heartbeats to all proxies may be so many times as far apart, as long as no
#: entry has come: pushes go by all ways there are, and of such heartbeats, too, one may get lost within the detection time.
QUIET_STRETCH = 1.4


class ServiceProxy:
    """Towards its clients: ``ClientSide``. Towards the other proxies: ``StreamSync``."""

    def __init__(self, config: ProxyConfig, *, device: str, boot: int, seed: int) -> None:
        self.conferences: dict[str, Conference] = {}
        self._out = Outbox(config, device=device, boot=boot, seed=seed)
        self._keeper = LogKeeper(self._out, self.conferences)
        self._catch_up = CatchUp(self._out, self.conferences)
        self._clients = ClientSide(
            self._out,
            self.conferences,
            open_conference=self._open_conference,
            on_accepted=self._on_accepted,
            keeper=self._keeper,
            catch_up=self._catch_up,
        )
        detect_s = detection_time_s(
            desired_min_tx_s=config.liveness.desired_min_tx_s, detect_mult=config.liveness.detect_mult
        )
        self._detection_time_s = detect_s
        self.hand_over = HandOver(
            self._out, self.conferences, self._clients, detection_time_s=detect_s, on_resumed=self._on_resumed
        )
        self._sync = StreamSync(
            self._out,
            self.conferences,
            on_entry=self._on_entry,
            on_jump=lambda conference: self._clients.send_heartbeats(conference, always=True),
            open_conference=self._open_conference,
            on_replicated=self._keeper.on_replicated,
            catch_up=self._catch_up,
            on_vector=self.hand_over.on_vector,
        )
        self._timers: Timers[str] = Timers()
        self._timers.set("upkeep", 0.0)
        self._timers.set("heartbeat", 0.0)
        self._beats = 0
        self._beat_s = float("-inf")  #: when the last one went to all proxies
        self._starvation = Starvation()

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far, by name."""
        return self._out.counters

    def armed_interests(self) -> dict[str, int]:
        """Return per conference how many sync interests of ours are pending for what does not exist yet."""
        counts: dict[str, int] = {}
        for kind, conference, *_ in self._out.consumer.armed_keys():
            if kind == "sync":
                counts[conference] = counts.get(conference, 0) + 1
        return counts

    @property
    def deadline_s(self) -> float | None:
        """The earliest of heartbeats, retransmissions, and the next attempt at a disk that has failed."""
        wishes = (self._timers.next_s, self._out.consumer.next_s, self._keeper.retry_s, self._clients.gathered_s)
        return min((at for at in wishes if at is not None), default=None)

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have effects performed as they come, in the same order, instead of returned by `handle`.

        An update goes out to the other proxies before the notifications to our clients are made, and those go out before
        the updates in them are verified once more.
        """
        self._out.perform_at_once(perform)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order."""
        self._out.begin(now_s)
        more_to_come = False
        if isinstance(event, PacketReceived):
            self._clients.collects = more_to_come = event.more
            try:
                self._on_packet(event.packet)
            except MalformedError:
                self.counters["malformed"] += 1
            except Refusal as refusal:
                self._out.count_refusal(refusal.reason)
        else:
            self._on_other_event(event)
        if not more_to_come:
            self._clients.send_collected()
            self._keeper.flush()
        return self._out.left_to_do()

    def _on_other_event(self, event: Event) -> None:
        match event:
            case TimerExpired():
                self._on_timer()
            case CarrierChanged(_, up):
                if up:  # attached again: whatever was pending in the old forwarder is gone
                    self._beat_at_once()
            case Persisted(token):
                self._keeper.on_persisted(token)
            case PersistFailed():
                self._keeper.on_failed(event)
            case Restored(stored):
                self._restore(stored)
            case _:
                raise TypeError(f"not for a service proxy: {event!r}")

    def _restore(self, stored: tuple[StoredConference, ...]) -> None:
        """Take back the logs of earlier boots; what the disk has lost, the other proxies' heartbeats will show."""
        dropped = 0
        for one in stored:
            conference = self._open_conference(one.name)
            dropped += conference.log.restore(one)
            self.counters["log_entries_restored"] += conference.log.history_entries
        if dropped:
            self.counters["log_entries_dropped"] += dropped
            self._keeper.start_anew()

    def _on_packet(self, packet: bytes) -> None:
        link_packet = decode_link_packet(packet)
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            self._out.consumer.on_nack(decode_interest(fragment), now_s=self._out.now_s)
        elif fragment[0] == INTEREST:
            self._on_interest(decode_interest(fragment), is_lossy_path=link_packet.is_lossy_path)
        else:
            self._on_data(decode_data(fragment))

    def _on_interest(self, interest: Interest, *, is_lossy_path: bool) -> None:
        name = parse_message_name(interest.name)
        kind = name.kind
        if kind == SERVE:
            self.hand_over.on_request(interest, name)
        elif kind == JOIN:
            self._clients.on_join(interest, name, admits=self.hand_over.admits)
        elif kind == SYNC:
            self._sync.on_sync_interest(interest, name)
        elif not self.hand_over.takes_part:
            self.counters["ignored_after_hand_over"] += 1  # what comes from here to all is for those who serve
        elif kind == HEARTBEAT:
            self._sync.on_heartbeat(interest, name, is_lossy_path=is_lossy_path)
        elif kind == PRESENCE:
            self._clients.on_heartbeat(interest, name)
        elif kind == UPDATE:
            self._clients.on_update(interest, name)
        elif kind == PUSH:
            self._sync.on_push(interest, name)
        elif kind == RECOVER:
            self._sync.on_recovery_request(interest, name)
        elif kind == SNAPSHOT:
            self._catch_up.on_snapshot_interest(interest, name)
        elif kind == CLOSE:
            self._clients.on_close(interest, name)
        elif kind == KEYS:
            self._sync.on_keys_request(interest, name)
        elif kind == REVOKE:
            if self._clients.on_revocations(interest, name):
                self.hand_over.on_revoked()
        else:
            raise MalformedError("not a message for a service proxy")

    def _on_data(self, data: Data) -> None:
        pending = self._out.consumer.asked(data)
        if pending is None:
            if self.hand_over.takes_part:
                self._sync.on_late_data(data)
            return
        kind, conference_name, who, n, _ = pending.key
        recovery: RecoveryReply | None = None
        if kind == "recover":  # what is not believed leaves the request pending
            place = place_of_message(parse_message_name(data.name))
            recovery = self._out.trust.open_from_proxy(decode(data.content, Sealed), RecoveryReply, place, who)
        self._out.consumer.on_data(data, now_s=self._out.now_s)
        conference = self.conferences.get(conference_name)
        if conference is None:
            return
        if kind == "sync":
            self._sync.on_sync_update(conference, pending, data)
        elif kind == "notify":
            self._clients.on_notification_ack(conference, who, n)
        elif kind == "segment":
            self._sync.on_segment(conference, n, data.content)
        elif kind == "keys":
            self._sync.on_keys_reply(conference, decode(data.content, KeysReply))
        elif recovery is not None:
            self._sync.on_recovery_reply(conference, recovery, who)

    def _on_timer(self) -> None:
        self._starvation.note(self.deadline_s, self._out.now_s)
        self._keeper.retry()
        effects, given_up = self._out.consumer.on_timer(self._out.now_s)
        self._out.effects.extend(effects)
        for request in given_up:
            kind, conference_name, who, n, _ = request.key
            conference = self.conferences.get(conference_name)
            if conference is not None and kind == "notify":
                self._clients.on_notification_given_up(conference, who, n)
            elif conference is not None and kind == "segment":
                self._sync.give_up_fetch(conference)
            elif conference is not None and kind == "keys":
                self._sync.ask_for_keys(conference)
            elif conference is not None and kind == "sync":
                self._sync.recover_from_anyone(conference)
            elif conference is not None:
                self._sync.recover_from_anyone(conference, but=who)
        self._clients.send_gathered()
        for timer in self._timers.pop_due(self._out.now_s):
            if not self.hand_over.takes_part:
                continue
            if timer == "upkeep":
                self._look_after()
            else:
                self._beat()

    def _next_s(self, *, stretch: float = 1.0) -> float:
        """Return when to do what is done once per interval, or *stretch* intervals."""
        interval_s = self._out.config.liveness.desired_min_tx_s * stretch
        return self._out.now_s + interval_s * (1.0 - JITTER_RATIO * self._out.chance.uniform())

    def _look_after(self) -> None:
        """Once per interval: tell every quiet client where we are; notice who has gone silent."""
        now_s = self._out.now_s
        self._timers.set("upkeep", self._next_s())
        detection_time_s = self._detection_time_s * self._starvation.stretch
        for conference in self.conferences.values():
            self._sync.notice_silence(conference, since_s=now_s - detection_time_s)
            self._sync.narrow(conference)
            conference.pace.look(now_s)
            self._sync.ask_for_keys(conference)
            self._clients.notice_silence(conference, detection_time_s=detection_time_s)
            self._clients.send_heartbeats(conference, always=False)
            conference.frozen.forget_idle(now_s=now_s)
            conference.armed = {seq: until_s for seq, until_s in conference.armed.items() if until_s > now_s}
        self.hand_over.advance()

    def _beat(self) -> None:
        """Tell all proxies where we are."""
        if self._out.config.mode == "central":
            return  # there is no other proxy to hear it
        self._beat_s = self._out.now_s
        is_quiet = not any(self._sync.follows(conference) for conference in self.conferences.values())
        self._timers.set("heartbeat", self._next_s(stretch=QUIET_STRETCH if is_quiet else 1.0))
        states = [
            ConferenceState(
                conference.name,
                conference.log.state_digest(),
                conference.log.vector(),
                is_armed=self._sync.wants_armed(conference),
            )
            for conference in self.conferences.values()
        ]
        for batch in heartbeats(states):
            self._beats += 1
            place = place_of(HEARTBEAT, self._out.device, boot=self._out.boot, seq=self._beats)
            beat = seal(self._out.signer, ProxyHeartbeat(batch), place)
            self._out.send_to_all(HEARTBEAT, encode(beat), self._out.device, seq=self._beats)

    def _open_conference(self, name: str) -> Conference:
        conference = self.conferences.get(name)
        if conference is None:
            view = View(conference=name, trust=self._out.trust, on_refusal=self._out.count_refusal)
            log = DigestLog(history_max_entries=self._out.config.history_max_entries, conference=name, view=view)
            fetch = SnapshotFetch(
                self._out.consumer,
                partial(_segment_key, name),
                conference=name,
                asker=f"{self._out.device} {self._out.boot}",
            )
            own = log.stream(self._out.device, self._out.boot)
            conference = Conference(name, log, own, fetch, PublishingPace(self._out.now_s))
            self.conferences[name] = conference
            self._beat_at_once()  # the others must hear of us
        return conference

    def _on_resumed(self) -> None:
        self._beat_at_once()  # the others must hear of us, and tell us what we missed

    def _beat_at_once(self) -> None:
        for timer in ("upkeep", "heartbeat"):
            self._timers.set(timer, self._out.now_s)

    def _on_entry(self, conference: Conference, entry: StreamEntry) -> None:
        self._beat_after_entry()
        self._clients.notify(conference, entry)

    def _beat_after_entry(self) -> None:
        """Whoever has not got the entry that is new here is to learn of it within an interval."""
        due_s = self._timers.due_s("heartbeat")
        if due_s is not None and due_s > self._out.now_s + self._out.config.liveness.desired_min_tx_s:
            self._timers.set("heartbeat", self._next_s())

    def _on_accepted(self, conference: Conference, entry: StreamEntry) -> None:
        is_pushed = self._sync.publish(conference, entry)
        if conference.pace.published(self._out.now_s):
            self._timers.set("heartbeat", self._out.now_s)  # the others must arm sync interests
        elif is_pushed and self._out.now_s - self._beat_s < self._out.config.liveness.desired_min_tx_s:
            self._timers.set("heartbeat", self._next_s())  # it went to all of them, and is as good as one
        else:
            self._beat_after_entry()


def _segment_key(conference: str, number: int) -> RequestKey:
    return ("segment", conference, "", number, 0)
