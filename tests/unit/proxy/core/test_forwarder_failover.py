"""Ways that fail and come back: where a forwarder sends what was pending, and what comes after (``proxy.core.strategy``)."""

from __future__ import annotations

import itertools

from proxy.core.events import CarrierChanged, Effect, Event, PacketReceived, TimerExpired
from proxy.core.hold_down import LASTING_S
from proxy.core.liveness import State
from proxy.wire.lp import NackReason
from tests.unit.proxy.core.bench import Bench, idle, interest_wire

#: Faces 1, 2, 3 lead to the producer, best first; who asks sits on face 4 or 0.
PRODUCER = {"/p": [(1, 10.0), (2, 20.0), (3, 30.0)]}

#: As configured by default.
HOLD_DOWN_S, HOLD_DOWN_MAX_S = 1.0, 30.0


def test_dead_face_moves_what_was_asked_over_it() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.interest(4, "/p/2", 2)
    assert bench.carrier(1, up=False) == [(2, "detour", "/p/1"), (2, "detour", "/p/2")]
    assert bench.counters["failovers"] == 2
    assert bench.data(2, "/p/1") == [(4, "data", "/p/1")]


def flap(bench: Bench, face: int, *, down_s: float) -> None:
    """Take the carrier away for a while."""
    others = [each for each in (1, 2, 3, 4) if each != face]
    bench.carrier(face, up=False)
    bench.live(down_s, hearing=others)
    bench.carrier(face, up=True)
    bench.packet(face, idle(State.DOWN))
    bench.packet(face, idle(State.INIT))


def way_of(bench: Bench, nonce: int) -> int:
    """Return the face that a new Interest takes."""
    ((face, _, _),) = bench.interest(4, f"/p/{nonce}", nonce)
    bench.data(face, f"/p/{nonce}")
    return face


def test_new_interests_return_at_once_to_a_face_that_has_failed_once_and_after_a_while_to_one_that_flaps() -> None:
    bench = Bench(PRODUCER)
    bench.carrier(1, up=False)
    assert way_of(bench, 0) == 2
    flap(bench, 1, down_s=0.5)
    assert way_of(bench, 10) == 1
    flap(bench, 1, down_s=0.5)
    assert way_of(bench, 1) == 2
    bench.live(HOLD_DOWN_S - 0.01)
    assert way_of(bench, 2) == 2
    bench.live(0.02)
    assert way_of(bench, 3) == 1


def test_face_that_has_just_come_back_is_better_than_none() -> None:
    bench = Bench(PRODUCER, up=[1, 4])
    flap(bench, 1, down_s=0.5)
    flap(bench, 1, down_s=0.5)
    assert bench.interest(4, "/p/1", 1) == [(1, "interest", "/p/1")]
    bench = Bench(PRODUCER, up=[1, 2, 4])
    flap(bench, 1, down_s=0.5)
    flap(bench, 1, down_s=0.5)
    assert bench.interest(4, "/p/2", 2) == [(2, "detour", "/p/2")]
    assert bench.nack(2, NackReason.NO_ROUTE) == [(1, "interest", "/p/2")]
    # Face 2 has a better way of its own, as long as ours is not to be trusted; if it asks again, it has none.
    assert bench.interest(2, "/p/3", 3) == [(2, "nack-NO_ROUTE", "/p/3")]
    assert bench.interest(2, "/p/3", 4) == [(1, "interest", "/p/3")]


def test_what_is_kept_pending_returns_after_the_hold_down() -> None:
    bench = Bench(PRODUCER)
    flap(bench, 1, down_s=0.1)
    bench.interest(4, "/p/1", 1, lifetime_ms=500)
    flap(bench, 1, down_s=0.1)
    ways = []
    for nonce in range(2, 8):
        bench.live(0.31)  # late enough to be renewed upstream
        ways += bench.interest(4, "/p/1", nonce, lifetime_ms=500)
    assert ways == 3 * [(2, "interest", "/p/1")] + 3 * [(1, "interest", "/p/1")]


def test_flapping_face_is_left_alone_for_longer_each_time() -> None:
    """Up for 2 s and down for 0.2 s, for two minutes: traffic moves less than a tenth as often as the face."""
    bench = Bench(PRODUCER)
    nonce, ways = 0, []
    for _ in range(60):
        flap(bench, 1, down_s=0.2)
        for _ in range(10):
            bench.live(0.2)
            nonce += 1
            ways.append(way_of(bench, nonce))
    moves = sum(before != after for before, after in itertools.pairwise(ways))
    assert moves <= 6
    assert set(ways[-200:]) == {2}
    bench.live(HOLD_DOWN_MAX_S + 0.1)
    assert way_of(bench, 9_999) == 1
    bench.live(LASTING_S)  # it has lasted: what was is forgotten
    flap(bench, 1, down_s=0.2)
    assert way_of(bench, 10_000) == 1


