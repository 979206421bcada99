"""Whatever the network: first next hops lead there on the shortest path, and every next hop is what it says."""

from __future__ import annotations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.addresses import AddressPlan
from testbed.routing import path_delays_ms, ranked_next_hops
from topologies.attach import attach_login_server, attach_ues, nearest_csrs
from topologies.model import Link, LinkProperties, Node, Topology

#: Few values, zero among them, so that ties are common.
DELAYS_MS = st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 2.5])


@st.composite
def topologies(draw: st.DrawFn, *, ue_links_max: int = 1) -> Topology:
    """Draw a connected router graph: a random tree and random further links, some routers CSRs with UEs."""
    count = draw(st.integers(2, 8))
    pairs = {(draw(st.integers(0, b - 1)), b) for b in range(1, count)}
    more = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    pairs |= draw(st.sets(more, max_size=8))
    csrs = sorted(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=3)))
    routers = [Node(f"r{index}", "csr" if index in csrs else "core") for index in range(count)]
    links = [Link.between(f"r{a}", f"r{b}", "core", LinkProperties(delay_ms=draw(DELAYS_MS))) for a, b in sorted(pairs)]
    names = [f"r{index}" for index in csrs]
    ue_links = draw(st.integers(1, min(ue_links_max, len(csrs))))
    others = nearest_csrs(names, links, count=ue_links - 1)
    ues, access_links = attach_ues(dict.fromkeys(names, draw(st.integers(1, 2))), others=others)
    login, login_link = attach_login_server(f"r{draw(st.integers(0, count - 1))}")
    return Topology("drawn", (*routers, *ues, login), (*links, *access_links, login_link))


def as_graph(topology: Topology, *, leave_out: str | None = None) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(node.name for node in topology.nodes if node.name != leave_out)
    graph.add_weighted_edges_from(
        (link.a, link.b, round(link.properties.delay_ms * 1e6))
        for link in topology.links
        if leave_out not in (link.a, link.b)
    )
    return graph


@settings(max_examples=150)
@given(topologies())
def test_path_delays_agree_with_networkx(topology: Topology) -> None:
    expected = dict(nx.all_pairs_dijkstra_path_length(as_graph(topology)))
    assert path_delays_ms(topology) == {
        a: {b: delay_ns / 1e6 for b, delay_ns in row.items()} for a, row in expected.items()
    }


@settings(max_examples=150)
@given(topologies(ue_links_max=3))
def test_following_the_first_next_hop_arrives_on_the_shortest_path(topology: Topology) -> None:
    delays_ms = path_delays_ms(topology)
    table = ranked_next_hops(topology)
    for source, row in table.items():
        for destination, hops in row.items():
            assert hops[0][1] == delays_ms[source][destination]
            here, visited = source, {source}
            while here != destination:
                here = table[here][destination][0][0]
                assert here not in visited, "a forwarding loop"
                assert here == destination or topology.node(here).role in ("core", "csr"), "through somebody's UE"
                visited.add(here)


@settings(max_examples=150)
@given(topologies())
def test_every_next_hop_avoids_the_node_and_costs_what_it_says(topology: Topology) -> None:
    for source, row in ranked_next_hops(topology).items():
        graph = as_graph(topology, leave_out=source)
        for destination, hops in row.items():
            assert [cost_ms for _, cost_ms in hops] == sorted(cost_ms for _, cost_ms in hops)
            neighbours = {link.other_end(source): link.properties.delay_ms for link in topology.links_of(source)}
            usable = {
                n for n in neighbours if nx.has_path(graph, n, destination) and may_carry(topology, n, destination)
            }
            assert {neighbour for neighbour, _ in hops} == usable
            for neighbour, cost_ms in hops:
                beyond_ns = nx.dijkstra_path_length(graph, neighbour, destination)
                assert round(cost_ms * 1e6) == round(neighbours[neighbour] * 1e6) + beyond_ns


@settings(max_examples=50)
@given(topologies())
def test_no_two_ends_share_an_address_a_mac_or_an_interface(topology: Topology) -> None:
    plan = AddressPlan.of(topology)
    ends = plan.ends.values()
    assert len(plan.ends) == 2 * len(topology.links)
    assert len({end.address for end in ends}) == len({end.mac for end in ends}) == len(plan.ends)
    assert len({(node, end.intf) for (_, node), end in plan.ends.items()}) == len(plan.ends)
    assert all(len(end.intf) <= 15 for end in ends)


def may_carry(topology: Topology, neighbour: str, destination: str) -> bool:
    return neighbour == destination or topology.node(neighbour).role in ("core", "csr")
