"""The configuration of every node process of a run, as the plain data that proxy/config.py describes.

The testbed does not import the protocol: it writes these as JSON, and the node program validates them when it starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nacl.signing import SigningKey

from testbed.addresses import AddressPlan
from testbed.plan import PROXYLESS_MODES, RUNTIME_ROOT, NetworkPlan
from testbed.routing import path_delays_ms, ranked_next_hops
from topologies.model import Node, Topology

#: Prefix of everything; the application of node X is under ``/hconf/X``, all service proxies are ``/hconf/32=all``.
ROOT_PREFIX: Final = "/hconf"
ALL_PROXIES_PREFIX: Final = "/hconf/32=all"
#: Of all who take part in a conference, in modes without proxies: ``/hconf/32=group/32=<mode>/<conference>``.
GROUP_PREFIX: Final = "/hconf/32=group"
#: Of the data plane: what UE X publishes is under ``/hconf-data/X``.
DATA_PREFIX: Final = "/hconf-data"

#: The face to what runs on the node itself: client, login server, or (over a socket) service proxy.
LOCAL_FACE: Final = 0
#: The face of a proxy UE's forwarder to its service proxy; the client is at LOCAL_FACE.
SERVICE_FACE: Final = -1

#: TCP and UDP on the loopback interface of every node; NFD's number (IANA: ndn), so that applications need not be told.
APPLICATION_PORT: Final = 6363

#: What a client is sent under its device's name; on a proxy UE everything else under that name is for the proxy.
CLIENT_KEYWORDS: Final = ("32=notify", "32=heartbeat")

#: What one UE may fill of its router's PIT: little enough that what it makes the next routers hold is no more than a part of
#: what they grant this one.
UE_PIT_SHARE_RATIO: Final = 0.125

#: A run starts each process once; one that is started again gets the next.
FIRST_BOOT: Final = 1

#: Of (node, destination) -> [(neighbour, cost in ms)], best first.
NextHops = Mapping[str, Mapping[str, list[tuple[str, float]]]]


def build_node_configs(plan: NetworkPlan, addresses: AddressPlan | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Return (process name, configuration) of every process, those of one node together, its forwarder first."""
    return list(node_configs(plan, addresses))


