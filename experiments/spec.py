"""Experiment files: one TOML file, read, checked against its topology, and turned into an `Experiment`.

    experiment = load_experiment(Path("experiments/quickstart.toml"), ["experiment.seed=3"])

Nothing is started before the whole file has been found right; everything wrong raises `topologies.errors.InputError`
that names the file, the line and key, what is wrong, and what would be right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.spec_backends import check_faults_of_netem, with_link_backends
from experiments.spec_checks import (
    check_captures,
    check_clocks,
    check_conferences,
    check_expectations,
    check_faults,
    with_links,
)
from experiments.spec_forwarding import check_forwarding
from experiments.spec_links import expand_patterns
from experiments.spec_messages import checked
from experiments.spec_modes import check_mode
from experiments.spec_overrides import apply_override
from experiments.spec_places import KeyPath, Source, key_lines
from experiments.spec_schema import (
    AttendanceSection,
    CaptureSection,
    ConferenceSection,
    Expectation,
    ExperimentFile,
    ExperimentSection,
    Fault,
    ForwardingSection,
    Impair,
    LinkDown,
    LinkUp,
    fault_ids,
    kind_of,
)
from experiments.spec_workload_checks import check_attendance, check_workloads
from experiments.spec_workloads import ConstantWorkload, PoissonWorkload, Workload
from experiments.workloads import CheckedTrace
from testbed.addresses import verify_fits
from topologies.catalogue import Parameters, build, file_suffix, parameters_type
from topologies.errors import InputError, ParameterError, nearest
from topologies.model import Topology

__all__ = [
    "AttendanceSection",
    "CaptureSection",
    "ConferenceSection",
    "ConstantWorkload",
    "Expectation",
    "Experiment",
    "ExperimentSection",
    "Fault",
    "ForwardingSection",
    "Impair",
    "LinkDown",
    "LinkUp",
    "PoissonWorkload",
    "Workload",
    "fault_ids",
    "kind_of",
    "load_experiment",
    "parse_experiment",
]

#: More is no experiment file.
FILE_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Experiment:
    """A checked experiment. Targets and captured links carry the topology's own link names."""

    path: Path
    settings: ExperimentSection  #: name, duration_s, seed, settle_s
    topology: Topology  #: built, with [links] applied
    conference: ConferenceSection
    forwarding: ForwardingSection
    conference_of: dict[str, str]  #: UE -> conference
    sync: dict[str, Any]  #: settings of the sync protocol that a mode without service proxies has
    workloads: tuple[Workload, ...]  #: stop_s and publishers filled in
    faults: tuple[Fault, ...]  #: in the order of the file
    expectations: tuple[Expectation, ...]
    captures: tuple[str, ...]  #: link names
    attendance: tuple[AttendanceSection, ...]  #: devices filled in
    clock_skew_ppm: dict[str, float]  #: by node
    traces: dict[int, CheckedTrace]  #: by the position of their workload
    resolved: dict[str, Any]  #: the whole file after overrides, defaults filled in; goes into manifest.json


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check the experiment file at *path*.

    Args:
        path: the TOML file.
        overrides: as from ``--set``: ``"table.key=value"``; see `experiments.spec_overrides`.

    Raises: InputError.
    """
    return parse_experiment(read_text(path), path, overrides)


def parse_experiment(text: str, path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Check the experiment *text*, which is called *path* in messages. Raises: InputError."""
    data = _parse(text, path)
    source = Source(str(path), key_lines(text))
    for override in overrides:
        source.overrides[apply_override(data, override)] = override
    file = checked(data, ExperimentFile, source, ())

    topology, parameters = _build_topology(file.topology, source)
    links = expand_patterns(file.links, topology, source)
    topology = with_links(topology, links, source)
    topology = with_link_backends(topology, file.experiment.link_backend, links, source)
    conference_of = check_conferences(file.conference, topology, source)
    topology, sync = check_mode(file, topology, conference_of, source)
    check_forwarding(file.forwarding, source)
    workloads, traces = check_workloads(file.workload, topology, file.experiment, source)
    faults = check_faults(file.fault, topology, file.experiment, source)
    check_faults_of_netem(faults, topology, source)
    expectations = check_expectations(file.expect, faults, source)
    captures = check_captures(file.capture, topology, source)
    attendance = check_attendance(file.attendance, topology, file.experiment, traces, source)
    check_clocks(file.clocks, topology, source)
    final = msgspec.structs.replace(
        file,
        topology={"name": topology.name, **msgspec.to_builtins(parameters)},
        workload=workloads,
        fault=faults,
        capture=CaptureSection(captures),
        attendance=attendance,
    )
    return Experiment(
        path=path,
        settings=file.experiment,
        topology=topology,
        conference=file.conference,
        forwarding=file.forwarding,
        conference_of=conference_of,
        sync=sync,
        workloads=workloads,
        faults=faults,
        expectations=expectations,
        captures=captures,
        attendance=attendance,
        clock_skew_ppm=dict(file.clocks.skew_ppm),
        traces=traces,
        resolved=_without_none(msgspec.to_builtins(final)),
    )


