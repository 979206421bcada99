"""TLV primitives against the values that the NDN Packet Format v0.3 spells out ("TLV encoding")."""

import pytest

from proxy.wire.tlv import (
    MalformedError,
    elements,
    is_critical,
    non_negative_integer,
    read_element,
    read_non_negative_integer,
    read_var_number,
    tlv,
    var_number,
)

#: "Variable-size encoding for type and length": one octet below 253, then 253, 254 or 255 and 2, 4 or 8 octets.
VAR_NUMBERS = [
    (0, "00"),
    (1, "01"),
    (252, "fc"),
    (253, "fd00fd"),
    (254, "fd00fe"),
    (255, "fd00ff"),
    (65_535, "fdffff"),
    (65_536, "fe00010000"),
    (0xFFFF_FFFF, "feffffffff"),
    (0x1_0000_0000, "ff0000000100000000"),
    (2**64 - 1, "ffffffffffffffffff"),
]
#: "NonNegativeInteger encoding": the examples 0, 1, 255, 256, 65535, 65536, 4294967295, 4294967296 octet by octet.
NON_NEGATIVE_INTEGERS = [
    (0, "00"),
    (1, "01"),
    (255, "ff"),
    (256, "0100"),
    (65_535, "ffff"),
    (65_536, "00010000"),
    (4_294_967_295, "ffffffff"),
    (4_294_967_296, "0000000100000000"),
]


@pytest.mark.parametrize(("value", "encoded"), VAR_NUMBERS)
def test_variable_size_number(value: int, encoded: str) -> None:
    assert var_number(value).hex() == encoded
    assert read_var_number(bytes.fromhex("aa" + encoded), 1) == (value, 1 + len(encoded) // 2)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("fd0000", id="0 in three octets"),
        pytest.param("fd00fc", id="252 in three octets"),
        pytest.param("fe0000ffff", id="65535 in five octets"),
        pytest.param("ff00000000ffffffff", id="2**32 - 1 in nine octets"),
        pytest.param("", id="nothing"),
        pytest.param("fd", id="only the marker"),
        pytest.param("fd00", id="one octet of two"),
        pytest.param("fe000100", id="three octets of four"),
        pytest.param("ff00000001000000", id="seven octets of eight"),
    ],
)
def test_number_that_is_cut_short_or_not_in_its_shortest_form_is_malformed(encoded: str) -> None:
    with pytest.raises(MalformedError):
        read_var_number(bytes.fromhex(encoded), 0)


@pytest.mark.parametrize(("value", "encoded"), NON_NEGATIVE_INTEGERS)
def test_non_negative_integer(value: int, encoded: str) -> None:
    assert non_negative_integer(value).hex() == encoded
    assert read_non_negative_integer(bytes.fromhex("aa" + encoded), 1, 1 + len(encoded) // 2) == value


@pytest.mark.parametrize("octets", [0, 3, 5, 6, 7, 9])
def test_integer_of_another_length_is_malformed(octets: int) -> None:
    with pytest.raises(MalformedError):
        read_non_negative_integer(bytes(octets), 0, octets)


def test_integer_beyond_eight_octets_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="8 octets"):
        non_negative_integer(1 << 64)


@pytest.mark.parametrize(
    ("kind", "critical"),
    # "Considerations for evolvability": types 0 to 31 are critical whatever their last bit; above, odd ones are.
    [(0, True), (1, True), (2, True), (30, True), (31, True), (32, False), (33, True), (252, False), (253, True),
     (1_000, False), (1_001, True)],
)  # fmt: skip
def test_critical_types(kind: int, critical: bool) -> None:  # noqa: FBT001
    assert is_critical(kind) is critical


@pytest.mark.parametrize(
    ("kind", "size", "header"),
    [(8, 0, "0800"), (8, 252, "08fc"), (8, 253, "08fd00fd"), (253, 1, "fd00fd01"), (65_536, 300, "fe00010000fd012c")],
)
def test_element(kind: int, size: int, header: str) -> None:
    encoded = tlv(kind, bytes(size))
    assert encoded.hex() == header + "00" * size
    start = len(header) // 2
    assert read_element(b"\xaa" + encoded + b"\xbb", 1, 1 + len(encoded)) == (kind, 1 + start, 1 + len(encoded))
    assert list(elements(encoded + encoded, 0, 2 * len(encoded))) == [
        (kind, start, len(encoded)), (kind, len(encoded) + start, 2 * len(encoded))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("encoded", "end"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("08", 1, id="type without length"),
        pytest.param("0801", 2, id="length without value"),
        pytest.param("080200", 3, id="value cut short"),
        pytest.param("08020000", 3, id="ends behind its parent, in front of the buffer's end"),
        pytest.param("08fd00", 3, id="length cut short"),
        pytest.param("08fd00fd", 4, id="long length without value"),
        pytest.param("fd00fd0200", 5, id="long type, value cut short"),
        pytest.param("fd00fd0100", 4, id="long type ends behind its parent"),
        pytest.param("08fffffffffffffffff0", 10, id="length beyond all memory"),
    ],
)
def test_element_that_does_not_end_within_its_parent_is_malformed(encoded: str, end: int) -> None:
    with pytest.raises(MalformedError):
        read_element(bytes.fromhex(encoded), 0, end)
