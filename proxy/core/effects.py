"""The effects of an event on their way to the driver: returned together, or performed as they come.

The latter is for what others wait for: it leaves first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.core.events import Effect


class Effects:
    """Those of the event that is being handled, in order."""

    def __init__(self) -> None:
        self._waiting: list[Effect] = []
        self._perform: Callable[[Effect], None] | None = None

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """From now on, have every effect performed as it comes; `take` returns none any more."""
        self._perform = perform

    def append(self, effect: Effect) -> None:
        """Take in one."""
        if self._perform is None:
            self._waiting.append(effect)
        else:
            self._perform(effect)

    def extend(self, effects: Iterable[Effect]) -> None:
        """Take in several."""
        for effect in effects:
            self.append(effect)

    def take(self) -> list[Effect]:
        """Return what has come since the last time and was not performed."""
        waiting, self._waiting = self._waiting, []
        return waiting
