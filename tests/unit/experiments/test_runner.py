from __future__ import annotations

from pathlib import Path

import pytest

from experiments.flow import injectable
from experiments.progress import PlainProgress, choose_progress
from experiments.run_folder import RunVerdict
from experiments.runner import Outcome
from experiments.spec_schema import Impair, LinkDown, LinkUp, fault_ids
from testbed.faults.model import Fault


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("error", 1), ("interrupted", 130)])
def test_the_exit_code_follows_from_the_verdict(verdict: RunVerdict, code: int) -> None:
    assert Outcome(Path("x"), verdict, None, {}).exit_code == code


def test_faults_of_the_file_are_handed_to_the_injector_as_they_stand() -> None:
    faults = (
        LinkDown(at_s=1.0, target="a-b", for_s=2.0),
        LinkDown(at_s=4.0, target="a-b"),
        LinkUp(at_s=5.0, target="a-b"),
        Impair(at_s=6.0, target="b-c", for_s=1.0, delay_ms=30.0, loss_ratio=0.1),
    )
    assert fault_ids(faults) == ["f1", "f2", "f3", "f4"]
    assert list(injectable(faults)) == [
        Fault("f1", "link-down", "a-b", 1.0, 2.0),
        Fault("f2", "link-down", "a-b", 4.0),
        Fault("f3", "link-up", "a-b", 5.0),
        Fault("f4", "impair", "b-c", 6.0, 1.0, {"delay_ms": 30.0, "loss_ratio": 0.1}),
    ]


def test_without_a_terminal_progress_is_lines_and_not_many(capsys: pytest.CaptureFixture[str]) -> None:
    progress = choose_progress("quick")
    assert isinstance(progress, PlainProgress)
    with progress:
        progress.phase("running")
        for tenths in range(-3, 300):
            progress.running(tenths / 10, 30.0)
    said = capsys.readouterr().out.splitlines()
    assert [line[line.index("quick: ") :] for line in said] == [
        "quick: running",
        "quick: running, 10 of 30 s",
        "quick: running, 20 of 30 s",
    ]
