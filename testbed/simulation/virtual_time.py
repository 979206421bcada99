"""Time that passes as fast as what happens in it can be computed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

#: A virtual network starts here, so that "long ago" is a positive time too.
START_S: Final = 1_000.0


class VirtualTime:
    """What is to be done when. What is due at the same time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now_s: float = START_S
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do something at a time; what is late, now."""
        self._count += 1
        heapq.heappush(self._heap, (max(at_s, self.now_s), self._count, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        self.at(self.now_s + delay_s, action)

    def run_until(self, until_s: float, stop_when: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether *stop_when* became true (it is asked after every event)."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(heap)
            action()
            if stop_when is not None and stop_when():
                return True
        self.now_s = until_s
        return False
