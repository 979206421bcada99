"""A terminal that a test sits at: a pseudo-terminal with a command in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

#: Waiting for what a loaded machine prints at last.
LIMIT_S: Final = 40.0
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


class Terminal:
    """A command in the foreground of a terminal of its own, as an interactive shell starts it."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.fd, self._theirs = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        self.modes = termios.tcgetattr(self.fd)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**env, "TERM": "xterm"},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509  there are no threads in a test
        )
        self.said = ""  #: since the last `expect`
        self.all = ""

    def press(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def line(self, text: str) -> None:
        """Type a line."""
        self.press(f"{text}\r")

    def expect(self, pattern: str, limit_s: float = LIMIT_S) -> re.Match[str]:
        """Return the first match of *pattern* in what is printed from now on; what stands before it is read."""
        until_s = time.monotonic() + limit_s
        while True:
            found = re.search(pattern, self.said)
            if found is not None:
                self.said = self.said[found.end() :]
                return found
            if time.monotonic() > until_s or not self._read(until_s - time.monotonic()):
                raise AssertionError(f"never said {pattern!r}, but:\n{self.all[-3000:]}")

    def _read(self, wait_s: float) -> bool:
        """Take what is printed next. Returns: whether there may be more."""
        if not select.select([self.fd], [], [], max(0.0, min(wait_s, 0.5)))[0]:
            return self.process.poll() is None
        try:
            new = os.read(self.fd, 65_536).decode(errors="replace")
        except OSError:
            return False
        self.said += (new := _CONTROL.sub("", new).replace("\r", ""))
        self.all += new
        return True

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Return the exit status of the command, having read all that it printed."""
        until_s = time.monotonic() + limit_s
        while self.process.poll() is None:
            assert time.monotonic() < until_s, f"does not end:\n{self.all[-3000:]}"
            self._read(0.05)
        while select.select([self.fd], [], [], 0.0)[0] and self._read(0.0):
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._theirs)
        os.close(self.fd)
        self.fd = self._theirs = -1

    def modes_now(self) -> list[Any]:
        """Return the terminal's modes."""
        return termios.tcgetattr(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.fd >= 0:
            self.hang_up()
