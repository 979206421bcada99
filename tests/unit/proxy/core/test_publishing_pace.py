"""When a stream is busy, and when it is quiet."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from proxy.core.publishing_pace import BUSY_PER_S, COUNTED_S, NEW_S, QUIET_PER_S, PublishingPace


def quiet_pace() -> PublishingPace:
    """Return that of a stream that was opened at 0 and found quiet at 10 s."""
    pace = PublishingPace(0.0)
    pace.look(10.0)
    assert not pace.is_busy
    return pace


def publish(pace: PublishingPace, per_s: float, *, from_s: float, until_s: float) -> Iterable[float]:
    """Publish at even intervals, looking on as often; yield when the stream became busy."""
    for count in range(round((until_s - from_s) * per_s)):
        now_s = from_s + count / per_s
        if pace.published(now_s):
            yield now_s
        pace.look(now_s)


def test_a_new_stream_is_busy_until_that_is_known() -> None:
    pace = PublishingPace(7.0)
    pace.look(7.0 + NEW_S - 0.001)
    assert pace.is_busy
    pace.look(7.0 + NEW_S)
    assert not pace.is_busy


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_stream_below_the_limit_stays_quiet(part: float) -> None:
    pace = quiet_pace()
    assert not list(publish(pace, part * BUSY_PER_S, from_s=10.0, until_s=30.0))


def test_a_busy_stream_is_busy_once_and_until_it_is_quiet() -> None:
    pace = quiet_pace()
    (since_s,) = publish(pace, 1.1 * BUSY_PER_S, from_s=10.0, until_s=20.0)
    assert 10.0 < since_s <= 10.0 + COUNTED_S
    assert pace.since_s == since_s
    assert not list(publish(pace, 1.2 * QUIET_PER_S, from_s=20.0, until_s=30.0))
    assert pace.is_busy, "between the limits it stays what it was"
    assert not list(publish(pace, 0.8 * QUIET_PER_S, from_s=30.0, until_s=40.0))
    assert not pace.is_busy


def test_a_burst_makes_it_busy_at_once() -> None:
    pace = quiet_pace()
    busy = [pace.published(10.0) for _ in range(200)]
    assert sum(busy) == 1
    assert busy.index(True) == BUSY_PER_S * COUNTED_S - 1
    pace.look(10.0 + COUNTED_S)
    assert not pace.is_busy
