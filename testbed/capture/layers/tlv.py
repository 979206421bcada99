"""What every scapy layer of an NDN packet is made of: one type-length-value element.

A dissected element keeps no bytes of its own: it is built anew from its fields each time, so an edit anywhere below it
changes all lengths above it. A length is only in the fields where it was set by hand, to make a packet that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from scapy.fields import Field
from scapy.packet import Packet, Raw

from proxy.wire.tlv import (
    MalformedError,
    non_negative_integer,
    read_element,
    read_non_negative_integer,
    tlv,
    var_number,
)


class LayerField(Field[Any, Any]):
    """A field that its packet reads and writes."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, Any]:
        raise NotImplementedError(f"{type(pkt).__name__} reads its fields together")

    def addfield(self, pkt: Packet, s: bytes, val: Any) -> bytes:  # noqa: ANN401
        raise NotImplementedError(f"{type(pkt).__name__} writes its fields together")


class ValueField(LayerField):
    """The value of an element: octets."""

    def __init__(self, default: Any = b"") -> None:  # noqa: ANN401
        super().__init__("value", default)

    def read(self, element: Element, octets: bytes) -> Any:  # noqa: ANN401, ARG002
        """Return what the field holds; may set the length of *element*. Raises: MalformedError."""
        return octets

    def written(self, element: Element, value: Any) -> bytes:  # noqa: ANN401, ARG002
        """Return the octets."""
        return bytes(value)


class NumberValue(ValueField):
    """A NonNegativeInteger, or a number of fixed width."""

    __slots__ = ("octets",)

    def __init__(self, default: int = 0, *, octets: int | None = None) -> None:
        super().__init__(default)
        self.octets = octets

    def read(self, element: Element, octets: bytes) -> int:
        if self.octets is None:
            number = read_non_negative_integer(octets, 0, len(octets))
            if non_negative_integer(number) != octets:
                element.fields["length"] = len(octets)  # longer than it needs to be, which is allowed
            return number
        if len(octets) != self.octets:
            raise MalformedError(f"number of {len(octets)} octets where {self.octets} belong")
        return int.from_bytes(octets, "big")

    def written(self, element: Element, value: int) -> bytes:
        if self.octets is not None:
            return value.to_bytes(self.octets, "big")
        shortest = non_negative_integer(value)
        length = element.length
        return value.to_bytes(length, "big") if length in (1, 2, 4, 8) and length > len(shortest) else shortest


class ElementsValue(ValueField):
    """Elements, one after the other; what is none stays as it is, at the end."""

    islist = 1
    holds_packets = 1

    def __init__(self) -> None:
        super().__init__([])

    def read(self, element: Element, octets: bytes) -> list[Packet]:
        found: list[Packet] = []
        at = 0
        while at < len(octets):
            try:
                kind, _, end = read_element(octets, at, len(octets))
            except MalformedError:
                found.append(Raw(load=octets[at:]))
                break
            found.append(element.child(kind, octets[at:end]))
            at = end
        return found

    def written(self, element: Element, value: list[Packet]) -> bytes:  # noqa: ARG002
        return b"".join(map(bytes, value))


class PacketValue(ValueField):
    """A packet or message of its own; octets as long as nobody knows better."""

    holds_packets = 1

    def __init__(self) -> None:
        super().__init__(Raw(load=b""))

    def any2i(self, pkt: Packet | None, x: Any) -> Any:  # noqa: ANN401, ARG002
        return Raw(load=x) if isinstance(x, bytes) else x

    def read(self, element: Element, octets: bytes) -> Packet:  # noqa: ARG002
        return Raw(load=octets)


class Element(Packet):
    """One TLV element; by itself one of a type that its parent does not know."""

    fields_desc: ClassVar[list[Any]] = [LayerField("type", 0), LayerField("length", None), ValueField()]
    #: what may be inside: TLV-TYPE -> layer
    children: ClassVar[Mapping[int, type[Element]]] = {}
    other_children: ClassVar[type[Element] | None] = None  #: for all other types; None: `Element`

    def child(self, kind: int, octets: bytes) -> Element:
        """Return the layer of the well-formed element *octets* inside this one."""
        other = self.other_children or Element
        known = dissected_as(self.children.get(kind, other), octets) or dissected_as(other, octets)
        return known if isinstance(known, Element) else Element(octets)

    def do_dissect(self, s: bytes) -> bytes:
        """Read one element. Raises: MalformedError."""
        kind, start, end = read_element(s, 0, len(s))
        self.fields["type"] = kind
        self.fields["value"] = self._value_field.read(self, s[start:end])
        self.explicit = 1
        return s[end:]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        return b"", s

    def do_build(self) -> bytes:
        return self.self_build() + self.do_build_payload()

    def self_build(self) -> bytes:
        value = self.value_octets()
        length = self.getfieldval("length")
        if length is None or isinstance(self._value_field, NumberValue):
            return tlv(self.type, value)
        return var_number(self.type) + var_number(length) + value

    def value_octets(self) -> bytes:
        """Return the value as it goes on the wire."""
        return self._value_field.written(self, self.getfieldval("value"))

    @property
    def _value_field(self) -> ValueField:
        field = self.fieldtype["value"]
        assert isinstance(field, ValueField)
        return field


def element_fields(kind: int, value: ValueField) -> list[LayerField]:
    """Return the fields of a layer of this TLV-TYPE."""
    return [LayerField("type", kind), LayerField("length", None), value]


def dissected_as(layer: type[Packet], octets: bytes) -> Packet | None:
    """Return *octets* as this layer, None where that would not give the same octets again."""
    try:
        packet = layer(octets)
        return packet if bytes(packet) == octets else None
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
