"""trio on CLOCK_MONOTONIC: the clock that all namespaces of a machine share, so that times of two nodes compare."""

from __future__ import annotations

import time

import trio


class MonotonicClock(trio.abc.Clock):
    """``trio.current_time()`` is ``time.monotonic()`` (trio's own clock adds a random offset)."""

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long to sleep until *deadline*, in seconds."""
        return deadline - time.monotonic()
