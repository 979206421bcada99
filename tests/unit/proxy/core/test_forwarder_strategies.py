"""The strategy multicast: to all, once."""

from __future__ import annotations

import itertools

import pytest

from proxy.wire.lp import NackReason
from tests.unit.proxy.core.bench import Bench

#: Faces 1, 2, 3 lead to the producer, best first; who asks sits on face 4 or 0.
PRODUCER = {"/p": [(1, 10.0), (2, 20.0), (3, 30.0)]}


def test_multicast_fans_out_to_all_but_where_it_came_from() -> None:
    bench = Bench({"/all": [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]})
    assert bench.interest(2, "/all/1", 1) == [
        (0, "interest", "/all/1"),
        (1, "interest", "/all/1"),
        (3, "interest", "/all/1"),
    ]


def test_multicast_copies_that_meet_are_dropped_without_a_nack() -> None:
    bench = Bench({"/all": [(0, 0.0), (1, 1.0), (2, 2.0)]})
    bench.interest(1, "/all/1", 7)
    assert bench.interest(2, "/all/1", 7) == []
    assert bench.interest(0, "/all/1", 7) == []  # its own application does not echo, but if it did


def test_multicast_skips_dead_faces() -> None:
    bench = Bench({"/all": [(0, 0.0), (1, 1.0), (2, 2.0)]}, up=[1], local_attached=False)
    assert bench.interest(4, "/all/1", 1) == [(1, "interest", "/all/1")]


def test_multicast_is_neither_failed_over_nor_refused() -> None:
    bench = Bench({"/all": [(1, 1.0), (2, 2.0)]})
    bench.interest(4, "/all/1", 1)
    assert bench.carrier(1, up=False) == []
    assert bench.nack(2, NackReason.NO_ROUTE) == []


def test_multicast_under_one_name_goes_on_at_intervals_that_double_up_to_a_quarter_of_a_second() -> None:
    """NFD's exponential suppression: what many ask, the network is asked once, and not much more often if they insist."""
    bench = Bench({"/all": [(1, 1.0), (2, 2.0)]})
    sent_at_s, nonce = [], 100
    begun_s = bench.now_s
    while bench.now_s < begun_s + 1.2:
        nonce += 1
        if bench.interest(3 + nonce % 2, "/all/1", nonce, lifetime_ms=4_000):
            sent_at_s.append(bench.now_s - begun_s)
        bench.now_s += 0.001
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(sent_at_s)]
    assert gaps_s[:5] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16], abs=0.0015)
    assert gaps_s[5:] == pytest.approx([0.25] * len(gaps_s[5:]), abs=0.0015)
    assert bench.counters["suppressed"] > 1_000


def test_multicast_asks_again_at_once_what_has_expired_upstream_or_came_over_a_face_that_is_new() -> None:
    bench = Bench({"/all": [(1, 1.0), (2, 2.0)]}, up=[1, 3, 4])
    bench.interest(3, "/all/1", 1, lifetime_ms=5)
    bench.now_s += 0.006
    assert [face for face, *_ in bench.interest(4, "/all/1", 2)] == [1]
    bench.bring_up(2)
    assert [face for face, *_ in bench.interest(3, "/all/1", 3)] == [2]
