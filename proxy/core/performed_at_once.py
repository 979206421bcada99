"""Effects that a driver performs as they come, instead of when all of an event are known: what others wait for leaves first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.core.events import Effect


class PerformedAtOnce:
    """Takes effects as a list does, but has each performed as it comes."""

    def __init__(self, perform: Callable[[Effect], None]) -> None:
        self._perform = perform

    def append(self, effect: Effect) -> None:
        """Perform one."""
        self._perform(effect)

    def extend(self, effects: Iterable[Effect]) -> None:
        """Perform several."""
        for effect in effects:
            self._perform(effect)
