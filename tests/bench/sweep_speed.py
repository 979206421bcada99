"""How much faster a simulated sweep is on several cores than on one; issue 6 asks for at least 1.8 times on two.

``python tests/bench/sweep_speed.py [--points 100] [--jobs 2]``: the quickstart with so many seeds, each with its whole analysis.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from experiments.cli import QUICKSTART
from experiments.sweep.execution import Execution, Here, Processes
from experiments.sweep.plan import SweepPlan, plan_sweep
from experiments.sweep.run import run_sweep


def wall_s(plan: SweepPlan, execution: Execution) -> float:
    """Return how long the points of the sweep take, with sweep.csv and the comparison."""
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as folder:
        begun_s = time.monotonic()
        outcome = run_sweep(plan, out=Path(folder) / "sweep", execution=execution)
        assert outcome.finished == outcome.points
        return time.monotonic() - begun_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seeds = tuple(range(1, options.points + 1))
    plan = plan_sweep(QUICKSTART, [], seeds=seeds, mode="simulated")
    one_s, many_s = wall_s(plan, Here()), wall_s(plan, Processes(options.jobs))
    print(
        f"{options.points} points: {one_s:.1f} s in one process, {many_s:.1f} s in {options.jobs}: "
        f"{one_s / many_s:.2f} times; {one_s / options.points:.2f} s a point on one core"
    )


if __name__ == "__main__":
    main()
