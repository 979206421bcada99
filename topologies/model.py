"""What is connected to what: nodes, links and their properties, as immutable data.

A `Topology` that exists is sound: names are unique and usable as host names, links end at known nodes, everybody can
reach everybody through routers. Whoever reads one need not check again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

from topologies.errors import InputError, nearest, pick_one_of

Role = Literal["core", "csr", "ue", "login"]
#: `core`: between routers; `uplink`: from a CSR to a core router (only `tiers` tells them apart); `access`: to a UE;
#: `login`: to the login server.
Tier = Literal["core", "uplink", "access", "login"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)

#: Names are host names, NDN name components and file names at once; `-` is left to join the two ends of a link.
NODE_NAME_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

#: Each link takes one /31 of 10.0.0.0/12 (see testbed/addresses.py); a builder refuses more before it builds.
LINKS_MAX: Final = 2**19

#: Names that an unknown one is compared with; comparing is slow.
_COMPARED_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    role: Role
    position: tuple[float, float] | None = None  #: longitude, latitude in degrees
    is_proxy: bool = False  #: a UE that serves as sync proxy where its network has no CSR
    serves: bool = True  #: False: no service proxy runs here, although the above says so

    @property
    def runs_proxy(self) -> bool:
        """Tell whether a service proxy runs beside its forwarder."""
        return self.serves and (self.role == "csr" or self.is_proxy)


JitterDistribution = Literal["uniform", "normal"]

JITTER_DISTRIBUTIONS: Final[tuple[JitterDistribution, ...]] = get_args(JitterDistribution)

DELAY_MAX_MS: Final = 60_000.0
RATE_MIN_MBPS: Final = 0.001
QUEUE_MAX_PACKETS: Final = 100_000
QUEUE_MAX_BYTES: Final = 1_000_000_000
#: IPv4's least (RFC 791: every host takes 576 octets), and jumbo frames.
MTU_MIN_BYTES: Final = 576
MTU_MAX_BYTES: Final = 9_000


@dataclass(frozen=True, slots=True)
class LinkProperties:
    """How a link treats the packets that one end sends (`testbed.links.model.Impairment` says in which order).

    Raises: ValueError for a value that no link can have.
    """

    delay_ms: float = 0.0  #: one way
    jitter_ms: float = 0.0  #: how much the delay varies, see jitter_distribution
    #: `uniform`: adds 0 to jitter_ms. `normal`: the delay's mean is delay_ms and its standard deviation jitter_ms, as far as
    #: four of them and never below 0.
    jitter_distribution: JitterDistribution = "uniform"
    jitter_keeps_order: bool = True  #: a packet waits for a slower one ahead of it; else it overtakes
    loss_ratio: float = (
        0.0  #: a fraction, 0 to 1: of each packet on its own; with bursts, of one in the good state (1-k)
    )
    #: Bursts (Gilbert 1960, Elliott 1963): before each packet the link goes from its good state to its bad one with this
    #: probability (p), 0: never …
    good_to_bad_ratio: float = 0.0
    bad_to_good_ratio: float = 0.0  #: … and back with this (r): a bad period lasts for 1/r packets in the mean
    bad_loss_ratio: float = 1.0  #: loss of each packet in the bad state (1-h)
    rate_mbps: float | None = None  #: None: not limited
    queue_packets: int = 1000  #: what waits for the rate; more is dropped
    queue_bytes: int | None = None  #: the same in bytes, instead of queue_packets
    duplicate_ratio: float = 0.0  #: arrives a second time, up to late_max_ms later
    reorder_ratio: float = 0.0  #: comes up to late_max_ms later than it should, so that others overtake it
    corrupt_ratio: float = 0.0  #: arrives with a bit changed
    late_max_ms: float = 10.0  #: of duplicates and of what is reordered; drawn uniformly from 0
    mtu_bytes: int = 1500  #: of the sending interface; what is longer goes in fragments

    def __post_init__(self) -> None:
        verify_link_values(self)


def mean_loss_ratio(values: Any) -> float:  # noqa: ANN401  an `Impairment` has the attributes of `LinkProperties` too
    """Return how much of what enters is lost in the long run: of a link with bursts, by its states' shares of the packets.

    >>> mean_loss_ratio(LinkProperties(good_to_bad_ratio=0.25, bad_to_good_ratio=0.75, bad_loss_ratio=0.5))
    0.125
    """
    good: float = values.loss_ratio
    if values.good_to_bad_ratio <= 0:
        return good
    bad: float = values.good_to_bad_ratio / (values.good_to_bad_ratio + values.bad_to_good_ratio)
    return bad * float(values.bad_loss_ratio) + (1 - bad) * good


#: Properties that are a probability, for each packet.
RATIO_NAMES: Final = (
    *("loss_ratio", "good_to_bad_ratio", "bad_to_good_ratio", "bad_loss_ratio"),
    *("duplicate_ratio", "reorder_ratio", "corrupt_ratio"),
)


def verify_link_values(values: Any) -> None:  # noqa: ANN401  an `Impairment` has the attributes of `LinkProperties` too
    """Raise ValueError, naming it, if a property in *values* is one that no link can have."""
    for name in ("delay_ms", "jitter_ms", "late_max_ms"):
        value: float = getattr(values, name)
        if not 0.0 <= value <= DELAY_MAX_MS:
            raise ValueError(f"{name} = {value} is outside 0 to {DELAY_MAX_MS:.0f}")
    for name in RATIO_NAMES:
        value = getattr(values, name)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} = {value} is outside 0.0 to 1.0; it is a fraction, not per cent")
    if values.jitter_distribution not in JITTER_DISTRIBUTIONS:
        known = " nor ".join(JITTER_DISTRIBUTIONS)
        raise ValueError(f"jitter_distribution = {values.jitter_distribution!r} is neither {known}")
    rate_mbps: float | None = values.rate_mbps
    if rate_mbps is not None and not (math.isfinite(rate_mbps) and rate_mbps >= RATE_MIN_MBPS):
        raise ValueError(f"rate_mbps = {rate_mbps} is not a rate of at least {RATE_MIN_MBPS} (leave it out: no limit)")
    for name, low, high in (
        ("queue_packets", 1, QUEUE_MAX_PACKETS),
        ("queue_bytes", 1, QUEUE_MAX_BYTES),
        ("mtu_bytes", MTU_MIN_BYTES, MTU_MAX_BYTES),
    ):
        count: int | None = getattr(values, name)
        if count is not None and not low <= count <= high:
            raise ValueError(f"{name} = {count} is outside {low} to {high}")


#: What makes a link: `wire`, an emulator of ours between TAP interfaces; `netem`, the kernel's own; `auto`: chosen by what the
#: kernel has (testbed/links/backends.py).
LinkBackend = Literal["auto", "wire", "netem"]


@dataclass(frozen=True, slots=True)
class Link:
    name: str  #: "<a>-<b>"
    a: str
    b: str
    tier: Tier
    properties: LinkProperties = LinkProperties()  #: of both directions, or of what `a` sends
    back: LinkProperties | None = None  #: of what `b` sends, where that differs
    backend: LinkBackend = "auto"

    @classmethod
    def between(cls, a: str, b: str, tier: Tier, properties: LinkProperties) -> Link:
        return cls(f"{a}-{b}", a, b, tier, properties)

    def properties_from(self, sender: str) -> LinkProperties:
        """Return how the link treats what *sender* sends. Raises: ValueError if it is at neither end."""
        if sender not in (self.a, self.b):
            raise ValueError(f"{sender} is not an end of the link {self.name}")
        return self.back if self.back is not None and sender == self.b else self.properties

    def other_end(self, node: str) -> str:
        """Return the node at the other end. Raises: ValueError if *node* is at neither."""
        if node == self.a:
            return self.b
        if node == self.b:
            return self.a
        raise ValueError(f"{node} is not an end of the link {self.name}")


@dataclass(frozen=True)
class Topology:
    """A network to build. Raises: InputError, naming the topology and what is wrong, if it is not sound."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        self._verify_names()
        self._verify_ends()
        self._verify_connected()
        self._verify_proxies()

    @cached_property
    def _nodes_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _names_by_role(self) -> dict[Role, tuple[str, ...]]:
        names: dict[Role, list[str]] = {}
        for node in self.nodes:
            names.setdefault(node.role, []).append(node.name)
        return {role: tuple(of_role) for role, of_role in names.items()}

    @cached_property
    def _links_by_ends(self) -> dict[tuple[str, str], Link]:
        either_way: dict[tuple[str, str], Link] = {}
        for link in self.links:
            either_way[link.a, link.b] = either_way[link.b, link.a] = link
        return either_way

    @cached_property
    def _links_by_node(self) -> dict[str, tuple[Link, ...]]:
        at: dict[str, list[Link]] = {node.name: [] for node in self.nodes}
        for link in self.links:
            at[link.a].append(link)
            at[link.b].append(link)
        return {name: tuple(links) for name, links in at.items()}

    def node(self, name: str) -> Node:
        """Return the node called *name*. Raises: InputError with the nearest names."""
        try:
            return self._nodes_by_name[name]
        except KeyError:
            raise InputError(
                where=f"topology {self.name}",
                problem=f"there is no node `{name}`",
                remedy=pick_one_of(name, self._nodes_by_name),
            ) from None

    def link(self, name: str) -> Link:
        """Return the link called *name*, its ends in either order. Raises: InputError with the nearest names."""
        a, _, b = name.partition("-")
        try:
            return self._links_by_ends[a, b]
        except KeyError:
            raise InputError(
                where=f"topology {self.name}", problem=f"there is no link `{name}`", remedy=self._meant_link(name)
            ) from None

    def links_of(self, node: str) -> tuple[Link, ...]:
        """Return the links at *node*, in the order of `links`; the order of its interfaces."""
        return self._links_by_node[self.node(node).name]

    def names_by_role(self, role: Role) -> tuple[str, ...]:
        return self._names_by_role.get(role, ())

    @property
    def cores(self) -> tuple[str, ...]:
        return self.names_by_role("core")

    @property
    def csrs(self) -> tuple[str, ...]:
        return self.names_by_role("csr")

    @property
    def ues(self) -> tuple[str, ...]:
        return self.names_by_role("ue")

    @property
    def login_servers(self) -> tuple[str, ...]:
        return self.names_by_role("login")

    @cached_property
    def proxy_ues(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes if node.is_proxy and node.serves)

    @cached_property
    def proxies(self) -> tuple[str, ...]:
        """Return every node that runs a service proxy: the CSRs, then the proxy UEs."""
        return tuple(csr for csr in self.csrs if self.node(csr).serves) + self.proxy_ues

    def proxy_of(self, ue: str) -> str:
        """Return the service proxy of the network that *ue* is in (its first link): the CSR, else the proxy UE.

        Raises: ValueError if *ue* is no UE.
        """
        router = self.csr_of(ue)
        return self._proxies_by_router.get(router, router)

    @cached_property
    def _proxies_by_router(self) -> dict[str, str]:
        """Return core router -> the proxy UE behind it."""
        return {self.csr_of(ue): ue for ue in self.proxy_ues}

    def csr_of(self, ue: str) -> str:
        """Return the router that *ue* is attached to (its first link): a CSR, or a core router that proxy UEs make up for.

        Raises: ValueError if *ue* is no UE.
        """
        if self.node(ue).role != "ue":
            raise ValueError(f"{ue} is not a UE")
        return self.links_of(ue)[0].other_end(ue)

    def with_backends(self, chosen: Mapping[str, LinkBackend]) -> Topology:
        """Return the same network with the links named in *chosen* made by those back ends."""
        links = tuple(
            dataclasses.replace(link, backend=chosen[link.name]) if link.name in chosen else link for link in self.links
        )
        return dataclasses.replace(self, links=links)

    def with_properties(
        self, changed: Mapping[str, LinkProperties], back: Mapping[str, LinkProperties] | None = None
    ) -> Topology:
        """Return the same network with the properties of the links named in *changed* replaced.

        What end `b` sends gets those in *back*, where a link is named there, else the same.
        """
        others = back or {}

        def replaced(link: Link) -> Link:
            both, of_b = changed.get(link.name, link.properties), others.get(link.name)
            if link.name not in changed and of_b is None:
                return link
            return dataclasses.replace(link, properties=both, back=None if of_b == both else of_b)

        return dataclasses.replace(self, links=tuple(map(replaced, self.links)))

    def served_by(self, servers: Collection[str]) -> Topology:
        """Return the same network where service proxies run at none but these nodes, be it nowhere."""
        nodes = tuple(
            dataclasses.replace(node, serves=node.name in servers, is_proxy=node.is_proxy and node.name in servers)
            for node in self.nodes
        )
        return dataclasses.replace(self, nodes=nodes)

    def _meant_link(self, name: str) -> str:
        """Return a remedy for the unknown link *name*."""
        if name in self._nodes_by_name:
            links = self._links_by_node[name]
            shown = ", ".join(f"`{link.name}`" for link in links[:8])
            return f"`{name}` is a node; its links are {shown}" + (" …" if len(links) > 8 else "")
        either_way = (f"{a}-{b}" for a, b in itertools.islice(self._links_by_ends, _COMPARED_MAX))
        close = nearest(name, either_way)
        return pick_one_of(name, close or [link.name for link in self.links])

    def _refuse(self, problem: str, remedy: str) -> InputError:
        return InputError(where=f"topology {self.name}", problem=problem, remedy=remedy)

    def _verify_names(self) -> None:
        if not self.nodes:
            raise self._refuse("it has no nodes", "give it at least two routers and a link")
        if len(self.links) > LINKS_MAX:
            raise self._refuse(
                f"{len(self.links)} links are more than the {LINKS_MAX} that the address plan holds", "make it smaller"
            )
        seen: set[str] = set()
        for node in self.nodes:
            if not NODE_NAME_PATTERN.fullmatch(node.name):
                raise self._refuse(
                    f"the node name {node.name!r} cannot be a host name",
                    "use a letter, then up to 31 letters, digits or underscores",
                )
            if node.name in seen:
                raise self._refuse(f"the node name `{node.name}` is used twice", "give each node a name of its own")
            seen.add(node.name)

    def _verify_ends(self) -> None:
        seen: set[frozenset[str]] = set()
        for link in self.links:
            for end in (link.a, link.b):
                if end not in self._nodes_by_name:
                    raise self._refuse(
                        f"the link `{link.name}` ends at `{end}`, which is no node of it",
                        pick_one_of(end, self._nodes_by_name),
                    )
            if link.a == link.b:
                raise self._refuse(f"the link `{link.name}` joins a node to itself", "leave it out")
            if link.name != f"{link.a}-{link.b}":
                raise self._refuse(f"the link `{link.name}` joins {link.a} and {link.b}", f"name it {link.a}-{link.b}")
            ends = frozenset((link.a, link.b))
            if ends in seen:
                raise self._refuse(f"two links join {link.a} and {link.b}", "merge them into one")
            seen.add(ends)

    def _verify_connected(self) -> None:
        routers = [node.name for node in self.nodes if node.role in ("core", "csr")]
        reached = self._reach_from(routers[0]) if routers else set()
        cut_off = [node.name for node in self.nodes if node.name not in reached]
        if not cut_off:
            return
        named = [name for name in routers if name not in reached] or cut_off  # what is behind a router goes with it
        shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        raise self._refuse(
            f"it is disconnected: no path through routers joins {shown} to {routers[0] if routers else 'each other'}",
            "add the missing links, or choose another topology",
        )

    def _verify_proxies(self) -> None:
        """Every UE is behind a CSR or in a network with exactly one proxy UE."""
        proxy_ues: dict[str, str] = {}
        for node in self.nodes:
            if not node.is_proxy:
                continue
            if node.role != "ue":
                raise self._refuse(
                    f"`{node.name}`, a {node.role}, is marked as a proxy UE", "mark a UE; every CSR is a proxy anyway"
                )
            router = self.csr_of(node.name)
            if self.node(router).role == "csr":
                raise self._refuse(
                    f"the proxy UE `{node.name}` is behind {router}, a CSR, whose proxy serves there",
                    "choose a UE of a network without a CSR",
                )
            if router in proxy_ues:
                raise self._refuse(
                    f"{proxy_ues[router]} and {node.name} are both proxy UEs of the network behind {router}",
                    "choose one of them",
                )
            proxy_ues[router] = node.name
        if not all(node.serves for node in self.nodes):
            return  # not every network is meant to have its own
        for ue in self.ues:
            router = self.csr_of(ue)
            if self.node(router).role == "core" and router not in proxy_ues:
                raise self._refuse(
                    f"the network of `{ue}`, behind {router}, has neither a CSR nor a proxy UE",
                    f"make {router} a CSR, or one of its UEs a proxy UE",
                )

    def _reach_from(self, start: str) -> set[str]:
        """Return what *start* reaches; a UE or login server carries nobody else's packets."""
        reached, frontier = {start}, [start]
        while frontier:
            node = frontier.pop()
            if self._nodes_by_name[node].role not in ("core", "csr"):
                continue
            for link in self._links_by_node[node]:
                other = link.other_end(node)
                if other not in reached:
                    reached.add(other)
                    frontier.append(other)
        return reached


def router_degrees(pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return how many of *pairs* each name is in.

    >>> router_degrees([("a", "b"), ("b", "c")])
    {'a': 1, 'b': 2, 'c': 1}
    """
    degrees: dict[str, int] = {}
    for pair in pairs:
        for name in pair:
            degrees[name] = degrees.get(name, 0) + 1
    return degrees
