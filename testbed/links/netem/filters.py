"""Filters: what crosses from one end of a link to the other, and what of it goes to a target.

Sources: linux/pkt_cls.h, linux/tc_act/tc_mirred.h, net/sched/cls_flower.c of the kernel.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Final, Self

from testbed.links.netem.attributes import attribute, nested, text, u32
from testbed.links.netem.qdisc import (
    INGRESS,
    NLM_F_EXCL_CREATE,
    ROOT,
    TC_H_INGRESS,
    add_qdisc,
    band_of,
    traffic_message,
)
from testbed.links.rtnetlink import Request
from topologies.errors import InputError

_RTM_NEWTFILTER, _RTM_DELTFILTER = 44, 45
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_PRIORITY: Final = 1
_MATCHALL_ACT: Final = 2
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS: Final = 2
_TC_ACT_STOLEN, _EGRESS_REDIRECT = 4, 1

_FLOWER_CLASSID, _FLOWER_ETH_TYPE, _FLOWER_IP_PROTO = 1, 8, 9
_FLOWER_SRC, _FLOWER_SRC_MASK, _FLOWER_DST, _FLOWER_DST_MASK = 10, 11, 12, 13
#: (protocol, end) -> the attribute of its port
_FLOWER_PORTS: Final = {("tcp", "src"): 18, ("tcp", "dst"): 19, ("udp", "src"): 20, ("udp", "dst"): 21}
_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17}

_GRAMMAR: Final = "such as `udp dst-port 6363`, `tcp src 10.0.0.0/24` or `icmp`"


def redirect_all(index: int, *, to_index: int) -> list[Request]:
    """Have everything that arrives at an interface leave by another one."""
    action = struct.pack("=IIiiiiI", 0, 0, _TC_ACT_STOLEN, 0, 0, _EGRESS_REDIRECT, to_index)
    options = nested(
        _MATCHALL_ACT,
        nested(1, text(_ACT_KIND, "mirred"), nested(_ACT_OPTIONS, attribute(_MIRRED_PARMS, action))),
    )
    message = traffic_message(index, "matchall", handle=0, parent=INGRESS, info=_info(_ETH_P_ALL), options=options)
    return [
        add_qdisc(index, "ingress", handle=INGRESS, parent=TC_H_INGRESS, options=b""),
        (_RTM_NEWTFILTER, NLM_F_EXCL_CREATE, message),
    ]


@dataclass(frozen=True, slots=True)
class Match:
    """Which frames of a link a target is about: IPv4, and all that is given must fit."""

    protocol: str | None = None  #: ``icmp``, ``tcp`` or ``udp``
    src: IPv4Network | None = None
    dst: IPv4Network | None = None
    src_port: int | None = None
    dst_port: int | None = None

    @classmethod
    def parse(cls, said: str, *, where: str) -> Self:
        """Read ``[icmp|tcp|udp] [src NETWORK] [dst NETWORK] [src-port N] [dst-port N]``.

        Raises: InputError.

        >>> Match.parse("udp dst-port 6363", where="x")
        Match(protocol='udp', src=None, dst=None, src_port=None, dst_port=6363)
        """
        words = said.split()
        protocol = words.pop(0) if words and words[0] in _PROTOCOLS else None
        networks: dict[str, IPv4Network] = {}
        ports: dict[str, int] = {}
        if len(words) % 2 or not (words or protocol):
            raise InputError(where=where, problem=f"`{said}` says not what to match", remedy=f"write it {_GRAMMAR}")
        for key, value in zip(words[::2], words[1::2], strict=True):
            if key in networks or key in ports:
                raise InputError(where=where, problem=f"`{key}` stands twice in `{said}`", remedy="leave one out")
            if key in ("src", "dst"):
                try:
                    networks[key] = IPv4Network(value)
                except (AddressValueError, NetmaskValueError, ValueError) as error:
                    raise InputError(where=where, problem=f"`{said}`: {error}", remedy=f"write it {_GRAMMAR}") from None
            elif key in ("src-port", "dst-port") and re.fullmatch(r"\d{1,5}", value) and 0 < int(value) < 65_536:
                ports[key] = int(value)
            else:
                raise InputError(where=where, problem=f"`{key} {value}` in `{said}`", remedy=f"write it {_GRAMMAR}")
        if ports and protocol not in ("tcp", "udp"):
            raise InputError(where=where, problem=f"`{said}`: a port of what?", remedy="write tcp or udp in front")
        return cls(protocol, networks.get("src"), networks.get("dst"), ports.get("src-port"), ports.get("dst-port"))

    def encode(self, *, classid: int) -> bytes:
        """Return the options of a flower filter that sends what fits to *classid*."""
        parts = [u32(_FLOWER_CLASSID, classid), attribute(_FLOWER_ETH_TYPE, struct.pack("!H", _ETH_P_IP))]
        if self.protocol is not None:
            parts.append(attribute(_FLOWER_IP_PROTO, bytes([_PROTOCOLS[self.protocol]])))
        for network, key, mask in (
            (self.src, _FLOWER_SRC, _FLOWER_SRC_MASK),
            (self.dst, _FLOWER_DST, _FLOWER_DST_MASK),
        ):
            if network is not None:
                parts.append(attribute(key, network.network_address.packed))
                parts.append(attribute(mask, network.netmask.packed))
        for end, port in (("src", self.src_port), ("dst", self.dst_port)):
            if port is not None and self.protocol is not None:
                parts.append(attribute(_FLOWER_PORTS[self.protocol, end], struct.pack("!H", port)))
        return b"".join(parts)


def add_filter(index: int, match: Match, *, flow: int) -> Request:
    """Have a flow carry what fits; of several that a frame fits, the one of the lowest number."""
    message = traffic_message(
        index,
        "flower",
        handle=0,
        parent=ROOT,
        info=_info(_ETH_P_IP, priority=flow),
        options=match.encode(classid=band_of(flow)),
    )
    return _RTM_NEWTFILTER, NLM_F_EXCL_CREATE, message


def delete_filter(index: int, *, flow: int) -> Request:
    """Remove the filter of a flow: what it picked goes with everything else again."""
    message = traffic_message(index, "flower", handle=0, parent=ROOT, info=_info(_ETH_P_IP, priority=flow), options=b"")
    return _RTM_DELTFILTER, 0, message


def _info(protocol: int, *, priority: int = _PRIORITY) -> int:
    return priority << 16 | socket.htons(protocol)
