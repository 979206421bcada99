"""Deadlines of a core: set, move, cancel; the earliest is what the driver waits for."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """A set of keys, each with one deadline in seconds."""

    def __init__(self) -> None:
        self._deadlines_s: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def set(self, key: K, deadline_s: float) -> None:
        """Set or move the deadline of *key*."""
        self._deadlines_s[key] = deadline_s
        self._count += 1  # keys need not be comparable
        heapq.heappush(self._heap, (deadline_s, self._count, key))
        if len(self._heap) > 64 + 4 * len(self._deadlines_s):
            self._compact()

    def cancel(self, key: K) -> None:
        """Forget *key*; it need not be there."""
        self._deadlines_s.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._deadlines_s.clear()
        self._heap.clear()

    def __contains__(self, key: K) -> bool:
        return key in self._deadlines_s

    def due_s(self, key: K) -> float | None:
        """Return the deadline of *key*, if it is there."""
        return self._deadlines_s.get(key)

    @property
    def next_s(self) -> float | None:
        """The earliest deadline."""
        heap, deadlines_s = self._heap, self._deadlines_s
        while heap:
            deadline_s, _, key = heap[0]
            if deadlines_s.get(key) == deadline_s:
                return deadline_s
            heapq.heappop(heap)  # moved or cancelled meanwhile
        return None

    def pop_due(self, now_s: float) -> Iterator[K]:
        """Yield and forget every key whose deadline has passed, earliest first; keys set meanwhile are seen too."""
        while (deadline_s := self.next_s) is not None and deadline_s <= now_s:
            key = heapq.heappop(self._heap)[2]
            del self._deadlines_s[key]
            yield key

    def _compact(self) -> None:
        """Drop what was moved or cancelled, so that the heap stays within a constant factor of the live keys."""
        self._heap = [item for item in self._heap if self._deadlines_s.get(item[2]) == item[0]]
        heapq.heapify(self._heap)
