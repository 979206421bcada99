"""The terminal: its modes, always put back; its size; keys without a line's end. Does nothing where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any, Final, Literal

#: What tcgetattr returns; termios has no better name for it.
Modes = list[Any]
_LFLAG, _CONTROL_CHARACTERS = 3, 6
_DISABLED: Final = b"\0"


def modes_of(fd: int) -> Modes | None:
    """Return the modes of a terminal; None where *fd* is none."""
    try:
        return termios.tcgetattr(fd)
    except (termios.error, ValueError):
        return None


def set_modes(fd: int, modes: Modes | None) -> None:
    """Set the modes of a terminal; one that is gone has none."""
    if modes is not None:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(fd, termios.TCSADRAIN, modes)


@contextlib.contextmanager
def keys_of(fd: int, how: Literal["raw", "keys"]) -> Iterator[None]:
    """Have *fd* give each key at once, unseen, until the end of the block.

    Args:
        fd: the terminal; anything else is left as it is.
        how: "raw" for a program behind another terminal, which gets Ctrl-C too; with "keys" that interrupts us as ever.
    """
    before = modes_of(fd)
    if before is None:
        yield
        return
    try:
        if how == "raw":
            tty.setraw(fd, termios.TCSADRAIN)
        else:
            tty.setcbreak(fd, termios.TCSADRAIN)
        yield
    finally:
        set_modes(fd, before)


def without_echo(fd: int) -> None:
    """Have a terminal not show what is typed at it, nor suspend a program; *fd* may be its other end."""
    modes = modes_of(fd)
    if modes is not None:
        modes[_LFLAG] &= ~termios.ECHO
        modes[_CONTROL_CHARACTERS][termios.VSUSP] = _DISABLED  # nobody could let it go on
        set_modes(fd, modes)


def copy_size(source: int, target: int) -> None:
    """Give the terminal *target* the size of *source*; programs in it are told (SIGWINCH)."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0)))


class TerminalGuard:
    """Puts the terminal back as it was found, also where this process is killed: a child of its own waits for that.

    To be made before there are threads: the child is a plain fork.
    """

    def __init__(self) -> None:
        self._fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
        self._modes = None if self._fd is None else modes_of(self._fd)
        self._child, self._line = 0, -1
        if self._fd is None or self._modes is None:
            return
        sys.stdout.flush()
        theirs, self._line = os.pipe()  # the other end of the child's closes with us, however we end
        self._child = os.fork()
        if self._child == 0:
            _wait_for_end(theirs, self._line, self._fd, self._modes)
        os.close(theirs)

    def close(self) -> None:
        """Put the terminal back now and end the child."""
        if self._fd is not None:
            set_modes(self._fd, self._modes)
        if self._child:
            os.close(self._line)
            os.waitpid(self._child, 0)
            self._child = 0


def _wait_for_end(pipe: int, line: int, terminal: int, modes: Modes) -> None:
    """Be the child: wait until nobody has the other end of *pipe* any more, put the terminal back, end."""
    try:
        os.close(line)
        os.setsid()  # an interrupt typed at the terminal is not for us, nor is its end
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while os.read(pipe, 1):
            pass
        set_modes(terminal, modes)
    finally:
        os._exit(0)


def read_key(fd: int, timeout_s: float) -> bytes:
    """Return what was typed within *timeout_s*, at most some bytes of it; nothing if nothing was."""
    try:
        if not select.select([fd], [], [], timeout_s)[0]:
            return b""
        return os.read(fd, 64)
    except OSError:
        return b""
