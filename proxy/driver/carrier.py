"""Carrier of the interfaces in this namespace, from the kernel's routing socket (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Iterator
from typing import Final

import trio

_RTMGRP_LINK: Final = 1
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_F_REQUEST_DUMP: Final = 0x301
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change mask
_RECEIVE_BYTES: Final = 65_536


def parse_link_messages(buffer: bytes) -> Iterator[tuple[int, bool]]:
    """Yield (interface index, has carrier) of every link message in a netlink datagram; stop where it is cut short."""
    at = 0
    while at + _HEADER.size <= len(buffer):
        length, kind, *_ = _HEADER.unpack_from(buffer, at)
        if length < _HEADER.size or at + length > len(buffer):
            return
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and length >= _HEADER.size + _LINK.size:
            _, _, index, flags, _ = _LINK.unpack_from(buffer, at + _HEADER.size)
            yield index, kind == _RTM_NEWLINK and flags & (_IFF_UP | _IFF_LOWER_UP) == _IFF_UP | _IFF_LOWER_UP
        at += (length + 3) & ~3


class CarrierWatch:
    """Opened in a namespace it stays bound to it. First tells the carrier of every interface, then every change."""

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

    async def changes(self) -> AsyncGenerator[tuple[int, bool], None]:
        """Yield (interface index, has carrier) until cancelled; a value may repeat."""
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
