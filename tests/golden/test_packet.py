"""Interest and Data by hand, octet by octet, from the NDN Packet Format v0.3; a broken one at every level."""

import hashlib

import pytest

from proxy.wire.name import from_uri, to_uri
from proxy.wire.packet import decode_data, decode_interest, encode_data, encode_interest
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError, tlv

NAME = "0703080161"  # Name: one generic component, "a"
NONCE = "0a0401020304"
DIGEST = hashlib.sha256(bytes.fromhex("24026869")).hexdigest()  # over ApplicationParameters "hi"
SIGNATURE = "1603 1b0100 1702 abcd"  # SignatureInfo: DigestSha256; SignatureValue


def packet(kind: str, *elements: str) -> bytes:
    value = bytes.fromhex("".join(elements))
    return bytes.fromhex(kind) + bytes((len(value),)) + value


def test_interest_with_every_element() -> None:
    wire = packet(
        "05",
        f"0725080161 0220{DIGEST}",  # Name: /a/params-sha256=...
        "2100",  # CanBePrefix
        "1200",  # MustBeFresh
        "1e05 0703080162",  # ForwardingHint: /b
        "0a0401020304",  # Nonce
        "0c020fa0",  # InterestLifetime: 4000 ms
        "2201ff",  # HopLimit: 255
        "24026869",  # ApplicationParameters: "hi"
    )
    interest = decode_interest(wire)
    assert interest.name == bytes.fromhex(f"080161 0220{DIGEST}")
    assert interest.can_be_prefix
    assert interest.must_be_fresh
    assert interest.nonce == 0x01020304
    assert interest.lifetime_ms == 4_000
    assert wire[interest.hop_limit_at] == 255
    assert interest.parameters == b"hi"
    assert interest.wire == wire


def test_interest_with_a_name_only() -> None:
    interest = decode_interest(packet("05", NAME))
    assert (interest.name, interest.nonce, interest.lifetime_ms) == (from_uri("/a"), -1, 4_000)  # the default lifetime
    assert (interest.can_be_prefix, interest.must_be_fresh, interest.hop_limit_at) == (False, False, 0)
    assert interest.parameters is None


def test_empty_parameters_are_parameters() -> None:
    digest = hashlib.sha256(bytes.fromhex("2400")).hexdigest()
    assert decode_interest(packet("05", f"07220220{digest}", NONCE, "2400")).parameters == b""


@pytest.mark.parametrize(("octets", "lifetime_ms"), [("00", 0), ("fa", 250), ("ffff", 65_535), ("00010000", 65_536)])
def test_interest_lifetime(octets: str, lifetime_ms: int) -> None:
    element = f"0c{len(octets) // 2:02x}{octets}"
    assert decode_interest(packet("05", NAME, NONCE, element)).lifetime_ms == lifetime_ms


@pytest.mark.parametrize(
    "ignored",
    [
        pytest.param("f000", id="unknown non-critical type at the end"),
        pytest.param("fd03e800", id="unknown non-critical type 1000"),
    ],
)
def test_unknown_non_critical_elements_are_ignored(ignored: str) -> None:
    assert decode_interest(packet("05", NAME, NONCE, ignored)).nonce == 0x01020304
    assert decode_data(packet("06", NAME, "150168", SIGNATURE, ignored)).content == b"h"


