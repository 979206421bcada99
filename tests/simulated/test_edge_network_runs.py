"""What a run folder says of a network that a UE serves: whom a fault struck, for how long, and what was the floor."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.progress import PlainProgress
from experiments.recorded_run import RecordedRun, read_topology
from experiments.run_folder import RunFolder
from experiments.runner import run_experiment
from experiments.spec import parse_experiment

FILE = """
[experiment]
name = "edge"
duration_s = 6
seed = 3

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 1
edge_networks = 1
ues_per_edge_network = 3 # ue3 to ue5
proxy_ues = ["ue4"]

[links.access]
delay_ms = 9 # on the way to ue4 and back an update loses more than what counts as late

[[workload]]
kind = "poisson"
rate_per_s = 10

[[fault]]
at_s = 2
"""
DETECTION_AND_JOIN_MS = 600 + 4 * 38


def run(fault: str, tmp_path: Path) -> RunFolder:
    experiment = parse_experiment(FILE + fault, Path("edge.toml"))
    outcome = run_experiment(experiment, out=tmp_path / "run", progress=PlainProgress("edge"), mode="simulated")
    checks = (tmp_path / "run" / "checks.csv").read_text()
    assert outcome.verdict == "pass", checks
    return RunFolder(outcome.folder)


def recovery(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "run" / "recovery.csv").set_index("node")


def test_crash_of_its_proxy(tmp_path: Path) -> None:
    run('kind = "crash"\ntarget = "ue4.proxy"\nfor_s = 2', tmp_path)
    rows = recovery(tmp_path)
    assert set(rows.index) == {"ue1", "ue2", "ue3", "ue4", "ue5"}
    served = rows.loc[["ue3", "ue4", "ue5"]]
    assert served["detection_ms"].between(0, 620).all()  # at once where a Nack tells, else after the detection time
    assert rows["outage_ms"].max() <= DETECTION_AND_JOIN_MS
    assert rows["updates_lost"].sum() == 0
    # By way of the next proxy, csr1, 10 ms from edge1: to a neighbour there and back, which is as far as to ue2.
    assert rows.loc["ue3", "floor_ms"] == pytest.approx(9 + 10 + 10 + 9)
    nodes = pd.read_csv(tmp_path / "run" / "nodes.csv").set_index("node")
    assert nodes["role"].to_dict() | {"ue4": "proxy-ue", "ue3": "ue", "csr1": "csr"} == nodes["role"].to_dict()
    loaded = RecordedRun.load(RunFolder.open(tmp_path / "run"))
    assert loaded.history.proxy_only == {"ue4"}
    assert loaded.history.crashed == {"ue4"}


def test_crash_for_good_of_its_proxy(tmp_path: Path) -> None:
    run('kind = "crash"\ntarget = "ue4.proxy"', tmp_path)
    assert recovery(tmp_path)["outage_ms"].max() <= DETECTION_AND_JOIN_MS


def test_it_vanishes(tmp_path: Path) -> None:
    run('kind = "crash"\ntarget = "ue4"', tmp_path)
    rows = recovery(tmp_path)
    assert rows["outage_ms"].max() <= DETECTION_AND_JOIN_MS
    assert rows["updates_lost"].sum() == 0
    updates = pd.read_csv(tmp_path / "run" / "updates.csv")
    assert (updates["expected_receivers"] == updates["delivered_receivers"]).all()
    late = updates[updates["published_s"] > 2.0]
    assert set(late["publisher"]) == {"ue1", "ue2", "ue3", "ue5"}
    assert late["expected_receivers"].max() == 3
    loaded = RecordedRun.load(RunFolder.open(tmp_path / "run"))
    assert not loaded.history.proxy_only


def test_its_link_fails(tmp_path: Path) -> None:
    """The way to the proxy and back is no outage, and no more is that to the proxy at which they have gone on."""
    run('kind = "link-down"\ntarget = "edge1-ue4"\nfor_s = 2', tmp_path)
    rows = recovery(tmp_path)
    assert rows["outage_ms"].max() <= 2_000 + 500
    assert rows["outage_ms"].min() >= 1_900


def test_a_link_fails_that_carries_little(tmp_path: Path) -> None:
    run('kind = "link-down"\ntarget = "core1-csr1"\nfor_s = 2', tmp_path)
    assert recovery(tmp_path)["outage_ms"].max() <= 500


def test_the_topology_is_read_back(tmp_path: Path) -> None:
    folder = run('kind = "freeze"\ntarget = "ue4.proxy"\nfor_s = 1', tmp_path)
    topology = read_topology(folder.raw / "topology.json")
    assert topology.proxy_ues == ("ue4",)
