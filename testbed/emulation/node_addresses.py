"""One address for each host, besides those of its link ends: what its name stands for when somebody types it.

Mininet's CLI puts the address of a host's first interface in the place of its name, and a neighbour on another link
cannot reach that: nothing is forwarded by IP here. So every host has an address of its own on the loopback interface,
and its neighbours a route to it over the link between them: ``mininet> ue1 ping csr1`` works on every link.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from testbed.addresses import AddressPlan
from testbed.links.linux import enter_netns, returning_to_own_netns
from testbed.links.rtnetlink import Request, RouteSocket, add_address
from topologies.model import Topology

#: Apart from the links' 10.0.0.0/8; room for a million hosts.
NODE_NETWORK: Final = IPv4Network("172.16.0.0/12")

_LOOPBACK_INDEX: Final = 1  # in every namespace (linux/netdevice.h, LOOPBACK_IFINDEX)
_RTM_NEWROUTE: Final = 24  # rtnetlink(7), linux/rtnetlink.h
_NLM_F_EXCL_CREATE: Final = 0x200 | 0x400
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 4, 0, 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5


def node_addresses(topology: Topology) -> dict[str, IPv4Address]:
    """Return the address of each host.

    Raises: IndexError if there are more than the network has room for; such a topology has too many links before.
    """
    return {node.name: NODE_NETWORK[number] for number, node in enumerate(topology.nodes, start=1)}


def set_node_addresses(topology: Topology, addresses: AddressPlan, netns_fds: Mapping[str, int]) -> None:
    """Give every host its address and the routes to its neighbours'. The links must be up.

    Blocks, and moves the calling thread through the namespaces. Raises: OSError if the kernel refuses.
    """
    own = node_addresses(topology)
    with returning_to_own_netns():
        for node in topology.nodes:
            enter_netns(netns_fds[node.name])
            requests = [add_address(_LOOPBACK_INDEX, address=own[node.name].packed, prefix_length=32)]
            for link in topology.links_of(node.name):
                end, neighbour = addresses.end(link.name, node.name), own[link.other_end(node.name)]
                gateway = IPv4Address(end.peer_address)
                requests.append(_add_route(neighbour, gateway=gateway, index=socket.if_nametoindex(end.intf)))
            route_socket = RouteSocket()
            try:
                errors = route_socket.carry_out(requests)
            finally:
                route_socket.close()
            for number in filter(None, errors):
                raise OSError(number, f"addresses of host {node.name}: {os.strerror(number)}")


def _add_route(destination: IPv4Address, *, gateway: IPv4Address, index: int) -> Request:
    header = struct.pack(
        "=BBBBBBBBI",
        *(socket.AF_INET, destination.max_prefixlen, 0, 0),
        *(_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0),
    )
    attributes = (
        struct.pack("=HH", 8, _RTA_DST) + destination.packed,
        struct.pack("=HH", 8, _RTA_GATEWAY) + gateway.packed,
        struct.pack("=HHi", 8, _RTA_OIF, index),
    )
    return _RTM_NEWROUTE, _NLM_F_EXCL_CREATE, header + b"".join(attributes)
