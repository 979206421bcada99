"""The errors that are the user's to mend, not ours: wrong input, or a machine that cannot do what was asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Final

#: Likeness (0 to 1) from which a name is worth suggesting, and how far behind the best one another may be.
_CLOSE: Final = 0.6
_AS_CLOSE: Final = 0.1


class HconfError(Exception):
    """Wrong input or environment, not a bug: the CLI prints it without a traceback and ends with `exit_code`.

    Args:
        where: the place, for instance ``quickstart.toml:23: [[fault]] 2: target``.
        problem: what is wrong there.
        remedy: what would be right.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, *, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem} (fix: {remedy})")
        self.where, self.problem, self.remedy = where, problem, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it come back from another process whole: exceptions are otherwise made anew from positional arguments."""
        return _restored, (type(self), self.args, self.__dict__)


class InputError(HconfError):
    """An argument, a file or a name in it is wrong."""

    exit_code: ClassVar[int] = 2


class ParameterError(InputError):
    """A parameter of a topology is wrong; `key` says which."""

    def __init__(self, topology: str, key: str, *, problem: str, remedy: str) -> None:
        super().__init__(where=f"topology {topology}: {key}", problem=problem, remedy=remedy)
        self.key = key


class CapabilityError(HconfError):
    """The machine cannot do it."""

    exit_code: ClassVar[int] = 3


def _restored(kind: type[HconfError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> HconfError:
    error = kind.__new__(kind, *arguments)
    error.__dict__ |= attributes
    return error


def nearest(word: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return up to *limit* names of *known* that *word* may have been meant for, best first; case does not count.

    >>> nearest("chicago-newyork", ["Chicago-NewYork", "Chicago-NewOrleans"])
    ['Chicago-NewYork']
    """
    by_folded: dict[str, str] = {}
    for name in known:
        by_folded.setdefault(name.casefold(), name)
    folded = word.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=limit, cutoff=_CLOSE)
    if not close:
        return []
    best = _likeness(folded, close[0])
    return [by_folded[name] for name in close if best - _likeness(folded, name) < _AS_CLOSE]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def pick_one_of(word: str, known: Iterable[str], *, shown_max: int = 8) -> str:
    """Return a remedy for an unknown *word*: the nearest of *known*, else the beginning of the list.

    >>> pick_one_of("hybrd", ["hybrid", "push", "pull"])
    'did you mean `hybrid`?'
    >>> pick_one_of("x", ["hybrid", "push", "pull"])
    'use one of `hybrid`, `push`, `pull`'
    """
    names = list(known)
    close = nearest(word, names)
    if close:
        return f"did you mean {' or '.join(f'`{name}`' for name in close)}?"
    if not names:
        return "leave it out: nothing can stand here"
    shown = ", ".join(f"`{name}`" for name in names[:shown_max])
    rest = len(names) - shown_max
    return f"use one of {shown}" + (f" and {rest} more" if rest > 0 else "")
