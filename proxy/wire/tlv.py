"""NDN type-length-value primitives (NDN Packet Format v0.3, "TLV encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

#: No packet of ours or of anybody may be larger (NDN: "MAX_NDN_PACKET_SIZE").
PACKET_MAX_BYTES: Final = 8_800


class MalformedError(ValueError):
    """Bytes from the network that are not what they should be: counted by the receiver, never fatal."""


def var_number(value: int) -> bytes:
    """Encode a TLV-TYPE or TLV-LENGTH in its shortest form.

    >>> var_number(252).hex(), var_number(253).hex(), var_number(65536).hex()
    ('fc', 'fd00fd', 'fe00010000')
    """
    if value < 253:
        return value.to_bytes(1, "big")
    if value < 0x1_0000:
        return b"\xfd" + value.to_bytes(2, "big")
    if value < 0x1_0000_0000:
        return b"\xfe" + value.to_bytes(4, "big")
    return b"\xff" + value.to_bytes(8, "big")


def tlv(kind: int, value: bytes) -> bytes:
    """Encode one element."""
    size = len(value)
    if kind < 253 and size < 253:
        return bytes((kind, size)) + value
    return var_number(kind) + var_number(size) + value


def read_var_number(buffer: bytes, at: int) -> tuple[int, int]:
    """Return (number, offset behind it).

    Raises: MalformedError where the buffer ends first or the form is not the shortest.
    """
    try:
        first = buffer[at]
    except IndexError:
        raise MalformedError("ends inside a number") from None
    if first < 253:
        return first, at + 1
    width, least = ((2, 253), (4, 0x1_0000), (8, 0x1_0000_0000))[first - 253]
    end = at + 1 + width
    if end > len(buffer):
        raise MalformedError("ends inside a number")
    number = int.from_bytes(buffer[at + 1 : end], "big")
    if number < least:
        raise MalformedError("number not in its shortest form")
    return number, end


def read_element(buffer: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return (type, offset of the value, offset behind the value) of the element at *at*.

    Raises: MalformedError where the element does not end by *end*.
    """
    # The overwhelmingly common case first: one octet each for type and length.
    if at + 2 <= end:
        kind, size = buffer[at], buffer[at + 1]
        if kind < 253 and size < 253:
            start = at + 2
            if start + size > end:
                raise MalformedError(f"element of type {kind} ends behind its parent")
            return kind, start, start + size
    kind, start = read_var_number(buffer, at)
    size, start = read_var_number(buffer, start)
    if not 0 < kind < 0x1_0000_0000:
        raise MalformedError(f"type {kind} is outside 1 to 4294967295")
    if start + size > end:
        raise MalformedError(f"element of type {kind} ends behind its parent")
    return kind, start, start + size


def elements(buffer: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, value start, value end) of every element in ``buffer[at:end]``."""
    while at < end:
        kind, start, at = read_element(buffer, at, end)
        yield kind, start, at


def non_negative_integer(value: int) -> bytes:
    """Encode a NonNegativeInteger: 1, 2, 4 or 8 octets.

    >>> non_negative_integer(4000).hex()
    '0fa0'
    """
    for width in (1, 2, 4, 8):
        if value < 1 << (8 * width):
            return value.to_bytes(width, "big")
    raise ValueError(f"{value} needs more than 8 octets")


def read_non_negative_integer(buffer: bytes, start: int, end: int) -> int:
    """Decode a NonNegativeInteger.

    Raises: MalformedError where its length is none of 1, 2, 4, 8.
    """
    if end - start not in (1, 2, 4, 8):
        raise MalformedError(f"integer of {end - start} octets")
    return int.from_bytes(buffer[start:end], "big")


def is_critical(kind: int) -> bool:
    """Tell whether an unrecognised element of this type makes its packet invalid (NDN: "evolvability")."""
    return kind < 32 or kind % 2 == 1
