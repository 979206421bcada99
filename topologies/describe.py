"""A topology as text: its nodes by role and its links with their properties, as rows for any table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from topologies.model import ROLES, Link, LinkProperties, Topology

NODE_HEADER: Final = ("role", "count", "nodes")
LINK_HEADER: Final = ("link", "tier", "delay_ms", "jitter_ms", "loss_ratio", "rate_mbps", "queue_packets", "also")

#: Properties with a column of their own.
_IN_COLUMNS: Final = frozenset(LINK_HEADER)

#: A longer list of names is cut in the middle.
_SHOWN_MAX: Final = 24


def node_rows(topology: Topology) -> list[tuple[str, str, str]]:
    """Return a row of `NODE_HEADER` for each role that occurs, and for those UEs that serve their networks as proxy."""
    rows: list[tuple[str, str, str]] = []
    for role in ROLES:
        names = topology.names_by_role(role)
        if names:
            rows.append((role, str(len(names)), _shortened(names)))
        if role == "ue" and topology.proxy_ues:
            rows.append(("proxy-ue", str(len(topology.proxy_ues)), _shortened(topology.proxy_ues)))
    return rows


def link_rows(topology: Topology) -> list[tuple[str, ...]]:
    """Return a row of `LINK_HEADER` for each link, two where its directions differ.

    Alike access links of one CSR share a row, those to UEs of other CSRs another. *also* names what is not as usual.
    """
    groups: dict[tuple[object, ...], list[Link]] = {}
    for link in topology.links:
        is_access = link.tier == "access" and topology.node(link.b).role == "ue"
        key = (link.a, topology.csr_of(link.b) == link.a, link.properties, link.back) if is_access else (link.name,)
        groups.setdefault(key, []).append(link)
    return [row for links in groups.values() for row in _link_rows(links)]


def other_properties(properties: LinkProperties) -> str:
    """Return what has no column of its own and is not as usual, as an experiment file would say it.

    >>> other_properties(LinkProperties(delay_ms=2.0, duplicate_ratio=0.25, jitter_keeps_order=False))
    'jitter_keeps_order = false, duplicate_ratio = 0.25'
    """
    said = []
    for field in dataclasses.fields(LinkProperties):
        value = getattr(properties, field.name)
        if field.name not in _IN_COLUMNS and value != field.default:
            said.append(f"{field.name} = {str(value).lower() if isinstance(value, bool) else value}")
    return ", ".join(said)


def render_text(topology: Topology) -> str:
    """Return the whole topology as plain text, for a terminal or a file.

    Columns are aligned with blanks; nothing is coloured.
    """
    parts = [
        f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links",
        _table(NODE_HEADER, node_rows(topology)),
        _table(LINK_HEADER, link_rows(topology)),
    ]
    return "\n\n".join(parts) + "\n"


def _link_rows(links: Sequence[Link]) -> list[tuple[str, ...]]:
    first, last = links[0], links[-1]
    name = first.name if len(links) == 1 else f"{first.name} … {last.b}"
    if first.back is None:
        return [_link_row(name, first.tier, first.properties)]
    other = first.b if len(links) == 1 else "the UE"
    return [
        _link_row(f"{name} from {first.a}", first.tier, first.properties),
        _link_row(f"{name} from {other}", first.tier, first.back),
    ]


def _link_row(name: str, tier: str, properties: LinkProperties) -> tuple[str, ...]:
    rate = "" if properties.rate_mbps is None else f"{properties.rate_mbps:g}"
    return (
        name,
        tier,
        f"{properties.delay_ms:.3f}",
        f"{properties.jitter_ms:g}",
        f"{properties.loss_ratio:g}",
        rate,
        str(properties.queue_packets),
        other_properties(properties),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _shortened(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN_MAX:
        return " ".join(names)
    half = _SHOWN_MAX // 2
    return " ".join((*names[:half], "…", *names[-half:]))
