"""The process that starves node processes: it lets each run for a part of every period, and stops it for the rest.

``python -S -m testbed.emulation.starver --socket-fd N``, started by `starvation.Starvation`. A limit of a control group would not
do: nodes run under a real-time policy, which those limits leave alone, and not every machine lets us make groups. Periods
begin at multiples of their length, so all processes of a node run and stop together.

It is told each process with a pidfd, so that no other is ever hit, and answers once it has seen it stopped; told to feed one, it
lets it go on and says for how long it could run. When its socket closes, everything goes on. It imports nothing but the
standard library, so that it starts in 20 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

#: Above the link emulator, and the nodes: it sleeps nearly always.
_FIFO_PRIORITY: Final = 3
_SEEN_LIMIT_S: Final = 0.5
_SEEN_POLL_S: Final = 0.0005


class Starved:
    """One process, which is stopped and continued in turn, and the time that it could run."""

    def __init__(self, pidfd: int, pid: int, *, cpu_ratio: float, period_s: float) -> None:
        self._pidfd, self._pid = pidfd, pid
        self._cpu_ratio, self._period_s = cpu_ratio, period_s
        self.ran_s = self.stopped_s = 0.0
        self._is_stopped, self._has_ended = False, False
        self._since_s = time.monotonic()
        self.due_s = 0.0
        self._turn(stop=True)

    def saw_stopped(self) -> bool:
        """Return whether the kernel says that the process is stopped (proc(5), /proc/pid/stat, third field)."""
        until_s = time.monotonic() + _SEEN_LIMIT_S
        while time.monotonic() < until_s and not self._has_ended:
            state = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
            if state.split()[0] == "T":
                return True
            time.sleep(_SEEN_POLL_S)
        return False

    def turn(self) -> None:
        """Do what is due: stop the process, or let it go on."""
        self._turn(stop=not self._is_stopped)

    def end(self) -> dict[str, float]:
        """Let the process go on for good. Returns: for how long it could run, and could not."""
        self._turn(stop=False)
        os.close(self._pidfd)
        return {"ran_s": self.ran_s, "stopped_s": self.stopped_s}

    def _turn(self, *, stop: bool) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP if stop else signal.SIGCONT)
        except ProcessLookupError:
            self._has_ended = True
        now_s = time.monotonic()
        if self._is_stopped:
            self.stopped_s += now_s - self._since_s
        else:
            self.ran_s += now_s - self._since_s
        self._since_s, self._is_stopped = now_s, stop
        begin_s = now_s // self._period_s * self._period_s
        stop_s = begin_s + self._cpu_ratio * self._period_s
        if stop:
            self.due_s = begin_s + self._period_s
        else:  # woken late, it has the less of this period, but some of it
            self.due_s = max(stop_s, now_s + self._cpu_ratio * self._period_s / 2)
        if self._has_ended:
            self.due_s = float("inf")


def serve(control: socket.socket) -> None:
    """Starve who is to be starved until the socket closes."""
    starved: dict[int, Starved] = {}
    try:
        while True:
            due_s = min((each.due_s for each in starved.values()), default=float("inf"))
            timeout_s = None if due_s == float("inf") else max(0.0, due_s - time.monotonic())
            readable, _, _ = select.select([control], [], [], timeout_s)
            now_s = time.monotonic()
            for each in starved.values():
                if each.due_s <= now_s:
                    each.turn()
            if not readable:
                continue
            data, fds, _, _ = socket.recv_fds(control, 4_096, 1)
            if not data:
                return  # the supervisor has ended, or wants us to
            request: dict[str, Any] = json.loads(data)
            pid = int(request["pid"])
            reply: dict[str, Any]
            if request["op"] == "starve":
                ratio, period_s = float(request["cpu_ratio"]), float(request["period_ms"]) / 1e3
                starved[pid] = Starved(fds[0], pid, cpu_ratio=ratio, period_s=period_s)
                reply = {"stopped": starved[pid].saw_stopped()}
            else:
                reply = dict(starved.pop(pid).end())
            control.send(json.dumps(reply).encode())
    finally:
        for each in starved.values():
            each.end()


def main() -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="testbed.emulation.starver", description="internal; started by hconf")
    parser.add_argument("--socket-fd", type=int, required=True)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the socket is our end
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    with socket.socket(fileno=options.socket_fd) as control, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(control)
    return 0


if __name__ == "__main__":
    sys.exit(main())
