"""The supervisor's handle on the capture of a link."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import testbed
from topologies.errors import CapabilityError, InputError

_START_LIMIT_S: Final = 10.0
_STOP_LIMIT_S: Final = 5.0


class LinkCapture:
    """A process that records one end of a link. Make it with `start`; its methods block, under 0.1 s as a rule."""

    def __init__(self, link: str, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.link, self.path = link, path
        self._process = process

    @classmethod
    def start(cls, link: str, *, pid: int, intf: str, path: Path, environment: Mapping[str, str] | None = None) -> Self:
        """Record what passes *intf* in the network namespace of process *pid* into the new pcapng file *path*.

        Every frame that passes after this returns is recorded. *environment* is added to that of the process. May be called from any thread. Raises: InputError if the
        file cannot be made or there is no such process or interface (the file is not left then); CapabilityError if
        this machine refuses.
        """
        where = f"capture of link {link}"
        try:
            netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            problem = f"process {pid} has no network namespace to enter ({error.strerror})"
            raise InputError(where=where, problem=problem, remedy="start it while the network is up") from error
        try:
            file_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            os.close(netns_fd)
            problem = f"cannot make {path} ({error.strerror})"
            raise InputError(where=where, problem=problem, remedy="name a new file in a folder that exists") from error
        try:
            arguments = ("--netns-fd", str(netns_fd), "--file-fd", str(file_fd), "--intf", intf, "--link", link)
            process = _spawn(arguments, pass_fds=(netns_fd, file_fd), environment=environment or {})
            capture = cls(link, path, process)
        finally:
            os.close(netns_fd)
            os.close(file_fd)
        try:
            capture._wait_ready(where, intf)
        except BaseException:
            capture._end()
            path.unlink(missing_ok=True)
            raise
        return capture

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status of the process (negative: the signal that ended it), None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the capture; the file is complete when this returns. Safe to call again.

        Raises: CapabilityError if the recording failed on the way, for instance because the disk is full.
        """
        status = self._end()
        if status != 0:
            raise CapabilityError(
                where=f"capture of link {self.link}",
                problem=f"the recorder ended with status {status}, {self.path} is not complete",
                remedy="see whether the disk is full",
            )

    def _wait_ready(self, where: str, intf: str) -> None:
        assert self._process.stdout is not None
        said, end_s = b"", time.monotonic() + _START_LIMIT_S
        while not said.startswith(b"ready\n"):
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, end_s - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 4_096) if readable else b""
            if not more:
                break  # it has ended, or is late
            said += more
        else:
            return
        complaint = said.decode(errors="replace").strip().rpartition("\n")[2] or "the recorder does not answer"
        if "PermissionError" in complaint:
            raise CapabilityError(where=where, problem=complaint, remedy="run as root")
        raise InputError(where=where, problem=f"interface {intf}: {complaint}", remedy="name one that the host has")

    def _end(self) -> int:
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _spawn(
    arguments: Sequence[str], *, pass_fds: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (sys.executable, "-S", "-m", "testbed.capture.recorder", "--parent-pid", str(os.getpid()), *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C at the terminal is the supervisor's to handle
        env={**os.environ, **environment, "PYTHONPATH": str(Path(testbed.__file__).parents[1])},
    )
