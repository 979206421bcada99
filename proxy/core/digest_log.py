"""The digest log of one conference at one proxy: every sync stream with its chained digest, history and view.

A stream is what one proxy accepted in one boot, entry by entry. The history is bounded; what falls out of it lives on in
the view, from which a snapshot can always be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.core.positions import AHEAD_MAX, StreamKey
from proxy.core.view import AppliedUpdate, View, chained
from proxy.wire.messages import (
    EMPTY_DIGEST,
    PAYLOAD_MAX_BYTES,
    Position,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    StreamHead,
    SyncUpdate,
    decode,
    encode,
)
from proxy.wire.tlv import MalformedError


def chain_of(previous: bytes, updates: Iterable[SignedUpdate]) -> bytes:
    """Return the chain digest of a stream after an entry with *updates*."""
    return chained(previous, *(part for signed in updates for part in (signed.update, signed.signature)))


@dataclass(slots=True)
class Stream:
    """One sync stream. Entries 1 to *seq* are known; those in the log's history can be served."""

    proxy: str
    boot: int
    seq: int = 0
    chain_digest: bytes = EMPTY_DIGEST
    #: arrived before an entry in front of them; their chain cannot be checked yet
    early: dict[int, StreamEntry] = field(default_factory=dict)
    #: highest seq that anybody says exists
    announced_seq: int = 0

    @property
    def key(self) -> StreamKey:
        return (self.proxy, self.boot)


class DigestLog:
    """Entries in, updates to apply out."""

    def __init__(self, *, history_max_entries: int) -> None:
        self.view = View()
        self.streams: dict[StreamKey, Stream] = {}
        self._history: OrderedDict[tuple[StreamKey, int], StreamEntry] = OrderedDict()
        self._history_max_entries = history_max_entries

    def stream(self, proxy: str, boot: int) -> Stream:
        """Return a stream, new and empty if it was not known."""
        key = (proxy, boot)
        stream = self.streams.get(key)
        if stream is None:
            stream = self.streams[key] = Stream(proxy, boot)
        return stream

    @property
    def history_entries(self) -> int:
        return len(self._history)

    def has(self, key: StreamKey, seq: int) -> bool:
        """Tell whether an entry is known, be it early or only in the snapshot."""
        stream = self.streams.get(key)
        return stream is not None and (seq <= stream.seq or seq in stream.early)

    def append_own(self, stream: Stream, updates: tuple[SignedUpdate, ...]) -> StreamEntry:
        """Append what this proxy has just accepted to its own *stream*; the updates were offered to the view already."""
        stream.chain_digest = chain_of(stream.chain_digest, updates)
        stream.seq += 1
        content = encode(SyncUpdate(stream.chain_digest, updates))
        entry = StreamEntry(stream.proxy, stream.boot, stream.seq, "push", content)
        self._remember(entry)
        return entry

    def add(self, entry: StreamEntry) -> list[AppliedUpdate] | None:
        """Take in an entry of another proxy's stream; return what the view applies, None where the entry is known.

        Updates are applied though earlier entries are missing (the order that counts is the publisher's); the vector grows
        only over what is complete. Raises: MalformedError for a broken entry, or one that does not fit the chain.
        """
        stream = self.stream(entry.proxy, entry.boot)
        if self.has(stream.key, entry.seq):
            return None
        sync_update = decode(entry.content, SyncUpdate)
        if entry.seq == stream.seq + 1:
            self._extend(stream, entry, sync_update)
            self._extend_over_early(stream)
        elif len(stream.early) < AHEAD_MAX:
            stream.early[entry.seq] = entry
        else:
            return None
        stream.announced_seq = max(stream.announced_seq, entry.seq)
        return [applied for signed in sync_update.updates for applied in self.view.offer(signed, entry.via)]

    def _extend(self, stream: Stream, entry: StreamEntry, sync_update: SyncUpdate) -> None:
        if chain_of(stream.chain_digest, sync_update.updates) != sync_update.chain_digest:
            raise MalformedError(f"entry {entry.seq} of {entry.proxy} does not fit its chain")
        stream.seq, stream.chain_digest = entry.seq, sync_update.chain_digest
        self._remember(entry)

    def _extend_over_early(self, stream: Stream) -> None:
        """Append what came early and is next. What does not fit the chain was none of this stream's: it is asked for anew."""
        while (early := stream.early.pop(stream.seq + 1, None)) is not None:
            try:
                self._extend(stream, early, decode(early.content, SyncUpdate))
            except MalformedError:
                return

    def _remember(self, entry: StreamEntry) -> None:
        self._history[(entry.proxy, entry.boot), entry.seq] = entry
        while len(self._history) > self._history_max_entries:
            self._history.popitem(last=False)

    def get(self, key: StreamKey, seq: int) -> StreamEntry | None:
        """Return an entry that is still in the history (or early)."""
        stream = self.streams.get(key)
        early = stream.early.get(seq) if stream is not None else None
        return early or self._history.get((key, seq))

    def suffix(self, known: Iterable[Position], *, max_bytes: int = PAYLOAD_MAX_BYTES) -> list[StreamEntry] | None:
        """Return what comes after *known*, as many entries as fit; None where some of it is only in the snapshot."""
        after = {(proxy, boot): seq for proxy, boot, seq in known}
        entries: list[StreamEntry] = []
        size_bytes = 0
        for key, stream in sorted(self.streams.items()):
            for seq in range(after.get(key, 0) + 1, stream.seq + 1):
                entry = self._history.get((key, seq))
                if entry is None:
                    return None
                size_bytes += len(entry.content) + 100
                if entries and size_bytes > max_bytes:
                    return entries
                entries.append(entry)
        return entries

    def snapshot(self) -> Snapshot:
        """Return the view and how far each stream is known."""
        return Snapshot(
            self.view.heads(),
            tuple(
                StreamHead(stream.proxy, stream.boot, stream.seq, stream.chain_digest)
                for _, stream in sorted(self.streams.items())
                if stream.seq
            ),
            self.view.held(),
        )

    def install(self, snapshot: Snapshot) -> list[AppliedUpdate]:
        """Take over another proxy's snapshot; return what could be applied behind it."""
        _, released = self.view.install(snapshot.heads)
        for head in snapshot.streams:
            stream = self.stream(head.proxy, head.boot)
            if head.seq <= stream.seq:
                continue
            stream.seq, stream.chain_digest = head.seq, head.chain_digest
            stream.announced_seq = max(stream.announced_seq, head.seq)
            stream.early = {seq: entry for seq, entry in stream.early.items() if seq > head.seq}
            self._extend_over_early(stream)
        for signed in snapshot.held:
            released += self.view.offer(signed, "snapshot")
        return released

    def vector(self) -> tuple[Position, ...]:
        """Return (proxy, boot, seq) of every stream that has entries, sorted."""
        return tuple(
            (stream.proxy, stream.boot, stream.seq) for _, stream in sorted(self.streams.items()) if stream.seq
        )

    def state_digest(self) -> bytes:
        """Return 16 bytes that are equal where two proxies hold the same entries."""
        return chained(
            EMPTY_DIGEST,
            *(
                f"{stream.proxy} {stream.boot} {stream.seq} {stream.chain_digest.hex()}".encode()
                for _, stream in sorted(self.streams.items())
                if stream.seq
            ),
        )
