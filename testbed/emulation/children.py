"""Helper programs of a run: started so that they outlive no run, and talked to in datagrams."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import trio

#: Where our packages are; helpers that are Python programs import them from there, whatever the working directory.
SOURCE_ROOT: Final = Path(__file__).parents[2]

#: Every process of a run has this in its environment, whatever started it; `hconf clean` knows ours by it.
RUN_ID_VARIABLE: Final = "HCONF_RUN_ID"

#: Longest datagram of a helper: the process IDs of some 20,000 hosts.
DATAGRAM_MAX_BYTES: Final = 200_000


def run_environment(run_id: str) -> dict[str, str]:
    """Return what every process of a run has in its environment, besides ours."""
    path = os.pathsep.join(filter(None, (str(SOURCE_ROOT), os.environ.get("PYTHONPATH"))))
    return {RUN_ID_VARIABLE: run_id, "PYTHONPATH": path}


class HelperError(Exception):
    """A helper program failed or is gone: a bug, or somebody killed it."""


class Helper:
    """A program with one end of a SOCK_SEQPACKET pair, in a session of its own.

    A session of its own: an interrupt typed at the terminal reaches only the supervisor. The other end of the pair is
    open in the supervisor alone, so the end of file tells the helper that the supervisor is gone, however it went.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], channel: trio.socket.SocketType) -> None:
        self.name, self.process, self.channel = name, process, channel
        self._sending = trio.Lock()  # when the program is busy, a sender waits; trio lets only one wait on a socket

    @classmethod
    def start(cls, name: str, command: Sequence[str], *, run_id: str, log_path: Path) -> Self:
        """Start *command* with ``--socket-fd N`` added; stdout and stderr go to *log_path*.

        Runs in the calling thread, which must be trio's: a program that asks to be killed with its parent is killed
        with the *thread* that started it (prctl(2), PR_SET_PDEATHSIG), and worker threads end when idle.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(ours.close)
            with theirs, log_path.open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--socket-fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    env={**os.environ, **run_environment(run_id)},
                )
            on_failure.pop_all()
        return cls(name, process, trio.socket.from_stdlib_socket(ours))

    @property
    def pid(self) -> int:
        return self.process.pid

    async def send(self, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
        """Send one datagram, and open files with it. Raises: HelperError if the program is gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in fds))]
        try:
            async with self._sending:
                await self.channel.sendmsg([json.dumps(message).encode()], rights if len(rights[0][2]) else [])
        except (OSError, trio.ClosedResourceError) as error:
            raise HelperError(f"the {self.name} is gone ({error})") from error

    async def receive(self) -> dict[str, Any] | None:
        """Return the next datagram, or None when the program has ended or `wait_ended` has closed our end."""
        try:
            data = await self.channel.recv(DATAGRAM_MAX_BYTES)
        except (ConnectionResetError, trio.ClosedResourceError):
            return None
        message: dict[str, Any] | None = json.loads(data) if data else None
        return message

    async def wait_ended(self, *, limit_s: float) -> int:
        """Close our end, wait until the program has ended, kill it after *limit_s*. Returns its exit status."""
        self.channel.close()
        return await wait_process_ended(self.process, limit_s=limit_s)


async def wait_process_ended(process: subprocess.Popen[bytes], *, limit_s: float) -> int:
    """Wait until a child has ended and reap it; kill it after *limit_s*. Returns its exit status."""
    if process.poll() is not None:
        return process.wait()
    pidfd = os.pidfd_open(process.pid)
    try:
        with trio.move_on_after(limit_s):
            await trio.lowlevel.wait_readable(pidfd)
        if process.poll() is None:
            process.kill()
    finally:
        os.close(pidfd)
    return process.wait()  # it is a zombie by now, or about to be
