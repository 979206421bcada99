"""Packets that are larger than a link takes: cut, put together, given up; bounded whatever comes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import FaceConfig
from proxy.core.fragmentation import (
    PARTIAL_MAX,
    PARTIAL_MAX_BYTES,
    REASSEMBLY_TIMEOUT_S,
    UDP_HEADERS_BYTES,
    Reassembler,
    fragments,
    payload_max_bytes,
)
from proxy.core.link_reliability import LinkReliability
from proxy.core.seeded import SplitMix64
from proxy.wire.lp import ACKS_MAX, FRAGMENTS_MAX, LinkPacket, NackReason, decode_link_packet, encode_link_packet
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data, encode_interest
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError
from tests.unit.proxy.core.bench import Bench, interest_wire
from topologies.model import LinkProperties

PAYLOAD_BYTES = payload_max_bytes(1_500)


def numbered(packet: LinkPacket, first: int = 100, *, payload_bytes: int = PAYLOAD_BYTES) -> list[LinkPacket]:
    pieces = fragments(packet, payload_bytes=payload_bytes)
    return [piece.as_transmission(first + number) for number, piece in enumerate(pieces)]


def test_mtu_is_that_of_the_links() -> None:
    assert FaceConfig(1, "l", "i", "10.0.0.0", "10.0.0.1", "p").mtu_bytes == LinkProperties().mtu_bytes


@given(
    size=st.integers(1, PACKET_MAX_BYTES),
    mtu_bytes=st.sampled_from([576, 1_280, 1_500, 9_000]),
    nack_reason=st.none() | st.sampled_from([int(reason) for reason in NackReason]),
    is_detour=st.booleans(),
    acks=st.integers(0, 40),
    gaps_seen=st.integers(0, 2**63),
)
def test_no_datagram_is_larger_than_the_link_takes(
    size: int,
    mtu_bytes: int,
    nack_reason: int | None,
    is_detour: bool,  # noqa: FBT001
    acks: int,
    gaps_seen: int,
) -> None:
    end = LinkReliability("on", SplitMix64(1), mtu_bytes=mtu_bytes)
    end._acks.extend(range(acks))
    end._gaps_seen = gaps_seen
    packet = LinkPacket(bytes(size), nack_reason=nack_reason, is_detour=is_detour)
    received, reassembler = None, Reassembler()
    for datagram in end.wrap(packet, now_s=0.0):
        assert len(datagram) <= min(mtu_bytes - UDP_HEADERS_BYTES, PACKET_MAX_BYTES)
        received = decode_link_packet(datagram)
        assert received.tx_sequence is not None
        if received.frag_count > 1:
            received = reassembler.take(received, now_s=0.0)
    assert received is not None
    assert (received.fragment, received.nack_reason, received.is_detour) == (packet.fragment, nack_reason, is_detour)
    assert len(reassembler) == reassembler.bytes == reassembler.dropped == 0


def test_small_packets_are_not_cut_and_carry_many_acks() -> None:
    end = LinkReliability("on", SplitMix64(1), mtu_bytes=1_500)
    end._acks.extend(range(40))
    (datagram,) = end.wrap(LinkPacket(b"x"), now_s=0.0)
    assert decode_link_packet(datagram).acks == tuple(range(ACKS_MAX))
    (datagram,) = end.wrap(LinkPacket(bytes(PAYLOAD_BYTES)), now_s=0.0)
    assert decode_link_packet(datagram).frag_count == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_fragments_may_come_in_any_order(order: tuple[int, ...]) -> None:
    packet = LinkPacket(bytes(range(30)), is_detour=True)
    pieces = numbered(packet, payload_bytes=10)
    reassembler = Reassembler()
    assert [reassembler.take(pieces[n], now_s=0.0) for n in order[:-1]] == [None, None]
    assert reassembler.take(pieces[order[-1]], now_s=0.0) == packet.as_transmission(100)
    assert (len(reassembler), reassembler.bytes) == (0, 0)


def test_packets_may_be_mixed() -> None:
    one, two = (numbered(LinkPacket(text), first, payload_bytes=1) for text, first in ((b"ab", 10), (b"cd", 12)))
    reassembler = Reassembler()
    got = [reassembler.take(piece, now_s=0.0) for piece in (one[0], two[1], one[1], two[0])]
    assert [None if packet is None else packet.fragment for packet in got] == [None, None, b"ab", b"cd"]


def test_fragment_that_comes_twice_counts_once() -> None:
    pieces = numbered(LinkPacket(b"abc"), payload_bytes=1)
    reassembler = Reassembler()
    for _ in range(3):
        assert reassembler.take(pieces[0], now_s=0.0) is None
    assert reassembler.bytes == 1
    reassembler.take(pieces[1], now_s=0.0)
    assert reassembler.take(pieces[2], now_s=0.0) is not None


def test_packet_without_progress_is_given_up() -> None:
    pieces = numbered(LinkPacket(b"abc"), payload_bytes=1)
    reassembler = Reassembler()
    reassembler.take(pieces[0], now_s=0.0)
    reassembler.take(pieces[1], now_s=REASSEMBLY_TIMEOUT_S - 0.1)  # progress
    assert reassembler.take(pieces[2], now_s=2 * REASSEMBLY_TIMEOUT_S) is None
    assert reassembler.dropped == 1
    assert len(reassembler) == 1  # what has come since


def test_packets_in_pieces_are_bounded_in_number() -> None:
    reassembler = Reassembler()
    for number in range(PARTIAL_MAX + 5):
        reassembler.take(numbered(LinkPacket(b"ab"), 10 * number, payload_bytes=1)[0], now_s=0.0)
    assert len(reassembler) == reassembler.bytes == PARTIAL_MAX
    assert reassembler.dropped == 5
    assert (
        reassembler.take(numbered(LinkPacket(b"ab"), 0, payload_bytes=1)[1], now_s=0.0) is None
    )  # the first had to go


def test_packets_in_pieces_are_bounded_in_bytes() -> None:
    reassembler = Reassembler()
    for number in range(PARTIAL_MAX):
        for piece in numbered(LinkPacket(bytes(8_800)), 1_000 * number)[:-1]:
            reassembler.take(piece, now_s=0.0)
            assert reassembler.bytes <= PARTIAL_MAX_BYTES
    assert reassembler.dropped > 0


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(LinkPacket(b"b", sequence=101, frag_index=1, frag_count=3), id="of another number of fragments"),
        pytest.param(LinkPacket(bytes(PACKET_MAX_BYTES), sequence=101, frag_index=1, frag_count=2), id="too long"),
    ],
)
def test_fragments_that_make_no_packet_are_forgotten(second: LinkPacket) -> None:
    reassembler = Reassembler()
    reassembler.take(LinkPacket(b"a", sequence=100, frag_index=0, frag_count=2), now_s=0.0)
    with pytest.raises(MalformedError):
        reassembler.take(second, now_s=0.0)
    assert (len(reassembler), reassembler.bytes, reassembler.dropped) == (0, 0, 1)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 5), st.integers(1, 9_000), st.integers(0, 3)),
        max_size=60,
    )
)
def test_whatever_comes_the_books_agree(arrivals: list[tuple[int, int, int, int, int]]) -> None:
    reassembler, now_s = Reassembler(), 0.0
    for first, index, count, size, wait_s in arrivals:
        now_s += wait_s
        if index < count > 1:
            packet = LinkPacket(bytes(size), sequence=first + index, frag_index=index, frag_count=count)
            try:
                whole = reassembler.take(packet, now_s=now_s)
            except MalformedError:
                continue
            assert whole is None or len(whole.fragment) <= PACKET_MAX_BYTES
        held = [piece for partial in reassembler._partials.values() for piece in partial.pieces.values()]
        assert reassembler.bytes == sum(len(piece.fragment) for piece in held) <= PARTIAL_MAX_BYTES


# ---------------------------------------------------------------------- in the forwarder


def test_large_packet_crosses_a_forwarder_and_comes_out_as_it_went_in() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    wire = encode_data(from_uri("/p/1"), bytes(range(256)) * 30, freshness_ms=1_000)
    bench.interest(4, "/p/1", 1)
    bench.sent_packets.clear()
    for piece in numbered(LinkPacket(wire)):
        bench.packet(1, encode_link_packet(piece))
    sent = [decode_link_packet(packet) for face, packet in bench.sent_packets if face == 4]
    assert b"".join(piece.fragment for piece in sent) == wire
    assert [piece.frag_index for piece in sent] == list(range(6))
    assert len({(piece.sequence or 0) - piece.frag_index for piece in sent}) == 1  # consecutive
    assert bench.forwarder.faces[4].sent["data"] == [6, sum(len(packet) for face, packet in bench.sent_packets)]


def test_large_interest_over_a_link_that_loses_it_goes_another_way() -> None:
    bench = Bench({"/p": [(1, 1.0), (2, 2.0)]}, link_reliability="on")
    name, wire = encode_interest(from_uri("/p/1"), nonce=7, parameters=bytes(5_000), lifetime_ms=30_000)
    bench.packet(4, wire)
    for _ in range(200):
        bench.now_s += 0.05
        bench.sent_packets.clear()
        bench.live(0.0)
        for face in (1, 2, 3, 4):
            bench.packet(face, encode_link_packet(LinkPacket(b"", session_state=3)))
        bench.timer()
        if any(face == 2 and decode_link_packet(packet).fragment for face, packet in bench.sent_packets):
            break
    pieces = [decode_link_packet(packet) for face, packet in bench.sent_packets if face == 2]
    whole = b"".join(piece.fragment for piece in pieces)
    assert (len(whole), name in whole) == (len(wire), True)
    assert pieces[0].is_detour
    assert not any(piece.is_detour for piece in pieces[1:])
    assert bench.counters["link_losses"] == 1


def test_fragments_of_a_face_that_goes_down_are_forgotten() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    pieces = numbered(LinkPacket(encode_data(from_uri("/p/1"), bytes(2_000))))
    bench.packet(1, encode_link_packet(pieces[0]))
    assert bench.counters["reassembly_bytes"] == PAYLOAD_BYTES
    bench.carrier(1, up=False)
    assert bench.counters["reassembly_bytes"] == 0


def test_fragment_on_a_local_face_is_malformed() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    pieces = numbered(LinkPacket(interest_wire("/p/1", 1)), payload_bytes=10)
    assert bench.packet(0, encode_link_packet(pieces[0])) == []
    assert bench.counters["malformed"] == 1


def test_fragments_that_make_no_packet_are_counted() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    for number in range(FRAGMENTS_MAX):
        piece = LinkPacket(b"\x05", sequence=number, frag_index=number, frag_count=FRAGMENTS_MAX)
        bench.packet(1, encode_link_packet(piece))
    assert bench.counters["malformed"] == 1
    assert bench.counters["reassembly_bytes"] == 0
