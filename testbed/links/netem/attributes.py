"""Netlink attributes: length, type, value, padded to four bytes. Source: netlink(7), linux/netlink.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_NESTED = 0x8000
_TYPE_MASK = 0x3FFF


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def parse(data: bytes) -> Iterator[tuple[int, bytes]]:
    r"""Yield type and value of each attribute; stop where the data is cut short.

    >>> list(parse(u32(1, 7) + text(3, "lo")))
    [(1, b'\x07\x00\x00\x00'), (3, b'lo\x00')]
    """
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