def node_configs(plan: NetworkPlan, addresses: AddressPlan | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the same one by one: those of 10,000 nodes together are too many."""
    topology = plan.topology
    addresses = addresses or AddressPlan.of(topology)
    next_hops = ranked_next_hops(topology)
    trust = {
        "login_public_key_hex": public_key_hex(device_key_seed(plan.seed, topology.login_servers[0])),
        "proxy_keys": {proxy: public_key_hex(device_key_seed(plan.seed, proxy)) for proxy in topology.proxies},
    }

    for node in topology.nodes:
        forwarder = _process(plan, node, "forwarder")
        forwarder["forwarder"] = _forwarder_section(plan, node, addresses, next_hops)
        if node.role == "ue":
            forwarder["client"] = _client_section(plan, node) | trust | dict(plan.client_settings)
            if plan.mode in PROXYLESS_MODES:
                forwarder[plan.mode] = dict(plan.sync_settings)
        if node.role == "login":
            forwarder["login"] = _login_section(plan, node)
        yield f"{node.name}.forwarder", forwarder
        if node.runs_proxy:
            proxy = _process(plan, node, "proxy")
            proxy["proxy"] = {
                "forwarder_socket": service_socket(plan, node.name),
                "key_seed_hex": device_key_seed(plan.seed, node.name).hex(),
                "mode": plan.mode,
                "log_path": str(log_path(plan, node.name).absolute()),
                **trust,
                **plan.proxy_settings,
            }
            yield f"{node.name}.proxy", proxy


def service_socket(plan: NetworkPlan, node: str) -> str:
    """Return where the service proxy of *node* attaches to its forwarder."""
    return str(plan.runtime_dir / f"{node}.sock")


def application_socket(run_id: str, node: str) -> Path:
    """Return where applications attach to the forwarder of *node*."""
    return RUNTIME_ROOT / run_id / node / "nfd.sock"


def log_path(plan: NetworkPlan, node: str) -> Path:
    """Return the database in which the service proxy of *node* keeps its digest log."""
    return plan.state_dir / f"{node}.sqlite3"


def log_files(plan: NetworkPlan, node: str) -> list[Path]:
    """Return every file that the service proxy of *node* keeps its digest log in, as far as they exist."""
    path = log_path(plan, node)
    return sorted(path.parent.glob(f"{path.name}*"))


def process_seed(run_seed: int, process: str) -> int:
    """Return the seed of one process: 63 bits, from the run's seed and the process' name.

    >>> process_seed(7, "csr1.proxy") == process_seed(7, "csr1.forwarder")
    False
    """
    digest = hashlib.sha256(f"hconf process {run_seed} {process}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def device_key_seed(run_seed: int, device: str) -> bytes:
    """Return the 32 bytes that the Ed25519 private key of *device* is made of (RFC 8032 section 5.1.5).

    The same run has the same keys; they protect nothing outside of it.
    """
    return hashlib.sha256(f"hconf device key {run_seed} {device}".encode()).digest()


def public_key_hex(key_seed: bytes) -> str:
    """Return the Ed25519 public key that belongs to a private key seed."""
    return bytes(SigningKey(key_seed).verify_key).hex()


def ranked_proxies(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Return, for each UE, all proxies by path delay, that of its own network first whatever the delays are."""
    delays_ms = path_delays_ms(topology, sources=topology.ues, destinations=topology.proxies)
    ranked: dict[str, tuple[str, ...]] = {}
    for ue in topology.ues:
        own, delay_ms = topology.proxy_of(ue), delays_ms[ue]
        ranked[ue] = tuple(sorted(topology.proxies, key=lambda proxy: (proxy != own, delay_ms[proxy], proxy)))
    return ranked


def _process(plan: NetworkPlan, node: Node, process: str) -> dict[str, Any]:
    name = f"{node.name}.{process}"
    return {
        "run_id": plan.run_id,
        "node": node.name,
        "role": node.role,
        "process": process,
        "boot": FIRST_BOOT,
        "seed": process_seed(plan.seed, name),
        "records_path": str((plan.raw_dir / f"{name}.jsonl").absolute()),
        "measures_processing": plan.measures_processing,
    }


def _client_section(plan: NetworkPlan, node: Node) -> dict[str, Any]:
    return {
        "key_seed_hex": device_key_seed(plan.seed, node.name).hex(),
        "login_server": plan.topology.login_servers[0],
        "conference": plan.conferences.get(node.name, plan.conference),
        "own_proxy": node.is_proxy,
    }


def _login_section(plan: NetworkPlan, node: Node) -> dict[str, Any]:
    topology = plan.topology
    return {
        "key_seed_hex": device_key_seed(plan.seed, node.name).hex(),
        "devices": {ue: public_key_hex(device_key_seed(plan.seed, ue)) for ue in topology.ues},
        "ranked_proxies": ranked_proxies(topology),
        **plan.login_settings,
    }


def face_ids(topology: Topology, node: str) -> dict[str, int]:
    """Return the face to each neighbour of *node*, in the order of its links."""
    peers = [link.other_end(node) for link in topology.links_of(node)]
    return {peer: face_id for face_id, peer in enumerate(peers, start=LOCAL_FACE + 1)}


def _forwarder_section(plan: NetworkPlan, node: Node, addresses: AddressPlan, next_hops: NextHops) -> dict[str, Any]:
    by_peer = face_ids(plan.topology, node.name)
    faces: list[dict[str, Any]] = []
    for link in plan.topology.links_of(node.name):
        end, peer = addresses.end(link.name, node.name), link.other_end(node.name)
        sent = link.properties_from(node.name)
        faces.append(
            {
                "face_id": by_peer[peer],
                "link": link.name,
                "intf": end.intf,
                "local_address": end.address,
                "remote_address": end.peer_address,
                "peer": peer,
                "rate_mbps": sent.rate_mbps,
                "mtu_bytes": sent.mtu_bytes,
            }
        )
        if plan.topology.node(peer).role == "ue" and not plan.topology.node(peer).is_proxy:
            faces[-1]["pit_share_ratio"] = UE_PIT_SHARE_RATIO
    return {
        "faces": faces,
        "routes": [
            *_routes(plan.topology, node, by_peer, next_hops.get(node.name, {})),
            *_group_routes(plan, node, by_peer),
        ],
        "service_socket": service_socket(plan, node.name) if node.runs_proxy else None,
        "application_socket": str(application_socket(plan.run_id, node.name)),
        "application_port": APPLICATION_PORT,
        **plan.forwarder_settings,
    }


def _routes(
    topology: Topology, node: Node, by_peer: Mapping[str, int], next_hops: Mapping[str, list[tuple[str, float]]]
) -> list[dict[str, Any]]:
    local = {"face_id": LOCAL_FACE, "cost_ms": 0.0}
    service = {"face_id": SERVICE_FACE, "cost_ms": 0.0} if node.is_proxy else local
    own = [{"prefix": f"{ROOT_PREFIX}/{node.name}", "next_hops": [service]}]
    if node.role == "ue":
        own.append({"prefix": f"{DATA_PREFIX}/{node.name}", "next_hops": [local]})
    if node.is_proxy:
        own += [{"prefix": f"{ROOT_PREFIX}/{node.name}/{word}", "next_hops": [local]} for word in CLIENT_KEYWORDS]
        own.append(_to_all_proxies(topology, node, by_peer, service))
    if node.role in ("ue", "login") and len(by_peer) == 1:
        # Everything else is behind the only link: one route, however many nodes there are.
        link = topology.links_of(node.name)[0]
        only = {"face_id": by_peer[link.other_end(node.name)], "cost_ms": link.properties_from(node.name).delay_ms}
        return [*own, *_everything(only)]
    routes = [] if node.role == "core" or (node.role == "csr" and not node.runs_proxy) else own
    if node.role in ("ue", "login"):
        # It asks proxies and the login server, each by the best way; for all the rest one route does, its own link first.
        ways = [
            {"face_id": by_peer[link.other_end(node.name)], "cost_ms": link.properties_from(node.name).delay_ms}
            for link in topology.links_of(node.name)
        ]
        routes = [*routes, *_everything(*ways)]
        asked = {*topology.proxies, *topology.login_servers}
        next_hops = {to: ranked for to, ranked in next_hops.items() if to in asked}
    routes += _by_way(topology, by_peer, next_hops)
    if node.role in ("core", "csr"):
        routes.append(_to_all_proxies(topology, node, by_peer, local if node.runs_proxy else None))
    return routes


def _by_way(
    topology: Topology, by_peer: Mapping[str, int], next_hops: Mapping[str, list[tuple[str, float]]]
) -> list[dict[str, Any]]:
    """Return the routes to other nodes, those with the same next hops as one."""
    ways: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for destination, ranked in next_hops.items():
        prefixes = ways.setdefault(tuple(ranked), [])
        prefixes.append(f"{ROOT_PREFIX}/{destination}")
        if topology.node(destination).role == "ue":
            prefixes.append(f"{DATA_PREFIX}/{destination}")
    return [
        {
            "prefix": first,
            "also": also,
            "next_hops": [{"face_id": by_peer[neighbour], "cost_ms": cost_ms} for neighbour, cost_ms in ranked],
        }
        for ranked, (first, *also) in ways.items()
    ]


def _group_routes(plan: NetworkPlan, node: Node, by_peer: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the multicast routes to all who take part in a conference: over all links between routers, and to its UEs.

    Copies that meet are known by their nonces. Whatever link fails, the others carry them, without anybody noticing first.
    """
    if plan.mode not in PROXYLESS_MODES or node.role == "login":
        return []
    conference_of = {ue: plan.conferences.get(ue, plan.conference) for ue in plan.topology.ues}
    routes: list[dict[str, Any]] = []
    for conference in sorted(set(conference_of.values())):
        if node.role == "ue" and conference_of[node.name] != conference:
            continue
        hops = [{"face_id": LOCAL_FACE, "cost_ms": 0.0}] if node.role == "ue" else []
        for link in plan.topology.links_of(node.name):
            peer = link.other_end(node.name)
            if plan.topology.node(peer).role in ("core", "csr") or conference_of.get(peer) == conference:
                hops.append({"face_id": by_peer[peer], "cost_ms": link.properties.delay_ms})
        routes.append({"prefix": f"{GROUP_PREFIX}/32={plan.mode}/{conference}", "next_hops": hops})
    return routes


def _everything(*ways: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the routes of all that no other route is for."""
    return [{"prefix": prefix, "next_hops": list(ways)} for prefix in (ROOT_PREFIX, DATA_PREFIX)]


def _to_all_proxies(
    topology: Topology, node: Node, by_peer: Mapping[str, int], own: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the multicast route: to the proxy of the node itself, the routers beside it and the proxy UE behind it."""
    onward = [
        {"face_id": by_peer[peer], "cost_ms": link.properties_from(node.name).delay_ms}
        for link in topology.links_of(node.name)
        if topology.node(peer := link.other_end(node.name)).role in ("core", "csr") or topology.node(peer).is_proxy
    ]
    return {"prefix": ALL_PROXIES_PREFIX, "next_hops": [*([] if own is None else [own]), *onward]}
