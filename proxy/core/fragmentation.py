"""Packets larger than a link takes at once: cut by the sender, put together again by the receiver (NDNLPv2, "Fragmentation").

Fragments have consecutive sequence numbers, their index and how many there are; other header fields of the network packet
are on the first one. Each is a link packet of its own, so that link reliability repeats one fragment, not all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from proxy.wire.lp import LinkPacket
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError

#: Headers of IPv4 and UDP, which count against the MTU of a link.
UDP_HEADERS_BYTES: Final = 20 + 8
#: An ack in the header of a link packet.
ACK_BYTES: Final = 12
#: There is room for so many in every packet.
ACKS_ALWAYS: Final = 3
#: What a header may take: all its fields but acks together are 64 octets at most.
HEADER_MAX_BYTES: Final = 64 + ACKS_ALWAYS * ACK_BYTES
#: Packets that lack fragments and are waited for, per face; the one that made no progress for longest goes first.
PARTIAL_MAX: Final = 64
#: What their fragments take together.
PARTIAL_MAX_BYTES: Final = 256 * 1024
#: A packet without progress for so long is given up. Longer than NFD's 0.5 s: a fragment that is lost twice before the round
#: trip is known comes after 0.75 s.
REASSEMBLY_TIMEOUT_S: Final = 2.0


def payload_max_bytes(mtu_bytes: int) -> int:
    """Return how much of a network packet fits into one datagram over a link of this MTU; no datagram is larger than a packet.

    >>> payload_max_bytes(1500), payload_max_bytes(9000)
    (1372, 8700)
    """
    return min(mtu_bytes - UDP_HEADERS_BYTES, PACKET_MAX_BYTES) - HEADER_MAX_BYTES


def fragments(packet: LinkPacket, *, payload_bytes: int) -> list[LinkPacket]:
    """Cut *packet*; nothing of the header but what the fragments themselves need is on any but the first."""
    pieces = [packet.fragment[at : at + payload_bytes] for at in range(0, len(packet.fragment), payload_bytes)]
    first = packet.as_fragment(pieces[0], index=0, count=len(pieces))
    return [first, *(LinkPacket(piece, frag_index=n, frag_count=len(pieces)) for n, piece in enumerate(pieces[1:], 1))]


@dataclass
class Partial:
    """A packet of which fragments are missing."""

    count: int
    heard_s: float
    size_bytes: int = 0
    pieces: dict[int, LinkPacket] = field(default_factory=dict)


class Reassembler:
    """Of one face. A packet is known by the sequence number of its first fragment."""

    def __init__(self) -> None:
        self._partials: OrderedDict[int, Partial] = OrderedDict()  #: the one that made progress last is at the end
        self.bytes = 0
        self.dropped = 0  #: packets given up

    def __len__(self) -> int:
        return len(self._partials)

    def take(self, fragment: LinkPacket, *, now_s: float) -> LinkPacket | None:
        """Take in a fragment; return the packet where it was the last one missing.

        Raises: MalformedError where it does not fit those before it, or makes the packet too long; all of it is forgotten.
        """
        assert fragment.sequence is not None, "the decoder refuses fragments without"
        self._drop_stale(now_s)
        first = fragment.sequence - fragment.frag_index
        partial = self._partials.get(first)
        if partial is None:
            partial = self._partials[first] = Partial(fragment.frag_count, now_s)
        elif fragment.frag_index in partial.pieces:
            return None
        partial.heard_s = now_s
        self._partials.move_to_end(first)
        partial.pieces[fragment.frag_index] = fragment
        partial.size_bytes += len(fragment.fragment)
        self.bytes += len(fragment.fragment)
        if partial.count != fragment.frag_count or partial.size_bytes > PACKET_MAX_BYTES:
            self._drop(first)
            raise MalformedError("fragments that make no packet")
        if len(partial.pieces) < partial.count:
            while len(self._partials) > PARTIAL_MAX or self.bytes > PARTIAL_MAX_BYTES:
                self._drop(next(iter(self._partials)))
            return None
        self._forget(first)
        whole = b"".join(partial.pieces[index].fragment for index in range(partial.count))
        return partial.pieces[0].as_fragment(whole, index=0, count=1)

    def clear(self) -> None:
        """Forget everything: the session is down."""
        self._partials.clear()
        self.bytes = 0

    def _drop_stale(self, now_s: float) -> None:
        while self._partials:
            first, partial = next(iter(self._partials.items()))
            if now_s - partial.heard_s < REASSEMBLY_TIMEOUT_S:
                return
            self._drop(first)

    def _drop(self, first: int) -> None:
        self._forget(first)
        self.dropped += 1

    def _forget(self, first: int) -> None:
        self.bytes -= self._partials.pop(first).size_bytes
