"""What a sweep consists of: which settings take which values, every combination, every seed; found right before the first run."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from experiments.run_mode import check_mode
from experiments.spec import Experiment, parse_experiment, read_text
from experiments.spec_places import KEY, split_key
from experiments.workloads import check_size
from testbed.plan import PROXYLESS_MODES
from topologies.errors import InputError

SweepMode = Literal["emulated", "simulated"]

POINTS_MAX: Final = 100_000
SEED_MAX: Final = 2**63 - 1
_RANGE: Final = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")
#: Tables of an experiment file that are about the mode of that name, and no other.
_MODE_TABLES: Final = PROXYLESS_MODES | {"central"}
SEED_KEY: Final = "experiment.seed"


class Axis(Struct, frozen=True):
    """One ``--set`` of a sweep: a key, and its values as text."""

    key: str
    values: tuple[str, ...]


class SweepPlan(Struct, frozen=True, kw_only=True):
    """A sweep as it is kept in its folder: nothing outside of it decides what its points are."""

    name: str  #: of the experiment
    file: str  #: where the experiment came from, for messages and for files that it names
    text: str  #: the experiment file
    axes: tuple[Axis, ...]
    is_list: bool  #: values of all axes side by side, instead of every combination
    seeds: tuple[int, ...]
    mode: SweepMode

    @property
    def digest(self) -> str:
        """Return what tells this sweep from any other."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """Yield one value an axis, the last axis changing fastest."""
        if self.is_list and self.axes:
            length = max(len(axis.values) for axis in self.axes)
            yield from zip(*(axis.values * (length if len(axis.values) == 1 else 1) for axis in self.axes), strict=True)
        else:
            yield from itertools.product(*(axis.values for axis in self.axes))

    def points(self) -> list[Point]:
        """Return every point, numbered from 1: all seeds of a combination, then the next."""
        pairs = itertools.product(self.combinations(), self.seeds)
        return [Point(number, values, seed) for number, (values, seed) in enumerate(pairs, start=1)]

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides that make the experiment of *point* from the file."""
        settings = [f"{axis.key}={value}" for axis, value in zip(self.axes, point.values, strict=True)]
        return [*settings, f"{SEED_KEY}={point.seed}"]

    def experiment(self, point: Point) -> Experiment:
        """Return the experiment of *point*. Raises: InputError."""
        return parse_experiment(self.text, Path(self.file), self.overrides(point))

    @property
    def swept(self) -> list[str]:
        """Return the keys that take more than one value."""
        return [axis.key for axis in self.axes if len(axis.values) > 1]


class Point(Struct, frozen=True):
    number: int  #: from 1
    values: tuple[str, ...]  #: one an axis
    seed: int

    @property
    def folder_name(self) -> str:
        return f"{self.number:05d}"


def plan_sweep(
    path: Path, assignments: Sequence[str], *, seeds: Sequence[int] | None, mode: SweepMode, is_list: bool = False
) -> SweepPlan:
    """Read the experiment, take the assignments apart, and check every combination.

    Args:
        path: the experiment file.
        assignments: as from ``--set``: ``table.key=a,b,c``.
        seeds: None: the file's own, alone.
        mode: of all runs.
        is_list: take the values of all assignments side by side, instead of every combination.

    Raises: InputError.
    """
    axes = tuple(parse_axis(assignment) for assignment in assignments)
    for index, axis in enumerate(axes):
        if axis.key == SEED_KEY:
            raise InputError(where=f"--set {assignments[index]}", problem="seeds are no setting", remedy="use --seeds")
        if axis.key in [other.key for other in axes[:index]]:
            raise InputError(
                where=f"--set {assignments[index]}",
                problem=f"{axis.key} is set twice",
                remedy="give all values at once",
            )
    lengths = {len(axis.values) for axis in axes} - {1}
    if is_list and len(lengths) > 1:
        said = ", ".join(f"{axis.key} has {len(axis.values)}" for axis in axes)
        raise InputError(
            where="--list",
            problem=f"the lists of values are not equally long: {said}",
            remedy="give one value each a point",
        )
    text = read_text(path)
    first = parse_experiment(text, path, [f"{axis.key}={axis.values[0]}" for axis in axes])
    plan = SweepPlan(
        name=first.settings.name,
        file=str(path.absolute()),
        text=text,
        axes=axes,
        is_list=is_list,
        seeds=tuple(seeds) if seeds is not None else (first.settings.seed,),
        mode=mode,
    )
    _check_count(plan)
    modes: set[str] = set()
    for values in plan.combinations():
        overrides = [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]
        experiment = parse_experiment(text, path, overrides)
        modes.add(experiment.conference.mode)
        check_mode(experiment, mode)
        check_size(
            experiment.workloads,
            devices=experiment.topology.ues,
            duration_s=experiment.settings.duration_s,
            where=str(path),
        )
    _check_modes(plan, modes)
    return plan


