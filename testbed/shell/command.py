"""A command of the shell: its words, its help, what it does, and what may stand next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topologies.errors import InputError

#: Takes the words before the one that is being typed, and that one; returns whole words that it may become.
Completer = Callable[[Sequence[str], str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """One command; *run* takes the words after its name and returns what to print. It may raise InputError and others of ours."""

    name: str
    usage: str  #: what follows the name
    says: str  #: what it does, one line
    run: Callable[[Sequence[str]], str]
    complete: Completer = lambda _before, _word: ()
    examples: tuple[str, ...] = ()
    more: str | Callable[[], str] = ""  #: the rest of its help

    def help(self) -> str:
        """Return its whole help."""
        lines = [f"usage: {self.name} {self.usage}".rstrip(), f"  {self.says}"]
        more = self.more() if callable(self.more) else self.more
        lines += [f"  {line}".rstrip() for line in more.splitlines()]
        lines += ["", *(f"  hconf> {example}" for example in self.examples)] if self.examples else []
        return "\n".join(lines)


def words_of(line: str, *, where: str) -> list[str]:
    """Return the words of a line; text in quotes is one word.

    Raises: InputError for a quote that is never closed.

    >>> words_of('publish ue3 "good morning"', where="publish")
    ['publish', 'ue3', 'good morning']
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError as error:
        raise InputError(where=where, problem=f"{error}".lower(), remedy="close the quote") from error


def only(words: Sequence[str], most: int, command: str) -> None:
    """Refuse words beyond the *most* that a command takes. Raises: InputError."""
    if len(words) > most:
        raise InputError(
            where=command,
            problem=f"`{words[most]}` is one word too many",
            remedy=f"see `help {command}`; text of several words goes in quotes",
        )
