"""Queueing disciplines as netlink messages: what we ask of the kernel, and what it says it has.

Sources: linux/rtnetlink.h, linux/pkt_sched.h, linux/gen_stats.h, net/sched/sch_netem.c and sch_prio.c of the kernel.
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from typing import Final, Self

from testbed.links.netem.attributes import attribute, nested, parse, text
from testbed.links.rtnetlink import Request

RTM_NEWQDISC, RTM_GETQDISC = 36, 38
NLM_F_EXCL_CREATE: Final = 0x200 | 0x400

TC_H_ROOT: Final = 0xFFFF_FFFF
TC_H_INGRESS: Final = 0xFFFF_FFF1

#: Numbers of our own, so that what somebody else has put there is never taken for ours.
ROOT: Final = 0x6363_0000
INGRESS: Final = 0xFFFF_0000  # the kernel gives it no other
#: A flow is what one band of the root carries: 0 is everything that no filter picks, each other one is a target's.
FLOWS: Final = 8
_FIRST_DELAY, _FIRST_RATE = 0x6370_0000, 0x6380_0000

#: A probability of 1 (struct tc_netem_qopt).
CERTAIN: Final = 0xFFFF_FFFF
#: A delay table's unit: 8192 is one `jitter_ns` (NETEM_DIST_SCALE); most entries that it may have (NETEM_DIST_MAX).
TABLE_SCALE: Final = 8_192
TABLE_MAX: Final = 16_384
#: Most nanoseconds of jitter that the kernel's arithmetic holds (tabledist).
JITTER_MAX_NS: Final = 0x7FFF_FFFF
#: Frames on their way: what a queue in front of the rate bounds is not this.
NO_LIMIT: Final = 1_000_000
#: A rate at which no frame takes time. With any rate at all netem keeps the order of frames, whatever the jitter.
NO_TIME_BYTES_PER_S: Final = 10**13

_TCM: Final = struct.Struct("=BBHiIII")  # tcm_family, 2 x padding, tcm_ifindex, tcm_handle, tcm_parent, tcm_info
TCM_BYTES: Final = _TCM.size
_QOPT: Final = struct.Struct("=IIIIII")  # latency, limit, loss, gap, duplicate, jitter
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_CORR, _DELAY_DIST, _REORDER, _CORRUPT, _LOSS, _RATE, _RATE64, _LATENCY64, _JITTER64, _PRNG_SEED = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 11),
    14,
)
_LOSS_GE: Final = 2
_STATS_BASIC, _STATS_QUEUE, _STATS_PKT64 = 1, 3, 8
_PRIOMAP_LENGTH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Netem:
    """The options of one netem qdisc, in the kernel's own units; probabilities are of `CERTAIN`."""

    limit_packets: int = NO_LIMIT
    latency_ns: int = 0
    jitter_ns: int = 0  #: what 8192 of the table stands for
    table: tuple[
        int, ...
    ] = ()  #: a frame is delayed by latency + jitter x one of these / 8192; the kernel does not tell
    loss: int = 0
    #: Gilbert and Elliott: p, r, h (a frame in the bad state gets through), 1-k (one in the good state is lost)
    bursts: tuple[int, int, int, int] | None = None
    duplicate: int = 0
    corrupt: int = 0
    rate_bytes_per_s: int = 0  #: 0: no limit
    seed: int | None = None  #: kernels before 6.6 have none

    def encode(self) -> bytes:
        """Return the value of TCA_OPTIONS. Whatever the qdisc had before and is not wanted any more is set back."""
        parts = [
            _QOPT.pack(0, self.limit_packets, self.loss, 0, self.duplicate, 0),
            attribute(_CORR, bytes(12)),
            attribute(_REORDER, bytes(8)),
            attribute(_CORRUPT, struct.pack("=II", self.corrupt, 0)),
            attribute(_RATE, struct.pack("=IiIi", min(self.rate_bytes_per_s, CERTAIN), 0, 0, 0)),
            attribute(_LATENCY64, struct.pack("=q", self.latency_ns)),
            attribute(_JITTER64, struct.pack("=q", self.jitter_ns)),
        ]
        if self.rate_bytes_per_s >= CERTAIN:
            parts.append(attribute(_RATE64, struct.pack("=Q", self.rate_bytes_per_s)))
        if self.bursts is not None:
            parts.append(nested(_LOSS, attribute(_LOSS_GE, struct.pack("=IIII", *self.bursts))))
        if self.seed is not None:
            parts.append(attribute(_PRNG_SEED, struct.pack("=Q", self.seed)))
        if self.table:
            parts.append(attribute(_DELAY_DIST, struct.pack(f"={len(self.table)}h", *self.table)))
        return b"".join(parts)

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Return what the kernel says that a netem qdisc does. Raises: struct.error if this is not what netem says."""
        _, limit, loss, _, duplicate, _ = _QOPT.unpack_from(options)
        found = dict(parse(options[_QOPT.size :]))
        (rate,) = struct.unpack_from("=I", found.get(_RATE, bytes(4)))
        bursts: tuple[int, int, int, int] | None = None
        for kind, value in parse(found.get(_LOSS, b"")):
            if kind == _LOSS_GE:
                p, r, h, k1 = struct.unpack_from("=IIII", value)
                bursts = p, r, h, k1
        return cls(
            limit_packets=limit,
            latency_ns=struct.unpack("=q", found[_LATENCY64])[0],
            jitter_ns=struct.unpack("=q", found[_JITTER64])[0],
            loss=loss,
            bursts=bursts,
            duplicate=duplicate,
            corrupt=struct.unpack_from("=I", found.get(_CORRUPT, bytes(4)))[0],
            rate_bytes_per_s=struct.unpack("=Q", found[_RATE64])[0] if _RATE64 in found else rate,
            seed=struct.unpack("=Q", found[_PRNG_SEED])[0] if _PRNG_SEED in found else None,
        )

    def closed(self) -> Netem:
        """Return this with no room for any frame: a black hole. What is on its way arrives."""
        return dataclasses.replace(self, limit_packets=0)

    def spelt(self) -> str:
        """Return what is not as it is by default, for people."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "table"}
        return (
            ", ".join(f"{name} {value}" for name, value in values.items() if value != getattr(_DEFAULT, name))
            or "nothing"
        )

    def is_as_asked(self, asked: Netem) -> bool:
        """Tell whether this, read back, is what was asked for, as far as the kernel tells."""
        told = dataclasses.replace(asked, table=(), seed=self.seed if self.seed is None else asked.seed)
        return self == told


