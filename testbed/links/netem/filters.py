"""Filters: what crosses from one end of a link to the other, and what of it goes to a target.

Sources: linux/pkt_cls.h, linux/tc_act/tc_mirred.h, net/sched/cls_flower.c of the kernel.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from testbed.links.netem.attributes import attribute, nested, parse, text, u32
from testbed.links.netem.match import STRICTEST, Match
from testbed.links.netem.qdisc import (
    FLOWS,
    INGRESS,
    NLM_F_EXCL_CREATE,
    ROOT,
    TC_H_INGRESS,
    TCM_BYTES,
    add_qdisc,
    band_of,
    traffic_header,
    traffic_message,
)
from testbed.links.rtnetlink import Request

_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_PRIORITY: Final = 1
_MATCHALL_ACT: Final = 2
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS: Final = 2
_TC_ACT_STOLEN, _EGRESS_REDIRECT = 4, 1

_FLOWER_CLASSID: Final = 1
_KIND, _OPTIONS = 1, 2


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
class FilterState:
    """A filter of a root as the kernel has it."""

    index: int  #: of its interface
    classid: int  #: of the band that carries what it picks
    match: Match

    @classmethod
    def decode(cls, message: bytes) -> Self | None:
        """Decode the payload of an RTM_NEWTFILTER message; None if it is no filter of that kind."""
        index, handle = struct.unpack_from("=iI", message, 4)
        found = dict(parse(message[TCM_BYTES:]))
        if not handle or found.get(_KIND) != b"flower\0":  # without a handle: what holds the filters of a priority
            return None
        options = found.get(_OPTIONS, b"")
        (classid,) = struct.unpack_from("=I", dict(parse(options)).get(_FLOWER_CLASSID, bytes(4)))
        return cls(index, classid, Match.decode(options))


def add_filter(index: int, match: Match, *, flow: int) -> Request:
    """Have a flow carry what fits; of several that a frame fits, the strictest."""
    return (
        _RTM_NEWTFILTER,
        NLM_F_EXCL_CREATE,
        _flower(index, match, flow, u32(_FLOWER_CLASSID, band_of(flow)) + match.encode()),
    )


def delete_filter(index: int, match: Match, *, flow: int) -> Request:
    """Remove the filter of a flow: what it picked goes with everything else again."""
    return _RTM_DELTFILTER, 0, _flower(index, match, flow, b"")


def filters_of_root(index: int) -> tuple[int, bytes]:
    """Return kind and payload of a dump request for the filters of an interface's root."""
    return _RTM_GETTFILTER, traffic_header(index, parent=ROOT)


def _flower(index: int, match: Match, flow: int, options: bytes) -> bytes:
    # The kernel tries priorities from the lowest on. Each filter has one of its own, by which it is removed.
    priority = (STRICTEST - match.strictness) * FLOWS + flow
    info = _info(_ETH_P_IP, priority=priority)
    return traffic_message(index, "flower", handle=0, parent=ROOT, info=info, options=options)


def _info(protocol: int, *, priority: int = _PRIORITY) -> int:
    return priority << 16 | socket.htons(protocol)
