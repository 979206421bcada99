"""How far a Data of the data plane has come: counted from whoever gave it out, a store or its producer."""

from __future__ import annotations

from proxy.core.forwarder import HOP_COUNT_MAX
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.name import from_uri
from proxy.wire.packet import DATA, encode_data
from tests.unit.proxy.core.bench import Bench

ROUTES = {"/hconf-data/ue1": [(2, 1.0)], "/hconf-data/me": [(0, 0.0)], "/other": [(2, 1.0)]}
NAME = "/hconf-data/ue1/main/seq=1/v=1/seg=0"


def given_out(bench: Bench, face: int) -> list[int | None]:
    """Return the hop counts of the Data that went out on a face."""
    packets = [decode_link_packet(packet) for at, packet in bench.sent_packets if at == face]
    return [packet.hop_count for packet in packets if packet.fragment[:1] == bytes((DATA,))]


def arrives(bench: Bench, name: str, hop_count: int | None, *, face: int = 2) -> None:
    wire = encode_data(from_uri(name), b"x", freshness_ms=1_000)
    bench.packet(face, encode_link_packet(LinkPacket(wire, hop_count=hop_count)))


def test_every_router_adds_the_link_it_came_over() -> None:
    bench = Bench(ROUTES)
    bench.interest(1, NAME, 1)
    arrives(bench, NAME, 3)
    assert given_out(bench, 1) == [4]


def test_a_store_begins_anew() -> None:
    bench = Bench(ROUTES)
    bench.interest(1, NAME, 1)
    arrives(bench, NAME, 3)
    bench.interest(3, NAME, 2)
    assert given_out(bench, 3) == [0]


def test_a_producer_is_where_it_begins_and_the_node_itself_hears_it_too() -> None:
    bench = Bench(ROUTES)
    mine = NAME.replace("ue1", "me")
    bench.interest(1, mine, 1)
    bench.packet(0, encode_data(from_uri(mine), b"x"))
    assert given_out(bench, 1) == [0]
    bench.interest(0, NAME, 2)
    arrives(bench, NAME, 0)
    assert given_out(bench, 0) == [1]


def test_what_does_not_say_is_not_known_and_the_control_plane_says_nothing() -> None:
    bench = Bench(ROUTES)
    bench.interest(1, NAME, 1)
    arrives(bench, NAME, None)
    bench.interest(1, "/other/a", 2)
    arrives(bench, "/other/a", 5)
    assert given_out(bench, 1) == [None, None]


def test_nobody_can_make_it_too_large() -> None:
    bench = Bench(ROUTES)
    bench.interest(1, NAME, 1)
    arrives(bench, NAME, 2**64 - 1)
    assert given_out(bench, 1) == [HOP_COUNT_MAX]
    assert not bench.counters.get("malformed")
