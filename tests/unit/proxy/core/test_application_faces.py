"""Faces that come and go while the forwarder runs: applications that attach themselves."""

from __future__ import annotations

from proxy.core.forwarder import APPLICATION_PIT_SHARE_RATIO
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet
from proxy.wire.name import from_uri
from tests.unit.proxy.core.bench import Bench, interest_wire

ROUTES = {"/p": [(1, 10.0)]}


def attach(bench: Bench, *prefixes: str) -> int:
    face = bench.forwarder.add_local_face()
    for prefix in prefixes:
        assert bench.forwarder.fib.register(from_uri(prefix), face, 0.0)
    return face


def test_application_asks_and_is_answered_in_plain_packets() -> None:
    bench = Bench(ROUTES)
    face = attach(bench)
    assert face >= 1_000
    wire = interest_wire("/p/1", 1)
    assert bench.packet(face, wire) == [(1, "interest", "/p/1")]
    assert bench.data(1, "/p/1") == [(face, "data", "/p/1")]
    assert bench.sent_packets[-1][1][0] == 6  # not in a link packet


def with_token(wire: bytes, token: bytes) -> bytes:
    return encode_link_packet(LinkPacket(wire, pit_token=token))


def answers(bench: Bench, face: int) -> list[tuple[bytes, int | None]]:
    """Return the PIT token and the reason of the Nack, if it is one, of every packet sent to an application."""
    packets = [decode_link_packet(packet) for to, packet in bench.sent_packets if to == face]
    return [(packet.pit_token, packet.nack_reason) for packet in packets]


def test_an_answer_brings_back_the_pit_token_of_what_it_answers() -> None:
    """NDNLPv2 "PIT token": on Data from upstream and from the content store, on Nacks, and never further than to who set it."""
    bench = Bench(ROUTES)
    face = attach(bench)
    bench.packet(face, with_token(interest_wire("/p/1", 1), b"one"))
    bench.packet(face, with_token(interest_wire("/p/2", 2), b"two"))
    assert not [packet for to, packet in bench.sent_packets if to == 1 and decode_link_packet(packet).pit_token]
    bench.data(1, "/p/2")
    bench.data(1, "/p/1", freshness_ms=1_000)
    bench.packet(face, with_token(interest_wire("/p/1", 3), b"three"))
    bench.packet(face, with_token(interest_wire("/nowhere", 4), b"four"))
    bench.packet(face, with_token(interest_wire("/p/5", 5), b"five"))
    bench.nack(1, NackReason.NO_ROUTE)
    assert answers(bench, face) == [
        (b"two", None),
        (b"one", None),
        (b"three", None),
        (b"four", NackReason.NO_ROUTE),
        (b"five", NackReason.NO_ROUTE),
    ]


def test_one_data_answers_each_question_of_an_application_under_its_token() -> None:
    bench = Bench(ROUTES)
    face = attach(bench)
    bench.packet(face, with_token(interest_wire("/p/1", 1), b"exact"))
    bench.packet(face, with_token(interest_wire("/p", 2, can_be_prefix=True), b"prefix"))
    bench.data(1, "/p/1")
    assert answers(bench, face) == [(b"exact", None), (b"prefix", None)]


def test_pit_token_of_a_neighbour_is_not_ours_to_keep() -> None:
    bench = Bench(ROUTES)
    bench.packet(4, with_token(interest_wire("/p/1", 1), b"token"))
    bench.data(1, "/p/1")
    assert {decode_link_packet(packet).pit_token for _, packet in bench.sent_packets} == {b""}


def test_what_an_application_registers_is_asked_of_it() -> None:
    bench = Bench(ROUTES)
    face = attach(bench, "/app")
    assert bench.interest(4, "/app/1", 1) == [(face, "interest", "/app/1")]
    assert bench.data(face, "/app/1") == [(4, "data", "/app/1")]
    assert bench.forwarder.fib.unregister(from_uri("/app"), face)
    assert bench.interest(4, "/app/2", 2) == [(4, "nack-NO_ROUTE", "/app/2")]


