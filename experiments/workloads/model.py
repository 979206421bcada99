"""What a schedule consists of: things that a device does, each at a moment that was decided before the run starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScheduledUpdate:
    at_s: float  #: after the start of the run
    event: str
    body: int | str  #: its size in bytes, or the text

    @property
    def size_bytes(self) -> int:
        return self.body if isinstance(self.body, int) else len(self.body.encode())


@dataclass(frozen=True, slots=True, order=True)
class ScheduledObject:
    at_s: float  #: after the start of the run
    size_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class ScheduledStream:
    at_s: float
    frames: int
    frame_bytes: int
    interval_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class ScheduledPresence:
    """The device joins, or leaves."""

    at_s: float
    there: bool  #: from now on


Publication = ScheduledUpdate | ScheduledObject | ScheduledStream
Scheduled = Publication | ScheduledPresence


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timetable of all devices."""

    device: str
    what: Scheduled
