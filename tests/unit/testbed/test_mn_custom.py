from __future__ import annotations

import pytest

from testbed.emulation.mn_custom import tc_options, topos
from topologies.catalogue import build
from topologies.errors import InputError
from topologies.model import LinkProperties


def test_mn_gets_the_same_nodes_and_links() -> None:
    topology = build("topozoo/Abilene", {"csrs": 2})
    for_mininet = topos["hconf"]("topozoo/Abilene", csrs=2)
    assert set(for_mininet.hosts()) == {node.name for node in topology.nodes}
    assert {frozenset(ends) for ends in for_mininet.links()} == {frozenset((link.a, link.b)) for link in topology.links}
    assert for_mininet.linkInfo("Chicago", "NewYork")["delay"] == "5.7308ms"


def test_an_unknown_topology_is_refused() -> None:
    with pytest.raises(InputError, match="not a known topology"):
        topos["hconf"]("nowhere")


def test_a_rate_is_handed_on_only_where_there_is_one() -> None:
    assert tc_options(LinkProperties(rate_mbps=10.0))["bw"] == 10.0
    assert "bw" not in tc_options(LinkProperties())
