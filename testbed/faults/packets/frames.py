"""Ethernet, IPv4 and UDP around a datagram: found in a frame, or put around it anew with right lengths and checksums."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

NDN_PORT: Final = 6363
_ETHERTYPE_IPV4: Final = b"\x08\x00"
_ETHERNET_BYTES: Final = 14
_UDP: Final = 17
_HOP_LIMIT: Final = 64


@dataclass(frozen=True, slots=True)
class LaneEnds:
    """One direction of a link: who sends to whom, and by which addresses."""

    link: str
    sender: str
    receiver: str
    sender_mac: str
    receiver_mac: str
    sender_address: str
    receiver_address: str

    def frame(self, datagram: bytes, *, checksum_right: bool = True) -> bytes:
        """Return the frame in which the sender's forwarder would send *datagram*; with a wrong checksum no kernel takes it."""
        source, target = IPv4Address(self.sender_address).packed, IPv4Address(self.receiver_address).packed
        udp_bytes = 8 + len(datagram)
        udp = struct.pack("!HHHH", NDN_PORT, NDN_PORT, udp_bytes, 0)
        pseudo = source + target + struct.pack("!BBH", 0, _UDP, udp_bytes)
        checksum = _checksum(pseudo + udp + datagram) or 0xFFFF  # RFC 768: 0 says that there is none
        if not checksum_right:
            checksum = checksum ^ 0x5555 or 0xFFFF
        udp = udp[:6] + checksum.to_bytes(2, "big")
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + udp_bytes, 0, 0x4000, _HOP_LIMIT, _UDP, 0) + source + target
        ip = ip[:10] + _checksum(ip).to_bytes(2, "big") + ip[12:]
        return _mac(self.receiver_mac) + _mac(self.sender_mac) + _ETHERTYPE_IPV4 + ip + udp + datagram


def datagram_in(frame: bytes) -> bytes | None:
    """Return what a frame carries for or from a forwarder: the octets of a UDP datagram of port 6363; None: it does not."""
    if frame[12:14] != _ETHERTYPE_IPV4 or len(frame) < _ETHERNET_BYTES + 28 or frame[14] >> 4 != 4:
        return None
    udp_at = _ETHERNET_BYTES + (frame[14] & 15) * 4
    if frame[23] != _UDP or len(frame) < udp_at + 8 or int.from_bytes(frame[20:22], "big") & 0x1FFF:
        return None
    source, target, size = struct.unpack_from("!HHH", frame, udp_at)
    if NDN_PORT not in (source, target) or size < 8 or udp_at + size > len(frame):
        return None
    return frame[udp_at + 8 : udp_at + size]


def _checksum(octets: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    if len(octets) % 2:
        octets += b"\0"
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