def test_non_critical_element_out_of_order_is_ignored() -> None:
    """HopLimit and CanBePrefix have even and odd types: 0x22 is not critical, 0x21 is."""
    interest = decode_interest(packet("05", NAME, NONCE, "0c0101", "2201ff", "22017f"))
    assert interest.wire[interest.hop_limit_at] == 255


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x05", id="type alone"),
        pytest.param(packet("05"), id="no name"),
        pytest.param(packet("05", "0700"), id="empty name"),
        pytest.param(packet("05", NONCE, NAME), id="nonce in front of the name"),
        pytest.param(packet("06", NAME, SIGNATURE), id="a Data"),
        pytest.param(packet("05", NAME) + b"\x00", id="something behind it"),
        pytest.param(packet("05", NAME)[:-1], id="cut short"),
        pytest.param(packet("05", "0704080161"), id="name ends behind the packet"),
        pytest.param(packet("05", NAME, "0a03010203"), id="nonce of 3 octets"),
        pytest.param(packet("05", NAME, "0a050102030405"), id="nonce of 5 octets"),
        pytest.param(packet("05", NAME, "0c03010203"), id="lifetime of 3 octets"),
        pytest.param(packet("05", NAME, "0c00"), id="lifetime of none"),
        pytest.param(packet("05", NAME, "2200"), id="hop limit of no octet"),
        pytest.param(packet("05", NAME, "22020001"), id="hop limit of 2 octets"),
        pytest.param(packet("05", NAME, NONCE, "2100"), id="CanBePrefix behind the nonce"),
        pytest.param(packet("05", NAME, NONCE, NONCE), id="two nonces"),
        pytest.param(packet("05", NAME, NAME), id="two names"),
        pytest.param(packet("05", NAME, "0b00"), id="unknown critical type below 32"),
        pytest.param(packet("05", NAME, "2500"), id="unknown critical type, odd"),
        pytest.param(packet("05", NAME, NONCE, "24026869"), id="parameters without a digest in the name"),
        pytest.param(packet("05", "0722 0220" + "00" * 32, NONCE, "24026869"), id="parameters under another digest"),
        pytest.param(packet("05", f"0722 0220{DIGEST}", NONCE, "24026869", "f000"), id="digest leaves out the tail"),
        pytest.param(packet("05", f"0722 0820{DIGEST}", NONCE, "24026869"), id="digest in a generic component"),
        pytest.param(packet("05", NAME, "fd"), id="element cut short in its type"),
        pytest.param(packet("05", NAME, "0a"), id="element cut short in its length"),
    ],
)
def test_malformed_interest(wire: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_interest(wire)


def test_data_with_every_element() -> None:
    wire = packet(
        "06",
        NAME,
        "1410 180100 190203e8 1a07 0805 68656c6c6f",  # MetaInfo: ContentType, 1000 ms, FinalBlockId
        "15026869",  # Content: "hi"
        SIGNATURE,
    )
    data = decode_data(wire)
    assert (data.name, data.freshness_ms, data.content, data.wire) == (from_uri("/a"), 1_000, b"hi", wire)


def test_data_with_a_name_and_a_signature_only() -> None:
    data = decode_data(packet("06", NAME, SIGNATURE))
    assert (data.freshness_ms, data.content) == (0, b"")


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(packet("06"), id="no name"),
        pytest.param(packet("06", "0700", SIGNATURE), id="empty name"),
        pytest.param(packet("06", "1500", NAME, SIGNATURE), id="content in front of the name"),
        pytest.param(packet("05", NAME), id="an Interest"),
        pytest.param(packet("06", NAME, SIGNATURE) + b"\x00", id="something behind it"),
        pytest.param(packet("06", NAME, SIGNATURE)[:-1], id="cut short"),
        pytest.param(packet("06", NAME), id="no signature"),
        pytest.param(packet("06", NAME, "16031b0100"), id="signature without a value"),
        pytest.param(packet("06", NAME, "1702abcd"), id="signature value without its info"),
        pytest.param(packet("06", NAME, "16031b0100", "16031b0100"), id="two signature infos and no value"),
        pytest.param(packet("06", NAME, "1702abcd", "16031b0100"), id="signature value in front of its info"),
        pytest.param(packet("06", NAME, "150168", "1404 190203e8", SIGNATURE), id="MetaInfo behind the content"),
        pytest.param(packet("06", NAME, "150168", "150168", SIGNATURE), id="two contents"),
        pytest.param(packet("06", NAME, NAME, SIGNATURE), id="two names"),
        pytest.param(packet("06", NAME, "1407 190203e8 180100", SIGNATURE), id="ContentType behind the freshness"),
        pytest.param(packet("06", NAME, "1408 190203e8 190203e8", SIGNATURE), id="two freshness periods"),
        pytest.param(packet("06", NAME, SIGNATURE, "ff 0000000100000000 00"), id="type of more than 4 octets"),
        pytest.param(packet("06", NAME, "1405 1903010203", SIGNATURE), id="freshness of 3 octets"),
        pytest.param(packet("06", NAME, "1404 190203", SIGNATURE), id="freshness ends behind MetaInfo"),
        pytest.param(packet("06", NAME, "1402 1b00", SIGNATURE), id="unknown critical type in MetaInfo"),
        pytest.param(packet("06", NAME, "1200", SIGNATURE), id="unknown critical type"),
    ],
)
def test_malformed_data(wire: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_data(wire)


def test_unknown_non_critical_type_in_meta_info_is_ignored() -> None:
    assert decode_data(packet("06", NAME, "1405 f000 190101", SIGNATURE)).freshness_ms == 1


def test_our_interest() -> None:
    name, wire = encode_interest(from_uri("/a"), nonce=0x01020304, lifetime_ms=4_000)
    assert name == from_uri("/a")
    assert wire.hex() == "050f" + NAME + NONCE + "0c020fa0"


def test_our_interest_for_any_fresh_data_under_a_prefix() -> None:
    _, wire = encode_interest(
        from_uri("/a"), nonce=0x01020304, lifetime_ms=4_000, can_be_prefix=True, must_be_fresh=True
    )
    assert wire.hex() == "0513" + NAME + "2100" + "1200" + NONCE + "0c020fa0"
    assert decode_interest(wire).can_be_prefix
    assert decode_interest(wire).must_be_fresh


def test_our_interest_with_parameters() -> None:
    name, wire = encode_interest(from_uri("/a"), nonce=1, lifetime_ms=250, parameters=b"hi")
    assert to_uri(name) == f"/a/params-sha256={DIGEST}"
    assert wire == bytes.fromhex("0534" + f"0725 080161 0220{DIGEST}" + "0a0400000001" + "0c01fa" + "24026869")
    assert decode_interest(wire).parameters == b"hi"


def test_our_data() -> None:
    signed = NAME + "140419020258" + "15026869" + "16031b0100"
    value = hashlib.sha256(bytes.fromhex(signed)).hexdigest()
    assert encode_data(from_uri("/a"), b"hi", freshness_ms=600).hex() == f"0636{signed}1720{value}"


def test_our_data_that_nobody_may_reuse_says_nothing_of_freshness() -> None:
    assert "1404" not in encode_data(from_uri("/a"), b"").hex()[:20]
    assert decode_data(encode_data(from_uri("/a"), b"")).freshness_ms == 0


def test_no_packet_is_larger_than_the_limit() -> None:
    overhead = len(encode_data(from_uri("/a"), bytes(PACKET_MAX_BYTES - 100))) - (PACKET_MAX_BYTES - 100)
    assert len(encode_data(from_uri("/a"), bytes(PACKET_MAX_BYTES - overhead))) == PACKET_MAX_BYTES
    with pytest.raises(ValueError, match="8801 bytes; 8800 is the limit"):
        encode_data(from_uri("/a"), bytes(PACKET_MAX_BYTES - overhead + 1))
    with pytest.raises(ValueError, match="8800 is the limit"):
        encode_interest(from_uri("/a"), nonce=0, parameters=bytes(PACKET_MAX_BYTES))


def test_long_elements() -> None:
    content = bytes(range(256)) * 20
    data = decode_data(encode_data(from_uri("/a") + tlv(8, bytes(300)), content))
    assert (data.content, len(data.name)) == (content, 3 + 304)
