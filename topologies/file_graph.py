"""A network as a file describes it, whatever the format, and the conference network that is made of it.

Where the file says who is what (a role, at one node at least), it is so. Where it does not, all nodes are routers, and CSRs, UEs
and login server are placed as for the networks of topohub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topologies.attach import UesPerCsr, attach_login_server, login_router
from topologies.errors import InputError, ParameterError, pick_one_of
from topologies.model import (
    DELAY_MAX_MS,
    RATE_MIN_MBPS,
    Link,
    LinkProperties,
    Node,
    Role,
    Tier,
    Topology,
    router_degrees,
)
from topologies.names import free_host_name, host_names, kept_host_name
from topologies.placement import (
    UES_PER_CSR_DEFAULT,
    PlacementParameters,
    RouterGraph,
    merged_links,
    place,
)

#: What a role is called in a file; a proxy UE serves the UEs of a network without a CSR.
ROLE_WORDS: Final = {
    "core": "core",
    "router": "core",
    "switch": "core",
    "csr": "csr",
    "ue": "ue",
    "host": "ue",
    "proxy-ue": "proxy-ue",
    "login": "login",
}

FILE_MAX_BYTES: Final = 64 * 1024 * 1024


class FileParameters(PlacementParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` for a network from a file; the keys of placement only where the file does not say who is what."""

    ues_per_csr: UesPerCsr | None = None  #: UEs behind each CSR; None: 3, or those that the file has
    role_key: str = "role"  #: attribute of a node that says its role: core, csr, ue, proxy-ue, login


