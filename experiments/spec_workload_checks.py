"""What ``[[workload]]`` and ``[[attendance]]`` must satisfy beyond the form of each key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments.spec_places import KeyPath, Source
from experiments.spec_schema import AttendanceSection, ExperimentSection
from experiments.spec_workloads import (
    UPDATE_BODY_MAX_BYTES,
    FlashCrowdWorkload,
    OnceWorkload,
    PresenterWorkload,
    TraceWorkload,
    Workload,
)
from experiments.workloads import CheckedTrace, check_trace
from topologies.errors import pick_one_of
from topologies.model import Topology

#: Two moments closer than this are the same: a sum of decimal fractions is not exact.
_SAME_MOMENT_S: Final = 1e-9


def check_workloads(
    workloads: Sequence[Workload], topology: Topology, settings: ExperimentSection, source: Source
) -> tuple[tuple[Workload, ...], dict[int, CheckedTrace]]:
    """Return the workloads with publishers and stop_s filled in, and the traces among them by position, read and checked."""
    checked: list[Workload] = []
    traces: dict[int, CheckedTrace] = {}
    for index, workload in enumerate(workloads):
        path: KeyPath = ("workload", index)
        if isinstance(workload, OnceWorkload):
            _check_once(workload, settings, path, source)
            publishers = expand_devices(workload.publishers, topology, (*path, "publishers"), source)
            checked.append(msgspec.structs.replace(workload, publishers=publishers))
            continue
        stop_s = _checked_stop_s(workload, settings, path, source)
        if isinstance(workload, TraceWorkload):
            filled = msgspec.structs.replace(workload, stop_s=stop_s)
            traces[index] = _checked_trace(filled, topology, settings, path, source)
            checked.append(filled)
            continue
        publishers = expand_devices(workload.publishers, topology, (*path, "publishers"), source)
        if isinstance(workload, PresenterWorkload) and workload.publishers is None:
            publishers = publishers[:1]
        if isinstance(workload, FlashCrowdWorkload) and workload.peak_rate_per_s < workload.rate_per_s:
            raise source.error(
                (*path, "peak_rate_per_s"),
                problem=f"peak_rate_per_s = {workload.peak_rate_per_s:g} is below rate_per_s ({workload.rate_per_s:g})",
                remedy=f"use at least {workload.rate_per_s:g}",
            )
        checked.append(msgspec.structs.replace(workload, stop_s=stop_s, publishers=publishers))
    _check_one_trace_moves_a_device(traces, source)
    return tuple(checked), traces


def check_attendance(
    sections: Sequence[AttendanceSection],
    topology: Topology,
    settings: ExperimentSection,
    traces: dict[int, CheckedTrace],
    source: Source,
) -> tuple[AttendanceSection, ...]:
    """Return the sections with devices filled in; each UE is in one at most, and comes before it leaves."""
    by_trace = {ue: index for index, trace in traces.items() for ue in trace.comes_and_goes}
    seen: set[str] = set()
    checked: list[AttendanceSection] = []
    for index, section in enumerate(sections):
        path: KeyPath = ("attendance", index)
        _check_stay(section, settings, path, source)
        devices = expand_devices(section.devices, topology, (*path, "devices"), source)
        for device in devices:
            if device in seen:
                raise source.error(
                    path if section.devices is None else (*path, "devices"),
                    problem=f"`{device}` is in another [[attendance]] too",
                    remedy="name it in one of them",
                )
            if device in by_trace:
                raise source.error(
                    path if section.devices is None else (*path, "devices"),
                    problem=f"`{device}` comes and goes as the trace of [[workload]] {by_trace[device] + 1} says",
                    remedy="leave it out here, or its joins and leaves out of the trace",
                )
            seen.add(device)
        checked.append(msgspec.structs.replace(section, devices=devices))
    return tuple(checked)


def expand_devices(named: Sequence[str] | None, topology: Topology, path: KeyPath, source: Source) -> tuple[str, ...]:
    """Return the UEs that are meant: all for None; a router stands for the UEs behind it.

    Raises: InputError for a name that is neither, a router without UEs, or a UE that is named twice.
    """
    if named is None:
        return topology.ues
    ues = frozenset(topology.ues)
    meant: dict[str, None] = {}
    for position, name in enumerate(named):
        place: KeyPath = (*path, position)
        behind = (name,) if name in ues else _ues_behind(name, topology)
        if not behind:
            raise source.error(place, problem=f"there is no UE `{name}`", remedy=_pick_ue(name, topology))
        if twice := next((ue for ue in behind if ue in meant), None):
            by = f", by `{name}`" if twice != name else ""
            raise source.error(place, problem=f"`{twice}` is named twice{by}", remedy="name it once")
        meant |= dict.fromkeys(behind)
    return tuple(meant)


def _ues_behind(router: str, topology: Topology) -> tuple[str, ...]:
    """Return the UEs whose own network is that of *router*; none if it is no router."""
    if router not in {*topology.csrs, *topology.cores}:
        return ()
    return tuple(ue for ue in topology.ues if topology.csr_of(ue) == router)


def _pick_ue(name: str, topology: Topology) -> str:
    ues = topology.ues
    shown = f"{ues[0]} to {ues[-1]}"
    if name in {node.name for node in topology.nodes}:
        role = topology.node(name).role
        return f"`{name}` is a {role} without UEs behind it; UEs are {shown}"
    close = pick_one_of(name, (*topology.csrs, *ues))
    return close if close.startswith("did you mean") and not name.startswith("ue") else f"the UEs are {shown}"


def _checked_stop_s(workload: Workload, settings: ExperimentSection, path: KeyPath, source: Source) -> float:
    assert not isinstance(workload, OnceWorkload)
    stop_s = settings.duration_s if workload.stop_s is None else workload.stop_s
    if stop_s > settings.duration_s + _SAME_MOMENT_S:
        raise source.error(
            (*path, "stop_s"),
            problem=f"stop_s = {stop_s:g} is after the end of the run ({settings.duration_s:g} s)",
            remedy=f"use at most {settings.duration_s:g}, or a longer duration_s in [experiment]",
        )
    if workload.start_s >= stop_s:
        raise source.error(
            (*path, "start_s"),
            problem=f"start_s = {workload.start_s:g} is not before its stop ({stop_s:g} s)",
            remedy=f"use less than {stop_s:g}",
        )
    return stop_s


def _check_once(workload: OnceWorkload, settings: ExperimentSection, path: KeyPath, source: Source) -> None:
    if workload.at_s >= settings.duration_s:
        raise source.error(
            (*path, "at_s"),
            problem=f"at_s = {workload.at_s:g} is not before the end of the run ({settings.duration_s:g} s)",
            remedy=f"use less than {settings.duration_s:g}, or a longer duration_s in [experiment]",
        )
    if workload.text is not None and (size_bytes := len(workload.text.encode())) > UPDATE_BODY_MAX_BYTES:
        raise source.error(
            (*path, "text"),
            problem=f"it is {size_bytes} bytes long",
            remedy=f"use at most {UPDATE_BODY_MAX_BYTES}, or a workload of `objects`",
        )


def _checked_trace(
    workload: TraceWorkload, topology: Topology, settings: ExperimentSection, path: KeyPath, source: Source
) -> CheckedTrace:
    """Read and check the file. Raises: InputError that names its line, or the key of the workload."""
    for name, ue in workload.devices.items():
        if ue not in topology.ues:
            raise source.error(
                (*path, "devices", name), problem=f"there is no UE `{ue}`", remedy=_pick_ue(ue, topology)
            )
    file = Path(source.file).parent / workload.file
    try:
        is_file = file.is_file()
    except (OSError, ValueError):  # a zero byte in the name, or a loop of links
        is_file = False
    if not is_file:
        raise source.error(
            (*path, "file"),
            problem=f"there is no file {str(file)!r}",
            remedy="name a CSV file, as seen from the experiment file's folder",
        )
    return check_trace(file, workload, ues=topology.ues, duration_s=settings.duration_s)


def _check_one_trace_moves_a_device(traces: dict[int, CheckedTrace], source: Source) -> None:
    moved: dict[str, int] = {}
    for index, trace in traces.items():
        for ue in sorted(trace.comes_and_goes):
            if ue in moved:
                raise source.error(
                    ("workload", index, "file"),
                    problem=f"`{ue}` joins or leaves in the trace of [[workload]] {moved[ue] + 1} too",
                    remedy="let one trace say when it is there",
                )
            moved[ue] = index


def _check_stay(section: AttendanceSection, settings: ExperimentSection, path: KeyPath, source: Source) -> None:
    joins_s = 0.0 if section.join_at_s is None else section.join_at_s + section.join_within_s
    if section.join_at_s is None and section.join_within_s:
        raise source.error(
            (*path, "join_within_s"), problem="it has no start", remedy="add join_at_s, for example join_at_s = 0"
        )
    if section.join_at_s is None and section.leave_at_s is None and section.session_s is None:
        raise source.error(
            path, problem="it says nothing", remedy="give join_at_s, leave_at_s or both; or session_s, for churn"
        )
    if section.away_s is not None and section.session_s is None:
        raise source.error(
            (*path, "away_s"),
            problem="it has no meaning without session_s",
            remedy=f"add session_s, for example session_s = {section.away_s:g}",
        )
    for key, at_s in (("join_at_s", joins_s), ("leave_at_s", section.leave_at_s)):
        if at_s is not None and at_s >= settings.duration_s:
            raise source.error(
                (*path, key),
                problem=f"{at_s:g} s is not before the end of the run ({settings.duration_s:g} s)",
                remedy="make it earlier, or the run longer with duration_s in [experiment]",
            )
    if section.leave_at_s is not None and section.leave_at_s <= joins_s:
        raise source.error(
            (*path, "leave_at_s"),
            problem=f"leave_at_s = {section.leave_at_s:g} is not after everybody has come ({joins_s:g} s)",
            remedy=f"use more than {joins_s:g}",
        )
