"""Scapy layers of our messages, one for each struct in ``proxy.wire.messages`` and under its name.

They are made from the structs, so they have the fields that the nodes have, in the same order. A message that would not
give the same octets again, because something else than a node wrote it, stays octets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.inspect import (
    BoolType,
    BytesType,
    Field,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    TupleType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)
from scapy.packet import Packet, Raw

from proxy.wire import message_names as names
from proxy.wire import messages as wire
from proxy.wire.name import boundaries
from proxy.wire.tlv import MalformedError
from testbed.capture.layers.tlv import LayerField, dissected_as

#: Fields whose octets are a message in encoded form; which one it is in what is sealed, the name of the packet says.
_ENCODED: Final[dict[tuple[type[Struct], str], type[Struct] | None]] = {
    (wire.SignedUpdate, "update"): wire.FpUpdate,
    (wire.StreamEntry, "content"): wire.SyncUpdate,
    (wire.SignedToken, "token"): wire.Token,
    (wire.Sealed, "content"): None,
}
#: What the parameters of an Interest, and the content of a Data, hold; of what is sealed, what it holds in turn.
_PARAMETERS: Final[dict[bytes, tuple[type[Struct], ...]]] = {
    names.LOGIN: (wire.LoginRequest,),
    names.JOIN: (wire.JoinRequest,),
    names.UPDATE: (wire.SignedUpdate,),
    names.NOTIFY: (wire.Notification,),
    names.PUSH: (wire.StreamEntry,),
    names.HEARTBEAT: (wire.Sealed, wire.ClientHeartbeat),
    names.PRESENCE: (wire.ClientHeartbeat,),
    names.RECOVER: (wire.RecoveryRequest,),
    names.CLOSE: (wire.CloseRequest,),
    names.KEYS: (wire.KeysRequest,),
    names.REVOKE: (wire.Sealed, wire.Revocations),
    names.SERVE: (wire.Sealed, wire.ServeRequest),
}
_CONTENTS: Final[dict[bytes, tuple[type[Struct], ...]]] = {
    names.LOGIN: (wire.Sealed, wire.LoginReply),
    names.JOIN: (wire.Sealed, wire.JoinReply),
    names.UPDATE: (wire.UpdateAck,),
    names.SYNC: (wire.SyncUpdate,),
    names.RECOVER: (wire.Sealed, wire.RecoveryReply),
    names.CLOSE: (wire.UpdateAck,),
    names.KEYS: (wire.KeysReply,),
    names.SERVE: (wire.ServeReply,),
    names.PUBLICATION: (wire.SignedUpdate,),
    names.CERTIFICATE: (wire.SignedToken,),
}


class PlainField(LayerField):
    """A field of a message that MessagePack has a type for."""

    def read(self, plain: Any) -> Any:  # noqa: ANN401
        """Return what the field holds. Raises: MalformedError."""
        return plain

    def written(self, value: Any) -> Any:  # noqa: ANN401
        """Return what MessagePack gets."""
        return value


class PlainListField(PlainField):
    islist = 1


class MessageField(PlainField):
    """A message in a message, or none."""

    __slots__ = ("layer",)
    holds_packets = 1

    def __init__(self, name: str, default: Any, layer: type[Message]) -> None:  # noqa: ANN401
        super().__init__(name, default)
        self.layer = layer

    def read(self, plain: Any) -> Message | None:  # noqa: ANN401
        return None if plain is None else self.layer.from_plain(plain)

    def written(self, value: Message | None) -> list[Any] | None:
        return None if value is None else value.plain()


class MessageListField(MessageField):
    islist = 1

    def read(self, plain: Any) -> Any:  # noqa: ANN401
        if not isinstance(plain, list):
            raise MalformedError(f"{self.name} is no list")
        return [self.layer.from_plain(item) for item in plain]

    def written(self, value: Any) -> Any:  # noqa: ANN401
        return [item.plain() for item in value]


class EncodedField(PlainField):
    """Octets that are a message in encoded form."""

    __slots__ = ("layer",)
    holds_packets = 1

    def __init__(self, name: str, default: Any, layer: type[Message] | None) -> None:  # noqa: ANN401
        super().__init__(name, default)
        self.layer = layer

    def any2i(self, pkt: Packet | None, x: Any) -> Any:  # noqa: ANN401, ARG002
        return Raw(load=x) if isinstance(x, bytes) else x

    def read(self, plain: Any) -> Packet:  # noqa: ANN401
        if not isinstance(plain, bytes):
            raise MalformedError(f"{self.name} is no octets")
        known = None if self.layer is None else dissected_as(self.layer, plain)
        return known or Raw(load=plain)

    def written(self, value: Packet) -> bytes:
        return bytes(value)


class Message(Packet):
    """A message: an array in MessagePack."""

    fields_desc: ClassVar[list[Any]] = []

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """Return the layer of what MessagePack says. Raises: MalformedError where that has other fields."""
        message = cls()
        message.take(plain)
        return message

    def take(self, plain: object) -> None:
        """Fill in what MessagePack says. Raises: MalformedError where that has other fields."""
        if not isinstance(plain, list) or len(plain) != len(self.fields_desc):
            raise MalformedError(f"no {type(self).__name__}")
        for field, value in zip(self.fields_desc, plain, strict=True):
            self.fields[field.name] = field.read(value)
        self.explicit = 1

    def plain(self) -> list[Any]:
        """Return what MessagePack gets."""
        return [field.written(self.getfieldval(field.name)) for field in self.fields_desc]

    def do_dissect(self, s: bytes) -> bytes:
        """Read the message. Raises: MalformedError, msgspec.DecodeError."""
        self.take(msgspec.msgpack.decode(s))
        return b""

    def do_build(self) -> bytes:
        return self.self_build() + self.do_build_payload()

    def self_build(self) -> bytes:
        return msgspec.msgpack.encode(self.plain())


def _layer_of(struct: type[Struct], made: dict[str, type[Message]]) -> type[Message]:
    """Return the layer of a struct, and make it, and those that it needs, where that has not been done."""
    known = made.get(struct.__name__)
    if known is None:
        info = type_info(struct)
        assert isinstance(info, StructType)
        fields = [_field_of(struct, field, made) for field in info.fields]
        attributes = {"__module__": __name__, "__doc__": struct.__doc__, "fields_desc": fields}
        known = made[struct.__name__] = type(struct.__name__, (Message,), attributes)
    return known


def _field_of(struct: type[Struct], field: Field, made: dict[str, type[Message]]) -> PlainField:
    default = _default(field.type, made) if field.default is NODEFAULT else field.default
    if (struct, field.name) in _ENCODED:
        inner = _ENCODED[struct, field.name]
        return EncodedField(field.name, Raw(load=b""), None if inner is None else _layer_of(inner, made))
    match field.type:
        case StructType() as inside:
            return MessageField(field.name, default, _layer_of(inside.cls, made))
        case UnionType(types=(StructType() as inside, NoneType()) | (NoneType(), StructType() as inside)):
            return MessageField(field.name, default, _layer_of(inside.cls, made))
        case VarTupleType(item_type=StructType() as inside):
            return MessageListField(field.name, list(default), _layer_of(inside.cls, made))
        case VarTupleType() | UnionType(types=(VarTupleType(), NoneType()) | (NoneType(), VarTupleType())):
            return PlainListField(field.name, None if default is None else list(default))
    return PlainField(field.name, default)


def _default(info: Type, made: dict[str, type[Message]]) -> Any:  # noqa: ANN401 - whatever the field holds
    """Return what a field has in a message made by hand that does not say it: the least that the struct allows."""
    match info:
        case IntType():
            return max(0, info.ge or 0)
        case FloatType():
            return 0.0
        case BytesType():
            return bytes(info.min_length or 0)
        case LiteralType():
            return info.values[0]
        case StructType():
            return _layer_of(info.cls, made)()
        case UnionType():
            return None
        case VarTupleType() | TupleType():
            return []
        case StrType():
            return "-" * (info.min_length or 0)
        case BoolType():
            return False
    raise TypeError(f"no default for {info}")


def _make_layers() -> dict[str, type[Message]]:
    made: dict[str, type[Message]] = {}
    for value in list(vars(wire).values()):
        if isinstance(value, type) and issubclass(value, Struct) and value not in (Struct, names.MessageName):
            _layer_of(value, made)
    return made


#: name of the struct -> its layer
MESSAGE_LAYERS: Final[Mapping[str, type[Message]]] = _make_layers()


def message_in(octets: bytes, *, name: bytes, is_data: bool) -> Packet | None:
    """Return the message in the parameters of an Interest, or in the content of a Data, of this name; None: no known one."""
    if name.startswith(names.OBJECT_ROOT):
        return dissected_as(MESSAGE_LAYERS[wire.StreamFrame.__name__], octets)
    kinds = (_CONTENTS if is_data else _PARAMETERS).get(_kind_of(name))
    if kinds is None:
        return None
    message = dissected_as(MESSAGE_LAYERS[kinds[0].__name__], octets)
    if message is not None and kinds[0] is wire.Sealed:
        to_all = name.startswith(names.ALL_PROXIES) and kinds[1] is wire.ClientHeartbeat
        sealed = wire.ProxyHeartbeat if to_all else kinds[1]
        message.content = dissected_as(MESSAGE_LAYERS[sealed.__name__], bytes(message.content)) or message.content
    return message


def sample_message(kind: bytes, *, is_data: bool) -> Packet | None:
    """Return the least that a packet of this keyword component may carry, unsealed; None where it carries no message."""
    kinds = (_CONTENTS if is_data else _PARAMETERS).get(kind)
    if kinds is None:
        return None
    message = _filled(MESSAGE_LAYERS[kinds[0].__name__])
    if kinds[0] is wire.Sealed:
        message.content = _filled(MESSAGE_LAYERS[kinds[1].__name__])
    return message


def _filled(layer: type[Message]) -> Message:
    """Return a message of this layer with one of each message that may be inside."""
    message = layer()
    for field in layer.fields_desc:
        if isinstance(field, EncodedField | MessageField) and field.layer is not None:
            inside = _filled(field.layer)
            message.setfieldval(field.name, [inside] if isinstance(field, MessageListField) else inside)
    return message


def _kind_of(name: bytes) -> bytes:
    """Return the keyword component that says which kind of message a name is for; nothing where it is none of ours."""
    try:
        ends = boundaries(name)
    except MalformedError:
        return b""
    return name[ends[1] : ends[2]] if len(ends) > 2 and name.startswith(names.ROOT) else b""
