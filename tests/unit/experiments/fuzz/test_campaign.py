from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.fuzz import campaign
from experiments.fuzz.case import draw_case
from experiments.fuzz.trial import Trial
from experiments.spec import load_experiment


def test_good_schedules_end_well(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fuzz-schedules", "--runs", "2", "--seed", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "2 schedules from 1 on" in result.output
    assert "No violation." in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_violation_is_told_shrunk_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a checker that objects to every schedule of which the first fault is there."""
    broken = Trial(7, ("invariant.in-order: one after the other",), 3.0)
    first = draw_case(7)["fault"][0]["target"]
    monkeypatch.setattr(campaign, "run_campaign", lambda *_, **__: campaign.Campaign(3, 9.0, 1.0, broken))
    monkeypatch.setattr(
        campaign, "still_breaks", lambda _: lambda case: any(fault["target"] == first for fault in case["fault"])
    )
    result = CliRunner().invoke(app, ["fuzz-schedules", "--seed", "5", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "Schedule 7 broke" in result.output
    assert "--runs 1 --seed 7" in result.output
    shrunk = load_experiment(tmp_path / "fuzz-7.toml")
    assert [fault.target for fault in shrunk.faults] == [first]
    assert not shrunk.workloads


def test_the_time_limit_ends_it() -> None:
    done = campaign.run_campaign(1, runs=None, time_limit_s=0.5, jobs=1)
    assert done.broken is None
    assert done.runs < 50


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fuzz-schedules", "--out", str(tmp_path / "none")])
    assert "is no folder" in str(result.exception)
