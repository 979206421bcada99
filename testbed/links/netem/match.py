"""Which frames a filter picks: written by people, and as the kernel's flower classifier has it.

Sources: linux/pkt_cls.h, net/sched/cls_flower.c of the kernel.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final, Self

from testbed.links.netem.attributes import attribute, parse
from topologies.errors import InputError

_ETH_P_IP: Final = 0x0800
_ETH_TYPE, _IP_PROTO = 8, 9
#: end -> the attributes of its network and of that one's mask
_NETWORKS: Final = {"src": (10, 11), "dst": (12, 13)}
#: (protocol, end) -> the attribute of its port
_PORTS: Final = {("tcp", "src"): 18, ("tcp", "dst"): 19, ("udp", "src"): 20, ("udp", "dst"): 21}
_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17}

#: Most that a match can say: protocol, two networks of 32 bits, two ports.
STRICTEST: Final = 1 + 32 + 32 + 1 + 1

_GRAMMAR: Final = "such as `udp dst-port 6363`, `tcp src 10.0.0.0/24` or `icmp`"


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
            if key in _NETWORKS:
                try:
                    networks[key] = IPv4Network(value)
                except ValueError as error:
                    raise InputError(where=where, problem=f"`{said}`: {error}", remedy=f"write it {_GRAMMAR}") from None
            elif key in ("src-port", "dst-port") and re.fullmatch(r"\d{1,5}", value) and 0 < int(value) < 65_536:
                ports[key] = int(value)
            else:
                raise InputError(where=where, problem=f"`{key} {value}` in `{said}`", remedy=f"write it {_GRAMMAR}")
        if ports and protocol not in ("tcp", "udp"):
            raise InputError(where=where, problem=f"`{said}`: a port of what?", remedy="write tcp or udp in front")
        networks = {key: network for key, network in networks.items() if network.prefixlen}  # 0.0.0.0/0 says nothing
        return cls(protocol, networks.get("src"), networks.get("dst"), ports.get("src-port"), ports.get("dst-port"))

    @property
    def strictness(self) -> int:
        """How much it says: of two where one picks only frames that the other picks, too, this one says more.

        >>> [Match.parse(said, where="x").strictness for said in ("udp", "udp src 10.0.0.0/24", "udp src 10.0.0.7")]
        [1, 25, 33]
        """
        networks = sum(network.prefixlen for network in (self.src, self.dst) if network is not None)
        return networks + sum(one is not None for one in (self.protocol, self.src_port, self.dst_port))

    def both(self, other: Match) -> Match | None:
        """Return what picks the frames that this and *other* pick; None if there are none.

        >>> Match("udp", dst_port=6363).both(Match(src=IPv4Network("10.0.0.7/32")))
        Match(protocol='udp', src=IPv4Network('10.0.0.7/32'), dst=None, src_port=None, dst_port=6363)
        >>> Match("udp").both(Match("icmp"))
        """
        pairs = ((self.protocol, other.protocol), (self.src_port, other.src_port), (self.dst_port, other.dst_port))
        if any(mine is not None and theirs is not None and mine != theirs for mine, theirs in pairs):
            return None
        for mine, theirs in ((self.src, other.src), (self.dst, other.dst)):
            if mine is not None and theirs is not None and not mine.overlaps(theirs):
                return None
        return Match(
            self.protocol or other.protocol,
            _inner(self.src, other.src),
            _inner(self.dst, other.dst),
            self.src_port or other.src_port,
            self.dst_port or other.dst_port,
        )

    def is_within(self, other: Match) -> bool:
        """Tell whether *other* picks every frame that this picks.

        >>> Match("udp", dst_port=6363).is_within(Match("udp")), Match("udp").is_within(Match("udp", dst_port=6363))
        (True, False)
        """
        return self.both(other) == self

    def encode(self) -> bytes:
        """Return the keys of a flower filter."""
        parts = [attribute(_ETH_TYPE, struct.pack("!H", _ETH_P_IP))]
        if self.protocol is not None:
            parts.append(attribute(_IP_PROTO, bytes([_PROTOCOLS[self.protocol]])))
        for network, (key, mask) in ((self.src, _NETWORKS["src"]), (self.dst, _NETWORKS["dst"])):
            if network is not None:
                parts.append(attribute(key, network.network_address.packed))
                parts.append(attribute(mask, network.netmask.packed))
        for end, port in (("src", self.src_port), ("dst", self.dst_port)):
            if port is not None and self.protocol is not None:
                parts.append(attribute(_PORTS[self.protocol, end], struct.pack("!H", port)))
        return b"".join(parts)

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Return what a flower filter picks, as the kernel says it; of its keys, those that `encode` uses.

        >>> Match.decode(Match("tcp", dst_port=80).encode()) == Match("tcp", dst_port=80)
        True
        """
        found = dict(parse(options))
        number = found.get(_IP_PROTO, b"\0")[0]
        protocol = next((name for name, known in _PROTOCOLS.items() if known == number), None)
        networks = {
            end: IPv4Network((found[key], int.from_bytes(found[mask], "big").bit_count()))
            for end, (key, mask) in _NETWORKS.items()
            if key in found and mask in found
        }
        ports = {
            end: int.from_bytes(found[key], "big")
            for (of, end), key in _PORTS.items()
            if of == protocol and key in found
        }
        return cls(protocol, networks.get("src"), networks.get("dst"), ports.get("src"), ports.get("dst"))


def _inner(mine: IPv4Network | None, theirs: IPv4Network | None) -> IPv4Network | None:
    """Return the smaller of two networks that overlap: it is part of the other. None says any address."""
    given = [network for network in (mine, theirs) if network is not None]
    return max(given, key=lambda network: network.prefixlen, default=None)
