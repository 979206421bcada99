"""Every experiment that comes with hconf holds what it expects, simulated; the same files run emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.progress import PlainProgress
from experiments.runner import run_experiment
from experiments.spec import load_experiment

FILES = sorted((Path(__file__).resolve().parents[2] / "experiments").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_it_holds_what_it_expects(file: Path, tmp_path: Path) -> None:
    experiment = load_experiment(file)
    assert experiment.expectations, "an experiment without expectations shows nothing"
    outcome = run_experiment(experiment, out=tmp_path / "run", progress=PlainProgress(file.stem), mode="simulated")
    assert outcome.analysis is not None
    assert not outcome.analysis.failed, (tmp_path / "run" / "checks.csv").read_text()
    assert outcome.verdict == "pass"


@pytest.mark.parametrize("loss_ratio", [0.0, 0.01, 0.1, 0.2])
def test_the_loss_sweep_holds_at_every_step(loss_ratio: float, tmp_path: Path) -> None:
    file = next(file for file in FILES if file.stem == "loss-sweep")
    tiers = [f"links.{tier}.loss_ratio={loss_ratio}" for tier in ("core", "access")]
    outcome = run_experiment(
        load_experiment(file, tiers), out=tmp_path / "run", progress=PlainProgress("sweep"), mode="simulated"
    )
    assert outcome.verdict == "pass", (tmp_path / "run" / "checks.csv").read_text()
