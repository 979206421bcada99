"""NDNLPv2 link packets: what travels in one datagram between the two ends of a link.

Source: NDNLPv2 specification (NFD wiki). Bare Interests and Data are link packets without header fields.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec import Struct

from proxy.wire.packet import DATA, INTEREST
from proxy.wire.tlv import MalformedError, read_element, read_non_negative_integer, tlv

LP_PACKET: Final = 0x64
_FRAGMENT, _NACK, _NACK_REASON = 0x50, 0x0320, 0x0321
_FRAG_INDEX, _FRAG_COUNT = 0x52, 0x53
#: Our own header field, in the range that a receiver which does not know it must ignore ([800:959], two low bits zero):
#: the sender's face session state, RFC 5880 section 4.1 "Sta".
_SESSION_STATE: Final = 952
#: Ours, ignorable like it: this Interest is off its best way because of a failure (see ``Forwarder``).
_DETOUR: Final = 956


class NackReason(IntEnum):
    """Why an Interest cannot be answered (NDNLPv2, "Network Nack")."""

    NONE = 0
    CONGESTION = 50
    DUPLICATE = 100
    NO_ROUTE = 150


class LinkPacket(Struct, frozen=True):
    """One received datagram."""

    fragment: bytes  #: the network-layer packet; empty in an IDLE packet, which only says that the sender is there
    nack_reason: int | None = None
    session_state: int | None = None
    is_detour: bool = False  #: an Interest off its best way: not to be aggregated without a look for loops


_IDLE_STATES = tuple(tlv(LP_PACKET, tlv(_SESSION_STATE, bytes((state,)))) for state in range(4))
_DETOUR_FIELD = tlv(_DETOUR, b"")
_NACKS = {reason: tlv(_NACK, tlv(_NACK_REASON, bytes((reason,)))) for reason in NackReason}


def encode_idle(session_state: int) -> bytes:
    """Return a face heartbeat."""
    return _IDLE_STATES[session_state]


def encode_detour(interest_wire: bytes) -> bytes:
    """Return an Interest marked as being off its best way."""
    return tlv(LP_PACKET, _DETOUR_FIELD + tlv(_FRAGMENT, interest_wire))


def encode_nack(interest_wire: bytes, reason: NackReason) -> bytes:
    """Return the Nack of an Interest."""
    return tlv(LP_PACKET, _NACKS[reason] + tlv(_FRAGMENT, interest_wire))


def decode_link_packet(datagram: bytes) -> LinkPacket:
    """Decode a datagram; a bare Interest or Data is its own fragment and is not looked into.

    Raises: MalformedError.
    """
    if not datagram:
        raise MalformedError("empty datagram")
    if datagram[0] in (INTEREST, DATA):
        return LinkPacket(datagram)
    kind, at, end = read_element(datagram, 0, len(datagram))
    if kind != LP_PACKET or end != len(datagram):
        raise MalformedError(f"neither Interest, Data nor link packet: type {kind}")
    fragment, nack_reason, session_state, is_detour = b"", None, None, False
    while at < end:
        kind, start, at = read_element(datagram, at, end)
        if kind == _FRAGMENT:
            fragment = datagram[start:at]
        elif kind == _NACK:
            nack_reason = _nack_reason(datagram, start, at)
        elif kind == _SESSION_STATE:
            session_state = read_non_negative_integer(datagram, start, at)
            if session_state > 3:
                raise MalformedError(f"session state {session_state}")
        elif kind == _DETOUR:
            is_detour = True
        elif kind == _FRAG_COUNT and read_non_negative_integer(datagram, start, at) != 1:
            raise MalformedError("fragmented packet: not supported")
        elif not _may_be_ignored(kind):
            raise MalformedError(f"unknown link header field {kind}")
    return LinkPacket(fragment, nack_reason, session_state, is_detour)


def _nack_reason(datagram: bytes, at: int, end: int) -> int:
    while at < end:
        kind, start, at = read_element(datagram, at, end)
        if kind == _NACK_REASON:
            return read_non_negative_integer(datagram, start, at)
    return NackReason.NONE


def _may_be_ignored(kind: int) -> bool:
    """Fields we know and do not use yet (sequence numbers, fragment index), and the ignorable range."""
    return kind in (0x51, _FRAG_INDEX, _FRAG_COUNT) or (800 <= kind <= 959 and kind % 4 == 0) or kind in (836, 840)
