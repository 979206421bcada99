"""Real sockets behind the faces of a core: UDP to the neighbours, a Unix packet socket between forwarder and service proxy."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path
from typing import Final

import trio

from proxy.config import FaceConfig
from proxy.core.events import LOCAL_FACE, CarrierChanged
from proxy.driver.packet_loop import Dispatch, PacketLoop, PacketSocket

RECONNECT_INTERVAL_S: Final = 0.05
#: An empty link packet, the first that a forwarder sends to its service proxy.
_WELCOME: Final = b"\x64\x00"


def open_udp_face(face: FaceConfig, counters: dict[str, int]) -> PacketSocket:
    """Return the socket of a face, bound to its own address and connected to the neighbour's.

    Raises: OSError where the interface is not there.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind((face.local_address, face.port))
        sock.connect((face.remote_address, face.port))
        return PacketSocket(face.face_id, sock, counters)
    except OSError:
        sock.close()
        raise


def listen_for_service(path: Path) -> socket.socket:
    """Return the listening socket at which the service proxy of this node attaches. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(4)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class LocalFace:
    """A face over a Unix socket: the forwarder's end accepts, the proxy's end connects; both survive the other's death."""

    def __init__(self, loop: PacketLoop, dispatch: Dispatch, *, face_id: int = LOCAL_FACE) -> None:
        self.face_id = face_id
        self.counters: dict[str, int] = Counter()
        self.attached = trio.Event()  #: for the first time
        self._loop, self._dispatch = loop, dispatch
        self._attached: PacketSocket | None = None

    def send(self, packet: bytes) -> None:
        """Send now or never."""
        if self._attached is None:
            self.counters["send_errors"] += 1
        else:
            self._attached.send(packet)

    async def accept_forever(self, listener: socket.socket) -> None:
        """Serve one service proxy after the other; a new one replaces the old (its process has been restarted)."""
        self._loop.watch(listener.fileno())
        with listener:
            await self._accept_forever(listener)

    async def _accept_forever(self, listener: socket.socket) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    continue
                if self._attached is not None:
                    self._loop.remove(self._attached)
                    self._detach(self._attached)
                nursery.start_soon(self._run, PacketSocket(self.face_id, accepted, self.counters), _WELCOME)

    async def connect_forever(self, path: Path) -> None:
        """Stay attached to the forwarder of this node, however often it goes away."""
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            try:
                sock.connect(os.fspath(path))
            except OSError:
                sock.close()
                await trio.sleep(RECONNECT_INTERVAL_S)
                continue
            if not await self._is_welcome(sock):
                sock.close()
                continue
            await self._run(PacketSocket(self.face_id, sock, self.counters, looks_ahead=True))

    async def _is_welcome(self, sock: socket.socket) -> bool:
        """Wait until the forwarder has taken us in; before, what comes for us is refused as if we were not there."""
        self._loop.watch(sock.fileno())
        try:
            await trio.lowlevel.wait_readable(sock)
            return sock.recv(len(_WELCOME) + 1, socket.MSG_DONTWAIT) == _WELCOME
        except OSError:
            return False
        finally:
            self._loop.unwatch(sock.fileno())

    async def _run(self, packets: PacketSocket, greeting: bytes = b"") -> None:
        self._attached = packets
        self.attached.set()
        self._loop.add(packets)
        if greeting:
            packets.send(greeting)
        self._dispatch(CarrierChanged(self.face_id, up=True))
        try:
            await packets.ended.wait()
        finally:
            self._loop.remove(packets)
        self._detach(packets)

    def _detach(self, packets: PacketSocket) -> None:
        if self._attached is packets:
            self._attached = None
            self._dispatch(CarrierChanged(self.face_id, up=False))
