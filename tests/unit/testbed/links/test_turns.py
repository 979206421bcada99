"""Stepping down from a real-time priority, with the clocks and the scheduler's calls replaced."""

import os
import time
from typing import Any

import pytest

from testbed.links.turns import STEP_DOWN_NS, WINDOW_NS, TurnTaking


class Scheduler:
    """What the process is told to be, and how much of the time it has run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policies: list[int] = []
        self.now_ns, self.cpu_ns = 1_000, 500
        monkeypatch.setattr(os, "sched_setscheduler", lambda _pid, policy, _param: self.policies.append(policy))
        monkeypatch.setattr(os, "setpriority", lambda *_: None)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(time, "process_time_ns", lambda: self.cpu_ns)

    def pass_time(self, taking: Any, due_ns: int, share: float) -> int:
        self.cpu_ns += int((due_ns - self.now_ns) * share)
        self.now_ns = due_ns
        next_ns: int = taking.consider(due_ns)
        return next_ns


def test_a_process_with_time_to_spare_keeps_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(monkeypatch)
    taking, due_ns = TurnTaking(2), scheduler.now_ns + WINDOW_NS
    for _ in range(10):
        passed = scheduler.pass_time(taking, due_ns, 0.8)
        assert passed == due_ns + WINDOW_NS
        due_ns = passed
    assert scheduler.policies == []
    assert taking.busy_ratio == pytest.approx(0.8, abs=0.01)


def test_a_busy_one_steps_down_shortly_and_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(monkeypatch)
    taking, due_ns, down_ns = TurnTaking(2), scheduler.now_ns + WINDOW_NS, 0
    for _ in range(100):
        passed = scheduler.pass_time(taking, due_ns, 1.0)
        if scheduler.policies[-1] == os.SCHED_OTHER:
            assert passed == due_ns + STEP_DOWN_NS
            down_ns += STEP_DOWN_NS
        due_ns = passed
    assert scheduler.policies == [os.SCHED_OTHER, os.SCHED_FIFO] * 50
    assert taking.steps_down == 50
    assert 0.05 < down_ns / due_ns < 0.15  # what the kernel wants for others is 0.05
