"""An object and a live stream over real links: whole, once a link, and readable in a capture."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.capture.layers import Interest, LpPacket, Name, read_capture

ROOT = Path(__file__).parents[2]

EXPERIMENT = """
[experiment]
name = "data-plane"
duration_s = 3
seed = 5

[topology]
name = "tiers"
cores = 3
csrs = 3
ues_per_csr = 2

[links.access]
rate_mbps = 8

[[workload]]
kind = "objects"
publishers = ["ue1"]
size_bytes = 100_000
start_s = 0.2

[[workload]]
kind = "media"
publishers = ["ue3"]
frames_per_s = 20
frame_bytes = 200
deadline_ms = 500
stop_s = 2.0

[[workload]]
kind = "poisson"
rate_per_s = 2.0

[capture]
links = ["csr2-ue4"]

[[expect]]
metric = "objects.lost"
equals = 0

[[expect]]
metric = "objects.copies.max"
at_most = 1.2

[[expect]]
metric = "deliveries.lost"
equals = 0
"""


@pytest.mark.timeout(120)
def test_an_object_and_a_stream_reach_everybody(tmp_path: Path) -> None:
    file, out = tmp_path / "data-plane.toml", tmp_path / "run"
    file.write_text(EXPERIMENT)
    command = [sys.executable, "-m", "experiments.cli", "run", str(file), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with (out / "objects.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert sorted((row["kind"], row["receiver"]) for row in rows) == [
        *(("object", ue) for ue in ("ue2", "ue3", "ue4", "ue5", "ue6")),
        *(("stream", ue) for ue in ("ue1", "ue2", "ue4", "ue5", "ue6")),
    ]
    assert {row["outcome"] for row in rows} == {"complete"}
    packets = [packet for packet in read_capture(out / "captures" / "csr2-ue4.pcapng") if packet.haslayer(LpPacket)]
    names = {packet[Name].uri for packet in packets if packet.haslayer(Name)}
    assert {"/hconf-data/ue1/main/seq=1/v=1/32=manifest/seg=0", "/hconf-data/ue1/main/seq=1/v=1/seg=24"} <= names
    assert "/hconf-data/ue3/main/seq=1/v=1/seg=5" in names
    hops = {packet["HopCount"].value for packet in packets if packet.haslayer("StreamFrame")}
    assert 1 in hops, "ue3 is at the same CSR: one link so far, and the one it is captured on"
    asked = [packet[Name].uri for packet in packets if packet.haslayer(Interest)]
    assert asked.count("/hconf-data/ue1/main/seq=1/v=1/seg=24") >= 1
