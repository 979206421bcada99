"""Content store: Data kept in the network, bounded in entries and bytes, least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from proxy.wire.packet import Data, Interest


class Stored(Struct, frozen=True):
    wire: bytes
    stale_s: float  #: from then on it does not satisfy MustBeFresh


class ContentStore:
    """Admits Data with a freshness period only: acks and replies to one asker are of no use to anybody else.

    Exact names only; CanBePrefix look-ups are the business of the issue on name-based routing.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._stored: OrderedDict[bytes, Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def insert(self, data: Data, *, now_s: float) -> None:
        """Keep *data* if its producer allows it to be reused."""
        size = len(data.wire)
        if not data.freshness_ms or size > self.max_bytes or not self.max_entries:
            return
        previous = self._stored.pop(data.name, None)
        if previous is not None:
            self.bytes -= len(previous.wire)
        self._stored[data.name] = Stored(data.wire, now_s + data.freshness_ms / 1e3)
        self.bytes += size
        while len(self._stored) > self.max_entries or self.bytes > self.max_bytes:
            _, evicted = self._stored.popitem(last=False)
            self.bytes -= len(evicted.wire)
            self.evictions += 1

    def find(self, interest: Interest, *, now_s: float) -> bytes | None:
        """Return the Data packet that answers *interest*."""
        stored = self._stored.get(interest.name)
        if stored is None or (interest.must_be_fresh and now_s >= stored.stale_s):
            self.misses += 1
            return None
        self._stored.move_to_end(interest.name)
        self.hits += 1
        return stored.wire
