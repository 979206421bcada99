"""What `hconf sweep` prints, and `hconf report` of a sweep's folder."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from experiments.reporting import print_comparison, remake
from experiments.sweep.execution import DaskCluster, Execution, Here, Processes
from experiments.sweep.plan import SweepPlan
from experiments.sweep.run import finished_points, load_plan, run_sweep, sweep_folder
from topologies.errors import InputError


def sweep_and_report(plan: SweepPlan, *, out: Path | None, jobs: int | None, dask: str | None) -> int:
    """Run a sweep and print what came of it; return the exit code, as design.md section 7 has them.

    Raises: InputError or CapabilityError.
    """
    execution = _execution(plan, jobs, dask)
    console = Console()
    folder = sweep_folder(plan, out)
    total, finished = len(plan.points()), len(finished_points(plan, folder))
    console.print(f"{total} points, {finished} of them finished before; {folder}", highlight=False, soft_wrap=True)
    outcome = run_sweep(plan, out=out, execution=execution)
    if outcome.comparison is not None:
        print_comparison(console, outcome.comparison, outcome.folder)
    said = f"{outcome.finished} of {outcome.points} points finished, {outcome.ran} of them now; {outcome.failed} did not pass"
    console.print(said, highlight=False)
    if outcome.interrupted:
        console.print("Interrupted: the same command goes on with what is left.", highlight=False)
        return 130
    return 1 if outcome.failed else 0


def report_sweep(path: Path) -> None:
    """Make the files of every finished point anew, and the comparison. Raises: InputError."""
    from experiments.sweep.results import open_point, write_results  # noqa: PLC0415  # loads pandas

    folder = path.absolute()
    plan = load_plan(folder)
    finished = finished_points(plan, folder)
    if not finished:
        raise InputError(
            where=str(path), problem="no point of the sweep is finished", remedy="give the command of the sweep again"
        )
    for point in finished:
        remake(open_point(folder, point), None)
    print_comparison(Console(), write_results(plan, folder, finished), folder)


def _execution(plan: SweepPlan, jobs: int | None, dask: str | None) -> Execution:
    if plan.mode == "emulated":
        if dask is not None or (jobs or 1) > 1:
            raise InputError(
                where="--dask" if dask is not None else "--jobs",
                problem="emulated networks run one after the other on this machine: they would slow each other down",
                remedy="leave it out, or sweep with --mode simulated",
            )
        return Here()
    if dask is not None:
        if jobs is not None:
            raise InputError(
                where="--jobs", problem="with --dask, the cluster decides that", remedy="leave one of them out"
            )
        cluster = DaskCluster(dask)
        cluster.check()
        return cluster
    workers = jobs if jobs is not None else len(os.sched_getaffinity(0))
    workers = min(workers, len(plan.points()))
    return Here() if workers == 1 else Processes(workers)
