"""Two experiments on one machine at the same time: the same nodes, addresses and ports, and neither sees the other."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from testbed.emulation.ownership import processes_marked
from testbed.plan import RUNTIME_ROOT

ROOT = Path(__file__).parents[2]
HCONF = (sys.executable, "-m", "experiments.cli")
UP_LIMIT_S = 60.0

EXPERIMENT = """
[experiment]
name = "{name}"
duration_s = 2
seed = 5

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = {ues_per_csr}

[conference]
name = "{name}"

[[workload]]
kind = "constant"
rate_per_s = 4.0
size_bytes = 100
"""

#: Of the first only: its link, its process.
FAULTS = """
[[fault]]
kind = "link-down"
target = "csr1-ue1"
at_s = 0.4
for_s = 0.6

[[fault]]
kind = "crash"
target = "csr2.proxy"
at_s = 0.5
for_s = 0.5
"""


@contextmanager
def run(path: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*HCONF, "run", str(path), "--out", str(out)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_until_joined(process: subprocess.Popen[str], out: Path) -> str:
    """Return the ID of the run once its conference is in sync."""
    until_s = time.monotonic() + UP_LIMIT_S
    while process.poll() is None and time.monotonic() < until_s:
        path = out / "manifest.json"
        if path.exists() and "epoch_s" in (manifest := msgspec.json.decode(path.read_bytes()))["clock"]:
            return str(manifest["run_id"])
        time.sleep(0.02)
    raise AssertionError(f"the run did not get so far; status {process.poll()}")


def rows(out: Path, table: str) -> list[dict[str, str]]:
    with (out / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_neither_sees_the_other_and_no_folder_is_used_twice(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(EXPERIMENT.format(name="first", ues_per_csr=1) + FAULTS, encoding="utf-8")
    (tmp_path / "b.toml").write_text(EXPERIMENT.format(name="second", ues_per_csr=2), encoding="utf-8")
    first, second = tmp_path / "first", tmp_path / "second"
    with run(tmp_path / "b.toml", second) as b, run(tmp_path / "a.toml", first) as a:
        ids = wait_until_joined(b, second), wait_until_joined(a, first)
        before = sorted(RUNTIME_ROOT.iterdir())
        again = subprocess.run(
            [*HCONF, "run", str(tmp_path / "a.toml"), "--out", str(first)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert again.returncode == 2
        assert f"hconf: --out: {first} exists already" in again.stderr
        assert sorted(RUNTIME_ROOT.iterdir()) == before
        for process in (a, b):
            output, _ = process.communicate(timeout=UP_LIMIT_S)
            assert process.returncode in (0, 1), output  # 1: a busy machine may break a fidelity check
    assert len(set(ids)) == 2

    for out, conference, devices in ((first, "first", 2), (second, "second", 4)):
        broken = [row for row in rows(out, "checks.csv") if row["name"].startswith("invariant.")]
        assert broken
        assert [row for row in broken if row["verdict"] == "fail"] == []
        ues = {f"ue{number}" for number in range(1, devices + 1)}
        updates, deliveries = rows(out, "updates.csv"), rows(out, "deliveries.csv")
        assert {row["conference"] for row in updates} == {conference}
        assert {row["publisher"] for row in updates} == ues
        assert {row["receiver"] for row in deliveries} == ues
        assert {row["update_id"].partition("/")[0] for row in deliveries} == {conference}
    assert [row["verified"] for row in rows(first, "faults.csv")] == ["true", "true"]
    assert rows(second, "faults.csv") == []
    assert {row["exits"] for row in rows(second, "nodes.csv")} == {"ok"}
    for run_id in ids:
        assert processes_marked(run_id) == []
        assert not (RUNTIME_ROOT / run_id).exists()
