"""The supervisor's end of the zygote: the preloaded Python that node processes are forked from.

JSON datagrams: ``{"op":"spawn","name":...,"config_path":...,"log_path":...}`` with two open files, the host's network
namespace and the node's end of its control channel; answered by ``{"spawned":name,"pid":...}`` or
``{"failed":name,"error":...}``. When a node ends: ``{"exited":name,"pid":...,"status":...,"cpu_s":...,
"max_rss_bytes":...}``. ``{"op":"exit"}`` ends the zygote and every node.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import trio

from testbed.emulation.children import Helper, HelperError

#: ``-P``: a file called proxy.py in the working directory is not to be taken for ours.
NODE_PROGRAM: Final = (sys.executable, "-P", "-m", "proxy", "zygote")

START_LIMIT_S: Final = 60.0  #: some 2 s; on an emulated processor (hconf vm) ten times as long
EXIT_LIMIT_S: Final = 2.0  #: it gives nodes 1 s between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Exit:
    """How a node process ended."""

    process: str
    pid: int
    status: int  #: exit status; negative: the signal that ended it
    cpu_s: float
    max_rss_bytes: int
    t_s: float  #: CLOCK_MONOTONIC, when the supervisor heard of it


class Zygote:
    """Spawns node processes. `serve` must be running."""

    def __init__(self, helper: Helper, on_exit: Callable[[Exit], None]) -> None:
        self.helper, self._on_exit = helper, on_exit
        self._waiting: dict[str, tuple[trio.Event, list[dict[str, Any]]]] = {}  # bounded by the tasks that spawn
        self.ready = trio.Event()
        self.ended = trio.Event()

    @classmethod
    def begin(
        cls, *, run_id: str, log_path: Path, on_exit: Callable[[Exit], None], program: Sequence[str] = NODE_PROGRAM
    ) -> Self:
        """Start the zygote; `ready` is set when it has loaded what nodes need."""
        return cls(Helper.start("zygote", program, run_id=run_id, log_path=log_path), on_exit)

    async def serve(self) -> None:
        """Take its messages until it ends."""
        try:
            while (message := await self.helper.receive()) is not None:
                self._take(message)
        finally:
            self.ended.set()
            self.ready.set()
            for answered, _ in self._waiting.values():
                answered.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "zygote" in message:
            self.ready.set()
        elif "exited" in message:
            self._on_exit(
                Exit(
                    process=message["exited"],
                    pid=message["pid"],
                    status=message["status"],
                    cpu_s=message["cpu_s"],
                    max_rss_bytes=message["max_rss_bytes"],
                    t_s=time.monotonic(),
                )
            )
        else:
            waiting = self._waiting.get(message.get("spawned") or message["failed"])
            if waiting is not None:  # else whoever asked has given up
                waiting[1].append(message)
                waiting[0].set()

    async def wait_ready(self) -> None:
        """Raises: HelperError if the zygote cannot start."""
        with trio.move_on_after(START_LIMIT_S):
            await self.ready.wait()
        if self.ended.is_set() or not self.ready.is_set():
            raise HelperError("the zygote did not start; its log says why")

    async def spawn(
        self, name: str, *, config_path: Path, log_path: Path, netns_fd: int, control_fd: int, limit_s: float
    ) -> int:
        """Start one node process in a namespace. Returns its process ID. Raises: HelperError."""
        answered, answer = self._waiting[name] = trio.Event(), list[dict[str, Any]]()
        try:
            with trio.move_on_after(limit_s):
                await self.helper.send(
                    {"op": "spawn", "name": name, "config_path": str(config_path), "log_path": str(log_path)},
                    fds=(netns_fd, control_fd),
                )
                if not self.ended.is_set():
                    await answered.wait()
        finally:
            del self._waiting[name]
        if not answer or "failed" in answer[0]:
            reason = answer[0].get("error", "no reason given") if answer else "the zygote did not answer"
            raise HelperError(f"{name} could not be spawned: {reason}")
        pid: int = answer[0]["pid"]
        return pid

    async def end(self) -> None:
        """End the zygote and what nodes it still has. Bounded; `serve` hears of the last exits meanwhile."""
        try:
            await self.helper.send({"op": "exit"})
            with trio.move_on_after(EXIT_LIMIT_S):
                await self.ended.wait()
        except HelperError:
            pass  # somebody killed it; its nodes went with it
        await self.helper.wait_ended(limit_s=EXIT_LIMIT_S)
