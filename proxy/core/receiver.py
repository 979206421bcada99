"""The receiving part of a service client: applies what its proxy tells, and recovers what it has missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from proxy.core.chain_check import ChainCheck
from proxy.core.client_outbox import ClientOutbox
from proxy.core.own_updates import short_digest
from proxy.core.packing import known_for_request
from proxy.core.positions import Positions
from proxy.core.snapshot_transfer import SnapshotFetch
from proxy.core.trust import Refusal, place_of
from proxy.core.view import AppliedUpdate, View
from proxy.records import Applied, SnapshotApplied
from proxy.wire.message_names import HEARTBEAT, KEYS, RECOVER, MessageName
from proxy.wire.messages import (
    ClientHeartbeat,
    FpUpdate,
    JoinReply,
    KeysReply,
    KeysRequest,
    Position,
    RecoveryReply,
    RecoveryRequest,
    Sealed,
    Snapshot,
    StreamEntry,
    SyncUpdate,
)
from proxy.wire.packet import Interest
from proxy.wire.payload import decode, encode

RECOVERY_ATTEMPTS: Final = 6


def log_applied(out: ClientOutbox, applied: list[AppliedUpdate], on_update: Callable[[FpUpdate], None]) -> None:
    """Write down what has just become visible of others, and tell *on_update*."""
    for item in applied:
        update = item.update
        if update.device == out.device and update.boot == out.boot:
            continue
        out.log(
            Applied(
                out.now_s, out.conference, out.device, update.device, update.boot, update.seq, item.via,
                short_digest(item.signed.update),
            )
        )  # fmt: skip
        on_update(update)


class Receiver:
    """Feeds *view* and *positions*; *on_update* is told of every update of others that was applied."""

    def __init__(
        self, out: ClientOutbox, *, view: View, positions: Positions, on_update: Callable[[FpUpdate], None]
    ) -> None:
        self._out, self.view, self.positions, self._on_update = out, view, positions, on_update
        self._last_beats: dict[str, tuple[int, int]] = {}  #: of each proxy: (boot, number) of its last heartbeat
        self._chains = ChainCheck(out.trust, conference=out.conference)
        self._fetch = SnapshotFetch(
            out.consumer,
            lambda number: ("segment", number),
            conference=out.conference,
            asker=f"{out.device} {out.boot}",
        )

    def take(self, entries: Sequence[StreamEntry]) -> None:
        """Apply what is new in entries. Raises: MalformedError."""
        news = [entry for entry in entries if not self.positions.has((entry.proxy, entry.boot), entry.seq)]
        if len(news) < len(entries):
            self._out.counters["entries_repeated"] += len(entries) - len(news)
        opened = [(entry, decode(entry.content, SyncUpdate)) for entry in news]
        refused = self._chains.refused(opened)
        for reason in refused.values():
            self._out.count_refusal(reason)
        for index, (entry, sync_update) in enumerate(opened):
            if index in refused:
                continue
            self.positions.add((entry.proxy, entry.boot), entry.seq)
            for event in sync_update.roster:
                self.view.note(event)
            for signed in sync_update.updates:
                self._log_applied(self.view.offer(signed, entry.via))

    def take_missed(self, reply: JoinReply | RecoveryReply) -> None:
        """Apply what a join or recovery reply brings, and go after what it only announces. Raises: MalformedError."""
        out = self._out
        if reply.manifest is None:
            self._fetch.cancel()  # this reply makes up for it
        else:
            out.effects.extend(self._fetch.start(reply.manifest, out.proxy, current=reply.current, now_s=out.now_s))
        if reply.snapshot is not None:
            self._install(reply.snapshot)
        self.take([StreamEntry(each.proxy, each.boot, each.seq, "recovery", each.content) for each in reply.entries])
        self.recover_if_behind(reply.current)  # the rest did not fit

    def on_segment(self, number: int, content: bytes) -> None:
        """A segment of the snapshot that is being fetched. Raises: Refusal, MalformedError."""
        current = self._fetch.current
        effects, snapshot = self._fetch.take(number, content, now_s=self._out.now_s)
        self._out.effects.extend(effects)
        if snapshot is not None:
            self._install(snapshot)
            self.recover_if_behind(current)
            self.ask_for_keys()

    def give_up_fetch(self) -> None:
        """A segment does not come; the next heartbeat of our proxy will show what is still missing."""
        if self._fetch.is_under_way:  # else another segment of the same was given up before
            self._out.counters["snapshots_given_up"] += 1
            self._fetch.cancel()

    def stop_asking(self) -> None:
        """Nothing that the proxy could answer now is of use any more."""
        self._fetch.cancel()
        self._out.stop_asking("recover", "keys")

    def _install(self, snapshot: Snapshot) -> None:
        news, released = self.view.install(snapshot)
        self.positions.install((head.proxy, head.boot, head.seq) for head in snapshot.streams)
        self._chains.install(snapshot.streams)
        out = self._out
        heads = [(head.device, head.boot, head.seq) for head in news if head.device != out.device]
        if heads:
            out.log(SnapshotApplied(out.now_s, out.conference, out.device, heads))
        self._log_applied(released)
        for signed in snapshot.held:
            self._log_applied(self.view.offer(signed, "snapshot"))

    def _log_applied(self, applied: list[AppliedUpdate]) -> None:
        log_applied(self._out, applied, self._on_update)

    def open_heartbeat(self, interest: Interest, name: MessageName) -> ClientHeartbeat:
        """Return what our proxy says. Raises: Refusal where it does not, or has said it before; MalformedError."""
        out = self._out
        if (name.boot, name.seq) <= self._last_beats.get(out.proxy, (0, 0)):
            raise Refusal("heartbeat_replayed")
        sealed = decode(interest.parameters, Sealed)
        addressee = out.device if decode(sealed.content, ClientHeartbeat).ended else ""
        place = place_of(HEARTBEAT, out.conference, out.proxy, addressee, boot=name.boot, seq=name.seq)
        beat = out.trust.open_from_proxy(sealed, ClientHeartbeat, place, out.proxy)
        self._last_beats[out.proxy] = (name.boot, name.seq)
        return beat

    # ------------------------------------------------------------------ asking for what is missing

    def recover_if_behind(self, current: tuple[Position, ...]) -> None:
        """Ask our proxy for what *current* has and we have not, unless an answer to that is on its way."""
        if self._fetch.is_under_way or ("recover", 0) in self._out.consumer or not self.positions.is_behind(current):
            return
        known = known_for_request(self.positions.vector(), partial(self.positions.behind, current))
        self._out.counters["recovery_requests"] += 1
        self._out.ask_proxy(
            ("recover", 0),
            RECOVER,
            encode(RecoveryRequest(*known)),
            seq=self._out.next_number(),
            attempts_max=RECOVERY_ATTEMPTS,
        )

    def ask_for_keys(self) -> None:
        """Ask our proxy for tokens of those whom only a snapshot told of, and whose updates must wait without."""
        devices = self.view.keys_missing()
        out = self._out
        if not devices or ("keys", 0) in out.consumer or out.state not in ("joined", "suspect", "closing"):
            return
        out.ask_proxy(
            ("keys", 0),
            KEYS,
            encode(KeysRequest(devices)),
            seq=out.next_number(),
            attempts_max=RECOVERY_ATTEMPTS,
        )

    def on_keys_reply(self, reply: KeysReply) -> None:
        """Raises: MalformedError."""
        self._log_applied(self.view.learn(reply.tokens))
        if reply.tokens:
            self.ask_for_keys()  # the rest
