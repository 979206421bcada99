"""The node processes of a network: started by the zygote in their hosts, listened to, broken as faults want it, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from testbed.emulation.children import HelperError
from testbed.emulation.control import ControlChannel, NodeError
from testbed.emulation.hosts import read_process_state
from testbed.emulation.ownership import Ownership
from testbed.emulation.scopes import ShieldedTasks
from testbed.emulation.starvation import Starvation
from testbed.emulation.zygote import Exit, Zygote
from testbed.faults.targets import ProcessState
from testbed.node_config import log_files
from testbed.plan import NetworkPlan
from topologies.errors import CapabilityError

#: Events of all nodes that nobody has taken yet; further ones are dropped and counted in `events_dropped`.
EVENTS_MAX: Final = 65_536
READY_LIMIT_S: Final = 20.0  #: for a node to be spawned, and again for it to be ready
READY_LIMIT_PER_NODE_S: Final = 0.2  #: and so much more for each node of the network: all start at once, on few cores
STOP_LIMIT_S: Final = 1.0  #: for all nodes to end when they are asked to; then they are killed
STOP_LIMIT_PER_NODE_S: Final = 0.01
KILL_LIMIT_S: Final = 5.0  #: for a process that was sent SIGKILL to be gone
SIGNAL_LIMIT_S: Final = 1.0  #: for a process that was stopped or continued to show it
SIGNAL_POLL_S: Final = 0.001
LOG_TAIL_BYTES: Final = 1_000


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """What a node said unasked, or ``exited``: what the supervisor noticed about it."""

    process: str
    event: str
    t_s: float  #: CLOCK_MONOTONIC
    fields: Mapping[str, Any]  #: whatever else came with it


@dataclass(slots=True)
class NodeProcess:
    """One process that runs in a host."""

    name: str
    host: str
    pid: int
    control: ControlChannel
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    exit: Exit | None = None
    is_doomed: bool = False  #: it is about to be killed, as a fault


class NodeProcesses:
    """All of one network, by name such as ``ue1.forwarder``. Everything async is to be called from trio's thread."""

    def __init__(
        self,
        plan: NetworkPlan,
        ownership: Ownership,
        on_event: Callable[[str, str, Mapping[str, Any]], None] = lambda *_: None,
    ) -> None:
        self.processes: dict[str, NodeProcess] = {}
        self.exits: dict[str, Exit] = {}  #: how each that has ended did
        self.events_dropped = 0
        self.is_stopping = False  #: from now on it is no wonder if one ends
        self._send_event, self.events = trio.open_memory_channel[NodeEvent](EVENTS_MAX)
        self._plan, self._ownership, self._on_event = plan, ownership, on_event
        self._starvation = Starvation(
            run_id=plan.run_id,
            log_path=plan.log_dir / "starver.log",
            on_start=lambda name, pid: ownership.record({name: pid}),
        )
        self._zygote: Zygote
        self._netns_fds: Mapping[str, int]
        self._background: ShieldedTasks

    # Starting

    async def start_all(
        self,
        configs: Sequence[tuple[str, Path]],
        *,
        zygote: Zygote,
        netns_fds: Mapping[str, int],
        background: ShieldedTasks,
    ) -> None:
        """Start all processes at once, but a host's second one when its first is ready to be attached to.

        Raises: NodeError, HelperError.
        """
        self._zygote, self._netns_fds, self._background = zygote, netns_fds, background
        by_host: dict[str, list[tuple[str, Path]]] = {}
        for name, path in configs:
            by_host.setdefault(name.partition(".")[0], []).append((name, path))

        async def start_in(host: str) -> None:
            for name, path in by_host[host]:
                await self._start(name, host, path)

        async with trio.open_nursery() as together:
            for host in by_host:
                together.start_soon(start_in, host)
        self._ownership.record({f"node {name}": process.pid for name, process in self.processes.items()})

    @trio.lowlevel.enable_ki_protection
    async def _start(self, name: str, host: str, config_path: Path) -> None:
        log_path = (self._plan.log_dir / f"{name}.log").absolute()
        limit_s = READY_LIMIT_S + READY_LIMIT_PER_NODE_S * len(self._plan.topology.nodes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        control = ControlChannel(name, stream, partial(self._note_event, name))
        process = self.processes[name] = NodeProcess(name, host, 0, control)
        with theirs:
            process.pid = await self._zygote.spawn(
                name,
                config_path=config_path,
                log_path=log_path,
                netns_fd=self._netns_fds[host],
                control_fd=theirs.fileno(),
                limit_s=limit_s,
            )
        self._background.start_soon(control.serve)
        with trio.move_on_after(limit_s) as limit:
            await process.ready.wait()
        if process.exit is not None:
            raise NodeError(f"{name} ended with status {process.exit.status} before it was ready{_tail(log_path)}")
        if limit.cancelled_caught:
            raise NodeError(f"{name} was not ready after {limit_s:g} s{_tail(log_path)}")

    # Faults

    async def kill(self, process: str) -> None:
        """End a node process without warning, and wait until it is gone. Raises: KeyError, CapabilityError."""
        doomed = self.processes[process]
        if doomed.ended.is_set():
            return
        doomed.is_doomed = True
        os.kill(doomed.pid, signal.SIGKILL)  # not reaped yet: the zygote would have said so
        with trio.move_on_after(KILL_LIMIT_S):
            await doomed.ended.wait()
        if not doomed.ended.is_set():
            raise CapabilityError(
                where=process, problem=f"was still there {KILL_LIMIT_S:g} s after SIGKILL", remedy="see the run's logs"
            )
        await doomed.control.aclose()

    async def restart(self, process: str) -> None:
        """Start a process that has ended, under its next boot number, and wait until it is ready.

        Raises: KeyError, CapabilityError if it did not come up.
        """
        ended = self.processes[process]
        path = (self._plan.config_dir / f"{process}.json").absolute()
        config = json.loads(path.read_bytes())
        config["boot"] += 1
        path.write_text(json.dumps(config), encoding="utf-8")
        try:
            await self._start(process, ended.host, path)
        except (NodeError, HelperError) as error:
            raise CapabilityError(where=process, problem=str(error), remedy="see its log") from error
        self._ownership.record({f"node {process}": self.processes[process].pid})

    async def freeze(self, process: str) -> None:
        """Stop a process (SIGSTOP): it keeps its sockets, and does nothing. Raises: KeyError, OSError."""
        await self._signal(process, signal.SIGSTOP, "frozen")

    async def thaw(self, process: str) -> None:
        """Let a process that was stopped go on (SIGCONT). Raises: KeyError, OSError."""
        await self._signal(process, signal.SIGCONT, "running")

    async def _signal(self, process: str, number: signal.Signals, until: ProcessState) -> None:
        addressee = self.processes[process]
        if addressee.exit is not None:
            raise ProcessLookupError(f"{process} has ended")
        os.kill(addressee.pid, number)
        with trio.move_on_after(SIGNAL_LIMIT_S):  # each thread has to be scheduled to take it
            while read_process_state(addressee.pid) != until:  # noqa: ASYNC110  the kernel tells only its parent
                await trio.sleep(SIGNAL_POLL_S)

    async def starve(self, process: str, *, cpu_ratio: float, period_ms: float) -> None:
        """Let a process run for a part of each period only, until `feed`.

        Raises: KeyError; OSError if it has ended; CapabilityError if nobody saw it stop.
        """
        starved = self.processes[process]
        if starved.exit is not None:
            raise ProcessLookupError(f"{process} has ended")
        await self._starvation.begin(process, starved.pid, cpu_ratio=cpu_ratio, period_ms=period_ms)

    async def feed(self, process: str) -> float:
        """Let a starved process run whenever it wants to. Returns: the part of the time that it could run. Raises: KeyError."""
        ran_ratio = await self._starvation.end(process)
        with contextlib.suppress(ProcessLookupError):  # whatever has become of the helper, the process goes on
            await self._signal(process, signal.SIGCONT, "running")
        return ran_ratio

    def lose_disk(self, process: str) -> None:
        """Remove what a service proxy, which has ended, has stored. Raises: OSError."""
        for path in log_files(self._plan, process.rpartition(".")[0]):
            path.unlink()

    def state(self, process: str) -> ProcessState:
        """Return what a node process is doing, as the kernel says. Raises: KeyError."""
        known = self.processes[process]
        if known.exit is not None:
            return "dead"
        state = read_process_state(known.pid)
        return "running" if state == "frozen" and process in self._starvation else state

    # What they say

    def _note_event(self, name: str, message: dict[str, Any]) -> None:
        kind = str(message.get("event"))
        if kind == "ready":
            self.processes[name].ready.set()
        rest = {key: value for key, value in message.items() if key not in ("event", "t_s")}
        self._emit(NodeEvent(name, kind, float(message.get("t_s", time.monotonic())), rest))

    def note_exit(self, ended: Exit) -> None:
        """A process is gone, says the zygote."""
        self.exits[ended.process] = ended
        process = self.processes.get(ended.process)
        is_doomed = process is not None and process.is_doomed
        if process is not None:
            process.exit = ended
            process.ended.set()
            process.ready.set()  # nobody needs to wait for it any more
        self._emit(
            NodeEvent(
                ended.process, "exited", ended.t_s, {"status": ended.status, "asked": self.is_stopping or is_doomed}
            )
        )

    def _emit(self, event: NodeEvent) -> None:
        self._on_event(event.process, event.event, event.fields)
        try:
            self._send_event.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.events_dropped += 1

    # Ending

    async def stop_all(self) -> None:
        """Ask all to end, and return when they have, or when time is up."""
        limit_s = STOP_LIMIT_S + STOP_LIMIT_PER_NODE_S * len(self.processes)
        await self._starvation.close()

        async def ask(process: NodeProcess) -> None:
            with contextlib.suppress(NodeError):
                await process.control.request("stop", limit_s=limit_s)
            await process.ended.wait()

        with trio.move_on_after(limit_s):
            async with trio.open_nursery() as together:
                for process in self.processes.values():
                    if process.pid and process.exit is None:
                        with contextlib.suppress(OSError):
                            os.kill(process.pid, signal.SIGCONT)  # one that is frozen cannot end
                        together.start_soon(ask, process)

    async def close(self) -> None:
        """Close the control channels; all processes have ended."""
        for process in self.processes.values():
            await process.control.aclose()

    def close_events(self) -> None:
        """Nothing more will be told."""
        self._send_event.close()


def _tail(log_path: Path) -> str:
    """Return the end of a node's log, for a message."""
    try:
        text = log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
    return f"; its log ends:\n{text}" if text else f"; its log {log_path} is empty"
