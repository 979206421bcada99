"""``sweep.csv``, and the comparison of the combinations: made from the folders of finished points and nothing else."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.analysis.comparison import Comparison, RunResult
from experiments.analysis.results import load_result
from experiments.columns import SWEEP, SWEPT_KEY
from experiments.report.comparison_page import write_comparison
from experiments.run_folder import RunFolder, write_whole
from experiments.sweep import POINTS_DIR
from experiments.sweep.plan import Point, SweepPlan
from topologies.errors import InputError

_DIGITS: Final = 10


def write_results(plan: SweepPlan, folder: Path, finished: Sequence[Point]) -> Comparison:
    """Write ``sweep.csv``, ``comparison.csv``, ``report.html`` and plots.

    Raises: InputError if a point cannot be read, or the folder cannot be written to.
    """
    results = [_result(plan, folder, point) for point in finished]
    try:
        write_whole(folder / SWEEP.file, sweep_csv(plan, finished, results).encode())
    except OSError as error:
        raise InputError(
            where=str(folder / SWEEP.file), problem=f"cannot be written: {error.strerror}", remedy="make room"
        ) from error
    total = len(plan.points())
    title = f"sweep {plan.name}" + ("" if len(finished) == total else f": {len(finished)} of {total} points")
    return write_comparison(folder, results, title=title, keys=plan.swept)


def sweep_csv(plan: SweepPlan, points: Sequence[Point], results: Sequence[RunResult]) -> str:
    """Return the text of ``sweep.csv``: a row a point and metric, in the order of the points."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [axis.key for axis in plan.axes]
    writer.writerow(
        [name for column in SWEEP.columns for name in (keys if column.name == SWEPT_KEY else [column.name])]
    )
    for point, result in zip(points, results, strict=True):
        for metric, value in result.metrics.items():
            spelt = "" if math.isnan(value) else f"{value:.{_DIGITS}g}"
            writer.writerow(
                [point.number, point.seed, *point.values, result.verdict, metric, spelt, result.units[metric]]
            )
    return text.getvalue()


def open_point(folder: Path, point: Point) -> RunFolder:
    """Take the run folder of a finished point. Raises: InputError where it is damaged, which says how to have it made again."""
    path = folder / POINTS_DIR / point.folder_name
    try:
        run = RunFolder.open(path)
        run.read_manifest()
    except InputError as error:
        remedy = f"remove {path}, and give the command of the sweep again: it runs that point once more"
        raise InputError(where=error.where, problem=error.problem, remedy=remedy) from error
    return run


def _result(plan: SweepPlan, folder: Path, point: Point) -> RunResult:
    result = load_result(open_point(folder, point))
    swept = {axis.key: value for axis, value in zip(plan.axes, point.values, strict=True)}
    return dataclasses.replace(result, settings={**result.settings, **swept})
