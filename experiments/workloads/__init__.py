"""Workloads: who does what and when, decided before the run starts.

A schedule follows from the seed, the position of the workload in the file and the device alone. Nothing that happens in a
run changes it, and adding a device or a workload does not move the others' updates (but for Zipf's shares, which are shares).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from experiments.spec_workloads import DataWorkload, OnceWorkload, TraceWorkload, Workload
from experiments.workloads.attendance import Stay, absent_at_start, stays
from experiments.workloads.generators import expected_updates
from experiments.workloads.model import (
    Entry,
    Publication,
    Scheduled,
    ScheduledObject,
    ScheduledPresence,
    ScheduledStream,
    ScheduledUpdate,
)
from experiments.workloads.timeline import timeline
from experiments.workloads.trace import CheckedTrace, check_trace
from topologies.errors import InputError

__all__ = [
    "CheckedTrace",
    "Entry",
    "Publication",
    "Scheduled",
    "ScheduledObject",
    "ScheduledPresence",
    "ScheduledStream",
    "ScheduledUpdate",
    "Stay",
    "absent_at_start",
    "check_size",
    "check_trace",
    "stays",
    "timeline",
]

#: Most updates that the workloads of one run make, traces apart: a guard against a slip in a rate or a duration.
UPDATES_MAX: Final = 10_000_000


def check_size(workloads: Sequence[Workload], *, devices: Sequence[str], duration_s: float, where: str) -> None:
    """Refuse an experiment of so many updates that nobody can have meant it.

    Raises: InputError.
    """
    expected = 0.0
    for workload in workloads:
        if not isinstance(workload, DataWorkload | OnceWorkload | TraceWorkload):
            stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
            expected += expected_updates(workload, stop_s=stop_s) * len(workload.publishers or devices)
    if expected > UPDATES_MAX:
        raise InputError(
            where=f"{where}: [[workload]]",
            problem=f"about {expected:.3g} updates are more than the {UPDATES_MAX} of one run",
            remedy="lower rate_per_s or duration_s, or name fewer publishers",
        )
