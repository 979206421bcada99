"""What every conference network has at its edge, whatever its core: UEs behind CSRs and a login server."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta

from topologies.errors import ParameterError
from topologies.model import LINKS_MAX, Link, LinkProperties, Node

ACCESS: Final = LinkProperties(delay_ms=2.0)  #: a wired access network
LOGIN: Final = LinkProperties(delay_ms=1.0)  #: a server room beside its router

#: Names that the edge uses itself; routers of real networks must not have them.
LOGIN_NAME: Final = "login"

UesPerCsr = Annotated[int, Meta(ge=1, le=1_000_000)]
UeLinks = Annotated[int, Meta(ge=1, le=16)]
UesAt = dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]] | None


def attach_ues(
    ues_of_csrs: Mapping[str, int], *, others: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[Node], list[Link]]:
    """Return UEs ``ue1`` to ``ueN`` and their access links; each CSR serves consecutive ones, as many as *ues_of_csrs* says.

    *others*: of each CSR, those that its UEs are attached to as well. These links come after all others, so a UE's first
    link leads to its own CSR.
    """
    nodes: list[Node] = []
    own: list[Link] = []
    further: list[Link] = []
    csr_of_each = (csr for csr, count in ues_of_csrs.items() for _ in range(count))
    for index, csr in enumerate(csr_of_each):
        ue = f"ue{index + 1}"
        nodes.append(Node(ue, "ue"))
        own.append(Link.between(csr, ue, "access", ACCESS))
        further += [Link.between(other, ue, "access", ACCESS) for other in (others or {}).get(csr, ())]
    return nodes, [*own, *further]


def nearest_csrs(csrs: Sequence[str], router_links: Sequence[Link], *, count: int) -> dict[str, tuple[str, ...]]:
    """Return, of each CSR, the *count* nearest others by path delay among routers, equally near ones in their order."""
    neighbours: dict[str, dict[str, float]] = {}
    for link in router_links:
        for here, there in ((link.a, link.b), (link.b, link.a)):
            neighbours.setdefault(here, {})[there] = link.properties_from(here).delay_ms
    found: dict[str, tuple[str, ...]] = {}
    for csr in csrs if count else ():
        delays_ms: dict[str, float] = {}
        heap = [(0.0, csr)]
        while heap:
            delay_ms, node = heapq.heappop(heap)
            if node not in delays_ms:
                delays_ms[node] = delay_ms
                for other, hop_ms in neighbours.get(node, {}).items():
                    heapq.heappush(heap, (delay_ms + hop_ms, other))
        others = sorted((other for other in csrs if other != csr), key=lambda other: delays_ms.get(other, math.inf))
        found[csr] = tuple(others[:count])
    return found


def attach_login_server(router: str) -> tuple[Node, Link]:
    """Return the login server and its link to *router*."""
    return Node(LOGIN_NAME, "login"), Link.between(router, LOGIN_NAME, "login", LOGIN)


def login_router(degrees: Mapping[str, int], csrs: Sequence[str]) -> str:
    """Return where the login server goes unless the file says it: the core router of highest degree, ties by name.

    Where every router is a CSR, the CSR of highest degree.
    """
    candidates = set(degrees) - set(csrs) or set(degrees)
    return min(candidates, key=lambda name: (-degrees[name], name))


def verify_size(
    topology: str, *, router_links: int, ues_of_csrs: Mapping[str, int], ue_links: int, more_ues: int = 0
) -> None:
    """Raise InputError if UEs cannot have so many links, or the network not so many addresses; before anything is built."""
    if ue_links > len(ues_of_csrs):
        raise ParameterError(
            topology,
            "ue_links",
            problem=f"a UE cannot be attached to {ue_links} of {len(ues_of_csrs)} CSRs",
            remedy=f"use at most {len(ues_of_csrs)}",
        )
    ues = sum(ues_of_csrs.values())
    if ues + more_ues == 0:
        raise ParameterError(topology, "ues_at", problem="it leaves no UE at all", remedy="give a CSR at least one")
    links = router_links + ues * ue_links + more_ues + 1
    if links > LINKS_MAX:
        raise ParameterError(
            topology,
            "ues_per_csr",
            problem=f"{links} links are too many for the address plan, which has a /31 for {LINKS_MAX} links",
            remedy="lower ues_per_csr, ue_links or the number of CSRs"
            if ue_links > 1
            else "lower ues_per_csr or the number of CSRs",
        )
