"""What a fault strikes: known from the topology alone, so that reports can ask for it, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from topologies.errors import InputError, pick_one_of
from topologies.model import Link, Topology

ProcessState = Literal["running", "frozen", "dead"]

#: Kinds of faults that strike processes and not links, and last.
PROCESS_KINDS: Final = frozenset({"crash", "freeze", "disk-loss", "starve", "login-outage"})
#: What strikes processes, and is over at once.
PROCESS_EVENTS: Final = frozenset({"restart", "thaw"})
#: After one of these a process may have ended without warning.
KILLING_KINDS: Final = frozenset({"crash", "disk-loss", "restart", "login-outage"})
#: What cuts links: nothing gets through in one direction at least.
CUTTING_KINDS: Final = frozenset({"link-down", "flap", "black-hole", "partition", "isolate"})
#: What happens at one moment: there is nothing to be healed.
EVENT_KINDS: Final = frozenset({"link-up", *PROCESS_EVENTS})
#: What changes single packets, chosen by what they say.
MESSAGE_KINDS: Final = frozenset({"drop", "delay", "duplicate", "corrupt", "replay", "forge"})

#: As the target of a message fault: all links.
ALL_LINKS: Final = "*"


def processes_of(topology: Topology, target: str) -> tuple[str, ...]:
    """Return the processes that a fault on *target* strikes: one process, or all of a node, its forwarder first.

    Raises: InputError if there is no such process or node.
    """
    by_node = {
        node.name: (f"{node.name}.forwarder", *((f"{node.name}.proxy",) if node.runs_proxy else ()))
        for node in topology.nodes
    }
    names = [name for processes in by_node.values() for name in processes]
    if target in names:
        return (target,)
    if target in by_node:
        return by_node[target]
    raise InputError(
        where=f"target {target}",
        problem=f"{topology.name} has no such node or process",
        remedy=pick_one_of(target, [*by_node, *names]),
    )


def links_of(topology: Topology, kind: str, target: str) -> tuple[Link, ...]:
    """Return the links that a fault strikes; none where it strikes processes. Raises: InputError for a wrong target."""
    if kind in PROCESS_KINDS or kind in PROCESS_EVENTS:
        return ()
    if kind == "partition":
        return links_between(topology, partition_groups(topology, target))
    if kind == "isolate":
        return topology.links_of(target)
    if kind in MESSAGE_KINDS:
        if target == ALL_LINKS:
            return topology.links
        if "-" not in target:
            return topology.links_of(target)
    return (topology.link(target),)


def partition_groups(topology: Topology, target: str) -> list[frozenset[str]]:
    """Return the groups that a partition *target* stands for, such as ``csr1,core1/csr2,core2``.

    A UE or login server in none of them goes with the router that it is attached to (its first link); all other nodes in
    none of them make one more group.

    Raises: InputError for an unknown node, one in two groups, an empty group, or one group with all nodes in it.
    """
    groups: list[set[str]] = []
    group_of: dict[str, int] = {}
    for number, text in enumerate(target.split("/")):
        names = [name.strip() for name in text.split(",")]
        if names == [""]:
            raise InputError(
                where=f"target {target}",
                problem=f"group {number + 1} is empty",
                remedy="name its nodes, as in `csr1,core1/csr2`",
            )
        groups.append(set())
        for name in names:
            node = topology.node(name).name
            if node in group_of:
                raise InputError(
                    where=f"target {target}", problem=f"`{node}` is named twice", remedy="put it into one group"
                )
            group_of[node] = number
            groups[number].add(node)
    rest: set[str] = set()
    for node_ in topology.nodes:
        if node_.name in group_of:
            continue
        with_ = node_.name
        if node_.role in ("ue", "login"):
            with_ = topology.links_of(node_.name)[0].other_end(node_.name)
        (groups[group_of[with_]] if with_ in group_of else rest).add(node_.name)
    whole = [frozenset(group) for group in (*groups, rest) if group]
    if len(whole) < 2:
        raise InputError(
            where=f"target {target}",
            problem="all nodes are in one group",
            remedy="name only those of one side, or several groups with `/` between them",
        )
    return whole


def spell_groups(groups: Iterable[Sequence[str]]) -> str:
    """Return the target that stands for *groups*.

    >>> spell_groups([["csr1", "core1"], ["csr2"]])
    'csr1,core1/csr2'
    """
    return "/".join(",".join(group) for group in groups)


def links_between(topology: Topology, groups: Sequence[frozenset[str]]) -> tuple[Link, ...]:
    """Return the links from one of *groups* to another."""
    number_of = {node: number for number, group in enumerate(groups) for node in group}
    return tuple(link for link in topology.links if number_of[link.a] != number_of[link.b])


def lanes_of(
    topology: Topology, kind: str, target: str, *, sender: str | None = None, receiver: str | None = None
) -> tuple[tuple[Link, str], ...]:
    """Return (link, sending node) of every direction of links that a fault strikes.

    Raises: InputError for a wrong target, or where *sender* or *receiver* leaves none.
    """
    links = links_of(topology, kind, target)
    lanes = tuple(
        (link, node)
        for link in links
        for node in (link.a, link.b)
        if sender in (None, node) and receiver in (None, link.other_end(node))
    )
    if not lanes:
        ends = sorted({node for link in links for node in (link.a, link.b)})
        wrong = sender if sender is not None and sender not in ends else receiver if receiver is not None else sender
        raise InputError(
            where=f"target {target}",
            problem=f"no packet from {sender or 'any node'} to {receiver or 'any node'} crosses it",
            remedy=pick_one_of(wrong or "", ends),
        )
    return lanes
