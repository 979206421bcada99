"""The supervisor's handle on the process that starves node processes (`testbed.emulation.starver`); made when first needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from testbed.emulation.children import Helper, HelperError
from topologies.errors import CapabilityError

_COMMAND: Final = (sys.executable, "-S", "-m", "testbed.emulation.starver")
_LIMIT_S: Final = 3.0  #: for it to answer, or to end


class Starvation:
    """Starves processes, by name. Everything async is to be called from trio's thread, one call at a time."""

    def __init__(self, *, run_id: str, log_path: Path, on_start: Callable[[str, int], None]) -> None:
        self._run_id, self._log_path, self._on_start = run_id, log_path, on_start
        self._helper: Helper | None = None
        self._pids: dict[str, int] = {}

    def __contains__(self, process: str) -> bool:
        return process in self._pids

    async def begin(self, process: str, pid: int, *, cpu_ratio: float, period_ms: float) -> None:
        """Let *process* run for a part of each period only. Raises: OSError if it has ended; CapabilityError if it did not take."""
        if self._helper is None:
            self._helper = Helper.start("starver", _COMMAND, run_id=self._run_id, log_path=self._log_path)
            self._on_start("starver", self._helper.pid)
        pidfd = os.pidfd_open(pid)
        self._pids[process] = pid
        try:
            reply = await self._ask(
                {"op": "starve", "pid": pid, "cpu_ratio": cpu_ratio, "period_ms": period_ms}, [pidfd]
            )
        finally:
            os.close(pidfd)
        if not reply.get("stopped"):
            await self.end(process)
            raise CapabilityError(where=process, problem="nobody saw it stop", remedy="see log/starver.log of the run")

    async def end(self, process: str) -> float:
        """Let *process* run whenever it wants to. Returns: the part of the time that it could run. Raises: KeyError."""
        report = await self._ask({"op": "feed", "pid": self._pids.pop(process)}, [])
        ran_s, stopped_s = float(report.get("ran_s", 0.0)), float(report.get("stopped_s", 0.0))
        return ran_s / (ran_s + stopped_s) if ran_s + stopped_s else 0.0

    async def close(self) -> None:
        """Let everything go on, and end the helper. Bounded; never raises for what is already gone."""
        self._pids.clear()
        helper, self._helper = self._helper, None
        if helper is not None:
            await helper.wait_ended(limit_s=_LIMIT_S)

    async def _ask(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        assert self._helper is not None
        reply: dict[str, Any] | None = None
        try:
            with trio.move_on_after(_LIMIT_S):
                await self._helper.send(request, fds)
                reply = await self._helper.receive()
        except HelperError:
            pass  # somebody killed it; what it should have answered is missing, and the caller says so
        return reply or {}
