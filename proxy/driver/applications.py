"""Faces to the applications of a node: a unix stream socket, and TCP and UDP on its loopback interface.

Whatever an application does, only its own face suffers: it waits its turn when it floods, is cut off when it sends what no
packet starts with, and loses what it does not read.
"""

from __future__ import annotations

import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from proxy.driver.packet_loop import BUFFER_BYTES, BURST_MAX, PacketLoop
from proxy.wire.stream import packet_end
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError

#: Connections, and senders of datagrams, at a time.
APPLICATIONS_MAX: Final = 256
SENDERS_MAX: Final = 64
#: A sender of datagrams that says nothing for so long has gone (NFD: 600 s), or makes room for another.
SENDER_IDLE_S: Final = 600.0
SENDER_EVICTABLE_S: Final = 5.0
#: What waits for an application that does not read; beyond that, packets to it are dropped.
WAITING_MAX_BYTES: Final = 1024 * 1024
LOOPBACK: Final = "127.0.0.1"
_READ_BYTES: Final = 16 * 1024

AddFace = Callable[[str, str], int]  #: (remote URI, local URI) -> face ID
RemoveFace = Callable[[int], None]
Deliver = Callable[[int, bytes], None]  #: (face ID, packet)


class ApplicationFace(Protocol):
    """Where packets to an application go."""

    def send(self, packet: bytes) -> None: ...


class Applications:
    """All applications of this node; *faces* is where their faces are found while they live."""

    def __init__(
        self,
        loop: PacketLoop,
        faces: dict[int, ApplicationFace],
        *,
        add_face: AddFace,
        remove_face: RemoveFace,
        deliver: Deliver,
        counters: dict[str, int],
    ) -> None:
        self.loop, self.counters, self.deliver = loop, counters, deliver
        self._faces, self._add_face, self._remove_face = faces, add_face, remove_face
        self._streams: dict[int, StreamFace] = {}
        self._listeners: list[socket.socket] = []
        self._datagrams: DatagramFaces | None = None

    def listen_unix(self, path: Path) -> None:
        """Accept whoever may reach *path*. Raises: OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listen(listener, os.fspath(path), f"unix://{path}")
        path.chmod(0o666)  # as NFD's: an application need not be root

    def listen_loopback(self, port: int) -> None:
        """Accept TCP connections and datagrams on the loopback interface. Raises: OSError."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listen(listener, (LOOPBACK, port), f"tcp4://{LOOPBACK}:{port}")
        self._datagrams = DatagramFaces(self, port)

    def _listen(self, listener: socket.socket, address: str | tuple[str, int], uri: str) -> None:
        self._listeners.append(listener)
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
        self.loop.call(listener.fileno(), lambda: self._accept(listener, uri))

    def _accept(self, listener: socket.socket, uri: str) -> None:
        try:
            accepted, peer = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        except OSError:  # no descriptors left: it waits, and would call us again and again
            self.counters["refused_application"] += 1
            self.loop.call_for(listener.fileno(), readable=False, writable=False)
            return
        if len(self._streams) >= APPLICATIONS_MAX:
            self.counters["refused_application"] += 1
            accepted.close()
            return
        if accepted.family == socket.AF_INET:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        remote = f"tcp4://{peer[0]}:{peer[1]}" if peer else f"fd://{accepted.fileno()}"
        face_id = self.open(remote, uri)
        self._streams[face_id] = self._faces[face_id] = StreamFace(face_id, accepted, self)
        self.counters["applications"] += 1

    def open(self, remote_uri: str, local_uri: str) -> int:
        """Make a face. Returns: its ID, under which whoever asked puts itself."""
        return self._add_face(remote_uri, local_uri)

    def put(self, face_id: int, face: ApplicationFace) -> None:
        """Let packets to *face_id* go to *face*."""
        self._faces[face_id] = face

    def drop(self, face_id: int) -> None:
        """Forget a face."""
        if self._faces.pop(face_id, None) is not None:
            self._streams.pop(face_id, None)
            self._remove_face(face_id)

    def tend(self) -> None:
        """Forget senders of datagrams that have gone, try again to accept; to be called now and then."""
        for listener in self._listeners:
            self.loop.call_for(listener.fileno(), readable=True, writable=False)
        if self._datagrams is not None:
            self._datagrams.drop_idle()

    def close(self) -> None:
        """Close every socket; the loop has ended."""
        for listener in self._listeners:
            listener.close()
        for stream in self._streams.values():
            stream.close()
        if self._datagrams is not None:
            self._datagrams.close()


