"""A look at a packet that is cheap enough for every packet of a link: its message type and its name.

Message types are those of messages.csv; see ``proxy.wire.messages.message_type``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.wire.message_names import MESSAGE_TYPES, message_type
from proxy.wire.name import DIGEST_OCTETS, IMPLICIT_SHA256, PARAMETERS_SHA256, boundaries
from proxy.wire.tlv import MalformedError, read_element, read_non_negative_integer

_INTEREST, _DATA, _NAME, _LP_PACKET = 0x05, 0x06, 0x07, 0x64
_FRAGMENT, _FRAG_INDEX, _NACK = 0x50, 0x52, 0x0320

#: What a packet may be that no name tells.
FACE_HEARTBEAT: Final = "face-heartbeat"  #: header fields alone: that the neighbour is there, or acks
NACK: Final = "nack"
LATER_FRAGMENT: Final = "fragment"  #: every part of a packet but the first, which has the name
OTHER: Final = "other"  #: no NDN packet

#: Everything that a packet can be called.
MESSAGE_WORDS: Final = tuple(
    sorted(
        {word for pair in MESSAGE_TYPES.values() for word in pair}
        | {"interest", "data", "object-interest", "object-segment", FACE_HEARTBEAT, NACK, LATER_FRAGMENT, OTHER}
    )
)


@dataclass(frozen=True, slots=True)
class PacketView:
    """What one datagram is."""

    message: str  #: one of MESSAGE_WORDS
    name: bytes  #: without a digest at its end, which would differ from run to run; empty: it has none


def view_of(datagram: bytes) -> PacketView:
    """Look at the octets of a datagram, right or wrong."""
    try:
        return _view(datagram)
    except MalformedError:
        return PacketView(OTHER, b"")


def _view(datagram: bytes) -> PacketView:
    fragment, is_nack, is_later = datagram, False, False
    if datagram[:1] == bytes((_LP_PACKET,)):
        fragment = b""
        _, at, end = read_element(datagram, 0, len(datagram))
        while at < end:
            kind, start, at = read_element(datagram, at, end)
            if kind == _FRAGMENT:
                fragment = datagram[start:at]
            elif kind == _NACK:
                is_nack = True
            elif kind == _FRAG_INDEX:
                is_later = read_non_negative_integer(datagram, start, at) > 0
        if is_later:
            return PacketView(LATER_FRAGMENT, b"")
        if not fragment:
            return PacketView(FACE_HEARTBEAT, b"")
    if fragment[:1] not in (b"\x05", b"\x06"):
        return PacketView(OTHER, b"")
    # Of a first fragment the rest is missing, so lengths reach behind its end.
    start = 2 if len(fragment) > 1 and fragment[1] < 253 else 4
    kind, start, end = read_element(fragment, start, len(fragment))
    if kind != _NAME:
        return PacketView(OTHER, b"")
    name = fragment[start:end]
    return PacketView(NACK if is_nack else message_type(name, data=fragment[0] == _DATA), without_digest(name))


def without_digest(name: bytes) -> bytes:
    """Return *name* without a digest at its end: that of parameters has the time of day in it, as it were."""
    at = len(name) - 2 - DIGEST_OCTETS
    if at < 0 or name[at] not in (IMPLICIT_SHA256, PARAMETERS_SHA256) or name[at + 1] != DIGEST_OCTETS:
        return name
    ends = boundaries(name)
    return name[:at] if at in (0, *ends) else name
