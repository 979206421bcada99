"""The fast way to decode a numbered packet says what the thorough way does, whatever the bytes."""

from __future__ import annotations

from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire import lp
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet, encode_sequenced
from proxy.wire.tlv import MalformedError

SEQUENCES = st.integers(0, 2**64 - 1)
#: Around every size at which one of the two lengths takes more octets.
SIZES = st.one_of(st.integers(1, 40), st.integers(230, 280), st.sampled_from([8_782, 65_520, 65_540]))


def thoroughly(datagram: bytes) -> LinkPacket | None:
    with mock.patch.object(lp, "_decode_sequenced", return_value=None):
        return decoded(datagram)


def decoded(datagram: bytes) -> LinkPacket | None:
    try:
        return decode_link_packet(datagram)
    except MalformedError:
        return None


@given(SEQUENCES, SIZES)
@example(0, 239)
@example(0, 240)
@example(0, 253)
@example(0, 255)
def test_what_is_numbered_comes_out_as_it_went_in(sequence: int, size: int) -> None:
    fragment = bytes(size)
    datagram = encode_sequenced(sequence, fragment)
    assert datagram == encode_link_packet(LinkPacket(fragment, sequence=sequence))
    assert decode_link_packet(datagram) == LinkPacket(fragment, sequence=sequence) == thoroughly(datagram)


@given(SEQUENCES, SIZES, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 255)), min_size=1, max_size=3))
def test_what_is_damaged_is_seen_either_way(sequence: int, size: int, damage: list[tuple[int, int]]) -> None:
    datagram = bytearray(encode_sequenced(sequence, bytes(size)))
    for at, octet in damage:
        datagram[at % len(datagram)] = octet
    assert decoded(bytes(datagram)) == thoroughly(bytes(datagram))


@given(SEQUENCES, SIZES, st.integers(1, 300))
def test_what_is_cut_off_or_too_long_is_seen_either_way(sequence: int, size: int, octets: int) -> None:
    datagram = encode_sequenced(sequence, bytes(size))
    for wrong in (datagram[:-octets], datagram + bytes(octets)):
        assert decoded(wrong) == thoroughly(wrong)