def test_application_is_not_watched_for_silence() -> None:
    bench = Bench(ROUTES)
    face = attach(bench, "/app")
    bench.interest(face, "/p/1", 1)
    bench.sent_packets.clear()
    bench.live(5.0)
    assert not [packet for at, packet in bench.sent_packets if at == face]
    assert bench.interest(4, "/app/1", 2) == [(face, "interest", "/app/1")]


def test_what_waited_for_an_application_that_goes_is_asked_elsewhere() -> None:
    bench = Bench({"/app": [(2, 20.0)]})
    face = attach(bench, "/app")
    bench.interest(4, "/app/1", 1)
    assert bench.remove(face) == [(2, "interest", "/app/1")]  # the best there is now: no detour
    assert bench.data(2, "/app/1") == [(4, "data", "/app/1")]


def test_what_waited_for_the_only_application_is_refused() -> None:
    bench = Bench(ROUTES)
    face = attach(bench, "/app")
    bench.interest(4, "/app/1", 1)
    assert bench.remove(face) == [(4, "nack-NO_ROUTE", "/app/1")]
    assert bench.interest(4, "/app/2", 2) == [(4, "nack-NO_ROUTE", "/app/2")]


def test_nothing_is_left_of_an_application_that_has_gone() -> None:
    bench = Bench({"/p": [(1, 10.0)], "/all": [(1, 1.0)]})
    before = (len(bench.forwarder.fib), len(bench.forwarder.faces))
    faces = [attach(bench, "/app", "/all", "/only") for _ in range(3)]
    assert len(set(faces)) == 3
    bench.interest(faces[0], "/p/1", 1)
    bench.interest(faces[0], "/p/2", 2)
    bench.interest(faces[1], "/p/2", 3)
    bench.interest(faces[1], "/all/1", 4)
    assert bench.remove(faces[0]) == []
    assert bench.data(1, "/p/1") == []
    assert bench.data(1, "/p/2") == [(faces[1], "data", "/p/2")]
    for face in faces[1:]:
        bench.remove(face)
    assert (len(bench.forwarder.fib), len(bench.forwarder.faces)) == before
    assert bench.counters["pit_entries"] == 0
    assert bench.forwarder.pit._held == {}
    assert set(bench.forwarder._pit_shares) == {1, 2, 3, 4}
    assert bench.interest(4, "/app/1", 5) == [(4, "nack-NO_ROUTE", "/app/1")]
    assert bench.forwarder.add_local_face() not in faces


def test_pending_entry_of_several_does_not_ask_who_has_gone() -> None:
    bench = Bench({"/app": [(2, 20.0), (3, 30.0)]})
    face = attach(bench, "/app")
    bench.interest(4, "/app/1", 1)
    bench.live(0.05)
    assert bench.interest(4, "/app/1", 2) == [(2, "detour", "/app/1")]
    bench.remove(face)
    assert bench.nack(2, NackReason.NO_ROUTE) == [(3, "detour", "/app/1")]


def test_application_that_floods_leaves_room_for_others() -> None:
    bench = Bench(ROUTES, pit_max_entries=40)
    face = attach(bench)
    share = int(40 * APPLICATION_PIT_SHARE_RATIO)
    answers = [bench.interest(face, f"/p/{number}", number)[0] for number in range(20)]
    assert [what for _, what, _ in answers] == ["interest"] * share + ["nack-CONGESTION"] * (20 - share)
    assert bench.interest(4, "/p/x", 99) == [(1, "interest", "/p/x")]


def test_localhost_is_answered_on_the_node_only() -> None:
    bench = Bench({"/localhost": [(2, 1.0)]})
    manager, face = attach(bench, "/localhost/demo"), attach(bench)
    name = "/localhost/demo/list"
    assert bench.interest(face, name, 1) == [(manager, "interest", name)]
    assert bench.interest(face, "/localhost/other", 2) == [(face, "nack-NO_ROUTE", "/localhost/other")]
    assert bench.interest(4, name, 3) == []
    assert bench.counters["refused_scope"] == 1
