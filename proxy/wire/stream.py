"""Packets on a byte stream: one after the other, as NFD's stream transports have them (unix and TCP)."""

from __future__ import annotations

from typing import Final

from proxy.wire.lp import LP_PACKET
from proxy.wire.packet import DATA, INTEREST
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError

_TYPES: Final = (INTEREST, DATA, LP_PACKET)


def packet_end(buffer: bytes | bytearray, at: int) -> int | None:
    """Return the offset behind the packet that starts at *at*; None where more has to come before that is known.

    The packet may end behind the buffer: then the rest of it has yet to come.
    Raises: MalformedError where what starts there is no packet, or one that is too long; no later packet can be found then.

    >>> packet_end(bytes.fromhex("0503070108"), 0), packet_end(bytes.fromhex("05fd"), 0)
    (5, None)
    """
    size = len(buffer)
    if at + 2 > size:
        return None
    kind, length = buffer[at], buffer[at + 1]
    if kind not in _TYPES:
        raise MalformedError("no packet has such a type")
    if length < 253:
        return at + 2 + length
    if length > 253:
        raise MalformedError("packet is too long")
    if at + 4 > size:
        return None
    length = int.from_bytes(buffer[at + 2 : at + 4], "big")
    if length < 253:
        raise MalformedError("number not in its shortest form")
    if 4 + length > PACKET_MAX_BYTES:
        raise MalformedError("packet is too long")
    return at + 4 + length
