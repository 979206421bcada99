from __future__ import annotations

from collections import Counter

import pytest

from topologies.catalogue import build, list_names, parameters_type
from topologies.errors import InputError, ParameterError
from topologies.tiers import TiersParameters
from topologies.topohub_source import TopohubParameters, topohub_names, topology_from_graph


def graph(names: list[str | None], edges: list[tuple[int, int, float]]) -> dict[str, object]:
    return {
        "nodes": [{"id": index, "name": name, "pos": [index, 0.5]} for index, name in enumerate(names)],
        "edges": [{"source": a, "target": b, "dist": dist} for a, b, dist in edges],
    }


def test_every_collection_is_listed() -> None:
    names = list_names()
    assert names[0] == "tiers"
    assert {"topozoo/Abilene", "sndlib/germany50", "backbone/europe", "gabriel/25/0"} <= set(names)
    assert names.index("gabriel/5/0") < names.index("gabriel/10/0")


#: Of SNDlib, with places in pixels.
DRAWN = tuple(
    f"sndlib/{name}" for name in (
        "atlanta", "di-yuan", "france", "giul39", "india35", "newyork", "norway", "pioro40", "sun", "ta1", "ta2", "zib54",
    )
)  # fmt: skip


@pytest.mark.parametrize("collection", ["topozoo", "sndlib"])
def test_every_network_of_the_real_world_builds(collection: str) -> None:
    names = [name for name in topohub_names() if name.startswith(collection)]
    assert names
    for name in names:
        topology = build(name, {"default_delay_ms": 3.0} if name in DRAWN else {})
        assert max(link.properties.delay_ms for link in topology.links) < 100, "half-way round the earth"
        assert len(topology.csrs) == min(4, len(topology.csrs + topology.cores))
        assert len(topology.ues) == 3 * len(topology.csrs)
        assert len(topology.login_servers) == 1


def test_where_the_places_are_those_of_a_drawing_nobody_makes_up_delays() -> None:
    """topohub reckons pixels as degrees: links of up to 19,000 km, a delay of 95 ms."""
    for name in DRAWN:
        with pytest.raises(InputError, match="places in a drawing, not on the earth"):
            build(name)
    topology = build("sndlib/zib54", {"default_delay_ms": 0.5})
    assert {link.properties.delay_ms for link in topology.links if link.tier == "core"} == {0.5}
    assert {topology.node(name).position for name in topology.cores} == {None}
    with pytest.raises(InputError, match="the lengths of its links are known"):
        build("sndlib/germany50", {"default_delay_ms": 0.5})
    assert build("gabriel/25/0").link("R0-R16").properties.delay_ms == pytest.approx(127.58 * 0.005)


def test_abilene_has_its_cities_and_fibre_delays() -> None:
    topology = build("topozoo/Abilene", {"csr_nodes": ["NewYork", "Chicago"], "ues_per_csr": 2})
    assert len(topology.cores) + len(topology.csrs) == 11
    assert topology.csrs == ("NewYork", "Chicago")  # in the order that was asked for
    chicago_new_york = topology.link("NewYork-Chicago")
    assert chicago_new_york.name == "Chicago-NewYork"
    assert chicago_new_york.properties.delay_ms == pytest.approx(1146.16 * 0.005)
    assert topology.node("Chicago").position == (-87.65, 41.85)
    assert [topology.csr_of(ue) for ue in topology.ues] == ["NewYork", "NewYork", "Chicago", "Chicago"]


def test_csrs_and_login_server_take_the_highest_degrees_ties_by_name() -> None:
    topology = build("topozoo/Abilene", {"csrs": 4})
    assert topology.csrs == ("Atlanta", "Denver", "Houston", "Indianapolis")
    assert topology.links_of("login")[0].other_end("login") == "KansasCity"
    everywhere = build("topozoo/Abilene", {"csrs": 11})
    assert everywhere.cores == ()
    assert everywhere.links_of("login")[0].other_end("login") == "Atlanta"
    assert build("topozoo/Abilene", {"login_node": "Seattle"}).link("login-Seattle").tier == "login"


def test_ues_with_several_links_have_their_own_csr_first() -> None:
    plain, topology = (
        build("tiers", {"csrs": 3, "ues_per_csr": 2}),
        build("tiers", {"csrs": 3, "ues_per_csr": 2, "ue_links": 3}),
    )
    homes = {ue: [link.other_end(ue) for link in topology.links_of(ue)] for ue in topology.ues}
    assert homes["ue1"] == homes["ue2"] == ["csr1", "csr2", "csr3"]
    assert homes["ue5"] == ["csr3", "csr1", "csr2"]
    assert [topology.csr_of(ue) for ue in topology.ues] == [plain.csr_of(ue) for ue in plain.ues]
    assert {link.tier for ue in topology.ues for link in topology.links_of(ue)} == {"access"}
    assert set(plain.links) < set(topology.links)


