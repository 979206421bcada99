"""Payloads: messages (``proxy.wire.messages``) in MessagePack, and back. A module of its own, so that it is compiled."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from proxy.wire.tlv import MalformedError

M = TypeVar("M", bound=Struct)
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[type[Struct], msgspec.msgpack.Decoder[Any]]] = {}


def encode(message: Struct) -> bytes:
    """Return the payload of a message."""
    return _ENCODER.encode(message)


def encoded_size_bytes(value: object) -> int:
    """Return how long a message, or a part of one, is when it is encoded."""
    return len(_ENCODER.encode(value))


def decode(payload: bytes | None, kind: type[M]) -> M:
    """Decode and validate a payload.

    Raises: MalformedError, saying what was wrong.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        message: M = decoder.decode(payload or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"{kind.__name__}: {error}") from error
    return message
