"""Which processes a fault strikes: known from the topology alone, so that reports can ask for it, too."""

from __future__ import annotations

from typing import Final, Literal

from topologies.errors import InputError, pick_one_of
from topologies.model import Topology

ProcessState = Literal["running", "frozen", "dead"]

#: Kinds of faults that strike processes and not links.
PROCESS_KINDS: Final = frozenset({"crash", "freeze", "disk-loss"})


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
