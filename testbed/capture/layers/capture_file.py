"""From captured frames to NDN layers and back. Nothing here, nor importing it, changes what scapy does for others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw, bind_bottom_up, split_bottom_up
from scapy.utils import PcapReader

from testbed.capture.layers.link import NdnPacket
from testbed.capture.layers.ndn import PORT


def read_capture(path: Path | str) -> Iterator[Packet]:
    """Yield the packets of a pcap or pcapng file, of ours or of tcpdump, with the layers of NDN above UDP.

    Raises: OSError; scapy.error.Scapy_Exception where it is no capture.
    """
    with PcapReader(str(path)) as reader:
        for packet in reader:
            yield opened(packet)


def opened(packet: Packet) -> Packet:
    """Return *packet*, in which the octets of a datagram from or to port 6363 have become layers."""
    udp = packet.getlayer(UDP)
    if udp is not None and PORT in (udp.sport, udp.dport) and isinstance(udp.payload, Raw):
        octets, behind = udp.payload.load, udp.payload.payload
        udp.remove_payload()
        udp.add_payload(NdnPacket(octets) / behind if behind else NdnPacket(octets))
    return packet


def with_lengths(packet: Packet) -> Packet:
    """Return a copy of an edited packet whose lengths and checksums of IP and UDP are computed anew when it is built."""
    edited = packet.copy()
    for layer, fields in ((IP, ("len", "chksum")), (UDP, ("len", "chksum"))):
        found = edited.getlayer(layer)
        if found is not None:
            for field in fields:
                found.delfieldval(field)
    return edited


@contextlib.contextmanager
def ndn_layers() -> Iterator[None]:
    """Have scapy itself (``sniff``, ``rdpcap``, ``IP(...)``) dissect UDP port 6363 as NDN, in this block only."""
    if any(layer is NdnPacket for _, layer in UDP.payload_guess):
        yield  # inside another one, whose end is the end
        return
    ports = ({"sport": PORT}, {"dport": PORT})
    for port in ports:
        bind_bottom_up(UDP, NdnPacket, port)
    try:
        yield
    finally:
        for port in ports:
            split_bottom_up(UDP, NdnPacket, port)
