"""Experiment files from text, read and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.spec import Experiment, load_experiment
from tests.unit.experiments.spec_files import GOOD, Refusal
from topologies.errors import InputError


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Experiment]:
    def load_text(text: str = GOOD, *overrides: str) -> Experiment:
        path = tmp_path / "a.toml"
        path.write_text(text)
        return load_experiment(path, overrides)

    return load_text


@pytest.fixture
def refusal(load: Callable[..., Experiment]) -> Refusal:
    """Return what the file is refused with after *old* in it became *new*."""

    def refuse(old: str = "", new: str = "", *overrides: str, text: str = GOOD) -> InputError:
        assert old in text
        with pytest.raises(InputError) as caught:
            load(text.replace(old, new, 1) if old else text + new, *overrides)
        assert "\n" not in str(caught.value)
        return caught.value

    return refuse
