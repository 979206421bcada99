"""Shortest paths and ranked next hops: what every FIB is filled with, and the floor that deliveries are measured against.

Only core routers and CSRs carry other nodes' packets. Delays are added as whole nanoseconds, so that equal paths are
equal however their sum is formed, and equal delays are told apart by the number of hops: following first next hops can
therefore never go round, not even over links without delay.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping
from typing import Final

from topologies.model import Topology

#: (delay in ns, hops); compared in this order
_Cost = tuple[int, int]
_Neighbours = Mapping[str, Mapping[str, int]]

_NS_PER_MS: Final = 1_000_000


def path_delays_ms(
    topology: Topology,
    *,
    without: frozenset[str] = frozenset(),
    sources: Collection[str] | None = None,
    destinations: Collection[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the delay of the shortest path between any two nodes: the physical floor of a delivery.

    Args:
        topology: the network.
        without: names of links to leave out, as if they had failed.
        sources: nodes to start from; None: all. Of 10,000 nodes all pairs are too many.
        destinations: nodes to go to; None: all.

    Returns: node -> node -> one-way delay in ms; 0.0 to itself, `math.inf` where there is no path.
    """
    costs = _costs(topology, without, sources, destinations)
    return {source: {to: _ms(cost) for to, cost in row.items()} for source, row in costs.items()}


def path_hops(topology: Topology, *, sources: Collection[str] | None = None) -> dict[str, dict[str, int]]:
    """Return the number of links on the shortest path from nodes (None: from all) to those that they reach.

    Returns: node -> node -> links.
    """
    costs = _costs(topology, frozenset(), sources, None)
    return {source: {to: cost[1] for to, cost in row.items() if cost is not None} for source, row in costs.items()}


def _costs(
    topology: Topology, without: frozenset[str], sources: Collection[str] | None, destinations: Collection[str] | None
) -> dict[str, dict[str, _Cost | None]]:
    """Return the cost of the shortest path between nodes; None where there is no path."""
    routers, attached, leading_to = _split(topology, without)
    between = {name: _shortest(routers, name) for name in routers}
    names = [node.name for node in topology.nodes]
    origins, goals = (
        names if chosen is None else [name for name in names if name in chosen]
        for chosen in (_as_set(sources), _as_set(destinations))
    )
    costs: dict[str, dict[str, _Cost | None]] = {}
    for source in origins:
        to_routers = _from_node(source, between, attached)
        row: dict[str, _Cost | None] = {}
        for destination in goals:
            if destination == source:
                row[destination] = (0, 0)
            elif destination in routers:
                row[destination] = to_routers.get(destination)
            else:
                last_hops = leading_to[destination].items()
                row[destination] = min(
                    (_add(to_routers[r], hop) for r, hop in last_hops if r in to_routers), default=None
                )
        costs[source] = row
    return costs


