"""A node that does not get the processor: when it beats more slowly, what it says of that, and when it stops."""

from __future__ import annotations

import pytest

from proxy.core.liveness import Session
from proxy.core.starvation import LAG_MAX_S, STRETCH_MAX, Starvation


def starved(timers: int, lag_s: float) -> Starvation:
    starvation = Starvation()
    for number in range(timers):
        starvation.note(float(number), number + lag_s)
    return starvation


@pytest.mark.parametrize(
    ("timers", "lag_s", "stretch"),
    [(1_000, 0.004, 1.0), (1, 60.0, 1.0), (1_000, 0.010, 2.0), (2, 60.0, 1.875), (1_000, 60.0, STRETCH_MAX)],
    ids=["tolerated", "stopped once", "late", "stopped twice", "never in time"],
)
def test_stretch(timers: int, lag_s: float, stretch: float) -> None:
    assert starved(timers, lag_s).stretch == pytest.approx(stretch)


def test_it_is_over_soon_after_timers_are_in_time_again() -> None:
    starvation = starved(100, LAG_MAX_S)
    for number in range(20):
        starvation.note(200.0 + number, 200.0 + number)
    assert starvation.stretch == 1.0


def test_what_is_not_due_says_nothing() -> None:
    starvation = starved(100, LAG_MAX_S)
    assert not starvation.note(300.0, 299.0)
    assert not starvation.note(None, 300.0)
    assert starvation.stretch == STRETCH_MAX


def test_session_waits_as_long_as_its_end_or_the_other_needs() -> None:
    session = Session(desired_min_tx_s=0.1, detect_mult=3)
    session.heard_packet(now_s=1.0)
    session.heard_interval(200)
    assert session.deadline_s == pytest.approx(1.6)
    session.stretch(4.0)
    assert session.deadline_s == pytest.approx(2.2)
    session.stretch(1.0)
    session.heard_interval(None)
    assert session.deadline_s == pytest.approx(1.3)


def test_peer_cannot_make_itself_immortal() -> None:
    session = Session(desired_min_tx_s=0.1, detect_mult=3)
    session.heard_interval(2**60)
    assert session.detection_time_s == pytest.approx(0.3 * STRETCH_MAX)
