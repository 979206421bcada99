"""`hconf replay`: an experiment made of what happened in a run, the faults and updates of its shell included.

What was typed is on the schedule at the time, since the run's start, at which it was applied; what was healed by hand
lasts as long as it did. Commands in hosts, and Python, are not done again: they are named in comments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.history import read_lines
from experiments.recorded_run import RecordedRun
from experiments.run_folder import RunFolder
from experiments.run_mode import RunMode
from experiments.spec import Experiment, parse_experiment
from experiments.spec_schema import CaptureSection, ClocksSection, ConferenceSection, ForwardingSection
from experiments.toml_text import to_toml
from experiments.typed import (
    SHELL_FILE,
    CaptureTyped,
    FaultTyped,
    HealTyped,
    LineTyped,
    Marked,
    PublishTyped,
    ShellEnded,
    Typed,
    healed_after,
)
from topologies.catalogue import file_suffix
from topologies.errors import InputError

#: Sections in which everything has a default.
_DEFAULTS: Final[dict[str, msgspec.Struct]] = {
    "conference": ConferenceSection(),
    "forwarding": ForwardingSection(),
    "clocks": ClocksSection(),
    "capture": CaptureSection(),
}
#: Times of a schedule that was typed: nobody types more precisely, and the file is for reading.
_DIGITS: Final = 3
_SHORTEST_S: Final = 0.001
#: First words of lines that do something to the network that a schedule cannot.
_REPLAYED: Final = frozenset({"fault", "heal", "publish", "link", "capture"})
_ONLY_LOOKS: Final = frozenset(
    {
        *("status", "watch", "faults", "links", "log", "ndn", "record", "report", "help", "?", "exit", "quit"),
        *("nodes", "net", "dump", "intfs", "time", "noecho", "source"),
    }
)
_LINES_SHOWN_MAX: Final = 40


@dataclass(frozen=True)
class Replay:
    """An experiment that does a run again."""

    experiment: Experiment
    text: str  #: of its file
    mode: RunMode  #: that of the run
    notes: tuple[str, ...]  #: what the user should know


@dataclass
class _Remarks:
    """What of the run the schedule does not say."""

    marks: list[str] = field(default_factory=list)
    not_repeated: list[str] = field(default_factory=list)
    captured: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_replay(path: Path) -> Replay:
    """Read a run folder. Raises: InputError if it is none, or one of a run that cannot be done again."""
    folder = RunFolder.open(path)
    manifest = folder.read_manifest()
    tables: dict[str, Any] = manifest["experiment"]
    if not {"experiment", "topology"} <= set(tables):
        raise InputError(
            where=str(folder.manifest_path),
            problem="it does not say what was run",
            remedy="give the folder of another run",
        )
    remarks = _Remarks()
    tables = _with_files(tables, Path(manifest.get("experiment_file", "")).parent)
    if manifest["verdict"] in ("running", "error"):
        remarks.notes.append("the run was killed or broke off; what was written down until then is replayed")
    typed = _read_typed(folder, remarks)
    epoch_s = manifest["clock"].get("epoch_s")
    if typed is not None and epoch_s is not None:
        end_s = _end_s(folder, manifest, typed) - epoch_s
        tables = _as_happened(tables, typed, epoch_s=epoch_s, end_s=end_s, remarks=remarks)
    elif typed is not None:
        remarks.notes.append(
            "the run ended before its conference was in sync: nothing of it can be replayed but its start"
        )
        tables = _as_happened(tables, [], epoch_s=0.0, end_s=0.0, remarks=remarks)
    text = to_toml(_in_order(tables), comment=_comment(folder, manifest, remarks))
    try:
        experiment = parse_experiment(text, Path(f"replay of {path}"))
    except InputError as error:
        raise InputError(
            where=str(path), problem=f"this hconf would not run its experiment: {error.problem}", remedy=error.remedy
        ) from error
    was_read = sorted(trace["sha256"] for trace in manifest.get("traces", ()))
    if was_read != sorted(trace.sha256 for trace in experiment.traces.values()):
        remarks.notes.append("a trace is not the one that the run replayed: it has changed since")
    mode: RunMode = "simulated" if manifest.get("mode") == "simulated" else "emulated"
    return Replay(experiment, text, mode, tuple(remarks.notes))


def _with_files(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the tables with files of topologies and traces named as seen from anywhere; *folder* is the experiment file's."""
    found = dict(tables)
    topology = found["topology"]
    if isinstance(topology, Mapping) and file_suffix(str(topology.get("name"))) is not None:
        found["topology"] = {**topology, "name": str((folder / str(topology["name"])).absolute())}
    if "workload" in found:
        found["workload"] = [
            {**workload, "file": str((folder / workload["file"]).absolute())}
            if workload.get("kind") == "trace"
            else workload
            for workload in found["workload"]
        ]
    return found


