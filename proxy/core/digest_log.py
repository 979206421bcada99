"""The digest log of one conference at one proxy: every sync stream with its chained digest, history and view.

A stream is what one proxy accepted in one boot, entry by entry. The history is bounded; what falls out of it lives on in
the view, from which a snapshot can always be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from proxy.core.events import EntryLogged, LogChange, LogCompacted, LogReplaced, StoredConference
from proxy.core.positions import AHEAD_MAX, StreamKey
from proxy.core.signing import Signer
from proxy.core.trust import entry_contents, entry_statement
from proxy.core.view import AppliedUpdate, View, chained
from proxy.wire.messages import (
    EMPTY_DIGEST,
    PAYLOAD_MAX_BYTES,
    Position,
    RosterEvent,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    StreamHead,
    SyncUpdate,
)
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: What a snapshot spends on tokens; who lacks one asks for it.
TOKENS_IN_SNAPSHOT_BYTES: Final = 3_000


def chain_of(previous: bytes, sync_update: SyncUpdate) -> bytes:
    """Return the chain digest of a stream after an entry that holds what *sync_update* does."""
    return chained(previous, *entry_contents(sync_update))


@dataclass
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

    def __init__(self, *, history_max_entries: int, conference: str = "", view: View | None = None) -> None:
        self.conference = conference
        self.view = view or View()
        self.streams: dict[StreamKey, Stream] = {}
        self._history: OrderedDict[tuple[StreamKey, int], StreamEntry] = OrderedDict()
        self._history_max_entries = history_max_entries
        self._journal: list[StreamEntry] = []  #: entries that became known since the journal was taken
        self._logged_entries = 0  #: in the log on disk
        self._jumped = False  #: a snapshot was taken over since then: entries alone do not lead to where we are

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

    def append_own(
        self,
        stream: Stream,
        updates: tuple[SignedUpdate, ...],
        *,
        signer: Signer | None = None,
        roster: tuple[RosterEvent, ...] = (),
    ) -> StreamEntry:
        """Append what this proxy has just accepted to its own *stream*; who has accepted it lets the view take it in."""
        sync_update = SyncUpdate(EMPTY_DIGEST, updates, roster=roster)
        stream.chain_digest = chain_of(stream.chain_digest, sync_update)
        stream.seq += 1
        sync_update = replace(sync_update, chain_digest=stream.chain_digest)
        entry = StreamEntry(stream.proxy, stream.boot, stream.seq, "push", b"")
        if signer is not None:
            signature = signer.sign(entry_statement(self.conference, entry, sync_update))
            sync_update = replace(sync_update, signature=signature)
        entry = replace(entry, content=encode(sync_update))
        self._remember(entry)
        return entry

    def add(
        self, entry: StreamEntry, pass_on: Callable[[StreamEntry], None] | None = None
    ) -> list[AppliedUpdate] | None:
        """Take in an entry of another proxy's stream; return what the view applies, None where the entry is known.

        *pass_on* gets it before the view has looked at its updates: what they are worth, everybody judges for himself.
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
        if pass_on is not None:
            pass_on(entry)
        for event in sync_update.roster:
            self.view.note(event)
        return [applied for signed in sync_update.updates for applied in self.view.offer(signed, entry.via)]

    def _extend(self, stream: Stream, entry: StreamEntry, sync_update: SyncUpdate) -> None:
        if chain_of(stream.chain_digest, sync_update) != sync_update.chain_digest:
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
        self._journal.append(entry)
        while len(self._history) > self._history_max_entries:
            self._history.popitem(last=False)

    def get(self, key: StreamKey, seq: int) -> StreamEntry | None:
        """Return an entry that is still in the history (or early)."""
        stream = self.streams.get(key)
        early = stream.early.get(seq) if stream is not None else None
        return early or self._history.get((key, seq))

    def suffix(
        self, known: Iterable[Position], *, max_bytes: int = PAYLOAD_MAX_BYTES, named_only: bool = False
    ) -> list[StreamEntry] | None:
        """Return what comes after *known*, as many entries as fit; None where some of it is only in the snapshot.

        *named_only*: nothing of streams that *known* does not name.
        """
        after = {(proxy, boot): seq for proxy, boot, seq in known}
        entries: list[StreamEntry] = []
        size_bytes = 0
        for key, stream in sorted(self.streams.items()):
            if named_only and key not in after:
                continue
            for seq in range(after.get(key, 0) + 1, stream.seq + 1):
                entry = self._history.get((key, seq))
                if entry is None:
                    return None
                size_bytes += len(entry.content) + 100
                if entries and size_bytes > max_bytes:
                    return entries
                entries.append(entry)
        return entries

    def reaches_back_to(self, known: Iterable[Position]) -> bool:
        """Tell whether the history has everything after *known*. What is oldest leaves it first, so one look a stream will do."""
        after = {(proxy, boot): seq for proxy, boot, seq in known}
        return all(
            stream.seq <= after.get(key, 0) or (key, after.get(key, 0) + 1) in self._history
            for key, stream in self.streams.items()
        )

    def behind(self) -> tuple[Position, ...]:
        """Return how far those streams are known of which more is known to exist, sorted."""
        return tuple(
            (stream.proxy, stream.boot, stream.seq)
            for _, stream in sorted(self.streams.items())
            if stream.seq < stream.announced_seq
        )

    def snapshot(self, *, complete: bool = False) -> Snapshot:
        """Return the view and how far each stream is known; *complete*: with all tokens, for who cannot ask for more."""
        return Snapshot(
            self.view.heads(),
            tuple(
                StreamHead(stream.proxy, stream.boot, stream.seq, stream.chain_digest)
                for _, stream in sorted(self.streams.items())
                if stream.seq
            ),
            self.view.held(),
            self.view.presence(),
            self.view.tokens(max_bytes=10**9 if complete else TOKENS_IN_SNAPSHOT_BYTES),
        )

    def install(self, snapshot: Snapshot) -> list[AppliedUpdate]:
        """Take over another proxy's snapshot; return what could be applied behind it."""
        _, released = self.view.install(snapshot)
        self._jumped = True
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

    # ------------------------------------------------------------------ the log on disk

    def take_journal(self, conference: str) -> list[LogChange]:
        """Return what is to be written since the last call, compaction included: no more entries than the history has."""
        changes: list[LogChange] = [EntryLogged(conference, entry) for entry in self._journal]
        self._logged_entries += len(self._journal)
        self._journal.clear()
        if self._jumped or self._logged_entries > self._history_max_entries:
            self._jumped = False
            keep = min(self._logged_entries, self._history_max_entries * 3 // 4)
            self._logged_entries = keep
            changes.append(LogCompacted(conference, self.snapshot(complete=True), keep))
        return changes

    def whole(self, conference: str) -> LogReplaced:
        """Return all of it, for a disk that has lost or refused a part."""
        self._journal.clear()
        self._jumped = False
        self._logged_entries = len(self._history)
        return LogReplaced(conference, self.snapshot(complete=True), tuple(self._history.values()))

    def restore(self, stored: StoredConference) -> int:
        """Take back what the disk held, into an empty log; return how many entries did not verify and were left out.

        What is left out, and what came after it in its stream, is still with the other proxies. Entries behind the
        snapshot are only history: each must carry its own chain digest on from the one before it, where that is there.
        """
        if stored.snapshot is not None:
            self.install(stored.snapshot)
        heads = {key: (stream.seq, stream.chain_digest) for key, stream in self.streams.items()}
        dropped = 0
        for entry in stored.entries:
            stream = self.stream(entry.proxy, entry.boot)
            try:
                sync_update = decode(entry.content, SyncUpdate)
                if entry.seq == stream.seq + 1:
                    self._extend(stream, entry, sync_update)
                    for event in sync_update.roster:
                        self.view.note(event)
                    for signed in sync_update.updates:
                        self.view.offer(signed, "recovery")
                elif entry.seq <= heads.get(stream.key, (0, b""))[0]:
                    self._check_link(stream.key, entry, sync_update, heads[stream.key])
                    self._remember(entry)
                else:
                    dropped += 1
            except MalformedError:
                dropped += 1
        for stream in self.streams.values():
            stream.announced_seq = stream.seq
        self._journal.clear()
        self._jumped = False
        self._logged_entries = len(stored.entries)
        return dropped

    def _check_link(self, key: StreamKey, entry: StreamEntry, sync_update: SyncUpdate, head: tuple[int, bytes]) -> None:
        """Check an entry behind the snapshot. Raises: MalformedError."""
        before = self._history.get((key, entry.seq - 1))
        if before is not None:
            previous = decode(before.content, SyncUpdate).chain_digest
        elif entry.seq == 1:
            previous = EMPTY_DIGEST
        else:
            previous = None
        fits = previous is None or chain_of(previous, sync_update) == sync_update.chain_digest
        if not fits or (entry.seq == head[0] and sync_update.chain_digest != head[1]):
            raise MalformedError(f"entry {entry.seq} of {entry.proxy} does not fit its chain")

    def vector(self) -> tuple[Position, ...]:
        """Return (proxy, boot, seq) of every stream that has entries, sorted."""
        return tuple(
            (stream.proxy, stream.boot, stream.seq) for _, stream in sorted(self.streams.items()) if stream.seq
        )

    def positions(self, streams: Iterable[tuple[str, int]]) -> tuple[Position, ...]:
        """Return the same of some streams, each (proxy, boot)."""
        found = [self.streams[key] for key in sorted(streams)]
        return tuple((stream.proxy, stream.boot, stream.seq) for stream in found if stream.seq)

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
