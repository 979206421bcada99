"""What a run publishes is what the timetable says, whatever happens to devices meanwhile; and it is handed out as the run goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.hand_out import AHEAD_S
from experiments.progress import PlainProgress
from experiments.replay import load_replay
from experiments.runner import run_experiment
from experiments.spec import Experiment, parse_experiment
from experiments.workloads import ScheduledPresence, ScheduledUpdate, timeline

NETWORK = """\
[experiment]
name = "x"
duration_s = 18
seed = 5
[topology]
name = "tiers"
csrs = 2
ues_per_csr = 2
"""
TALK = '[[workload]]\nkind = "constant"\nrate_per_s = 2.0\nsize_bytes = 10\nstop_s = 17.0\n'


def run(text: str, folder: Path) -> tuple[Experiment, list[dict[str, str]], dict[str, Any]]:
    """Return the experiment, the rows of updates.csv and the manifest of a simulated run that went well."""
    experiment = parse_experiment(NETWORK + text, folder / "a.toml")
    outcome = run_experiment(experiment, out=folder / "run", progress=PlainProgress("x"), mode="simulated")
    assert outcome.verdict == "pass", (folder / "run" / "checks.csv").read_text()
    with (folder / "run" / "updates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return experiment, rows, json.loads((folder / "run" / "manifest.json").read_text())


def planned(experiment: Experiment, device: str) -> list[float]:
    entries = timeline(
        experiment.workloads,
        devices=experiment.topology.ues,
        duration_s=experiment.settings.duration_s,
        seed=experiment.settings.seed,
        attendance=experiment.attendance,
        traces=experiment.traces,
    )
    return [entry.what.at_s for entry in entries if entry.device == device and isinstance(entry.what, ScheduledUpdate)]


def published(rows: list[dict[str, str]], device: str, event: str = "message") -> list[float]:
    return [float(row["published_s"]) for row in rows if row["publisher"] == device and row["event"] == event]


def test_everything_is_published_on_time_though_it_is_handed_out_in_shares(tmp_path: Path) -> None:
    """A device that is frozen while its share is handed out finds it when it thaws."""
    freeze = '[[fault]]\nkind = "freeze"\ntarget = "ue2"\nat_s = 4.9\nfor_s = 0.4\n'
    experiment, rows, _ = run(TALK + freeze, tmp_path)
    assert experiment.settings.duration_s > AHEAD_S
    for device in ("ue1", "ue3", "ue4"):
        assert published(rows, device) == pytest.approx(planned(experiment, device), abs=1e-5)
    late = published(rows, "ue2")
    assert len(late) == len(planned(experiment, "ue2"))
    assert late == pytest.approx([5.3 if 4.9 < at_s < 5.3 else at_s for at_s in planned(experiment, "ue2")], abs=0.01)


def test_devices_come_and_go_as_planned(tmp_path: Path) -> None:
    churn = '[[attendance]]\ndevices = ["csr1"]\nsession_s = 3.0\naway_s = 1.5\n'
    experiment, rows, _ = run(TALK + churn, tmp_path)
    entries = timeline(
        experiment.workloads,
        devices=experiment.topology.ues,
        duration_s=18.0,
        seed=5,
        attendance=experiment.attendance,
    )
    leaves = [
        e.what.at_s for e in entries if isinstance(e.what, ScheduledPresence) and not e.what.there and e.device == "ue1"
    ]
    assert len(leaves) >= 2
    assert published(rows, "ue1", "leave") == pytest.approx(leaves, abs=0.1)
    assert published(rows, "ue1") == pytest.approx(
        planned(experiment, "ue1"), abs=0.3
    )  # what is due while it joins waits
    assert published(rows, "ue3") == pytest.approx(planned(experiment, "ue3"), abs=1e-5)


def test_a_trace_is_replayed_and_its_file_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "time_s,device_id,event,size_bytes,text\n"
        "10,ue1,message,,Grüße\n"
        "12,ue2,join,,\n"
        "20,ue2,message,33,\n"
        "21,ue3,object,5000,\n"
        "22,ue2,leave,,\n"
        "44,ue1,stroke,7,\n"
        "99,ue1,stroke,8,\n"
    )
    _, rows, manifest = run(
        '[[workload]]\nkind = "trace"\nfile = "t.csv"\nfrom_s = 10.0\nspeed = 2.0\nstart_s = 0.5\n', tmp_path
    )
    seen = [(row["publisher"], row["event"], int(row["size_bytes"])) for row in rows if float(row["published_s"]) >= 0]
    assert int(next(row["size_bytes"] for row in rows if row["event"] == "object")) > 0  # of the announcement
    seen = [(who, event, 0 if event == "object" else size_bytes) for who, event, size_bytes in seen]
    assert [one for one in seen if one[1] not in ("join", "leave")] == [
        ("ue1", "message", 7), ("ue2", "message", 33), ("ue3", "object", 0), ("ue1", "stroke", 7),
    ]  # fmt: skip
    assert published(rows, "ue1") == pytest.approx([0.5], abs=1e-5)
    assert published(rows, "ue1", "stroke") == pytest.approx([17.5], abs=1e-5)
    assert published(rows, "ue2", "join")[0] == pytest.approx(1.5, abs=0.2)
    assert published(rows, "ue2", "leave") == pytest.approx([6.5], abs=0.1)
    (trace,) = manifest["traces"]
    assert (trace["workload"], trace["rows"], trace["replayed"]) == (1, 7, 6)
    replayed = load_replay(tmp_path / "run")
    assert replayed.experiment.traces[0].sha256 == trace["sha256"]
    assert replayed.notes == ()
    (tmp_path / "t.csv").write_text("time_s,device_id,event,size_bytes\n11,ue1,message,1\n")
    assert "it has changed since" in load_replay(tmp_path / "run").notes[0]


def test_a_run_over_a_file_of_the_network_is_replayed_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "net.conf").write_text("[nodes]\na: _\nb: _\n[links]\na:b delay=3ms\n")
    network = '[topology]\nname = "net.conf"\ncsrs = 2\nues_per_csr = 1\nues_at = { b = 2 }\n'
    text = '[experiment]\nname = "x"\nduration_s = 2\n' + network
    experiment = parse_experiment(text + TALK.replace("17.0", "1.0"), tmp_path / "a.toml")
    outcome = run_experiment(experiment, out=tmp_path / "run", progress=PlainProgress("x"), mode="simulated")
    assert outcome.verdict == "pass"
    assert load_replay(tmp_path / "run").experiment.topology.links == experiment.topology.links
