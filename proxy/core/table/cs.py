"""Content store: Data kept in the network, bounded in entries and bytes, least recently used goes first."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import OrderedDict
from typing import Final

from proxy.wire.name import boundaries, split_implicit_digest
from proxy.wire.packet import Data, Interest
from proxy.wire.value import Value

#: Stale Data that a look-up by prefix with MustBeFresh steps over before it gives up.
STEPS_MAX: Final = 32


class Stored(Value):
    def __init__(self, wire: bytes, stale_s: float) -> None:
        self.wire: Final = wire
        self.stale_s: Final = stale_s  #: from then on it does not satisfy MustBeFresh

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.wire, self.stale_s)


class ContentStore:
    """Admits Data with a freshness period only: acks and replies to one asker are of no use to anybody else.

    One Data per name: a new one takes the place of the old. With CanBePrefix the first in canonical order is found, as in NFD:
    names sort as their bytes do, so all under a prefix stand together.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._stored: OrderedDict[bytes, Stored] = OrderedDict()
        #: all names in order; nothing is kept in order before somebody asks for a prefix
        self._ordered: list[bytes] | None = None

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
        elif self._ordered is not None:
            insort(self._ordered, data.name)
        self._stored[data.name] = Stored(data.wire, now_s + data.freshness_ms / 1e3)
        self.bytes += size
        while len(self._stored) > self.max_entries or self.bytes > self.max_bytes:
            name, evicted = self._stored.popitem(last=False)
            self.bytes -= len(evicted.wire)
            self.evictions += 1
            if self._ordered is not None:
                del self._ordered[bisect_left(self._ordered, name)]

    def find(self, interest: Interest, *, now_s: float) -> bytes | None:
        """Return a Data packet that answers *interest*.

        Raises: MalformedError for a broken name, as far as it has to be looked at.
        """
        name: bytes | None = interest.name
        stored = self._stored.get(interest.name)
        if stored is None or (interest.must_be_fresh and now_s >= stored.stale_s):
            name = self._find_under(interest, now_s) if interest.can_be_prefix else None
            if name is None:
                name = self._find_by_digest(interest, now_s)
            stored = None if name is None else self._stored[name]
        if name is None or stored is None:
            self.misses += 1
            return None
        self._stored.move_to_end(name)
        self.hits += 1
        return stored.wire

    def _find_under(self, interest: Interest, now_s: float) -> bytes | None:
        """Return the first name under that of *interest* whose Data will do."""
        boundaries(interest.name)  # else one that ends inside a component would match, too
        if self._ordered is None:
            self._ordered = sorted(self._stored)
        prefix, at = interest.name, bisect_left(self._ordered, interest.name)
        for name in self._ordered[at : at + STEPS_MAX]:
            if not name.startswith(prefix):
                return None
            if not interest.must_be_fresh or now_s < self._stored[name].stale_s:
                return name
        return None

    def _find_by_digest(self, interest: Interest, now_s: float) -> bytes | None:
        """Return the name of the Data that *interest* tells from all others by its digest."""
        parts = split_implicit_digest(interest.name)
        stored = None if parts is None else self._stored.get(parts[0])
        if parts is None or stored is None or (interest.must_be_fresh and now_s >= stored.stale_s):
            return None
        return parts[0] if hashlib.sha256(stored.wire).digest() == parts[1] else None
