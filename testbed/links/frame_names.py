"""What an Ethernet frame carries, as far as links treat frames by it: the kind and name of its NDN packet.

A look at a few octets, for every frame of a link that loses some: nothing is decoded, nothing that is sent can make it raise,
and it looks at no more than the headers of one packet. Sources: NDN Packet Format 0.3; NDNLPv2.
"""

from __future__ import annotations

from typing import Final

ETHERNET_BYTES: Final = 14
_IPV4_BYTES: Final = 20
_UDP_BYTES: Final = 8
_UDP: Final = 17
NDN_PORT: Final = 6363

INTEREST: Final = 5
DATA: Final = 6
#: Of an Interest that comes back refused; on the wire that is a header field.
NACK: Final = 3
KINDS: Final = {INTEREST: "Interest", DATA: "Data", NACK: "Nack"}

_LP_PACKET: Final = 0x64
_LP_FRAGMENT: Final = 0x50
_LP_FRAG_COUNT: Final = 0x53
_LP_NACK: Final = 0x0320
_LP_FIELDS_MAX: Final = 16
_NAME: Final = 7
#: Components that depend on the content, times and signatures included: another run has others.
_DIGESTS: Final = (1, 2)
_COMPONENTS_MAX: Final = 64
_CONVENTIONS: Final = {50: "seg", 52: "off", 54: "v", 56: "t", 58: "seq"}  # NDN Naming Conventions, revision 3
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_GENERIC: Final = 8


def name_in_frame(frame: bytes, start: int = 0) -> bytes:
    """Return what identifies the NDN packet in an Ethernet frame that begins at *start*; empty if it has no name.

    The packet's kind in one octet, then its name's components without those that are digests: what a rerun sends again.
    A fragment of a packet has none, nor has anything but a whole UDP datagram from or to the NDN port.
    """
    ip = start + ETHERNET_BYTES
    if len(frame) < ip + _IPV4_BYTES + _UDP_BYTES or frame[ip - 2] != 8 or frame[ip - 1] != 0:
        return b""
    if frame[ip] >> 4 != 4 or frame[ip + 9] != _UDP or frame[ip + 6] & 0x3F or frame[ip + 7]:  # MF, or an offset
        return b""
    udp = ip + (frame[ip] & 0xF) * 4
    if len(frame) < udp + _UDP_BYTES:
        return b""
    source = frame[udp] << 8 | frame[udp + 1]
    destination = frame[udp + 2] << 8 | frame[udp + 3]
    if source != NDN_PORT and destination != NDN_PORT:  # noqa: PLR1714  no tuple is made
        return b""
    return name_in_packet(frame, udp + _UDP_BYTES)


def name_in_packet(packet: bytes, start: int = 0) -> bytes:
    r"""Return the same of what a UDP datagram holds: an NDN packet, or an NDNLPv2 one around it.

    >>> name_in_packet(bytes.fromhex("05050703080161"))
    b'\x05\x08\\x01a'
    """
    at, kind = start, 0
    if at < len(packet) and packet[at] == _LP_PACKET:
        at, kind = _inside_lp(packet, at)
    if at < 0 or at >= len(packet) or packet[at] not in (INTEREST, DATA):
        return b""
    kind = kind or packet[at]
    at = _skip_length(packet, at + 1)
    if at < 0 or at + 1 >= len(packet) or packet[at] != _NAME:
        return b""
    length, at = _length(packet, at + 1)
    return _without_digests(packet, at, at + length, kind) if length > 0 and at + length <= len(packet) else b""


def _inside_lp(packet: bytes, at: int) -> tuple[int, int]:
    """Return where the network packet in an NDNLPv2 packet begins, and NACK if it is refused; -1 if it has no whole one."""
    at = _skip_length(packet, at + 1)
    kind = 0
    for _ in range(_LP_FIELDS_MAX):
        if at < 0 or at + 1 >= len(packet):
            break
        field = packet[at]
        at += 1
        if field == 0xFD and at + 2 <= len(packet):
            field = packet[at] << 8 | packet[at + 1]
            at += 2
        length, at = _length(packet, at)
        if field == _LP_FRAGMENT:
            return at, kind
        if field == _LP_FRAG_COUNT and length == 1 and at < len(packet) and packet[at] != 1:
            break
        if length < 0:
            break
        if field == _LP_NACK:
            kind = NACK
        at += length
    return -1, 0


def _length(packet: bytes, at: int) -> tuple[int, int]:
    """Return the TLV-LENGTH at *at* and where its value begins; (-1, -1) if there is none, or it is over 64 KiB."""
    if at < 0 or at >= len(packet):
        return -1, -1
    first = packet[at]
    if first < 0xFD:
        return first, at + 1
    if first == 0xFD and at + 3 <= len(packet):
        return packet[at + 1] << 8 | packet[at + 2], at + 3
    return -1, -1


def _skip_length(packet: bytes, at: int) -> int:
    return _length(packet, at)[1]


def _without_digests(packet: bytes, at: int, end: int, kind: int) -> bytes:
    """Return *kind* and the components of a name; empty if they are not well-formed."""
    first = at
    kept = b""
    for _ in range(_COMPONENTS_MAX):
        if at >= end:
            break
        begin, type_ = at, packet[at]
        at += 3 if type_ == 0xFD else 1
        length, at = _length(packet, at)
        if length < 0 or at + length > end:
            return b""
        at += length
        if type_ in _DIGESTS:
            kept += packet[first:begin]
            first = at
    return bytes([kind]) + kept + packet[first:at]


def spell(name: bytes) -> str:
    """Return what `name_in_packet` found, for people: the kind, and the name as a URI; empty for an empty one.

    >>> spell(bytes.fromhex("0508016120043d6d6f6436020003"))
    'Interest /a/32=%3Dmod/v=3'
    """
    if not name:
        return ""
    at, parts = 1, [""]
    while at < len(name):
        type_ = name[at]
        at += 1
        if type_ == 0xFD:
            type_ = name[at] << 8 | name[at + 1]
            at += 2
        length, at = _length(name, at)
        parts.append(_spell_component(type_, name[at : at + length]))
        at += length
    return f"{KINDS[name[0]]} {'/'.join(parts) or '/'}"


def _spell_component(type_: int, value: bytes) -> str:
    marker = _CONVENTIONS.get(type_)
    if marker is not None and len(value) in (1, 2, 4, 8):
        return f"{marker}={int.from_bytes(value, 'big')}"
    text = "".join(chr(octet) if octet in _PLAIN else f"%{octet:02X}" for octet in value)
    if not text.strip("."):
        text += "..."  # a URI's . and .. mean something else
    return text if type_ == _GENERIC else f"{type_}={text}"
