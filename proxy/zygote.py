"""The zygote: a Python that has everything loaded and forks one process per node program.

Starting an interpreter and importing trio, msgspec and nacl takes 0.3 s; forking this one takes 2 ms and shares
the memory. The protocol with the testbed is JSON datagrams on an inherited SOCK_SEQPACKET socket:

    -> {"op": "spawn", "name": ..., "config_path": ..., "log_path": ...} + descriptors [network namespace, control]
    <- {"spawned": name, "pid": ...}  or  {"failed": name, "error": ...}
    <- {"exited": name, "pid": ..., "status": ..., "cpu_s": ..., "max_rss_bytes": ...}   (status < 0: by that signal)
    -> {"op": "exit"}, or the socket closes: SIGTERM to all, SIGKILL after a grace period, then the end
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import trio

from proxy.config import NodeConfig
from proxy.driver.clock import MonotonicClock
from proxy.driver.config_file import ConfigError, load_config
from proxy.driver.program import NodeProgram
from proxy.storage.log_store import StorageError

TERMINATION_GRACE_S: Final = 1.0
_CLONE_NEWNET: Final = 0x4000_0000
_PR_SET_PDEATHSIG: Final = 1
_DATAGRAM_MAX_BYTES: Final = 65_536
_LIBC = ctypes.CDLL(None, use_errno=True)

#: Below the link emulator's.
REAL_TIME_PRIORITY: Final = 1
EXIT_BAD_CONFIG: Final = 2
EXIT_NO_STORAGE: Final = 74  # EX_IOERR


def serve(sock: socket.socket) -> None:
    """Fork node programs as asked until told to exit."""
    _warm_up()
    zygote = _Zygote(sock)
    try:
        zygote.run()
    finally:
        zygote.end_children()


def _warm_up() -> None:
    """Do once what each node would otherwise do for itself, in memory of its own: half of the time that its start takes."""
    msgspec.json.Decoder(NodeConfig)  # makes the descriptions of all sections, which stay with their classes
    trio.run(trio.lowlevel.checkpoint, clock=MonotonicClock())


class _Zygote:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._children: dict[int, str] = {}
        self._parent = os.getppid()

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for word in (signal.SIGINT, signal.SIGTERM):
            signal.signal(word, signal.SIG_IGN if word == signal.SIGINT else _on_terminate)
        gc.collect()
        gc.freeze()  # forked children write no garbage collector marks into shared pages
        self._send({"zygote": "ready", "pid": os.getpid()})
        while True:
            readable, _, _ = select.select([self._socket.fileno(), wake_read], [], [])
            if wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._socket.fileno() in readable and not self._take_request():
                return

    def _take_request(self) -> bool:
        datagram, fds, _, _ = socket.recv_fds(self._socket, _DATAGRAM_MAX_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
        try:
            request = json.loads(datagram) if datagram else {"op": "exit"}
            if request["op"] == "exit":
                return False
            self._spawn(request, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _spawn(self, request: dict[str, Any], fds: list[int]) -> None:
        name = request.get("name", "?")
        if len(fds) != 2:
            self._send({"failed": name, "error": f"2 descriptors are needed, {len(fds)} came"})
            return
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"failed": name, "error": f"fork: {error.strerror}"})
            return
        if pid == 0:
            _become_node(request, netns_fd=fds[0], control_fd=fds[1], zygote_socket=self._socket)
        self._children[pid] = name
        self._send({"spawned": name, "pid": pid})

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._send(
                {
                    "exited": self._children.pop(pid, "?"),
                    "pid": pid,
                    "status": os.waitstatus_to_exitcode(status),
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "max_rss_bytes": usage.ru_maxrss * 1024,
                }
            )

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone; the next receive says so
            self._socket.send(json.dumps(message).encode())

    def end_children(self) -> None:
        """SIGTERM, a grace period, SIGKILL; only to processes forked here and not yet waited for."""
        for word, grace_s in ((signal.SIGTERM, TERMINATION_GRACE_S), (signal.SIGKILL, TERMINATION_GRACE_S)):
            for pid in self._children:
                os.kill(pid, word)
            until_s = time.monotonic() + grace_s
            while self._children and time.monotonic() < until_s:
                self._reap()
                time.sleep(0.002)


def _on_terminate(*_: object) -> None:
    raise SystemExit(0)


def _become_node(request: dict[str, Any], *, netns_fd: int, control_fd: int, zygote_socket: socket.socket) -> NoReturn:
    """In the forked child: enter the namespace and run the node program. Never returns into the zygote's code."""
    status = 70  # EX_SOFTWARE, unless we get further
    try:
        signal.set_wakeup_fd(-1)
        for word in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(word, signal.SIG_DFL)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(status)  # the zygote died before it could be watched
        _redirect_output(Path(request["log_path"]))
        if _LIBC.setns(netns_fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        zygote_socket.close()
        control = socket.socket(fileno=os.dup(control_fd))
        os.close(control_fd)
        os.close(netns_fd)
        status = run_node(Path(request["config_path"]), control)
    except BaseException:  # noqa: ASYNC103, BLE001 - whatever it is, it must not unwind into the zygote
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _raise_priority() -> None:
    """Ask for real-time scheduling, as far as this machine lets us.

    A host of its own hardware would not wait for whatever else runs here. All are equals, round robin: clients that came after
    the routers would at high rates wait for all that these still have to do (busy-proxy: p99 a third higher). The link emulator
    is above; the kernel keeps a share of each core for everybody else (sched(7)).
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(REAL_TIME_PRIORITY))


def _redirect_output(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fd in (log, null):
        if fd > 2:
            os.close(fd)


def run_node(config_path: Path, control: socket.socket) -> int:
    """Run one node program in this process and namespace; return its exit status."""
    try:
        config = load_config(config_path)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_CONFIG
    _raise_priority()
    with control:
        try:
            program = NodeProgram(config, control=control)
        except StorageError as error:  # without its log a proxy would use a boot number again
            sys.stderr.write(f"{config.proxy and config.proxy.log_path}: {error}\n")
            return EXIT_NO_STORAGE
        trio.run(program.run, clock=MonotonicClock(), strict_exception_groups=True)
    return 0
