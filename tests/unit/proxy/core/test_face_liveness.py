"""Faces: heartbeats, detection time, one-way links, carrier; as RFC 5880, with every packet counting as a sign of life."""

from __future__ import annotations

import itertools

import pytest

from proxy.core.liveness import State, detection_time_s
from proxy.wire.lp import LinkPacket, encode_link_packet
from tests.unit.proxy.core.bench import Bench, idle, interest_wire

ROUTES = {"/p": [(1, 1.0), (2, 2.0)]}
#: By default 0.095 s x 3.
DETECTION_S = 0.285


def states(bench: Bench) -> list[tuple[str, str, str]]:
    return [(record.link, record.state, record.reason) for record in bench.logged]


@pytest.mark.parametrize(
    ("interval_s", "mult", "detection_s"), [(0.1, 3, 0.3), (0.05, 4, 0.2), (1.0, 1, 1.0)]
)  # RFC 5880 section 6.8.4
def test_detection_time(interval_s: float, mult: int, detection_s: float) -> None:
    assert detection_time_s(desired_min_tx_s=interval_s, detect_mult=mult) == pytest.approx(detection_s)


def test_handshake() -> None:
    """Down and Down make Init, Init and Init make Up; every step is answered at once."""
    bench = Bench(ROUTES, up=[])
    assert bench.packet(1, idle(State.DOWN)) == [(1, "idle-INIT", "")]
    assert states(bench) == []
    assert bench.packet(1, idle(State.INIT)) == [(1, "idle-UP", "")]
    assert states(bench) == [("link1", "up", "heard")]
    assert bench.packet(1, idle(State.UP)) == []


def test_peer_that_missed_our_up_is_told_again() -> None:
    bench = Bench(ROUTES)
    assert bench.packet(1, idle(State.INIT)) == [(1, "idle-UP", "")]


def test_two_forwarders_come_up_within_a_round_trip_of_the_first_heartbeat() -> None:
    a, b = Bench(ROUTES, faces=1, up=[]), Bench(ROUTES, faces=1, up=[])
    towards_b = [packet for _, packet in a.sent_packets]
    for _ in range(4):
        b.sent_packets.clear()
        for packet in towards_b:
            b.packet(1, packet)
        a.sent_packets.clear()
        for _, packet in b.sent_packets:
            a.packet(1, packet)
        towards_b = [packet for _, packet in a.sent_packets]
    assert a.forwarder.faces[1].is_up
    assert b.forwarder.faces[1].is_up


def test_nothing_is_forwarded_to_a_face_that_is_not_up() -> None:
    bench = Bench(ROUTES, up=[4])
    assert bench.interest(4, "/p/1", 1) == [(4, "nack-NO_ROUTE", "/p/1")]
    bench.packet(1, idle(State.DOWN))  # Init is not up
    assert bench.interest(4, "/p/2", 2) == [(4, "nack-NO_ROUTE", "/p/2")]


def test_silent_peer_is_down_after_the_detection_time() -> None:
    bench = Bench(ROUTES)
    bench.live(DETECTION_S - 0.001, hearing=[2, 3, 4])
    assert states(bench) == []
    bench.live(0.002, hearing=[2, 3, 4])
    assert states(bench) == [("link1", "down", "detection-time")]
    assert bench.logged[0].t_s == pytest.approx(100.0 + DETECTION_S)


def test_detection_moves_pending_interests() -> None:
    bench = Bench(ROUTES)
    bench.interest(4, "/p/1", 1)
    assert bench.live(DETECTION_S + 0.01, hearing=[2, 3, 4]) == [(2, "detour", "/p/1")]


def test_any_packet_is_a_sign_of_life() -> None:
    bench = Bench(ROUTES)
    for number in range(8):
        bench.live(0.2, hearing=[2, 3, 4])
        bench.interest(1, "/p/1", number)
    assert states(bench) == []


def test_peer_that_does_not_hear_us_takes_the_face_down() -> None:
    """A link that works one way: we hear the peer well, it says that it does not hear us."""
    bench = Bench(ROUTES)
    bench.packet(1, idle(State.DOWN))
    assert states(bench) == [("link1", "down", "peer-down")]
    for _ in range(20):
        bench.live(0.05, hearing=[2, 3, 4])
        bench.packet(1, idle(State.DOWN))
    assert states(bench) == [("link1", "down", "peer-down")]
    assert bench.forwarder.faces[1].session.state is State.INIT


