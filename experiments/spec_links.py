"""Patterns in ``[links."..."]``: one table for all links whose ends match, such as ``[links."csr1-ue*"]``."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from experiments.spec_places import Source
from experiments.spec_schema import LinkSection
from topologies.model import Link, Topology


def expand_patterns(links: Mapping[str, LinkSection], topology: Topology, source: Source) -> dict[str, LinkSection]:
    """Return the tables by tier and by link's name, those of patterns spread over the links that they mean.

    What a link's own table says goes before what patterns say, and a later pattern before an earlier one.

    Raises: InputError for a pattern that no link matches.
    """
    expanded = {key: section for key, section in links.items() if not is_pattern(key)}
    named = {topology.link(key).name: key for key in expanded if _is_link(key, topology)}
    by_pattern: dict[str, LinkSection] = {}
    for pattern, section in links.items():
        if not is_pattern(pattern):
            continue
        meant = [link for link in topology.links if matches(pattern, link)]
        if not meant:
            raise source.error(
                ("links", pattern),
                problem=f"no link of {topology.name} matches it",
                remedy="write the names of both ends with a - between them, * for any part of a name: "
                f'[links."{topology.links[-1].a}-*"]',
            )
        for link in meant:
            earlier = by_pattern.get(link.name)
            by_pattern[link.name] = section if earlier is None else _merged(earlier, section)
    for name, section in by_pattern.items():
        own = named.get(name)
        if own is None:
            expanded[name] = section
        else:
            expanded[own] = _merged(section, expanded[own])
    return expanded


def is_pattern(key: str) -> bool:
    return any(sign in key for sign in "*?")


def matches(pattern: str, link: Link) -> bool:
    """Tell whether the ends of *link*, in either order, match the two sides of *pattern*."""
    one, _, other = pattern.partition("-")
    ends = (link.a, link.b)
    return any(fnmatchcase(a, one) and fnmatchcase(b, other) for a, b in (ends, ends[::-1]))


def _is_link(key: str, topology: Topology) -> bool:
    a, _, b = key.partition("-")
    return any({link.a, link.b} == {a, b} for link in topology.links)


def _merged(below: LinkSection, above: LinkSection) -> LinkSection:
    """Return what both say, *above* where both do."""
    given = {name: value for name, value in msgspec.structs.asdict(above).items() if value is not None and value != {}}
    if "queue_packets" in given or "queue_bytes" in given:  # a queue is bounded one way
        below = msgspec.structs.replace(below, queue_packets=None, queue_bytes=None)
    if "from_" in given:
        ways = dict(below.from_)
        for sender, section in above.from_.items():
            said = {name: value for name, value in msgspec.structs.asdict(section).items() if value is not None}
            ways[sender] = msgspec.structs.replace(ways[sender], **said) if sender in ways else section
        given["from_"] = ways
    return msgspec.structs.replace(below, **given)
