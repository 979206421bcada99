from __future__ import annotations

import pytest

from topologies.catalogue import build
from topologies.errors import InputError, ParameterError
from topologies.model import Link, LinkProperties, Node, Topology

EDGE = {"cores": 3, "csrs": 1, "ues_per_csr": 2, "edge_networks": 2}


def test_tiers_with_networks_without_a_csr() -> None:
    topology = build("tiers", {**EDGE, "ues_per_edge_network": 2})
    assert topology.node("edge1").role == topology.node("edge2").role == "core"
    assert {link.other_end("edge1") for link in topology.links_of("edge1")} == {"core2", "core3", "ue3", "ue4"}
    assert topology.ues == ("ue1", "ue2", "ue3", "ue4", "ue5", "ue6")
    assert topology.proxy_ues == ("ue3", "ue5")
    assert topology.proxies == ("csr1", "ue3", "ue5")
    assert [topology.proxy_of(ue) for ue in topology.ues] == ["csr1", "csr1", "ue3", "ue3", "ue5", "ue5"]
    assert {topology.link(f"edge1-{ue}").tier for ue in ("ue3", "ue4")} == {"access"}


def test_real_networks_with_networks_without_a_csr() -> None:
    parameters = {"csr_nodes": ["NewYork"], "ues_per_csr": 1, "edge_nodes": ["Denver", "Seattle"]}
    topology = build("topozoo/Abilene", {**parameters, "proxy_ues": ["ue6", "ue4"]})
    assert topology.node("Denver").role == "core"
    assert [ue for ue in topology.ues if topology.csr_of(ue) == "Seattle"] == ["ue5", "ue6", "ue7"]
    assert topology.proxy_ues == ("ue4", "ue6")
    assert topology.proxy_of("ue7") == "ue6"


def test_csrs_chosen_by_degree_leave_edge_nodes_out() -> None:
    usual = build("topozoo/Abilene", {"csrs": 2}).csrs
    topology = build("topozoo/Abilene", {"csrs": 2, "edge_nodes": [usual[0]]})
    assert usual[0] not in topology.csrs
    assert len(topology.csrs) == 2


def test_without_them_nothing_has_changed() -> None:
    assert build("tiers", {"edge_networks": 0}) == build("tiers")
    assert build("tiers").proxy_ues == ()


@pytest.mark.parametrize(
    ("name", "parameters", "key", "problem", "remedy"),
    [
        (
            "tiers",
            {**EDGE, "proxy_ues": ["ue1", "ue6"]},
            "proxy_ues",
            "`ue1` is no UE of a network without",
            "ue3 to ue8",
        ),
        (
            "tiers",
            {**EDGE, "proxy_ues": ["ue33", "ue6"]},
            "proxy_ues",
            "`ue33` is no UE of a network without",
            "ue3 to ue8",
        ),
        ("tiers", {**EDGE, "proxy_ues": ["ue3"]}, "proxy_ues", "no UE of the network behind edge2", "ue6 to ue8"),
        ("tiers", {**EDGE, "proxy_ues": ["ue3", "ue4"]}, "proxy_ues", "ue3 and ue4 are neighbours", "ue3 to ue5"),
        ("tiers", {**EDGE, "proxy_ues": ["ue6", "ue6"]}, "proxy_ues", "`ue6` is named twice", "ue6 to ue8"),
        ("tiers", {"proxy_ues": ["ue1"]}, "proxy_ues", "every network has a CSR", "leave it out"),
        ("tiers", {"ues_per_edge_network": 2}, "ues_per_edge_network", "every network has a CSR", "leave it out"),
        ("topozoo/Abilene", {"edge_nodes": ["Denvr"]}, "edge_nodes", "no node `Denvr`", "`Denver`"),
        ("topozoo/Abilene", {"edge_nodes": ["Denver"] * 2}, "edge_nodes", "named twice", "once"),
        (
            "topozoo/Abilene",
            {"csr_nodes": ["Denver"], "edge_nodes": ["Denver"]},
            "edge_nodes",
            "`Denver` is a CSR",
            "one of them",
        ),
        ("topozoo/Abilene", {"csrs": 11, "edge_nodes": ["Denver"]}, "csrs", "1 of which are edge_nodes", "at most 10"),
        (
            "tiers",
            {"cores": 3, "edge_networks": 10_000, "ues_per_edge_network": 10_000},
            "ues_per_csr",
            "too many for the address plan",
            "lower",
        ),
    ],
)
def test_wrong_parameters_name_their_key(
    name: str, parameters: dict[str, object], key: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        build(name, parameters)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def line(*ues: Node, router: str = "core1") -> Topology:
    nodes = (Node("csr1", "csr"), Node("core1", "core"), *ues)
    links = [Link.between("csr1", "core1", "core", LinkProperties())]
    links += [Link.between(router, ue.name, "access", LinkProperties()) for ue in ues]
    return Topology("line", nodes, tuple(links))


def test_a_network_is_served_by_exactly_one() -> None:
    proxy, other = Node("ue1", "ue", is_proxy=True), Node("ue2", "ue")
    assert line(proxy, other).proxy_of("ue2") == "ue1"
    with pytest.raises(InputError, match="`ue2`, behind core1, has neither a CSR nor a proxy UE"):
        line(other)
    with pytest.raises(InputError, match="ue1 and ue3 are both proxy UEs of the network behind core1"):
        line(proxy, other, Node("ue3", "ue", is_proxy=True))
    with pytest.raises(InputError, match="the proxy UE `ue1` is behind csr1, a CSR"):
        line(proxy, router="csr1")
    with pytest.raises(InputError, match="`core2`, a core, is marked as a proxy UE"):
        Topology(
            "wrong",
            (Node("csr1", "csr"), Node("core2", "core", is_proxy=True)),
            (Link.between("csr1", "core2", "core", LinkProperties()),),
        )
