"""Names of nodes from elsewhere, made into host names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from topologies.attach import LOGIN_NAME
from topologies.model import NODE_NAME_PATTERN

_TAKEN_BY_THE_EDGE: Final = re.compile(rf"ue[0-9]+|{LOGIN_NAME}")


def host_names(
    nodes: Sequence[tuple[object, str | None]], spell: Callable[[str], str] | None = None
) -> dict[object, str]:
    """Return a unique host name for each of *nodes*, given as (id, name), by id; *spell* makes a name a host name.

    >>> host_names([(0, "New York"), (1, None), (2, "new-york"), (3, "New York")])
    {0: 'NewYork', 1: 'n1', 2: 'NewYork_2', 3: 'NewYork_3'}
    """
    spell = spell or host_name
    wanted = {node_id: spell(name) if name else f"n{node_id}" for node_id, name in nodes}
    first_owner: dict[str, object] = {}
    for node_id, name in wanted.items():
        first_owner.setdefault(name, node_id)
    taken = set(first_owner)
    result: dict[object, str] = {}
    for node_id, name in wanted.items():
        unique, count = name, 1
        while unique in taken and not (first_owner.get(unique) == node_id and unique == name):
            count += 1
            suffix = f"_{count}"
            unique = name[: 32 - len(suffix)] + suffix
        taken.add(unique)
        result[node_id] = unique
    return result


def host_name(name: str) -> str:
    """Return *name* as a host name: ASCII letters, digits and underscores, a letter first, at most 32.

    >>> host_name("Ciudad de México"), host_name("10th street"), host_name("ue1"), host_name("東京")
    ('CiudadDeMexico', 'n10thStreet', 'nUe1', 'n')
    """
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.split(r"[^A-Za-z0-9_]+", ascii_only.replace("'", ""))
    joined = "".join(word[0].upper() + word[1:] for word in words if word)[:31]
    if _TAKEN_BY_THE_EDGE.fullmatch(name) or not NODE_NAME_PATTERN.fullmatch(joined):
        joined = f"n{joined}"
    return joined


def kept_host_name(name: str) -> str:
    """Return *name* as it is where it can be a host name, else as `host_name` spells it.

    >>> kept_host_name("msu"), kept_host_name("ue1"), kept_host_name("New York")
    ('msu', 'ue1', 'NewYork')
    """
    return name if NODE_NAME_PATTERN.fullmatch(name) else host_name(name)


def free_host_name(name: str) -> str:
    """Return `kept_host_name`, but none of the names that UEs and login server get from us.

    >>> free_host_name("msu"), free_host_name("ue1")
    ('msu', 'nUe1')
    """
    return host_name(name) if _TAKEN_BY_THE_EDGE.fullmatch(name) else kept_host_name(name)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which numbers in *name* count as numbers.

    >>> sorted(["ue10", "ue9", "csr1"], key=natural_key)
    ['csr1', 'ue9', 'ue10']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
