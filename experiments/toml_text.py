"""Experiment files as text: what `tomllib` reads, written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


def to_toml(tables: Mapping[str, Any], *, comment: str = "") -> str:
    """Return the text of an experiment file; empty tables and lists are left out.

    Args:
        tables: by name; a list of tables becomes ``[[name]]`` sections, `links` one section for each of its links or tiers.
        comment: stands above all, each line behind a ``#``.
    """
    lines = [_commented(line) for line in comment.splitlines()]
    for name, section in tables.items():
        if isinstance(section, list | tuple):
            for entry in section:
                lines += ["", f"[[{name}]]", *_assignments(entry)]
        elif section and name == "links":
            for key, entry in section.items():
                if entry:
                    lines += ["", f"[{name}.{_key(key)}]", *_assignments(entry)]
        elif section:
            lines += ["", f"[{name}]", *_assignments(section)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _commented(line: str) -> str:
    return "# " + "".join(one if one.isprintable() else "?" for one in line) if line.strip() else "#"


def _assignments(table: Mapping[str, Any]) -> Iterator[str]:
    for key, item in table.items():
        yield f"{_key(key)} = {_spell(item)}"


def _key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _quoted(key)


def _spell(item: object) -> str:
    """Return a value as TOML.

    >>> _spell({"a": [1, 0.5, True, "x"]})
    '{ a = [1, 0.5, true, "x"] }'
    """
    match item:
        case bool():
            return str(item).lower()
        case dict():
            return "{ " + ", ".join(_assignments(item)) + " }" if item else "{}"
        case list() | tuple():
            return "[" + ", ".join(map(_spell, item)) + "]"
        case str():
            return _quoted(item)
        case _:
            return repr(item)


def _quoted(text: str) -> str:
    """Return a basic string: backslash, quote and control characters are escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda one: f"\\u{ord(one[0]):04x}", escaped) + '"'
