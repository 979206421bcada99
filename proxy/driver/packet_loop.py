"""The fast path of a node: packets in, packets out, without a round through trio's scheduler for each.

A node adds its processing time to every delivery that passes it, ten times on the way from one client to another. A wake-up
through trio costs twice as much as the ``epoll`` beneath it, so one trio task owns the thread: it waits in an epoll of its
own for packets and for the core's deadline, and lets trio's other tasks run when one of *their* descriptors is ready, when
they were given something to do, and when the first of them wants to be woken. What cannot be seen from here, the end of a
call in another thread and room to go on writing, is looked for every YIELD_INTERVAL_S while a task waits for it.

Looking costs a node some 0.1 ms. Two hundred nodes that each looked twenty times a second, whether or not there was
anything, would keep half a core busy with it.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

import trio

from proxy.core.events import Event, PacketReceived
from proxy.processing import ProcessingMeter
from proxy.wire.tlv import PACKET_MAX_BYTES

#: Datagrams taken from one socket before the others get their turn.
BURST_MAX: Final = 64
#: The kernel's buffer per socket: a burst of notifications to all clients of a CSR must fit.
BUFFER_BYTES: Final = 1024 * 1024
YIELD_INTERVAL_S: Final = 0.05
#: How long trio's tasks wait for their turn at most, in case that something else wakes one of them.
YIELD_INTERVAL_MAX_S: Final = 0.5
#: One more than is allowed, so that a datagram that is too long shows.
_RECEIVE_BYTES: Final = PACKET_MAX_BYTES + 1
#: Linux, asm-generic/socket.h (SO_TIMESTAMPNS); Python does not name it. It gives a `struct timespec` of CLOCK_REALTIME.
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@qq")
_STAMP_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)

Dispatch = Callable[[Event], None]


class PacketSocket:
    """One socket that carries whole packets. What cannot be sent at once is dropped and counted, as a network would."""

    def __init__(
        self, face_id: int, sock: socket.socket, counters: dict[str, int], *, looks_ahead: bool = False
    ) -> None:
        self.face_id, self._socket, self._counters = face_id, sock, counters
        self._looks_ahead = looks_ahead  #: whoever takes the packets wants to know whether there are more
        self._has_ended = False
        self.is_connection = sock.family == socket.AF_UNIX  #: has an end, unlike UDP
        self.ended = trio.Event()
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)

    def stamp_arrivals(self) -> None:
        """From now on have the kernel say of every packet when it came."""
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._socket.fileno()

    def send(self, packet: bytes) -> None:
        """Send now or never."""
        try:
            self._socket.send(packet)
        except BlockingIOError:
            self._counters["send_buffer_full"] += 1
        except OSError:  # no carrier, no route, nobody listens (ECONNREFUSED of an earlier datagram)
            self._counters["send_errors"] += 1

    def receive(self, dispatch: Dispatch, meter: ProcessingMeter | None = None) -> bool:
        """Hand what has arrived to *dispatch*; return False where the peer has closed the connection.

        *meter* is told when the first of them had arrived, if it came after `stamp_arrivals`.
        """
        face_id, looks_ahead = self.face_id, self._looks_ahead
        packet, left = self._next(meter), BURST_MAX - 1
        while packet is not None:
            following = self._next() if looks_ahead and left else None
            dispatch(PacketReceived(face_id, packet, more=following is not None))
            if not left:
                break
            packet, left = following if looks_ahead else self._next(), left - 1
        return not self._has_ended

    def _next(self, meter: ProcessingMeter | None = None) -> bytes | None:
        """Return the next packet; None where there is no more, or no more for now."""
        for _ in range(BURST_MAX):
            try:
                if meter is None:
                    packet = self._socket.recv(_RECEIVE_BYTES)
                else:
                    packet, ancillary, _, _ = self._socket.recvmsg(_RECEIVE_BYTES, _STAMP_BYTES)
                    if ancillary:
                        meter.arrived(_arrival_s(ancillary[0][2]))
            except BlockingIOError:
                return None
            except OSError:
                self._counters["receive_errors"] += 1
                if self.is_connection:
                    self._has_ended = True
                    return None
                continue
            if not packet and self.is_connection:
                self._has_ended = True
                return None
            if len(packet) <= PACKET_MAX_BYTES:
                return packet
            self._counters["malformed"] += 1
        return None

    def close(self) -> None:
        """Close the socket; it need not be open."""
        self._socket.close()


def _arrival_s(stamp: bytes) -> float:
    """Return when a packet arrived, in seconds of CLOCK_MONOTONIC."""
    seconds: int
    nanoseconds: int
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    return time.monotonic() - (time.time() - seconds - nanoseconds * 1e-9)


class PacketLoop:
    """*deadline_s* says when *on_deadline* is to be called at the latest; *dispatch* takes every packet.

    With *meter*, that is told when packets arrive.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        deadline_s: Callable[[], float | None],
        on_deadline: Callable[[], None],
        meter: ProcessingMeter | None = None,
    ) -> None:
        self._meter = meter
        self._dispatch, self._deadline_s, self._on_deadline = dispatch, deadline_s, on_deadline
        self._epoll = select.epoll()
        self._packets: dict[int, PacketSocket] = {}
        self._calls: dict[int, Callable[[], None]] = {}
        self._again: list[Callable[[], None]] = []
        self._yield = False

    def add(self, packets: PacketSocket) -> None:
        """Read *packets* from now on; when its peer closes, it is closed and its ``ended`` is set."""
        self._packets[packets.fileno()] = packets
        if self._meter is not None:
            packets.stamp_arrivals()
        self._epoll.register(packets.fileno(), select.EPOLLIN)

    def remove(self, packets: PacketSocket) -> None:
        """Stop reading, close and announce the end of *packets*; it need not have been added."""
        if self._packets.pop(packets.fileno(), None) is not None and not self._epoll.closed:  # closed: `run` has ended
            self._epoll.unregister(packets.fileno())
        packets.close()
        packets.ended.set()
        self.give_way()

    def call(self, fd: int, on_readable: Callable[[], None]) -> None:
        """When *fd* is readable, call *on_readable*, which must take what makes it so."""
        self._calls[fd] = on_readable
        self._epoll.register(fd, select.EPOLLIN)

    def call_for(self, fd: int, *, readable: bool, writable: bool) -> None:
        """Choose what calls for *fd*, see `call`; its end always does."""
        if self._epoll.closed:
            return
        self._epoll.modify(fd, (select.EPOLLIN if readable else 0) | (select.EPOLLOUT if writable else 0))

    def uncall(self, fd: int) -> None:
        """Undo `call`."""
        del self._calls[fd]
        if not self._epoll.closed:
            self._epoll.unregister(fd)

    def again(self, function: Callable[[], None]) -> None:
        """Call *function* once more when everybody else has had a turn."""
        self._again.append(function)

    def watch(self, fd: int) -> None:
        """When *fd* is readable, a trio task that waits for it gets its turn at once."""
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """End what `watch` began."""
        if not self._epoll.closed:  # `run` has ended
            self._epoll.unregister(fd)

    def give_way(self) -> None:
        """A trio task was given something to do: let it run after the current packets."""
        self._yield = True

    async def run(self) -> None:
        """Serve until cancelled."""
        yield_s = 0.0
        try:
            while True:
                now_s = time.monotonic()
                if self._yield or now_s >= yield_s:
                    self._yield = False
                    await trio.lowlevel.checkpoint()
                    await (
                        trio.lowlevel.checkpoint()
                    )  # those that the first one woke come after us, or before: at random
                    now_s = time.monotonic()
                    yield_s = now_s + self._patience_s()
                deadline_s = self._deadline_s()
                wait_s = max(yield_s - now_s, 0.0)
                if deadline_s is not None and deadline_s - now_s < wait_s:
                    wait_s = max(deadline_s - now_s, 0.0)
                if self._again:
                    self._go_on()
                else:
                    self._take(self._epoll.poll(wait_s))
                if deadline_s is not None and deadline_s <= time.monotonic():
                    self._on_deadline()
        finally:
            self._epoll.close()

    def _patience_s(self) -> float:
        """Return how long no task of trio's needs a turn, as far as it is not packets or `give_way` that bring it about."""
        trios = trio.lowlevel.current_statistics()
        if trios.tasks_runnable:
            return 0.0
        threads = trio.to_thread.current_default_thread_limiter()
        patience_s = YIELD_INTERVAL_MAX_S
        if trios.io_statistics.tasks_waiting_write or threads.borrowed_tokens:
            patience_s = YIELD_INTERVAL_S
        return min(patience_s, max(trios.seconds_to_next_deadline, 0.0))

    def _go_on(self) -> None:
        """Take what is there without waiting, then what was put off."""
        self._take(self._epoll.poll(0.0))
        put_off, self._again = self._again, []
        for function in put_off:
            function()

    def _take(self, ready: list[tuple[int, int]]) -> None:
        for fd, _ in ready:
            packets = self._packets.get(fd)
            if (call := self._calls.get(fd)) is not None:
                call()
            elif packets is None:
                self._yield = True  # one of trio's descriptors
            elif not packets.receive(self._dispatch, self._meter):
                self.remove(packets)
