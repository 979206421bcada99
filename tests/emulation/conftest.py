"""A network to build, and the promise that nothing of it stays."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.emulation.ownership import processes_marked
from testbed.plan import NetworkPlan
from tests.emulation.machine import TREE, look_at_machine


@pytest.fixture
def plan(tmp_path: Path) -> NetworkPlan:
    return NetworkPlan(f"test-{uuid.uuid4().hex[:12]}", TREE, 7, tmp_path / "run")


@pytest.fixture
def assert_no_residue(
    plan: NetworkPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """Look at the machine, and return what compares. What a failing test leaves is ended all the same."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = look_at_machine()

    def compare() -> None:
        assert processes_marked(plan.run_id) == []
        assert not plan.runtime_dir.exists()
        assert list(temporary.iterdir()) == []
        assert look_at_machine() == before

    yield compare
    for process in processes_marked(plan.run_id):
        os.kill(process.pid, 9)
