"""NDNLPv2 link packets by hand: Nack, IDLE, header fields known, unknown and ignorable."""

import pytest

from proxy.wire.lp import ACKS_MAX, LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data, encode_interest
from proxy.wire.tlv import MalformedError

SEQUENCE = "5108 0000000000000007"
INTEREST = bytes.fromhex("050b 0703080161 0a0401020304")


def link_packet(*elements: str) -> bytes:
    value = bytes.fromhex("".join(elements))
    return b"\x64" + bytes((len(value),)) + value


@pytest.mark.parametrize(
    ("reason", "octet"),
    # "Network Nack": NackReason values.
    [(NackReason.CONGESTION, "32"), (NackReason.DUPLICATE, "64"), (NackReason.NO_ROUTE, "96"), (NackReason.NONE, "00")],
)
def test_nack(reason: NackReason, octet: str) -> None:
    wire = encode_nack(INTEREST, reason)
    # LpPacket { Nack { NackReason }, Fragment { Interest } }
    assert wire == bytes.fromhex("6418 fd032005 fd032101" + octet + "500d") + INTEREST
    assert decode_link_packet(wire) == LinkPacket(INTEREST, int(reason))


def test_nack_without_a_reason() -> None:
    assert decode_link_packet(link_packet("fd032000", "500d" + INTEREST.hex())).nack_reason == NackReason.NONE


def test_nack_with_a_reason_that_we_do_not_know() -> None:
    assert decode_link_packet(link_packet("fd032005fd032101c8", "500d" + INTEREST.hex())).nack_reason == 200


@pytest.mark.parametrize("state", range(4))
def test_idle_packet_tells_the_session_state(state: int) -> None:
    """Type 952 lies in [800:959] and ends in two zero bits: who does not know it must ignore it."""
    wire = encode_link_packet(LinkPacket(b"", session_state=state))
    assert wire.hex() == f"6405fd03b8010{state}"
    assert decode_link_packet(wire) == LinkPacket(b"", None, state)


def test_reliable_packet_by_hand() -> None:
    """NDNLPv2 "Reliability": Sequence, Ack and TxSequence are 8 octets each; fields ascend, the fragment comes last."""
    wire = bytes.fromhex(
        "643d5108 0000000000000007fd034408 0000000000000001 fd034408 0000000000000002fd034808 0000000000000009500d"
    )
    wire += INTEREST
    wire = wire[:1] + bytes((len(wire) - 2,)) + wire[2:]
    packet = LinkPacket(INTEREST, sequence=7, tx_sequence=9, acks=(1, 2))
    assert encode_link_packet(packet) == wire
    assert decode_link_packet(wire) == packet


@pytest.mark.parametrize(
    "packet",
    [
        LinkPacket(INTEREST, is_detour=True),
        LinkPacket(INTEREST, is_lossy_path=True),
        LinkPacket(b"", session_state=3, sent_count=70_000, gaps_seen=3, is_poll=True),
        LinkPacket(INTEREST, nack_reason=150, sequence=2**63, tx_sequence=0, acks=tuple(range(ACKS_MAX))),
    ],
)
def test_every_field_comes_back(packet: LinkPacket) -> None:
    assert decode_link_packet(encode_link_packet(packet)) == packet


def test_fragment_by_hand() -> None:
    """NDNLPv2 "Fragmentation": FragIndex and FragCount are NonNegativeIntegers, Sequence numbers of fragments are consecutive."""
    wire = link_packet(SEQUENCE, "520101", "530103", "5003616263")
    packet = LinkPacket(b"abc", sequence=7, frag_index=1, frag_count=3)
    assert encode_link_packet(packet) == wire
    assert decode_link_packet(wire) == packet


def test_pit_token_of_another_implementation() -> None:
    """What a consumer made with NDNts sends: NDNLPv2 "PIT token", then the Interest."""
    wire = bytes.fromhex("642962064206ffffffff501f051d070f08076578616d706c6508017808013012000a0468e3fa380c0207cf")
    packet = decode_link_packet(wire)
    assert (packet.pit_token, packet.fragment) == (bytes.fromhex("4206ffffffff"), wire[12:])
    assert encode_link_packet(packet) == wire


@pytest.mark.parametrize("octets", [0, 33])
def test_pit_token_has_1_to_32_octets(octets: int) -> None:
    with pytest.raises(MalformedError, match="PIT token"):
        decode_link_packet(link_packet(f"62{octets:02x}" + "00" * octets, "500d" + INTEREST.hex()))


def test_too_many_acks_are_malformed() -> None:
    wire = encode_link_packet(LinkPacket(INTEREST, acks=tuple(range(ACKS_MAX + 1))))
    with pytest.raises(MalformedError, match="acks"):
        decode_link_packet(wire)


@pytest.mark.parametrize("field", ["510101", "fd03440101", "fd034804 00000001"])
def test_sequence_numbers_are_8_octets(field: str) -> None:
    with pytest.raises(MalformedError, match="sequence number"):
        decode_link_packet(link_packet(field, "500d" + INTEREST.hex()))


