"""What a link knows a frame by, against the encoders of the protocol itself."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.lp import LinkPacket, NackReason, encode_link_packet, encode_sequenced
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data, encode_interest
from testbed.links.frame_names import DATA, INTEREST, NACK, name_in_frame, name_in_packet, spell

URI = "/hconf/csr1/32=sync/main/v=1/seq=700"
NAME = from_uri(URI)
INTEREST_PACKET = encode_interest(NAME, nonce=7)[1]
DATA_PACKET = encode_data(NAME, b"content" * 100)


def frame(payload: bytes, *, port: int = 6363, source: int = 6363, fragment: int = 0, protocol: int = 17) -> bytes:
    udp = struct.pack("!HHHH", source, port, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton("10.0.0.0") + socket.inet_aton("10.0.0.1")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, fragment, 64, protocol, 0) + addresses
    return bytes.fromhex("02000000000b02000000000a0800") + ip + udp


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (INTEREST_PACKET, INTEREST),
        (DATA_PACKET, DATA),
        (encode_sequenced(2**40, INTEREST_PACKET), INTEREST),
        (encode_link_packet(LinkPacket(DATA_PACKET, sequence=5, tx_sequence=9, acks=(1, 2, 3))), DATA),
        (encode_link_packet(LinkPacket(INTEREST_PACKET, nack_reason=NackReason.NO_ROUTE)), NACK),
        (encode_link_packet(LinkPacket(INTEREST_PACKET, is_detour=True, session_state=3)), INTEREST),
    ],
)
def test_kind_and_name_are_found_in_every_packet_that_has_them(packet: bytes, kind: int) -> None:
    assert name_in_packet(packet) == bytes([kind]) + NAME
    assert name_in_frame(frame(packet)) == bytes([kind]) + NAME
    assert name_in_frame(frame(packet, source=40_000)) == bytes([kind]) + NAME  # of an application
    assert name_in_frame(b"header" + frame(packet), 6) == bytes([kind]) + NAME


def test_digests_do_not_count() -> None:
    """A message that a rerun sends anew carries other times and signatures, hence another digest."""
    named = [encode_interest(NAME, nonce=1, parameters=content)[1] for content in (b"one", b"two")]
    assert named[0] != named[1]
    assert [name_in_packet(packet) for packet in named] == [bytes([INTEREST]) + NAME] * 2
    digest_first = b"\x01\x20" + bytes(32) + NAME
    assert name_in_packet(encode_interest(digest_first, nonce=1)[1]) == bytes([INTEREST]) + NAME


@pytest.mark.parametrize(
    "packet",
    [
        encode_link_packet(LinkPacket(b"", acks=(1, 2))),  # IDLE
        encode_link_packet(LinkPacket(DATA_PACKET[:50], sequence=5, frag_index=0, frag_count=3)),
        encode_link_packet(LinkPacket(DATA_PACKET[50:90], sequence=6, frag_index=1, frag_count=3)),
        b"",
        b"\x05",
        b"hello",
        bytes(100),
    ],
)
def test_what_has_no_whole_packet_has_no_name(packet: bytes) -> None:
    assert name_in_packet(packet) == b""
    assert name_in_frame(frame(packet)) == b""


def test_frames_of_other_protocols_have_no_name() -> None:
    packet = INTEREST_PACKET
    whole = frame(packet)
    assert name_in_frame(frame(packet, port=53, source=53)) == b""
    assert name_in_frame(frame(packet, protocol=6)) == b""
    assert name_in_frame(frame(packet, fragment=0x2000)) == b""  # more fragments follow
    assert name_in_frame(frame(packet, fragment=0x0001)) == b""
    assert name_in_frame(frame(packet, fragment=0x4000)) != b""  # do not fragment
    assert name_in_frame(whole[:12] + b"\x86\xdd" + whole[14:]) == b""  # IPv6
    assert name_in_frame(whole[:12] + b"\x08\x06" + whole[14:]) == b""  # ARP


@given(st.integers(0, 200))
def test_a_frame_cut_short_has_its_name_or_none(length: int) -> None:
    assert name_in_frame(frame(encode_sequenced(1, INTEREST_PACKET))[:length]) in (b"", bytes([INTEREST]) + NAME)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(
            st.sampled_from([INTEREST_PACKET, DATA_PACKET, encode_sequenced(3, DATA_PACKET)]),
            st.integers(0, 120),
            st.binary(min_size=1, max_size=4),
        ).map(lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]),
    )
)
def test_nothing_that_arrives_makes_it_raise(octets: bytes) -> None:
    for found in (name_in_packet(octets), name_in_frame(octets), name_in_frame(frame(octets))):
        spell(found)
        assert len(found) <= len(octets) + 1


def test_it_is_spelled_as_people_write_it() -> None:
    assert spell(name_in_packet(INTEREST_PACKET)) == f"Interest {URI}"
    assert spell(name_in_packet(DATA_PACKET)) == f"Data {URI}"
    odd = from_uri("/a%20b/%00/.../300=x")
    assert spell(name_in_packet(encode_interest(odd, nonce=1)[1])) == "Interest /a%20b/%00/.../300=x"
    assert spell(b"") == ""
