"""A view that redraws itself until a key ends it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from testbed.shell.terminal import keys_of, read_key

#: Of the terminal: another screen without a cursor, and back.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_END_KEYS: Final = (b"q", b"Q", b"\x1b", b"\x04")


def show_live(draw: Callable[[int], Sequence[str]], *, every_s: float) -> None:
    """Show the lines that *draw* makes for a width, anew every so often, until q, Escape or Ctrl-C.

    Where standard input or output is no terminal they are printed once.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.stdout.write("\n".join(draw(120)) + "\n")
        return
    fd = sys.stdin.fileno()
    with keys_of(fd, "keys"):
        sys.stdout.write(_ENTER)
        try:
            while True:
                begun_s = time.monotonic()
                _paint(draw)
                # Drawing takes time of the machine that the network needs as well: at most a third.
                wait_s = max(every_s, 2 * (time.monotonic() - begun_s))
                keys = read_key(fd, wait_s)
                if any(key in keys for key in _END_KEYS):
                    return
        except KeyboardInterrupt:
            return
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _paint(draw: Callable[[int], Sequence[str]]) -> None:
    width, height = os.get_terminal_size(sys.stdout.fileno())
    lines = list(draw(width))
    if len(lines) > height - 1:
        lines = [*lines[: height - 2], f"... {len(lines) - height + 2} more lines"]
    shown = "\x1b[K\r\n".join(line[:width] for line in [*lines, "q ends this view"])
    sys.stdout.write(f"\x1b[H{shown}\x1b[K\x1b[J")
    sys.stdout.flush()
