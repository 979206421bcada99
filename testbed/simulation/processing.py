"""Computing that takes time: what a simulated process needs for a packet, drawn from what an emulated one needed.

As `proxy.processing` counts it: a queue with one server. Without times of a process, its computing takes none.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from msgspec import Struct

from proxy.core.events import Effect, Event, PacketReceived, Send
from proxy.core.seeded import SplitMix64
from proxy.lag import bounds_ms
from proxy.records import HandlingCount

#: What the buffers of a process' sockets hold.
WAITING_MAX: Final = 1_000

Bins = Iterable[tuple[int, int]]


class ProcessTimes(Struct, frozen=True):
    """What one process took, in the bins of `proxy.lag`."""

    handling: list[HandlingCount]
    wake_up_bins: list[tuple[int, int]]


def pooled(times: Iterable[ProcessTimes]) -> ProcessTimes:
    """Return the times of all of them together."""
    handling: dict[tuple[int, int], Counter[int]] = {}
    wake_up: Counter[int] = Counter()
    for each in times:
        for count in each.handling:
            _add(handling.setdefault((count.size_bits, count.sent_bits), Counter()), count.bins)
        _add(wake_up, each.wake_up_bins)
    return ProcessTimes(
        [HandlingCount(*of, sorted(bins.items())) for of, bins in sorted(handling.items())], sorted(wake_up.items())
    )


def _add(to: Counter[int], bins: Bins) -> None:
    for index, count in bins:
        to[index] += count


class Distribution:
    """Draws times that fall into the bins as often as those that were counted; within a bin, evenly on a log scale."""

    def __init__(self, bins: Bins) -> None:
        known = [(index, count) for index, count in bins if count]
        self._bounds_ms = [bounds_ms(index) for index, _ in known]
        self._sums = list(accumulate(count for _, count in known))

    def draw_s(self, chance: SplitMix64) -> float:
        """Return a time in seconds; 0 where nothing was counted."""
        if not self._sums:
            return 0.0
        low_ms, high_ms = self._bounds_ms[bisect_right(self._sums, chance.uniform() * self._sums[-1])]
        if low_ms == 0.0:
            return high_ms * 1e-3 * chance.uniform()
        return low_ms * math.pow(high_ms / low_ms, chance.uniform()) * 1e-3


class Server:
    """What a process is busy with: events wait here until it has woken up, and those before them are handled.

    Args:
        times: of the process.
        seed: of the draws.
        at: does something so many seconds from now.
        handle: gives an event to the core and returns what it wants done; None where there is no need to: it is out of date.
        perform: does one of those things now.
    """

    def __init__(
        self,
        times: ProcessTimes,
        *,
        seed: bytes,
        at: Callable[[float, Callable[[], None]], None],
        handle: Callable[[Event], list[Effect] | None],
        perform: Callable[[Effect], None],
    ) -> None:
        self._wake_up = Distribution(times.wake_up_bins)
        self._handling = {(each.size_bits, each.sent_bits): Distribution(each.bins) for each in times.handling}
        self._any = Distribution(pair for each in times.handling for pair in each.bins)
        self._chance = SplitMix64(int.from_bytes(blake2b(seed, digest_size=8).digest(), "big"))
        self._at, self._handle, self._perform = at, handle, perform
        self._waiting: deque[Event] = deque()
        self._is_busy = False
        self._life = 0  #: grows when the process crashes: what it was about to do then does not happen

    def take(self, event: Event) -> None:
        """Handle *event* when its turn has come."""
        if isinstance(event, PacketReceived) and len(self._waiting) >= WAITING_MAX:
            return  # the socket's buffer is full
        self._waiting.append(event)
        if not self._is_busy:
            self._is_busy = True
            wake_up_s = self._wake_up.draw_s(self._chance) if isinstance(event, PacketReceived) else 0.0
            self._later(wake_up_s, self._begin)

    def crash(self) -> None:
        """Forget everything."""
        self._life += 1
        self._waiting.clear()
        self._is_busy = False

    def _begin(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            effects = self._handle(event)
            if effects is None:
                continue
            sends = sum(isinstance(effect, Send) for effect in effects)
            size_bytes = len(event.packet) if isinstance(event, PacketReceived) else 0
            known = self._handling.get((size_bytes.bit_length(), sends.bit_length()), self._any)
            time_s = known.draw_s(self._chance)
            sent = 0
            for effect in effects:
                if isinstance(effect, Send):
                    sent += 1
                    self._later(time_s * sent / sends, lambda effect=effect: self._perform(effect))  # type: ignore[misc]
                else:
                    self._perform(effect)
            self._later(time_s, self._begin)
            return
        self._is_busy = False

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        life = self._life
        self._at(delay_s, lambda: action() if life == self._life else None)


def make_server(
    process: str,
    processing: Mapping[str, ProcessTimes] | None,
    *,
    seed: int,
    at: Callable[[float, Callable[[], None]], None],
    handle: Callable[[Event], list[Effect] | None],
    perform: Callable[[Effect], None],
) -> Server | None:
    """Return the server of a process; None where nothing is known of the time that it takes."""
    if processing is None or (times := processing.get(process)) is None:
        return None
    return Server(times, seed=f"{seed} {process}".encode(), at=at, handle=handle, perform=perform)
