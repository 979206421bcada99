"""Which segments to ask for when: a window that grows by addition and shrinks by multiplication (AIMD).

After ndncatchunks of ndn-tools: slow start, congestion avoidance, one decrease per window of losses (its conservative
window adaptation), retransmission timeouts after RFC 6298 that back off.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from proxy.core.consumer import RoundTripEstimator
from proxy.core.timers import Timers

WINDOW_INITIAL: Final = 2.0
WINDOW_MIN: Final = 2.0
#: Some 130 kB under way, what a path of 70 ms and 15 Mbit/s holds: half of what waits at a face before packets are dropped.
WINDOW_MAX: Final = 32.0
DECREASE: Final = 0.5
#: Least margin of the retransmission timeout over the round trip; ndncatchunks has 0.2 s for the whole.
RTO_MIN_S: Final = 0.2
RTO_MAX_S: Final = 4.0
#: A segment that was refused or lost so often is not asked for again; the object is given up.
ATTEMPTS_MAX: Final = 16
#: After a refusal a segment rests for so long, doubled each time up to RTO_MAX_S.
REST_S: Final = 0.1


@dataclass
class _Asked:
    sent_s: float
    attempts: int


class Pipeline:
    """Of one object with *count* segments. Segments are asked for when `due` says so; each is answered, lost or refused."""

    def __init__(self, count: int) -> None:
        self.window = WINDOW_INITIAL
        self.retransmissions = 0
        self._threshold = math.inf
        self._count = count
        self._estimator = RoundTripEstimator(rto_min_s=RTO_MIN_S, rto_max_s=RTO_MAX_S)
        self._backoff = 1
        self._next = 0  #: segments from here on have never been asked for
        self._under_way: dict[int, _Asked] = {}
        self._again: deque[int] = deque()
        self._attempts: dict[int, int] = {}  #: of segments asked for and not there
        self._timeouts: Timers[int] = Timers()
        self._resting: Timers[int] = Timers()
        self._recovery_point = -1  #: losses of segments up to here have been accounted for
        self.there = 0  #: segments that came

    @property
    def is_complete(self) -> bool:
        return self.there == self._count

    @property
    def next_s(self) -> float | None:
        """When `due` has something new to say without an answer having come."""
        return min((at for at in (self._timeouts.next_s, self._resting.next_s) if at is not None), default=None)

    def is_asked(self, index: int) -> bool:
        """Tell whether an answer for this segment is of use."""
        return index in self._attempts

    def due(self, now_s: float) -> list[int] | None:
        """Return what to ask for now; None: give up, a segment does not come."""
        for index in list(self._timeouts.pop_due(now_s)):
            del self._under_way[index]
            self._again.append(index)
            self._lost(index)
            self._backoff = min(self._backoff * 2, 8)
        self._again.extend(self._resting.pop_due(now_s))
        ask: list[int] = []
        while len(self._under_way) < int(self.window) and (self._again or self._next < self._count):
            if self._again:
                index = self._again.popleft()
                self.retransmissions += 1
            else:
                index, self._next = self._next, self._next + 1
            attempts = self._attempts.get(index, 0) + 1
            if attempts > ATTEMPTS_MAX:
                return None
            self._attempts[index] = attempts
            self._under_way[index] = _Asked(now_s, attempts)
            self._timeouts.set(index, now_s + min(RTO_MAX_S, self._estimator.rto_s * self._backoff))
            ask.append(index)
        return ask

    def on_data(self, index: int, now_s: float) -> None:
        """A segment that was asked for is there."""
        asked = self._under_way.pop(index, None)
        self._timeouts.cancel(index)
        self._resting.cancel(index)
        if asked is None:  # came after all, while it was to be repeated
            self._again = deque(each for each in self._again if each != index)
        elif asked.attempts == 1:  # Karn: what was asked for twice tells nothing about the round trip
            self._estimator.sample(now_s - asked.sent_s)
            self._backoff = 1
        del self._attempts[index]
        self.there += 1
        grown = self.window + (1.0 if self.window < self._threshold else 1.0 / self.window)
        self.window = min(grown, WINDOW_MAX)

    def on_refused(self, index: int, now_s: float, *, is_congestion: bool) -> None:
        """The network cannot deliver this segment now, or what came was of no use."""
        asked = self._under_way.pop(index, None)
        if asked is None:
            return
        self._timeouts.cancel(index)
        self._resting.set(index, now_s + min(RTO_MAX_S, REST_S * 2 ** (asked.attempts - 1)))
        if is_congestion:
            self._lost(index)

    def _lost(self, index: int) -> None:
        """Shrink the window, once for all losses among what was under way together."""
        if index <= self._recovery_point:
            return
        self._recovery_point = self._next - 1
        self._threshold = max(WINDOW_MIN, self.window * DECREASE)
        self.window = self._threshold
