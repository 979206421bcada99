"""A simulated link: two lines, which packets cross in the same channels as frames on `wire` links (`testbed.links.channel`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.core.events import Event, PacketReceived
from testbed.faults.packets.interceptor import Interceptor
from testbed.links.channel import CAUSE_OF, CORRUPTED, DUPLICATED, Channel, alterations
from testbed.links.frame_names import name_in_packet
from testbed.links.model import ALTERATIONS, CAUSES, Alteration, Cause, Direction
from testbed.simulation.virtual_time import VirtualTime
from topologies.model import Link

#: Ethernet, IPv4 and UDP headers, which a packet has on a `wire` link too.
HEADERS_BYTES: Final = 14 + 20 + 8


@dataclass
class LinkTraffic:
    """What one direction of a link has done to packets."""

    packets: int = 0  #: arrived; a duplicate counts again
    carried_bytes: int = 0
    largest_bytes: int = 0  #: Ethernet header included
    delay_sum_s: float = 0.0  #: of those that arrived
    first_s: float | None = None
    last_s: float = 0.0
    dropped: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    altered: dict[Alteration, int] = field(default_factory=lambda: dict.fromkeys(ALTERATIONS, 0))
    in_flight: int = 0


@dataclass
class SimulatedLink:
    """Two channels and a carrier."""

    link: Link
    channels: dict[Direction, Channel]
    traffic: dict[Direction, LinkTraffic]
    carrier: bool = True
    #: of message faults; as a rule there are none
    interceptors: dict[Direction, Interceptor] = field(default_factory=dict)
    epoch: int = 0  #: frames in flight when the carrier is lost do not arrive


class Line:
    """One direction of a link, to the face *face_id* of the forwarder that *deliver* reaches."""

    def __init__(
        self,
        time: VirtualTime,
        link: SimulatedLink,
        direction: Direction,
        *,
        face_id: int,
        deliver: Callable[[Event], None],
    ) -> None:
        self.link, self.direction = link, direction
        self._time, self._face_id, self._deliver = time, face_id, deliver
        self._channel, self._traffic = link.channels[direction], link.traffic[direction]

    def transmit(self, packet: bytes) -> None:
        """Take in a packet at the sender's end."""
        if not self.link.carrier:
            self._refuse("carrier")
            return
        interceptor = self.link.interceptors.get(self.direction)
        copies = None if interceptor is None else interceptor.intercept(packet, self._time.now_s)
        if copies is None:
            self.carry(packet)
        elif not copies:
            self._refuse("fault")
        else:
            for copy in copies:
                self.carry(copy.datagram, later_ms=copy.later_ms, checksum_right=copy.checksum_right)

    def _refuse(self, cause: Cause) -> None:
        """Drop a packet before it takes its place on the line."""
        self._channel.refuse()
        self._traffic.dropped[cause] += 1

    def carry(self, packet: bytes | None, *, later_ms: float = 0.0, checksum_right: bool = True) -> None:
        """Bring a packet to the other end; None: what no forwarder would get. *later_ms*: than the channel says."""
        channel, traffic, time = self._channel, self._traffic, self._time
        size_bytes = len(packet or b"") + HEADERS_BYTES
        name = name_in_packet(packet) if packet is not None and channel.draws_frames else b""
        due_ns = channel.offer(size_bytes, now_ns=round(time.now_s * 1e9), name=name)
        if due_ns < 0:
            traffic.dropped[CAUSE_OF[due_ns]] += 1
            return
        epoch, sent_s, altered = self.link.epoch, time.now_s, channel.altered
        if altered:
            for alteration in alterations(altered):
                traffic.altered[alteration] += 1
        is_broken = bool(altered & CORRUPTED) or not checksum_right

        def arrive() -> None:
            traffic.in_flight -= 1
            if self.link.epoch != epoch:
                traffic.dropped["carrier"] += 1
                return
            if is_broken:  # the receiver's kernel finds its UDP checksum wrong
                traffic.dropped["corrupt"] += 1
                return
            traffic.packets += 1
            traffic.carried_bytes += size_bytes
            if size_bytes > traffic.largest_bytes:
                traffic.largest_bytes = size_bytes
            traffic.delay_sum_s += time.now_s - sent_s
            traffic.last_s = time.now_s
            if traffic.first_s is None:
                traffic.first_s = time.now_s
            if packet is not None:
                self._deliver(PacketReceived(self._face_id, packet))

        traffic.in_flight += 1
        time.at(due_ns / 1e9 + later_ms / 1e3, arrive)
        if altered & DUPLICATED:
            traffic.in_flight += 1
            time.at(channel.copy_due_ns / 1e9 + later_ms / 1e3, arrive)
