"""A histogram of durations with fixed bins, cheap to add to and small to send."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

#: Upper bounds in nanoseconds, 20 bins a decade from 1 us to 10 s: a quantile is right within 12.2 %.
BOUNDS_NS: Final[tuple[int, ...]] = tuple(round(1_000 * 10 ** (step / 20)) for step in range(141))
BIN_COUNT: Final = len(BOUNDS_NS) + 1  # the last one has no upper bound

Bins = list[int]


def new_bins() -> Bins:
    return [0] * BIN_COUNT


def bin_of(duration_ns: int) -> int:
    """Return the index of the bin that *duration_ns* falls into; the emulator inlines this call."""
    return bisect_left(BOUNDS_NS, duration_ns)


def quantile_ms(bins: Bins, share: float, *, max_ns: int) -> float | None:
    """Return the *share* quantile (0 to 1) in ms: the upper bound of its bin, never above *max_ns*; None if empty.

    >>> bins = new_bins()
    >>> bins[bin_of(100_000)] += 99
    >>> bins[bin_of(3_000_000)] += 1
    >>> quantile_ms(bins, 0.5, max_ns=3_000_000), quantile_ms(bins, 1.0, max_ns=3_000_000)
    (0.1, 3.0)
    """
    total = sum(bins)
    if total == 0:
        return None
    rank, seen = share * total, 0
    for index, count in enumerate(bins):
        seen += count
        if count and seen >= rank:
            bound_ns = BOUNDS_NS[index] if index < len(BOUNDS_NS) else max_ns
            return min(bound_ns, max_ns) / 1e6
    return max_ns / 1e6


def as_pairs(bins: Bins, *, max_ns: int) -> list[tuple[float, int]]:
    """Return (upper bound in ms, count) of the bins that are not empty."""
    return [
        ((BOUNDS_NS[index] if index < len(BOUNDS_NS) else max_ns) / 1e6, count)
        for index, count in enumerate(bins)
        if count
    ]
