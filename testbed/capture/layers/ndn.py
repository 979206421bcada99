"""Scapy layers of Interests and Data, with everything that NDN Packet Format v0.3 puts in them.

What a packet says stands in elements below it, in the order of the wire: ``packet[Nonce].value``, ``packet[Name].uri``.
Digests are computed where they are left out, as scapy does with checksums: a ParametersSha256DigestComponent without a
value, and the SignatureValue of a Data under a DigestSha256.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar, Final, Self

from scapy.packet import Packet

from proxy.wire.message_names import GROUP
from proxy.wire.name import from_uri, to_uri
from proxy.wire.tlv import MalformedError, tlv
from testbed.capture.layers.messages import message_in
from testbed.capture.layers.tlv import (
    Element,
    ElementsValue,
    NumberValue,
    PacketValue,
    ValueField,
    dissected_as,
    element_fields,
)

PORT: Final = 6363


class Component(Element):
    """A name component of any type."""

    fields_desc: ClassVar[list[Any]] = element_fields(8, ValueField())


class ImplicitSha256DigestComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(1, ValueField(bytes(32)))


class DigestValue(ValueField):
    """A digest; None where it is to be computed."""

    def written(self, element: Element, value: bytes | None) -> bytes:  # noqa: ARG002
        return bytes(32) if value is None else value


class ParametersSha256DigestComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(2, DigestValue(None))


class KeywordNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(32, ValueField())


class SegmentNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(50, NumberValue())


class ByteOffsetNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(52, NumberValue())


class VersionNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(54, NumberValue())


class TimestampNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(56, NumberValue())


class SequenceNumNameComponent(Component):
    fields_desc: ClassVar[list[Any]] = element_fields(58, NumberValue())


_COMPONENTS: Final[Mapping[int, type[Element]]] = {
    1: ImplicitSha256DigestComponent,
    2: ParametersSha256DigestComponent,
    32: KeywordNameComponent,
    50: SegmentNameComponent,
    52: ByteOffsetNameComponent,
    54: VersionNameComponent,
    56: TimestampNameComponent,
    58: SequenceNumNameComponent,
}


class Name(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(7, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = _COMPONENTS
    other_children = Component

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the name that an NDN URI means. Raises: ValueError for what is none."""
        return cls(tlv(7, from_uri(uri)))

    @property
    def uri(self) -> str:
        """Return the NDN URI. Raises: MalformedError where the name is none."""
        return to_uri(self.octets)

    @property
    def octets(self) -> bytes:
        """Return the encoded components."""
        return b"".join(map(bytes, self.value))


class CanBePrefix(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x21, ValueField())


class MustBeFresh(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x12, ValueField())