def test_effects_performed_as_they_come_are_those_returned() -> None:
    returning, performing = Bench(PRODUCER), Bench(PRODUCER)
    performed: list[Effect] = []
    performing.forwarder.perform_at_once(performed.append)
    events: list[Event] = [
        *(PacketReceived(4, interest_wire(f"/p/{nonce}", nonce)) for nonce in range(3)),
        CarrierChanged(1, up=False),
        TimerExpired(),
    ]
    for event in events:
        returned = returning.forwarder.handle(event, now_s=101.0)
        assert performing.forwarder.handle(event, now_s=101.0) == []
        assert performed == returned
        assert performed
        performed.clear()


def test_multicast_does_not_wait() -> None:
    bench = Bench({"/all": [(1, 1.0), (2, 2.0)]})
    flap(bench, 1, down_s=0.5)
    assert bench.interest(4, "/all/1", 1) == [(1, "interest", "/all/1"), (2, "interest", "/all/1")]


def test_failover_without_another_way_tells_who_asked() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    bench.interest(4, "/p/1", 1)
    assert bench.carrier(1, up=False) == [(4, "nack-NO_ROUTE", "/p/1")]


def test_who_asked_over_a_face_that_dies_is_forgotten() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.carrier(4, up=False)
    assert bench.data(1, "/p/1") == []
    assert bench.counters.get("data_to_dead_face", 0) == 0


def test_nobody_is_asked_on_behalf_of_a_face_that_has_died() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.carrier(4, up=False)
    assert bench.carrier(1, up=False) == []


def test_failover_uses_a_nonce_that_nobody_has_seen() -> None:
    bench = Bench(PRODUCER)
    bench.packet(4, interest_wire("/p/1", 1))
    bench.carrier(1, up=False)
    assert interest_wire("/p/1", 1) != bench.last_interest(2)


def test_upstream_that_asks_us_back_is_not_waited_for() -> None:
    """We wait for face 1; face 1 has lost its way and asks us: waiting for each other, nobody would ever be answered."""
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.interest(1, "/p/1", 2) == [(2, "detour", "/p/1")]
    assert bench.counters["crossed"] == 1
    assert sorted(bench.data(2, "/p/1")) == [(1, "data", "/p/1"), (4, "data", "/p/1")]


def test_upstream_that_asks_us_back_where_there_is_no_other_way_is_told_so() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    bench.interest(4, "/p/1", 1)
    assert sorted(bench.interest(1, "/p/1", 2)) == [(1, "nack-NO_ROUTE", "/p/1"), (4, "nack-NO_ROUTE", "/p/1")]


def test_detour_follows_what_is_pending_instead_of_being_aggregated() -> None:
    """Round a circle of routers that wait for each other its nonce comes back and gives the circle away."""
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.interest(3, "/p/1", 2, detour=True) == [(1, "detour", "/p/1")]
    assert bench.interest(1, "/p/1", 2, detour=True) == [(1, "nack-DUPLICATE", "/p/1")]


def test_asker_with_a_better_way_of_its_own_is_turned_back_once() -> None:
    """Best face dead, second best leads back to the asker: it has the shorter way. Asking again says that it has not."""
    bench = Bench({"/p": [(1, 10.0), (4, 15.0), (2, 40.0)]}, up=[2, 3, 4])
    assert bench.interest(4, "/p/1", 1) == [(4, "nack-NO_ROUTE", "/p/1")]
    assert bench.interest(4, "/p/1", 2) == [(2, "detour", "/p/1")]
    assert bench.interest(3, "/p/2", 3) == [(4, "detour", "/p/2")]  # another asker goes that way


def test_asker_is_not_turned_back_while_the_best_way_works() -> None:
    bench = Bench({"/p": [(4, 10.0), (2, 40.0)]})
    assert bench.interest(4, "/p/1", 1)[0][0] == 2


def test_what_was_asked_over_a_face_that_falls_silent_is_asked_elsewhere_as_well_before_it_is_given_up() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    sent = bench.live(0.2, hearing=(2, 3, 4))
    assert [one for one in sent if one[1] == "detour"] == [(2, "detour", "/p/1")]
    assert bench.forwarder.faces[1].is_up, "it is not given up yet"
    assert way_of(bench, 2) == 2, "others are better meanwhile"
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")], "whoever answers first will do"
    assert way_of(bench, 3) == 1, "it was heard again, and has not flapped"


def test_a_silent_face_is_better_than_none() -> None:
    bench = Bench(PRODUCER, up=[1, 4])
    bench.interest(4, "/p/1", 1)
    sent = bench.live(0.2, hearing=(4,))
    assert [one for one in sent if one[2]] == [], "there is nobody else to ask, and nobody is refused"
    assert bench.interest(4, "/p/2", 2) == [(1, "interest", "/p/2")]
