"""The timetable of all devices, made as it is read: nothing of it but the next entries is ever in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from experiments.spec_schema import AttendanceSection
from experiments.spec_workloads import DataWorkload, OnceWorkload, RateWorkload, TimedWorkload, TraceWorkload, Workload
from experiments.workloads.attendance import absent_at_start, stays
from experiments.workloads.generators import data_of, publishing_times_s
from experiments.workloads.laws import generator_for, zipf_shares
from experiments.workloads.model import Entry, Scheduled, ScheduledPresence, ScheduledUpdate
from experiments.workloads.trace import CheckedTrace, replay

#: What is at the same instant comes in this order: who leaves does not publish any more, who joins does.
_LEAVES: Final = 0
_JOINS: Final = 1
_ACTS: Final = 2

#: (time, what comes first at one instant, number of the source, device, what it does): no two sources have the same number.
_Keyed = tuple[float, int, int, str, Scheduled]


def timeline(
    workloads: Sequence[Workload],
    *,
    devices: Sequence[str],
    duration_s: float,
    seed: int,
    attendance: Sequence[AttendanceSection] = (),
    traces: Mapping[int, CheckedTrace] | None = None,
) -> Iterator[Entry]:
    """Yield what all devices do, in the order of time. Nothing that happens in a run changes it.

    Args:
        workloads: as in the experiment file.
        devices: every UE; a workload without `publishers` is for all of them.
        duration_s: nothing is at or after this moment.
        seed: of the run.
        attendance: as in the experiment file, devices filled in; what a device would publish while it is away is left out.
        traces: by the position of their workload.

    Raises: InputError, as it goes on, where the file of a trace has changed since it was checked.
    """
    sources: list[Iterator[_Keyed]] = []
    for index, workload in enumerate(workloads):
        if isinstance(workload, TraceWorkload):
            entries = replay((traces or {})[index], duration_s=duration_s)
            sources.append(_keyed_trace(entries, len(sources)))
            continue
        for device, scheduled in _sources_of(workload, index, devices=devices, duration_s=duration_s, seed=seed):
            sources.append(_keyed(scheduled, len(sources), device))
    away = set(absent_at_start(attendance))
    for trace in (traces or {}).values():
        away |= trace.absent_at_start
    for section in attendance:
        for device in section.devices or ():
            presence = _presence(section, device, seed=seed, duration_s=duration_s)
            sources.append(_keyed(presence, len(sources), device))
    for _, _, _, device, what in heapq.merge(*sources):
        if isinstance(what, ScheduledPresence):
            (away.discard if what.there else away.add)(device)
        elif device in away:
            continue
        yield Entry(device, what)


def _sources_of(
    workload: Workload, index: int, *, devices: Sequence[str], duration_s: float, seed: int
) -> Iterator[tuple[str, Iterator[Scheduled]]]:
    """Yield each publisher with what it does in the workload at position *index*."""
    assert not isinstance(workload, TraceWorkload)
    publishers = workload.publishers or devices
    if isinstance(workload, OnceWorkload):
        body = workload.size_bytes if workload.text is None else workload.text
        once = ScheduledUpdate(workload.at_s, workload.event, body)
        for device in publishers if workload.at_s < duration_s else ():
            yield device, iter((once,))
        return
    stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
    exponent = workload.zipf_exponent if isinstance(workload, RateWorkload) else None
    shares = {} if exponent is None else zipf_shares(exponent, publishers, seed=seed, index=index)
    for device in publishers:
        generator = generator_for("workload", seed, index, device)
        if isinstance(workload, DataWorkload):
            yield device, data_of(workload, stop_s=stop_s, generator=generator)
        else:
            times_s = publishing_times_s(workload, stop_s=stop_s, generator=generator, share=shares.get(device, 1.0))
            yield device, _updates(workload, times_s)


def _updates(workload: TimedWorkload, times_s: Iterable[float]) -> Iterator[Scheduled]:
    for at_s in times_s:
        yield ScheduledUpdate(at_s, workload.event, workload.size_bytes)


def _presence(section: AttendanceSection, device: str, *, seed: int, duration_s: float) -> Iterator[Scheduled]:
    for stay in stays(section, device, seed=seed, duration_s=duration_s):
        if stay.join_s is not None and stay.join_s < duration_s:
            yield ScheduledPresence(stay.join_s, there=True)
        if stay.leave_s is not None and stay.leave_s < duration_s:
            yield ScheduledPresence(stay.leave_s, there=False)


def _keyed(scheduled: Iterable[Scheduled], number: int, device: str) -> Iterator[_Keyed]:
    for what in scheduled:
        stage = _ACTS if not isinstance(what, ScheduledPresence) else _JOINS if what.there else _LEAVES
        yield what.at_s, stage, number, device, what


def _keyed_trace(entries: Iterable[Entry], number: int) -> Iterator[_Keyed]:
    """The rows of one instant stay in the order of the file."""
    for entry in entries:
        yield entry.what.at_s, _ACTS, number, entry.device, entry.what