def write_export(replay: Replay, path: Path) -> None:
    """Write the experiment file. Raises: InputError if the file exists or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(replay.text)
    except FileExistsError as error:
        raise InputError(where=f"--export {path}", problem="it exists already", remedy="name a new file") from error
    except OSError as error:
        raise InputError(
            where=f"--export {path}", problem=f"cannot be written: {error.strerror}", remedy="choose another place"
        ) from error


def _read_typed(folder: RunFolder, remarks: _Remarks) -> list[Typed] | None:
    """Return what was typed, in the order of time; None if the run had no shell."""
    path = folder.raw / SHELL_FILE
    if not path.exists():
        return None
    found = read_lines(path, Typed)
    remarks.notes += [f"left out: {damage}" for damage in found.damage]
    return sorted(found.records, key=lambda record: float(record.t_s))


def _end_s(folder: RunFolder, manifest: Mapping[str, Any], typed: Sequence[Typed]) -> float:
    """Return when the user left, or the last thing that is known of a shell that was killed."""
    for known in (*(record.t_s for record in typed if isinstance(record, ShellEnded)), manifest["clock"].get("left_s")):
        if known is not None:
            return float(known)
    return max([RecordedRun.load(folder).end_s, *(record.t_s for record in typed)])


def _as_happened(
    tables: Mapping[str, Any], typed: Sequence[Typed], *, epoch_s: float, end_s: float, remarks: _Remarks
) -> dict[str, Any]:
    """Return the tables of the experiment with what was typed, ending when the user left."""
    planned: dict[str, Any] = {"attendance": [], "workload": [], "fault": [], "capture": {}} | dict(tables)
    latest_s = max(
        (at for entry in planned["attendance"] for at in (entry.get("join_at_s", 0), entry.get("leave_at_s", 0))),
        default=0.0,
    )
    end_s = max(
        end_s, latest_s + 0.1, *(record.t_s - epoch_s + 0.1 for record in typed if not isinstance(record, ShellEnded))
    )
    # Dropping one before another would give that another's random numbers.
    end_s = max([end_s, *(workload["start_s"] + 0.1 for workload in planned["workload"][:-1] if "start_s" in workload)])
    end_s = math.ceil(max(end_s, 1.0) * 10) / 10
    faults = {f"f{number}": dict(fault) for number, fault in enumerate(planned["fault"], start=1)}
    once: list[dict[str, Any]] = []
    for record in typed:
        at_s = round(record.t_s - epoch_s, _DIGITS)
        match record:
            case FaultTyped(_, fault_id, fault):
                faults[fault_id] = fault | {"at_s": round(fault["at_s"], _DIGITS)}
            case HealTyped(_, fault_id) if fault_id in faults:
                fault = faults[fault_id]
                changes = healed_after(fault, round(max(_SHORTEST_S, at_s - fault["at_s"]), _DIGITS))
                if "ramp_s" in changes:
                    remarks.notes.append(
                        f"{fault_id} was healed before its ramp had ended; here the whole ramp is done by then"
                    )
                faults[fault_id] = {name: value for name, value in (fault | changes).items() if value is not None}
            case PublishTyped(_, device, event, text):
                once.append(
                    {"kind": "once", "at_s": max(0.0, at_s), "event": event, "text": text, "publishers": [device]}
                )
            case CaptureTyped(_, link, "started"):
                remarks.captured.append(link)
            case Marked(_, text):
                remarks.marks.append(f"{at_s:.1f} s: {text}")
            case LineTyped(_, line) if line.split()[0] not in _REPLAYED | _ONLY_LOOKS:
                remarks.not_repeated.append(f"{at_s:.1f} s: {line}")
            case _:
                pass
    if remarks.not_repeated:
        remarks.notes.append(
            f"not repeated, because it was typed at a host or in Python: {remarks.not_repeated[0]}"
            + (f", and {len(remarks.not_repeated) - 1} more" if len(remarks.not_repeated) > 1 else "")
        )
    return planned | {
        "experiment": {**planned["experiment"], "duration_s": end_s},
        "workload": [*_within(planned["workload"], end_s), *once],
        "fault": [_ending(fault, end_s) for fault in faults.values() if fault["at_s"] < end_s],
        "capture": {"links": list(dict.fromkeys([*planned["capture"].get("links", ()), *remarks.captured]))},
    }


def _within(workloads: Sequence[dict[str, Any]], end_s: float) -> list[dict[str, Any]]:
    """Return the workloads as far as they came."""
    clipped = []
    for workload in workloads:
        if workload.get("start_s", workload.get("at_s", 0.0)) < end_s:
            stop_s = min(workload["stop_s"], end_s) if "stop_s" in workload else None
            clipped.append(workload if stop_s is None else workload | {"stop_s": stop_s})
    return clipped


def _ending(fault: Mapping[str, Any], end_s: float) -> dict[str, Any]:
    """Return a fault that ends with the run, where it would have lasted longer."""
    left_s = round(end_s - fault["at_s"], _DIGITS)
    ending = dict(fault)
    if fault["kind"] == "flap":  # which has to have an end
        asked_s = min(fault.get("for_s", math.inf), fault.get("count", math.inf) * fault["period_s"])
        if asked_s > left_s:
            ending.pop("count", None)
            ending["for_s"] = left_s
    elif fault.get("for_s", 0.0) > left_s:
        del ending["for_s"]
    if "every_ms" in fault and fault["kind"] == "inject":
        ending["times"] = max(1, min(fault.get("times", 1), int(left_s * 1e3 / fault["every_ms"])))
    return ending


def _in_order(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables in the order in which people write them, without what is so anyway."""
    first = ("experiment", "topology", "links", "conference", "forwarding", "clocks", "attendance", "workload", "fault")
    names = [*first, *(name for name in tables if name not in first)]
    return {name: rest for name in names if (rest := _without_defaults(name, tables.get(name)))}


def _without_defaults(name: str, table: Any) -> Any:  # noqa: ANN401  a table or a list of them
    default = _DEFAULTS.get(name)
    if default is None or not isinstance(table, dict):
        return table
    usual = msgspec.to_builtins(default)
    return {key: value for key, value in table.items() if key not in usual or value != usual[key]}


def _comment(folder: RunFolder, manifest: Mapping[str, Any], remarks: _Remarks) -> str:
    lines = [
        f"Made by `hconf replay` from the run {folder.path.resolve().name} of {manifest.get('start', 'an unknown time')},",
        f"which had the run ID {manifest.get('run_id', 'unknown')} and was made from {manifest.get('experiment_file', 'no file')}.",
    ]
    for title, told in (
        ("Remarks at the time:", remarks.marks),
        ("Captured by hand, here from the start to the end:", list(dict.fromkeys(remarks.captured))),
        ("Typed as well, and not repeated:", remarks.not_repeated),
    ):
        if told:
            lines += ["", title, *(f"  {one}" for one in told[:_LINES_SHOWN_MAX])]
            lines += [f"  ... and {len(told) - _LINES_SHOWN_MAX} more"] if len(told) > _LINES_SHOWN_MAX else []
    return "\n".join(lines)