@dataclass(frozen=True, slots=True)
class FileNode:
    """A node as the file has it."""

    key: object  #: what links call it
    label: str | None  #: None: it has no name
    where: str  #: place in the file, for messages
    role: str | None = None  #: one of the values of ROLE_WORDS
    position: tuple[float, float] | None = None  #: longitude, latitude in degrees


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link as the file has it."""

    a: object
    b: object
    properties: LinkProperties
    where: str


@dataclass(frozen=True)
class FileGraph:
    nodes: Sequence[FileNode]
    links: Sequence[FileLink]

    @property
    def says_roles(self) -> bool:
        """Whether it says of a CSR or UE that it is one."""
        return any(node.role in ("csr", "ue", "proxy-ue") for node in self.nodes)

    @property
    def has_ues(self) -> bool:
        return any(node.role in ("ue", "proxy-ue") for node in self.nodes)


def topology_of_graph(name: str, graph: FileGraph, parameters: FileParameters) -> Topology:
    """Return the conference network of *graph*. Raises: InputError."""
    if not graph.nodes:
        raise InputError(where=f"topology {name}", problem="it has no nodes", remedy="give it two routers and a link")
    has_login = any(node.role == "login" for node in graph.nodes)
    keeps_names = graph.has_ues or has_login
    names = host_names(
        [(node.key, node.label) for node in graph.nodes], kept_host_name if keeps_names else free_host_name
    )
    links = merged_links([(names[link.a], names[link.b], link.properties) for link in graph.links])
    if graph.says_roles or has_login:
        return _as_the_file_says(name, graph, names, links, parameters)
    positions = {names[node.key]: node.position for node in graph.nodes}
    count = UES_PER_CSR_DEFAULT if parameters.ues_per_csr is None else parameters.ues_per_csr
    return place(name, RouterGraph(positions, links), parameters, ues_per_csr=count)


def read_bytes(path: Path, *, kind: str) -> bytes:
    """Return what is in the file at *path*. Raises: InputError."""
    where = str(path) if str(path).isprintable() else repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(where=where, problem="there is no such file", remedy=f"name a {kind}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        problem = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(where=where, problem=problem, remedy="check its name and permissions") from error
    if len(content) > FILE_MAX_BYTES:
        raise InputError(where=where, problem=f"it is larger than {FILE_MAX_BYTES} bytes", remedy=f"name a {kind}")
    if not content.strip():
        raise InputError(where=where, problem="it is empty", remedy=f"name a {kind}")
    return content


def role_of(word: str, *, where: str, key: str) -> str:
    """Return the role that *word* means. Raises: InputError."""
    role = ROLE_WORDS.get(word.strip().casefold())
    if role is None:
        raise InputError(
            where=where,
            problem=f"{key} = {word!r} is no role",
            remedy=pick_one_of(word, dict.fromkeys(ROLE_WORDS.values())),
        )
    return role


def link_properties(where: str, **values: float | None) -> LinkProperties:
    """Return the properties of a link. Raises: InputError for one that no link can have."""
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("delay_ms", 0.0) > DELAY_MAX_MS:
        raise InputError(
            where=where,
            problem=f"a delay of {given['delay_ms']:g} ms is above {DELAY_MAX_MS:g}",
            remedy="check its unit: it is milliseconds",
        )
    if given.get("rate_mbps", 1.0) < RATE_MIN_MBPS:
        raise InputError(
            where=where,
            problem=f"a rate of {given['rate_mbps']:g} Mbit/s is below {RATE_MIN_MBPS:g}",
            remedy="check its unit: it is Mbit/s",
        )
    if "queue_packets" in given:
        given["queue_packets"] = int(given["queue_packets"])
    try:
        return LinkProperties(**given)  # type: ignore[arg-type]  # by name; the values are checked there
    except (ValueError, TypeError) as error:
        raise InputError(where=where, problem=str(error), remedy="correct it") from error


def _as_the_file_says(
    name: str,
    graph: FileGraph,
    names: dict[object, str],
    links: dict[tuple[str, str], LinkProperties],
    parameters: FileParameters,
) -> Topology:
    roles = _roles(graph, names, links)
    if not graph.has_ues:
        return _with_ues_attached(name, graph, names, links, roles, parameters)
    _refuse_placement(name, parameters)
    _verify_ue_links(graph, names, roles)
    nodes = {
        names[node.key]: Node(names[node.key], roles[names[node.key]], node.position, is_proxy=node.role == "proxy-ue")
        for node in graph.nodes
    }
    in_order = [node for role in ("core", "csr", "ue", "login") for node in nodes.values() if node.role == role]
    made = [_link(a, b, properties, roles) for (a, b), properties in _in_file_order(graph, names, links)]
    made.sort(
        key=lambda link: ("core", "access", "login").index(link.tier)
    )  # stable: a UE's first link stays its first
    if not any(node.role == "login" for node in in_order):
        router, link = attach_login_server(_login_node(name, roles, links, parameters))
        return Topology(name, (*in_order, router), (*made, link))
    if parameters.login_node is not None:
        raise ParameterError(name, "login_node", problem="the file has a login server", remedy="leave it out")
    return Topology(name, tuple(in_order), tuple(made))


def _roles(graph: FileGraph, names: dict[object, str], links: dict[tuple[str, str], LinkProperties]) -> dict[str, Role]:
    """Return the role of each node; without any CSR, the routers that UEs are at are CSRs, but for those with a proxy UE."""
    roles: dict[str, Role] = {}
    for node in graph.nodes:
        match node.role:
            case "csr" | "ue" | "login" as role:
                roles[names[node.key]] = role
            case "proxy-ue":
                roles[names[node.key]] = "ue"
            case _:
                roles[names[node.key]] = "core"
    if "csr" not in roles.values():
        served = {names[node.key] for node in graph.nodes if node.role == "proxy-ue"}
        proxied = {router for ue in served for pair in links if ue in pair for router in pair}
        for a, b in links:
            for router, ue in ((a, b), (b, a)):
                if roles[router] == "core" and roles[ue] == "ue" and router not in proxied:
                    roles[router] = "csr"
    return roles


def _with_ues_attached(
    name: str,
    graph: FileGraph,
    names: dict[object, str],
    links: dict[tuple[str, str], LinkProperties],
    roles: dict[str, Role],
    parameters: FileParameters,
) -> Topology:
    """The file has CSRs, or a login server, but no UEs."""
    count = UES_PER_CSR_DEFAULT if parameters.ues_per_csr is None else parameters.ues_per_csr
    csrs = tuple(router for router, role in roles.items() if role == "csr")
    logins = [node for node in graph.nodes if node.role == "login"]
    if csrs and (parameters.csrs is not None or parameters.csr_nodes is not None) and graph.says_roles:
        key = "csrs" if parameters.csrs is not None else "csr_nodes"
        raise ParameterError(name, key, problem="the file says which nodes are CSRs", remedy="leave it out")
    positions = {names[node.key]: node.position for node in graph.nodes if node.role != "login"}
    between = {pair: properties for pair, properties in links.items() if all(end in positions for end in pair)}
    placed = place(
        name,
        RouterGraph(positions, between),
        parameters,
        ues_per_csr=count,
        csr_nodes=csrs if graph.says_roles else None,
    )
    if not logins:
        return placed
    return _with_own_login_servers(placed, graph, names, links)


def _with_own_login_servers(
    placed: Topology, graph: FileGraph, names: dict[object, str], links: dict[tuple[str, str], LinkProperties]
) -> Topology:
    """Replace the login server that was attached by those of the file."""
    own = {
        names[node.key]: Node(names[node.key], "login", node.position) for node in graph.nodes if node.role == "login"
    }
    kept = tuple(node for node in placed.nodes if node.role != "login")
    kept_links = tuple(link for link in placed.links if link.tier != "login")
    added = tuple(
        Link.between(*((b, a) if a in own else (a, b)), "login", properties)
        for (a, b), properties in links.items()
        if a in own or b in own
    )
    return Topology(placed.name, (*kept, *own.values()), (*kept_links, *added))


def _refuse_placement(name: str, parameters: FileParameters) -> None:
    """A file that has UEs leaves nothing to place but the login server."""
    for key in ("csrs", "csr_nodes", "ues_per_csr", "ues_at", "edge_nodes", "ues_per_edge_network", "proxy_ues"):
        if getattr(parameters, key) is not None:
            raise ParameterError(name, key, problem="the file says which nodes are UEs", remedy="leave it out")
    if parameters.ue_links != 1:
        raise ParameterError(name, "ue_links", problem="the file says which nodes are UEs", remedy="leave it out")


def _verify_ue_links(graph: FileGraph, names: dict[object, str], roles: dict[str, Role]) -> None:
    ends = {end for link in graph.links for end in (names[link.a], names[link.b]) if link.a != link.b}
    for link in graph.links:
        a, b = names[link.a], names[link.b]
        if roles[a] not in ("core", "csr") and roles[b] not in ("core", "csr"):
            raise InputError(
                where=link.where,
                problem=f"the link joins {a} and {b}, neither of which is a router",
                remedy="join each to a router, or give one of them the role core or csr",
            )
    for node in graph.nodes:
        if names[node.key] not in ends and len(graph.nodes) > 1:
            raise InputError(where=node.where, problem=f"{names[node.key]} has no link", remedy="join it to a router")


def _in_file_order(
    graph: FileGraph, names: dict[object, str], links: dict[tuple[str, str], LinkProperties]
) -> list[tuple[tuple[str, str], LinkProperties]]:
    first: dict[tuple[str, str], None] = {}
    for link in graph.links:
        a, b = sorted((names[link.a], names[link.b]))
        if a != b:
            first.setdefault((a, b))
    return [(pair, links[pair]) for pair in first]


def _link(a: str, b: str, properties: LinkProperties, roles: dict[str, Role]) -> Link:
    """Return the link with its router first, as everywhere."""
    if roles[a] in ("ue", "login"):
        a, b = b, a
    tiers: dict[Role, Tier] = {"ue": "access", "login": "login"}
    return Link.between(a, b, tiers.get(roles[b], "core"), properties)


def _login_node(
    name: str, roles: dict[str, Role], links: dict[tuple[str, str], LinkProperties], parameters: FileParameters
) -> str:
    routers = [router for router, role in roles.items() if role in ("core", "csr")]
    wanted = parameters.login_node
    if wanted is not None:
        if wanted not in routers:
            raise ParameterError(
                name, "login_node", problem=f"there is no router `{wanted}`", remedy=pick_one_of(wanted, routers)
            )
        return wanted
    between = [pair for pair in links if all(end in routers for end in pair)]
    degrees = dict.fromkeys(routers, 0) | router_degrees(between)
    if not degrees:
        raise InputError(where=f"topology {name}", problem="it has no routers", remedy="give a node the role csr")
    return login_router(degrees, [router for router in routers if roles[router] == "csr"])