def _check_modes(plan: SweepPlan, modes: Collection[str]) -> None:
    """Raise InputError for a setting of a mode that no point has: its values would be compared, and all be the same."""
    for axis in plan.axes:
        mode = split_key(axis.key)[0]
        if mode in _MODE_TABLES and mode not in modes:
            raise InputError(
                where=f"--set {axis.key}={','.join(axis.values)}",
                problem=f"it is about mode {mode}, and no point of the sweep has that",
                remedy=f"add --set conference.mode={mode}, or leave it out",
            )


def _check_count(plan: SweepPlan) -> None:
    """Raise InputError for more points than anybody means."""
    count = len(plan.seeds)
    for axis in plan.axes:
        count *= len(axis.values) if not plan.is_list else 1
    if count > POINTS_MAX:
        raise InputError(
            where="hconf sweep",
            problem=f"{count:,} points are more than {POINTS_MAX:,}",
            remedy="give fewer values or seeds",
        )


def parse_axis(assignment: str) -> Axis:
    """Take ``table.key=a,b,c`` apart; commas in quotes and brackets separate nothing.

    Raises: InputError.

    >>> parse_axis("conference.mode=push,hybrid")
    Axis(key='conference.mode', values=('push', 'hybrid'))
    >>> parse_axis('workload.1.publishers=["ue1","ue2"],["ue3"]').values
    ('["ue1","ue2"]', '["ue3"]')
    """
    where = f"--set {assignment}"
    key = KEY.match(assignment.lstrip())
    rest = assignment.lstrip()[key.end() :].lstrip() if key else ""
    if key is None or not rest.startswith("="):
        raise InputError(
            where=where,
            problem="it is not of the form table.key=value,value",
            remedy="write for example --set conference.mode=push,hybrid",
        )
    values = [value.strip() for value in _split(rest[1:])]
    if not all(values):
        raise InputError(where=where, problem="a value is empty", remedy="write values with one comma between two")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise InputError(where=where, problem=f"{twice[0]} is there twice", remedy="give each value once")
    return Axis(".".join(split_key(key[0])) if '"' not in key[0] and "'" not in key[0] else key[0], tuple(values))


def _split(text: str) -> list[str]:
    """Split at commas outside of quotes and brackets."""
    parts, depth, quote, start = [], 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of ``1-10`` or ``1,3,5-7``.

    Raises: InputError.

    >>> parse_seeds("1-3,7")
    (1, 2, 3, 7)
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise InputError(
                where=f"--seeds {text}", problem=f"`{part}` is no seed or range", remedy="write --seeds 1-10"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last > SEED_MAX or last - first >= POINTS_MAX:
            raise InputError(
                where=f"--seeds {text}",
                problem=f"`{part}` is no range of at most {POINTS_MAX:,} seeds",
                remedy="write the smaller one first, as in 1-10",
            )
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise InputError(where=f"--seeds {text}", problem="a seed is there twice", remedy="give each once")
    return tuple(seeds)
