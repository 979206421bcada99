"""Timers against a dictionary that is searched from end to end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core.timers import Timers

keys = st.integers(0, 5)
quarters = st.integers(0, 40)  # quarter seconds are exact in binary


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[int] = Timers()
        self.deadlines_s: dict[int, float] = {}
        self.now_s = 0.0

    @rule(key=keys, at=quarters)
    def set(self, key: int, at: int) -> None:
        self.timers.set(key, at / 4)
        self.deadlines_s[key] = at / 4

    @rule(key=keys)
    def cancel(self, key: int) -> None:
        self.timers.cancel(key)
        self.deadlines_s.pop(key, None)

    @rule(step=st.integers(0, 8))
    def let_time_pass(self, step: int) -> None:
        self.now_s += step / 4
        due = sorted((at_s, key) for key, at_s in self.deadlines_s.items() if at_s <= self.now_s)
        popped = list(self.timers.pop_due(self.now_s))
        assert sorted(popped) == sorted(key for _, key in due)
        assert [self.deadlines_s[key] for key in popped] == [at_s for at_s, _ in due]  # the earliest first
        for key in popped:
            del self.deadlines_s[key]

    @rule(key=keys, delay=st.integers(1, 8))
    def set_again_from_within(self, key: int, delay: int) -> None:
        """What is set while due keys are taken is seen too, and nothing is lost."""
        seen = []
        for due in self.timers.pop_due(self.now_s):
            seen.append(due)
            self.deadlines_s.pop(due)
            if due == key:
                self.timers.set(key, self.now_s + delay / 4)
                self.deadlines_s[key] = self.now_s + delay / 4
        assert len(seen) == len(set(seen))

    @rule(key=keys, times=st.integers(60, 120))
    def move_often(self, key: int, times: int) -> None:
        for n in range(times):
            self.timers.set(key, 100.0 + n)
        self.deadlines_s[key] = 100.0 + times - 1

    @invariant()
    def next_is_the_earliest(self) -> None:
        assert self.timers.next_s == min(self.deadlines_s.values(), default=None)
        assert {key for key in range(6) if key in self.timers} == set(self.deadlines_s)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.timers._heap) <= 65 + 4 * 6


TestTimers = AnyHistory.TestCase
TestTimers.settings = settings(max_examples=100, stateful_step_count=30)