def test_foreign_idle_packet_has_no_state() -> None:
    assert decode_link_packet(bytes.fromhex("6400")) == LinkPacket(b"")


def test_every_header_field_of_ours() -> None:
    packet = LinkPacket(
        INTEREST,
        session_state=3,
        is_detour=True,
        sequence=258,
        tx_sequence=2,
        acks=(7, 8),
        gaps_seen=5,
        sent_count=300,
        is_poll=True,
        is_lossy_path=True,
    )
    fields = (
        "5108 0000000000000102"  # Sequence
        "fd034408 0000000000000007 fd034408 0000000000000008"  # Ack, Ack
        "fd034808 0000000000000002"  # TxSequence
        "fd03a400"  # lossy path
        "fd03ac00"  # poll
        "fd03b002 012c"  # sent count
        "fd03b401 05"  # gaps seen
        "fd03b801 03"  # session state
        "fd03bc00"  # detour
        "500d"  # Fragment
    )
    value = bytes.fromhex(fields) + INTEREST
    assert encode_link_packet(packet) == b"\x64" + bytes((len(value),)) + value
    assert decode_link_packet(encode_link_packet(packet)) == packet


@pytest.mark.parametrize("count", [ACKS_MAX, ACKS_MAX + 1])
def test_acks_in_one_packet_are_bounded(count: int) -> None:
    wire = encode_link_packet(LinkPacket(INTEREST, acks=tuple(range(count))))
    if count <= ACKS_MAX:
        assert decode_link_packet(wire).acks == tuple(range(count))
    else:
        with pytest.raises(MalformedError):
            decode_link_packet(wire)


@pytest.mark.parametrize(
    "bare", [INTEREST, encode_interest(from_uri("/a/b"), nonce=7)[1], encode_data(from_uri("/a"), b"hi")]
)
def test_bare_packet_is_its_own_fragment(bare: bytes) -> None:
    assert decode_link_packet(bare) == LinkPacket(bare)


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("5108" + "0000000000000001", id="Sequence"),
        pytest.param("520100", id="FragIndex 0"),
        pytest.param("530101", id="FragCount 1"),
        pytest.param("fd032c0101", id="IncomingFaceId"),
        pytest.param("fd03340101", id="CachePolicy"),
        pytest.param("fd03400101", id="CongestionMark"),
        pytest.param("fd034408" + "0000000000000001", id="Ack"),
        pytest.param("fd034808" + "0000000000000001", id="TxSequence"),
        pytest.param("fd034c00", id="NonDiscovery"),
        pytest.param("fd03a400", id="another type in the ignorable range"),
    ],
)
def test_header_fields_that_may_be_ignored(field: str) -> None:
    assert decode_link_packet(link_packet(field, "500d" + INTEREST.hex())).fragment == INTEREST


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x64", id="type alone"),
        pytest.param(b"\x64\x01", id="length without value"),
        pytest.param(link_packet() + b"\x00", id="something behind it"),
        pytest.param(b"\x07\x03\x08\x01\x61", id="a name"),
        pytest.param(b"hello, world", id="text"),
        pytest.param(b"\xff" * 12, id="0xff"),
        pytest.param(link_packet(SEQUENCE, "530102"), id="fragment without content"),
        pytest.param(link_packet("530102", "500161"), id="fragment without a sequence number"),
        pytest.param(link_packet(SEQUENCE, "520102 530102", "500161"), id="third fragment of two"),
        pytest.param(link_packet(SEQUENCE, "520101", "500161"), id="second fragment of one"),
        pytest.param(link_packet(SEQUENCE, "530100", "500161"), id="fragment of none"),
        pytest.param(link_packet(SEQUENCE, "53020191", "500161"), id="fragment of 401"),
        pytest.param(link_packet("5108 0000000000000000", "520101 530102", "500161"), id="fragment before the first"),
        pytest.param(link_packet("5200"), id="FragIndex of no octet"),
        pytest.param(link_packet("5300"), id="FragCount of no octet"),
        pytest.param(link_packet("fd03210196"), id="NackReason outside a Nack"),
        pytest.param(link_packet("fd032003fd0321"), id="Nack cut short"),
        pytest.param(link_packet("fd032004fd032100"), id="NackReason of no octet"),
        pytest.param(link_packet("fd03b80104"), id="session state 4"),
        pytest.param(link_packet("fd03b803000001"), id="session state of 3 octets"),
        pytest.param(link_packet("510101"), id="sequence of 1 octet"),
        pytest.param(link_packet("fd03440101"), id="ack of 1 octet"),
        pytest.param(link_packet("fd03480101"), id="TxSequence of 1 octet"),
        pytest.param(link_packet("fd03b003000001"), id="sent count of 3 octets"),
        pytest.param(link_packet("fd03b400"), id="gaps seen of no octet"),
        pytest.param(link_packet("6200"), id="field below the ignorable range"),
        pytest.param(link_packet("fd032600"), id="in the ignorable range, last two bits not zero"),
        pytest.param(link_packet("fd03c000"), id="behind the ignorable range"),
        pytest.param(link_packet("5005"), id="fragment cut short"),
    ],
)
def test_malformed_link_packet(datagram: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_link_packet(datagram)
