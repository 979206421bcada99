"""Sessions of RFC 5880: one against its rules for any history, two against each other over a link that may be anything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from proxy.core.liveness import Session, State

#: RFC 5880 section 6.8.6, transcribed from its text: (our state, received state) -> our new state.
RFC_5880_SECTION_6_8_6 = {
    (State.DOWN, State.ADMIN_DOWN): State.DOWN,
    (State.DOWN, State.DOWN): State.INIT,
    (State.DOWN, State.INIT): State.UP,
    (State.DOWN, State.UP): State.DOWN,
    (State.INIT, State.ADMIN_DOWN): State.DOWN,
    (State.INIT, State.DOWN): State.INIT,
    (State.INIT, State.INIT): State.UP,
    (State.INIT, State.UP): State.UP,
    (State.UP, State.ADMIN_DOWN): State.DOWN,
    (State.UP, State.DOWN): State.DOWN,
    (State.UP, State.INIT): State.UP,
    (State.UP, State.UP): State.UP,
}
MIN_TX_S, MULT = 0.25, 3
DETECTION_S = 0.75


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.session = Session(desired_min_tx_s=MIN_TX_S, detect_mult=MULT)
        self.now_s = 0.0
        self.heard_s: float | None = None

    @rule(theirs=st.sampled_from(State))
    def hear_a_heartbeat(self, theirs: State) -> None:
        was = self.session.state
        changed = self.session.heard(theirs, now_s=self.now_s)
        self.heard_s = self.now_s
        assert self.session.state is RFC_5880_SECTION_6_8_6[was, theirs]
        assert changed is (self.session.state is not was)

    @rule()
    def hear_anything_else(self) -> None:
        """It shows that we hear the peer; not that the peer hears us."""
        was = self.session.state
        assert self.session.heard(None, now_s=self.now_s) is False
        self.heard_s = self.now_s
        assert self.session.state is was

    @rule(quarters=st.integers(0, 4))
    def stay_silent(self, quarters: int) -> None:
        was, self.now_s = self.session.state, self.now_s + quarters / 4
        timed_out = self.heard_s is not None and self.now_s - self.heard_s >= DETECTION_S
        changed = self.session.expire(now_s=self.now_s)
        assert self.session.state is (State.DOWN if timed_out else was)
        assert changed is (self.session.state is not was)
        if timed_out:
            self.heard_s = None
        assert self.session.deadline_s == (None if self.heard_s is None else self.heard_s + DETECTION_S)

    @rule()
    def lose_the_carrier(self) -> None:
        was = self.session.state
        assert self.session.fail() is (was is not State.DOWN)
        assert self.session.state is State.DOWN
        assert self.session.deadline_s is None
        self.heard_s = None


TestSession = AnyHistory.TestCase
TestSession.settings = settings(max_examples=200, stateful_step_count=20)

steps = st.sampled_from(["a to b", "b to a", "both", "neither"])


@settings(max_examples=500)
@given(trouble=st.lists(steps, max_size=20))
def test_two_sessions_come_up_whatever_happened_before(trouble: list[str]) -> None:
    a, b = (Session(desired_min_tx_s=MIN_TX_S, detect_mult=MULT) for _ in range(2))
    now_s = 0.0
    for step in [*trouble, *["both"] * 4]:
        now_s += MIN_TX_S
        from_a, from_b = a.state, b.state
        if step in ("a to b", "both"):
            b.heard(from_a, now_s=now_s)
        if step in ("b to a", "both"):
            a.heard(from_b, now_s=now_s)
        a.expire(now_s=now_s)
        b.expire(now_s=now_s)
    assert (a.state, b.state) == (State.UP, State.UP)


@settings(max_examples=500)
@given(before=st.lists(steps, max_size=12), hears=st.sampled_from(["a to b", "b to a"]))
def test_a_link_that_works_one_way_is_up_at_neither_end(before: list[str], hears: str) -> None:
    a, b = (Session(desired_min_tx_s=MIN_TX_S, detect_mult=MULT) for _ in range(2))
    now_s = 0.0
    for step in [*before, *[hears] * 6]:
        now_s += MIN_TX_S
        from_a, from_b = a.state, b.state
        if step in ("a to b", "both"):
            b.heard(from_a, now_s=now_s)
        if step in ("b to a", "both"):
            a.heard(from_b, now_s=now_s)
        a.expire(now_s=now_s)
        b.expire(now_s=now_s)
    assert State.UP not in (a.state, b.state)
