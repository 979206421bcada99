"""Frames of a live stream: asked for ahead, given out when they are made, missed after their deadline."""

from __future__ import annotations

import pytest

from proxy.core.objects.stream import ASK_AHEAD_S, START_DELAY_S, StreamFetch, StreamSource
from proxy.wire.messages import ObjectDescription

#: Ten frames, one every 20 ms, of use for 100 ms.
STREAM = ObjectDescription(10 * 500, 500, (), interval_s=0.02, deadline_s=0.1)
FIRST_S = 100.0 + START_DELAY_S


def receive(fetch: StreamFetch, delays_s: dict[int, list[float | None]], *, otherwise_s: float | None = 0.03) -> None:
    """Play the network until the stream ends: *delays_s* of each time that a frame is asked for; None: lost."""
    arrivals: list[tuple[float, int]] = []
    asked: dict[int, int] = {}
    while not fetch.is_complete:
        wishes = [at for at in (fetch.next_s, min(arrivals)[0] if arrivals else None) if at is not None]
        now_s = min(wishes)
        while arrivals and min(arrivals)[0] <= now_s:
            arrival = min(arrivals)
            arrivals.remove(arrival)
            if fetch.is_asked(arrival[1]):
                fetch.on_frame(arrival[1], 500, 2, now_s)
        for index in fetch.due(now_s):
            fates = delays_s.get(index, [])
            fate = fates[asked.get(index, 0)] if asked.get(index, 0) < len(fates) else otherwise_s
            asked[index] = asked.get(index, 0) + 1
            if fate is not None:
                arrivals.append((max(now_s, FIRST_S + index * 0.02) + fate, index))


def test_all_frames_come_in_time() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=100.05)
    receive(fetch, {})
    assert (fetch.segments, fetch.segments_asked, fetch.misses, fetch.retransmissions) == (10, 10, 0, 0)
    assert fetch.bytes_by_hops == {2: 5_000}


def test_a_lost_frame_is_asked_for_again_while_it_is_of_use() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=100.05)
    receive(fetch, {5: [None]})
    assert (fetch.segments, fetch.misses, fetch.retransmissions) == (10, 0, 1)


def test_a_late_frame_and_one_that_never_comes_are_missed() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=100.05)
    receive(fetch, {3: [None] * 20, 5: [None, 0.08]})
    assert (fetch.segments, fetch.misses) == (8, 2)


def test_a_dead_network_ends_all_of_it_at_the_last_deadline() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=100.05)
    receive(fetch, {}, otherwise_s=None)
    assert (fetch.segments, fetch.misses) == (0, 10)


def test_who_hears_late_has_missed_nothing_that_came_before() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=FIRST_S + 0.05)
    assert fetch.due(FIRST_S + 0.05) == [3, 4, 5, 6, 7, 8, 9]
    over = StreamFetch(b"", STREAM, announced_s=100.0, now_s=200.0)
    assert over.due(200.0) == []
    assert over.is_complete


def test_a_frame_is_asked_for_ahead_and_a_refused_one_shortly_after() -> None:
    fetch = StreamFetch(b"", STREAM, announced_s=100.0, now_s=100.05)
    assert fetch.next_s == pytest.approx(FIRST_S - ASK_AHEAD_S)
    assert fetch.due(FIRST_S - ASK_AHEAD_S) == [0]
    fetch.on_refused(0, FIRST_S - 0.1)
    assert 0 not in fetch.due(FIRST_S)
    assert 0 in fetch.due(FIRST_S + 0.021)


def test_a_source_gives_a_frame_out_when_it_is_made_not_before() -> None:
    source = StreamSource(STREAM, announced_s=100.0)
    source.ask(0, FIRST_S - 0.1)
    source.ask(0, FIRST_S - 0.1)
    assert source.made(FIRST_S - 0.001) == []
    assert source.next_s == FIRST_S
    assert source.made(FIRST_S) == [0]
    source.ask(0, FIRST_S + 0.05)  # somebody has lost it
    assert source.made(FIRST_S + 0.05) == [0]


def test_a_source_keeps_nothing_for_who_asks_for_what_is_not_there() -> None:
    source = StreamSource(STREAM, announced_s=100.0)
    for index in (10, 2**62):
        source.ask(index, FIRST_S)
    source.ask(9, 90.0)  # long before
    source.ask(0, FIRST_S + 2.0)  # long past
    assert source.next_s is None
    assert source.end_s > FIRST_S + 9 * 0.02 + 0.1
