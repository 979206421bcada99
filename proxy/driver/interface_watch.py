"""Carrier and MTU of the interfaces in this namespace, from the kernel's routing socket (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Final, NamedTuple

import trio

_RTMGRP_LINK: Final = 1
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_F_REQUEST_DUMP: Final = 0x301
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change mask
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_IFLA_MTU: Final = 4
_RECEIVE_BYTES: Final = 65_536


class InterfaceState(NamedTuple):
    """What a link message says of an interface."""

    interface: int  #: its index in the namespace
    has_carrier: bool
    mtu_bytes: int | None  #: None: it does not say


def parse_link_messages(buffer: bytes) -> Iterator[InterfaceState]:
    """Yield what every link message in a netlink datagram says; stop where it is cut short."""
    at = 0
    while at + _HEADER.size <= len(buffer):
        length, kind, *_ = _HEADER.unpack_from(buffer, at)
        if length < _HEADER.size or at + length > len(buffer):
            return
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and length >= _HEADER.size + _LINK.size:
            _, _, index, flags, _ = _LINK.unpack_from(buffer, at + _HEADER.size)
            has_carrier = kind == _RTM_NEWLINK and flags & (_IFF_UP | _IFF_LOWER_UP) == _IFF_UP | _IFF_LOWER_UP
            attributes = buffer[at + _HEADER.size + _LINK.size : at + length]
            yield InterfaceState(index, has_carrier, _mtu_bytes(attributes))
        at += _aligned(length)


def _mtu_bytes(attributes: bytes) -> int | None:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind == _IFLA_MTU and length == _ATTRIBUTE.size + 4 and at + length <= len(attributes):
            return int.from_bytes(attributes[at + _ATTRIBUTE.size : at + length], sys.byteorder)
        at += _aligned(length)
    return None


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class InterfaceWatch:
    """Opened in a namespace it stays bound to it. First tells the state of every interface, then every change."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, _RTMGRP_LINK))
        self._ask()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def _ask(self) -> None:
        size = _HEADER.size + _LINK.size
        request = _HEADER.pack(size, _RTM_GETLINK, _NLM_F_REQUEST_DUMP, 1, 0) + _LINK.pack(0, 0, 0, 0, 0)
        self._socket.send(request)

    async def changes(self) -> AsyncGenerator[InterfaceState, None]:
        """Yield the state of one interface after another until cancelled; it may be as before."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                buffer = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # ENOBUFS: messages were lost, so ask for the whole state again
                self._ask()
                continue
            for change in parse_link_messages(buffer):
                yield change

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
