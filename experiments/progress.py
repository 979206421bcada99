"""What the user sees while a run goes on: a bar at a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Without a terminal, how often a line says how far the run is.
PLAIN_INTERVAL_S: Final = 10.0

#: The same, where many things are counted.
COUNT_INTERVAL_S: Final = 15.0

#: A bar that moves more often takes processor time from the nodes.
REFRESH_PER_S: Final = 5.0


class RunProgress(Protocol):
    """What the runner tells. Nothing here may raise or take long."""

    def phase(self, name: str) -> None:
        """A new phase has begun."""

    def running(self, at_s: float, duration_s: float) -> None:
        """The run has come so far; called often."""

    def note(self, text: str) -> None:
        """Something happened that the user wants to know."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class TerminalProgress:
    """A bar with the phase and the time, notes above it."""

    def __init__(self, name: str, console: Console) -> None:
        self._name, self._console = name, console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=40),
            TextColumn("{task.fields[place]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=REFRESH_PER_S,
        )
        self._task: TaskID = self._progress.add_task(name, total=None, place="")

    def phase(self, name: str) -> None:
        self._progress.update(self._task, description=f"{escape(self._name)}: {escape(name)}", total=None, place="")

    def running(self, at_s: float, duration_s: float) -> None:
        at_s = min(max(at_s, 0.0), duration_s)
        place = f"{at_s:.1f}/{duration_s:g} s"
        self._progress.update(self._task, completed=at_s, total=duration_s, place=place)

    def note(self, text: str) -> None:
        self._progress.console.print(escape(text), highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class PlainProgress:
    """One line a phase or event; for logs and pipes."""

    def __init__(self, name: str) -> None:
        self._name, self._begun_s = name, time.monotonic()
        self._next_s = PLAIN_INTERVAL_S  # of the run

    def phase(self, name: str) -> None:
        self.note(name)

    def running(self, at_s: float, duration_s: float) -> None:
        if 0.0 <= at_s < duration_s and at_s >= self._next_s:
            self._next_s = (at_s // PLAIN_INTERVAL_S + 1) * PLAIN_INTERVAL_S
            self.note(f"running, {at_s:.0f} of {duration_s:g} s")

    def note(self, text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._begun_s:7.2f} s  {self._name}: {text}\n")
        sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class CountBar:
    """How many of many things are done: a bar at a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, things: str, total: int | None) -> None:
        self._console, self._things, self._total = Console(), things, total
        self._begun_s = time.monotonic()
        self._next_s = COUNT_INTERVAL_S
        self._progress = Progress(
            TextColumn(escape(title)),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, done: int, limit_s: float | None = None) -> None:
        """Show how far it is; *limit_s*: when it ends in any case."""
        self._progress.update(self._task, completed=done)
        elapsed_s = time.monotonic() - self._begun_s
        if not self._console.is_terminal and elapsed_s >= self._next_s:
            self._next_s = elapsed_s + COUNT_INTERVAL_S
            of = f" of {self._total}" if self._total is not None else ""
            limit = f" of {limit_s:.0f} s" if limit_s is not None else " s"
            self._console.print(f"{done}{of} {self._things}, {elapsed_s:.0f}{limit}", highlight=False)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(escape(text), highlight=False, soft_wrap=True)


def choose_progress(name: str) -> RunProgress:
    """Return a bar where standard output is a terminal, else plain lines."""
    console = Console()
    return TerminalProgress(name, console) if console.is_terminal else PlainProgress(name)
