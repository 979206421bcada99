"""A UE in a conference without service proxies: a sync protocol tells which updates there are, and they are fetched by name.

It logs in as a service client does, and what it publishes is the same: signed FP updates, the first of which carries its
token. There is nobody who acks an update: it counts as accepted when it is in the publisher's own store, where all others
can fetch it. Who has left goes on giving out what he has published, as the last thing that he says would reach nobody else.

Revocations do not reach participants; a token holds until it expires.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.config import ClientConfig, PsyncConfig, SvsConfig
from proxy.core.baselines.key_ring import FetchKey, KeyRing
from proxy.core.baselines.psync import PsyncGroup
from proxy.core.baselines.publications import PublicationFetch, PublicationStore
from proxy.core.baselines.svs import SvsGroup
from proxy.core.baselines.sync_group import SyncGroup
from proxy.core.client_login import ClientLogin, LoginRefusedError
from proxy.core.client_outbox import ClientOutbox, ClientState
from proxy.core.consumer import Consumer
from proxy.core.events import (
    CarrierChanged,
    CloseRequested,
    Effect,
    Event,
    JoinRequested,
    NeighbourChanged,
    ObjectsScheduled,
    PacketReceived,
    PublishRequested,
    ScheduleEnded,
    ScheduleExtended,
    TimerExpired,
)
from proxy.core.objects.plane import OBJECT_EVENT, ObjectPlane
from proxy.core.own_updates import OwnUpdates
from proxy.core.positions import Positions
from proxy.core.publisher import PublishError, Unsent, check_limits
from proxy.core.timers import Timers
from proxy.core.timetable import Timetable
from proxy.core.trust import OBSERVER_EVENTS, PRESENCE_EVENTS, Refusal, place_of_message
from proxy.core.view import View
from proxy.records import Acked
from proxy.wire.lp import NackReason, decode_link_packet
from proxy.wire.message_names import CERTIFICATE, GROUP, OBJECT_ROOT, PUBLICATION, parse_message_name
from proxy.wire.messages import LoginReply, Sealed
from proxy.wire.packet import INTEREST, Data, Interest, decode_data, decode_interest
from proxy.wire.payload import decode
from proxy.wire.tlv import MalformedError

#: Events that only the participant itself publishes.
RESERVED_EVENTS: Final = PRESENCE_EVENTS


class Participant:
    """One device in one conference. Its only face leads to the forwarder of its UE."""

    def __init__(
        self, config: ClientConfig, sync: SvsConfig | PsyncConfig, *, device: str, boot: int, seed: int
    ) -> None:
        self.device, self.boot, self.conference = device, boot, config.conference
        self._out = out = ClientOutbox(config, device=device, boot=boot, seed=seed)
        self.positions = Positions()  #: of streams of service proxies: there are none
        self.view = View(conference=self.conference, trust=out.trust, on_refusal=out.count_refusal)
        self._timers: Timers[str] = Timers()  #: "login" and "expiry"
        self._timetable = Timetable()
        self._login = ClientLogin(out, self._timers, needs_proxy=False)
        self._own = OwnUpdates(out, self.view)
        self._queue: deque[Unsent] = deque()  #: made while we have no token that is good
        self._is_announced = False  #: our update `join` is out and no `leave` is
        self._objects = ObjectPlane(out, self.view.verifier)
        self._consumer: Consumer[FetchKey] = Consumer(out.chance)
        self._key_ring = KeyRing(out, self._consumer, on_key=self._on_key)
        self._store = PublicationStore(out, sync)
        self._fetch = PublicationFetch(out, self._consumer, sync, view=self.view, on_update=self._objects.on_update)
        self._group: SyncGroup
        if isinstance(sync, SvsConfig):
            self._group = SvsGroup(out, sync, self._key_ring, on_news=self._on_news)
        else:
            self._group = PsyncGroup(out, sync, self._key_ring, on_news=self._on_news)

    # ------------------------------------------------------------------ driver's side

    @property
    def state(self) -> ClientState:
        return self._out.state

    @property
    def proxy(self) -> str:
        """Return nothing: there is none."""
        return ""

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far, by name."""
        self._out.counters["publications_kept"] = len(self._store)
        return self._out.counters

    @property
    def deadline_s(self) -> float | None:
        """The earliest of what the sync protocol, retransmissions and scheduled updates wait for."""
        wishes = (
            self._timers.next_s, self._out.consumer.next_s, self._consumer.next_s, self._timetable.next_s,
            self._objects.next_s, self._fetch.next_s, self._group.next_s,
        )  # fmt: skip
        return min((at for at in wishes if at is not None), default=None)

    @property
    def unacked(self) -> int:
        return 0

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def fetching(self) -> int:
        """How many objects and live streams of others are under way to here."""
        return self._objects.fetching

    @property
    def published_seq(self) -> int:
        """Sequence number of the last update made, queued or not."""
        return self._own.seq + len(self._queue)

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have effects performed as they come, in the same order, instead of returned by `handle`."""
        self._out.perform_at_once(perform)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order.

        Raises: PublishError where an update cannot be accepted from the user.
        """
        self._out.begin(now_s)
        match event:
            case PacketReceived(_, packet):
                try:
                    self._on_packet(packet)
                except MalformedError:
                    self._out.counters["malformed"] += 1
                except Refusal as refusal:
                    self._out.count_refusal(refusal.reason)
            case TimerExpired():
                self._on_timer()
            case PublishRequested(kind, body, object_name):
                if kind in RESERVED_EVENTS:
                    raise PublishError(f"{kind!r} is published by the client itself; choose another event type")
                self._publish(kind, body, object_name)
            case ScheduleExtended(updates):
                self._timetable.add_updates(updates)
            case ObjectsScheduled():
                self._timetable.add_objects(event)
            case ScheduleEnded():
                self._timetable.clear()
            case JoinRequested():
                if self.state in ("idle", "closed", "refused"):
                    self._out.enter("login", "")
                    self._login.request()
            case CloseRequested():
                self._close()
            case NeighbourChanged(_, True):
                self._group.on_face_up()
            case NeighbourChanged() | CarrierChanged():
                pass
        return self._out.effects.take()

    # ------------------------------------------------------------------ packets

    def _on_packet(self, packet: bytes) -> None:
        link_packet = decode_link_packet(packet)
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            self._on_nack(decode_interest(fragment), link_packet.nack_reason)
        elif fragment[0] == INTEREST:
            self._on_interest(decode_interest(fragment))
        else:
            self._on_data(decode_data(fragment), link_packet.hop_count)

    def _on_nack(self, interest: Interest, reason: int) -> None:
        if interest.name.startswith(OBJECT_ROOT):
            self._objects.on_nack(interest, NackReason(reason) if reason in set(NackReason) else NackReason.NONE)
        elif interest.name.startswith(GROUP):
            self._group.on_nack(interest)
        elif self._consumer.on_nack(interest, now_s=self._out.now_s) is None:
            self._out.consumer.on_nack(interest, now_s=self._out.now_s)

    def _on_interest(self, interest: Interest) -> None:
        if interest.name.startswith(OBJECT_ROOT):
            self._objects.on_interest(interest)
        elif interest.name.startswith(GROUP):
            self._group.on_interest(interest)
        else:
            kind = parse_message_name(interest.name).kind
            if kind == PUBLICATION:
                self._store.on_interest(interest)
            elif kind == CERTIFICATE:
                self._key_ring.on_interest(interest)
            else:
                raise MalformedError("not a message for a participant")

    def _on_data(self, data: Data, hop_count: int | None) -> None:
        out = self._out
        if data.name.startswith(OBJECT_ROOT):
            self._objects.on_data(data, hop_count)
        elif (pending := self._consumer.asked(data)) is not None:
            what, device, _, _ = pending.key
            if what == "publication":
                signed = self._fetch.check_answer(pending, data)
                self._consumer.on_data(data, now_s=out.now_s)
                self._fetch.take(pending, signed)
            else:
                verifier = self._key_ring.check_answer(device, data)
                self._consumer.on_data(data, now_s=out.now_s)
                self._key_ring.take(device, verifier)
        elif out.consumer.asked(data) is not None:
            place = place_of_message(parse_message_name(data.name))
            reply = out.trust.open_from_login(decode(data.content, Sealed), LoginReply, place)
            out.consumer.on_data(data, now_s=out.now_s)
            self._on_login_reply(reply)
        elif not self._group.on_data(data):
            out.counters["unsolicited"] += 1

    def _on_news(self, device: str, boot: int, seq: int) -> None:
        """There are publications of a device up to *seq*."""
        self._key_ring.meet(device)
        self._fetch.note(device, boot, seq)

    def _on_key(self, device: str) -> None:
        self._group.on_key(device)

    def _on_timer(self) -> None:
        now_s = self._out.now_s
        for kind, body_or_size in self._timetable.due_updates(now_s):
            try:
                self._publish(kind, body_or_size if isinstance(body_or_size, bytes) else bytes(body_or_size), "")
            except PublishError:
                self._out.counters["publish_refused"] += 1
        for what in self._timetable.due_objects(now_s):
            self._publish_object(*what)
        self._objects.on_timer()
        effects, given_up = self._out.consumer.on_timer(now_s)
        self._out.effects.extend(effects)
        if given_up:
            self._login.wait()
        effects, unanswered = self._consumer.on_timer(now_s)
        self._out.effects.extend(effects)
        for request in unanswered:
            if request.key[0] == "certificate":
                self._key_ring.on_given_up()
        self._fetch.on_timer()
        self._group.on_timer()
        for timer in self._timers.pop_due(now_s):
            if timer == "expiry":
                self._expire()
            elif self.state not in ("idle", "closed", "refused"):
                self._login.request()

    # ------------------------------------------------------------------ login

    def _on_login_reply(self, reply: LoginReply) -> None:
        if self.state in ("idle", "closed", "refused"):
            return
        try:
            self._login.on_reply(reply)
        except LoginRefusedError as refused:
            self._login.stop()
            self._fetch.stop()
            self._out.enter("refused", str(refused))
            return
        is_back = self.state == "login"
        self._group.begin()
        if is_back:
            self._out.enter("joined", "logged in")
        if not self._is_announced:
            self._is_announced = True
            self._release(Unsent("join", b"", ""))
        else:
            self._release(Unsent("renew", b"", ""))
        while self._queue:
            self._release(self._queue.popleft())
        self._fetch.start()

    def _expire(self) -> None:
        """Our token has run out: without one we neither read nor publish."""
        if self.state == "joined":
            self._fetch.stop()
            self._out.enter("login", "token expired")
            if not self._login.is_asking:
                self._login.request()

    # ------------------------------------------------------------------ publishing and leaving

    def _publish(self, event: str, body: bytes, object_name: str) -> None:
        check_limits(event, body, object_name)
        self._check_may_publish()
        config = self._out.config
        if config.role == "observer" and event not in OBSERVER_EVENTS:
            raise PublishError(f"{self.device} is an observer; only participants publish")
        unsent = Unsent(event, body, object_name)
        if self.state == "joined":
            self._release(unsent)
        elif len(self._queue) >= config.queue_max:
            raise PublishError(f"{self.device} has {len(self._queue)} updates waiting for a token")
        else:
            self._queue.append(unsent)

    def _check_may_publish(self) -> None:
        if not self._is_announced or self.state not in ("login", "joined"):
            raise PublishError(f"{self.device} is not joined ({self.state})")

    def _publish_object(self, size: float, *stream: float) -> None:
        """Publish an object of so many bytes; with *stream* a live one of so many frames."""
        try:
            self._check_may_publish()
        except PublishError:
            self._out.counters["publish_refused"] += 1
            return
        if stream:
            frame_bytes, interval_s, deadline_s = stream
            uri, body = self._objects.publish_stream(
                frames=int(size), frame_bytes=int(frame_bytes), interval_s=interval_s, deadline_s=deadline_s
            )
        else:
            uri, body = self._objects.publish(int(size))
        self._publish(OBJECT_EVENT, body, uri)

    def _release(self, unsent: Unsent) -> None:
        """Make an update, keep it for all to fetch, and let the group know."""
        out = self._out
        signed = self._own.make(unsent.event, unsent.body, unsent.object_name)
        self._store.put(signed, self._own.seq)
        self._group.publish(self._own.seq)
        self._own.take_in(signed)
        out.log(Acked(out.now_s, out.conference, out.device, out.boot, self._own.seq, "accepted", out.device))

    def _close(self) -> None:
        if self.state not in ("login", "joined"):
            raise PublishError(f"{self.device} is not joined ({self.state})")
        self._login.stop()
        self._fetch.stop()
        self._objects.stop()
        self._queue.clear()
        if self.state == "joined":
            self._out.enter("closing", "asked for")
            self._release(Unsent("leave", b"", ""))
        self._is_announced = False
        self._out.enter("closed", "asked for")
