"""Pending Interest table: who waits for what, and where we asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.core.table.fib import NextHop, StrategyName
from proxy.core.timers import Timers
from proxy.wire.name import boundaries, split_implicit_digest
from proxy.wire.packet import Data, Interest, full_name

#: Entries are removed in batches on this grid: a wake-up for each would cost more than keeping them a moment longer.
EXPIRY_GRAIN_S: Final = 0.1

#: (name, CanBePrefix, MustBeFresh): Interests that agree in these are aggregated.
PitKey = tuple[bytes, bool, bool]


class InRecord:
    """A downstream face that waits."""

    def __init__(
        self,
        nonce: int,
        expiry_s: float,
        lifetime_s: float,
        wire: bytes,
        nonce_at: int,
        *,
        stays: bool = False,
        pit_token: bytes = b"",
        is_lossy_path: bool = False,
    ) -> None:
        self.nonce, self.expiry_s, self.lifetime_s = nonce, expiry_s, lifetime_s
        self.wire = wire  #: the Interest as it will be forwarded
        self.nonce_at = nonce_at  #: offset of its nonce
        self.stays = stays  #: its hop limit allows no further hop: only this node may answer
        self.pit_token = pit_token  #: what an application wants back with the answer (NDNLPv2, "PitToken")
        self.is_lossy_path = is_lossy_path  #: on its way here the Interest has crossed a lossy link

    def renewed(self, nonce: int) -> InRecord:
        """Return the same question under another nonce, for asking again on behalf of this downstream."""
        wire = self.wire[: self.nonce_at] + nonce.to_bytes(4, "big") + self.wire[self.nonce_at + 4 :]
        return InRecord(
            nonce,
            self.expiry_s,
            self.lifetime_s,
            wire,
            self.nonce_at,
            stays=self.stays,
            pit_token=self.pit_token,
            is_lossy_path=self.is_lossy_path,
        )


class OutRecord:
    """An upstream face that was asked."""

    def __init__(self, nonce: int, sent_s: float, expiry_s: float) -> None:
        self.nonce, self.sent_s = nonce, sent_s
        self.expiry_s = expiry_s  #: until then the upstream holds our Interest pending
        self.nacked: int | None = None  #: the NackReason it answered with
        self.suppression_s = 0.0  #: of multicast: so long, who asks the same relies on this

    def refuse(self, reason: int, *, until_s: float) -> None:
        """It has answered with a Nack, which counts until then."""
        self.nacked, self.expiry_s = reason, min(self.expiry_s, until_s)


class PitEntry:
    """A name that somebody waits for; *opener* is the face whose Interest made the entry."""

    def __init__(self, key: PitKey, strategy: StrategyName, next_hops: tuple[NextHop, ...], opener: int) -> None:
        self.key, self.strategy, self.next_hops, self.opener = key, strategy, next_hops, opener
        self.has_digest = False  #: its name ends in the implicit digest of the one Data that will do
        self.in_records: dict[int, InRecord] = {}
        self.out_records: dict[int, OutRecord] = {}

    @property
    def expiry_s(self) -> float:
        latest_s = 0.0
        for record in self.in_records.values():
            if record.expiry_s > latest_s:
                latest_s = record.expiry_s
        return latest_s


class Pit:
    """Exact match on the key; a Data satisfies its own name, that with its digest and, for CanBePrefix, every prefix of it.

    Bounded: the owner refuses new entries while ``is_full`` (no entry that somebody waits on is ever evicted).
    """

    def __init__(self, *, max_entries: int) -> None:
        self.max_entries = max_entries
        self.peak = 0
        self._entries: dict[PitKey, PitEntry] = {}
        self._prefix_entries = 0  #: entries with CanBePrefix; none, and a Data needs no prefix look-ups
        self._digest_entries = 0  #: entries whose name ends in an implicit digest; none, and a Data needs none computed
        self._held: dict[int, int] = {}  #: face -> entries that it opened
        self.timers: Timers[PitKey] = Timers()

    def held_by(self, face_id: int) -> int:
        """Return how many entries are there because of a face."""
        return self._held.get(face_id, 0)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[PitEntry]:
        return iter(list(self._entries.values()))

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self.max_entries

    def find(self, interest: Interest) -> PitEntry | None:
        """Return the entry that *interest* would be aggregated into."""
        return self._entries.get((interest.name, interest.can_be_prefix, interest.must_be_fresh))

    def insert(
        self, interest: Interest, strategy: StrategyName, next_hops: tuple[NextHop, ...], *, opener: int = 0
    ) -> PitEntry:
        """Make the entry of a new Interest; its expiry is set by ``refresh``."""
        key = (interest.name, interest.can_be_prefix, interest.must_be_fresh)
        entry = self._entries[key] = PitEntry(key, strategy, next_hops, opener)
        self._held[opener] = self._held.get(opener, 0) + 1
        self._prefix_entries += interest.can_be_prefix
        entry.has_digest = split_implicit_digest(interest.name) is not None
        self._digest_entries += entry.has_digest
        self.peak = max(self.peak, len(self._entries))
        return entry

    def refresh(self, entry: PitEntry) -> None:
        """Set the entry's timer to when its last in-record expires, or a little later, together with others."""
        self.timers.set(entry.key, (int(entry.expiry_s / EXPIRY_GRAIN_S) + 1) * EXPIRY_GRAIN_S)

    def erase(self, entry: PitEntry) -> None:
        """Remove an entry, satisfied or expired."""
        if self._entries.pop(entry.key, None) is not None:
            self._prefix_entries -= entry.key[1]
            self._digest_entries -= entry.has_digest
            held = self._held[entry.opener] - 1
            if held:
                self._held[entry.opener] = held
            else:
                del self._held[entry.opener]
        self.timers.cancel(entry.key)

    def matches(self, data: Data) -> list[PitEntry]:
        """Return every entry that *data* satisfies; a Data from upstream is always fresh enough."""
        entries, name, found = self._entries, data.name, []
        for must_be_fresh in (False, True):
            entry = entries.get((name, False, must_be_fresh))
            if entry is not None:
                found.append(entry)
        if self._prefix_entries:
            for end in boundaries(name):
                for must_be_fresh in (False, True):
                    entry = entries.get((name[:end], True, must_be_fresh))
                    if entry is not None:
                        found.append(entry)
        if self._digest_entries:
            exact = full_name(data)
            for can_be_prefix in (False, True):
                for must_be_fresh in (False, True):
                    entry = entries.get((exact, can_be_prefix, must_be_fresh))
                    if entry is not None:
                        found.append(entry)
        return found

    def pop_expired(self, now_s: float) -> Iterator[PitEntry]:
        """Remove and yield the entries that nobody waits on any more."""
        for key in self.timers.pop_due(now_s):
            entry = self._entries.get(key)
            if entry is not None:
                self.erase(entry)
                yield entry
