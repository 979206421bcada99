"""What a large conference costs in the simulator: processor time, memory, cost per delivery, and how they grow; one core.

    python -m tests.bench.simulator_scale [--ues 10000] [--csrs 100] [--updates 100] [--csrs-before 100]

Everybody joins at the beginning, ten devices publish the updates, each five a second, all receive them, and the checker and
the analysis have their say. It is done with a tenth of the UEs first, in the same network or, with ``--csrs-before``, a smaller
one, each in a process of its own. Required is that for 10,000 UEs at 100 CSRs: at most 300 s and 4 GB. Cost per delivery may
grow by at most 1.3 from one size to the next. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from experiments.runner import run_experiment
from experiments.spec import load_experiment
from tests.bench.simulator_speed import Silent

CPU_MAX_S: Final = 300.0
MEMORY_MAX_MB: Final = 4_000.0
GROWTH_MAX: Final = 1.3
PUBLISHERS: Final = 10
RATE_PER_S: Final = 5.0  #: of each publisher

CONFERENCE: Final = """
[experiment]
name = "simulator-scale"
duration_s = {duration_s}
seed = 7

[topology]
name = "tiers"
cores = {cores}
csrs = {csrs}
ues_per_csr = {ues_per_csr}

[[workload]]
kind = "constant"
rate_per_s = {rate_per_s}
size_bytes = 120
publishers = {publishers}
"""


def measure(ues: int, csrs: int, updates: int) -> None:
    """Run one conference in this process; print its figures as JSON."""
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as folder:
        path = Path(folder, "scale.toml")
        publishers = json.dumps([f"ue{1 + number * (ues // PUBLISHERS)}" for number in range(PUBLISHERS)])
        path.write_text(
            CONFERENCE.format(
                duration_s=updates / (PUBLISHERS * RATE_PER_S),
                rate_per_s=RATE_PER_S,
                cores=max(3, csrs // 4),
                csrs=csrs,
                ues_per_csr=ues // csrs,
                publishers=publishers,
            ),
            encoding="utf-8",
        )
        outcome = run_experiment(
            load_experiment(path), out=Path(folder, "run"), progress=Silent("scale"), mode="simulated"
        )
        published = Path(folder, "run", "updates.csv").read_bytes().count(b"\n") - 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "verdict": outcome.verdict,
        "updates": published,
        "simulated_cpu_s": outcome.manifest["simulator"]["cpu_s"],
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss * 1_024 / 1e6,
    }
    print(json.dumps(figures))


def measured(ues: int, csrs: int, updates: int, limit_s: float) -> dict[str, Any]:
    """Return and print what one conference costs, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.simulator_scale", "--measure"]
    command += ["--ues", str(ues), "--csrs", str(csrs), "--updates", str(updates)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        sys.exit(f"{ues} UEs, {csrs} CSRs: not done after {limit_s:g} s")
    if done.returncode:
        sys.exit(f"{ues} UEs, {csrs} CSRs: {done.stderr[-2_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # What is published: the updates, and that each has come. All are told of each but the one whose it is.
    figures["deliveries"] = figures["updates"] * (ues - 1)
    figures["delivery_us"] = figures["cpu_s"] / figures["deliveries"] * 1e6
    print(
        f"{ues} UEs, {csrs} CSRs: {figures['verdict']}; {figures['cpu_s']:.1f} s of processor time, of which the simulator "
        f"{figures['simulated_cpu_s']:.1f} s; {figures['memory_mb']:.0f} MB at most; {figures['updates']} updates, "
        f"joins of publishers among them, {figures['deliveries']} deliveries, {figures['delivery_us']:.1f} us each",
        flush=True,
    )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ues", type=int, default=10_000)
    parser.add_argument("--csrs", type=int, default=100)
    parser.add_argument("--csrs-before", type=int, help="of the smaller conference; default: as many")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--limit-s", type=float, default=1_800.0, help="of each conference")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.ues, arguments.csrs, arguments.updates)
    if arguments.measure:
        measure(*sizes)
        return 0
    csrs_before = arguments.csrs_before or arguments.csrs
    small = measured(arguments.ues // 10, csrs_before, arguments.updates, arguments.limit_s)
    large = measured(*sizes, arguments.limit_s)
    growth = large["delivery_us"] / small["delivery_us"]
    print(f"cost per delivery grows by {growth:.2f}; allowed: {GROWTH_MAX:g}")
    holds = growth <= GROWTH_MAX and large["verdict"] == "pass"
    holds &= large["cpu_s"] <= CPU_MAX_S and large["memory_mb"] <= MEMORY_MAX_MB
    print(f"at most {CPU_MAX_S:g} s and {MEMORY_MAX_MB:g} MB: {'holds' if holds else 'DOES NOT HOLD'}")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
