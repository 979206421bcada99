"""The service client of a UE, joined from its parts: logs in, joins, publishes, receives, and keeps its session alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from proxy.config import ClientConfig
from proxy.core.client_join import ClientJoin
from proxy.core.client_login import ClientLogin, LoginRefusedError
from proxy.core.client_outbox import ClientOutbox, ClientState, RequestKey
from proxy.core.consumer import Pending
from proxy.core.events import (
    LOCAL_FACE,
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
    Send,
    TimerExpired,
)
from proxy.core.face import JITTER_RATIO
from proxy.core.face_table import IN_STEP_RATIO
from proxy.core.liveness import detection_time_s
from proxy.core.objects.plane import OBJECT_EVENT, ObjectPlane
from proxy.core.own_proxy import TIMER as SERVE_TIMER
from proxy.core.own_proxy import OwnProxy
from proxy.core.packing import KNOWN_MAX_BYTES, cut
from proxy.core.positions import Positions
from proxy.core.publisher import Publisher, PublishError, check_limits
from proxy.core.receiver import Receiver
from proxy.core.session_key import check_ack
from proxy.core.starvation import Starvation
from proxy.core.timers import Timers
from proxy.core.timetable import Timetable
from proxy.core.trust import OBSERVER_EVENTS, Refusal, place_of_message
from proxy.core.view import View
from proxy.wire.lp import NackReason, decode_link_packet
from proxy.wire.message_names import HEARTBEAT, NOTIFY, OBJECT_ROOT, node_prefix, parse_message_name
from proxy.wire.messages import (
    HANDING_OVER,
    ClientHeartbeat,
    JoinReply,
    KeysReply,
    LoginReply,
    Notification,
    RecoveryReply,
    Sealed,
    ServeReply,
    UpdateAck,
)
from proxy.wire.packet import INTEREST, Data, Interest, decode_data, decode_interest, encode_data
from proxy.wire.payload import decode
from proxy.wire.tlv import MalformedError

__all__ = ["PublishError", "ServiceClient"]

#: Events that only the client itself publishes.
RESERVED_EVENTS: Final = OBSERVER_EVENTS
#: What a proxy refuses because of the token; a new one helps.
TOKEN_REFUSALS: Final = frozenset({"token_expired", "token_forged"})
#: What the answers are that are believed for what is in them. (A segment is no message.)
PLAIN_ANSWERS: dict[str, type[Struct]] = {"keys": KeysReply, "serve": ServeReply}


class ServiceClient:
    """One device in one conference. Its only face leads to the forwarder of its UE."""

    def __init__(self, config: ClientConfig, *, device: str, boot: int, seed: int) -> None:
        self.device, self.boot, self.conference = device, boot, config.conference
        self._out = out = ClientOutbox(config, device=device, boot=boot, seed=seed)
        self.positions = Positions()
        self.view = View(conference=self.conference, trust=out.trust, on_refusal=out.count_refusal)
        self._interval_s = config.liveness.desired_min_tx_s
        self._detection_time_s = detection_time_s(
            desired_min_tx_s=self._interval_s, detect_mult=config.liveness.detect_mult
        )
        self._timers: Timers[str] = Timers()
        self._timetable = Timetable()
        #: (number, size) of an object; (number, frames, bytes of each, interval, deadline) of a live stream
        self._login = ClientLogin(out, self._timers)
        self._publisher = Publisher(out, view=self.view, positions=self.positions)
        self._objects = ObjectPlane(out, self.view.verifier)
        self._receiver = Receiver(out, view=self.view, positions=self.positions, on_update=self._objects.on_update)
        self._join = ClientJoin(
            out,
            self._timers,
            publisher=self._publisher,
            receiver=self._receiver,
            interval_s=self._interval_s,
            detection_time_s=self._detection_time_s,
        )
        self._own_proxy = (
            OwnProxy(out.consumer, self._timers, device=device, boot=boot, signer=out.signer)
            if config.own_proxy
            else None
        )
        self._starvation = Starvation()
        self._leaving = False  #: asked to close, as soon as the session is whole again

    # ------------------------------------------------------------------ driver's side

    @property
    def state(self) -> ClientState:
        return self._out.state

    @property
    def proxy(self) -> str:
        """The one we are joined at, or joining; empty before the first."""
        return self._out.proxy

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far, by name."""
        return self._out.counters

    @property
    def deadline_s(self) -> float | None:
        """The earliest of heartbeats, retransmissions and scheduled updates."""
        wishes = (
            self._timers.next_s, self._out.consumer.next_s, self._timetable.next_s,
            self._objects.next_s,
        )  # fmt: skip
        return min((at for at in wishes if at is not None), default=None)

    @property
    def unacked(self) -> int:
        return self._publisher.unacked

    @property
    def queued(self) -> int:
        return self._publisher.queued

    @property
    def fetching(self) -> int:
        """How many objects and live streams of others are under way to here."""
        return self._objects.fetching

    @property
    def published_seq(self) -> int:
        """Sequence number of the last update made, sent or not."""
        return self._publisher.published_seq

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have effects performed as they come, in the same order, instead of returned by `handle`."""
        self._out.perform_at_once(perform)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order.

        Raises: PublishError where an update cannot be accepted from the user.
        """
        self._out.begin(now_s)
        if isinstance(event, PacketReceived):
            try:
                self._on_packet(event.packet)
            except MalformedError:
                self.counters["malformed"] += 1
            except Refusal as refusal:
                self._out.count_refusal(refusal.reason)
        else:
            self._on_other_event(event)
        if self._leaving and self.state == "joined":
            self._leaving = False
            self._close()
        return self._out.effects.take()

    def _on_other_event(self, event: Event) -> None:
        """Raises: PublishError."""
        match event:
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
                self._request_login()
            case CloseRequested():
                self._close()
            case NeighbourChanged(node, up):
                self._join.on_neighbour(node, up=up)
            case CarrierChanged():
                pass  # the forwarder deals with it; what concerns us it tells as a neighbour's change

    def _on_packet(self, packet: bytes) -> None:
        link_packet = decode_link_packet(packet)
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            interest = decode_interest(fragment)
            if interest.name.startswith(OBJECT_ROOT):
                self._objects.on_nack(interest, link_packet.nack_reason)
                return
            pending = self._out.consumer.on_nack(interest, now_s=self._out.now_s)
            if pending is not None and pending.key[0] in ("join", "move"):
                self._join.on_nack(pending.key[0])
            elif link_packet.nack_reason == NackReason.NO_ROUTE and interest.name.startswith(node_prefix(self.proxy)):
                self._join.on_no_route()  # whatever it was that we told or asked our proxy
        elif fragment[0] == INTEREST:
            self._on_interest(decode_interest(fragment))
        else:
            data = decode_data(fragment)
            if data.name.startswith(OBJECT_ROOT):
                self._objects.on_data(data, link_packet.hop_count)
                return
            pending = self._out.consumer.asked(data)
            if pending is None:
                self.counters["unsolicited"] += 1
            else:
                answer = self._answer_in(data, pending)
                self._out.consumer.on_data(data, now_s=self._out.now_s)
                self._on_answer(pending, answer)

    def _answer_in(self, data: Data, pending: Pending[RequestKey]) -> Struct | bytes:
        """Return what an answer says. Raises: Refusal, MalformedError; then what was asked is still pending."""
        kind = pending.key[0]
        if kind in ("join", "move", "recover"):
            place = place_of_message(parse_message_name(data.name))
            opened: type[Struct] = RecoveryReply if kind == "recover" else JoinReply
            return self._out.trust.open_from_proxy(decode(data.content, Sealed), opened, place, pending.peer)
        if kind == "login":
            place = place_of_message(parse_message_name(data.name))
            return self._out.trust.open_from_login(decode(data.content, Sealed), LoginReply, place)
        if kind in ("update", "close"):
            ack = decode(data.content, UpdateAck)
            check_ack(ack, data.name, self._out.session_key, self._out.trust, pending.peer)
            return ack
        plain = PLAIN_ANSWERS.get(kind)
        return data.content if plain is None else decode(data.content, plain)

    def _on_answer(self, pending: Pending[RequestKey], answer: Struct | bytes) -> None:
        kind, seq = pending.key
        if pending.peer == self.proxy and kind not in ("join", "serve"):
            self._hear()
        match answer:
            case LoginReply():
                self._on_login_reply(answer)
            case JoinReply() if kind == "move":
                self._join.on_move_reply(pending, answer)
            case JoinReply():
                self._on_join_reply(answer)
            case RecoveryReply():
                self._receiver.take_missed(answer)
            case ServeReply() if self._own_proxy is not None:
                self._own_proxy.on_reply(answer, now_s=self._out.now_s)
            case KeysReply():
                self._receiver.on_keys_reply(answer)
            case UpdateAck() if kind == "update":
                self._on_ack(seq, answer)
            case UpdateAck():
                self._on_close_reply(answer)
            case bytes():
                self._receiver.on_segment(seq, answer)

    def _on_timer(self) -> None:
        now_s = self._out.now_s
        self._starvation.note(self.deadline_s, now_s)
        for kind, body_or_size in self._timetable.due_updates(now_s):
            try:
                self._publish(kind, body_or_size if isinstance(body_or_size, bytes) else bytes(body_or_size), "")
            except PublishError:
                self.counters["publish_refused"] += 1
        for what in self._timetable.due_objects(now_s):
            self._publish_object(*what)
        self._objects.on_timer()
        effects, given_up = self._out.consumer.on_timer(now_s)
        self._out.effects.extend(effects)
        for request in given_up:
            if request.key[0] in ("join", "move"):
                self._join.on_given_up(request.key[0])
            elif request.key[0] == "close":
                self._leave("no close reply")
            elif request.key[0] == "login":
                self._login.wait()
            elif request.key[0] == "segment":
                self._receiver.give_up_fetch()
            elif request.key[0] == "serve" and self._own_proxy is not None:
                self._own_proxy.on_given_up()
                if self._leaving and self.state == "joined" and self.proxy == self.device:
                    self._join.rejoin("no answer")  # or we would take leave of nobody
        for timer in self._timers.pop_due(now_s):
            if timer == "heartbeat":
                self._beat()
            elif timer == "expiry":
                self._expire()
            elif timer == SERVE_TIMER and self._own_proxy is not None:
                self._out.effects.extend(self._own_proxy.ask(now_s=now_s))
            elif timer == "next":
                self._join.on_waited()
            elif timer == "return":
                self._join.look_for_better_proxy()
            elif timer != "login":
                self._notice_silence()
            elif self.state not in ("idle", "closed", "refused"):
                self._login.request()

    # ------------------------------------------------------------------ login and join

    def _request_login(self) -> None:
        if self.state in ("idle", "closed", "refused"):
            self._leaving = False
            self._out.proxy = ""  # wherever we were before we left, the nearest is the first to ask
            if self._own_proxy is not None:
                self._out.effects.extend(self._own_proxy.serve(now_s=self._out.now_s))
            self._out.enter("login", "")
            self._login.request()

    def _on_login_reply(self, reply: LoginReply) -> None:
        if self.state in ("idle", "closed", "refused"):
            return
        try:
            self._join.assign(self._login.on_reply(reply))
        except LoginRefusedError as refused:
            self._end(str(refused))
            return
        if self._publisher.is_announced and self.state != "closing":
            self._publisher.renew()
        elif self._publisher.is_admitted and self.state == "joined":
            self._join.rejoin("token renewed")  # of which no update tells our proxy
        if self.state == "login":
            self._join.start("logged in")
        else:
            self._join.plan_return()
            self._publisher.pump()

    def _expire(self) -> None:
        """Our token has run out; without one there is nothing to do but to ask for another."""
        if self.state == "closing":
            self._leave("token expired")
        elif self.state in ("joining", "joined", "suspect"):
            self._out.stop_asking("join", "move")
            self._receiver.stop_asking()
            self._publisher.stop_asking()
            self._out.enter("login", "token expired")
            if not self._login.is_asking:
                self._login.request()

    def _end(self, reason: str) -> None:
        """We are out, and asking again does not help."""
        self._login.stop()
        self._out.stop_asking("close", "join", "move")
        self._receiver.stop_asking()
        self._publisher.stop_asking()
        self._out.enter("refused", reason)

    def _on_join_reply(self, reply: JoinReply) -> None:
        self._out.heard_s = self._out.now_s
        if reply.granted:
            self._join.on_reply(reply)
        elif reply.reason in TOKEN_REFUSALS:
            self._expire()
        elif reply.reason == HANDING_OVER:
            self._join.on_sent_on()
        else:
            self._end(reply.reason)

    # ------------------------------------------------------------------ publishing and leaving

    def _publish(self, event: str, body: bytes, object_name: str) -> None:
        check_limits(event, body, object_name)
        self._check_may_publish()
        self._publisher.publish(event, body, object_name)

    def _check_may_publish(self) -> None:
        if not self._publisher.is_admitted or self._leaving or self.state in ("closing", "closed", "refused"):
            raise PublishError(f"{self.device} is not joined ({self.state})")

    def _publish_object(self, size: float, *stream: float) -> None:
        """Publish an object of so many bytes; with *stream* a live one of so many frames."""
        try:
            self._check_may_publish()
        except PublishError:
            self.counters["publish_refused"] += 1
            return
        if stream:
            frame_bytes, interval_s, deadline_s = stream
            uri, body = self._objects.publish_stream(
                frames=int(size), frame_bytes=int(frame_bytes), interval_s=interval_s, deadline_s=deadline_s
            )
        else:
            uri, body = self._objects.publish(int(size))
        self._publish(OBJECT_EVENT, body, uri)

    def _on_ack(self, seq: int, ack: UpdateAck) -> None:
        if ack.level != "refused":
            self._publisher.on_ack(seq, ack)
            return
        self.counters[f"rejected_{ack.reason}"] += 1  # by the proxy; what we refuse has another name
        if ack.reason == "not_joined" and self.state in ("joined", "closing"):  # the proxy has forgotten us
            self._leaving = self._leaving or self.state == "closing"
            self._join.rejoin("refused")
        elif ack.reason in TOKEN_REFUSALS:
            self._expire()
        elif ack.reason == "revoked":
            self._end(ack.reason)

    def _close(self) -> None:
        if self._own_proxy is not None and self.state in ("login", "joining", "joined", "suspect"):
            self._out.effects.extend(self._own_proxy.hand_over(now_s=self._out.now_s))
            if self.state in ("joined", "suspect") and not self._own_proxy.has_handed_over:
                self._leaving = True
                return
        if self.state in ("login", "joining"):  # nobody has heard of us yet
            self._leave("asked for")
        elif self.state == "suspect":  # the proxy that we are about to join does not know us yet: first that, then this
            self._leaving = True
        elif self.state == "joined":
            self._out.stop_asking("move")
            self._out.enter("closing", "asked for")
            self._publisher.close()
        else:
            raise PublishError(f"{self.device} is not joined ({self.state})")

    def _on_close_reply(self, ack: UpdateAck) -> None:
        """The leave was accepted, or the proxy has forgotten us or lacks something before it: first a session, then again."""
        if ack.level == "refused":
            self._out.count_refusal(ack.reason)
            self._leaving = True
            self._join.rejoin("close refused")
            return
        self._publisher.on_closed(ack)
        self._leave("close reply")

    def _leave(self, reason: str) -> None:
        self._login.stop()
        self._out.stop_asking("close", "join", "move")
        self._receiver.stop_asking()
        self._publisher.end()
        self._objects.stop()
        self._out.enter("closed", reason)

    # ------------------------------------------------------------------ hearing our proxy

    def _on_interest(self, interest: Interest) -> None:
        if interest.name.startswith(OBJECT_ROOT):
            self._objects.on_interest(interest)
            return
        name = parse_message_name(interest.name)
        if len(name.parts) != 2 or name.parts[0] != self.conference:
            raise MalformedError("not for this conference")
        if self.state not in ("joined", "suspect", "closing"):
            return  # before the join reply: it will be repeated
        sender = name.parts[1]
        if sender != self.proxy:
            if name.kind == NOTIFY and self._join.is_overlapping(sender):
                self._take_notification(interest)
            return
        if name.kind == NOTIFY:
            self._hear()
            self._out.sent_s = self._out.now_s
            self._receiver.recover_if_behind(self._take_notification(interest).current)
        elif name.kind == HEARTBEAT:
            beat = self._receiver.open_heartbeat(interest, name)
            if beat.ended:
                self._on_ended(beat.ended)
                return
            self._hear()
            self._receiver.recover_if_behind(beat.current)
            self._receiver.ask_for_keys()
        else:
            raise MalformedError("not a message for a client")

    def _take_notification(self, interest: Interest) -> Notification:
        notification = decode(interest.parameters, Notification)
        self._out.effects.append(Send(LOCAL_FACE, encode_data(interest.name, b"")))
        self._receiver.take(notification.entries)
        return notification

    def _on_ended(self, reason: str) -> None:
        """Our proxy does not serve us any more."""
        if reason in TOKEN_REFUSALS:
            self._expire()
        elif reason != HANDING_OVER:
            self._end(reason)
        elif self.state != "closing":  # a close it takes to the end
            self._join.leave_proxy(reason)

    def _hear(self) -> None:
        self._out.heard_s = self._out.now_s
        if self.state == "suspect" and ("join", 0) not in self._out.consumer:
            self._join.enter_joined("heard again")
            self._publisher.pump()

    # ------------------------------------------------------------------ heartbeats

    def _beat(self, *, after_ratio: float = 0.7) -> None:
        """Tell the proxy that we are there, unless another packet did."""
        if self.state not in ("joined", "suspect", "closing"):
            return
        if self._join.is_claimed():
            self._join.rejoin("claimed by another proxy")
        out = self._out
        self._timers.set("heartbeat", out.now_s + self._interval_s * (1.0 - JITTER_RATIO * out.chance.uniform()))
        if out.now_s - out.sent_s < after_ratio * self._interval_s and self.state == "joined":
            return
        out.sent_s = out.now_s
        vector = self.positions.vector()
        out.beat(ClientHeartbeat(self.positions.digest(), cut(vector, KNOWN_MAX_BYTES)))

    def beat_in_step(self, *, now_s: float) -> list[Effect]:
        """A packet has woken this node: return the heartbeat that would be due soon, so that it need not wake for that."""
        out = self._out
        out.begin(now_s)
        if self.state == "joined" and now_s - out.sent_s >= IN_STEP_RATIO * self._interval_s:
            self._beat(after_ratio=IN_STEP_RATIO)
            self._timers.set("heartbeat", now_s + self._interval_s)
        return out.effects.take()

    def _notice_silence(self) -> None:
        """The proxy was last heard a detection time ago, or the timer has to be moved."""
        if self.state not in ("joined", "closing"):
            return
        deadline_s = self._out.heard_s + self._detection_time_s * self._starvation.stretch
        if deadline_s > self._out.now_s:
            self._timers.set("silence", deadline_s)
        elif self.state == "joined":
            self._join.rejoin("detection time")
        elif ("close", 0) in self._out.consumer:  # that gives up by itself
            self._timers.set("silence", self._out.now_s + self._detection_time_s)
        else:  # what was published before we leave has not all been sent
            self._leaving = True
            self._join.rejoin("detection time")
