"""Faces to applications over a real loop and real sockets, with a stand-in for the forwarder: who gets a turn, what is kept."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from proxy.driver import applications as module
from proxy.driver.applications import ApplicationFace, Applications, StreamFace
from proxy.driver.packet_loop import BURST_MAX, PacketLoop
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_interest
from proxy.wire.stream import packet_end
from proxy.wire.tlv import tlv

PACKET = encode_interest(from_uri("/a"), nonce=1)[1]
BIG = tlv(6, bytes(8_000))


class NotingLoop:
    """A loop that notes what its descriptors are watched for; it is compiled, and so cannot be altered itself."""

    def __init__(self, loop: PacketLoop) -> None:
        self._loop = loop
        self.asked: list[tuple[bool, bool]] = []  #: (readable, writable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_for(self, fd: int, *, readable: bool, writable: bool) -> None:
        self.asked.append((readable, writable))
        self._loop.call_for(fd, readable=readable, writable=writable)


class Bench:
    """What a forwarder would be told."""

    def __init__(self, path: Path) -> None:
        self.delivered: list[int] = []  #: the face of each packet, in order
        self.removed: list[int] = []
        self.counters: dict[str, int] = Counter()
        self.faces: dict[int, ApplicationFace] = {}
        self.answer = b""  #: sent back for every packet
        self._ids = iter(range(1_000, 2_000))
        self.loop = NotingLoop(PacketLoop(dispatch=lambda _: None, deadline_s=lambda: None, on_deadline=lambda: None))
        self.applications = Applications(
            cast("PacketLoop", self.loop),
            self.faces,
            add_face=lambda *_: next(self._ids),
            remove_face=self.removed.append,
            deliver=self._deliver,
            counters=self.counters,
        )
        self.path = path
        self.applications.listen_unix(path)

    def _deliver(self, face_id: int, _packet: bytes) -> None:
        self.delivered.append(face_id)
        if self.answer:
            self.faces[face_id].send(self.answer)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        return sock

    @staticmethod
    async def until(is_so: Callable[[], bool]) -> None:
        """Return when it is so."""
        with trio.fail_after(10):
            while not is_so():  # noqa: ASYNC110  nobody tells
                await trio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "node" / "nfd.sock")
    nursery.start_soon(made.loop.run)
    yield made
    made.applications.close()


async def test_one_that_sends_without_end_waits_while_others_have_their_turn(bench: Bench) -> None:
    with bench.connect() as flooding, bench.connect() as other:
        flooding.sendall(PACKET * 1_000)
        other.sendall(PACKET)
        await bench.until(lambda: len(bench.delivered) == 1_001)
    (modest,) = set(bench.delivered) - {max(Counter(bench.delivered), key=Counter(bench.delivered).__getitem__)}
    assert bench.delivered.index(modest) <= 2 * BURST_MAX


async def test_who_reads_late_gets_everything_that_was_kept_in_order(bench: Bench) -> None:
    bench.answer = BIG
    received = bytearray()
    with bench.connect() as sock:
        sock.sendall(PACKET * 100)

        def read() -> bool:
            if len(bench.delivered) == 100:
                received.extend(sock.recv(65_536))
            return len(received) == 100 * len(BIG)

        await bench.until(read)
        assert bench.loop.asked[-1] == (True, False)  # or it would be called all the time
    assert (True, True) in bench.loop.asked
    for at in range(0, len(received), len(BIG)):
        assert packet_end(received, at) == at + len(BIG)
    assert bench.counters["unread"] == 0


class Trickling(socket.socket):
    """Takes a part of a packet at a time, as TCP may."""

    def send(self, data: Any, flags: int = 0, /) -> int:
        return super().send(memoryview(data)[:3_000], flags)


async def test_a_packet_that_goes_in_parts_arrives_whole(bench: Bench) -> None:
    bench.answer = BIG
    ours, theirs = socket.socketpair()
    received = bytearray()
    with theirs:
        theirs.setblocking(False)
        bench.applications.put(1_000, StreamFace(1_000, Trickling(fileno=ours.detach()), bench.applications))
        theirs.sendall(PACKET * 5)

        def read() -> bool:
            with contextlib.suppress(BlockingIOError):
                received.extend(theirs.recv(65_536))
            return len(received) >= 5 * len(BIG)

        await bench.until(read)
        assert received == BIG * 5


@pytest.fixture
async def port(bench: Bench) -> int:
    """A port at which *bench* takes datagrams."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
    bench.applications.listen_loopback(found)
    return found


@contextlib.contextmanager
def sender(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.send(PACKET)
        yield sock


async def test_senders_of_datagrams_are_limited_and_the_silent_make_room(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SENDERS_MAX", 2)
    with sender(port), sender(port), sender(port) as third:
        await bench.until(lambda: bench.counters["refused_application"] == 1)
        assert list(bench.faces) == [1_000, 1_001]
        monkeypatch.setattr(module, "SENDER_EVICTABLE_S", 0.0)
        third.send(PACKET)
        await bench.until(lambda: len(bench.delivered) == 3)
    assert (bench.removed, list(bench.faces)) == ([1_000], [1_001, 1_002])


async def test_senders_of_datagrams_that_have_gone_are_forgotten(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sender(port):
        await bench.until(lambda: len(bench.delivered) == 1)
    bench.applications.tend()
    assert bench.removed == []
    monkeypatch.setattr(module, "SENDER_IDLE_S", 0.0)
    bench.applications.tend()
    assert (bench.removed, bench.faces) == ([1_000], {})


async def test_a_datagram_that_is_no_packet_opens_no_face(bench: Bench, port: int) -> None:
    with sender(port) as sock:
        for wrong in (b"", bytes(9_000)):
            sock.send(wrong)
        await bench.until(lambda: bench.counters["malformed"] == 2)
    assert len(bench.faces) == 1


async def test_without_descriptors_connections_wait_and_nobody_spins(bench: Bench) -> None:
    (listener,) = bench.applications._listeners

    class Exhausted:
        def fileno(self) -> int:
            return listener.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "too many open files")

    bench.applications._accept(Exhausted(), "unix")  # type: ignore[arg-type]  # what it needs of a socket
    assert (bench.loop.asked, bench.counters["refused_application"]) == ([(False, False)], 1)
    bench.applications.tend()
    with bench.connect() as sock:
        sock.sendall(PACKET)
        await bench.until(lambda: len(bench.delivered) == 1)
