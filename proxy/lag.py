"""How late timers fire: the figure that says whether a run's times can be trusted. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

#: Upper bounds in ms grow by a quarter from 1 microsecond on; 80 of them reach beyond a minute.
_RATIO: Final = 1.25
_FIRST_MS: Final = 0.001
_BINS: Final = 82


def bin_of(lag_ms: float) -> int:
    """Return the bin that counts this lateness; a negative one is none."""
    return 0 if lag_ms <= _FIRST_MS else min(1 + int(math.log(lag_ms / _FIRST_MS, _RATIO)), _BINS - 1)


def bounds_ms(index: int) -> tuple[float, float]:
    """Return what lies in a bin, from above the first up to the second; of the last one, which has no end, as if it had.

    >>> bin_of(0.003) == 5 and bounds_ms(5)[0] < 0.003 <= bounds_ms(5)[1]
    True
    """
    return (_FIRST_MS * _RATIO ** (index - 1) if index else 0.0), _FIRST_MS * _RATIO**index


class LagHistogram:
    """Counts in logarithmic bins: constant memory, quantiles within 25 %."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._bins = [0] * _BINS
        self._count = 0
        self.max_ms = 0.0

    def add(self, lag_s: float) -> None:
        """Take in one lateness; a negative one is none."""
        lag_ms = lag_s * 1e3
        self.max_ms = max(self.max_ms, lag_ms)
        self._bins[bin_of(lag_ms)] += 1
        self._count += 1

    def take(self) -> tuple[list[tuple[int, int]], float]:
        """Return (bin, count) of the bins that hold something, and the maximum in ms; start anew."""
        taken = [(index, count) for index, count in enumerate(self._bins) if count], self.max_ms
        self._start()
        return taken

    def merge(self, bins: Iterable[tuple[int, int]], max_ms: float) -> None:
        """Take in what `take` has returned, here or elsewhere. A bin that there is none of counts as the last."""
        for index, count in bins:
            self._bins[min(index, _BINS - 1)] += count
            self._count += count
        self.max_ms = max(self.max_ms, max_ms)

    def quantile_ms(self, share: float) -> float:
        """Return the upper bound of the bin that holds the quantile, at most the maximum; 0 of nothing."""
        rank, seen = share * self._count, 0
        for index, count in enumerate(self._bins):
            seen += count
            if count and seen >= rank:
                return min(self.max_ms, _FIRST_MS * _RATIO**index)
        return 0.0
