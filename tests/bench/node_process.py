"""A real node program in a process of its own, for benches: its configuration in, its sockets in a namespace, its profile out."""

from __future__ import annotations

import cProfile
import ctypes
import json
import os
import pstats
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import trio

from proxy.config import FaceConfig, ForwarderConfig, NodeConfig
from proxy.core.liveness import State
from proxy.driver.clock import MonotonicClock
from proxy.driver.program import NodeProgram
from proxy.wire.lp import LinkPacket, encode_link_packet

_CLONE_NEWNET = 0x4000_0000
_WAITING = ("<method 'poll' of 'select.epoll' objects>",)
_SYSTEM_CALLS = ("<method 'send' of '_socket.socket' objects>", "<method 'recv' of '_socket.socket' objects>")
_Function = tuple[str, int, str]  #: file, line, name
_Figures = tuple[int, int, float, float, dict[_Function, tuple[int, int, float, float]]]
PORT = 6363


def enter_namespace() -> None:
    """Put this process into a network namespace of its own, which ends with it; its loopback is up. Takes root."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace: run this as root")
    ip("link", "set", "lo", "up")


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True)


def node_config(forwarder: ForwarderConfig, directory: Path) -> NodeConfig:
    """Return the configuration of a core router."""
    return NodeConfig(
        run_id="bench",
        node="bench",
        role="core",
        process="forwarder",
        boot=1,
        seed=1,
        records_path=str(directory / "bench.jsonl"),
        forwarder=forwarder,
    )


class NodeProcess:
    """The program, forked off; with *profile*, its costs can be read after its end.

    Args:
        config: of the node.
        cpu: the one that it may use, None for any.
        profile: where cProfile's figures go, None for none.
        prepare: ip(8) commands; where there are some, the process makes a namespace of its own and waits for ``go``, so that
            interfaces can be moved into it, before it runs them.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        cpu: int | None = None,
        profile: Path | None = None,
        prepare: Sequence[Sequence[str]] = (),
    ) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                self.control.close()
                _run(config, theirs, cpu, profile, prepare)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        theirs.close()
        self._lines = self.control.makefile("r", encoding="utf-8")
        if prepare:
            self._wait("in-namespace")
        else:
            self._wait("ready")

    def go(self) -> None:
        """Let it run its commands and start."""
        self.control.sendall(b"go\n")
        self._wait("ready")

    def _wait(self, event: str) -> None:
        while json.loads(next(self._lines)).get("event") != event:
            pass

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it and wait."""
        self._lines.close()
        self.control.close()
        os.waitpid(self.pid, 0)


def _run(
    config: NodeConfig, control: socket.socket, cpu: int | None, profile: Path | None, prepare: Sequence[Sequence[str]]
) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if prepare:
        enter_namespace()
        control.sendall(b'{"event": "in-namespace"}\n')
        assert control.recv(3) == b"go\n"
        for command in prepare:
            ip(*command)

    def run() -> None:
        trio.run(NodeProgram(config, control=control).run, clock=MonotonicClock())

    if profile is None:
        run()
        return
    figures = cProfile.Profile()
    figures.runcall(run)
    figures.dump_stats(profile)


def largest_costs(profile: Path, count: int) -> list[str]:
    """Return the functions with the most time of their own, waiting left out.

    That of built-in functions is their callers', but for system calls.
    """
    figures: dict[_Function, _Figures] = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    own_s: dict[_Function, float] = defaultdict(float)
    for function, (_, _, function_s, _, callers) in figures.items():
        if function[2] in _WAITING:
            continue
        if function[0] != "~" or function[2] in _SYSTEM_CALLS:
            own_s[function] += function_s
        else:
            for caller, (_, _, caller_s, _) in callers.items():
                own_s[caller] += caller_s
    total_s = sum(own_s.values())
    ranked = sorted(own_s.items(), key=lambda item: -item[1])[:count]
    return [
        f"{its_s / total_s:6.1%}  {1e6 * its_s / figures[file, line, name][1]:5.1f} us x {figures[file, line, name][1]:,}  "
        f"{name}" + ("" if file == "~" else f" ({Path(file).name}:{line})")
        for (file, line, name), its_s in ranked
    ]


class Neighbour:
    """The other end of one face: a socket, and a session that is up as soon as the node has heard it."""

    def __init__(self, face: FaceConfig) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        self._socket.bind((face.remote_address, PORT))
        self._socket.connect((face.local_address, PORT))
        self.send, self._receive = self._socket.send, self._socket.recv

    def fileno(self) -> int:
        return self._socket.fileno()

    def say(self, state: State) -> None:
        """Send a face heartbeat."""
        self.send(encode_link_packet(LinkPacket(b"", session_state=state)))

    def take(self) -> list[bytes]:
        """Return what has arrived."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._receive(65_536))
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()
