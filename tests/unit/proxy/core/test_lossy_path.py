"""An Interest that has crossed a lossy link says so to the service proxy at its end, and to nobody else."""

from __future__ import annotations

from proxy.core.table.fib import NextHop
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from tests.unit.proxy.core.bench import Bench, interest_wire

ROUTES = {"/all": [(0, 0.0), (1, 1.0), (2, 1.0)], "/one": [(2, 1.0)]}


def marks(bench: Bench) -> dict[int, bool]:
    """Return whether what was sent last on each face was marked."""
    packets = {face: decode_link_packet(packet) for face, packet in bench.sent_packets}
    return {face: packet.is_lossy_path for face, packet in packets.items() if packet.fragment}


def test_without_loss_nothing_is_marked() -> None:
    bench = Bench(ROUTES)
    bench.interest(1, "/all/a", 1)
    assert marks(bench) == {0: False, 2: False}


def test_the_router_behind_a_lossy_link_marks() -> None:
    bench = Bench(ROUTES)
    bench.forwarder.faces[1].reliability.is_lossy = True
    bench.interest(1, "/all/a", 1)
    assert marks(bench) == {0: True, 2: True}
    bench.interest(2, "/all/b", 2)
    assert marks(bench) == {0: False, 1: False, 2: True}  # of face 2, still the first


def test_the_mark_stays_also_when_another_way_is_tried() -> None:
    bench = Bench({"/one": [(2, 1.0), (3, 2.0)]})
    bench.packet(1, encode_link_packet(LinkPacket(interest_wire("/one/a", 1), is_lossy_path=True)))
    assert marks(bench) == {2: True}
    bench.carrier(2, up=False)
    assert marks(bench) == {2: True, 3: True}


def test_applications_of_others_get_interests_as_they_are() -> None:
    bench = Bench({})
    face = bench.forwarder._table.add_local()
    bench.forwarder.faces[1].reliability.is_lossy = True
    bench.forwarder.fib.insert(b"\x08\x01a", [NextHop(face, 0.0)])
    bench.interest(1, "/a/b", 1)
    assert [packet for at, packet in bench.sent_packets if at == face] == [interest_wire("/a/b", 1)]
