"""Whether a run and its simulated twin agree, and what its processes took: from made-up records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from experiments.analysis import Analysis, analyse
from experiments.processing_times import read_processing, times_of_processes
from experiments.report.run_page import write_page
from experiments.run_folder import RunFolder
from proxy.lag import bin_of
from proxy.records import HandlingCount, ProcessingMeasured
from tests.unit.experiments.analysis.conftest import EPOCH_S, QUIESCED_S
from tests.unit.experiments.analysis.test_analysis import rows

WriteRun = Callable[..., RunFolder]
TWIN = {"twin": True}


def traffic(*ratios: float) -> list[tuple[str, int, float, dict[str, float]]]:
    """Return updates of ue1 to ue2, 4 ms away, and to ue3, 9 ms away, that take these multiples of it."""
    return [
        ("ue1", seq, 1.0 + seq, {"ue2": 4.0 * ratio, "ue3": 9.0 * ratio}) for seq, ratio in enumerate(ratios, start=1)
    ]


def judged(write_run: WriteRun, emulated: float, simulated: float, verdict: str = "pass") -> tuple[RunFolder, Analysis]:
    folder = write_run(faults=(), traffic=traffic(*[emulated] * 3), manifest=TWIN)
    twin = write_run(faults=(), traffic=traffic(*[simulated] * 3), manifest={"verdict": verdict, "mode": "simulated"})
    analyse(twin)
    twin.path.rename(folder.path / "twin")
    return folder, analyse(folder)


def verdicts(analysis: Analysis) -> dict[str, tuple[str, str]]:
    return {check.name: (check.verdict, check.measured) for check in analysis.checks if "twin" in check.name}


@pytest.mark.parametrize(
    ("simulated", "p50", "p99"),
    [(1.81, "pass", "pass"), (1.79, "fail", "pass"), (2.21, "fail", "pass"), (1.49, "fail", "fail")],
)
def test_both_are_compared(write_run: WriteRun, simulated: float, p50: str, p99: str) -> None:
    folder, analysis = judged(write_run, 2.0, simulated)
    apart = f"{abs(simulated - 2.0) / 2.0:.1%}"
    assert verdicts(analysis) == {
        "run.twin": ("pass", "pass"),
        "fidelity.twin.ratio.p50": (p50, apart),
        "fidelity.twin.ratio.p99": (p99, apart),
    }
    row = {row["name"]: row for row in rows(folder, "checks.csv")}["fidelity.twin.ratio.p50"]
    assert row["detail"] == f"latency / path delay, p50: emulated 2, simulated {simulated:g}"
    assert row["required"] == "at most 10% apart"
    failed = {check.name for check in analysis.failed}
    assert ("fidelity.twin.ratio.p50" in failed, "fidelity.twin.ratio.p99" in failed) == (p50 == "fail", p99 == "fail")


@pytest.mark.parametrize(
    ("verdict", "expected", "ratio"), [("fail", "fail", "pass"), ("interrupted", "inconclusive", "inconclusive")]
)
def test_a_twin_that_did_not_pass_fails_the_run(write_run: WriteRun, verdict: str, expected: str, ratio: str) -> None:
    _, analysis = judged(write_run, 1.0, 1.0, verdict)
    assert verdicts(analysis)["run.twin"] == (expected, verdict)
    assert verdicts(analysis)["fidelity.twin.ratio.p99"][0] == ratio
    assert "run.twin" in {check.name for check in analysis.failed}


def test_a_twin_that_is_not_there_is_missed_only_where_there_was_to_be_one(write_run: WriteRun) -> None:
    analysis = analyse(write_run(manifest=TWIN))
    assert {verdict for verdict, _ in verdicts(analysis).values()} == {"inconclusive"}
    assert verdicts(analyse(write_run())) == {}


def test_the_report_shows_both(write_run: WriteRun) -> None:
    folder, analysis = judged(write_run, 2.0, 1.5)
    page = write_page(folder, analysis, folder.read_manifest()).read_text(encoding="utf-8")
    assert "Emulated and simulated" in page
    assert "latency / path delay, p50" in page
    assert (folder.path / "plots" / "twin.svg").is_file()


def measured(
    since_s: float, *handling: HandlingCount, process: Any = "forwarder", wake_up_ms: float = 0.5
) -> ProcessingMeasured:
    return ProcessingMeasured(since_s + 1.0, since_s, "ue1", process, list(handling), [(bin_of(wake_up_ms), 2)])


def test_what_processes_took_while_the_workload_ran(write_run: WriteRun) -> None:
    joining, timer = HandlingCount(5, 1, [(bin_of(9.0), 4)]), HandlingCount(0, 1, [(bin_of(7.0), 99)])
    folder = write_run(
        extra=[
            measured(EPOCH_S - 2, joining, HandlingCount(8, 1, [(bin_of(9.0), 8)]), wake_up_ms=9.0),
            measured(EPOCH_S + 1, HandlingCount(8, 1, [(bin_of(0.2), 2)]), timer),
            measured(EPOCH_S + 1, HandlingCount(8, 1, [(bin_of(0.4), 1)]), process="proxy"),
            measured(QUIESCED_S + 1, HandlingCount(8, 1, [(bin_of(9.0), 8)])),
        ]
    )
    times = times_of_processes(read_processing(folder.raw), folder.read_manifest()["clock"])
    assert set(times) == {"ue1.forwarder", "ue1.proxy"}
    by_class = {(each.size_bits, each.sent_bits): each.bins for each in times["ue1.forwarder"].handling}
    assert by_class == {(5, 1): joining.bins, (8, 1): [(bin_of(0.2), 2)], (0, 1): timer.bins}
    assert times["ue1.forwarder"].wake_up_bins == [(bin_of(0.5), 2)]

    analyse(folder)
    node = {row["node"]: row for row in rows(folder, "nodes.csv")}["ue1"]
    # Of ue1.forwarder, what it did before all had joined counts only where it never did it again; of timers nothing does.
    assert 8.9 < float(node["processing_p99_ms"]) < 9.0 * 1.25
    assert 0.4 < float(node["wake_up_p50_ms"]) < 0.5 * 1.25
    assert {row["node"]: row for row in rows(folder, "nodes.csv")}["csr1"]["wake_up_p50_ms"] == ""