class ForwardingHint(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x1E, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {7: Name}


class Nonce(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x0A, NumberValue(octets=4))


class InterestLifetime(Element):
    """In ms."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x0C, NumberValue(4_000))


class HopLimit(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x22, NumberValue(255, octets=1))


class ApplicationParameters(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x24, PacketValue())


class SignatureType(Element):
    """0: DigestSha256, 1: RSA, 3: ECDSA, 4: HMAC, 5: Ed25519."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x1B, NumberValue())


class KeyDigest(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x1D, ValueField())


class KeyLocator(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x1C, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {7: Name, 0x1D: KeyDigest}


class SignatureNonce(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x26, ValueField())


class SignatureTime(Element):
    """In ms since 1970."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x28, NumberValue())


class SignatureSeqNum(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x2A, NumberValue())


class NotBefore(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0xFE, ValueField())


class NotAfter(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0xFF, ValueField())


class ValidityPeriod(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0xFD, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {0xFE: NotBefore, 0xFF: NotAfter}


class SignatureInfo(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x16, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {
        0x1B: SignatureType,
        0x1C: KeyLocator,
        0x26: SignatureNonce,
        0x28: SignatureTime,
        0x2A: SignatureSeqNum,
        0xFD: ValidityPeriod,
    }


class SignatureValue(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x17, DigestValue(None))


class InterestSignatureInfo(SignatureInfo):
    fields_desc: ClassVar[list[Any]] = element_fields(0x2C, ElementsValue())


class InterestSignatureValue(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x2E, ValueField())


class ContentType(Element):
    """0: a blob, 1: a link, 2: a key, 3: a Nack of the application."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x18, NumberValue())


class FreshnessPeriod(Element):
    """In ms."""

    fields_desc: ClassVar[list[Any]] = element_fields(0x19, NumberValue())


class FinalBlockId(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x1A, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = _COMPONENTS
    other_children = Component


class MetaInfo(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x14, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {0x18: ContentType, 0x19: FreshnessPeriod, 0x1A: FinalBlockId}


class Content(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(0x15, PacketValue())


class BootstrapTime(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(212, NumberValue())


class SeqNo(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(214, NumberValue())


class SeqNoEntry(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(210, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {212: BootstrapTime, 214: SeqNo}


class StateVectorEntry(Element):
    fields_desc: ClassVar[list[Any]] = element_fields(202, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {7: Name, 210: SeqNoEntry}


class StateVector(Element):
    """State Vector Sync, version 3: what a sync Interest carries, inside of a Data."""

    fields_desc: ClassVar[list[Any]] = element_fields(201, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {202: StateVectorEntry}


class PSyncContent(Element):
    """PSync: the names that answer a sync Interest."""

    fields_desc: ClassVar[list[Any]] = element_fields(128, ElementsValue())
    children: ClassVar[Mapping[int, type[Element]]] = {7: Name}


def _in_sync_group(octets: bytes) -> Packet | None:
    """Return what a packet of a sync group carries; None: nothing that is known."""
    layer = {0x06: Data, 128: PSyncContent, 201: StateVector}.get(octets[0] if octets else 0)
    return None if layer is None else dissected_as(layer, octets)


class NamedPacket(Element):
    """An Interest or a Data."""

    carrier: ClassVar[type[Element]]  #: the element that our messages travel in

    def do_dissect(self, s: bytes) -> bytes:
        """Read the packet, and the message in it if it is one of ours. Raises: MalformedError."""
        rest = super().do_dissect(s)
        elements = self.value
        if elements and isinstance(elements[0], Name):
            for element in elements[1:]:
                if isinstance(element, self.carrier):
                    octets, name = bytes(element.value), elements[0].octets
                    if name.startswith(GROUP):
                        message = _in_sync_group(octets)
                    else:
                        message = message_in(octets, name=name, is_data=isinstance(self, Data))
                    element.value = element.value if message is None else message
        return rest

    def mysummary(self) -> str:
        try:
            return f"{type(self).__name__} {self[Name].uri}"
        except (IndexError, MalformedError):
            return type(self).__name__


class Interest(NamedPacket):
    fields_desc: ClassVar[list[Any]] = element_fields(0x05, ElementsValue())
    carrier = ApplicationParameters
    children: ClassVar[Mapping[int, type[Element]]] = {
        7: Name,
        0x21: CanBePrefix,
        0x12: MustBeFresh,
        0x1E: ForwardingHint,
        0x0A: Nonce,
        0x0C: InterestLifetime,
        0x22: HopLimit,
        0x24: ApplicationParameters,
        0x2C: InterestSignatureInfo,
        0x2E: InterestSignatureValue,
    }

    def value_octets(self) -> bytes:
        parts = [bytes(element) for element in self.value]
        at = next((at for at, element in enumerate(self.value) if isinstance(element, self.carrier)), None)
        if at is not None and isinstance(self.value[0], Name):
            name = self.value[0].copy()
            for component in name.value:
                if isinstance(component, ParametersSha256DigestComponent) and component.value is None:
                    component.value = sha256(b"".join(parts[at:])).digest()
            parts[0] = bytes(name)
        return b"".join(parts)


class Data(NamedPacket):
    fields_desc: ClassVar[list[Any]] = element_fields(0x06, ElementsValue())
    carrier = Content
    children: ClassVar[Mapping[int, type[Element]]] = {
        7: Name,
        0x14: MetaInfo,
        0x15: Content,
        0x16: SignatureInfo,
        0x17: SignatureValue,
    }

    def value_octets(self) -> bytes:
        parts = [bytes(element) for element in self.value]
        last = self.value[-1] if self.value else None
        if isinstance(last, SignatureValue) and last.value is None and self._is_digest_sha256:
            parts[-1] = bytes(SignatureValue(value=sha256(b"".join(parts[:-1])).digest()))
        return b"".join(parts)

    @property
    def _is_digest_sha256(self) -> bool:
        kind = self.getlayer(SignatureType)
        return kind is not None and kind.value == 0
