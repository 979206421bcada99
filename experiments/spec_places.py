"""Where a key stands in an experiment file: the line of every table and key, and how a message names the place.

`tomllib` gives values without positions, so the text is read a second time here. The text is known to be valid TOML by
then; of an invalid one nothing is asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from topologies.errors import InputError

#: Table and key names, and positions in lists from 0: ``("fault", 1, "target")``.
KeyPath = tuple[str | int, ...]

_KEY_PART: Final = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
#: A dotted key, as before ``=`` and in a table header.
KEY: Final = re.compile(rf"{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART})*")
_TOKEN: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[\]{}\n]|[^"'#\[\]{}\n]+|["']''',
    re.DOTALL,
)


@dataclass(frozen=True)
class Source:
    """The file that values came from, and the overrides that changed some of them."""

    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)  #: what ``--set`` said, by the key that it set

    def place(self, path: KeyPath) -> str:
        """Return the place of *path* for a message.

        >>> Source("a.toml", {("fault", 1): 9, ("fault", 1, "at_s"): 10}).place(("fault", 1, "at_s"))
        'a.toml:10: [[fault]] 2: at_s'
        """
        override = self._override_of(path)
        if override is not None:
            return f"--set {override}"
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        where = self.file if line is None else f"{self.file}:{line}"
        named = describe_path(path)
        return f"{where}: {named}" if named else where

    def _override_of(self, path: KeyPath) -> str | None:
        """Return the override that set *path* or something around it, or made a table that the file does not have."""
        for key, text in reversed(self.overrides.items()):
            made_by_it = path and path not in self.lines and key[: len(path)] == path
            if path[: len(key)] == key or made_by_it:
                return text
        return None

    def error(self, path: KeyPath, *, problem: str, remedy: str) -> InputError:
        return InputError(where=self.place(path), problem=problem, remedy=remedy)


def describe_path(path: KeyPath) -> str:
    """Return *path* as a reader of the file would say it.

    >>> describe_path(("links", "access", "delay_ms")), describe_path(("workload", 0, "publishers", 2))
    ('[links.access]: delay_ms', '[[workload]] 1: publishers, item 3')
    """
    if not path:
        return ""
    if len(path) > 1 and isinstance(path[1], int):
        table, rest = f"[[{path[0]}]] {path[1] + 1}", path[2:]
    elif len(path) > 1 and path[0] == "links":
        table, rest = f"[links.{_quoted_if_needed(str(path[1]))}]", path[2:]
    else:
        table, rest = f"[{_quoted_if_needed(str(path[0]))}]", path[1:]
    names = ".".join(part for part in rest if isinstance(part, str))
    items = "".join(f", item {part + 1}" for part in rest if isinstance(part, int))
    return table + (f": {names}" if names else "") + items


def split_key(key: str) -> tuple[str, ...]:
    """Return the parts of a dotted key.

    >>> split_key('links."Chicago-NewYork".delay_ms')
    ('links', 'Chicago-NewYork', 'delay_ms')
    """
    parts = re.findall(_KEY_PART, key)
    return tuple(next(iter(tomllib.loads(f"{part} = 0"))) for part in parts)


def key_lines(text: str) -> dict[KeyPath, int]:
    r"""Return the line, from 1, of every table and key of a valid TOML *text*.

    >>> key_lines("[a]\nb.c = 1\n[[d]]\n[[d]]\ne = [\n1]")[("d", 1, "e")]
    5
    """
    lines: dict[KeyPath, int] = {}
    entries: dict[KeyPath, int] = {}  # how many [[...]] of each so far
    table: KeyPath = ()
    for number, statement in _statements(text):
        stripped = statement.strip()
        if stripped.startswith("["):
            is_list = stripped.startswith("[[")
            header = KEY.search(stripped)
            parts = split_key(header[0]) if header else ()
            table = _resolve(parts[:-1], entries) + parts[-1:]
            for length in range(1, len(table)):
                lines.setdefault(table[:length], number)
            if is_list:
                entries[table] = entries.get(table, 0) + 1
                lines.setdefault(table, number)
                table += (entries[table] - 1,)
        else:
            key = KEY.match(stripped)
            parts = split_key(key[0]) if key else ()
            for length in range(1, len(parts) + 1):
                lines.setdefault(table + parts[:length], number)
            continue
        lines.setdefault(table, number)
    return lines


def _resolve(parts: tuple[str, ...], entries: Mapping[KeyPath, int]) -> KeyPath:
    path: KeyPath = ()
    for part in parts:
        path += (part,)
        if path in entries:
            path += (entries[path] - 1,)
    return path


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without comments) of every header and assignment, however many lines it takes."""
    line, start, depth = 1, 1, 0
    pieces: list[str] = []
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece == "\n" and depth == 0:
            if "".join(pieces).strip():
                yield start, "".join(pieces)
            pieces, start = [], line + 1
        elif not piece.startswith("#"):
            pieces.append(piece)
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece, 0)
        line += piece.count("\n")
    if "".join(pieces).strip():
        yield start, "".join(pieces)


def _quoted_if_needed(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_]+", part) else f'"{part}"'
