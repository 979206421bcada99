"""A network of routers becomes a conference network: some routers become CSRs, UEs and a login server are attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from topologies.attach import UeLinks, UesAt, attach_login_server, attach_ues, login_router, nearest_csrs, verify_size
from topologies.edge_networks import ProxyUes, UesPerEdgeNetwork, attach_edge_networks, count_ues
from topologies.errors import ParameterError, pick_one_of
from topologies.model import Link, LinkProperties, Node, Topology, router_degrees
from topologies.names import host_name

CSRS_DEFAULT: Final = 4
UES_PER_CSR_DEFAULT: Final = 3


class PlacementParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """``[topology]``: where CSRs, UEs and the login server go in a network of routers."""

    csrs: Annotated[int, Meta(ge=1, le=10_000)] | None = (
        None  #: how many CSRs: the routers of highest degree first, ties by name; None: 4 or fewer
    )
    csr_nodes: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None  #: or these routers, in this order
    ues_at: UesAt = None  #: CSR -> how many UEs, where it is not ues_per_csr
    ue_links: UeLinks = 1  #: CSRs that a UE is attached to: its own, and the nearest others by path delay
    login_node: str | None = (
        None  #: router that the login server is at; None: the core router of highest degree, ties by name
    )
    #: core routers with a network without a CSR behind them, in this order
    edge_nodes: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    ues_per_edge_network: UesPerEdgeNetwork = None  #: UEs of each, numbered after those of the CSRs; None: 3
    proxy_ues: ProxyUes = None  #: which UE of each is its sync proxy; None: the first


@dataclass(frozen=True)
class RouterGraph:
    """A connected or unconnected network of routers, by host name."""

    positions: Mapping[str, tuple[float, float] | None]  #: of every router: longitude, latitude in degrees
    links: Mapping[tuple[str, str], LinkProperties]  #: one for each pair, the names of a pair sorted


def place(
    name: str,
    graph: RouterGraph,
    parameters: PlacementParameters,
    *,
    ues_per_csr: int,
    csr_nodes: tuple[str, ...] | None = None,
) -> Topology:
    """Return the conference network over *graph*.

    Args:
        name: of the topology.
        graph: its routers.
        parameters: as in the experiment file.
        ues_per_csr: where `ues_at` does not say otherwise.
        csr_nodes: the CSRs, where the source of the graph says them; None: as *parameters* say.

    Raises: InputError.
    """
    degrees = dict.fromkeys(graph.positions, 0) | router_degrees(graph.links)
    edge_nodes = parameters.edge_nodes or ()
    for node in edge_nodes:
        _verify_known(name, "edge_nodes", node, degrees)
    csrs = _choose_csrs(name, degrees, parameters) if csr_nodes is None else csr_nodes
    _verify_edge_nodes(name, csrs, edge_nodes)
    counts = ues_of_csrs(name, csrs, ues_per_csr, parameters.ues_at)
    verify_size(
        name,
        router_links=len(graph.links),
        ues_of_csrs=counts,
        ue_links=parameters.ue_links,
        more_ues=count_ues(len(edge_nodes), parameters.ues_per_edge_network),
    )
    login_node = parameters.login_node or login_router(degrees, csrs)
    _verify_known(name, "login_node", login_node, degrees)

    routers = [Node(router, "csr" if router in csrs else "core", at) for router, at in graph.positions.items()]
    by_name = {node.name: node for node in routers}
    in_order = [node for node in routers if node.role == "core"] + [by_name[csr] for csr in csrs]
    core_links = [
        Link.between(a, b, "core", properties) for (a, b), properties in sorted(graph.links.items(), key=_ends)
    ]
    others = nearest_csrs(csrs, core_links, count=parameters.ue_links - 1)
    ues, access_links = attach_ues(counts, others=others)
    edge_ues, edge_links = attach_edge_networks(
        name, edge_nodes, parameters.ues_per_edge_network, parameters.proxy_ues, first=len(ues) + 1
    )
    login, login_link = attach_login_server(login_node)
    return Topology(name, (*in_order, *ues, *edge_ues, login), (*core_links, *access_links, *edge_links, login_link))


def ues_of_csrs(name: str, csrs: Sequence[str], ues_per_csr: int, ues_at: Mapping[str, int] | None) -> dict[str, int]:
    """Return how many UEs are behind each CSR. Raises: ParameterError for a name in *ues_at* that is no CSR."""
    ues_at = ues_at or {}
    for node in ues_at:
        if node not in csrs:
            raise ParameterError(name, "ues_at", problem=f"`{node}` is no CSR", remedy=pick_one_of(node, csrs))
    return {csr: ues_at.get(csr, ues_per_csr) for csr in csrs}


def merged_links(
    links: Sequence[tuple[str, str, LinkProperties]],
) -> dict[tuple[str, str], LinkProperties]:
    """Return one link for each pair of nodes, the one of least delay; a link from a node to itself is left out."""
    merged: dict[tuple[str, str], LinkProperties] = {}
    for one, other, properties in links:
        a, b = sorted((one, other))
        if a != b and ((a, b) not in merged or properties.delay_ms < merged[a, b].delay_ms):
            merged[a, b] = properties
    return merged


def _ends(link: tuple[tuple[str, str], LinkProperties]) -> tuple[str, str]:
    return link[0]


def _choose_csrs(name: str, degrees: Mapping[str, int], parameters: PlacementParameters) -> tuple[str, ...]:
    if parameters.csr_nodes is not None:
        if parameters.csrs not in (None, len(parameters.csr_nodes)):
            raise ParameterError(
                name,
                "csrs",
                problem=f"csrs = {parameters.csrs}, but csr_nodes names {len(parameters.csr_nodes)}",
                remedy="leave csrs out",
            )
        for position, csr in enumerate(parameters.csr_nodes):
            _verify_known(name, "csr_nodes", csr, degrees)
            if csr in parameters.csr_nodes[:position]:
                raise ParameterError(name, "csr_nodes", problem=f"`{csr}` is named twice", remedy="name it once")
        return parameters.csr_nodes
    free = [node for node in degrees if node not in (parameters.edge_nodes or ())]
    count = min(CSRS_DEFAULT, len(free)) if parameters.csrs is None else parameters.csrs
    if count > len(free) or not free:
        raise ParameterError(
            name,
            "csrs",
            problem=f"{max(count, 1)} CSRs do not fit on its {len(degrees)} nodes"
            + (f", {len(degrees) - len(free)} of which are edge_nodes" if parameters.edge_nodes else ""),
            remedy=f"use at most {len(free)}" if free else "name fewer edge_nodes",
        )
    return tuple(sorted(free, key=lambda node: (-degrees[node], node))[:count])


def _verify_edge_nodes(name: str, csrs: Sequence[str], edge_nodes: Sequence[str]) -> None:
    for position, node in enumerate(edge_nodes):
        if node in csrs:
            raise ParameterError(
                name,
                "edge_nodes",
                problem=f"`{node}` is a CSR, for csr_nodes names it too",
                remedy="leave it out of one of them",
            )
        if node in edge_nodes[:position]:
            raise ParameterError(name, "edge_nodes", problem=f"`{node}` is named twice", remedy="name it once")


def _verify_known(topology: str, key: str, node: str, known: Mapping[str, int]) -> None:
    if node in known:
        return
    as_host = host_name(node)
    raise ParameterError(
        topology,
        key,
        problem=f"there is no node `{node}`",
        remedy=f"did you mean `{as_host}`?" if as_host in known else pick_one_of(node, known),
    )
