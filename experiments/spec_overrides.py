"""Overrides of an experiment file, as ``--set`` takes them: ``table.key=value``.

The key is a TOML key; an entry of a list of tables is numbered from 1, as in messages: ``fault.2.at_s=9``. The value is
a TOML value (``4``, ``0.05``, ``["ue1", "ue2"]``); what is not, is text, so that ``conference.mode=push`` needs no
quotes that a shell would take away. The result is checked exactly as if the file said it.
"""

from __future__ import annotations

import tomllib
from typing import Any

from experiments.spec_places import KEY, KeyPath, describe_path, split_key
from topologies.errors import InputError


def apply_override(data: dict[str, Any], override: str) -> KeyPath:
    """Change *data* as *override* says and return the path that it set.

    Raises: InputError if the override is malformed or leads through something that is not a table.

    >>> data = {"fault": [{"at_s": 8}]}
    >>> apply_override(data, "fault.1.at_s=9.5"), data
    (('fault', 0, 'at_s'), {'fault': [{'at_s': 9.5}]})
    """
    where = f"--set {override}"
    key = KEY.match(override.lstrip())
    rest = override.lstrip()[key.end() :].lstrip() if key else ""
    if key is None or not rest.startswith("="):
        raise InputError(
            where=where,
            problem="it is not of the form table.key=value",
            remedy="write for example --set experiment.seed=3",
        )
    parts = split_key(key[0])
    if len(parts) < 2:
        raise InputError(
            where=where,
            problem=f"`{key[0]}` names no key of a table",
            remedy="write the table first, for example --set experiment.seed=3",
        )
    node: Any = data
    path: KeyPath = ()
    for part in parts[:-1]:
        step = _step(node, part, path, where)
        node = node[step] if isinstance(step, int) else node.setdefault(step, {})
        path += (step,)
    step = _step(node, parts[-1], path, where)
    node[step] = parse_value(rest[1:])
    return (*path, step)


def parse_value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    """Return *text* read as a TOML value, or as it is if it is none.

    >>> parse_value("0.05"), parse_value("push"), parse_value('["ue1"]')
    (0.05, 'push', ['ue1'])
    """
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def _step(node: object, part: str, path: KeyPath, where: str) -> str | int:
    """Return how to reach *part* in *node*: a key, or a position in a list."""
    if isinstance(node, dict):
        return part
    here = describe_path(path)
    if not isinstance(node, list):
        raise InputError(
            where=where, problem=f"{here} is a value, so it has no `{part}`", remedy=f"leave `.{part}` out"
        )
    if not (part.isascii() and part.isdigit() and 1 <= int(part) <= len(node)):
        raise InputError(
            where=where,
            problem=f"`{part}` is not an entry of {here}, which has {len(node)}",
            remedy=f"number them from 1 to {len(node)}" if node else "add an entry to the file",
        )
    return int(part) - 1
