"""Computing that takes time: draws, the queue of a process, and what becomes of it when the process crashes."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from proxy.core.events import Effect, Event, Log, PacketReceived, Persisted, Send, TimerExpired
from proxy.core.seeded import SplitMix64
from proxy.lag import bin_of, bounds_ms
from proxy.records import FaceChanged, HandlingCount
from testbed.simulation.processing import WAITING_MAX, Distribution, ProcessTimes, Server, pooled

RECORD = FaceChanged(0.0, "csr1", "a-b", "b", "up", "heard")


class Bench:
    """One process with a clock of its own: every packet of n bytes makes it send n packets, and write a record."""

    def __init__(self, times: ProcessTimes) -> None:
        self.now_s, self.begun, self.sent, self.logged = 0.0, list[float](), list[float](), list[float]()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.server = Server(times, seed=b"1", at=self.after, handle=self.handle, perform=self.perform)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._count, action))

    def handle(self, event: Event) -> list[Effect] | None:
        if isinstance(event, TimerExpired):
            return None  # out of date
        self.begun.append(self.now_s)
        sends = len(event.packet) if isinstance(event, PacketReceived) else 0
        return [*(Send(1, b"x") for _ in range(sends)), Log(RECORD)]

    def perform(self, effect: Effect) -> None:
        (self.sent if isinstance(effect, Send) else self.logged).append(self.now_s)

    def run(self, until_s: float = 10.0) -> None:
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._heap)
            action()


def packet(size: int) -> PacketReceived:
    return PacketReceived(1, bytes(size))


def around(time_ms: float, *, share: float = 1.0) -> object:
    """Return what equals any time that the bin of *time_ms* holds, of *share* of it."""
    low_ms, high_ms = (bound * share for bound in bounds_ms(bin_of(time_ms)))
    return pytest.approx((low_ms + high_ms) / 2e3, abs=(high_ms - low_ms) / 2e3)


#: A packet that is followed by two others takes 4 ms, one without any 1 ms, and to wake up 2 ms.
TIMES = ProcessTimes(
    [HandlingCount(2, 2, [(bin_of(4.0), 5)]), HandlingCount(0, 0, [(bin_of(1.0), 5)])], [(bin_of(2.0), 9)]
)


def test_a_packet_is_handled_after_waking_up_and_what_follows_leaves_one_after_the_other() -> None:
    bench = Bench(TIMES)
    bench.server.take(packet(2))
    bench.run()
    (begun_s,) = bench.begun
    assert begun_s == around(2.0)
    assert bench.logged == [begun_s]
    assert [at_s - begun_s for at_s in bench.sent] == [around(4.0, share=0.5), around(4.0)]
    assert bench.sent[1] - begun_s == pytest.approx(2 * (bench.sent[0] - begun_s))


def test_what_comes_meanwhile_waits_without_waking_anybody_up() -> None:
    bench = Bench(TIMES)
    for event in (packet(2), TimerExpired(), packet(2), Persisted(1)):
        bench.server.take(event)
    bench.run()
    first_s, second_s, third_s = bench.begun
    assert (second_s, third_s) == (bench.sent[1], bench.sent[3])
    assert second_s - first_s == around(4.0)


def test_a_timer_wakes_nobody_up_and_what_was_never_seen_takes_as_long_as_anything() -> None:
    bench = Bench(TIMES)
    bench.server.take(Persisted(1))
    bench.run()
    assert bench.begun == [0.0]
    bench.server.take(packet(3))  # no such class
    bench.run()
    assert bench.sent[-1] - bench.begun[1] in (around(1.0), around(4.0))


def test_a_crash_undoes_what_had_not_happened_yet() -> None:
    bench = Bench(TIMES)
    bench.server.take(packet(2))
    bench.server.take(packet(2))
    bench.run(0.0045)  # begun, the first packet on its way at the earliest
    bench.server.crash()
    bench.run()
    assert (len(bench.begun), len(bench.sent)) in ((1, 0), (1, 1))
    bench.server.take(packet(2))
    bench.run()
    assert len(bench.begun) == 2


def test_no_more_packets_wait_than_a_buffer_holds() -> None:
    bench = Bench(TIMES)
    for _ in range(WAITING_MAX + 10):
        bench.server.take(packet(0))
    bench.run(1e6)
    assert len(bench.begun) == WAITING_MAX


def test_times_are_drawn_as_often_as_they_were_counted() -> None:
    chance, bins = SplitMix64(1), [(bin_of(0.1), 900), (bin_of(5.0), 100)]
    drawn = [Distribution(bins).draw_s(chance) for _ in range(5_000)]
    assert sum(time_s > 1e-3 for time_s in drawn) == pytest.approx(500, abs=100)
    assert all(time_s in (around(0.1), around(5.0)) for time_s in drawn[:500])
    assert Distribution([]).draw_s(chance) == 0.0
    assert 0.0 <= Distribution([(0, 1)]).draw_s(chance) <= 1e-6


def test_times_are_pooled() -> None:
    other = ProcessTimes([HandlingCount(2, 2, [(bin_of(4.0), 1), (99, 1)]), HandlingCount(7, 0, [(3, 1)])], [(1, 1)])
    assert pooled([TIMES, other]) == ProcessTimes(
        [
            HandlingCount(0, 0, [(bin_of(1.0), 5)]),
            HandlingCount(2, 2, [(bin_of(4.0), 6), (99, 1)]),
            HandlingCount(7, 0, [(3, 1)]),
        ],
        [(1, 1), (bin_of(2.0), 9)],
    )
