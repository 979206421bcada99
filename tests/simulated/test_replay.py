"""`hconf replay`: a run folder with what was typed becomes an experiment that does the same again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.progress import PlainProgress
from experiments.replay import _ending, load_replay, write_export
from experiments.runner import run_experiment
from experiments.spec import load_experiment, parse_experiment
from experiments.spec_schema import Impair, LinkDown
from experiments.spec_workloads import OnceWorkload, PoissonWorkload
from experiments.typed import (
    CaptureTyped,
    FaultTyped,
    HealTyped,
    LineTyped,
    Marked,
    PublishTyped,
    ShellEnded,
    Typed,
    TypedLog,
    healed_after,
)
from topologies.errors import InputError

EXPERIMENT = """
[experiment]
name = "again"
duration_s = 4
seed = 9

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 1

[links.access]
delay_ms = 3

[conference]
mode = "push"

[[workload]]
kind = "poisson"
rate_per_s = 5

[[workload]]
kind = "once"
at_s = 1.5
text = "grüß dich\\nzwei"
publishers = ["ue2"]

[[fault]]
kind = "link-down"
target = "core1-csr1"
at_s = 1
for_s = 1

[[fault]]
kind = "impair"
target = "csr1-ue1"
at_s = 3.5
loss_ratio = 0.1
"""

Typing = Callable[..., Path]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    experiment = parse_experiment(EXPERIMENT, Path("again.toml"))
    outcome = run_experiment(experiment, out=folder, progress=PlainProgress("again"), mode="simulated")
    assert outcome.verdict == "pass"
    return folder


@pytest.fixture
def typing(recorded: Path, tmp_path: Path) -> Typing:
    """Returns a copy of the run with a shell's records; times count from the start of the run."""

    def typing(*records: Typed, **manifest: Any) -> Path:
        folder = tmp_path / "typed"
        shutil.copytree(recorded, folder)
        told = json.loads((folder / "manifest.json").read_text()) | manifest
        (folder / "manifest.json").write_text(json.dumps(told))
        epoch_s = told["clock"].get("epoch_s", 0.0)
        log = TypedLog(folder / "raw" / "shell.jsonl")
        for record in records:
            log.add(
                type(record)(
                    **{
                        **{name: getattr(record, name) for name in record.__struct_fields__},
                        "t_s": record.t_s + epoch_s,
                    }
                )
            )
        return folder

    return typing


def test_a_run_without_a_shell_is_run_as_it_was(recorded: Path, tmp_path: Path) -> None:
    replay = load_replay(recorded)
    assert (replay.mode, replay.notes) == ("simulated", ())
    wanted = parse_experiment(EXPERIMENT, Path("again.toml"))
    assert replay.experiment.resolved == wanted.resolved
    second = tmp_path / "second"
    run_experiment(replay.experiment, out=second, progress=PlainProgress("again"), mode="simulated")
    for name in ("updates.csv", "deliveries.csv", "faults.csv", "summary.csv"):
        assert (second / name).read_bytes() == (recorded / name).read_bytes()


def test_what_was_typed_is_on_the_schedule_and_the_run_ends_when_the_user_left(typing: Typing, tmp_path: Path) -> None:
    folder = typing(
        LineTyped(0.2, "ue1 ip link set ue1-eth0 mtu 900"),
        FaultTyped(0.5, "h1", {"kind": "impair", "target": "csr2-ue2", "at_s": 0.5000049, "loss_ratio": 0.25}),
        PublishTyped(0.75, "ue1", "stroke", 'say "hi"\x1b', 1, 3),
        LineTyped(0.9, "status"),
        HealTyped(1.25, "h1"),
        HealTyped(1.5, "f1"),
        FaultTyped(1.6, "h2", {"kind": "crash", "target": "csr1.proxy", "at_s": 2.0, "for_s": 60.0}),
        CaptureTyped(1.7, "csr1-ue1", "started", "csr1-ue1.pcapng"),
        Marked(1.8, "half time"),
        LineTyped(2.5, "exit"),
        ShellEnded(2.52),
    )
    replay = load_replay(folder)
    experiment = replay.experiment
    assert experiment.settings.duration_s == 2.6
    assert experiment.conference.mode == "push"
    assert [(fault.at_s, fault.target) for fault in experiment.faults] == [
        (1.0, "core1-csr1"), (0.5, "csr2-ue2"), (2.0, "csr1.proxy")
    ]  # fmt: skip
    down, impair, crash = experiment.faults
    assert isinstance(down, LinkDown)
    assert isinstance(impair, Impair)
    assert (down.for_s, impair.for_s, impair.loss_ratio) == (0.5, 0.75, 0.25)
    assert getattr(crash, "for_s", 0) is None  # it would have lasted longer
    poisson, planned, typed = experiment.workloads
    assert isinstance(poisson, PoissonWorkload)
    assert isinstance(planned, OnceWorkload)
    assert isinstance(typed, OnceWorkload)
    assert (poisson.stop_s, planned.text) == (2.6, "grüß dich\nzwei")
    assert (typed.at_s, typed.event, typed.text, typed.publishers) == (0.75, "stroke", 'say "hi"\x1b', ("ue1",))
    assert experiment.captures == ("csr1-ue1",)
    assert "1.8 s: half time" in replay.text
    assert "mtu 900" in replay.text
    assert "status" not in replay.text
    assert any("mtu 900" in note for note in replay.notes)
    write_export(replay, tmp_path / "file.toml")
    assert load_experiment(tmp_path / "file.toml").resolved == experiment.resolved
    with pytest.raises(InputError, match="exists already"):
        write_export(replay, tmp_path / "file.toml")
    with pytest.raises(InputError, match="cannot be written"):
        write_export(replay, tmp_path / "none" / "file.toml")


