"""Sockets of whole packets and the loop that serves them, on pairs of this process' own sockets."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from proxy.core.events import Event, PacketReceived
from proxy.driver.packet_loop import (
    BURST_MAX,
    YIELD_INTERVAL_MAX_S,
    YIELD_INTERVAL_S,
    PacketLoop,
    PacketSocket,
)
from proxy.lag import bounds_ms
from proxy.processing import ProcessingMeter
from proxy.wire.tlv import PACKET_MAX_BYTES


@pytest.fixture
def pair() -> Iterator[tuple[PacketSocket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets = PacketSocket(3, ours, Counter())
    yield packets, theirs
    packets.close()
    theirs.close()


def received(packets: PacketSocket) -> tuple[list[bytes], bool]:
    """Return what has arrived, and whether the connection goes on."""
    events: list[Event] = []
    goes_on = packets.receive(events.append)
    assert all(isinstance(event, PacketReceived) and event.face_id == 3 for event in events)
    return [event.packet for event in events if isinstance(event, PacketReceived)], goes_on


def test_packets_keep_their_limits(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    packets.send(b"one")
    packets.send(b"two")
    assert [theirs.recv(100), theirs.recv(100)] == [b"one", b"two"]
    theirs.send(b"three")
    theirs.send(b"four")
    assert received(packets) == ([b"three", b"four"], True)
    assert received(packets) == ([], True)


def test_whether_there_are_more_is_told_to_those_who_ask_and_what_is_too_long_is_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    looking, events = PacketSocket(3, ours, Counter(), looks_ahead=True), list[Event]()
    for packet in (b"1", b"2", bytes(PACKET_MAX_BYTES + 1), b"3", bytes(PACKET_MAX_BYTES + 1)):
        theirs.send(packet)
    assert looking.receive(events.append)
    assert events == [PacketReceived(3, b"1", more=True), PacketReceived(3, b"2", more=True), PacketReceived(3, b"3")]
    for _ in range(BURST_MAX + 1):
        theirs.send(b"x")
    theirs.close()
    events.clear()
    assert looking.receive(events.append)
    assert [event.more for event in events if isinstance(event, PacketReceived)] == [True] * (BURST_MAX - 1) + [False]
    assert not looking.receive(events.append)
    assert events[BURST_MAX:] == [PacketReceived(3, b"x")]
    looking.close()


def test_the_kernel_says_since_when_the_first_of_them_had_been_there(
    pair: tuple[PacketSocket, socket.socket],
) -> None:
    packets, theirs = pair
    packets.stamp_arrivals()
    meter = ProcessingMeter()

    def dispatch(_: Event) -> None:
        meter.handled(time.monotonic(), time.monotonic(), size_bytes=3, sent_packets=0)

    sent_s = time.monotonic()
    theirs.send(b"one")
    theirs.send(b"two")
    time.sleep(0.02)
    assert packets.receive(dispatch, meter)
    received_s = time.monotonic()
    handling, ((index, count),) = meter.take()
    assert sum(each for _, each in handling[0].bins) == 2
    assert count == 1
    low_ms, high_ms = bounds_ms(index)
    assert low_ms <= (received_s - sent_s) * 1e3 + 1.0
    assert high_ms >= 20.0 - 1.0


def test_end_of_a_connection(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    theirs.send(b"last")
    theirs.close()
    assert received(packets) == ([b"last"], False)
    packets.send(b"to nobody")
    assert packets._counters["send_errors"] == 1


def test_burst_is_bounded_so_that_others_get_their_turn(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    for _ in range(BURST_MAX + 5):
        theirs.send(b"x")
    assert len(received(packets)[0]) == BURST_MAX
    assert len(received(packets)[0]) == 5


def test_packet_beyond_the_limit_is_malformed(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    theirs.send(bytes(PACKET_MAX_BYTES))
    theirs.send(bytes(PACKET_MAX_BYTES + 1))
    assert received(packets) == ([bytes(PACKET_MAX_BYTES)], True)
    assert packets._counters["malformed"] == 1


def test_what_does_not_fit_into_the_buffer_is_dropped_and_counted(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, _ = pair
    for _ in range(10_000):
        packets.send(bytes(1_000))
    assert packets._counters["send_buffer_full"] > 0


def test_udp_to_a_port_where_nobody_listens() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        nobody.bind(("127.0.0.1", 0))
        sock.connect(nobody.getsockname())
        nobody.close()
        packets = PacketSocket(1, sock, Counter())
        for _ in range(3):
            packets.send(b"x")
            packets.receive(lambda _: None)
        assert packets._counters["send_errors"] + packets._counters["receive_errors"] >= 1
        assert packets.receive(lambda _: None)  # UDP has no end


class Loop:
    """A loop whose core wants to be woken at a time that a test sets."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.fired_s: list[float] = []
        self.deadline_s: float | None = None
        self.arrived = trio.Event()
        self.loop = PacketLoop(dispatch=self._take, deadline_s=lambda: self.deadline_s, on_deadline=self._fire)

    def _take(self, event: Event) -> None:
        assert isinstance(event, PacketReceived)
        self.packets.append(event.packet)
        self.arrived.set()
        self.loop.give_way()

    def _fire(self) -> None:
        self.fired_s.append(self.deadline_s or 0.0)
        self.deadline_s = None
        self.arrived.set()
        self.loop.give_way()