_DEFAULT: Final = Netem()


@dataclass(frozen=True, slots=True)
class QdiscState:
    """One qdisc as the kernel has it, and what it has counted since it was made."""

    index: int  #: of its interface
    handle: int
    parent: int
    kind: str
    options: bytes
    packets: int  #: that left it
    carried_bytes: int
    dropped: int  #: here and below it
    waiting: int  #: here and below it

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Decode the payload of an RTM_NEWQDISC message."""
        _, _, _, index, handle, parent, _ = _TCM.unpack_from(message)
        found = dict(parse(message[_TCM.size :]))
        stats = dict(parse(found.get(_TCA_STATS2, b"")))
        carried_bytes, packets = struct.unpack_from("=QI", stats.get(_STATS_BASIC, bytes(12)))
        if _STATS_PKT64 in stats:
            (packets,) = struct.unpack("=Q", stats[_STATS_PKT64])
        waiting, _, dropped = struct.unpack_from("=III", stats.get(_STATS_QUEUE, bytes(12)))
        return cls(
            index,
            handle,
            parent,
            found.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace"),
            found.get(_TCA_OPTIONS, b""),
            packets,
            carried_bytes,
            dropped,
            waiting,
        )


def delay_handle(flow: int) -> int:
    """Return the number of the netem that delays and loses what a flow carries."""
    return _FIRST_DELAY + (flow << 16)


def rate_handle(flow: int) -> int:
    """Return the number of the netem that is a flow's line, below the one that delays."""
    return _FIRST_RATE + (flow << 16)


def band_of(flow: int) -> int:
    """Return the class of the root that carries a flow."""
    return ROOT + 1 + flow


def add_qdisc(index: int, kind: str, *, handle: int, parent: int, options: bytes) -> Request:
    """Make a qdisc where there is none of that number; on any conflict with somebody else's the kernel refuses."""
    return RTM_NEWQDISC, NLM_F_EXCL_CREATE, _message(index, kind, handle=handle, parent=parent, options=options)


def change_qdisc(index: int, kind: str, *, handle: int, parent: int, options: bytes) -> Request:
    """Change a qdisc of ours; if it is not there any more the kernel refuses, and makes none."""
    return RTM_NEWQDISC, 0, _message(index, kind, handle=handle, parent=parent, options=options)


def all_qdiscs() -> bytes:
    """Return the payload of a dump request (RTM_GETQDISC) for a whole namespace."""
    return traffic_header(0)


def traffic_header(index: int, *, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _TCM.pack(0, 0, 0, index, handle, parent, info)


def traffic_message(index: int, kind: str, *, handle: int, parent: int, info: int = 0, options: bytes) -> bytes:
    """Return the payload of a message about a qdisc or filter."""
    header = traffic_header(index, handle=handle, parent=parent, info=info)
    return header + text(_TCA_KIND, kind) + attribute(_TCA_OPTIONS, options)


def _message(index: int, kind: str, *, handle: int, parent: int, options: bytes) -> bytes:
    return traffic_message(index, kind, handle=handle, parent=parent, options=options)


def bands() -> bytes:
    """Return the options of the root (sch_prio): a band for each flow, everything in the first unless a filter picks it."""
    return struct.pack("=i", FLOWS) + bytes(_PRIOMAP_LENGTH)
