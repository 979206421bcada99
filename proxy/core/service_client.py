"""The service client of a UE: logs in, joins, publishes updates, applies notifications, recovers what it missed."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from proxy.config import ClientConfig
from proxy.core.consumer import Consumer, Pending
from proxy.core.events import (
    LOCAL_FACE,
    CarrierChanged,
    CloseRequested,
    Effect,
    Event,
    JoinRequested,
    Log,
    PacketReceived,
    PublishRequested,
    ScheduleExtended,
    Send,
    TimerExpired,
)
from proxy.core.face import JITTER_RATIO
from proxy.core.liveness import detection_time_s
from proxy.core.login_server import login_proof
from proxy.core.own_proxy import TIMER as SERVE_TIMER
from proxy.core.own_proxy import OwnProxy
from proxy.core.positions import Positions
from proxy.core.seeded import SplitMix64
from proxy.core.signing import Signer
from proxy.core.timers import Timers
from proxy.core.trust import KEY_EVENTS, OBSERVER_EVENTS, Grant, Refusal, Trust, join_statement, place_of
from proxy.core.view import AppliedUpdate, View, chained
from proxy.records import Acked, Applied, Published, SessionChanged, SessionState, SnapshotApplied
from proxy.wire.lp import decode_link_packet
from proxy.wire.messages import (
    BODY_MAX_BYTES,
    CLOSE,
    EMPTY_DIGEST,
    HANDING_OVER,
    HEARTBEAT,
    IDENTIFIER_MAX_OCTETS,
    JOIN,
    KEYS,
    LOGIN,
    NOTIFY,
    OBJECT_NAME_MAX_OCTETS,
    PRESENCE,
    RECOVER,
    UPDATE,
    ClientHeartbeat,
    CloseRequest,
    FpUpdate,
    JoinReply,
    JoinRequest,
    KeysReply,
    KeysRequest,
    LoginReply,
    LoginRequest,
    MessageName,
    Notification,
    RecoveryReply,
    RecoveryRequest,
    Sealed,
    ServeReply,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    SyncUpdate,
    UpdateAck,
    decode,
    encode,
    message_name,
    node_prefix,
    parse_message_name,
)
from proxy.wire.packet import INTEREST, Data, Interest, decode_data, decode_interest, encode_data, encode_interest
from proxy.wire.tlv import MalformedError

#: A join is tried so often at one proxy before the next ranked one is asked.
JOIN_ATTEMPTS = 3
#: Updates that were acked and are kept, in case a proxy that we re-join at has never heard of them.
RETAINED_MAX = 64
NO_REPLY_LIFETIME_MS = 250
#: A login is tried so often before it waits: LOGIN_WAIT_S, and twice as long each time, up to LOGIN_WAIT_MAX_S.
LOGIN_ATTEMPTS = 4
LOGIN_WAIT_S = 0.5
LOGIN_WAIT_MAX_S = 8.0
#: A token is renewed when this part of its lifetime is over, so that a login server may be down for the rest of it.
RENEW_AT_RATIO = 2 / 3
#: Events that only the client itself publishes.
RESERVED_EVENTS = frozenset({"join", "renew", "leave"})
#: What a proxy refuses because of the token; a new one helps.
TOKEN_REFUSALS = frozenset({"token_expired", "token_forged"})

ClientState = SessionState | Literal["idle"]
#: ("login", 0), ("join", n), ("update", seq), ("recover", 0), ("close", 0), ("keys", 0), ("serve", 0)
RequestKey = tuple[str, int]


class PublishError(Exception):
    """The user asked for something that cannot be published; says why."""


@dataclass(slots=True)
class Unsent:
    """An update that the user has made and the window does not admit yet."""

    event: str
    body: bytes
    object_name: str


class ServiceClient:
    """One device in one conference. Its only face leads to the forwarder of its UE."""

    def __init__(self, config: ClientConfig, *, device: str, boot: int, seed: int) -> None:
        self.device, self.boot, self.conference = device, boot, config.conference
        self.state: ClientState = "idle"
        self.positions = Positions()
        self.proxy = ""  #: the one we are joined at, or joining
        self.counters: dict[str, int] = Counter()
        self._config = config
        self._signer = Signer(bytes.fromhex(config.key_seed_hex))
        self._trust = Trust(login_public_key_hex=config.login_public_key_hex, proxy_keys_hex=config.proxy_keys)
        self.view = View(conference=self.conference, trust=self._trust, on_refusal=self._count_refusal)
        self._chance = SplitMix64(seed)
        self._consumer: Consumer[RequestKey] = Consumer(self._chance)
        self._interval_s = config.liveness.desired_min_tx_s
        self._detection_time_s = detection_time_s(
            desired_min_tx_s=self._interval_s, detect_mult=config.liveness.detect_mult
        )
        self._timers: Timers[str] = Timers()
        self._own_proxy = (
            OwnProxy(self._consumer, self._timers, device=device, boot=boot, signer=self._signer)
            if config.own_proxy
            else None
        )
        self._schedule: Timers[tuple[int, str, int]] = Timers()
        self._scheduled = 0
        self._grant: Grant | None = None
        self._logins = 0  #: tried in vain since the last token
        self._joins = 0  #: of this boot; each is numbered, and goes to one proxy
        self._last_beats: dict[str, tuple[int, int]] = {}  #: of each proxy: (boot, number) of its last heartbeat
        self._proxies: tuple[str, ...] = ()
        self._tried = 0  #: joins tried since the session was lost
        self._passed_over = 0  #: proxies given up at a Nack since we last waited
        self._joined_once = False
        self._announced = False  #: our update `join` is out and no `leave` is
        self._seq = 0
        self._digest = EMPTY_DIGEST  #: chained over our own updates
        self._acked_seq = 0
        self._leaving = False  #: asked to close, as soon as the session is whole again
        self._leave_seq = 0  #: of the update that says that we leave, once it is made
        self._acked_early: set[int] = set()
        self._unacked: dict[int, SignedUpdate] = {}
        #: The last ones acked: a proxy that loses its disk may be the only one that had them.
        self._retained: OrderedDict[int, SignedUpdate] = OrderedDict()
        self._forgotten_seq = 0  #: highest one that was acked and is not retained any more
        self._queue: deque[Unsent] = deque()
        self._numbered = 0
        self._heard_s = self._sent_s = float("-inf")
        self._effects: list[Effect] = []
        self._now_s = 0.0

    # ------------------------------------------------------------------ driver's side

    @property
    def deadline_s(self) -> float | None:
        """The earliest of heartbeats, retransmissions and scheduled updates."""
        return min(
            (at for at in (self._timers.next_s, self._consumer.next_s, self._schedule.next_s) if at is not None),
            default=None,
        )

    @property
    def unacked(self) -> int:
        return len(self._unacked)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def published_seq(self) -> int:
        """Sequence number of the last update made, sent or not."""
        return self._seq + len(self._queue)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order.

        Raises: PublishError where an update cannot be accepted from the user.
        """
        self._effects, self._now_s = [], now_s
        match event:
            case PacketReceived(_, packet):
                try:
                    self._on_packet(packet)
                except MalformedError:
                    self.counters["malformed"] += 1
                except Refusal as refusal:
                    self._count_refusal(refusal.reason)
            case TimerExpired():
                self._on_timer()
            case PublishRequested(kind, body, object_name):
                if kind in RESERVED_EVENTS:
                    raise PublishError(f"{kind!r} is published by the client itself; choose another event type")
                self._publish(kind, body, object_name)
            case ScheduleExtended(updates):
                for at_s, kind, size_bytes in updates:
                    self._scheduled += 1
                    self._schedule.set((self._scheduled, kind, size_bytes), at_s)
            case JoinRequested():
                self._request_login()
            case CloseRequested():
                self._close()
            case CarrierChanged():
                pass  # the forwarder deals with it; what we notice is whether our proxy answers
        if self._leaving and self.state == "joined":
            self._leaving = False
            self._close()
        return self._effects

    def _on_packet(self, packet: bytes) -> None:
        link_packet = decode_link_packet(packet)
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            pending = self._consumer.on_nack(decode_interest(fragment), now_s=self._now_s)
            if pending is not None and pending.key[0] == "join":
                self._pass_over()
        elif fragment[0] == INTEREST:
            self._on_interest(decode_interest(fragment))
        else:
            data = decode_data(fragment)
            pending = self._consumer.on_data(data, now_s=self._now_s)
            if pending is None:
                self.counters["unsolicited"] += 1
            else:
                self._on_answer(pending, data)

    def _on_answer(self, pending: Pending[RequestKey], data: Data) -> None:
        kind, seq = pending.key
        if kind == "login":
            self._on_login_reply(decode(data.content, LoginReply))
            return
        if kind == "join":
            self._on_join_reply(decode(data.content, JoinReply))
            return
        if kind == "serve":
            if self._own_proxy is not None:
                self._own_proxy.on_reply(decode(data.content, ServeReply), now_s=self._now_s)
            return
        if pending.peer == self.proxy:
            self._hear()
        if kind == "update":
            self._on_ack(seq, decode(data.content, UpdateAck))
        elif kind == "close":
            self._on_close_reply(decode(data.content, UpdateAck))
        elif kind == "keys":
            tokens = decode(data.content, KeysReply).tokens
            self._log_applied(self.view.learn(tokens))
            if tokens:
                self._ask_for_keys()  # the rest
        else:
            self._on_recovery_reply(decode(data.content, RecoveryReply))

    def _on_timer(self) -> None:
        for _, kind, size_bytes in self._schedule.pop_due(self._now_s):
            try:
                self._publish(kind, bytes(size_bytes), "")
            except PublishError:
                self.counters["publish_refused"] += 1
        effects, given_up = self._consumer.on_timer(self._now_s)
        self._effects += effects
        for request in given_up:
            if request.key[0] == "join":
                self._passed_over = 0
                self._try_next_proxy()
            elif request.key[0] == "close":
                self._leave("no close reply")
            elif request.key[0] == "login":
                self._wait_to_log_in()
            elif request.key[0] == "serve" and self._own_proxy is not None:
                self._own_proxy.on_given_up()
                if self._leaving and self.state == "joined" and self.proxy == self.device:
                    self._suspect("no answer")  # or we would take leave of nobody
        for timer in self._timers.pop_due(self._now_s):
            if timer == "heartbeat":
                self._beat()
            elif timer == SERVE_TIMER and self._own_proxy is not None:
                self._effects += self._own_proxy.ask(now_s=self._now_s)
            elif timer == "next":
                if ("join", 0) not in self._consumer:
                    self._try_next_proxy()
            elif timer == "expiry":
                self._expire()
            elif timer != "login":
                self._notice_silence()
            elif self.state not in ("idle", "closed", "refused"):
                self._log_in()

    def _count_refusal(self, reason: str) -> None:
        """Something well-formed was not believed."""
        self.counters[f"refused_{reason}"] += 1

    def _enter(self, state: SessionState, reason: str) -> None:
        if state == self.state:
            return
        self.state = state
        if state == "joined":
            self._timers.set("silence", self._now_s + self._detection_time_s)
        self._effects.append(Log(SessionChanged(self._now_s, self.conference, self.device, self.proxy, state, reason)))

    # ------------------------------------------------------------------ login and join

    def _request_login(self) -> None:
        if self.state in ("idle", "closed", "refused"):
            self._leaving = False
            self.proxy = ""  # wherever we were before we left, the nearest is the first to ask
            if self._own_proxy is not None:
                self._effects += self._own_proxy.serve(now_s=self._now_s)
            self._enter("login", "")
            self._log_in()

    def _log_in(self) -> None:
        """Ask for a token, the first one or the next."""
        server = self._config.login_server
        name = message_name(node_prefix(server), LOGIN, self.device, boot=self.boot, seq=self._next_number())
        request = LoginRequest(self.device, self.conference, self._config.role, self._signer.public_key, b"")
        proof = login_proof(request, parse_message_name(name))
        self._effects += self._consumer.express(
            ("login", 0),
            name,
            now_s=self._now_s,
            peer=server,
            parameters=encode(replace(request, signature=self._signer.sign(proof))),
            attempts_max=LOGIN_ATTEMPTS,
        )

    def _wait_to_log_in(self) -> None:
        """The login server does not answer: joined or not, try again later, and later still."""
        wait_s = min(LOGIN_WAIT_S * 2.0**self._logins, LOGIN_WAIT_MAX_S)
        self._logins = min(self._logins + 1, 16)
        self._timers.set("login", self._now_s + wait_s * (1.0 - 0.5 * self._chance.uniform()))

    def _on_login_reply(self, reply: LoginReply) -> None:
        if self.state in ("idle", "closed", "refused"):
            return
        if not reply.granted or reply.token is None or not reply.proxies:
            self._end(reply.reason or "no proxy assigned")
            return
        try:
            grant = self._trust.grant(reply.token, device=self.device, conference=self.conference)
        except Refusal:
            self._wait_to_log_in()  # not from our login server
            raise
        self._grant, self._logins = grant, 0
        lifetime_s = grant.token.expires_s - self._now_s
        self._timers.set("login", self._now_s + lifetime_s * RENEW_AT_RATIO)
        self._timers.set("expiry", grant.token.expires_s)
        self._proxies = reply.proxies
        if self._announced and self.state != "closing":  # everybody has to know how long our updates are good for
            self._queue.appendleft(Unsent("renew", b"", ""))
        if self.state == "login":
            self._tried = self._proxies.index(self.proxy) if self.proxy in self._proxies else 0
            self._join(self._proxies[self._tried], "logged in")
        else:
            self._pump()

    def _expire(self) -> None:
        """Our token has run out; without one there is nothing to do but to ask for another."""
        if self.state in ("joining", "joined", "suspect", "closing"):
            if self.state == "closing":
                self._leave("token expired")
                return
            self._consumer.cancel(("join", 0))
            self._consumer.cancel(("recover", 0))
            self._consumer.cancel(("keys", 0))
            for seq in self._unacked:
                self._consumer.cancel(("update", seq))
            self._enter("login", "token expired")
            if ("login", 0) not in self._consumer:
                self._log_in()

    def _end(self, reason: str) -> None:
        """We are out, and asking again does not help."""
        for key in [
            *(("login", 0), ("close", 0), ("join", 0), ("recover", 0), ("keys", 0)),
            *(("update", seq) for seq in self._unacked),
        ]:
            self._consumer.cancel(key)
        self._timers.cancel("login")
        self._timers.cancel("expiry")
        self._enter("refused", reason)

    def _join(self, proxy: str, reason: str) -> None:
        assert self._grant is not None, "joined without a token"
        self._consumer.cancel(("join", 0))
        if proxy != self.proxy:  # what the last proxy has not acked goes to this one
            for seq in (*self._unacked, *self._retained):
                self._consumer.cancel(("update", seq))
            self._consumer.cancel(("recover", 0))
        self.proxy = proxy
        if self.state != "suspect":
            self._enter("joining", reason)
        known = self.positions.vector() if self._joined_once else None
        self._joins += 1
        name = message_name(node_prefix(proxy), JOIN, self.conference, self.device, boot=self.boot, seq=self._joins)
        request = JoinRequest(self._grant.signed, self.boot, min(self._acked_seq, self._forgotten_seq), known)
        proof = join_statement(request, parse_message_name(name), proxy)
        self._effects += self._consumer.express(
            ("join", 0),
            name,
            now_s=self._now_s,
            peer=proxy,
            parameters=encode(replace(request, signature=self._signer.sign(proof))),
            attempts_max=JOIN_ATTEMPTS,
        )

    def _try_next_proxy(self) -> None:
        """The same proxy once more, then the others in order of rank, over and over."""
        if self.state in ("joining", "suspect") and self._proxies:
            self._tried += 1
            self._join(self._proxies[self._tried % len(self._proxies)], "next proxy")

    def _pass_over(self) -> bool:
        """Leave a proxy out that will not serve us now; tell whether there was another to try.

        Each proxy once at once; after that at the pace of retransmissions.
        """
        if self._passed_over >= len(self._proxies):
            return False
        self._passed_over += 1
        if self._passed_over == len(self._proxies):
            self._tried = -1  # none is in reach: what comes back first had better be the nearest
        self._try_next_proxy()
        return True

    def _on_join_reply(self, reply: JoinReply) -> None:
        self._heard_s = self._now_s
        if not reply.granted:
            if reply.reason in TOKEN_REFUSALS:
                self._expire()
            elif reply.reason != HANDING_OVER:
                self._end(reply.reason)
            elif not self._pass_over():
                self._timers.set("next", self._now_s + self._interval_s)
            return
        self._tried = self._passed_over = 0
        if self.state != "closing":
            self._enter("joined", "suspect no more" if self.state == "suspect" else "")
        if reply.snapshot is not None:
            self._install(reply.snapshot)
        for entry in reply.entries:
            self._take(StreamEntry(entry.proxy, entry.boot, entry.seq, "recovery", entry.content))
        self._joined_once = True
        if "heartbeat" not in self._timers:
            self._timers.set("heartbeat", self._now_s + self._interval_s)
        if not self._announced:
            self._announced = True
            self._publish("join", b"", "")
        unknown = [] if reply.own_seq is None else [seq for seq in self._retained if seq > reply.own_seq]
        for seq in (*unknown, *self._unacked):
            if seq != self._leave_seq and ("update", seq) not in self._consumer:
                self._send_update(seq)
        self._pump()
        self._recover_if_behind(reply.current)
        self._ask_for_keys()

    def _ask_for_keys(self) -> None:
        """Ask our proxy for tokens of those whom only a snapshot told of, and whose updates must wait without."""
        devices = self.view.keys_missing()
        if not devices or ("keys", 0) in self._consumer or self.state not in ("joined", "suspect", "closing"):
            return
        self._effects += self._consumer.express(
            ("keys", 0),
            message_name(
                node_prefix(self.proxy), KEYS, self.conference, self.device, boot=self.boot, seq=self._next_number()
            ),
            now_s=self._now_s,
            peer=self.proxy,
            parameters=encode(KeysRequest(devices)),
            attempts_max=6,
        )

    # ------------------------------------------------------------------ publishing

    def _publish(self, event: str, body: bytes, object_name: str) -> None:
        if len(body) > BODY_MAX_BYTES:
            raise PublishError(f"body of {len(body)} bytes; {BODY_MAX_BYTES} is the limit, publish an object instead")
        if not 1 <= len(event.encode()) <= IDENTIFIER_MAX_OCTETS:
            raise PublishError(f"event type of {len(event.encode())} octets; 1 to {IDENTIFIER_MAX_OCTETS} are allowed")
        if len(object_name.encode()) > OBJECT_NAME_MAX_OCTETS:
            raise PublishError(f"object name of {len(object_name)} characters; {OBJECT_NAME_MAX_OCTETS} octets at most")
        if not self._announced or self._leaving or self.state in ("closing", "closed", "refused"):
            raise PublishError(f"{self.device} is not joined ({self.state})")
        if self._config.role == "observer" and event not in OBSERVER_EVENTS:
            raise PublishError(f"{self.device} is an observer; only participants publish")
        if len(self._queue) >= self._config.queue_max:
            raise PublishError(f"{self.device} has {len(self._queue)} updates waiting; the network does not keep up")
        self._queue.append(Unsent(event, body, object_name))
        self._pump()

    def _pump(self) -> None:
        """Send what the window admits."""
        if self._grant is None or self._grant.token.expires_s <= self._now_s:
            return  # the timer that says so is due
        while self._queue and len(self._unacked) < self._config.window_max and self.state == "joined":
            unsent = self._queue.popleft()
            self._seq += 1
            self._unacked[self._seq] = self._sign(unsent)
            self._send_update(self._seq)

    def _sign(self, unsent: Unsent) -> SignedUpdate:
        """Make the FP update with our current sequence number."""
        assert self._grant is not None, "published without a token"
        if unsent.event in KEY_EVENTS:
            unsent = replace_body(unsent, encode(self._grant.signed))
        last_digest = self._digest
        self._digest = chained(last_digest, unsent.event.encode(), unsent.object_name.encode(), unsent.body)
        update = encode(
            FpUpdate(
                self.conference, self.device, self.boot, self._seq, unsent.event, unsent.object_name,
                self._grant.fingerprint, self._now_s, last_digest, self._digest, unsent.body,
            )
        )  # fmt: skip
        signed = SignedUpdate(update, self._signer.sign(update))
        self.view.offer(signed, "push", grant=self._grant)  # what we publish is part of what we see
        self._effects.append(
            Log(
                Published(
                    self._now_s, self.conference, self.device, self.boot, self._seq, unsent.event, len(unsent.body),
                    unsent.object_name, short_digest(update),
                )
            )
        )  # fmt: skip
        return signed

    def _send_update(self, seq: int) -> None:
        self._sent_s = self._now_s
        self._effects += self._consumer.express(
            ("update", seq),
            message_name(node_prefix(self.proxy), UPDATE, self.conference, self.device, boot=self.boot, seq=seq),
            now_s=self._now_s,
            peer=self.proxy,
            parameters=encode(self._unacked.get(seq) or self._retained[seq]),
        )

    def _on_ack(self, seq: int, ack: UpdateAck) -> None:
        if ack.level == "refused":
            self.counters[f"rejected_{ack.reason}"] += 1  # by the proxy; what we refuse has another name
            if ack.reason == "not_joined" and self.state == "joined":  # the proxy has forgotten us
                self._suspect("refused")
            elif ack.reason in TOKEN_REFUSALS:
                self._expire()
            elif ack.reason == "revoked":
                self._end(ack.reason)
            return
        acked = self._unacked.pop(seq, None)
        if acked is None:
            return
        self._retained[seq] = acked
        if len(self._retained) > RETAINED_MAX:
            self._forgotten_seq = max(self._forgotten_seq, self._retained.popitem(last=False)[0])
        self._effects.append(
            Log(Acked(self._now_s, self.conference, self.device, self.boot, seq, ack.level, ack.proxy))
        )
        self._acked_early.add(seq)
        while self._acked_seq + 1 in self._acked_early:
            self._acked_seq += 1
            self._acked_early.remove(self._acked_seq)
        if ack.stream_seq:
            self.positions.add((ack.proxy, ack.boot), ack.stream_seq)
        self._pump()

    def _close(self) -> None:
        if self._own_proxy is not None and self.state in ("login", "joining", "joined", "suspect"):
            self._effects += self._own_proxy.hand_over(now_s=self._now_s)
            if self.state in ("joined", "suspect") and not self._own_proxy.has_handed_over:
                self._leaving = True
                return
        if self.state in ("login", "joining"):  # nobody has heard of us yet
            self._consumer.cancel(("login", 0))
            self._leave("asked for")
            return
        if self.state == "suspect":  # the proxy that we are about to join does not know us yet: first that, then this
            self._leaving = True
            return
        if self.state != "joined":
            raise PublishError(f"{self.device} is not joined ({self.state})")
        self._enter("closing", "asked for")
        if not self._leave_seq:
            self._queue.append(Unsent("leave", b"", ""))
            while self._queue:
                self._seq += 1
                self._unacked[self._seq] = self._sign(self._queue.popleft())
            self._leave_seq = self._seq
        for seq in self._unacked:
            if seq != self._leave_seq and ("update", seq) not in self._consumer:
                self._send_update(seq)
        self._effects += self._consumer.express(
            ("close", 0),
            message_name(node_prefix(self.proxy), CLOSE, self.conference, self.device, boot=self.boot, seq=self._seq),
            now_s=self._now_s,
            peer=self.proxy,
            parameters=encode(CloseRequest(self._unacked[self._leave_seq])),
            attempts_max=8,
        )

    def _on_close_reply(self, ack: UpdateAck) -> None:
        """The leave was accepted, hence everything before it too, whatever became of the acks.

        A proxy that has forgotten us, or lacks something that came before, refuses: then first a session, then again.
        """
        if ack.level == "refused":
            self.counters[f"refused_{ack.reason}"] += 1
            self._leaving = True
            self._suspect("close refused")
            return
        for seq in sorted(self._unacked):
            self._consumer.cancel(("update", seq))
            self._on_ack(seq, ack if seq == self._leave_seq else replace(ack, stream_seq=0))
        self._leave("close reply")

    def _leave(self, reason: str) -> None:
        self._timers.cancel("login")
        self._timers.cancel("expiry")
        for key in [
            ("close", 0),
            ("join", 0),
            ("recover", 0),
            ("keys", 0),
            ("login", 0),
            *(("update", seq) for seq in (*self._unacked, *self._retained)),
        ]:
            self._consumer.cancel(key)
        self._announced, self._leave_seq = False, 0
        self._enter("closed", reason)

    # ------------------------------------------------------------------ receiving

    def _on_interest(self, interest: Interest) -> None:
        name = parse_message_name(interest.name)
        if len(name.parts) != 2 or name.parts[0] != self.conference:
            raise MalformedError("not for this conference")
        if name.parts[1] != self.proxy or self.state not in ("joined", "suspect", "closing"):
            return  # of a proxy that we have left, or before the join reply: it will be repeated
        if name.kind == NOTIFY:
            notification = decode(interest.parameters, Notification)
            self._hear()
            self._sent_s = self._now_s
            self._effects.append(Send(LOCAL_FACE, encode_data(interest.name, b"")))
            for entry in notification.entries:
                self._take(entry)
            self._recover_if_behind(notification.current)
        elif name.kind == HEARTBEAT:
            beat = self._open_heartbeat(interest, name)
            if beat.ended:
                self._on_ended(beat.ended)
                return
            self._hear()
            self._recover_if_behind(beat.current)
            self._ask_for_keys()
        else:
            raise MalformedError("not a message for a client")

    def _open_heartbeat(self, interest: Interest, name: MessageName) -> ClientHeartbeat:
        """Return what our proxy says. Raises: Refusal where it does not, or has said it before; MalformedError."""
        if (name.boot, name.seq) <= self._last_beats.get(self.proxy, (0, 0)):
            raise Refusal("heartbeat_replayed")
        sealed = decode(interest.parameters, Sealed)
        addressee = self.device if decode(sealed.content, ClientHeartbeat).ended else ""
        place = place_of(HEARTBEAT, self.conference, self.proxy, addressee, boot=name.boot, seq=name.seq)
        beat = self._trust.open_from_proxy(sealed, ClientHeartbeat, place, self.proxy)
        self._last_beats[self.proxy] = (name.boot, name.seq)
        return beat

    def _on_ended(self, reason: str) -> None:
        """Our proxy does not serve us any more."""
        if reason in TOKEN_REFUSALS:
            self._expire()
        elif reason != HANDING_OVER:
            self._end(reason)
        elif self.state != "closing":  # a close it takes to the end
            self._enter("suspect", reason)
            self._tried = self._proxies.index(self.proxy) if self.proxy in self._proxies else 0
            self._try_next_proxy()

    def _hear(self) -> None:
        self._heard_s = self._now_s
        if self.state == "suspect" and ("join", 0) not in self._consumer:
            self._enter("joined", "heard again")
            self._pump()

    def _take(self, entry: StreamEntry) -> None:
        """Apply what is new in an entry."""
        key = (entry.proxy, entry.boot)
        if self.positions.has(key, entry.seq):
            self.counters["entries_repeated"] += 1
            return
        sync_update = decode(entry.content, SyncUpdate)
        try:
            self._trust.check_entry(self.conference, entry, sync_update)
        except Refusal as refusal:
            self._count_refusal(refusal.reason)
            return
        self.positions.add(key, entry.seq)
        for event in sync_update.roster:
            self.view.note(event)
        for signed in sync_update.updates:
            self._log_applied(self.view.offer(signed, entry.via))

    def _log_applied(self, applied: list[AppliedUpdate]) -> None:
        for item in applied:
            update = item.update
            if update.device == self.device and update.boot == self.boot:
                continue
            self._effects.append(
                Log(
                    Applied(
                        self._now_s, self.conference, self.device, update.device, update.boot, update.seq, item.via,
                        short_digest(item.signed.update),
                    )
                )
            )  # fmt: skip

    def _install(self, snapshot: Snapshot) -> None:
        news, released = self.view.install(snapshot)
        self.positions.install((head.proxy, head.boot, head.seq) for head in snapshot.streams)
        heads = [(head.device, head.boot, head.seq) for head in news if head.device != self.device]
        if heads:
            self._effects.append(Log(SnapshotApplied(self._now_s, self.conference, self.device, heads)))
        self._log_applied(released)
        for signed in snapshot.held:
            self._log_applied(self.view.offer(signed, "snapshot"))

    def _recover_if_behind(self, current: tuple[tuple[str, int, int], ...]) -> None:
        if not self.positions.is_behind(current) or ("recover", 0) in self._consumer:
            return
        self.counters["recovery_requests"] += 1
        self._effects += self._consumer.express(
            ("recover", 0),
            message_name(
                node_prefix(self.proxy), RECOVER, self.conference, self.device, boot=self.boot,
                seq=self._next_number(),
            ),
            now_s=self._now_s,
            peer=self.proxy,
            parameters=encode(RecoveryRequest(self.positions.vector())),
            attempts_max=6,
        )  # fmt: skip

    def _on_recovery_reply(self, reply: RecoveryReply) -> None:
        if reply.snapshot is not None:
            self._install(reply.snapshot)
        for entry in reply.entries:
            self._take(StreamEntry(entry.proxy, entry.boot, entry.seq, "recovery", entry.content))
        self._recover_if_behind(reply.current)  # the rest did not fit

    # ------------------------------------------------------------------ heartbeats

    def _beat(self) -> None:
        """Tell the proxy that we are there, unless another packet did."""
        if self.state not in ("joined", "suspect", "closing"):
            return
        self._timers.set("heartbeat", self._now_s + self._interval_s * (1.0 - JITTER_RATIO * self._chance.uniform()))
        if self._now_s - self._sent_s < 0.7 * self._interval_s and self.state == "joined":
            return
        self._sent_s = self._now_s
        vector = self.positions.vector()
        _, packet = encode_interest(
            message_name(
                node_prefix(self.proxy), PRESENCE, self.conference, self.device, boot=self.boot,
                seq=self._next_number(),
            ),
            nonce=self._chance.nonce(),
            lifetime_ms=NO_REPLY_LIFETIME_MS,
            parameters=encode(ClientHeartbeat(self.positions.digest(), vector)),
        )  # fmt: skip
        self._effects.append(Send(LOCAL_FACE, packet))

    def _notice_silence(self) -> None:
        """The proxy was last heard a detection time ago, or the timer has to be moved."""
        if self.state != "joined":
            return
        deadline_s = self._heard_s + self._detection_time_s
        if deadline_s <= self._now_s:
            self._suspect("detection time")
        else:
            self._timers.set("silence", deadline_s)

    def _suspect(self, reason: str) -> None:
        """The session is interrupted: re-join with the last known state, here or at the next ranked proxy."""
        self._enter("suspect", reason)
        self._tried = self._proxies.index(self.proxy) if self.proxy in self._proxies else 0
        self._join(self.proxy, reason)

    def _next_number(self) -> int:
        self._numbered += 1
        return self._numbered


def replace_body(unsent: Unsent, body: bytes) -> Unsent:
    """Return the same update with another body."""
    return Unsent(unsent.event, body, unsent.object_name)


def short_digest(update: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of an update's signed bytes, as records carry it."""
    return hashlib.sha256(update).hexdigest()[:16]
