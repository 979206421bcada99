"""The terminal that a person sits at, while a guest has it."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator


def window_size() -> tuple[int, int] | None:
    """Return rows and columns of the terminal that stdin is, None if it is none."""
    try:
        size = os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return None
    return size.lines, size.columns


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Pass on every key as it is typed, Ctrl-C too, and give the terminal back as it was."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
