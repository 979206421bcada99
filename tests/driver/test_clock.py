"""trio on the clock that all nodes of a machine share."""

from __future__ import annotations

import time

import trio

from proxy.driver.clock import MonotonicClock


def test_trio_and_the_machine_tell_the_same_time() -> None:
    async def read() -> tuple[float, float, float]:
        before_s = time.monotonic()
        now_s = trio.current_time()
        await trio.sleep_until(now_s + 0.001)
        return before_s, now_s, time.monotonic()

    before_s, now_s, after_s = trio.run(read, clock=MonotonicClock())
    assert before_s <= now_s
    assert now_s + 0.001 <= after_s


def test_sleep_time() -> None:
    assert MonotonicClock().deadline_to_sleep_time(time.monotonic() - 1.0) <= -1.0
