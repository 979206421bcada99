"""Every mode that is there for comparison, over real links: everything arrives, as the same checks as ever say."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.capture.layers import Interest, Name, read_capture

ROOT = Path(__file__).parents[2]

EXPERIMENT = """
[experiment]
name = "modes"
duration_s = 1.5
seed = 5
settle_s = 30

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 2

[psync]
jitter_max_s = 0.2

[[workload]]
kind = "constant"
rate_per_s = 1.0
stop_s = 1.2

[[fault]]
kind = "link-down"
target = "core1-core2"
at_s = 0.8

[capture]
links = ["core2-csr1"]

[[expect]]
metric = "deliveries.lost"
equals = 0
"""

#: What each says over a link of the network's core, and nobody else does.
SPEAKS = {"central": "32=notify", "svs": "32=group/32=svs/main/v=3", "psync": "32=group/32=psync/main"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", SPEAKS)
def test_everything_arrives(mode: str, tmp_path: Path) -> None:
    experiment, out = tmp_path / "modes.toml", tmp_path / "run"
    experiment.write_text(EXPERIMENT)
    command = [sys.executable, "-m", "experiments.cli", "run", str(experiment), "--out", str(out)]
    focus = ["--set", "central.focus=csr2"]  # so that ue1 and ue2 are served over the link that is captured
    done = subprocess.run(
        [*command, "--set", f"conference.mode={mode}", *focus], cwd=ROOT, capture_output=True, text=True, check=False
    )
    with (out / "checks.csv").open(encoding="utf-8", newline="") as file:
        verdicts = {row["name"]: row["verdict"] for row in csv.DictReader(file)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert {verdict for name, verdict in verdicts.items() if not name.startswith("fidelity.")} == {"pass"}
    with (out / "deliveries.csv").open(encoding="utf-8", newline="") as file:
        via = {row["via"] for row in csv.DictReader(file)}
    assert ("fetch" in via) is (mode != "central")
    with (out / "messages.csv").open(encoding="utf-8", newline="") as file:
        messages = {row["message"] for row in csv.DictReader(file)}
    assert ("notification" in messages) is (mode == "central")
    packets = read_capture(out / "captures" / "core2-csr1.pcapng")
    names = {packet[Name].uri for packet in packets if packet.haslayer(Interest)}
    assert any(SPEAKS[mode] in name for name in names)
