"""Networks of the real world: the collections that the topohub package carries with it (nothing is downloaded).

A name is ``<collection>/<name>`` as in topohub: ``topozoo/Abilene``, ``sndlib/germany50``, ``backbone/europe``,
``caida/2024-08/1103``, ``gabriel/25/0``. Every node is a router; some of them become CSRs. A link's delay is the time that
light takes through fibre of the length that topohub gives, which is the great-circle distance of its ends; a link between
two nodes of one place has length 0 and so delay 0.

What topohub's data cannot be used as it is:

- Names become host names: accents and blanks go ("New York" is ``NewYork``, "Ciudad de México" ``CiudadDeMexico``); a
  node without a name becomes ``n<id>``; a name that is taken gets ``_2``, ``_3`` … in the order of the file.
- Parallel links between two nodes become one: the shortest. A link from a node to itself is left out.
- A disconnected network is refused.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Final

import topohub
from msgspec import Meta, Struct

from topologies.attach import (
    LOGIN_NAME,
    UeLinks,
    UesPerCsr,
    attach_login_server,
    attach_ues,
    login_router,
    nearest_csrs,
    verify_size,
)
from topologies.edge_networks import ProxyUes, UesPerEdgeNetwork, attach_edge_networks, count_ues
from topologies.errors import ParameterError, pick_one_of
from topologies.model import NODE_NAME_PATTERN, Link, LinkProperties, Node, Topology, router_degrees

#: Light in fibre travels 1 km in 5 us (refractive index 1.5).
DELAY_MS_PER_KM: Final = 0.005

CSRS_DEFAULT: Final = 4

_TAKEN_BY_THE_EDGE: Final = re.compile(rf"ue[0-9]+|{LOGIN_NAME}")


class TopohubParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` for a network from topohub."""

    csrs: Annotated[int, Meta(ge=1, le=10_000)] | None = None  #: highest degree first, ties by name; None: 4 or fewer
    csr_nodes: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None  #: or these, in this order
    ues_per_csr: UesPerCsr = 3
    ue_links: UeLinks = 1  #: CSRs that a UE is attached to: its own, and the nearest others by path delay
    login_node: str | None = None  #: None: the core router of highest degree, ties by name
    #: core routers with a network without a CSR behind them, in this order
    edge_nodes: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    ues_per_edge_network: UesPerEdgeNetwork = None  #: numbered after those of the CSRs; None: 3
    proxy_ues: ProxyUes = None  #: which UE of each is its sync proxy; None: the first


@functools.cache
def topohub_names() -> tuple[str, ...]:
    """Return all names of topohub's collections, sorted naturally (``gabriel/5/0`` before ``gabriel/10/0``)."""
    return tuple(sorted(_json_names(_data(), ""), key=natural_key))


def build_topohub(name: str, parameters: TopohubParameters) -> Topology:
    """Return the network *name*, one of `topohub_names`. Raises: InputError."""
    text = (_data() / f"{name}.json").read_text("utf-8")  # topohub.get leaves its file open
    return topology_from_graph(name, json.loads(text), parameters)


def topology_from_graph(name: str, graph: Mapping[str, Any], parameters: TopohubParameters) -> Topology:
    """Return the network of a node-link dictionary as topohub has them. Raises: InputError."""
    names = host_names([(node["id"], node.get("name")) for node in graph["nodes"]])
    delays_ms = _shortest_delays_ms(graph["edges"], names)
    degrees = dict.fromkeys(names.values(), 0) | router_degrees(delays_ms)

    edge_nodes = parameters.edge_nodes or ()
    for node in edge_nodes:
        _verify_known(name, "edge_nodes", node, degrees)
    csrs = _choose_csrs(name, degrees, parameters)
    _verify_edge_nodes(name, csrs, edge_nodes)
    verify_size(
        name,
        router_links=len(delays_ms),
        csrs=len(csrs),
        ues_per_csr=parameters.ues_per_csr,
        ue_links=parameters.ue_links,
        more_ues=count_ues(len(edge_nodes), parameters.ues_per_edge_network),
    )
    login_node = parameters.login_node or login_router(degrees, csrs)
    _verify_known(name, "login_node", login_node, degrees)

    routers = [
        Node(names[node["id"]], "csr" if names[node["id"]] in csrs else "core", _position(node))
        for node in graph["nodes"]
    ]
    by_name = {node.name: node for node in routers}
    in_order = [node for node in routers if node.role == "core"] + [by_name[csr] for csr in csrs]
    core_links = [
        Link.between(a, b, "core", LinkProperties(delay_ms=delay_ms)) for (a, b), delay_ms in sorted(delays_ms.items())
    ]
    others = nearest_csrs(csrs, core_links, count=parameters.ue_links - 1)
    ues, access_links = attach_ues(csrs, parameters.ues_per_csr, others=others)
    edge_ues, edge_links = attach_edge_networks(
        name, edge_nodes, parameters.ues_per_edge_network, parameters.proxy_ues, first=len(ues) + 1
    )
    login, login_link = attach_login_server(login_node)
    return Topology(name, (*in_order, *ues, *edge_ues, login), (*core_links, *access_links, *edge_links, login_link))


