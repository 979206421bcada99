"""A command in a host of Mininet, with our terminal as its own as far as that goes.

Each host has one bash behind a pseudo-terminal, as Mininet has it, so directory, variables and jobs in the background
stay from one command to the next. While a command runs, our terminal passes every key on to it, Ctrl-C, Tab and arrows
included, and has its size; what is typed is shown by the host's terminal, or not, as the program there wants it.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from testbed.shell.terminal import copy_size, keys_of, read_key, without_echo

_POLL_S: Final = 0.5
#: So many Ctrl-C within so many seconds end what does not end by itself.
_INSIST_TIMES: Final = 3
_INSIST_S: Final = 2.0
_CTRL_C: Final = b"\x03"
_GIVEN_UP: Final = "\r\nThe command does not end, so its shell was killed; the next command starts another.\r\n"


def run_in_host(node: Any, command: str, *, terminal: int | None, write: Callable[[str], None]) -> None:  # noqa: ANN401  mininet is not typed
    """Run *command* in *node* and wait for its end.

    Args:
        node: a Mininet host.
        command: a line for its bash.
        terminal: where keys come from; None: nobody is there to press any.
        write: is given what it prints.

    Raises: KeyboardInterrupt where there is no terminal, after the command was interrupted too.
    """
    node.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # Mininet's raises for what is no text
    if terminal is None:
        node.sendCmd(command)
        _wait(node, write)
        return
    # Not echoed from the start: the command itself stands at our prompt already.
    node.sendCmd(f"stty echo; {command}")
    host_terminal = node.stdout.fileno()
    copy_size(terminal, host_terminal)
    try:
        with keys_of(terminal, "raw"), _size_followed(terminal, host_terminal):
            _converse(node, terminal, write)
    finally:
        if node.shell is not None:
            without_echo(node.stdout.fileno())


def _converse(node: Any, terminal: int, write: Callable[[str], None]) -> None:  # noqa: ANN401
    interrupts_s: list[float] = []
    while node.waiting:
        ready = select.select([node.stdout, terminal], [], [], _POLL_S)[0]
        if terminal in ready:
            keys = read_key(terminal, 0.0)
            if not keys:
                return  # the terminal is gone
            now_s = time.monotonic()
            interrupts_s = [at_s for at_s in interrupts_s if now_s - at_s < _INSIST_S] + [now_s] * keys.count(_CTRL_C)
            if len(interrupts_s) >= _INSIST_TIMES:
                write(_GIVEN_UP)
                _end_shell(node)
                return
            os.write(node.stdin.fileno(), keys)
        _take(node, write, is_ready=node.stdout in ready)


def _wait(node: Any, write: Callable[[str], None]) -> None:  # noqa: ANN401
    try:
        while node.waiting:
            _take(node, write, is_ready=bool(select.select([node.stdout], [], [], _POLL_S)[0]))
    except KeyboardInterrupt:
        node.sendInt()
        node.waitOutput()
        raise


def _take(node: Any, write: Callable[[str], None], *, is_ready: bool) -> None:  # noqa: ANN401
    """Pass on what there is. When the shell itself has ended, `exit` was typed at it; the next command starts another."""
    try:
        if is_ready:
            write(node.monitor(timeoutms=0))
        elif node.shell.poll() is not None:
            _end_shell(node)
    except OSError:  # nobody has the other end of its terminal any more
        _end_shell(node)


def _end_shell(node: Any) -> None:  # noqa: ANN401
    node.terminate()
    node.waiting = False


@contextmanager
def _size_followed(terminal: int, host_terminal: int) -> Iterator[None]:
    def follow(_number: int, _frame: FrameType | None) -> None:
        copy_size(terminal, host_terminal)

    before = signal.signal(signal.SIGWINCH, follow)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def to_screen(text: str, *, is_raw: bool) -> None:
    """Print what a host's terminal says: as it is to a raw terminal, else with our ends of lines."""
    sys.stdout.write(text if is_raw else text.replace("\r\n", "\n"))
    sys.stdout.flush()
