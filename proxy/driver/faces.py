"""Real sockets behind the faces of a core: UDP to the neighbours, a Unix packet socket between the halves of a CSR."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from proxy.config import FaceConfig
from proxy.core.events import LOCAL_FACE, CarrierChanged, Event, PacketReceived
from proxy.wire.tlv import PACKET_MAX_BYTES

#: Datagrams taken from a socket before other tasks get their turn.
BURST_MAX: Final = 64
#: The kernel's buffer per socket: a burst of notifications to all clients of a CSR must fit.
BUFFER_BYTES: Final = 1024 * 1024
RECONNECT_INTERVAL_S: Final = 0.05
#: One more than is allowed, so that a datagram that is too long shows.
_RECEIVE_BYTES: Final = PACKET_MAX_BYTES + 1

Dispatch = Callable[[Event], None]


class PacketSocket:
    """One socket that carries whole packets. What cannot be sent at once is dropped and counted, as a network would."""

    def __init__(self, face_id: int, sock: socket.socket, counters: dict[str, int]) -> None:
        self.face_id, self._socket, self._counters = face_id, sock, counters
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)

    def send(self, packet: bytes) -> None:
        """Send now or never."""
        try:
            self._socket.send(packet)
        except BlockingIOError:
            self._counters["send_buffer_full"] += 1
        except OSError:  # no carrier, no route, nobody listens (ECONNREFUSED of an earlier datagram)
            self._counters["send_errors"] += 1

    async def receive_all(self, dispatch: Dispatch) -> None:
        """Hand every packet to *dispatch* until the peer closes (Unix) or the task is cancelled (UDP)."""
        face_id, receive = self.face_id, self._socket.recv
        is_stream = self._socket.family == socket.AF_UNIX
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            for _ in range(BURST_MAX):
                try:
                    packet = receive(_RECEIVE_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    self._counters["receive_errors"] += 1
                    if is_stream:
                        return
                    continue
                if not packet and is_stream:
                    return
                if len(packet) > PACKET_MAX_BYTES:
                    self._counters["malformed"] += 1
                    continue
                dispatch(PacketReceived(face_id, packet))
            else:
                await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


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
    """Return the listening socket at which the service proxy of this CSR attaches. Raises: OSError."""
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
    """Face 0 over a Unix socket: the forwarder's end accepts, the proxy's end connects; both survive the other's death."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.counters: dict[str, int] = Counter()
        self._dispatch = dispatch
        self._attached: PacketSocket | None = None

    def send(self, packet: bytes) -> None:
        """Send now or never."""
        if self._attached is None:
            self.counters["send_errors"] += 1
        else:
            self._attached.send(packet)

    async def accept_forever(self, listener: socket.socket) -> None:
        """Serve one service proxy after the other; a new one replaces the old (its process has been restarted)."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    continue
                if self._attached is not None:
                    self._attached.close()
                    self._detach(self._attached)
                nursery.start_soon(self._run, PacketSocket(LOCAL_FACE, accepted, self.counters))

    async def connect_forever(self, path: Path) -> None:
        """Stay attached to the forwarder of this CSR, however often it goes away."""
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            try:
                sock.connect(os.fspath(path))
            except OSError:
                sock.close()
                await trio.sleep(RECONNECT_INTERVAL_S)
                continue
            await self._run(PacketSocket(LOCAL_FACE, sock, self.counters))

    async def _run(self, packets: PacketSocket) -> None:
        self._attached = packets
        self._dispatch(CarrierChanged(LOCAL_FACE, up=True))
        try:
            await packets.receive_all(self._dispatch)
        except trio.ClosedResourceError:
            return  # replaced by a newer one, which has been announced
        finally:
            packets.close()
        self._detach(packets)

    def _detach(self, packets: PacketSocket) -> None:
        if self._attached is packets:
            self._attached = None
            self._dispatch(CarrierChanged(LOCAL_FACE, up=False))
