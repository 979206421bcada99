"""What every conference network has at its edge, whatever its core: UEs behind CSRs and a login server."""

from __future__ import annotations

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


def attach_ues(csrs: Sequence[str], ues_per_csr: int) -> tuple[list[Node], list[Link]]:
    """Return UEs ``ue1`` to ``ueN`` and their access links; each CSR serves *ues_per_csr* consecutive ones."""
    nodes: list[Node] = []
    links: list[Link] = []
    for index in range(len(csrs) * ues_per_csr):
        ue = f"ue{index + 1}"
        nodes.append(Node(ue, "ue"))
        links.append(Link.between(csrs[index // ues_per_csr], ue, "access", ACCESS))
    return nodes, links


def attach_login_server(router: str) -> tuple[Node, Link]:
    """Return the login server and its link to *router*."""
    return Node(LOGIN_NAME, "login"), Link.between(router, LOGIN_NAME, "login", LOGIN)


def login_router(degrees: Mapping[str, int], csrs: Sequence[str]) -> str:
    """Return where the login server goes unless the file says it: the core router of highest degree, ties by name.

    Where every router is a CSR, the CSR of highest degree.
    """
    candidates = set(degrees) - set(csrs) or set(degrees)
    return min(candidates, key=lambda name: (-degrees[name], name))


def verify_size(topology: str, *, router_links: int, csrs: int, ues_per_csr: int, more_ues: int = 0) -> None:
    """Raise InputError if the network would have more links than there are addresses; before anything is built."""
    links = router_links + csrs * ues_per_csr + more_ues + 1
    if links > LINKS_MAX:
        raise ParameterError(
            topology,
            "ues_per_csr",
            problem=f"{links} links are too many for the address plan, which has a /31 for {LINKS_MAX} links",
            remedy="lower ues_per_csr or the number of CSRs",
        )
