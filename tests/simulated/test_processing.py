"""Runs whose processes take time, as those of a simulated twin do: later, the same for the same times, and whole through faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from experiments.analysis import Analysis
from experiments.flow import plan_of
from experiments.processing_times import PROCESSING_FILE
from experiments.progress import PlainProgress
from experiments.run_mode import as_twin, check_twin
from experiments.runner import Outcome, run_experiment
from experiments.simulated_run import simulate
from experiments.spec import load_experiment
from proxy.core.events import PacketReceived
from proxy.lag import bin_of
from proxy.records import HandlingCount
from testbed.simulation.processing import ProcessTimes
from topologies.errors import InputError

#: Everything takes 0.2 ms, and to wake up 0.1 ms.
SLOW = ProcessTimes([HandlingCount(0, 0, [(bin_of(0.2), 1)])], [(bin_of(0.1), 1)])

SMALL = """
[experiment]
name = "small"
duration_s = 5
seed = 4

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 2

[[workload]]
kind = "poisson"
rate_per_s = 4
"""

FAULTS = """
[[fault]]
at_s = 1.0
for_s = 0.6
kind = "crash"
target = "csr1.proxy"

[[fault]]
at_s = 2.0
for_s = 0.3
kind = "freeze"
target = "csr2"

[[fault]]
at_s = 2.5
for_s = 0.5
kind = "starve"
target = "core1"
cpu_ratio = 0.3

[[fault]]
at_s = 3.5
kind = "restart"
target = "core2"
"""


def run(tmp_path: Path, name: str, processing: Mapping[str, ProcessTimes] | None, text: str = SMALL) -> Outcome:
    file = tmp_path / "small.toml"
    file.write_text(text)
    return run_experiment(
        load_experiment(file),
        out=tmp_path / name,
        progress=PlainProgress(name),
        mode="simulated",
        processing=processing,
    )


def analysed(outcome: Outcome) -> Analysis:
    assert outcome.verdict == "pass"
    assert outcome.analysis is not None
    return outcome.analysis


def processes(outcome: Outcome) -> dict[str, ProcessTimes]:
    return dict.fromkeys((path.stem for path in (outcome.folder / "raw" / "config").glob("*.json")), SLOW)


def test_deliveries_take_longer_by_what_the_processes_on_their_way_take(tmp_path: Path) -> None:
    at_once = run(tmp_path, "at-once", None)
    slow = run(tmp_path, "slow", processes(at_once))
    metric = "deliveries.excess_ms.p50"
    assert analysed(at_once).values[metric] == pytest.approx(0.0, abs=0.1)
    # From a UE past two CSRs, each a forwarder and a proxy, and a core router to a UE: at most ten processes, each once.
    assert 1.0 < analysed(slow).values[metric] < 5.0
    assert slow.manifest["processing"] == f"raw/{PROCESSING_FILE}"
    assert (slow.folder / "raw" / PROCESSING_FILE).is_file()


def test_the_same_times_are_the_same_run_and_none_of_them_no_other(tmp_path: Path) -> None:
    at_once = run(tmp_path, "at-once", None)
    one, two = (run(tmp_path, name, processes(at_once)) for name in ("one", "two"))
    nobody = run(tmp_path, "nobody", {})

    def deliveries(outcome: Outcome) -> bytes:
        return (outcome.folder / "deliveries.csv").read_bytes()

    assert deliveries(one) == deliveries(two) != deliveries(at_once)
    assert deliveries(nobody) == deliveries(at_once)


def test_slow_processes_that_crash_freeze_starve_and_start_again_lose_nothing(tmp_path: Path) -> None:
    at_once = run(tmp_path, "at-once", None, SMALL + FAULTS)
    slow = run(tmp_path, "slow", processes(at_once), SMALL + FAULTS)
    assert analysed(slow).values["deliveries.lost"] == analysed(at_once).values["deliveries.lost"] == 0


def test_what_waits_for_a_busy_process_that_is_frozen_is_handled_when_it_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    experiment = load_experiment(file)
    plan = plan_of(experiment, run_id="x", run_dir=tmp_path)
    network = simulate(experiment, plan, lambda *_: None, processing={"csr1.forwarder": SLOW}).network
    network.run_until(network.now_s + 1.0)

    def let_pass(time_s: float) -> int:
        network.run_until(network.now_s + time_s)
        return network.counters("csr1.forwarder").get("malformed", 0)

    for _ in range(3):
        network.processes["csr1.forwarder"].take(PacketReceived(1, b"no packet"))
    assert let_pass(0.000_15) == 1  # it is busy with the first
    network.freeze("csr1.forwarder")
    assert let_pass(0.1) == 1
    network.thaw("csr1.forwarder")
    assert let_pass(0.1) == 3


def test_what_cannot_have_a_twin_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(SMALL + '[capture]\nlinks = ["core1-csr1"]\n')
    experiment = load_experiment(file)
    check_twin(experiment, hold=False)
    assert experiment.captures
    assert not as_twin(experiment).captures
    with pytest.raises(InputError, match="--hold: what programs do in a network that is kept up"):
        run_experiment(experiment, out=tmp_path / "out", progress=PlainProgress("x"), mode="both", hold=True)
    file.write_text(SMALL + "[clocks]\nskew_ppm = { csr1 = 100 }\n")
    with pytest.raises(InputError, match=r"cannot do clocks.skew_ppm of csr1"):
        run_experiment(load_experiment(file), out=tmp_path / "out", progress=PlainProgress("x"), mode="both")
    assert not (tmp_path / "out").exists()
