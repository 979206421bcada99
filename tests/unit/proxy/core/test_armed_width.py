"""How many sync interests are armed: follows the remote's rate, at the price of few late answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.armed_width import ARMED_MIN, NARROW_AFTER_S, ArmedWidth
from proxy.core.seeded import SplitMix64

ARMED_MAX = 32


def follow(width: ArmedWidth, *, rate_per_s: float, round_trip_s: float, for_s: float, from_s: float = 0.0) -> float:
    """Publish at random moments, keep as many armed as *width* says. Returns: the share that was asked for too late."""
    chance, now_s, late, count = SplitMix64(7), from_s, 0, 0
    asked_s: list[float] = [from_s] * width.width
    narrowed_s = from_s
    while now_s < from_s + for_s:
        now_s += -(1 / rate_per_s) * math.log(1.0 - chance.uniform())
        first_sent_s = asked_s.pop(0) if asked_s else now_s
        is_late = first_sent_s + round_trip_s / 2 > now_s
        came_s = max(now_s, first_sent_s + round_trip_s / 2) + round_trip_s / 2
        count, late = count + 1, late + is_late
        width.answered(came_s - first_sent_s, ARMED_MAX, now_s=came_s)
        if now_s - narrowed_s > 0.2:
            narrowed_s = now_s
            width.narrow(now_s=now_s)
        while len(asked_s) < width.width:
            asked_s.append(came_s)
        del asked_s[width.width :]
    return late / count


@pytest.mark.parametrize(("rate_per_s", "round_trip_s"), [(100.0, 0.07), (100.0, 0.02), (30.0, 0.2)])
def test_a_steady_remote_is_hardly_ever_asked_too_late(rate_per_s: float, round_trip_s: float) -> None:
    width = ArmedWidth()
    follow(width, rate_per_s=rate_per_s, round_trip_s=round_trip_s, for_s=5.0)
    assert follow(width, rate_per_s=rate_per_s, round_trip_s=round_trip_s, for_s=60.0, from_s=10.0) < 0.01
    assert width.width >= rate_per_s * round_trip_s


def test_a_remote_that_has_become_quiet_is_followed_with_few() -> None:
    width = ArmedWidth()
    follow(width, rate_per_s=200.0, round_trip_s=0.07, for_s=5.0)
    assert width.width == ARMED_MAX
    follow(width, rate_per_s=0.5, round_trip_s=0.07, for_s=60.0, from_s=10.0)
    assert width.width == ARMED_MIN


def test_a_quiet_remote_widens_nothing() -> None:
    width = ArmedWidth()
    follow(width, rate_per_s=1.0, round_trip_s=0.07, for_s=60.0)
    assert width.width == ARMED_MIN


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 10.0), st.booleans()), max_size=200))
def test_it_stays_within_its_bounds(happenings: list[tuple[float, float, bool]]) -> None:
    width, now_s = ArmedWidth(), 0.0
    for age_s, pause_s, is_push in happenings:
        now_s += pause_s
        if is_push:
            width.widen(ARMED_MAX, now_s=now_s)
        else:
            width.answered(age_s, ARMED_MAX, now_s=now_s)
        before = width.width
        assert width.narrow(now_s=now_s) == (width.width < before)
        assert ARMED_MIN <= width.width <= ARMED_MAX


def test_what_is_enough_for_a_while_is_halved_only_if_half_would_be() -> None:
    width = ArmedWidth()
    for n in range(3):
        width.answered(0.05, ARMED_MAX, now_s=float(n))
    wide = width.width
    width.answered(0.10, ARMED_MAX, now_s=3.0)
    assert not width.narrow(now_s=3.0 + 2 * NARROW_AFTER_S)
    width.answered(0.20, ARMED_MAX, now_s=15.0)
    assert width.narrow(now_s=15.0 + 2 * NARROW_AFTER_S)
    assert width.width == wide // 2
