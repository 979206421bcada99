"""The few rtnetlink requests that a TAP interface needs, batched.

One `sendmsg` carries any number of requests; the kernel carries them out in order and acknowledges each. (A socket stays
bound to the network namespace it was opened in. pyroute2 does the same; importing it costs the emulator a quarter of a
second and each request several hundred microseconds.) Source: rtnetlink(7), netlink(7), linux/if_link.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

_NLMSG_ERROR: Final = 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWNEIGH = 16, 17, 18, 20, 28
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLM_F_EXCL_CREATE: Final = 0x200 | 0x400
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_TXQLEN, _IFLA_STATS64, _IFLA_GROUP, _IFLA_CARRIER = 1, 4, 13, 23, 27, 33
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT: Final = 0x80
_IFF_UP: Final = 1
_DELETED_GROUP: Final = 0x68636F6E  #: a number that nobody else gives a group of interfaces
_BATCH_BYTES: Final = 16_384  # well under the socket's send buffer; its acks fit into the receive buffer
_RECEIVE_BYTES: Final = 65_536
_DUMP_BYTES: Final = 1 << 18  # as much as one datagram of a dump may have, and more
_STATS64_TX_DROPPED: Final = 7  # index of the counter in struct rtnl_link_stats64

Request = tuple[int, int, bytes]  #: type, flags, payload


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _link(index: int, *attributes: bytes, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, change) + b"".join(attributes)


def configure_link(index: int, *, mac: bytes, mtu_bytes: int, txqueuelen_packets: int) -> Request:
    """Set the MAC address, the MTU and the transmit queue of an interface that is down."""
    attributes = (
        _attribute(_IFLA_ADDRESS, mac),
        _attribute(_IFLA_MTU, struct.pack("=I", mtu_bytes)),
        _attribute(_IFLA_TXQLEN, struct.pack("=I", txqueuelen_packets)),
    )
    return _RTM_NEWLINK, 0, _link(index, *attributes)


def set_mtu(index: int, mtu_bytes: int) -> Request:
    return _RTM_NEWLINK, 0, _link(index, _attribute(_IFLA_MTU, struct.pack("=I", mtu_bytes)))


def bring_up(index: int) -> Request:
    return _RTM_NEWLINK, 0, _link(index, flags=_IFF_UP, change=_IFF_UP)


def set_carrier(index: int, *, up: bool) -> Request:
    """Set the carrier, and tell listeners at once (after TUNSETCARRIER alone the kernel may take up to a second)."""
    return _RTM_NEWLINK, 0, _link(index, _attribute(_IFLA_CARRIER, bytes([up])))


def delete_together(indices: Iterable[int]) -> list[Request]:
    """Delete interfaces in one go, for which the kernel waits once and not once for each: as a group, by the last request."""
    group = _attribute(_IFLA_GROUP, struct.pack("=I", _DELETED_GROUP))
    return [*((_RTM_NEWLINK, 0, _link(index, group)) for index in indices), (_RTM_DELLINK, 0, _link(0, group))]


def add_address(index: int, *, address: bytes, prefix_length: int) -> Request:
    payload = struct.pack("=BBBBi", socket.AF_INET, prefix_length, 0, 0, index)
    payload += _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
    return _RTM_NEWADDR, _NLM_F_EXCL_CREATE, payload


def add_permanent_neighbour(index: int, *, address: bytes, mac: bytes) -> Request:
    payload = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
    payload += _attribute(_NDA_DST, address) + _attribute(_NDA_LLADDR, mac)
    return _RTM_NEWNEIGH, _NLM_F_EXCL_CREATE, payload


class LinkState:
    """What the kernel says of an interface."""

    __slots__ = ("carrier", "mtu_bytes", "tx_dropped_packets")

    def __init__(self, *, carrier: bool, mtu_bytes: int, tx_dropped_packets: int) -> None:
        self.carrier, self.mtu_bytes, self.tx_dropped_packets = carrier, mtu_bytes, tx_dropped_packets


class RouteSocket:
    """An rtnetlink socket of the namespace that the calling thread is in when it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def _encode(self, request: Request) -> bytes:
        kind, flags, payload = request
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(payload), kind, flags | _NLM_F_REQUEST, self._sequence, 0)
        return header + payload + b"\0" * (-len(payload) % 4)

    def carry_out(self, requests: list[Request]) -> list[int]:
        """Carry out *requests* in order; return the error number of each, 0 where it worked."""
        errors: dict[int, int] = {}
        first = self._sequence + 1
        encoded = [self._encode((kind, flags | _NLM_F_ACK, payload)) for kind, flags, payload in requests]
        start = 0
        while start < len(encoded):
            stop, size_bytes = start, 0
            while stop < len(encoded) and (stop == start or size_bytes + len(encoded[stop]) <= _BATCH_BYTES):
                size_bytes += len(encoded[stop])
                stop += 1
            self._socket.send(b"".join(encoded[start:stop]))
            while len(errors) < stop:
                errors.update(self._received_acks())
            start = stop
        return [errors[first + index] for index in range(len(encoded))]

    def _received_acks(self) -> dict[int, int]:
        data, acks, offset = self._socket.recv(_RECEIVE_BYTES), {}, 0
        while offset < len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            if kind == _NLMSG_ERROR:
                acks[sequence] = -struct.unpack_from("=i", data, offset + 16)[0]
            offset += (length + 3) & ~3
        return acks

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """Return the payload of every message that answers a dump request (an RTM_GET of *kind*). Raises: OSError."""
        self._socket.send(self._encode((kind, _NLM_F_DUMP, payload)))
        found: list[bytes] = []
        while True:
            data, offset = self._socket.recv(_DUMP_BYTES), 0
            while offset < len(data):
                length, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                body = data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                found.append(body)

    def link_state(self, index: int) -> LinkState:
        """Read carrier and counters of an interface back from the kernel. Raises: OSError if there is none."""
        self._socket.send(self._encode((_RTM_GETLINK, 0, _link(index))))
        data = self._socket.recv(_RECEIVE_BYTES)
        length, kind, *_ = struct.unpack_from("=IHHII", data)
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", data, 16)[0]
            raise OSError(number, f"interface {index}: {os.strerror(number)}")
        carrier, mtu_bytes, tx_dropped, offset = False, 0, 0, 16 + 16
        while offset + 4 <= length:
            size, attribute = struct.unpack_from("=HH", data, offset)
            if attribute == _IFLA_CARRIER:
                carrier = bool(data[offset + 4])
            elif attribute == _IFLA_MTU:
                (mtu_bytes,) = struct.unpack_from("=I", data, offset + 4)
            elif attribute == _IFLA_STATS64:
                (tx_dropped,) = struct.unpack_from("=Q", data, offset + 4 + 8 * _STATS64_TX_DROPPED)
            offset += (size + 3) & ~3
        return LinkState(carrier=carrier, mtu_bytes=mtu_bytes, tx_dropped_packets=tx_dropped)
