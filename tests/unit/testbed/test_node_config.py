import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config import NodeConfig
from proxy.core.signing import Signer
from proxy.driver.config_file import load_config
from proxy.wire.message_names import TO_CLIENTS
from proxy.wire.name import to_uri
from testbed.addresses import AddressPlan
from testbed.node_config import (
    CLIENT_KEYWORDS,
    build_node_configs,
    device_key_seed,
    public_key_hex,
    ranked_proxies,
)
from testbed.plan import NetworkPlan
from testbed.routing import path_delays_ms
from topologies.catalogue import build
from topologies.model import Link, LinkProperties, Node, Topology


def plan_of(topology: Topology, **settings: Any) -> NetworkPlan:
    return NetworkPlan("run-1", topology, 7, Path("runs/x"), **settings)


@pytest.fixture(scope="module")
def abilene() -> Topology:
    return build("topozoo/Abilene", {"csrs": 4, "ues_per_csr": 3})


def validated(plan: NetworkPlan, tmp_path: Path) -> dict[str, NodeConfig]:
    configs = {}
    for name, config in build_node_configs(plan):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config))
        configs[name] = load_config(path)
    return configs


def test_the_node_program_accepts_every_configuration(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    assert len(configs) == len(abilene.nodes) + len(abilene.csrs)
    assert {f"{csr}.proxy" for csr in abilene.csrs} == {name for name in configs if name.endswith(".proxy")}
    for name, config in configs.items():
        assert name == f"{config.node}.{config.process}"
        assert Path(config.records_path) == Path("runs/x/raw").absolute() / f"{name}.jsonl"
    assert len({config.seed for config in configs.values()}) == len(configs)


def test_faces_are_the_two_ends_of_each_link(abilene: Topology, tmp_path: Path) -> None:
    configs, addresses = validated(plan_of(abilene), tmp_path), AddressPlan.of(abilene)
    for link in abilene.links:
        ends = []
        for node in (link.a, link.b):
            forwarder = configs[f"{node}.forwarder"].forwarder
            assert forwarder is not None
            (face,) = [face for face in forwarder.faces if face.link == link.name]
            assert face.intf == addresses.end(link.name, node).intf
            assert face.peer == link.other_end(node)
            ends.append(face)
        assert (ends[0].local_address, ends[0].remote_address) == (ends[1].remote_address, ends[1].local_address)


def test_every_router_has_ranked_ways_to_every_application(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    applications = {*abilene.csrs, *abilene.ues, *abilene.login_servers}
    delays_ms = path_delays_ms(abilene)
    for router in (*abilene.cores, *abilene.csrs):
        forwarder = configs[f"{router}.forwarder"].forwarder
        assert forwarder is not None
        routes = {prefix: route.next_hops for route in forwarder.routes for prefix in route.prefixes}
        data = {f"/hconf-data/{ue}" for ue in abilene.ues}
        assert set(routes) == {f"/hconf/{name}" for name in applications} | {"/hconf/32=all"} | data
        for ue in abilene.ues:
            assert routes[f"/hconf-data/{ue}"] == routes[f"/hconf/{ue}"], "the data plane takes the same ways"
        for name in applications - {router}:
            costs_ms = [hop.cost_ms for hop in routes[f"/hconf/{name}"]]
            assert costs_ms == sorted(costs_ms)
            assert costs_ms[0] == pytest.approx(delays_ms[router][name])
        if router in abilene.csrs:
            assert [hop.face_id for hop in routes[f"/hconf/{router}"]] == [0]


def test_the_multicast_prefix_reaches_neighbouring_routers_and_the_own_proxy(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    routers = {*abilene.cores, *abilene.csrs}
    for router in routers:
        forwarder = configs[f"{router}.forwarder"].forwarder
        assert forwarder is not None
        (route,) = [route for route in forwarder.routes if route.prefix == "/hconf/32=all"]
        expected = {face.face_id for face in forwarder.faces if face.peer in routers}
        assert {hop.face_id for hop in route.next_hops} == expected | ({0} if router in abilene.csrs else set())


def test_what_has_one_link_has_one_way_out(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    for node in (*abilene.ues, *abilene.login_servers):
        forwarder = configs[f"{node}.forwarder"].forwarder
        assert forwarder is not None
        assert {route.prefix: [hop.face_id for hop in route.next_hops] for route in forwarder.routes} == {
            f"/hconf/{node}": [0],
            "/hconf": [1],
            "/hconf-data": [1],
        } | ({f"/hconf-data/{node}": [0]} if node in abilene.ues else {})


def test_a_ue_with_two_links_ranks_both_ways_to_every_proxy_and_the_login_server(tmp_path: Path) -> None:
    topology = build("tiers", {"csrs": 3, "ues_per_csr": 1, "ue_links": 2})
    configs, delays_ms = validated(plan_of(topology), tmp_path), path_delays_ms(topology)
    forwarder = configs["ue1.forwarder"].forwarder
    assert forwarder is not None
    assert [face.peer for face in forwarder.faces] == ["csr1", "csr2"]
    routes = {route.prefix: [(hop.face_id, hop.cost_ms) for hop in route.next_hops] for route in forwarder.routes}
    assert routes["/hconf/csr1"] == [(1, 2.0), (2, 12.0)]
    assert routes["/hconf/csr2"][0] == (2, 2.0)
    assert routes["/hconf"] == [(1, 2.0), (2, 2.0)]  # whatever else there may be, over its own link
    assert routes["/hconf-data"] == routes["/hconf"]
    own = {"/hconf/ue1", "/hconf-data/ue1"}
    asked = {"/hconf/login", *(f"/hconf/{csr}" for csr in topology.csrs)}
    assert set(routes) == {"/hconf", "/hconf-data", *own, *asked}
    for name in ("csr1", "csr2", "csr3", "login"):
        assert routes[f"/hconf/{name}"][0][1] == pytest.approx(delays_ms["ue1"][name])
    for router in (*topology.cores, *topology.csrs):
        at_router = configs[f"{router}.forwarder"].forwarder
        assert at_router is not None
        ues = {face.face_id: face.peer for face in at_router.faces if face.peer in topology.ues}
        for route in at_router.routes:  # a UE carries nobody else's packets
            assert {ues[hop.face_id] for hop in route.next_hops if hop.face_id in ues} <= {
                route.prefix.rpartition("/")[2]
            }


def test_proxies_are_ranked_by_path_delay_over_whichever_link() -> None:
    topology = build("tiers", {"cores": 8, "csrs": 8, "ues_per_csr": 1, "ue_links": 3})
    single = build("tiers", {"cores": 8, "csrs": 8, "ues_per_csr": 1})
    assert ranked_proxies(topology)["ue1"][:3] == ("csr1", "csr2", "csr3")
    assert ranked_proxies(single)["ue1"][:3] == ("csr1", "csr2", "csr8")


def test_the_parts_of_a_csr_meet_at_one_socket(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    sockets = set()
    for csr in abilene.csrs:
        forwarder, proxy = configs[f"{csr}.forwarder"].forwarder, configs[f"{csr}.proxy"].proxy
        assert forwarder is not None
        assert proxy is not None
        assert forwarder.service_socket == proxy.forwarder_socket
        sockets.add(proxy.forwarder_socket)
    assert len(sockets) == len(abilene.csrs)


def test_the_login_server_knows_every_device_by_its_key(abilene: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(abilene), tmp_path)
    (login_name,) = abilene.login_servers
    login = configs[f"{login_name}.forwarder"].login
    assert login is not None

    assert set(login.devices) == set(abilene.ues) == set(login.ranked_proxies)
    for ue in abilene.ues:
        client = configs[f"{ue}.forwarder"].client
        assert client is not None
        assert Signer(bytes.fromhex(client.key_seed_hex)).public_key.hex() == login.devices[ue]
        assert client.login_server == login_name
    for csr in abilene.csrs:
        proxy = configs[f"{csr}.proxy"].proxy
        assert proxy is not None
        assert proxy.login_public_key_hex == Signer(bytes.fromhex(login.key_seed_hex)).public_key.hex()


def test_a_ues_own_csr_comes_first_though_another_is_as_near() -> None:
    properties = LinkProperties(delay_ms=0.0)
    links = [Link.between("csrB", "csrA", "core", properties), Link.between("ue1", "csrB", "access", properties)]
    nodes = (Node("csrA", "csr"), Node("csrB", "csr"), Node("ue1", "ue"))
    assert ranked_proxies(Topology("two csrs", nodes, tuple(links))) == {"ue1": ("csrB", "csrA")}


def test_keys_and_seeds_follow_the_runs_seed(abilene: Topology) -> None:
    assert build_node_configs(plan_of(abilene)) == build_node_configs(plan_of(abilene))
    assert device_key_seed(7, "ue1") != device_key_seed(8, "ue1")
    assert device_key_seed(7, "ue1") != device_key_seed(7, "ue2")


def test_settings_override_single_fields(abilene: Topology, tmp_path: Path) -> None:
    liveness = {"desired_min_tx_s": 0.05, "detect_mult": 4}
    plan = plan_of(
        abilene,
        mode="pull",
        conference="standup",
        forwarder_settings={"liveness": liveness},
        proxy_settings={"armed_max": 3},
        client_settings={"window_max": 9},
        login_settings={"token_lifetime_s": 60.0},
    )
    configs = validated(plan, tmp_path)
    csr, ue, login = abilene.csrs[0], abilene.ues[0], abilene.login_servers[0]
    forwarder, proxy = configs[f"{csr}.forwarder"].forwarder, configs[f"{csr}.proxy"].proxy
    client, login_section = configs[f"{ue}.forwarder"].client, configs[f"{login}.forwarder"].login
    assert forwarder is not None
    assert proxy is not None
    assert client is not None
    assert login_section is not None
    assert forwarder.liveness.detect_mult == 4
    assert (proxy.mode, proxy.armed_max) == ("pull", 3)
    assert (client.conference, client.window_max) == ("standup", 9)
    assert login_section.token_lifetime_s == 60.0


@pytest.fixture(scope="module")
def edge() -> Topology:
    parameters = {"cores": 3, "csrs": 1, "ues_per_csr": 1, "edge_networks": 1, "ues_per_edge_network": 2}
    return build("tiers", {**parameters, "proxy_ues": ["ue3"]})


def test_a_proxy_ue_tells_its_client_and_its_proxy_apart_by_name(edge: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(edge), tmp_path)
    forwarder = configs["ue3.forwarder"].forwarder
    assert forwarder is not None
    assert {route.prefix: [hop.face_id for hop in route.next_hops] for route in forwarder.routes} == {
        "/hconf/ue3": [-1],
        "/hconf/ue3/32=notify": [0],
        "/hconf/ue3/32=heartbeat": [0],
        "/hconf/32=all": [-1, 1],
        "/hconf": [1],
        "/hconf-data/ue3": [0],
        "/hconf-data": [1],
    }
    assert {to_uri(keyword_) for keyword_ in TO_CLIENTS} == {f"/{word}" for word in CLIENT_KEYWORDS}


def test_a_proxy_ue_hears_what_goes_to_all_proxies(edge: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(edge), tmp_path)
    forwarder = configs["edge1.forwarder"].forwarder
    assert forwarder is not None
    peers = {face.face_id: face.peer for face in forwarder.faces}
    (to_all,) = [route for route in forwarder.routes if route.prefix == "/hconf/32=all"]
    assert {peers[hop.face_id] for hop in to_all.next_hops} == {"core2", "core3", "ue3"}
    neighbour = configs["ue2.forwarder"].forwarder
    assert neighbour is not None
    assert [route.prefix for route in neighbour.routes] == ["/hconf/ue2", "/hconf-data/ue2", "/hconf", "/hconf-data"]


def test_a_proxy_ue_runs_a_proxy_under_its_own_key(edge: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(edge), tmp_path)
    assert {name for name in configs if name.endswith(".proxy")} == {"csr1.proxy", "ue3.proxy"}
    proxy, client = configs["ue3.proxy"].proxy, configs["ue3.forwarder"].client
    forwarder = configs["ue3.forwarder"].forwarder
    assert proxy is not None
    assert client is not None
    assert forwarder is not None
    assert proxy.key_seed_hex == client.key_seed_hex
    assert proxy.forwarder_socket == forwarder.service_socket
    assert client.own_proxy
    assert set(proxy.proxy_keys) == set(client.proxy_keys) == {"csr1", "ue3"}
    assert proxy.proxy_keys["ue3"] == public_key_hex(device_key_seed(7, "ue3"))
    others = [configs[f"{ue}.forwarder"].client for ue in ("ue1", "ue2")]
    assert [other is not None and other.own_proxy for other in others] == [False, False]


def test_the_proxy_ue_comes_first_in_its_network_and_for_itself(edge: Topology) -> None:
    assert ranked_proxies(edge) == {"ue1": ("csr1", "ue3"), "ue2": ("ue3", "csr1"), "ue3": ("ue3", "csr1")}


def test_a_proxy_ue_has_the_pit_share_of_a_router(edge: Topology, tmp_path: Path) -> None:
    configs = validated(plan_of(edge), tmp_path)
    forwarder = configs["edge1.forwarder"].forwarder
    assert forwarder is not None
    shares = {face.peer: face.pit_share_ratio for face in forwarder.faces}
    assert shares["ue3"] == shares["core2"] > shares["ue2"]


def test_a_face_knows_rate_and_mtu_of_what_it_sends(tmp_path: Path) -> None:
    topology = build("tiers", {"csrs": 1, "ues_per_csr": 1})
    narrow = LinkProperties(delay_ms=2.0, rate_mbps=1.0, mtu_bytes=1_280)
    configs = validated(plan_of(topology.with_properties({}, {"csr1-ue1": narrow})), tmp_path)
    for node, sent in (("ue1", (1.0, 1_280)), ("csr1", (None, 1_500))):
        forwarder = configs[f"{node}.forwarder"].forwarder
        assert forwarder is not None
        (face,) = [face for face in forwarder.faces if face.link == "csr1-ue1"]
        assert (face.rate_mbps, face.mtu_bytes) == sent


@pytest.mark.parametrize("measures", [False, True])
def test_nodes_measure_their_processing_where_the_plan_says_so(tmp_path: Path, *, measures: bool) -> None:
    configs = validated(plan_of(build("tiers", {}), measures_processing=measures), tmp_path)
    assert {config.measures_processing for config in configs.values()} == {measures}
