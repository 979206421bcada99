"""Whatever the network does to segments, the pipeline gets all of them or gives up, and keeps to its window."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.objects.pipeline import ATTEMPTS_MAX, RTO_MAX_S, WINDOW_INITIAL, WINDOW_MAX, WINDOW_MIN, Pipeline

#: What becomes of one Interest: seconds until the Data comes, None: lost, or a Nack after so many seconds.
FATES = st.one_of(st.floats(0.001, 3.0), st.none(), st.floats(0.001, 0.2).map(lambda s: ("nack", s)))
Fate = float | tuple[str, float] | None


def fetch(pipeline: Pipeline, fates: list[Fate], *, otherwise_s: float | None = 0.05) -> tuple[float, list[int], bool]:
    """Play the network; return (time it took, segments in the order in which they came, whether it was given up)."""
    now_s, came, under_way, asked = 100.0, list[int](), list[tuple[float, int, bool]](), 0
    unanswered: dict[int, int] = {}
    while not pipeline.is_complete:
        ask = pipeline.due(now_s)
        if ask is None:
            return now_s - 100.0, came, True
        for index in ask:
            fate = fates[asked] if asked < len(fates) else otherwise_s
            asked += 1
            if isinstance(fate, tuple):
                heapq.heappush(under_way, (now_s + fate[1], index, False))
            elif fate is not None:
                heapq.heappush(under_way, (now_s + fate, index, True))
            unanswered[index] = unanswered.get(index, 0) + 1
            assert unanswered[index] <= ATTEMPTS_MAX
        deadline_s = pipeline.next_s
        if under_way and (deadline_s is None or under_way[0][0] <= deadline_s):
            now_s, index, is_data = heapq.heappop(under_way)
            if not pipeline.is_asked(index):
                continue  # came a second time
            if is_data:
                came.append(index)
                pipeline.on_data(index, now_s)
            else:
                pipeline.on_refused(index, now_s, is_congestion=True)
        else:
            assert deadline_s is not None, "nothing under way and nothing to wait for: stuck"
            assert deadline_s <= now_s + RTO_MAX_S + 1e-6
            now_s = max(now_s, deadline_s)
        assert WINDOW_MIN <= pipeline.window <= WINDOW_MAX
    return now_s - 100.0, came, False


@given(st.integers(1, 80), st.lists(FATES, max_size=200))
@example(1, [None] * 15)
def test_every_segment_comes_once_whatever_is_lost_late_or_refused(count: int, fates: list[Fate]) -> None:
    _, came, given_up = fetch(Pipeline(count), fates)
    if not given_up:
        assert sorted(came) == list(range(count))


def test_what_never_comes_is_given_up() -> None:
    took_s, came, given_up = fetch(Pipeline(3), [], otherwise_s=None)
    assert given_up
    assert not came
    assert took_s < ATTEMPTS_MAX * RTO_MAX_S


def test_without_loss_the_window_doubles_each_round_trip_and_nothing_is_repeated() -> None:
    pipeline = Pipeline(30)
    took_s, _, _ = fetch(pipeline, [], otherwise_s=0.1)
    assert pipeline.retransmissions == 0
    assert took_s == pytest.approx(0.4)  # 2 + 4 + 8 + 16


def test_losses_of_one_window_halve_it_once() -> None:
    pipeline = Pipeline(200)
    now_s = 100.0
    while pipeline.window < 16:
        for index in pipeline.due(now_s) or []:
            pipeline.on_data(index, now_s + 0.05)
        now_s += 0.05
    window = pipeline.window
    assert pipeline.due(now_s)
    assert pipeline.next_s is not None
    now_s = pipeline.next_s + 0.001
    again = pipeline.due(now_s)  # the whole window is lost
    assert again is not None
    assert pipeline.window == window / 2
    assert len(again) == int(window / 2)
    for index in again:
        pipeline.on_data(index, now_s)
    assert window / 2 < pipeline.window < window / 2 + 2, "from here on it grows by one a round trip"


def test_a_round_trip_of_what_was_asked_twice_says_nothing() -> None:
    """Karn: the answer may be that of the first question."""
    pipeline = Pipeline(3)
    assert pipeline.due(100.0) == [0, 1]
    assert pipeline.due(100.3) == [0, 1]  # the first timeout
    pipeline.on_data(0, 100.301)
    assert pipeline.due(100.302) == [2]
    assert pipeline.next_s == pytest.approx(100.3 + 0.25 * 4), (
        "of segment 1: no sample, and two timeouts have backed off"
    )


def test_the_initial_window_is_that_of_catchunks() -> None:
    assert len(Pipeline(100).due(0.0) or []) == WINDOW_INITIAL == 2
