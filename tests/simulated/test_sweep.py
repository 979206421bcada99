"""`hconf sweep`, simulated: the same results file whatever broke it off, and wherever its points run."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.run_folder import RunFolder
from experiments.sweep.execution import DaskCluster, Here, Processes
from experiments.sweep.plan import Point, SweepPlan, plan_sweep
from experiments.sweep.point import run_point
from experiments.sweep.reporting import report_sweep
from experiments.sweep.run import SweepOutcome, run_sweep
from topologies.errors import CapabilityError, InputError

ROOT = Path(__file__).resolve().parents[2]
TEXT = """
[experiment]
name = "small"
duration_s = 1
[topology]
name = "tiers"
csrs = 2
cores = 3
ues_per_csr = 1
[[workload]]
kind = "poisson"
rate_per_s = 5.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.toml").write_text(TEXT)
    outcome = sweep(folder / "small.toml", folder / "out")
    assert (outcome.points, outcome.finished, outcome.ran, outcome.failed) == (4, 4, 4, 0)
    return folder / "out"


def plan_of(file: Path, *, seeds: Sequence[int] = (1, 2)) -> SweepPlan:
    return plan_sweep(file, ["conference.mode=push,hybrid"], seeds=seeds, mode="simulated")


def sweep(file: Path, out: Path) -> SweepOutcome:
    return run_sweep(plan_of(file), out=out, execution=Here())


def hconf(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.cli", "sweep", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_every_point_is_in_sweep_csv_with_its_settings_and_figures(whole: Path) -> None:
    with (whole / "sweep.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["point", "seed", "conference.mode", "verdict", "metric", "value", "unit"]
    points = {(row["point"], row["seed"], row["conference.mode"], row["verdict"]) for row in rows}
    assert points == {
        (str(n), str(2 - n % 2), mode, "pass") for n, mode in ((1, "push"), (2, "push"), (3, "hybrid"), (4, "hybrid"))
    }
    folder = RunFolder.open(whole / "points" / "00003")
    with (folder.path / "summary.csv").open(encoding="utf-8") as lines:
        summary = {row["metric"]: row["value"] for row in csv.DictReader(lines)}
    swept = {row["metric"]: row["value"] for row in rows if row["point"] == "3"}
    assert {metric: float(value or "nan") for metric, value in swept.items()} == pytest.approx(
        {metric: float(value or "nan") for metric, value in summary.items()}, nan_ok=True, rel=1e-9
    )
    assert "push" in (whole / "report.html").read_text(encoding="utf-8")


def test_what_is_finished_is_not_run_again_and_what_is_half_done_is(
    file: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "points" / "00002").rename(out / "points" / ".00002.part")
    (out / "points" / ".00002.part" / "summary.csv").write_text("torn")
    ran: list[int] = []

    def counted(plan: SweepPlan, point: Point, folder: Path) -> object:
        ran.append(point.number)
        return run_point(plan, point, folder)

    monkeypatch.setattr("experiments.sweep.execution.run_point", counted)
    outcome = sweep(file, out)
    assert ran == [2]
    assert (outcome.finished, outcome.ran) == (4, 1)
    again = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path for path in before if again.get(path) != before[path]} <= {out / "points" / "00002" / "manifest.json"}
    assert again.keys() == before.keys()


def test_a_killed_sweep_goes_on_and_ends_as_if_nothing_had_been(file: Path, whole: Path, tmp_path: Path) -> None:
    arguments = [str(file), "--set", "conference.mode=push,hybrid", "--seeds", "1-2", "--out"]
    killed = hconf(*arguments, "killed", "--jobs", "2", cwd=tmp_path)
    points = tmp_path / "killed" / "points"
    until_s = time.monotonic() + 40
    while not (points.exists() and any(points.iterdir())):
        assert killed.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert _ends(killed.pid), "workers end with their parent"
    assert len(list(points.glob("0*"))) < 4
    finished = {path.name: path.stat().st_mtime_ns for path in points.glob("0*")}
    second = hconf(*arguments, "killed", "--jobs", "1", cwd=tmp_path)
    text, _ = second.communicate(timeout=50)
    assert second.returncode == 0, text
    assert f"4 points, {len(finished)} of them finished before" in text
    assert {name: (points / name).stat().st_mtime_ns for name in finished} == finished
    assert not list(points.glob(".*"))
    for name in ("sweep.csv", "comparison.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole / name).read_bytes()


def _ends(session: int) -> bool:
    """Wait until no process of the session is there any more; False if one stays."""
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        left = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True, check=False)
        if not [stat for stat in left.stdout.split() if not stat.startswith("Z")]:
            return True
        time.sleep(0.05)
    return False


def test_a_damaged_point_is_named_with_what_has_it_made_again(file: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    point = out / "points" / "00003"
    (point / "manifest.json").write_text("{")
    for attempt in (lambda: sweep(file, out), lambda: report_sweep(out)):
        with pytest.raises(InputError, match="is damaged") as raised:
            attempt()
        assert f"remove {point}, and give the command of the sweep again" in str(raised.value)
    shutil.rmtree(point)
    assert sweep(file, out).ran == 1
    assert (out / "sweep.csv").read_bytes() == (whole / "sweep.csv").read_bytes()


def test_another_sweep_does_not_go_into_the_same_folder(file: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copy(whole / "sweep.json", tmp_path / "out")
    with pytest.raises(InputError, match="another sweep: it differs in --seeds"):
        run_sweep(plan_of(file, seeds=(1, 2, 3)), out=tmp_path / "out", execution=Here())
    (tmp_path / "out" / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match=r"sweep\.json: is no plan of a sweep"):
        sweep(file, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="exists already, and is no sweep"):
        sweep(file, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_what_goes_wrong_in_a_worker_is_said_here(file: Path, tmp_path: Path) -> None:
    plan = plan_of(file)
    (tmp_path / "points").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        list(Processes(1).run(plan, plan.points()[:1], tmp_path / "points"))


def test_an_interrupt_leaves_the_finished_points(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(plan: SweepPlan, point: Point, folder: Path) -> object:
        if point.number == 3:
            raise KeyboardInterrupt
        return run_point(plan, point, folder)

    monkeypatch.setattr("experiments.sweep.execution.run_point", interrupted)
    outcome = sweep(file, tmp_path / "out")
    assert outcome.interrupted
    assert (outcome.finished, outcome.points) == (2, 4)
    assert (tmp_path / "out" / "sweep.csv").read_text().count("deliveries.ratio.p50") == 2


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="the extra `dask` is not installed")
def test_a_dask_cluster_makes_the_same_results_file(file: Path, whole: Path, tmp_path: Path) -> None:
    cluster = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "simulated" / "dask_cluster.py")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()
        arguments = [
            str(file),
            "--set",
            "conference.mode=push,hybrid",
            "--seeds",
            "1-2",
            "--out",
            "dask",
            "--dask",
            address,
        ]
        process = hconf(*arguments, cwd=tmp_path)
        text, _ = process.communicate(timeout=50)
        assert process.returncode == 0, text
    finally:
        cluster.communicate(timeout=30)
    for name in ("sweep.csv", "comparison.csv"):
        assert (tmp_path / "dask" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    "address", ["not-an-address", "tcp://127.0.0.1:1", "http://127.0.0.1:8786", "tcp://x:99999999"]
)
def test_a_scheduler_that_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(InputError, match=f"--dask {address}: .*dask scheduler"):
        DaskCluster(address).check()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CapabilityError, match=r"pip install 'hconf\[dask\]'"):
        DaskCluster("tcp://127.0.0.1:8786").check()