def _as_set(names: Collection[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def ranked_next_hops(
    topology: Topology, destinations: Collection[str] | None = None
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return, for every node and every destination, the neighbours that lead there, the best first.

    Destinations are every CSR, UE and login server, unless others are named. To nodes behind the same routers, at the same
    delays, lead the same ways: they share one list.

    The cost of a next hop is the delay of the link to it plus that of the shortest path from it to the destination
    which does not come back through this node; a neighbour that has no such path is left out.

    Returns: node -> destination -> [(neighbour, cost in ms)], ranked by delay, then hops, then name. For the only neighbour
    of a node that carries nobody else's packets there is nothing to rank: of such a node nothing is returned, unless
    destinations are named.
    """
    routers, attached, leading_to = _split(topology, frozenset())
    anywhere = {name: _shortest(routers, name) for name in routers}
    everywhere = [node.name for node in topology.nodes if node.role != "core"]
    behind = {name: tuple(sorted(last_hops.items())) for name, last_hops in leading_to.items()}

    table: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for node in topology.nodes:
        if node.name in routers:
            first_hops = routers[node.name]
            beyond = {neighbour: _shortest(routers, neighbour, avoid=node.name) for neighbour in first_hops}
        else:  # nobody's transit: the paths of others do not come back through it anyway
            first_hops = attached[node.name]
            beyond = {neighbour: anywhere[neighbour] for neighbour in first_hops}
            if destinations is None and len(first_hops) == 1:
                continue
        row: dict[str, list[tuple[str, float]]] = {}
        shared: dict[tuple[tuple[str, int], ...], list[tuple[str, float]]] = {}
        for destination in everywhere if destinations is None else destinations:
            if destination == node.name:
                continue
            is_neighbour = node.name in leading_to.get(destination, ())
            place = () if is_neighbour else behind.get(destination, ())
            ranked = shared.get(place)
            if ranked is None:
                found = _ranked(node.name, destination, first_hops, beyond, leading_to)
                ranked = [(neighbour, _ms(cost)) for cost, neighbour in found]
                if place:
                    shared[place] = ranked
            row[destination] = ranked
        table[node.name] = row
    return table


def _ranked(
    node: str,
    destination: str,
    first_hops: Mapping[str, int],
    beyond: Mapping[str, Mapping[str, _Cost]],
    leading_to: _Neighbours,
) -> list[tuple[_Cost, str]]:
    """Return (cost, neighbour) of every usable next hop of *node* towards *destination*, sorted."""
    found: list[tuple[_Cost, str]] = []
    last_hops = leading_to.get(destination)  # None: the destination is a router
    if last_hops is not None and node in last_hops:
        found.append(((last_hops[node], 1), destination))
    for neighbour, first_hop in first_hops.items():
        costs = beyond[neighbour]
        if last_hops is None:
            onward = costs.get(destination)
        else:
            onward = min((_add(costs[r], hop) for r, hop in last_hops.items() if r in costs), default=None)
        if onward is not None:
            found.append((_add(onward, first_hop), neighbour))
    return sorted(found)


def _split(topology: Topology, without: frozenset[str]) -> tuple[_Neighbours, _Neighbours, _Neighbours]:
    """Return the links among routers, those from every other node to routers, and the same from routers to it, in ns."""
    routers: dict[str, dict[str, int]] = {}
    attached: dict[str, dict[str, int]] = {}
    for node in topology.nodes:
        (routers if node.role in ("core", "csr") else attached)[node.name] = {}
    leading_to: dict[str, dict[str, int]] = {name: {} for name in attached}
    for link in topology.links:
        if link.name in without:
            continue
        for here, there in ((link.a, link.b), (link.b, link.a)):
            delay_ns = round(link.properties_from(here).delay_ms * _NS_PER_MS)
            if there in routers:
                (routers if here in routers else attached)[here][there] = delay_ns
            if here in routers and there in leading_to:
                leading_to[there][here] = delay_ns
    return routers, attached, leading_to


def _shortest(neighbours: _Neighbours, source: str, *, avoid: str | None = None) -> dict[str, _Cost]:
    """Return the cost of the shortest path from *source* to each node that it reaches (Dijkstra)."""
    costs: dict[str, _Cost] = {}
    heap: list[tuple[_Cost, str]] = [((0, 0), source)]
    while heap:
        cost, node = heapq.heappop(heap)
        if node in costs:
            continue
        costs[node] = cost
        for neighbour, delay_ns in neighbours[node].items():
            if neighbour not in costs and neighbour != avoid:
                heapq.heappush(heap, (_add(cost, delay_ns), neighbour))
    return costs


def _from_node(source: str, between: Mapping[str, Mapping[str, _Cost]], attached: _Neighbours) -> Mapping[str, _Cost]:
    """Return the cost from *source* to every router that it reaches."""
    if source in between:
        return between[source]
    best: dict[str, _Cost] = {}
    for router, hop in attached[source].items():
        for destination, cost in between[router].items():
            through = _add(cost, hop)
            best[destination] = min(through, best.get(destination, through))
    return best


def _add(cost: _Cost, delay_ns: int) -> _Cost:
    return cost[0] + delay_ns, cost[1] + 1


def _ms(cost: _Cost | None) -> float:
    return math.inf if cost is None else cost[0] / _NS_PER_MS
