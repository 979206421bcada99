"""Interface names, IPv4 addresses and MAC addresses for every end of every link, the same at every run.

Link number *i* of a topology (from 0, in its order) takes the /31 at 10.0.0.0 + 2 i (RFC 3021: both addresses of a /31
are hosts on a point-to-point link); end `a` has the even address. MAC addresses are locally administered: 02, then the
address of the interface, then 00. Interfaces are numbered per node in the order of its links: ``Chicago-eth0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from topologies.errors import InputError
from topologies.model import Topology

NETWORK: Final = IPv4Network("10.0.0.0/12")
PREFIX_LENGTH: Final = 31

#: IFNAMSIZ is 16 with the terminating zero (linux/if.h).
INTF_NAME_MAX: Final = 15


@dataclass(frozen=True, slots=True)
class EndAddress:
    """One end of a link."""

    intf: str  #: unique within its node, at most 15 characters
    address: str  #: IPv4 without prefix length; the prefix is a /31
    mac: str
    peer_address: str
    peer_mac: str

    @property
    def cidr(self) -> str:
        return f"{self.address}/{PREFIX_LENGTH}"


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """All ends of a topology's links, by (link name, node name)."""

    ends: Mapping[tuple[str, str], EndAddress]

    @classmethod
    def of(cls, topology: Topology, *, network: IPv4Network = NETWORK) -> AddressPlan:
        """Return the plan for *topology*.

        Raises: InputError if *network* has too few /31 for its links.
        """
        verify_fits(topology, network=network)
        ends: dict[tuple[str, str], EndAddress] = {}
        intfs_of: dict[str, int] = {}
        for index, link in enumerate(topology.links):
            address_a, address_b = network.network_address + 2 * index, network.network_address + 2 * index + 1
            for node, own, peer in ((link.a, address_a, address_b), (link.b, address_b, address_a)):
                number = intfs_of.get(node, 0)
                intfs_of[node] = number + 1
                ends[link.name, node] = EndAddress(
                    intf=intf_name(node, number),
                    address=str(own),
                    mac=mac_of(own),
                    peer_address=str(peer),
                    peer_mac=mac_of(peer),
                )
        return cls(ends)

    def end(self, link: str, node: str) -> EndAddress:
        """Return *node*'s end of *link*. Raises: KeyError if that is not an end of the topology."""
        return self.ends[link, node]


def verify_fits(topology: Topology, *, network: IPv4Network = NETWORK) -> None:
    """Raise InputError if *network* has too few /31 for the links of *topology*."""
    links_max = network.num_addresses // 2
    if len(topology.links) > links_max:
        raise InputError(
            where=f"topology {topology.name}",
            problem=f"{len(topology.links)} links do not fit into the address plan: {network} has {links_max} /31",
            remedy="use fewer nodes",
        )


def intf_name(node: str, number: int) -> str:
    """Return the name of the interface *number* of *node*; a long node name is cut, it is unique in its namespace.

    >>> intf_name("Chicago", 0), intf_name("Indianapolis", 12)
    ('Chicago-eth0', 'Indianapo-eth12')
    """
    suffix = f"-eth{number}"
    return node[: INTF_NAME_MAX - len(suffix)] + suffix


def mac_of(address: IPv4Address) -> str:
    """Return the MAC address of the interface with this address.

    >>> mac_of(IPv4Address("10.0.1.2"))
    '02:0a:00:01:02:00'
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, *address.packed, 0x00))