async def test_loop_dispatches_packets_and_tells_of_the_end(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    served = Loop()
    with trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            served.loop.add(packets)
            nursery.start_soon(served.loop.run)
            theirs.send(b"hello")
            await served.arrived.wait()
            assert served.packets == [b"hello"]
            theirs.close()
            await packets.ended.wait()
            assert packets.fileno() == -1
            nursery.cancel_scope.cancel()


async def test_loop_calls_at_the_deadline_also_when_it_has_passed() -> None:
    served = Loop()
    served.deadline_s = 0.0
    with trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.loop.run)
            await served.arrived.wait()
            nursery.cancel_scope.cancel()
    assert served.fired_s == [0.0]


async def test_loop_without_a_deadline_lets_others_run() -> None:
    served = Loop()
    turns = 0
    with trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.loop.run)
            while turns < 3:
                await trio.lowlevel.checkpoint()
                turns += 1
            served.deadline_s = math.inf
            while turns < 6:
                await trio.lowlevel.checkpoint()
                turns += 1
            nursery.cancel_scope.cancel()
    assert served.fired_s == []


async def test_descriptor_of_another_task_is_given_way_to() -> None:
    served = Loop()
    ours, theirs = socket.socketpair()
    with ours, theirs, trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            served.loop.watch(ours.fileno())
            nursery.start_soon(served.loop.run)
            theirs.send(b"x")
            await trio.lowlevel.wait_readable(ours)
            assert ours.recv(10) == b"x"
            nursery.cancel_scope.cancel()


async def test_removed_socket_is_not_read_any_more(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, theirs = pair
    served = Loop()
    served.loop.add(packets)
    served.loop.remove(packets)
    served.loop.remove(packets)  # once more does no harm
    assert packets.ended.is_set()
    assert theirs.recv(10) == b""
    with trio.move_on_after(0):
        await served.loop.run()  # which closes its epoll


async def test_patience_is_as_long_as_nobody_else_wants_anything() -> None:
    loop = Loop().loop
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs, trio.fail_after(10.0) as limit:
        limit.deadline = math.inf
        await trio.testing.wait_all_tasks_blocked()
        assert loop._patience_s() == YIELD_INTERVAL_MAX_S
        limit.deadline = trio.current_time() + 0.2
        assert 0.0 <= loop._patience_s() <= 0.2
        limit.deadline = trio.current_time() - 1.0
        assert loop._patience_s() == 0.0
        limit.deadline = trio.current_time() + 10.0
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(BlockingIOError):  # the buffer is full: whoever writes waits
                while True:
                    ours.send(bytes(65_536))
            nursery.start_soon(trio.lowlevel.wait_writable, ours)
            assert loop._patience_s() == 0.0  # a task that has not had its first turn
            await trio.testing.wait_all_tasks_blocked()
            assert loop._patience_s() == YIELD_INTERVAL_S
            nursery.cancel_scope.cancel()


async def test_timer_of_another_task_comes_while_the_loop_has_nothing_to_do() -> None:
    served = Loop()
    with trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.loop.run)
            for _ in range(3):
                await trio.sleep(0.01)
            await trio.to_thread.run_sync(len, b"")  # the end of a call in a thread is noticed, too
            nursery.cancel_scope.cancel()
