"""A shell over a run: the user in the main thread, the run in another.

    main thread                                   supervisor (trio)
    readline, Mininet's CLI, Ctrl-C        ->     network, conference, faults, workload
    commands                  Portal      --->    asks nodes, applies faults
    prints notices            SIGUSR1     <---    says what happens

Python raises KeyboardInterrupt in the main thread alone, so that is where the user has to be; and Mininet's calls, which
block and must not overlap, are all made there while the prompt is up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import trio

from experiments.flow import ConferenceFlow
from experiments.shell.commands import make_commands
from experiments.shell.flow import ShellFlow
from experiments.shell.live import LiveRun, Portal
from experiments.shell.progress import ShellProgress
from experiments.typed import ShellEnded
from testbed.emulation.network import EmulatedNetwork
from testbed.shell.cli import HangUpError, NetworkGoneError, Shell
from testbed.shell.terminal import TerminalGuard

if TYPE_CHECKING:
    from experiments.runner import RunInProgress

HISTORY_FILE: Final = ".hconf_history"
#: Notices that `watch` shows below its view.
NOTES_KEPT: Final = 50
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Supervise = Callable[[AsyncIterable[int]], Awaitable[None]]


class ShellConsole:
    """`experiments.runner.Console` for somebody at a terminal, or a script of commands as standard input."""

    def __init__(self, progress: ShellProgress) -> None:
        self._progress = progress
        self._token: trio.lowlevel.TrioToken | None = None
        self._to_supervisor: trio.MemorySendChannel[int] | None = None
        self._early: list[int] = []  #: signals that came before there was anybody to tell
        self._news = threading.Event()  #: the prompt may come, or all is over
        self._failure: BaseException | None = None
        self._live: LiveRun | None = None
        self._flow: ShellFlow | None = None
        self._shell: Shell | None = None
        self._is_prompting = False
        self._is_leaving = False  #: the supervisor knows that the user has left
        self._notes: deque[str] = deque(maxlen=NOTES_KEPT)

    # ------------------------------------------------------------------ the supervisor's thread

    def make_flow(self, *args: Any, **kwargs: Any) -> ConferenceFlow:  # noqa: ANN401  as ConferenceFlow takes them
        """Make the flow of the run."""
        self._flow = ShellFlow(*args, **kwargs)
        self._flow.on_ready = self._news.set
        return self._flow

    async def attend(self, run: RunInProgress, network: EmulatedNetwork, flow: ConferenceFlow) -> None:
        """Hold the conference until the user leaves."""
        assert isinstance(flow, ShellFlow), "make_flow made it"
        async with trio.open_nursery() as nursery:
            self._live = LiveRun(run, network, flow, nursery, Portal(trio.lowlevel.current_trio_token()))
            await run.hold_conference(flow)
            nursery.cancel_scope.cancel()

    async def _main(self, supervise: Supervise) -> None:
        self._to_supervisor, signals = trio.open_memory_channel[int](16)
        self._token = trio.lowlevel.current_trio_token()
        for number in self._early:
            self._tell(number)
        await supervise(signals)

    def _supervise(self, supervise: Supervise) -> None:
        try:
            trio.run(self._main, supervise)
        except BaseException as error:  # noqa: ASYNC103, BLE001  raised in the main thread
            self._failure = error
        finally:
            self._token = None
            if self._shell is not None:
                self._shell.say_gone()
            self._news.set()

    # ------------------------------------------------------------------ the main thread

    def conduct(self, supervise: Supervise) -> None:
        """Start the run, be the shell while it goes on, wait for its end. Raises: what the run raises."""
        guard = TerminalGuard()
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        supervisor = threading.Thread(target=self._supervise, args=(supervise,), name="supervisor")
        try:
            supervisor.start()
            self._news.wait()
            if supervisor.is_alive() and self._live is not None:
                self._prompt(self._live)
        finally:
            if supervisor.is_alive() and not self._is_leaving:  # a bug of ours must not leave the network behind
                self._tell(signal.SIGTERM)
            supervisor.join()
            for number, handler in before.items():
                signal.signal(number, handler)
            guard.close()
        if self._failure is not None:
            raise self._failure

    def _prompt(self, live: LiveRun) -> None:
        """Take commands until the user leaves, then have the run come to its end."""
        self._progress.give_way(self._say)
        commands = make_commands(live, self._notes)
        history = Path.home() / HISTORY_FILE
        self._shell = Shell(live.network.net, commands, on_line=live.line, history=history)
        self._greet(live)
        try:
            self._is_prompting = True
            try:
                self._shell.converse()
            finally:
                self._is_prompting = False
        except HangUpError as asked:
            self._tell(asked.number)
        except OSError:  # to write to a terminal that has gone is an error, and may be noticed first
            _let_go_of_terminal()
            self._tell(signal.SIGHUP)
        except NetworkGoneError:
            sys.stdout.write("\n")
            self._shell.show_notices()
        self._progress.come_back()
        with contextlib.suppress(OSError):
            live.typed.add(ShellEnded(time.monotonic()))
        self._is_leaving = True
        if self._token is not None and self._flow is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._flow.left.set)

    def _greet(self, live: LiveRun) -> None:
        topology = live.topology
        sys.stdout.write(
            f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links; "
            f"{len(topology.ues)} UEs ({topology.ues[0]} to {topology.ues[-1]}). Run folder: {live.folder}\n"
            "`help` lists the commands, `status` says where the conference stands, `exit` ends it all.\n"
        )

    def _say(self, note: str) -> None:
        self._notes.append(note)
        if self._shell is not None:
            self._shell.notify(note)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._is_prompting:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            self._is_prompting = False  # the first of several is enough
            if number == signal.SIGHUP:
                _let_go_of_terminal()
            raise HangUpError(number)
        if number == signal.SIGHUP:
            _let_go_of_terminal()
        self._tell(number)

    def _tell(self, number: int) -> None:
        """Have the supervisor end the run."""
        token, channel = self._token, self._to_supervisor
        if token is None or channel is None:
            self._early.append(number)
            return

        def send() -> None:
            with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                channel.send_nowait(number)

        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(send)


def _let_go_of_terminal() -> None:
    """The terminal is gone, and to write to it would be an error."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.close(nowhere)
