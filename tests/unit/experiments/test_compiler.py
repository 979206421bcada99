"""Compiling what cannot be compiled."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from experiments import compiler
from proxy import compiled
from topologies.errors import CapabilityError


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A virtual environment in which nothing has been compiled yet."""
    folder = tmp_path / "hconf-compiled" / "0123"
    monkeypatch.setattr(compiled, "folder", lambda: folder)
    return folder


def test_without_a_compiler(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CapabilityError, match=r"no C compiler; .*slower \(fix: apt-get install gcc"):
        compiler.compile_machines()
    assert not environment.parent.exists()
    assert not (said := compiler.capability()).ok
    assert said.detail == "no C compiler"


@pytest.mark.skipif(bool(compiler.why_not()), reason="cannot compile here")
def test_sources_that_do_not_compile_leave_nothing_and_what_there_was(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (older := environment.parent / "older").mkdir(parents=True)
    broken = tmp_path / "broken.py"
    broken.write_text("def three() -> int:\n    return 'three'\n")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "sources", lambda: {"broken": broken})
    with pytest.raises(CapabilityError, match=r"broken\.py:2: error: Incompatible return value"):
        compiler.compile_machines()
    assert list(environment.parent.iterdir()) == [older]
    broken.write_text("def three() -> int:\n    return 3\n")
    assert compiler.compile_machines() == environment
    assert set(environment.parent.iterdir()) == {environment, older}
    assert compiler.capability().ok


def test_what_is_old_or_was_never_finished_goes(tmp_path: Path) -> None:
    ages_s = {f"made-{age}": age * 10_000 for age in range(6)} | {"making-now": 10, "making-killed": 7_200}
    for name, age_s in ages_s.items():
        (tmp_path / name).mkdir()
        made_s = time.time() - age_s
        os.utime(tmp_path / name, (made_s, made_s))
    gone = {path.name for path in compiler._long_unused(tmp_path)}
    assert gone == {"made-3", "made-4", "made-5", "making-killed"}
