"""What a device is to publish when, handed out to it ahead of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.core.events import ObjectsScheduled
from proxy.core.timers import Timers


class Timetable:
    """Updates, objects and live streams with their times; what is due at the same time comes in the order of its coming."""

    def __init__(self) -> None:
        self._updates: Timers[tuple[int, str, int | bytes]] = Timers()
        self._objects: Timers[tuple[float, ...]] = Timers()
        self._count = 0  #: makes each entry another, however alike

    @property
    def next_s(self) -> float | None:
        """When something is due."""
        updates_s, objects_s = self._updates.next_s, self._objects.next_s
        if updates_s is None or objects_s is None:
            return objects_s if updates_s is None else updates_s
        return min(updates_s, objects_s)

    def add_updates(self, updates: Iterable[tuple[float, str, int | bytes]]) -> None:
        """Add (time, event, body or its size) of each."""
        for at_s, kind, body_or_size in updates:
            self._count += 1
            self._updates.set((self._count, kind, body_or_size), at_s)

    def add_objects(self, scheduled: ObjectsScheduled) -> None:
        for at_s, *what in (*scheduled.objects, *scheduled.streams):
            self._count += 1
            self._objects.set((self._count, *what), at_s)

    def clear(self) -> None:
        """There is nothing more to publish."""
        self._updates.clear()
        self._objects.clear()

    def due_updates(self, now_s: float) -> list[tuple[str, int | bytes]]:
        """Return and forget the updates whose time has come."""
        return [(kind, body_or_size) for _, kind, body_or_size in self._updates.pop_due(now_s)]

    def due_objects(self, now_s: float) -> list[list[Any]]:
        """Return and forget the objects and streams whose time has come, as they were given, without the time."""
        return [what for _, *what in self._objects.pop_due(now_s)]
