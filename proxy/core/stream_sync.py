"""A service proxy towards the other proxies: sync interests, sync updates, pushes, heartbeats, recovery.

Every proxy keeps sync interests armed for the next entries of every other stream that is busy (pull); an entry that finds
none armed, as those of a quiet stream do, is pushed; heartbeats carry vectors, so that whatever got lost is seen and asked for
by name, which the nearest content store answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from proxy.core.catch_up import CatchUp
from proxy.core.conference import Conference, Peer
from proxy.core.consumer import Pending
from proxy.core.digest_log import Stream
from proxy.core.events import Log
from proxy.core.outbox import Outbox, RequestKey, conference_and_device
from proxy.core.packing import cut, known_for_request
from proxy.core.publishing_pace import HEARTBEATS_UNTIL_KNOWN
from proxy.core.trust import Refusal, place_of
from proxy.records import PeerChanged
from proxy.wire.message_names import (
    HEARTBEAT,
    KEYS,
    PUSH,
    RECOVER,
    SYNC,
    MessageName,
    component_text,
    message_name,
    node_prefix,
    parse_message_name,
)
from proxy.wire.messages import (
    PAYLOAD_MAX_BYTES,
    KeysReply,
    KeysRequest,
    Position,
    ProxyHeartbeat,
    RecoveryReply,
    RecoveryRequest,
    Sealed,
    StreamEntry,
    SyncUpdate,
    Via,
)
from proxy.wire.packet import Data, Interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: Entries missing from a stream that are still asked for one by one; more are fetched together by a recovery request.
MISSING_ONE_BY_ONE_MAX: Final = 8
#: Times that a missing entry is asked for at its origin before another proxy is asked.
MISSING_ATTEMPTS: Final = 4
#: How far ahead of its stream a proxy lets others arm sync interests.
ARMED_AHEAD_MAX: Final = 512
#: For so long after a heartbeat that has crossed a lossy link, that link is taken to be lossy.
LOSSY_HOLD_S: Final = 1.0
#: A sync update never changes, so stores may keep it as long as they like.
SYNC_UPDATE_FRESHNESS_MS: Final = 600_000


class StreamSync:
    """*on_entry* is told of every new entry of another proxy's stream, *on_jump* when a snapshot brought more.

    *on_replicated* hears how far another proxy has our stream of some boot, *on_vector* all that it has.
    """

    def __init__(
        self,
        out: Outbox,
        conferences: dict[str, Conference],
        *,
        on_entry: Callable[[Conference, StreamEntry], None],
        on_jump: Callable[[Conference], None],
        open_conference: Callable[[str], Conference],
        on_replicated: Callable[[Conference, int, int], None],
        catch_up: CatchUp,
        on_vector: Callable[[Conference, str, tuple[Position, ...]], None],
    ) -> None:
        self._out, self._conferences, self._catch_up = out, conferences, catch_up
        self._on_entry, self._on_jump = on_entry, on_jump
        self._open_conference, self._on_replicated, self._on_vector = open_conference, on_replicated, on_vector
        self._last_beats: dict[str, tuple[int, int]] = {}  #: of each proxy with a key: (boot, number)

    def publish(self, conference: Conference, entry: StreamEntry) -> bool:
        """Send a new entry of our own stream: to everyone with a sync interest armed for it, else to all proxies.

        Both where links are lossy, since the push goes by every way there is, and whichever copy is first will do; and where
        some may not have heard yet that they are to arm.

        Returns: whether it was pushed, for no other reason than that the stream is quiet.
        """
        out, mode = self._out, self._out.config.mode
        is_awaited = mode != "push" and conference.armed.pop(entry.seq, 0.0) > out.now_s
        is_armed = is_awaited and self.wants_armed(conference)
        is_lossy = conference.lossy_until_s > out.now_s
        is_news = out.now_s - conference.pace.since_s <= HEARTBEATS_UNTIL_KNOWN * out.config.liveness.desired_min_tx_s
        if is_armed:
            out.counters["published_armed"] += 1
            name = message_name(node_prefix(out.device), SYNC, conference.name, boot=out.boot, seq=entry.seq)
            out.send_data(name, entry.content, freshness_ms=SYNC_UPDATE_FRESHNESS_MS)
        is_pushed = (is_lossy or is_news or not is_armed) and mode != "pull" and bool(conference.peers)
        if is_pushed:
            out.counters["published_twice" if is_armed else "published_push"] += 1
            out.send_to_all(PUSH, encode(entry), conference.name, out.device, seq=entry.seq)
        return is_pushed and not is_lossy and not conference.pace.is_busy

    def wants_armed(self, conference: Conference) -> bool:
        """Tell whether the others are to keep sync interests armed for our stream; a quiet one is pushed."""
        mode = self._out.config.mode
        is_worth_it = conference.pace.is_busy or conference.lossy_until_s > self._out.now_s
        return mode == "pull" or (mode == "hybrid" and is_worth_it)

    def follows(self, conference: Conference) -> bool:
        """Tell whether a stream is followed with sync interests, ours by others or another by us."""
        return self.wants_armed(conference) or any(peer.up and peer.is_armed for peer in conference.peers.values())

    def on_sync_interest(self, interest: Interest, name: MessageName) -> None:
        """Another proxy asks for an entry of our stream: answer, or remember that it waits."""
        conference = self._conferences.get(name.parts[0]) if len(name.parts) == 1 else None
        own = conference.log.streams.get((self._out.device, name.boot)) if conference is not None else None
        if conference is None or own is None:
            self._out.counters["sync_interests_unknown"] += 1
            return
        if name.seq > own.seq:
            if own is conference.own and name.seq <= own.seq + ARMED_AHEAD_MAX:
                conference.armed[name.seq] = self._out.now_s + interest.lifetime_ms / 1e3
            return
        entry = conference.log.get(own.key, name.seq)
        if entry is None:
            self._out.send_data(interest.name, encode(SyncUpdate(own.chain_digest, (), truncated=True)))
        else:
            self._out.send_data(interest.name, entry.content, freshness_ms=SYNC_UPDATE_FRESHNESS_MS)

    def on_sync_update(self, conference: Conference, pending: Pending[RequestKey], data: Data) -> None:
        """The entry that we asked for. Raises: Refusal, MalformedError."""
        _, _, proxy, boot, seq = pending.key
        via: Via = "armed" if pending.armed else "recovery"
        if pending.armed:
            age_s = self._out.now_s - pending.first_sent_s
            conference.widths[proxy].answered(age_s, self._out.config.armed_max, now_s=self._out.now_s)
        try:
            if decode(data.content, SyncUpdate).truncated:
                self._recover(conference, proxy)
                return
            self._add(conference, StreamEntry(proxy, boot, seq, via, data.content))
        except (Refusal, MalformedError):
            # Whoever forged it may have filled content stores with it, so to ask under this name again may bring it again.
            self._recover(conference, proxy)
            raise
        self._arm(conference, conference.log.stream(proxy, boot))

    def on_late_data(self, data: Data) -> None:
        """A sync update that we asked for and gave up, or that a push has overtaken, is as good as any."""
        self._out.counters["unsolicited"] += 1
        name = parse_message_name(data.name)
        origin = component_text(data.name, 1)
        conference = self._conferences.get(name.parts[0]) if name.kind == SYNC and len(name.parts) == 1 else None
        if conference is None or (origin, name.boot) not in conference.log.streams:
            return
        if not decode(data.content, SyncUpdate).truncated:
            self._add(conference, StreamEntry(origin, name.boot, name.seq, "armed", data.content))

    def on_push(self, interest: Interest, name: MessageName) -> None:
        """An entry that we did not ask for in time. Raises: Refusal, MalformedError."""
        pushed = decode(interest.parameters, StreamEntry)
        conference_name, proxy = conference_and_device(name.parts)
        if (pushed.proxy, pushed.boot, pushed.seq) != (proxy, name.boot, name.seq):
            raise MalformedError("push under another entry's name")
        conference = self._conferences.get(conference_name)
        if conference is None or proxy == self._out.device:
            return
        is_new = not conference.log.has((proxy, name.boot), name.seq)
        self._add(conference, StreamEntry(proxy, name.boot, name.seq, "push", pushed.content))
        key = ("sync", conference_name, proxy, name.boot, name.seq)
        pending = self._out.consumer.get(key)
        self._out.consumer.cancel(key)
        peer = conference.peers.get(proxy)
        if is_new and peer is not None and peer.boot == name.boot and peer.up:
            peer.heard_s = self._out.now_s
        if is_new and peer is not None and peer.is_armed:
            age_s = 0.0 if pending is None or not pending.armed else self._out.now_s - pending.first_sent_s
            conference.widths[proxy].pushed(age_s, self._out.config.armed_max, now_s=self._out.now_s)
        self._arm(conference, conference.log.stream(proxy, name.boot))

    def _add(self, conference: Conference, entry: StreamEntry) -> None:
        """Take in an entry of another proxy, whichever way it came, and pass it on to our clients at once."""
        if not conference.log.has((entry.proxy, entry.boot), entry.seq):
            self._out.trust.check_entry(conference.name, entry, decode(entry.content, SyncUpdate))
        if conference.log.add(entry, partial(self._on_entry, conference)) is None:
            self._out.counters["entries_repeated"] += 1
        else:
            self._out.counters[f"entries_{entry.via}"] += 1

    def _arm(self, conference: Conference, stream: Stream) -> None:
        """Keep sync interests pending for what is missing and for the next entries of *stream*."""
        peer = conference.peers.get(stream.proxy)
        last = stream.announced_seq
        if peer is not None and peer.boot == stream.boot and peer.is_armed and self._out.config.mode != "push":
            last += conference.widths[stream.proxy].width
        missing = stream.announced_seq - stream.seq - len(stream.early)
        if missing > MISSING_ONE_BY_ONE_MAX:
            self._recover(conference, stream.proxy)
            first = stream.announced_seq + 1
        else:
            first = stream.seq + 1
        for seq in range(first, last + 1):
            key = ("sync", conference.name, stream.proxy, stream.boot, seq)
            if seq in stream.early:
                continue
            if key not in self._out.consumer:
                self._out.effects.extend(
                    self._out.consumer.express(
                        key,
                        message_name(node_prefix(stream.proxy), SYNC, conference.name, boot=stream.boot, seq=seq),
                        now_s=self._out.now_s,
                        peer=stream.proxy,
                        lifetime_s=self._out.config.sync_interest_lifetime_s,
                        armed=seq > stream.announced_seq,
                        attempts_max=None if seq > stream.announced_seq else MISSING_ATTEMPTS,
                    )
                )
            elif seq <= stream.announced_seq:
                self._out.effects.extend(
                    self._out.consumer.expedite(key, attempts_max=MISSING_ATTEMPTS, now_s=self._out.now_s)
                )
            else:
                self._out.consumer.keep(key, now_s=self._out.now_s)

    def narrow(self, conference: Conference) -> None:
        """Follow remotes that have become quiet with fewer sync interests."""
        for proxy, width in conference.widths.items():
            peer = conference.peers.get(proxy)
            if width.narrow(now_s=self._out.now_s) and peer is not None:
                self._let_expire(conference, proxy, peer.boot, beyond=width.width)

    def _let_expire(self, conference: Conference, proxy: str, boot: int, *, beyond: int) -> None:
        """Do not renew the sync interests of a stream but for the next *beyond* entries."""
        first = conference.log.stream(proxy, boot).announced_seq + beyond + 1
        for seq in range(first, first + self._out.config.armed_max):
            self._out.consumer.let_expire(("sync", conference.name, proxy, boot, seq))

    def on_heartbeat(self, interest: Interest, name: MessageName, *, is_lossy_path: bool) -> None:
        """Another proxy says where it is; *is_lossy_path*: over a lossy link. Raises: Refusal, MalformedError."""
        if len(name.parts) != 1:
            raise MalformedError("heartbeat without its sender")
        sender = name.parts[0]
        if sender == self._out.device:
            return
        if (name.boot, name.seq) <= self._last_beats.get(sender, (0, 0)):
            raise Refusal("heartbeat_replayed")
        place = place_of(HEARTBEAT, sender, boot=name.boot, seq=name.seq)
        beat = self._out.trust.open_from_proxy(decode(interest.parameters, Sealed), ProxyHeartbeat, place, sender)
        self._last_beats[sender] = (name.boot, name.seq)
        for state in beat.conferences:
            conference = self._conferences.get(state.conference)
            if conference is None and any(proxy == self._out.device for proxy, _, _ in state.current):
                conference = self._open_conference(state.conference)  # we had a part in it and have lost all of it
            if conference is not None:
                if is_lossy_path:
                    conference.lossy_until_s = self._out.now_s + LOSSY_HOLD_S
                self._heard_peer(conference, sender, name.boot, is_armed=state.is_armed)
                self._compare(conference, state.current, sender)

    def _heard_peer(self, conference: Conference, sender: str, boot: int, *, is_armed: bool) -> None:
        peer = conference.peers.get(sender)
        if peer is not None and boot < peer.boot:
            return  # a late copy from before its restart
        if peer is not None and peer.boot != boot:  # it will publish nothing more under its last boot
            after = conference.log.stream(sender, peer.boot).announced_seq
            for seq in range(after + 1, after + self._out.config.armed_max + 1):
                self._out.consumer.cancel(("sync", conference.name, sender, peer.boot, seq))
        if peer is None or peer.boot != boot or not peer.up:
            conference.peers[sender] = Peer(boot, self._out.now_s, is_armed=is_armed)
            self._out.effects.append(Log(PeerChanged(self._out.now_s, conference.name, self._out.device, sender, "up")))
            self._arm(conference, conference.log.stream(sender, boot))
            return
        peer.heard_s = self._out.now_s
        if is_armed and not peer.is_armed:
            peer.is_armed = True
            self._arm(conference, conference.log.stream(sender, boot))
        elif peer.is_armed and not is_armed:
            peer.is_armed = False
            self._let_expire(conference, sender, boot, beyond=0)

    def _compare(self, conference: Conference, theirs: tuple[Position, ...], sender: str) -> None:
        """Ask for what *sender* has and we do not; what its origin cannot give (any more), we ask of *sender*."""
        self._on_vector(conference, sender, theirs)
        for proxy, boot, seq in theirs:
            if proxy == self._out.device:
                self._on_replicated(conference, boot, seq)
                if boot == self._out.boot:
                    continue
            stream = conference.log.stream(proxy, boot)
            if seq > stream.announced_seq:
                stream.announced_seq = seq
            if stream.seq < stream.announced_seq:
                origin = conference.peers.get(proxy)
                if origin is not None and origin.up:
                    self._arm(conference, stream)
                else:
                    self._recover(conference, sender)

    def _recover(self, conference: Conference, peer: str) -> None:
        """Ask a proxy for everything that we lack, together; not while a snapshot is being fetched."""
        if peer == self._out.device or conference.fetch.is_under_way:
            return
        if ("recover", conference.name, peer, 0, 0) not in self._out.consumer:
            self._out.counters["recovery_requests"] += 1
            known = known_for_request(conference.log.vector(), conference.log.behind)
            self._ask("recover", RECOVER, conference, peer, encode(RecoveryRequest(*known)))

    def _ask(self, what: str, kind: bytes, conference: Conference, peer: str, parameters: bytes) -> None:
        """Send a proxy a request of its own, and keep at it for a while."""
        out = self._out
        number = out.next_number()
        out.effects.extend(
            out.consumer.express(
                (what, conference.name, peer, 0, 0),
                message_name(node_prefix(peer), kind, conference.name, out.device, boot=out.boot, seq=number),
                now_s=out.now_s,
                peer=peer,
                parameters=parameters,
                attempts_max=MISSING_ATTEMPTS,
            )
        )

    def recover_from_anyone(self, conference: Conference, *, but: str = "") -> None:
        """A missing entry's origin, or *but*, does not answer: ask the peer heard last."""
        peer = _heard_last(conference, but=but)
        if peer:
            self._recover(conference, peer)

    def on_recovery_request(self, interest: Interest, name: MessageName) -> None:
        """A client or proxy tells its state and wants what comes after. Raises: Refusal, MalformedError."""
        request = decode(interest.parameters, RecoveryRequest)
        conference_name, device = conference_and_device(name.parts)
        conference = self._conferences.get(conference_name)
        if conference is None or (device not in conference.clients and device not in conference.peers):
            raise Refusal("not_joined")
        missed = self._catch_up.missed(conference, request.known, is_partial=request.is_partial)
        self._out.reply_sealed(interest, missed)

    def on_recovery_reply(self, conference: Conference, reply: RecoveryReply, sender: str) -> None:
        """Take in what another proxy has sent of what we lack."""
        if reply.manifest is not None and not conference.fetch.is_under_way:
            self._out.effects.extend(
                conference.fetch.start(reply.manifest, sender, current=reply.current, now_s=self._out.now_s)
            )
            return
        if reply.snapshot is not None:
            conference.log.install(reply.snapshot)
            self._out.counters["snapshots_installed"] += 1
        for entry in reply.entries:
            if (entry.proxy, entry.boot) != conference.own.key:
                try:
                    self._add(conference, StreamEntry(entry.proxy, entry.boot, entry.seq, "recovery", entry.content))
                except Refusal as refusal:
                    self._out.count_refusal(refusal.reason)
        if reply.snapshot is not None:
            self._on_jump(conference)
            self.ask_for_keys(conference)
        self._compare(conference, reply.current, sender)

    def on_segment(self, conference: Conference, number: int, content: bytes) -> None:
        """A segment of the snapshot that is being fetched. Raises: Refusal, MalformedError."""
        fetch = conference.fetch
        source, current = fetch.source, fetch.current
        try:
            effects, snapshot = fetch.take(number, content, now_s=self._out.now_s)
        except (Refusal, MalformedError):
            self._recover(conference, source)
            raise
        self._out.effects.extend(effects)
        if snapshot is not None:
            self.on_recovery_reply(conference, RecoveryReply(current, snapshot, ()), source)

    def give_up_fetch(self, conference: Conference) -> None:
        """Who was to send a snapshot does not: ask another."""
        source = conference.fetch.source
        if not source:
            return  # another segment of the same was given up before
        conference.fetch.cancel()
        self._out.counters["snapshots_given_up"] += 1
        self.recover_from_anyone(conference, but=source)

    def ask_for_keys(self, conference: Conference) -> None:
        """Ask the peer heard last for tokens that a snapshot did not bring."""
        devices = conference.log.view.keys_missing()
        peer = _heard_last(conference)
        if devices and peer and ("keys", conference.name, peer, 0, 0) not in self._out.consumer:
            self._ask("keys", KEYS, conference, peer, encode(KeysRequest(devices)))

    def on_keys_request(self, interest: Interest, name: MessageName) -> None:
        """A client or proxy lacks tokens. Raises: Refusal, MalformedError."""
        request = decode(interest.parameters, KeysRequest)
        conference_name, device = conference_and_device(name.parts)
        conference = self._conferences.get(conference_name)
        if conference is None or (device not in conference.clients and device not in conference.peers):
            raise Refusal("not_joined")
        tokens = conference.log.view.tokens_of(request.devices)
        self._out.reply(interest, KeysReply(cut(tokens, PAYLOAD_MAX_BYTES)))

    def on_keys_reply(self, conference: Conference, reply: KeysReply) -> None:
        """Take in tokens, and with them what has waited for them."""
        conference.log.view.learn(reply.tokens)
        if reply.tokens:
            self.ask_for_keys(conference)  # the rest

    def notice_silence(self, conference: Conference, *, since_s: float) -> None:
        """Peers that were not heard since then are down."""
        for device, peer in conference.peers.items():
            if peer.up and peer.heard_s < since_s:
                peer.up = False
                if device == conference.fetch.source:
                    self.give_up_fetch(conference)
                self._out.effects.append(
                    Log(PeerChanged(self._out.now_s, conference.name, self._out.device, device, "down"))
                )


def _heard_last(conference: Conference, *, but: str = "") -> str:
    """Return the peer that is up and was heard last, *but* for one; empty where there is none."""
    ups = [(peer.heard_s, device) for device, peer in conference.peers.items() if peer.up and device != but]
    return max(ups)[1] if ups else ""
