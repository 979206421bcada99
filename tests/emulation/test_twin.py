"""`hconf run --mode both`: an emulated run and its simulated twin, both judged, in one folder.

What is asserted here does not depend on how fast the machine is: whether both agree may, and is only to be said.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulation.test_quickstart import (
    FAULTS,
    assert_gone,
    csv_contents,
    hconf,
    manifest,
    read_until,
    rows,
    started,
    write_experiment,
)

__all__ = ["write_experiment"]

CHECKS = ("run.twin", "fidelity.twin.ratio.p50", "fidelity.twin.ratio.p99")


def test_both_are_run_and_judged_and_can_be_reported_again(
    tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    done = hconf(
        "run", write_experiment(FAULTS, duration_s=2.0), "--mode", "both", "--seed", "9", "--set", "workload.1.size_bytes=200",
        "--out", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    folder = tmp_path / "out"
    twin = folder / "twin"
    assert_gone(folder)
    assert (manifest(folder)["mode"], manifest(twin)["mode"]) == ("emulated", "simulated")
    for each in (folder, twin):
        assert manifest(each)["seed"] == 9
        assert manifest(each)["experiment"]["workload"][0]["size_bytes"] == 200
        assert (each / "report.html").is_file()
    checks = {row["name"]: row for row in rows(folder, "checks.csv")}
    assert checks["run.twin"]["verdict"] == "pass"
    for name in CHECKS[1:]:
        assert checks[name]["verdict"] in ("pass", "fail")
        assert checks[name]["measured"].endswith("%")
    failed = [name for name, row in checks.items() if row["verdict"] != "pass" and name in CHECKS]
    assert done.returncode == 1 if failed else done.returncode == 0, done.stdout
    assert {row["update_id"].rpartition("/")[0].rpartition("/")[0] for row in rows(twin, "updates.csv")} == {
        row["update_id"].rpartition("/")[0].rpartition("/")[0] for row in rows(folder, "updates.csv")
    }
    # A UE's forwarder and client take their time in a real process, and as much in the twin.
    node = {row["node"]: row for row in rows(folder, "nodes.csv")}["ue1"]
    assert 0.0 < float(node["processing_p50_ms"]) <= float(node["processing_p99_ms"])
    assert 0.0 < float(node["wake_up_p50_ms"]) <= float(node["wake_up_p99_ms"])
    late = [float(row["latency_ms"]) - float(row["path_delay_ms"]) for row in rows(twin, "deliveries.csv")]
    assert min(late) > 0.0

    first = csv_contents(folder), csv_contents(twin)
    for name in first[0]:
        (folder / name).unlink()
        (twin / name).unlink()
    assert hconf("report", folder, cwd=tmp_path).returncode == 0
    assert (csv_contents(folder), csv_contents(twin)) == first


@pytest.mark.parametrize("words", ["small: running", "twin, simulating"])
def test_ctrl_c_in_either_half_keeps_the_records(
    tmp_path: Path, write_experiment: Callable[..., Path], words: str
) -> None:
    duration_s = 60.0 if words == "small: running" else 3.0
    arguments: list[str | Path] = ["run", write_experiment(duration_s=duration_s), "--mode", "both", "--out", "out"]
    with started(arguments, cwd=tmp_path) as process:
        read_until(process, words)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    folder = tmp_path / "out"
    assert manifest(folder)["verdict"] == "interrupted"
    assert_gone(folder)
    verdicts = {row["name"]: row["verdict"] for row in rows(folder, "checks.csv")}
    assert {verdicts[name] for name in CHECKS} == {"inconclusive"}
    assert rows(folder, "deliveries.csv") != []
    assert (folder / "twin").is_dir() == (words == "twin, simulating")
    if words == "twin, simulating":
        assert verdicts["run.complete"] == "pass"
        assert manifest(folder / "twin")["verdict"] == "interrupted"


def test_a_network_that_is_held_has_no_twin(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    done = hconf("run", write_experiment(), "--mode", "both", "--hold", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "--hold: " in done.stderr
    assert "(fix: leave it out" in done.stderr
    assert not (tmp_path / "out").exists()
