"""The receiving part of a service client: applies what its proxy tells, and recovers what it has missed."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.core.client_outbox import ClientOutbox
from proxy.core.positions import Positions
from proxy.core.publisher import short_digest
from proxy.core.trust import Refusal, place_of
from proxy.core.view import AppliedUpdate, View
from proxy.records import Applied, SnapshotApplied
from proxy.wire.messages import (
    HEARTBEAT,
    KEYS,
    RECOVER,
    ClientHeartbeat,
    KeysReply,
    KeysRequest,
    MessageName,
    Position,
    RecoveryReply,
    RecoveryRequest,
    Sealed,
    Snapshot,
    StreamEntry,
    SyncUpdate,
    decode,
    encode,
)
from proxy.wire.packet import Interest

RECOVERY_ATTEMPTS = 6


class Receiver:
    """Feeds *view* and *positions*."""

    def __init__(self, out: ClientOutbox, *, view: View, positions: Positions) -> None:
        self._out, self.view, self.positions = out, view, positions
        self._last_beats: dict[str, tuple[int, int]] = {}  #: of each proxy: (boot, number) of its last heartbeat

    def take(self, entry: StreamEntry) -> None:
        """Apply what is new in an entry. Raises: MalformedError."""
        key = (entry.proxy, entry.boot)
        if self.positions.has(key, entry.seq):
            self._out.counters["entries_repeated"] += 1
            return
        sync_update = decode(entry.content, SyncUpdate)
        try:
            self._out.trust.check_entry(self._out.conference, entry, sync_update)
        except Refusal as refusal:
            self._out.count_refusal(refusal.reason)
            return
        self.positions.add(key, entry.seq)
        for event in sync_update.roster:
            self.view.note(event)
        for signed in sync_update.updates:
            self._log_applied(self.view.offer(signed, entry.via))

    def take_missed(self, snapshot: Snapshot | None, entries: Iterable[StreamEntry]) -> None:
        """Apply what a join or recovery reply brings. Raises: MalformedError."""
        if snapshot is not None:
            self._install(snapshot)
        for entry in entries:
            self.take(StreamEntry(entry.proxy, entry.boot, entry.seq, "recovery", entry.content))

    def _install(self, snapshot: Snapshot) -> None:
        news, released = self.view.install(snapshot)
        self.positions.install((head.proxy, head.boot, head.seq) for head in snapshot.streams)
        out = self._out
        heads = [(head.device, head.boot, head.seq) for head in news if head.device != out.device]
        if heads:
            out.log(SnapshotApplied(out.now_s, out.conference, out.device, heads))
        self._log_applied(released)
        for signed in snapshot.held:
            self._log_applied(self.view.offer(signed, "snapshot"))

    def _log_applied(self, applied: list[AppliedUpdate]) -> None:
        out = self._out
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

    def recover_if_behind(self, current: Iterable[Position]) -> None:
        """Ask our proxy for what *current* has and we have not."""
        if not self.positions.is_behind(current) or ("recover", 0) in self._out.consumer:
            return
        self._out.counters["recovery_requests"] += 1
        self._out.ask_proxy(
            ("recover", 0),
            RECOVER,
            encode(RecoveryRequest(self.positions.vector())),
            seq=self._out.next_number(),
            attempts_max=RECOVERY_ATTEMPTS,
        )

    def on_recovery_reply(self, reply: RecoveryReply) -> None:
        """Raises: MalformedError."""
        self.take_missed(reply.snapshot, reply.entries)
        self.recover_if_behind(reply.current)  # the rest did not fit

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
