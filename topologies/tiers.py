"""The `tiers` topology: a regular network of core routers, CSRs, UEs and a login server.

Core routers form a ring with chords (a circulant graph), so that the core stays connected when any one of its links or
routers fails; every CSR has uplinks to at least two neighbouring core routers.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from topologies.attach import UeLinks, UesAt, UesPerCsr, attach_login_server, attach_ues, verify_size
from topologies.edge_networks import ProxyUes, UesPerEdgeNetwork, attach_edge_networks, count_ues
from topologies.errors import ParameterError, pick_one_of
from topologies.model import Link, LinkProperties, Node, Topology
from topologies.placement import ues_of_csrs

NAME: Final = "tiers"

CORE: Final = LinkProperties(delay_ms=10.0)  #: 2000 km of fibre
UPLINK: Final = LinkProperties(delay_ms=5.0)


class TiersParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` for ``name = "tiers"``; delays are in ``[links.core]``, ``.uplink``, ``.access``, ``.login``."""

    cores: Annotated[int, Meta(ge=3, le=10_000)] = 4  #: core routers, in a ring
    core_degree: Annotated[int, Meta(ge=2, le=9_999)] = 2  #: links of a core router to others; a few may have one more
    csrs: Annotated[int, Meta(ge=1, le=10_000)] = 4  #: conference service routers
    csr_uplinks: Annotated[int, Meta(ge=2, le=16)] = 2  #: core routers that a CSR is connected to
    ues_per_csr: UesPerCsr = 3  #: UEs behind each CSR
    ues_at: UesAt = None  #: CSR -> how many UEs, where it is not ues_per_csr
    ue_links: UeLinks = 1  #: CSRs that a UE is attached to: its own, and the ones after that
    login_node: str | None = None  #: router that the login server is at; None: core1
    #: networks without a CSR: a core router ``edge1``, ``edge2`` … each, with uplinks as a CSR has them
    edge_networks: Annotated[int, Meta(ge=0, le=10_000)] = 0
    ues_per_edge_network: UesPerEdgeNetwork = None  #: UEs of each, numbered after those of the CSRs; None: 3
    proxy_ues: ProxyUes = None  #: which UE of each is its sync proxy; None: the first


def build_tiers(parameters: TiersParameters) -> Topology:
    """Return the network. Raises: InputError where parameters contradict each other."""
    _verify(parameters)
    cores = [f"core{index + 1}" for index in range(parameters.cores)]
    csrs = [f"csr{index + 1}" for index in range(parameters.csrs)]
    router_links = [
        Link.between(cores[a], cores[b], "core", CORE)
        for a, b in circulant_pairs(parameters.cores, parameters.core_degree)
    ]
    edges = [f"edge{index + 1}" for index in range(parameters.edge_networks)]
    for index, router in enumerate((*csrs, *edges)):
        homes = sorted((index + step) % parameters.cores for step in range(parameters.csr_uplinks))
        router_links += [Link.between(cores[home], router, "uplink", UPLINK) for home in homes]
    routers = [Node(name, "core") for name in (*cores, *edges)] + [Node(name, "csr") for name in csrs]

    login_node = parameters.login_node or cores[0]
    if login_node not in (*cores, *csrs, *edges):
        raise ParameterError(
            NAME,
            "login_node",
            problem=f"there is no router `{login_node}`",
            remedy=pick_one_of(login_node, [*cores, *csrs, *edges]),
        )
    others = {
        csr: [csrs[(index + step) % len(csrs)] for step in range(1, parameters.ue_links)]
        for index, csr in enumerate(csrs)
    }
    ues, access_links = attach_ues(_ues_of_csrs(parameters), others=others)
    edge_ues, edge_links = attach_edge_networks(
        NAME, edges, parameters.ues_per_edge_network, parameters.proxy_ues, first=len(ues) + 1
    )
    login, login_link = attach_login_server(login_node)
    return Topology(NAME, (*routers, *ues, *edge_ues, login), (*router_links, *access_links, *edge_links, login_link))


def circulant_pairs(count: int, degree: int) -> list[tuple[int, int]]:
    """Return the links of a ring of *count* nodes with chords, each node having *degree* links (or one more).

    >>> circulant_pairs(4, 2)
    [(0, 1), (0, 3), (1, 2), (2, 3)]
    >>> len(circulant_pairs(6, 3))  # the ring, and three links straight across
    9
    """
    pairs = {
        (min(a, b), max(a, b))
        for step in range(1, degree // 2 + 1)
        for a in range(count)
        for b in ((a + step) % count,)
    }
    if degree % 2:
        across = count // 2
        pairs |= {(a, a + across) for a in range(count - across)}
    return sorted(pairs)


def _verify(parameters: TiersParameters) -> None:
    if parameters.core_degree >= parameters.cores:
        raise ParameterError(
            NAME,
            "core_degree",
            problem=f"a core router cannot have {parameters.core_degree} links to {parameters.cores - 1} others",
            remedy=f"use at most {parameters.cores - 1}",
        )
    if parameters.csr_uplinks > parameters.cores:
        raise ParameterError(
            NAME,
            "csr_uplinks",
            problem=f"a CSR cannot have uplinks to {parameters.csr_uplinks} of {parameters.cores} core routers",
            remedy=f"use at most {parameters.cores}",
        )
    core_links = parameters.cores * (parameters.core_degree + 1) // 2
    verify_size(
        NAME,
        router_links=core_links + (parameters.csrs + parameters.edge_networks) * parameters.csr_uplinks,
        ues_of_csrs=_ues_of_csrs(parameters),
        ue_links=parameters.ue_links,
        more_ues=count_ues(parameters.edge_networks, parameters.ues_per_edge_network),
    )


def _ues_of_csrs(parameters: TiersParameters) -> dict[str, int]:
    csrs = [f"csr{index + 1}" for index in range(parameters.csrs)]
    return ues_of_csrs(NAME, csrs, parameters.ues_per_csr, parameters.ues_at)