class StreamFace:
    """One connection."""

    def __init__(self, face_id: int, sock: socket.socket, applications: Applications) -> None:
        self._face_id, self._socket, self._applications = face_id, sock, applications
        self._loop, self._counters = applications.loop, applications.counters
        self._incoming = bytearray()  #: at most what one packet and one read can be
        self._outgoing = bytearray()  #: at most WAITING_MAX_BYTES
        self._is_paused = False  #: more packets are here than it had a turn for
        sock.setblocking(False)
        self._loop.call(sock.fileno(), self._on_ready)

    def send(self, packet: bytes) -> None:
        """Send as much as goes now, keep the rest, or drop the packet where too much waits already."""
        if self._outgoing:
            if len(self._outgoing) + len(packet) > WAITING_MAX_BYTES:
                self._counters["unread"] += 1
            else:
                self._outgoing += packet
            return
        try:
            sent = self._socket.send(packet)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has gone; reading says so, too
            self._counters["send_errors"] += 1
            return
        if sent < len(packet):
            self._outgoing += packet[sent:]
            self._wait()

    def _on_ready(self) -> None:
        if self._outgoing:
            self._flush()
        if self._is_paused:
            return
        try:
            chunk = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            if self._incoming:
                self._counters["malformed"] += 1  # half a packet
            self._end()
            return
        self._incoming += chunk
        self._take_packets()

    def _take_packets(self) -> None:
        """Deliver what is complete, but no more than a burst: then it is the turn of others."""
        incoming, at = self._incoming, 0
        try:
            for _ in range(BURST_MAX):
                end = packet_end(incoming, at)
                if end is None or end > len(incoming):
                    break
                self._applications.deliver(self._face_id, bytes(incoming[at:end]))
                at = end
            else:
                self._is_paused = True
                self._wait()
                self._loop.again(self._go_on)
        except MalformedError:
            self._counters["malformed"] += 1
            self._end()
        del incoming[:at]

    def _go_on(self) -> None:
        if self._socket.fileno() >= 0:  # it has not ended meanwhile
            self._is_paused = False
            self._wait()
            self._take_packets()

    def _wait(self) -> None:
        self._loop.call_for(self._socket.fileno(), readable=not self._is_paused, writable=bool(self._outgoing))

    def _flush(self) -> None:
        try:
            del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError:
            self._outgoing.clear()
        if not self._outgoing:
            self._wait()

    def _end(self) -> None:
        self._loop.uncall(self._socket.fileno())
        self.close()
        self._applications.drop(self._face_id)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class DatagramFaces:
    """One face for each sender of datagrams to the loopback address; links have sockets and addresses of their own."""

    def __init__(self, applications: Applications, port: int) -> None:
        self._applications, self._uri = applications, f"udp4://{LOOPBACK}:{port}"
        self._senders: OrderedDict[tuple[str, int], _Sender] = OrderedDict()  #: the longest silent first
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.bind((LOOPBACK, port))
        self._socket.setblocking(False)
        applications.loop.call(self._socket.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        applications = self._applications
        for _ in range(BURST_MAX):
            try:
                packet, address = self._socket.recvfrom(PACKET_MAX_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:  # ECONNREFUSED of a datagram that was sent to nobody
                continue
            if len(packet) > PACKET_MAX_BYTES or not packet:
                applications.counters["malformed"] += 1
                continue
            sender = self._senders.get(address) or self._admit(address)
            if sender is None:
                applications.counters["refused_application"] += 1
                continue
            sender.heard_s = time.monotonic()
            self._senders.move_to_end(address)
            applications.deliver(sender.face_id, packet)

    def _admit(self, address: tuple[str, int]) -> _Sender | None:
        applications = self._applications
        if len(self._senders) >= SENDERS_MAX:
            oldest, sender = next(iter(self._senders.items()))
            if time.monotonic() - sender.heard_s < SENDER_EVICTABLE_S:
                return None
            self._drop(oldest)
        face_id = applications.open(f"udp4://{address[0]}:{address[1]}", self._uri)
        sender = self._senders[address] = _Sender(face_id, self._socket, address, applications.counters)
        applications.put(face_id, sender)
        applications.counters["applications"] += 1
        return sender

    def _drop(self, address: tuple[str, int]) -> None:
        self._applications.drop(self._senders.pop(address).face_id)

    def drop_idle(self) -> None:
        """Forget who has been silent for SENDER_IDLE_S."""
        before_s = time.monotonic() - SENDER_IDLE_S
        while self._senders and next(iter(self._senders.values())).heard_s < before_s:
            self._drop(next(iter(self._senders)))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class _Sender:
    """Whoever sends from one address and port."""

    def __init__(self, face_id: int, sock: socket.socket, address: tuple[str, int], counters: dict[str, int]) -> None:
        self.face_id, self.heard_s = face_id, 0.0
        self._socket, self._address, self._counters = sock, address, counters

    def send(self, packet: bytes) -> None:
        """Send now or never."""
        try:
            self._socket.sendto(packet, self._address)
        except OSError:
            self._counters["send_errors"] += 1
