"""How a run with a shell shows its progress: as any run, but for the time in which the terminal is the user's."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from experiments.progress import RunProgress, choose_progress


class ShellProgress:
    """A bar, or lines, until `give_way` and again from `come_back` on; between them only notes, to whom that names."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inner: RunProgress | None = None
        self._say: Callable[[str], None] | None = None

    def give_way(self, say: Callable[[str], None]) -> None:
        """The terminal is somebody else's, who is told what happens."""
        inner, self._inner, self._say = self._inner, None, say
        if inner is not None:
            inner.__exit__(None, None, None)

    def come_back(self) -> None:
        """Show progress again."""
        self._say = None
        self._inner = choose_progress(self._name).__enter__()

    def phase(self, name: str) -> None:
        if self._inner is not None:
            self._inner.phase(name)

    def running(self, at_s: float, duration_s: float) -> None:
        """Nothing: whoever is at the prompt can ask."""

    def note(self, text: str) -> None:
        if self._say is not None:
            self._say(text)
        elif self._inner is not None:
            self._inner.note(text)

    def __enter__(self) -> Self:
        self._inner = choose_progress(self._name).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.__exit__(kind, error, traceback)
