"""What a direction asks of the kernel, and what it makes of the kernel's counters."""

import struct
from collections.abc import Mapping

import pytest

from testbed.links.model import Direction, Impairment
from testbed.links.netem.flows import Way
from testbed.links.netem.match import Match
from testbed.links.netem.qdisc import QdiscState, band_of, delay_handle, rate_handle
from tests.emulation.wire_pair import plan_between
from topologies.errors import InputError

CREATED = 0x600


def way(impairment: Impairment, direction: Direction = "a_to_b") -> Way:
    return Way.of(plan_between(impairment=impairment), direction, a=3, b=4, seed=7)


def asked(requests: list[tuple[str, tuple[int, int, bytes]]]) -> list[tuple[int, int, int]]:
    """Return of each request about a qdisc: its flags, interface and handle."""
    return [
        (flags, *struct.unpack_from("=iI", payload, 4))
        for _, (kind, flags, payload) in requests
        if kind == 36  # RTM_NEWQDISC
    ]


def counted(handle: int, *, packets: int, dropped: int = 0, waiting: int = 0) -> Mapping[tuple[int, int], QdiscState]:
    return {(4, handle): QdiscState(4, handle, 0, "netem", b"", packets, packets * 100, dropped, waiting)}


def test_qdiscs_stand_where_frames_leave() -> None:
    assert (way(Impairment()).in_index, way(Impairment()).out_index) == (3, 4)
    back = way(Impairment(), "b_to_a")
    assert (back.in_index, back.out_index, back.sender, back.receiver) == (4, 3, "b", "a")
    made = asked(way(Impairment(delay_ms=1)).make())
    assert made == [(CREATED, 4, 0x6363_0000), (CREATED, 4, delay_handle(0)), (CREATED, 3, 0xFFFF_0000)]


def test_directions_draw_for_themselves() -> None:
    assert way(Impairment()).seed != way(Impairment(), "b_to_a").seed
    assert way(Impairment()).seed == way(Impairment()).seed


def test_a_line_that_was_there_once_stays_and_is_opened() -> None:
    one = way(Impairment(rate_mbps=1))
    assert asked(one.make())[2] == (CREATED, 4, rate_handle(0))
    one.flows[0].impairment = Impairment()
    assert asked(one.update()) == [(0, 4, delay_handle(0)), (0, 4, rate_handle(0))]
    _, rate = one.wanted(one.flows[0])
    assert rate is not None
    assert rate.rate_bytes_per_s == 0  # what waits in it is not dropped, and nothing waits any more


def test_a_line_that_comes_later_is_made_then() -> None:
    one = way(Impairment())
    assert len(asked(one.make())) == 3
    one.flows[0].impairment = Impairment(rate_mbps=1)
    assert asked(one.update()) == [(0, 4, delay_handle(0)), (CREATED, 4, rate_handle(0))]


def test_a_black_hole_closes_every_flow() -> None:
    one = way(Impairment(delay_ms=5))
    one.set_targets({Match("icmp"): Impairment()})
    one.is_blocked = True
    assert [one.wanted(flow)[0].limit_packets for flow in one.flows] == [0, 0]
    assert one.wanted(one.flows[0])[0].latency_ns == 5_000_000


def test_targets_have_bands_of_their_own() -> None:
    one = way(Impairment())
    one.make()
    assert asked(one.set_targets({Match("icmp"): Impairment(), Match("tcp"): Impairment()})) == [
        (0, 4, delay_handle(0)),
        (CREATED, 4, delay_handle(1)),
        (CREATED, 4, delay_handle(2)),
    ]
    assert [flow.match for flow in one.flows] == [None, Match("icmp"), Match("tcp")]
    assert band_of(one.flows[2].number) == 0x6363_0003


def filters(requests: list[tuple[str, tuple[int, int, bytes]]]) -> list[int]:
    """Return of each request about a filter whether it makes (44) or removes it (45)."""
    return [kind for _, (kind, _, _) in requests if kind in (44, 45)]


def test_a_target_that_is_gone_leaves_its_band_to_what_is_on_its_way() -> None:
    one = way(Impairment())
    one.make()
    udp, icmp = Match("udp"), Match("icmp")
    assert filters(one.set_targets({udp: Impairment(delay_ms=9), icmp: Impairment()})) == [44, 44]
    assert filters(one.set_targets({icmp: Impairment(delay_ms=1)})) == [45]
    assert one.targets == {icmp: Impairment(delay_ms=1)}
    assert [one.wanted(flow)[0].latency_ns for flow in one.flows] == [0, 9_000_000, 1_000_000]
    assert filters(one.set_targets({icmp: Impairment(delay_ms=1)})) == []
    ports = [Match("udp", dst_port=port) for port in range(1, 8)]
    assert filters(one.set_targets(dict.fromkeys(ports, Impairment()))) == [45, *[44] * 7]
    assert sorted(flow.number for flow in one.flows) == list(
        range(8)
    )  # the bands of those that are gone are used again
    with pytest.raises(InputError, match="8 kinds of frames"):
        one.set_targets(dict.fromkeys([*ports, icmp], Impairment()))
    assert list(one.targets) == [flow.match for flow in one.flows[1:]]
    assert set(one.targets) == set(ports)


