"""Networks without a CSR of their own: UEs behind a plain core router, one of which serves the others as sync proxy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from topologies.attach import ACCESS
from topologies.errors import ParameterError
from topologies.model import Link, Node

UES_DEFAULT: Final = 3

#: Parameters that every topology source takes alike; None: UES_DEFAULT, and the first UE of each network.
UesPerEdgeNetwork = Annotated[int, Meta(ge=1, le=10_000)] | None
ProxyUes = Annotated[tuple[str, ...], Meta(min_length=1)] | None


def attach_edge_networks(
    topology: str, routers: Sequence[str], ues_per_network: int | None, proxy_ues: Sequence[str] | None, *, first: int
) -> tuple[list[Node], list[Link]]:
    """Return the UEs behind each of *routers* and their access links, and mark one of each network as its proxy.

    Args:
        topology: its name, for messages.
        routers: core routers, one for each network.
        ues_per_network: how many consecutive UEs are behind each; None: UES_DEFAULT.
        proxy_ues: one of each network, in any order; None: the first of each.
        first: number of the first UE; those behind CSRs have the numbers before.

    Raises: ParameterError where proxy_ues does not name one UE of each network, or there are no networks.
    """
    if ues_per_network is not None and not routers:
        raise ParameterError(
            topology,
            "ues_per_edge_network",
            problem="every network has a CSR; their UEs are ues_per_csr",
            remedy="leave it out, or add networks without a CSR",
        )
    count = count_ues(1, ues_per_network)
    networks = [[f"ue{first + index * count + offset}" for offset in range(count)] for index in range(len(routers))]
    chosen = _chosen(topology, routers, networks, proxy_ues)
    nodes = [Node(ue, "ue") for ues in networks for ue in ues]
    links = [
        Link.between(router, ue, "access", ACCESS) for router, ues in zip(routers, networks, strict=True) for ue in ues
    ]
    return [dataclasses.replace(node, is_proxy=node.name in chosen) for node in nodes], links


def count_ues(networks: int, ues_per_network: int | None) -> int:
    """Return how many UEs are in so many networks."""
    return networks * (UES_DEFAULT if ues_per_network is None else ues_per_network)


def _chosen(
    topology: str, routers: Sequence[str], networks: Sequence[Sequence[str]], proxy_ues: Sequence[str] | None
) -> set[str]:
    if proxy_ues is None:
        return {ues[0] for ues in networks}
    if not networks:
        raise ParameterError(
            topology,
            "proxy_ues",
            problem="every network has a CSR, whose proxy serves its UEs",
            remedy="leave it out, or add networks without a CSR",
        )
    network_of = {ue: index for index, ues in enumerate(networks) for ue in ues}
    by_network: dict[int, str] = {}
    for ue in proxy_ues:
        if ue not in network_of:
            raise ParameterError(
                topology,
                "proxy_ues",
                problem=f"`{ue}` is no UE of a network without a CSR",
                remedy=f"choose among {_spelt(list(network_of))}",
            )
        index = network_of[ue]
        if index in by_network:
            both = (
                f"`{ue}` is named twice" if by_network[index] == ue else f"{by_network[index]} and {ue} are neighbours"
            )
            raise ParameterError(
                topology,
                "proxy_ues",
                problem=f"{both}: one UE serves the network behind {routers[index]}",
                remedy=f"name one of {_spelt(networks[index])}",
            )
        by_network[index] = ue
    for index, ues in enumerate(networks):
        if index not in by_network:
            raise ParameterError(
                topology,
                "proxy_ues",
                problem=f"it names no UE of the network behind {routers[index]}",
                remedy=f"add one of {_spelt(ues)}, or leave proxy_ues out: then the first of each network serves",
            )
    return set(by_network.values())


def _spelt(ues: Sequence[str]) -> str:
    return ues[0] if len(ues) == 1 else f"{ues[0]} to {ues[-1]}"
