"""Real-time priority without taking a processor from everybody else: a busy process has its priority nine tenths of the time.

A process of a real-time class that never sleeps is stopped by the kernel: for 50 ms of each second, in one piece
(sched_rt_runtime_us, or since Linux 6.8 the fair server, which lets starved processes of that processor run). The emulator is that busy
while it carries all it can, and while frames are due so closely that it polls in between. So it steps down by itself, often
and shortly: as an ordinary process of the highest weight (nice -20) it goes on, and whoever waited gets a turn.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

WINDOW_NS: Final = 40_000_000
STEP_DOWN_NS: Final = 4_000_000
#: Part of a window that this process ran, above which it steps down.
BUSY_RATIO: Final = 0.85
_HIGHEST_WEIGHT: Final = -20


class TurnTaking:
    """Has a real-time priority and steps down from it in time. Make it where the process has that priority already."""

    def __init__(self, priority: int) -> None:
        self._priority = os.sched_param(priority)
        self._has_priority = True
        self._since_ns = time.monotonic_ns()
        self._cpu_ns = time.process_time_ns()
        self.busy_ratio = 0.0  #: part of the last window that this process ran
        self.steps_down = 0
        with contextlib.suppress(OSError):  # of no consequence while the class is a real-time one
            os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST_WEIGHT)

    def consider(self, now_ns: int) -> int:
        """Step down or up again if it is time to; return when to ask again. Both in ns of CLOCK_MONOTONIC."""
        cpu_ns = time.process_time_ns()
        ran_ns, passed_ns = cpu_ns - self._cpu_ns, now_ns - self._since_ns
        self._since_ns, self._cpu_ns = now_ns, cpu_ns
        self.busy_ratio = ran_ns / max(1, passed_ns)
        if not self._has_priority:
            self._has_priority = True
            os.sched_setscheduler(0, os.SCHED_FIFO, self._priority)
        elif self.busy_ratio > BUSY_RATIO:
            self._has_priority = False
            self.steps_down += 1
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            return now_ns + STEP_DOWN_NS
        return now_ns + WINDOW_NS