def test_after_a_refusal_what_the_kernel_has_counts() -> None:
    one = way(Impairment())
    one.make()
    one.set_targets({Match("udp"): Impairment(), Match("icmp"): Impairment()})
    there = {**counted(delay_handle(0), packets=0), **counted(delay_handle(1), packets=0)}
    one.take_stock(there, {band_of(1): Match("udp")})
    assert list(one.targets) == [Match("udp")]
    assert [flow.has_filter for flow in one.flows] == [False, True, False]
    again = one.set_targets({Match("icmp"): Impairment()})
    assert filters(again) == [45, 44]
    assert (CREATED, 4, delay_handle(2)) in asked(again)  # it was never made


def test_drops_go_to_what_was_in_force_when_they_came() -> None:
    one, handle = way(Impairment(loss_ratio=0.5)), delay_handle(0)
    one.settle(counted(handle, packets=60, dropped=40))
    one.is_blocked = True
    one.settle(counted(handle, packets=60, dropped=47))
    one.is_blocked = False
    one.flows[0].impairment = Impairment()
    now = counted(handle, packets=90, dropped=47, waiting=3)
    one.settle(now)
    assert one.dropped(now) == {
        "loss": 40,
        "queue": 0,
        "carrier": 0,
        "overrun": 0,
        "corrupt": 0,
        "blocked": 7,
        "fault": 0,
    }
    (flow,) = one.flows
    assert (flow.drawn, flow.expected_lost, flow.expected_variance) == (133, 50.0, 25.0)


def test_what_the_line_drops_is_not_lost_as_well() -> None:
    """The kernel counts it at every qdisc above, too."""
    one = way(Impairment(loss_ratio=0.1, rate_mbps=1))
    now = {**counted(delay_handle(0), packets=80, dropped=20), **counted(rate_handle(0), packets=80, dropped=12)}
    one.settle(now)
    assert one.dropped(now)["queue"] == 12
    assert one.dropped(now)["loss"] == 8


def test_what_was_on_its_way_when_the_carrier_went() -> None:
    one = way(Impairment(delay_ms=1_000))
    before = counted(delay_handle(0), packets=10, waiting=5)
    one.settle(before)
    one.lose_carrier(before)
    now = counted(delay_handle(0), packets=10)
    one.settle(now)
    assert one.dropped(now)["carrier"] == 5
    assert one.flows[0].drawn == 15


def test_what_somebody_else_has_changed_is_noticed() -> None:
    one = way(Impairment(delay_ms=5))
    assert list(one.differences({}, {})) == ["link a-b, a to b: the qdisc 6370: is gone"]
    wanted, _ = one.wanted(one.flows[0])
    as_asked = QdiscState(4, delay_handle(0), 0, "netem", wanted.encode(), 0, 0, 0, 0)
    assert list(one.differences({(4, delay_handle(0)): as_asked}, {})) == []
    other = QdiscState(4, delay_handle(0), 0, "netem", wanted.closed().encode(), 0, 0, 0, 0)
    (difference,) = one.differences({(4, delay_handle(0)): other}, {})
    assert difference.startswith("link a-b, a to b: asked for latency_ns 5000000, ")
    assert "read back limit_packets 0, latency_ns 5000000" in difference


def test_a_filter_that_is_gone_or_picks_something_else_is_noticed() -> None:
    one = way(Impairment())
    one.make()
    one.set_targets({Match("udp", dst_port=6363): Impairment()})
    there = {
        (4, handle): QdiscState(4, handle, 0, "netem", one.wanted(flow)[0].encode(), 0, 0, 0, 0)
        for flow in one.flows
        for handle in (delay_handle(flow.number),)
    }
    assert list(one.differences(there, {band_of(1): Match("udp", dst_port=6363)})) == []
    for wrong in ({}, {band_of(1): Match("udp")}, {band_of(2): Match("udp", dst_port=6363)}):
        assert list(one.differences(there, wrong)) == ["link a-b, a to b: its filters are not those of its targets"]