def read_text(path: Path) -> str:
    """Return the text of the file at *path*.

    Raises: InputError if there is none, it is empty, too large, or not UTF-8 text.
    """
    where = str(path) if str(path).isprintable() else repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(where=where, problem="there is no such file", remedy=_neighbour(path)) from None
    except IsADirectoryError:
        raise InputError(
            where=where, problem="it is a directory", remedy=f"name a file in it{_examples(path)}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        problem = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(where=where, problem=problem, remedy="check its name and permissions") from error
    if len(content) > FILE_MAX_BYTES:
        raise InputError(
            where=where, problem=f"it is larger than {FILE_MAX_BYTES} bytes", remedy="name an experiment file"
        )
    if not content.strip():
        raise InputError(where=where, problem="it is empty", remedy="start from experiments/quickstart.toml")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            where=where,
            problem=f"it is not UTF-8 text (byte {content[error.start]:#04x} at offset {error.start})",
            remedy="save it as UTF-8, or name an experiment file",
        ) from error
    if "\0" in text:
        raise InputError(where=where, problem="it is a binary file", remedy="name an experiment file (TOML text)")
    return text


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError(where=str(path), problem="its values are nested too deeply", remedy="flatten them") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        if place is None:  # at the end of the document
            raise InputError(
                where=str(path), problem=f"it is not valid TOML: {error}", remedy="close what the last line opens"
            ) from error
        line = text.splitlines()[int(place[1]) - 1].strip()
        reason = str(error).removesuffix(place[0]).strip()
        raise InputError(
            where=f"{path}:{place[1]}",
            problem=f"it is not valid TOML: {reason} at column {place[2]}: {line[:80]}",
            remedy=_syntax_remedy(line),
        ) from error
    except ValueError as error:  # int() refuses thousands of digits
        raise InputError(
            where=str(path), problem=f"it has an impossible number: {error}", remedy="shorten it"
        ) from error


def _syntax_remedy(line: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]+\s*=\s*[A-Za-z][^\"']*", line):
        return "put text in double quotes"
    if re.fullmatch(r"[A-Za-z0-9_.-]+\s*=\s*[0-9.]+\s*[A-Za-z%]+", line):
        return "write the number alone; the unit is in the key's name"
    if line.startswith("["):
        return "a table is [name], an entry of a list of tables [[name]], and each table stands once"
    return "each line is key = value, text in double quotes, and each key stands once"


def _build_topology(table: dict[str, Any], source: Source) -> tuple[Topology, Parameters]:
    """Return the network and its parameters with their defaults."""
    here: KeyPath = ("topology",)
    name = table.get("name")
    if not isinstance(name, str):
        problem = "`name` is missing" if name is None else "`name` is not text"
        remedy = 'add name = "tiers" or, for example, name = "topozoo/Abilene"'
        raise source.error(here if name is None else (*here, "name"), problem=problem, remedy=remedy)
    try:
        wanted = parameters_type(name)
    except InputError as error:
        raise source.error((*here, "name"), problem=error.problem, remedy=error.remedy) from None
    given = {key: value for key, value in table.items() if key != "name"}
    parameters = checked(given, wanted, source, here)
    try:
        topology = build(name, parameters, folder=Path(source.file).parent)
        verify_fits(topology)
    except ParameterError as error:
        raise source.error((*here, error.key), problem=error.problem, remedy=error.remedy) from None
    except InputError as error:
        if file_suffix(name) is not None and not error.where.startswith("topology "):
            raise  # it names the place in that file
        raise source.error((*here, "name"), problem=f"{name}: {error.problem}", remedy=error.remedy) from None
    return topology, parameters


def _neighbour(path: Path) -> str:
    """Return a remedy for a missing file: one with nearly that name beside it."""
    close = nearest(path.name, (other.name for other in _toml_files(path.parent)), limit=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the name; experiments/quickstart.toml is one"


def _examples(folder: Path) -> str:
    names = [str(file) for file in _toml_files(folder)][:3]
    return f", such as {', '.join(names)}" if names else ""


def _toml_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.toml"))
    except (OSError, ValueError):
        return []


def _without_none(value: Any) -> Any:  # noqa: ANN401 - builtins of any shape
    match value:
        case dict():
            return {key: _without_none(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            return [_without_none(item) for item in value]
        case _:
            return value
