from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from testbed.addresses import AddressPlan
from topologies.catalogue import build
from topologies.errors import InputError

ABILENE = build("topozoo/Abilene")


def test_both_ends_of_a_link_share_a_31_and_know_each_other() -> None:
    plan = AddressPlan.of(ABILENE)
    link = ABILENE.links[1]
    a, b = plan.end(link.name, link.a), plan.end(link.name, link.b)
    assert (a.address, b.address) == ("10.0.0.2", "10.0.0.3")
    assert (a.peer_address, a.peer_mac) == (b.address, b.mac)
    assert (b.peer_address, b.peer_mac) == (a.address, a.mac)
    assert a.cidr == "10.0.0.2/31"


def test_interfaces_are_numbered_in_the_order_of_a_nodes_links() -> None:
    plan = AddressPlan.of(ABILENE)
    names = [plan.end(link.name, "Indianapolis").intf for link in ABILENE.links_of("Indianapolis")]
    assert names[:2] == ["Indianapol-eth0", "Indianapol-eth1"]


def test_a_topology_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"27 links do not fit into the address plan: 10.0.0.0/27 has 16 /31"):
        AddressPlan.of(ABILENE, network=IPv4Network("10.0.0.0/27"))


def test_an_end_that_is_none_is_a_bug_of_the_caller() -> None:
    with pytest.raises(KeyError):
        AddressPlan.of(ABILENE).end("Chicago-NewYork", "Seattle")