def test_a_replayed_shell_runs_and_publishes_the_text(typing: Typing, tmp_path: Path) -> None:
    folder = typing(PublishTyped(0.5, "ue1", "message", "x" * 33, 1, 3), ShellEnded(1.0))
    second = tmp_path / "second"
    result = CliRunner().invoke(app, ["replay", str(folder), "--out", str(second)])
    assert result.exit_code == 0, result.output
    lines = (second / "updates.csv").read_text().splitlines()
    assert any(line.split(",")[2] == "ue1" and ",33," in line for line in lines)


def test_a_shell_that_was_killed_is_replayed_as_far_as_is_known(typing: Typing) -> None:
    folder = typing(PublishTyped(0.5, "ue1", "message", "x", 1, 3), verdict="running")
    with (folder / "raw" / "shell.jsonl").open("a") as file:
        file.write('{"kind":"publish","t_s":9')
    replay = load_replay(folder)
    assert replay.experiment.settings.duration_s >= 4.0  # when the last record was written
    assert any("killed" in note for note in replay.notes)
    assert any("shell.jsonl" in note for note in replay.notes)


def test_a_shell_that_never_was_in_sync(typing: Typing) -> None:
    replay = load_replay(typing(clock={"start_s": 5.0}, verdict="interrupted"))
    assert any("not" in note or "nothing" in note for note in replay.notes)
    assert replay.experiment.settings.duration_s == 1.0


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema_version": 99}'), "schema_version is 99"),
        (lambda folder: set_experiment(folder, {}), "does not say what was run"),
        (lambda folder: set_experiment(folder, {"experiment": {"name": "x"}, "topology": {"name": "gone"}}), "would not run"),
    ],
)  # fmt: skip
def test_a_folder_that_holds_no_run_is_refused(typing: Typing, damage: Callable[[Path], object], problem: str) -> None:
    folder = typing(ShellEnded(1.0))
    damage(folder)
    with pytest.raises(InputError, match=problem):
        load_replay(folder)


def set_experiment(folder: Path, tables: dict[str, Any]) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(told | {"experiment": tables}))


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        ({"kind": "flap", "period_s": 2.0, "count": 2}, {"kind": "flap", "period_s": 2.0, "count": 2}),
        ({"kind": "flap", "period_s": 2.0, "count": 3}, {"kind": "flap", "period_s": 2.0, "for_s": 5.0}),
        ({"kind": "flap", "period_s": 2.0, "for_s": 9.0}, {"kind": "flap", "period_s": 2.0, "for_s": 5.0}),
        ({"kind": "freeze", "for_s": 5.0}, {"kind": "freeze", "for_s": 5.0}),
        ({"kind": "freeze", "for_s": 5.1}, {"kind": "freeze"}),
        ({"kind": "inject", "every_ms": 1_000.0, "times": 9}, {"kind": "inject", "every_ms": 1_000.0, "times": 5}),
    ],
)
def test_what_would_outlast_the_run_ends_with_it(fault: dict[str, Any], ending: dict[str, Any]) -> None:
    assert _ending(fault | {"at_s": 5.0}, 10.0) == ending | {"at_s": 5.0}


def test_a_fault_that_was_healed_by_hand_has_no_other_end() -> None:
    assert healed_after({"kind": "impair", "ramp_s": 4.0, "for_s": 8.0}, 2.0) == {"for_s": 2.0, "ramp_s": 2.0}
    assert healed_after({"kind": "impair", "ramp_s": 1.0}, 2.0) == {"for_s": 2.0}
    assert healed_after({"kind": "drop", "count": 3}, 2.0) == {"for_s": 2.0}
