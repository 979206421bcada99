from __future__ import annotations

import math

import pytest

from testbed.routing import path_delays_ms, ranked_next_hops
from topologies.catalogue import build
from topologies.model import Link, LinkProperties, Node, Topology

ABILENE = build("topozoo/Abilene", {"csr_nodes": ["NewYork", "Chicago"], "ues_per_csr": 1})
DIRECT_MS = 5.7308
ROUND_ABOUT_MS = 1.6429 + 4.36085 + 3.439 + 1.317  # Washington, Atlanta, Indianapolis


def test_path_delay_is_the_sum_along_the_shortest_path() -> None:
    delays_ms = path_delays_ms(ABILENE)
    assert delays_ms["NewYork"]["Chicago"] == pytest.approx(DIRECT_MS)
    assert delays_ms["ue1"]["ue2"] == pytest.approx(2.0 + DIRECT_MS + 2.0)
    assert delays_ms["ue1"]["ue1"] == 0.0
    assert delays_ms["ue2"]["login"] == delays_ms["login"]["ue2"]


def test_path_delay_without_a_link_is_that_of_the_way_round() -> None:
    delays_ms = path_delays_ms(ABILENE, without=frozenset({"Chicago-NewYork"}))
    assert delays_ms["NewYork"]["Chicago"] == pytest.approx(ROUND_ABOUT_MS)
    assert delays_ms["Denver"]["Seattle"] == path_delays_ms(ABILENE)["Denver"]["Seattle"]


def test_what_is_cut_off_is_infinitely_far() -> None:
    delays_ms = path_delays_ms(ABILENE, without=frozenset({"NewYork-ue1"}))
    assert delays_ms["ue1"]["ue2"] == delays_ms["ue2"]["ue1"] == math.inf
    assert delays_ms["ue1"]["ue1"] == 0.0


def test_next_hops_are_ranked_by_the_way_that_does_not_come_back() -> None:
    row = ranked_next_hops(ABILENE)["NewYork"]
    assert [hop for hop, _ in row["Chicago"]] == ["Chicago", "WashingtonDC"]
    assert [cost_ms for _, cost_ms in row["Chicago"]] == pytest.approx([DIRECT_MS, ROUND_ABOUT_MS])
    assert row["ue1"] == [("ue1", 2.0)]
    assert [hop for hop, _ in row["ue2"]] == ["Chicago", "WashingtonDC"]
    assert "NewYork" not in row
    assert "Denver" not in row  # a core router is nobody's destination


def test_a_ue_has_one_way_out() -> None:
    assert "ue1" not in ranked_next_hops(ABILENE), "there is nothing to rank"
    table = ranked_next_hops(ABILENE, ABILENE.csrs)
    assert {tuple(hop for hop, _ in hops) for hops in table["ue1"].values()} == {("NewYork",)}


def test_a_ue_with_two_links_never_carries_what_is_not_its_own() -> None:
    nodes = (Node("a", "csr"), Node("b", "csr"), Node("ue1", "ue"), Node("ue2", "ue"))
    fast, slow = LinkProperties(delay_ms=1.0), LinkProperties(delay_ms=50.0)
    links = (
        Link.between("a", "b", "core", slow),
        Link.between("a", "ue1", "access", fast),
        Link.between("b", "ue1", "access", fast),
        Link.between("b", "ue2", "access", fast),
    )
    topology = Topology("two-homed", nodes, links)
    assert path_delays_ms(topology)["a"]["b"] == 50.0
    table = ranked_next_hops(topology)
    assert table["a"]["b"] == [("b", 50.0)]
    assert table["a"]["ue1"] == [("ue1", 1.0), ("b", 51.0)]
    assert table["ue1"]["ue2"] == [("b", 2.0), ("a", 52.0)]


def test_directions_of_different_delay_are_different_ways() -> None:
    """From ue1 it is short by way of a, to ue1 by way of b; each hop costs what its sender is delayed by."""
    near, far = LinkProperties(delay_ms=1.0), LinkProperties(delay_ms=10.0)
    nodes = (Node("a", "csr"), Node("b", "csr"), Node("c", "csr"), Node("ue1", "ue"), Node("ue2", "ue"))
    links = (
        Link("a-c", "a", "c", "core", near, back=far),
        Link("b-c", "b", "c", "core", far, back=near),
        Link("a-ue1", "a", "ue1", "access", far, back=near),
        Link("b-ue1", "b", "ue1", "access", near, back=far),
        Link("c-ue2", "c", "ue2", "access", LinkProperties(delay_ms=3.0), back=LinkProperties(delay_ms=5.0)),
    )
    topology = Topology("one-way", nodes, links)
    delays_ms = path_delays_ms(topology)
    assert delays_ms["ue1"]["ue2"] == 1.0 + 1.0 + 3.0
    assert delays_ms["ue2"]["ue1"] == 5.0 + 1.0 + 1.0
    assert (delays_ms["ue1"]["c"], delays_ms["c"]["ue1"]) == (2.0, 2.0)
    assert (delays_ms["a"]["b"], delays_ms["b"]["a"]) == (1.0 + 1.0, 10.0 + 10.0)
    table = ranked_next_hops(topology)
    assert table["ue1"]["ue2"] == [("a", 5.0), ("b", 23.0)]
    assert table["c"]["ue1"] == [("b", 2.0), ("a", 20.0)]
    assert table["a"]["ue1"] == [("c", 3.0), ("ue1", 10.0)]
