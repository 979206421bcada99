"""Running a sweep, or going on with one: every point once, then ``sweep.csv`` and the comparison of all that is finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from experiments.progress import CountBar
from experiments.run_folder import RUNS_DIR, write_whole
from experiments.sweep import PLAN_FILE, POINTS_DIR
from experiments.sweep.execution import Execution
from experiments.sweep.plan import Point, SweepPlan
from experiments.sweep.point import PointOutcome
from topologies.errors import InputError

if TYPE_CHECKING:
    from experiments.analysis.comparison import Comparison


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    folder: Path
    points: int  #: all of the sweep
    finished: int  #: of them, now and before
    ran: int  #: now
    interrupted: bool
    comparison: Comparison | None  #: of the finished points; None where there are none

    @property
    def failed(self) -> int:
        """How many finished points have another verdict than `pass`."""
        groups = self.comparison.groups if self.comparison is not None else ()
        return sum(run.verdict != "pass" for group in groups for run in group.runs)


def sweep_folder(plan: SweepPlan, out: Path | None) -> Path:
    """Return where *plan* has its folder: without *out* the same for the same plan, so that a sweep goes on by itself."""
    return (out if out is not None else RUNS_DIR / f"sweep-{plan.name}-{plan.digest}").absolute()


def run_sweep(plan: SweepPlan, *, out: Path | None, execution: Execution) -> SweepOutcome:
    """Run every point that is not finished; then write what came of all that are.

    Raises: InputError if *out* is something else; whatever `run_experiment` raises before a run begins.
    """
    from experiments.sweep.results import write_results  # noqa: PLC0415  # loads pandas

    folder = _prepare(plan, out)
    directory = folder / POINTS_DIR
    points = plan.points()
    left = [point for point in points if not (directory / point.folder_name).is_dir()]
    interrupted, ended = False, list[PointOutcome]()
    with CountBar(f"sweep {plan.name}", "points", len(points)) as bar:
        bar.advance(len(points) - len(left))
        outcomes = execution.run(plan, left, directory)
        try:
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    if outcome.verdict == "interrupted":
                        interrupted = True
                        break
                    ended.append(outcome)
                    if outcome.problem:
                        bar.note(f"point {outcome.number} broke off: {outcome.problem}")
                    bar.advance(len(points) - len(left) + len(ended))
        except KeyboardInterrupt:
            interrupted = True
    finished = finished_points(plan, folder)
    comparison = write_results(plan, folder, finished) if finished else None
    return SweepOutcome(folder, len(points), len(finished), len(ended), interrupted, comparison)


def load_plan(folder: Path) -> SweepPlan:
    """Return the plan of the sweep in *folder*. Raises: InputError."""
    path = folder / PLAN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=SweepPlan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            where=str(path), problem=f"is no plan of a sweep: {error}", remedy="give the folder of an hconf sweep"
        ) from error


def finished_points(plan: SweepPlan, folder: Path) -> list[Point]:
    """Return the points that have come to their end, in order."""
    return [point for point in plan.points() if (folder / POINTS_DIR / point.folder_name).is_dir()]


def _prepare(plan: SweepPlan, out: Path | None) -> Path:
    """Make the folder, or find in it the same sweep, and remove what was left half done."""
    folder = sweep_folder(plan, out)
    where = "--out" if out is not None else "sweep folder"
    path = folder / PLAN_FILE
    try:
        if path.is_file():
            _check_same(plan, load_plan(folder), folder, where)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                where=where,
                problem=f"{folder} exists already, and is no sweep",
                remedy="name a folder that does not exist, or that of the same sweep to go on with it",
            )
        (folder / POINTS_DIR).mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
        _remove((folder / POINTS_DIR).glob(".*.part"))
    except OSError as error:
        raise InputError(
            where=where,
            problem=f"{folder} cannot be made: {error.strerror}",
            remedy="choose a place that you can write to",
        ) from error
    return folder


def _check_same(plan: SweepPlan, there: SweepPlan, folder: Path, where: str) -> None:
    names: Sequence[str] = SweepPlan.__struct_fields__
    differing = [name for name in names if name != "file" and getattr(plan, name) != getattr(there, name)]
    if differing:
        said = {"text": "experiment file", "axes": "--set", "is_list": "--list", "seeds": "--seeds", "mode": "--mode"}
        raise InputError(
            where=where,
            problem=f"{folder} is another sweep: it differs in {', '.join(said.get(name, name) for name in differing)}",
            remedy="name another folder, or give the same command as for that one",
        )


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
