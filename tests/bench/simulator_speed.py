"""How much faster than real time the simulator runs the quickstart on one core; issue 3 asks for at least 5 times.

    python -m tests.bench.simulator_speed [--runs 3]

Exit code 1 if the median is below that. It is taken over processor time: the wall clock says as well what else the machine
does, and the simulator uses one core alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from experiments.cli import QUICKSTART
from experiments.progress import PlainProgress
from experiments.runner import run_experiment
from experiments.spec import load_experiment

REQUIRED: Final = 5.0


class Silent(PlainProgress):
    """Says nothing."""

    def note(self, text: str) -> None:
        pass


def measure() -> tuple[float, float, float]:
    """Run it once. Returns: virtual seconds, and the seconds of processor and of wall clock that they took."""
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as folder:
        outcome = run_experiment(
            load_experiment(QUICKSTART), out=Path(folder) / "run", progress=Silent("bench"), mode="simulated"
        )
    assert outcome.verdict == "pass", outcome
    simulator = outcome.manifest["simulator"]
    return outcome.manifest["duration_s"], simulator["cpu_s"], simulator["wall_s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    ratios = []
    for _ in range(parser.parse_args().runs):
        virtual_s, cpu_s, wall_s = measure()
        ratios.append(virtual_s / cpu_s)
        print(
            f"{virtual_s:.2f} s of the quickstart in {cpu_s:.2f} s ({wall_s:.2f} s of wall clock): {ratios[-1]:.1f} times"
        )
    median = statistics.median(ratios)
    print(f"median: {median:.1f} times real time; required: {REQUIRED:g}")
    return 0 if median >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
