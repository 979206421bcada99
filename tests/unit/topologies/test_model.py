from __future__ import annotations

import pytest

from topologies.errors import CapabilityError, HconfError, InputError, nearest, pick_one_of
from topologies.model import Link, LinkProperties, Node, Topology

A, B, C = Node("a", "core"), Node("b", "core"), Node("c", "csr")


def link(a: str, b: str, tier: str = "core", delay_ms: float = 1.0) -> Link:
    return Link.between(a, b, tier, LinkProperties(delay_ms=delay_ms))  # type: ignore[arg-type]


LINE = Topology("line", (A, B, C, Node("ue1", "ue")), (link("a", "b"), link("b", "c"), link("c", "ue1", "access")))


def test_nodes_and_links_are_found_by_name() -> None:
    assert LINE.node("c").role == "csr"
    assert LINE.link("a-b") is LINE.link("b-a") is LINE.links[0]
    assert [found.name for found in LINE.links_of("c")] == ["b-c", "c-ue1"]
    assert (LINE.cores, LINE.csrs, LINE.ues, LINE.login_servers) == (("a", "b"), ("c",), ("ue1",), ())
    assert LINE.csr_of("ue1") == "c"
    assert LINE.links[0].other_end("a") == "b"


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(InputError, match=r"no node `ue2`.*did you mean `ue1`"):
        LINE.node("ue2")
    with pytest.raises(InputError, match=r"no link `ue1-d`.*did you mean `ue1-c`"):
        LINE.link("ue1-d")
    with pytest.raises(InputError, match="`c` is a node; its links are `b-c`, `c-ue1`"):
        LINE.link("c")


def test_wrong_questions_are_bugs_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not an end"):
        LINE.links[0].other_end("c")
    with pytest.raises(ValueError, match="not a UE"):
        LINE.csr_of("c")


def test_properties_are_replaced_without_touching_the_rest() -> None:
    changed = LINE.with_properties({"a-b": LinkProperties(delay_ms=9.0)})
    assert changed.link("a-b").properties.delay_ms == 9.0
    assert changed.links[1:] == LINE.links[1:]
    assert LINE.link("a-b").properties.delay_ms == 1.0


@pytest.mark.parametrize(
    ("nodes", "links", "problem"),
    [
        ((), (), "has no nodes"),
        ((A, A), (), "used twice"),
        ((Node("New York", "core"),), (), "cannot be a host name"),
        ((Node("x" * 33, "core"),), (), "cannot be a host name"),
        ((A, B), (link("a", "x"),), "ends at `x`"),
        ((A, B), (link("a", "b"), link("b", "b")), "joins a node to itself"),
        ((A, B), (link("a", "b"), link("b", "a")), "two links join"),
        ((A, B), (Link("x-y", "a", "b", "core"),), "name it a-b"),
        ((A, B, C), (link("a", "b"),), "disconnected: no path through routers joins c to a"),
        ((A, Node("ue1", "ue"), B), (link("a", "ue1", "access"), link("b", "ue1", "access")), "disconnected"),
        ((Node("ue1", "ue"), Node("ue2", "ue")), (link("ue1", "ue2", "access"),), "joins ue1, ue2 to each other"),
    ],
)
def test_an_unsound_topology_is_refused(nodes: tuple[Node, ...], links: tuple[Link, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Topology("bad", nodes, links)


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_ms": -1.0},
        {"delay_ms": float("nan")},
        {"jitter_ms": float("inf")},
        {"loss_ratio": 1.5},
        {"rate_mbps": 0.0},
        {"queue_packets": 0},
    ],
)
def test_impossible_link_properties_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinkProperties(**wrong)  # type: ignore[arg-type]


def test_errors_say_where_what_and_how_to_mend() -> None:
    error = InputError(where="a.toml:3", problem="wrong", remedy="right")
    assert str(error) == "a.toml:3: wrong (fix: right)"
    assert (HconfError.exit_code, InputError.exit_code, CapabilityError.exit_code) == (2, 2, 3)


def test_only_names_about_as_near_as_the_nearest_are_suggested() -> None:
    assert nearest("Chicago-NewYrk", ["Chicago-ue6", "Chicago-NewYork"]) == ["Chicago-NewYork"]
    assert nearest("zzz", ["Chicago-NewYork"]) == []
    assert pick_one_of("zzz", []) == "leave it out: nothing can stand here"
    assert pick_one_of("zzz", "abcdefghij") == "use one of `a`, `b`, `c`, `d`, `e`, `f`, `g`, `h` and 2 more"
