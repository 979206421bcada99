"""Pairs of veth interfaces: one end in a host's namespace, the other in one that belongs to the links alone.

    host a                 the links' namespace                 host b
    a-eth0 <── veth ──> x0a ── redirected ──> x0b <── veth ──> b-eth0

What the links do to frames they do where those leave towards a host, out of reach of whoever types at a host; and a host
sees its carrier go, as with a cable, while its interface stays as it is. Source: veth(4), linux/if_link.h, linux/ethtool.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
from pathlib import Path
from typing import Final

from testbed.links.model import LinkEnd
from testbed.links.netem.attributes import attribute, nested, parse, text, u32
from testbed.links.rtnetlink import Request, add_address, add_permanent_neighbour, bring_up
from topologies.errors import InputError

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_F_EXCL_CREATE: Final = 0x200 | 0x400
_IFINFO: Final = struct.Struct("=BBHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_STATS64 = 1, 3, 4, 18, 23
_IFLA_OPERSTATE, _IFLA_IFALIAS, _IFLA_NET_NS_FD, _IFLA_CARRIER, _IFLA_GSO_MAX_SEGS = 16, 20, 28, 33, 40
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFF_UP, _IFF_RUNNING = 1, 0x40
_IF_OPER_UP: Final = 6
_STATS64_RX_PACKETS, _STATS64_TX_DROPPED = 0, 7  # indices in struct rtnl_link_stats64
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17

#: Of the ends in the links' namespace: whatever a host may send fits.
INNER_MTU_BYTES: Final = 65_535


def make_pair(inner: str, *, outer: LinkEnd, netns_fd: int, mtu_bytes: int) -> Request:
    """Make both ends at once, the outer one in the namespace of *netns_fd*; to be sent in the links' namespace."""
    try:
        mac = bytes.fromhex(outer.mac.replace(":", ""))
        if len(mac) != 6:
            raise ValueError("a MAC has six bytes")
    except ValueError as error:
        raise InputError(
            where=f"host {outer.host}: interface {outer.intf}",
            problem=f"{outer.mac}: {error}",
            remedy="write a MAC as 02:00:00:00:00:01",
        ) from error
    peer = _IFINFO.pack(0, 0, 0, 0, 0, 0) + b"".join(
        (
            text(_IFLA_IFNAME, outer.intf),
            attribute(_IFLA_ADDRESS, mac),
            u32(_IFLA_MTU, mtu_bytes),
            u32(_IFLA_NET_NS_FD, netns_fd),
        )
    )
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, attribute(_VETH_INFO_PEER, peer)))
    payload = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, inner) + u32(_IFLA_MTU, INNER_MTU_BYTES) + info
    return _RTM_NEWLINK, _NLM_F_EXCL_CREATE, payload


def set_up(index: int, *, up: bool) -> Request:
    """Bring an interface up or down: its peer gets or loses its carrier."""
    return _RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, index, _IFF_UP if up else 0, _IFF_UP)


def tell_listeners(intf: str) -> Request:
    """Have the kernel tell whoever listens in the host how its interface is now.

    It does by itself, but of a carrier that went only within a second (link watch); a new alias is told at once.
    """
    return _RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, intf) + text(_IFLA_IFALIAS, "netem")


def delete(index: int) -> Request:
    """Remove an interface, and its peer with it."""
    return _RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0)


def send_single_frames(index: int) -> Request:
    """Have the host cut what it sends into frames by itself: a batch of 64 KiB would be lost or delayed as one."""
    return _RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0) + u32(_IFLA_GSO_MAX_SEGS, 1)


def configure_outer(end: LinkEnd) -> list[tuple[str, Request]]:
    """Return what the outer end needs, each with what to call it; to be sent in the host's namespace.

    Raises: InputError, OSError. The calling thread must be in the host's namespace.
    """
    index = socket.if_nametoindex(end.intf)
    # before it is up, or captures fill with neighbour discovery; a kernel without IPv6 has no such file
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{end.intf}/disable_ipv6").write_bytes(b"1")
    fill_in_checksums(end.intf)
    address, _, prefix_length = end.address.partition("/")
    try:
        local = add_address(index, address=socket.inet_aton(address), prefix_length=int(prefix_length))
        peer_mac = bytes.fromhex(end.peer_mac.replace(":", ""))
        neighbour = add_permanent_neighbour(index, address=socket.inet_aton(end.peer_address), mac=peer_mac)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(
            where=f"host {end.host}: interface {end.intf}",
            problem=f"{end.address}, {end.peer_mac}, {end.peer_address}: {error}",
            remedy="write an IPv4 address as 10.0.0.0/31 (the peer's without /31)",
        ) from error
    return [
        ("to send single frames", send_single_frames(index)),
        (f"address {end.address}", local),
        ("to bring it up", bring_up(index)),
        (f"neighbour {end.peer_address}", neighbour),
    ]


def fill_in_checksums(intf: str) -> None:
    """Have the kernel compute checksums before a frame leaves, or captures would show wrong ones. Raises: OSError."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", intf.encode(), ctypes.addressof(value)))


class InterfaceState:
    """What the kernel says of an interface."""

    __slots__ = ("carrier", "index", "is_running", "name", "received_packets", "unsent_packets")

    def __init__(self, message: bytes) -> None:
        _, _, _, self.index, flags, _ = _IFINFO.unpack_from(message)
        found = dict(parse(message[_IFINFO.size :]))
        self.name = found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
        #: It has a carrier, and the kernel has acted on that: it sends. Until then it drops whatever is sent. IFF_RUNNING alone
        #: does not say so: as long as the kernel has not looked after the carrier once (operstate "unknown"), it is there, too.
        self.is_running = bool(flags & _IFF_RUNNING) and found.get(_IFLA_OPERSTATE, b"\0")[0] == _IF_OPER_UP
        self.carrier = found.get(_IFLA_CARRIER, b"\0")[0] == 1
        stats = found.get(_IFLA_STATS64, bytes(64))
        (self.received_packets,) = struct.unpack_from("=Q", stats, 8 * _STATS64_RX_PACKETS)
        (self.unsent_packets,) = struct.unpack_from("=Q", stats, 8 * _STATS64_TX_DROPPED)


def all_links() -> tuple[int, bytes]:
    """Return the dump request for all interfaces of a namespace."""
    return _RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0, 0)


def set_mtu_by_name(intf: str, mtu_bytes: int) -> Request:
    return _RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, intf) + u32(_IFLA_MTU, mtu_bytes)