def host_names(nodes: Sequence[tuple[object, str | None]]) -> dict[object, str]:
    """Return a unique host name for each of *nodes*, given as (id, name), by id.

    >>> host_names([(0, "New York"), (1, None), (2, "new-york"), (3, "New York")])
    {0: 'NewYork', 1: 'n1', 2: 'NewYork_2', 3: 'NewYork_3'}
    """
    wanted = {node_id: host_name(name) if name else f"n{node_id}" for node_id, name in nodes}
    first_owner: dict[str, object] = {}
    for node_id, name in wanted.items():
        first_owner.setdefault(name, node_id)
    taken = set(first_owner)
    result: dict[object, str] = {}
    for node_id, name in wanted.items():
        unique, count = name, 1
        while unique in taken and not (first_owner.get(unique) == node_id and unique == name):
            count += 1
            suffix = f"_{count}"
            unique = name[: 32 - len(suffix)] + suffix
        taken.add(unique)
        result[node_id] = unique
    return result


def host_name(name: str) -> str:
    """Return *name* as a host name: ASCII letters, digits and underscores, a letter first, at most 32.

    >>> host_name("Ciudad de México"), host_name("10th street"), host_name("ue1"), host_name("東京")
    ('CiudadDeMexico', 'n10thStreet', 'nUe1', 'n')
    """
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.split(r"[^A-Za-z0-9_]+", ascii_only.replace("'", ""))
    joined = "".join(word[0].upper() + word[1:] for word in words if word)[:31]
    if _TAKEN_BY_THE_EDGE.fullmatch(name) or not NODE_NAME_PATTERN.fullmatch(joined):
        joined = f"n{joined}"
    return joined


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which numbers in *name* count as numbers.

    >>> sorted(["ue10", "ue9", "csr1"], key=natural_key)
    ['csr1', 'ue9', 'ue10']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _data() -> Any:  # noqa: ANN401 - a Traversable, which moved between Python 3.11 and 3.14
    return resources.files(topohub) / "data"


def _json_names(folder: Any, prefix: str) -> Iterator[str]:  # noqa: ANN401 - as above
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _json_names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".json"):
            yield prefix + entry.name.removesuffix(".json")


def _shortest_delays_ms(
    edges: Sequence[Mapping[str, Any]], names: Mapping[object, str]
) -> dict[tuple[str, str], float]:
    """Return the delay of each pair of linked nodes, the names of a pair sorted."""
    delays_ms: dict[tuple[str, str], float] = {}
    for edge in edges:
        a, b = sorted((names[edge["source"]], names[edge["target"]]))
        if a == b:
            continue
        delay_ms = round(float(edge["dist"]) * DELAY_MS_PER_KM, 6)
        delays_ms[a, b] = min(delay_ms, delays_ms.get((a, b), delay_ms))
    return delays_ms


def _choose_csrs(name: str, degrees: Mapping[str, int], parameters: TopohubParameters) -> tuple[str, ...]:
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


def _position(node: Mapping[str, Any]) -> tuple[float, float] | None:
    pos = node.get("pos")
    return (float(pos[0]), float(pos[1])) if pos else None
