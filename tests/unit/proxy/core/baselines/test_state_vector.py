"""State Vector Sync, version 3, section 4 of its specification, rule by rule."""

import math

import pytest

from proxy.config import SvsConfig
from proxy.core.baselines.state_vector import StateVectorSync
from proxy.core.seeded import SplitMix64
from proxy.wire.svs import StateVector

A, B, C = b"\x08\x01a", b"\x08\x01b", b"\x08\x01c"


def node(vector: StateVector | None = None, *, seed: int = 1) -> StateVectorSync:
    sync = StateVectorSync(SvsConfig(), SplitMix64(seed))
    sync.vector = vector or {A: {1: 10}, B: {1: 15}, C: {1: 25}}
    sync.enter_steady_state(0.0)
    return sync


def due_s(sync: StateVectorSync) -> float:
    assert sync.next_s is not None
    return sync.next_s


def test_periodic_timeout_is_thirty_seconds_more_or_less() -> None:
    waits_s = [due_s(node(seed=seed)) for seed in range(500)]
    assert 27.0 <= min(waits_s) < 27.2
    assert 32.8 < max(waits_s) <= 33.0


def test_timer_in_steady_state_sends_and_starts_again() -> None:
    sync = node()
    at_s = due_s(sync)
    assert not sync.on_timer(at_s - 0.001)
    assert sync.on_timer(at_s)
    assert at_s + 27.0 <= due_s(sync) <= at_s + 33.0


def test_newer_vector_is_taken_over_and_resets_the_timer() -> None:
    sync = node()
    assert sync.on_vector({A: {1: 11}, B: {1: 15}, C: {1: 25}}, 5.0) == [(A, 1, 11)]
    assert sync.vector == {A: {1: 11}, B: {1: 15}, C: {1: 25}}
    assert sync.merged is None
    assert 32.0 <= due_s(sync) <= 38.0


def test_equal_vector_resets_the_timer() -> None:
    sync = node()
    assert sync.on_vector({A: {1: 10}, B: {1: 15}, C: {1: 25}}, 20.0) == []
    assert due_s(sync) >= 47.0


def test_outdated_vector_leads_to_suppression_and_then_to_an_interest() -> None:
    """Section 5.2: C has missed what A published, and says so."""
    sync = node({A: {1: 11}, B: {1: 15}, C: {1: 25}})
    assert sync.on_vector({A: {1: 10}, B: {1: 15}, C: {1: 25}}, 10.0) == []
    assert sync.merged is not None
    at_s = due_s(sync)
    assert 10.0 <= at_s <= 10.2
    assert sync.on_timer(at_s)
    assert due_s(sync) >= at_s + 27.0
    sync.on_vector(dict(sync.vector), at_s + 1.0)
    assert due_s(sync) >= at_s + 28.0, "it is in steady state again"


def test_who_hears_another_answer_first_is_silent() -> None:
    """Section 5.2: B hears A's answer while it waits."""
    sync = node({A: {1: 11}, B: {1: 15}, C: {1: 25}})
    sync.on_vector({A: {1: 10}, B: {1: 15}, C: {1: 25}}, 10.0)
    sync.on_vector({A: {1: 11}, B: {1: 15}, C: {1: 25}}, 10.01)
    assert sync.merged is None
    assert due_s(sync) >= 37.0


def test_what_several_say_in_suppression_counts_together() -> None:
    sync = node({A: {1: 11}, B: {1: 16}})
    sync.on_vector({A: {1: 10}, B: {1: 16}}, 10.0)
    sync.on_vector({A: {1: 11}, B: {1: 15}}, 10.001)
    assert sync.merged == {A: {1: 11}, B: {1: 16}}
    assert not sync.on_timer(due_s(sync)), "the two know from each other what they lack"


def test_news_in_suppression_are_taken_over() -> None:
    sync = node({A: {1: 11}, B: {1: 15}})
    sync.on_vector({A: {1: 10}, B: {1: 15}}, 10.0)
    assert sync.on_vector({A: {1: 9}, B: {1: 17}}, 10.001) == [(B, 1, 17)]
    assert sync.vector[B] == {1: 17}
    assert sync.on_timer(due_s(sync))


def test_outdated_in_what_was_updated_just_now_is_dropped() -> None:
    sync = node()
    sync.on_vector({A: {1: 11}, B: {1: 15}, C: {1: 25}}, 10.0)
    before_s = due_s(sync)
    sync.on_vector({A: {1: 10}, B: {1: 15}, C: {1: 25}}, 10.15)
    assert sync.merged is None
    assert due_s(sync) == before_s
    sync.on_vector({A: {1: 10}, B: {1: 15}, C: {1: 25}}, 10.21)
    assert sync.merged is not None


def test_outdated_in_one_more_that_was_not_is_not_dropped() -> None:
    sync = node()
    sync.on_vector({A: {1: 11}, B: {1: 15}, C: {1: 25}}, 10.0)
    sync.on_vector({A: {1: 10}, B: {1: 14}, C: {1: 25}}, 10.1)
    assert sync.merged is not None


@pytest.mark.parametrize("received", [{A: {1: 10}, B: {1: 15}}, {A: {1: 10}, B: {1: 15}, C: {}}, {}])
def test_a_missing_node_is_outdated(received: StateVector) -> None:
    sync = node()
    sync.on_vector(received, 10.0)
    assert sync.merged is not None


def test_bootstrap_times_are_told_apart() -> None:
    """Section 5.3: A has lost its state and begins again."""
    sync = node({A: {1: 10}, B: {1: 16}})
    assert sync.on_vector({A: {2: 1}}, 10.0) == [(A, 2, 1)]
    assert sync.vector == {A: {1: 10, 2: 1}, B: {1: 16}}
    assert sync.merged is not None, "it does not know that there is B, nor what it said itself"


def test_suppression_timeout_is_the_decay_function_of_the_specification() -> None:
    c, f, seeds = 0.2, 10.0, range(2_000)
    waits_s = []
    for seed in seeds:
        sync = node(seed=seed)
        sync.on_vector({}, 0.0)
        waits_s.append(due_s(sync))
        chance = SplitMix64(seed)
        chance.uniform()  # the periodic timeout's
        v = c * chance.uniform()
        assert waits_s[-1] == pytest.approx(c * (1 - math.exp((v - c) / (c / f))))
    assert 0.0 <= min(waits_s) < 0.02
    assert max(waits_s) < c
    assert sum(wait_s > 0.9 * c for wait_s in waits_s) / len(seeds) > 0.7, "few are quick, the rest wait"
