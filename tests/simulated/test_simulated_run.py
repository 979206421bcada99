"""`hconf run --mode simulated`: the same file as emulated, no root, and the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.manifest import HOST_FACTS
from experiments.progress import PlainProgress
from experiments.run_folder import RunFolder
from experiments.runner import run_experiment
from experiments.spec import load_experiment
from topologies.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "experiments" / "quickstart.toml"

#: Everything that a random schedule may hold, in four seconds.
BUSY = """
[experiment]
name = "busy"
duration_s = 4
seed = 3

[topology]
name = "tiers"
csrs = 3
cores = 3
ues_per_csr = 2

[links.access]
jitter_ms = 2
duplicate_ratio = 0.05
reorder_ratio = 0.1
corrupt_ratio = 0.02

[clocks]
skew_ppm = { csr1 = 500, ue3 = -500 }

[[attendance]]
devices = ["ue6"]
join_at_s = 1
leave_at_s = 3

[[workload]]
kind = "poisson"
rate_per_s = 5

[[workload]]
kind = "objects"
size_bytes = 50_000
publishers = ["ue1", "ue3"]
start_s = 1.0

[[workload]]
kind = "media"
frames_per_s = 20
frame_bytes = 100
publishers = ["ue2"]

[[fault]]
at_s = 1
for_s = 1
kind = "impair"
target = "core1-csr1"
loss_ratio = 1.0
sender = "csr1"

[[fault]]
at_s = 1.5
for_s = 0.5
kind = "link-down"
target = "core2-csr2"
"""


def run_in_process(file: Path, out: Path, *, hash_seed: str) -> None:
    command = [sys.executable, "-m", "experiments.cli", "run", str(file), "--mode", "simulated", "--out", str(out)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        cwd=out.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a run folder, the manifest without the host facts."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps(
        {key: value for key, value in manifest.items() if key not in HOST_FACTS}
    ).encode()
    return files


@pytest.mark.parametrize("name", ["quickstart", "busy"])
def test_two_runs_leave_the_same_bytes(name: str, tmp_path: Path) -> None:
    file = QUICKSTART
    if name == "busy":
        file = tmp_path / "busy.toml"
        file.write_text(BUSY)
    for out, hash_seed in (("one", "1"), ("two", "2")):
        run_in_process(file, tmp_path / out, hash_seed=hash_seed)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert not [path for path in one if one[path] != two[path]]
    assert {"updates.csv", "checks.csv", "raw/faults.jsonl", "raw/links.jsonl", "raw/nodes.jsonl"} <= one.keys()


def simulate(text: str, tmp_path: Path, *overrides: str) -> tuple[str, RunFolder]:
    file = tmp_path / "some.toml"
    file.write_text(text)
    experiment = load_experiment(file, overrides)
    outcome = run_experiment(experiment, out=tmp_path / "out", progress=PlainProgress("some"), mode="simulated")
    return outcome.verdict, RunFolder.open(outcome.folder)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        simulate(BUSY, tmp_path / seed, f"experiment.seed={seed}")
    one, two = (contents(tmp_path / seed / "out")["updates.csv"] for seed in ("1", "2"))
    assert one != two


def test_a_conference_that_does_not_settle_fails_the_run(tmp_path: Path) -> None:
    verdict, folder = simulate(BUSY, tmp_path, "experiment.settle_s=0", "links.access.delay_ms=200")
    assert verdict == "fail"
    assert "run.settled,fail" in (folder.path / "checks.csv").read_text()


def test_what_only_a_simulation_can_do_is_refused_before_an_emulated_run(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(BUSY)
    with pytest.raises(InputError, match=r"cannot do clocks.skew_ppm of .* --mode simulated"):
        run_experiment(load_experiment(file), out=tmp_path / "out", progress=PlainProgress("some"))
    assert not (tmp_path / "out").exists()


def test_a_simulated_run_captures_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames to capture"):
        simulate(BUSY + '\n[capture]\nlinks = ["core1-csr1"]\n', tmp_path)


def test_nothing_that_takes_root_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.argv = ['hconf', 'run', sys.argv[1], '--mode', 'simulated', '--out', sys.argv[2]]\n"
        "from experiments.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('mininet', 'scapy')]\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(QUICKSTART), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
