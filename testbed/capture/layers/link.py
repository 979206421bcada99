"""Scapy layers of NDNLPv2 link packets, our own header fields included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw, bind_top_down

from testbed.capture.layers.ndn import PORT, Data, Interest
from testbed.capture.layers.tlv import (
    Element,
    ElementsValue,
    NumberValue,
    PacketValue,
    ValueField,
    dissected_as,
    element_fields,
)


class Sequence(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x51, NumberValue(octets=8))


class FragIndex(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x52, NumberValue())


class FragCount(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x53, NumberValue(1))


class PitToken(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x62, ValueField())


class NackReason(Element):
    """0: none said, 50: congestion, 100: duplicate, 150: no route."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x0321, NumberValue())


class Nack(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0320, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {0x0321: NackReason}


class IncomingFaceId(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x032C, NumberValue())


class NextHopFaceId(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0330, NumberValue())


class CachePolicyType(Element):
    """1: do not keep it."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x0335, NumberValue())


class CachePolicy(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0334, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {0x0335: CachePolicyType}


class CongestionMark(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0340, NumberValue())


class Ack(Element):
    """A TxSequence that was received."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x0344, NumberValue(octets=8))


class TxSequence(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0348, NumberValue(octets=8))


class NonDiscovery(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x034C, ValueField())


class PrefixAnnouncement(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0350, PacketValue())


class Poll(Element):
    """Ours: the sender wants to be heard from now."""

    fields_desc: ClassVar[list[Any]] = element_fields(940, ValueField())


class MinTxInterval(Element):
    """Ours: the sender's interval between heartbeats in ms, while it is longer than configured (RFC 5880 section 4.1)."""

    fields_desc: ClassVar[list[Any]] = element_fields(928, NumberValue())


class LossyPath(Element):
    """Ours: an Interest that has crossed a lossy link."""

    fields_desc: ClassVar[list[Any]] = element_fields(932, ValueField())


class HopCount(Element):
    """Ours: how many links a Data of the data plane has crossed since it was given out."""

    fields_desc: ClassVar[list[Any]] = element_fields(936, NumberValue())


class SentCount(Element):
    """Ours: how many packets the sender has sent."""

    fields_desc: ClassVar[list[Any]] = element_fields(944, NumberValue())


class GapsSeen(Element):
    """Ours: how many gaps the sender has seen in what it received."""

    fields_desc: ClassVar[list[Any]] = element_fields(948, NumberValue())


class SessionState(Element):
    """Ours: that of the sender's face, RFC 5880 section 4.1. 0: AdminDown, 1: Down, 2: Init, 3: Up."""

    fields_desc: ClassVar[list[Any]] = element_fields(952, NumberValue())


class Detour(Element):
    """Ours: an Interest that is off its best way."""

    fields_desc: ClassVar[list[Any]] = element_fields(956, ValueField())


class FragmentValue(PacketValue):
    """An Interest or a Data; octets where it is a part of one."""

    def read(self, element: Element, octets: bytes) -> Packet:  # noqa: ARG002
        layer = {0x05: Interest, 0x06: Data}.get(octets[0] if octets else 0)
        known = None if layer is None else dissected_as(layer, octets)
        return known or Raw(load=octets)


class Fragment(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x50, FragmentValue())


class LpPacket(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x64, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {
        0x50: Fragment,
        0x51: Sequence,
        0x52: FragIndex,
        0x53: FragCount,
        0x62: PitToken,
        0x0320: Nack,
        0x032C: IncomingFaceId,
        0x0330: NextHopFaceId,
        0x0334: CachePolicy,
        0x0340: CongestionMark,
        0x0344: Ack,
        0x0348: TxSequence,
        0x034C: NonDiscovery,
        0x0350: PrefixAnnouncement,
        928: MinTxInterval,
        932: LossyPath,
        936: HopCount,
        940: Poll,
        944: SentCount,
        948: GapsSeen,
        952: SessionState,
        956: Detour,
    }

    def mysummary(self) -> str:
        inner = self.getlayer(Interest) or self.getlayer(Data)
        what = "Nack of " if self.haslayer(Nack) else ""
        return f"LpPacket {what}{inner.mysummary()}" if inner else "LpPacket"


class NdnPacket(Packet):
    """Whatever one datagram holds: a link packet, an Interest, a Data, or octets that are none of them."""

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_arguments: Any, **_fields: Any) -> type[Packet]:  # noqa: ANN401
        layer = {0x64: LpPacket, 0x05: Interest, 0x06: Data}.get(_pkt[0] if _pkt else 0)
        return Raw if layer is None or dissected_as(layer, bytes(_pkt)) is None else layer


for _layer in (LpPacket, Interest, Data):
    bind_top_down(
        UDP, _layer, sport=PORT, dport=PORT
    )  # what ``UDP() / LpPacket()`` is sent from and to; changes ours only
