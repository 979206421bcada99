"""Workloads: who publishes what and when, decided before the run starts.

A schedule follows from the seed, the position of the workload in the file and the device alone. Nothing that happens in a
run changes it, and adding a device or a workload does not move the others' updates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from experiments.spec_schema import (
    ConstantWorkload,
    DataWorkload,
    MediaWorkload,
    ObjectsWorkload,
    OnceWorkload,
    PoissonWorkload,
    RateWorkload,
    Workload,
)
from topologies.errors import InputError

#: Most updates of one run. A client's schedule is held in memory, and so are its records when they are analysed.
UPDATES_MAX: Final = 10_000_000


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


def schedules(
    workloads: Sequence[Workload], *, devices: Sequence[str], duration_s: float, seed: int
) -> dict[str, tuple[ScheduledUpdate, ...]]:
    """Return for each device what it publishes, in the order of time.

    Args:
        workloads: as in the experiment file.
        devices: every UE; a workload without `publishers` is for all of them.
        duration_s: nothing is published at or after this moment.
        seed: of the run.
    """
    updates: dict[str, list[ScheduledUpdate]] = {device: [] for device in devices}
    for index, workload in enumerate(workloads):
        if isinstance(workload, DataWorkload):
            continue
        if isinstance(workload, OnceWorkload):
            body = workload.size_bytes if workload.text is None else workload.text
            for device in workload.publishers or devices if workload.at_s < duration_s else ():
                updates[device].append(ScheduledUpdate(workload.at_s, workload.event, body))
            continue
        stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
        for device in workload.publishers or devices:
            times_s = publishing_times_s(workload, stop_s=stop_s, generator=_generator(seed, index, device))
            updates[device] += [ScheduledUpdate(at_s, workload.event, workload.size_bytes) for at_s in times_s]
    return {
        device: tuple(sorted(of_device, key=lambda update: (update.at_s, update.event, update.size_bytes)))
        for device, of_device in updates.items()
    }


def data_schedules(
    workloads: Sequence[Workload], *, devices: Sequence[str], duration_s: float
) -> dict[str, tuple[ScheduledObject | ScheduledStream, ...]]:
    """Return for each device what it publishes on the data plane; arguments as of `schedules`."""
    found: dict[str, list[ScheduledObject | ScheduledStream]] = {device: [] for device in devices}
    for workload in workloads:
        if not isinstance(workload, DataWorkload):
            continue
        stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
        for device in workload.publishers or devices:
            match workload:
                case ObjectsWorkload():
                    count = 1 if workload.every_s is None else math.ceil((stop_s - workload.start_s) / workload.every_s)
                    found[device] += [
                        ScheduledObject(workload.start_s + number * (workload.every_s or 0.0), workload.size_bytes)
                        for number in range(count)
                    ]
                case MediaWorkload():
                    frames = max(1, int((stop_s - workload.start_s) * workload.frames_per_s))
                    interval_s, deadline_s = 1 / workload.frames_per_s, workload.deadline_ms / 1e3
                    found[device].append(
                        ScheduledStream(workload.start_s, frames, workload.frame_bytes, interval_s, deadline_s)
                    )
    return {device: tuple(of_device) for device, of_device in found.items()}


def publishing_times_s(workload: RateWorkload, *, stop_s: float, generator: random.Random) -> Iterator[float]:
    """Yield when one publisher publishes, from the workload's `start_s` to before *stop_s*."""
    match workload:
        case PoissonWorkload():
            at_s = workload.start_s + generator.expovariate(workload.rate_per_s)
            while at_s < stop_s:
                yield at_s
                at_s += generator.expovariate(workload.rate_per_s)
        case ConstantWorkload():
            phase = generator.random()  # else all publish at the same instants, and queue behind each other
            number = 0
            while (at_s := workload.start_s + (phase + number) / workload.rate_per_s) < stop_s:
                yield at_s
                number += 1


def check_size(workloads: Sequence[Workload], *, devices: Sequence[str], duration_s: float, where: str) -> None:
    """Refuse an experiment of more updates than can be held.

    Raises: InputError.
    """
    expected = sum(
        workload.rate_per_s
        * max(0.0, min(duration_s, duration_s if workload.stop_s is None else workload.stop_s) - workload.start_s)
        * len(workload.publishers or devices)
        for workload in workloads
        if isinstance(workload, RateWorkload)
    )
    if expected > UPDATES_MAX:
        raise InputError(
            where=f"{where}: [[workload]]",
            problem=f"about {expected:.3g} updates are more than the {UPDATES_MAX} of one run",
            remedy="lower rate_per_s or duration_s, or name fewer publishers",
        )


def _generator(seed: int, index: int, device: str) -> random.Random:
    digest = sha256(f"workload/{seed}/{index}/{device}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
