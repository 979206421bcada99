"""Handing the timetable out: each client is told some seconds ahead what to do, so that no client and no run ever holds all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from experiments.workloads import Entry, ScheduledObject, ScheduledPresence, ScheduledStream, ScheduledUpdate

#: Clients know what to do for at least so long: more than a control message ever takes to arrive.
AHEAD_S: Final = 10.0
#: How often they are told more.
EVERY_S: Final = 5.0
CHUNK: Final = 2_000  #: entries in one request


@dataclass(slots=True)
class Share:
    """What is handed out at once: by device, in the order of time."""

    updates: dict[str, list[ScheduledUpdate]] = field(default_factory=dict)
    data: dict[str, list[ScheduledObject | ScheduledStream]] = field(default_factory=dict)
    presence: list[tuple[str, ScheduledPresence]] = field(default_factory=list)  #: for the supervisor to do
    size: int = 0

    def add(self, entry: Entry) -> None:
        self.size += 1
        match entry.what:
            case ScheduledUpdate() as update:
                self.updates.setdefault(entry.device, []).append(update)
            case ScheduledPresence() as presence:
                self.presence.append((entry.device, presence))
            case data:
                self.data.setdefault(entry.device, []).append(data)


class HandOut:
    """The rest of a timetable, from which shares are taken in the order of time."""

    def __init__(self, timeline: Iterator[Entry]) -> None:
        self._timeline = timeline
        self._next: Entry | None = next(timeline, None)

    @property
    def is_over(self) -> bool:
        return self._next is None

    def take_until(self, at_s: float) -> Share:
        """Return all that is due before *at_s* of the run and has not been taken yet.

        Raises: InputError where the file of a trace has changed.
        """
        share = Share()
        while self._next is not None and self._next.what.at_s < at_s:
            share.add(self._next)
            self._next = next(self._timeline, None)
        return share


def requests(share: Share, epoch_s: float) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (device, op, arguments) of what its client has to be told; *epoch_s* is t = 0 of the run."""
    for device, updates in share.updates.items():
        for start in range(0, len(updates), CHUNK):
            chunk = [(epoch_s + one.at_s, one.event, one.body) for one in updates[start : start + CHUNK]]
            yield device, "schedule", {"updates": chunk}
    for device, planned in share.data.items():
        objects, streams = list[Any](), list[Any]()
        for one in planned:
            at_s, *what = dataclasses.astuple(one)
            (objects if isinstance(one, ScheduledObject) else streams).append((epoch_s + at_s, *what))
        for start in range(0, len(objects), CHUNK):
            yield device, "schedule-objects", {"objects": objects[start : start + CHUNK]}
        if streams:
            yield device, "schedule-objects", {"streams": streams}
