"""Attendance: when each device is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from experiments.spec_schema import AttendanceSection
from experiments.workloads.laws import draw, generator_for

#: No session and no absence is shorter: a device that is told to leave before its login is answered shows nothing.
STAY_MIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Stay:
    """A session of one device; times count from the start of the run."""

    join_s: float | None  #: None: from before the start
    leave_s: float | None  #: None: to the end


def stays(section: AttendanceSection, device: str, *, seed: int, duration_s: float) -> Iterator[Stay]:
    """Yield the sessions of a device that *section* is for, in the order of time, without gaps of no length between them.

    They follow from the seed and the device alone.
    """
    generator = generator_for("attendance", seed, device)
    join_s = section.join_at_s
    if join_s is not None and section.join_within_s:
        join_s += section.join_within_s * generator.random()
    end_s = math.inf if section.leave_at_s is None else section.leave_at_s
    while section.session_s is not None:
        leave_s = (join_s or 0.0) + max(STAY_MIN_S, draw(section.law, section.session_s, generator))
        if leave_s >= min(end_s, duration_s):
            break
        yield Stay(join_s, leave_s)
        if section.away_s is None:
            return
        join_s = leave_s + max(STAY_MIN_S, draw(section.law, section.away_s, generator))
        if join_s >= min(end_s - STAY_MIN_S, duration_s):
            return
    yield Stay(join_s, section.leave_at_s)


def absent_at_start(sections: Sequence[AttendanceSection]) -> frozenset[str]:
    """Return the devices that join after the start only."""
    return frozenset(
        device for section in sections if section.join_at_s is not None for device in section.devices or ()
    )
