"""How late timers fire: the figure that says whether a run's times can be trusted."""

from __future__ import annotations

import math
from typing import Final

#: Upper bounds in ms grow by a quarter from 1 microsecond on; 80 of them reach beyond a minute.
_RATIO: Final = 1.25
_FIRST_MS: Final = 0.001
_BINS: Final = 82


class LagHistogram:
    """Counts in logarithmic bins: constant memory, quantiles within 25 %."""

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self._count = 0
        self.max_ms = 0.0

    def add(self, lag_s: float) -> None:
        """Take in one lateness; a negative one is none."""
        lag_ms = lag_s * 1e3
        self.max_ms = max(self.max_ms, lag_ms)
        index = 0 if lag_ms <= _FIRST_MS else 1 + int(math.log(lag_ms / _FIRST_MS, _RATIO))
        self._bins[min(index, _BINS - 1)] += 1
        self._count += 1

    def quantile_ms(self, share: float) -> float:
        """Return the upper bound of the bin that holds the quantile, at most the maximum; 0 of nothing."""
        rank, seen = share * self._count, 0
        for index, count in enumerate(self._bins):
            seen += count
            if count and seen >= rank:
                return min(self.max_ms, _FIRST_MS * _RATIO**index)
        return 0.0