def test_packets_without_a_state_do_not_bring_a_face_up() -> None:
    bench = Bench(ROUTES, up=[4])
    for number in range(5):
        bench.interest(1, "/p/1", number)
    assert not bench.forwarder.faces[1].is_up


def test_administrative_down_of_the_peer() -> None:
    bench = Bench(ROUTES)
    bench.packet(1, idle(State.ADMIN_DOWN))
    assert states(bench) == [("link1", "down", "peer-down")]


def test_carrier_loss_is_acted_on_at_once_and_its_return_is_greeted() -> None:
    bench = Bench(ROUTES)
    assert bench.carrier(1, up=False) == []
    assert states(bench) == [("link1", "down", "carrier")]
    bench.carrier(1, up=True)
    assert states(bench) == [("link1", "down", "carrier")]  # a carrier is not a peer
    assert bench.forwarder.deadline_s == bench.now_s
    assert (1, "idle-DOWN", "") in bench.timer()
    bench.bring_up(1)
    assert states(bench)[1:] == [("link1", "up", "heard")]


def test_no_heartbeats_without_a_carrier() -> None:
    bench = Bench(ROUTES)
    bench.carrier(1, up=False)
    bench.sent_packets.clear()
    bench.live(1.0, hearing=[2, 3, 4])
    assert not [face for face, _ in bench.sent_packets if face == 1]


def test_repeated_carrier_news_are_no_news() -> None:
    bench = Bench(ROUTES)
    bench.carrier(1, up=True)
    assert states(bench) == []
    bench.carrier(1, up=False)
    bench.carrier(1, up=False)
    assert len(states(bench)) == 1


def test_heartbeats_keep_coming_where_nothing_else_is_sent() -> None:
    bench = Bench(ROUTES)
    sent_s = []
    for _ in range(1_000):
        bench.sent_packets.clear()
        bench.live(0.005)
        sent_s += [bench.now_s for face, packet in bench.sent_heartbeats() if face == 1 and not packet.is_poll]
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(sent_s)]
    assert max(gaps_s) <= 0.1 + 0.006  # never longer than the interval; RFC 5880 section 6.8.7: 0 to 25 % shorter
    assert min(gaps_s) >= 0.075 - 0.006
    assert len(set(gaps_s)) > 1  # jittered


def test_starved_node_beats_more_slowly_and_says_so_before() -> None:
    bench = Bench(ROUTES)
    said_s: list[tuple[float, int | None]] = []
    for _ in range(60):
        bench.sent_packets.clear()
        bench.now_s = max(bench.now_s, bench.forwarder.deadline_s) + 0.030  # so late is every timer
        bench.timer()
        for face in (1, 2, 3, 4):
            bench.packet(face, idle(State.UP))
        said_s += [(bench.now_s, packet.min_tx_ms) for face, packet in bench.sent_heartbeats() if face == 1]
    assert said_s[-1][1] == 380
    interval_s = [0.095 if told_ms is None else told_ms / 1e3 for _, told_ms in said_s]
    for (before_s, _), (after_s, _), told_s in zip(said_s, said_s[1:], interval_s, strict=False):
        assert after_s - before_s < 3 * told_s  # what the peer was told is how long it waits


def test_peer_that_beats_slowly_is_given_time() -> None:
    bench = Bench(ROUTES)
    bench.packet(1, encode_link_packet(LinkPacket(b"", session_state=State.UP, min_tx_ms=200)))
    bench.live(0.55, hearing=(2, 3, 4))
    assert states(bench) == []
    bench.live(0.1, hearing=(2, 3, 4))
    assert states(bench) == [("link1", "down", "detection-time")]


def test_other_packets_spare_heartbeats() -> None:
    bench = Bench(ROUTES)
    bench.sent_packets.clear()
    for number in range(100):
        bench.live(0.02)
        bench.packet(4, interest_wire(f"/p/{number}", number))
    heartbeats = [face for face, _ in bench.sent_heartbeats()]
    assert heartbeats.count(1) == 0
    assert heartbeats.count(3) > 15


def test_local_face_follows_its_application() -> None:
    bench = Bench({"/p": [(0, 0.0), (1, 5.0)]}, local_attached=False)
    assert bench.interest(4, "/p/1", 1)[0][0] == 1
    bench.carrier(0, up=True)
    assert bench.interest(4, "/p/2", 2)[0][0] == 0
    assert bench.carrier(0, up=False)[0][0] == 1  # what it was asked goes elsewhere
    assert states(bench) == []