def test_further_links_lead_to_the_nearest_other_csrs() -> None:
    cities = ["Seattle", "NewYork", "Chicago", "LosAngeles"]
    topology = build("topozoo/Abilene", {"csr_nodes": cities, "ues_per_csr": 1, "ue_links": 2})
    homes = [tuple(link.other_end(ue) for link in topology.links_of(ue)) for ue in topology.ues]
    assert homes == [
        ("Seattle", "LosAngeles"),
        ("NewYork", "Chicago"),
        ("Chicago", "NewYork"),
        ("LosAngeles", "Seattle"),
    ]


def test_the_same_name_gives_the_same_network() -> None:
    assert build("sndlib/germany50") == build("sndlib/germany50", TopohubParameters())


def test_names_become_unique_host_names() -> None:
    names = ["New York", None, "new-york", "ue7", "login", "Köln", "New York"]
    topology = topology_from_graph(
        "mine", graph(names, [(0, index, 100) for index in range(1, 7)]), TopohubParameters(csrs=1)
    )
    routers = [node.name for node in topology.nodes if node.role in ("core", "csr")]
    assert sorted(routers) == ["Koln", "NewYork", "NewYork_2", "NewYork_3", "n1", "nLogin", "nUe7"]


def test_parallel_links_become_the_shortest_and_loops_go() -> None:
    topology = topology_from_graph(
        "mine", graph(["a", "b"], [(0, 1, 900), (1, 0, 300), (0, 1, 600), (0, 0, 1)]), TopohubParameters(csrs=1)
    )
    core = [link for link in topology.links if link.tier == "core"]
    assert [(link.name, link.properties.delay_ms) for link in core] == [("A-B", 1.5)]


def test_a_disconnected_network_is_refused() -> None:
    with pytest.raises(InputError, match="mine: it is disconnected: no path through routers joins C"):
        topology_from_graph("mine", graph(["a", "b", "c"], [(0, 1, 1)]), TopohubParameters(csrs=1))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("topozoo/Abilen", "did you mean `topozoo/Abilene`?"),
        ("abilene", "did you mean `sndlib/abilene` or `topozoo/Abilene`?"),
        ("tier", "did you mean `tiers`?"),
        ("../../etc/passwd", "such as `topozoo/Abilene`"),
        ("", "such as `topozoo/Abilene`"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        parameters_type(name)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "parameters", "key", "problem"),
    [
        ("topozoo/Abilene", {"csrs": 12}, "csrs", "do not fit on its 11 nodes"),
        ("topozoo/Abilene", {"csrs": 1, "csr_nodes": ["Chicago", "Seattle"]}, "csrs", "names 2"),
        ("topozoo/Abilene", {"csr_nodes": ["New York"]}, "csr_nodes", "no node `New York`"),
        ("topozoo/Abilene", {"csr_nodes": ["Chicago", "Chicago"]}, "csr_nodes", "named twice"),
        ("topozoo/Abilene", {"login_node": "Boston"}, "login_node", "no node `Boston`"),
        ("topozoo/Abilene", {"ues_per_csr": 500_000}, "ues_per_csr", "too many for the address plan"),
        ("tiers", {"csrs": 10_000, "ues_per_csr": 1_000_000}, "ues_per_csr", "too many for the address plan"),
        ("tiers", {"csrs": 2, "ue_links": 3}, "ue_links", "attached to 3 of 2 CSRs"),
        ("topozoo/Abilene", {"csr_nodes": ["Chicago"], "ue_links": 2}, "ue_links", "attached to 2 of 1 CSRs"),
        ("tiers", {"csrs": 16, "ues_per_csr": 10_000, "ue_links": 4}, "ues_per_csr", "640039 links are too many"),
        ("tiers", {"cores": 4, "core_degree": 4}, "core_degree", "cannot have 4 links"),
        ("tiers", {"cores": 3, "csr_uplinks": 4}, "csr_uplinks", "uplinks to 4 of 3"),
        ("tiers", {"login_node": "core9"}, "login_node", "no router `core9`"),
    ],
)
def test_wrong_parameters_name_their_key(name: str, parameters: dict[str, object], key: str, problem: str) -> None:
    with pytest.raises(ParameterError, match=problem) as caught:
        build(name, parameters)
    assert caught.value.key == key


def test_parameters_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match="its parameters are cores, core_degree"):
        build("tiers", {"core": 3})
    with pytest.raises(TypeError, match="takes TiersParameters"):
        build("tiers", TopohubParameters())


@pytest.mark.parametrize("cores", [3, 4, 5, 8, 9])
def test_tiers_is_multi_connected_everywhere(cores: int) -> None:
    for core_degree in range(2, cores):
        topology = build("tiers", TiersParameters(cores=cores, core_degree=core_degree, csrs=cores + 1))
        degrees = Counter(end for link in topology.links if link.tier == "core" for end in (link.a, link.b))
        assert min(degrees.values()) >= core_degree
        assert max(degrees.values()) <= core_degree + 1
        for csr in topology.csrs:
            assert len({link.other_end(csr) for link in topology.links_of(csr) if link.tier == "uplink"}) == 2
