"""Packets on a byte stream are found again however the stream is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.stream import packet_end
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError, tlv

packets = st.builds(
    tlv,
    st.sampled_from([0x05, 0x06, 0x64]),
    st.binary(max_size=300) | st.integers(0, PACKET_MAX_BYTES - 4).map(bytes),
)


@given(wanted=st.lists(packets, max_size=5), cuts=st.lists(st.integers(1, 3_000), max_size=20))
def test_whatever_the_pieces_the_same_packets_come_out(wanted: list[bytes], cuts: list[int]) -> None:
    stream, found, pending = b"".join(wanted), [], bytearray()
    while stream:
        size = cuts.pop() if cuts else len(stream)
        pending += stream[:size]
        stream = stream[size:]
        while (end := packet_end(pending, 0)) is not None and end <= len(pending):
            found.append(bytes(pending[:end]))
            del pending[:end]
    assert found == wanted
    assert not pending


@given(octets=st.binary(min_size=10, max_size=20), at=st.integers(0, 9))
def test_any_octets_are_a_packet_of_a_size_that_is_allowed_or_malformed(octets: bytes, at: int) -> None:
    try:
        end = packet_end(octets, at)
    except MalformedError:
        assert octets[at] not in (0x05, 0x06, 0x64) or octets[at + 1 : at + 2] >= b"\xfd"
        return
    assert end is None or at + 2 <= end <= at + PACKET_MAX_BYTES
    if end is None:
        assert at + 4 > len(octets)
