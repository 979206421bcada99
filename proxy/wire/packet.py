"""Interest and Data (NDN Packet Format v0.3), decoded once and forwarded as the bytes that came."""

from __future__ import annotations

import hashlib
from typing import Final

from proxy.wire.name import IMPLICIT_SHA256, PARAMETERS_SHA256
from proxy.wire.tlv import (
    PACKET_MAX_BYTES,
    MalformedError,
    is_critical,
    non_negative_integer,
    read_element,
    read_non_negative_integer,
    tlv,
)
from proxy.wire.value import Value

INTEREST: Final = 0x05
DATA: Final = 0x06
NAME: Final = 0x07
LIFETIME_DEFAULT_MS: Final = 4_000

_CAN_BE_PREFIX: Final = 0x21
_MUST_BE_FRESH: Final = 0x12
_FORWARDING_HINT: Final = 0x1E
_NONCE: Final = 0x0A
_INTEREST_LIFETIME: Final = 0x0C
_HOP_LIMIT: Final = 0x22
_APPLICATION_PARAMETERS: Final = 0x24
_META_INFO: Final = 0x14
_CONTENT: Final = 0x15
_SIGNATURE_INFO: Final = 0x16
_SIGNATURE_VALUE: Final = 0x17
_CONTENT_TYPE: Final = 0x18
_FRESHNESS_PERIOD: Final = 0x19
_FINAL_BLOCK_ID: Final = 0x1A
_SIGNATURE_TYPE_DIGEST_SHA256: Final = tlv(_SIGNATURE_INFO, tlv(0x1B, b"\x00"))
_BEFORE_NONCE: Final = (NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _FORWARDING_HINT)
_INTEREST_ORDER: Final = {
    kind: rank
    for rank, kind in enumerate(
        (NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _FORWARDING_HINT, _NONCE, _INTEREST_LIFETIME, _HOP_LIMIT,
         _APPLICATION_PARAMETERS, 0x2C, 0x2E)
    )
}  # fmt: skip


class Interest(Value):
    """An Interest; *wire* is what arrived."""

    def __init__(  # noqa: PLR0913 - the elements that there are
        self,
        *,
        name: bytes,
        nonce: int,
        nonce_at: int,
        lifetime_ms: int,
        can_be_prefix: bool,
        must_be_fresh: bool,
        hop_limit_at: int,
        parameters: bytes | None,
        parameters_at: int,
        wire: bytes,
    ) -> None:
        self.name: Final = name
        self.nonce: Final = nonce  #: -1 where the packet has none
        self.nonce_at: Final = nonce_at  #: offset of the nonce's 4 octets in *wire*, 0 where there is none
        self.lifetime_ms: Final = lifetime_ms
        self.can_be_prefix: Final = can_be_prefix
        self.must_be_fresh: Final = must_be_fresh
        self.hop_limit_at: Final = hop_limit_at  #: offset of the HopLimit octet in *wire*, 0 where there is none
        self.parameters: Final = parameters  #: ApplicationParameters
        self.parameters_at: Final = parameters_at  #: offset of that element in *wire*, 0 where there is none
        self.wire: Final = wire

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (
            self.name,
            self.nonce,
            self.nonce_at,
            self.lifetime_ms,
            self.can_be_prefix,
            self.must_be_fresh,
            self.hop_limit_at,
            self.parameters,
            self.parameters_at,
            self.wire,
        )


class Data(Value):
    """A Data; *wire* is what arrived."""

    def __init__(self, name: bytes, freshness_ms: int, content: bytes, wire: bytes) -> None:
        self.name: Final = name
        self.freshness_ms: Final = freshness_ms
        self.content: Final = content
        self.wire: Final = wire

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.name, self.freshness_ms, self.content, self.wire)


def decode_interest(wire: bytes) -> Interest:
    """Decode an Interest and check its parameters against their digest in the name: the application's view.

    Raises: MalformedError for anything the packet format forbids; a critical element out of order counts.
    """
    interest = peek_interest(wire)
    if interest.parameters is not None:
        digest = hashlib.sha256(wire[interest.parameters_at :]).digest()
        if not interest.name.endswith(tlv(PARAMETERS_SHA256, digest)):
            raise MalformedError("parameters do not match their digest in the name")
    return interest


def peek_interest(wire: bytes) -> Interest:
    """Decode an Interest without a look at what its parameters say: the forwarder's view.

    Raises: MalformedError as ``decode_interest``, but for the digest.
    """
    kind, at, end = read_element(wire, 0, len(wire))
    if kind != INTEREST or end != len(wire):
        raise MalformedError("not one Interest")
    kind, start, at = read_element(wire, at, end)
    if kind != NAME or start == at:
        raise MalformedError("Interest without a name")
    name = wire[start:at]
    nonce, nonce_at, lifetime_ms, hop_limit_at = -1, 0, LIFETIME_DEFAULT_MS, 0
    can_be_prefix = must_be_fresh = False
    parameters: bytes | None = None
    parameters_at, rank = 0, 0
    while at < end:
        element_at = at
        kind, start, at = read_element(wire, at, end)
        its_rank = _INTEREST_ORDER.get(kind)
        if its_rank is None:
            if is_critical(kind):
                raise MalformedError(f"critical element of unknown type {kind} in an Interest")
            continue
        if its_rank <= rank:
            if is_critical(kind):
                raise MalformedError(f"element of type {kind} out of order in an Interest")
            continue
        rank = its_rank
        if kind == _NONCE:
            if at - start != 4:
                raise MalformedError("nonce is not 4 octets")
            nonce, nonce_at = int.from_bytes(wire[start:at], "big"), start
        elif kind == _INTEREST_LIFETIME:
            lifetime_ms = read_non_negative_integer(wire, start, at)
        elif kind == _HOP_LIMIT:
            if at - start != 1:
                raise MalformedError("hop limit is not 1 octet")
            hop_limit_at = start
        elif kind == _APPLICATION_PARAMETERS:
            parameters, parameters_at = wire[start:at], element_at
        elif kind == _CAN_BE_PREFIX:
            can_be_prefix = True
        elif kind == _MUST_BE_FRESH:
            must_be_fresh = True
    return Interest(
        name=name,
        nonce=nonce,
        nonce_at=nonce_at,
        lifetime_ms=lifetime_ms,
        can_be_prefix=can_be_prefix,
        must_be_fresh=must_be_fresh,
        hop_limit_at=hop_limit_at,
        parameters=parameters,
        parameters_at=parameters_at,
        wire=wire,
    )


def decode_data(wire: bytes) -> Data:
    """Decode a Data; its signature is not verified here.

    Raises: MalformedError.
    """
    kind, at, end = read_element(wire, 0, len(wire))
    if kind != DATA or end != len(wire):
        raise MalformedError("not one Data")
    kind, start, at = read_element(wire, at, end)
    if kind != NAME or start == at:
        raise MalformedError("Data without a name")
    name, freshness_ms, content = wire[start:at], 0, b""
    before, is_signed = NAME, False
    while at < end:
        kind, start, at = read_element(wire, at, end)
        if _META_INFO <= kind <= _SIGNATURE_VALUE:
            if kind <= before:  # the order of the elements is that of their types
                raise MalformedError(f"element of type {kind} out of order in a Data")
            if kind == _META_INFO:
                freshness_ms = _freshness_ms(wire, start, at)
            elif kind == _CONTENT:
                content = wire[start:at]
            elif kind == _SIGNATURE_VALUE:
                is_signed = before == _SIGNATURE_INFO
            before = kind
        elif is_critical(kind):
            raise MalformedError(f"critical element of type {kind} in a Data")
    if not is_signed:
        raise MalformedError("Data without a signature")
    return Data(name, freshness_ms, content, wire)


def full_name(data: Data) -> bytes:
    """Return the name of a Data with its implicit digest, which no other Data has."""
    return data.name + tlv(IMPLICIT_SHA256, hashlib.sha256(data.wire).digest())


def with_nonce(interest: Interest, nonce: int) -> Interest:
    """Return an Interest that came without a nonce, from an application, with one; all else as it was.

    Source: NDN Packet Format, "Nonce": whoever puts an Interest on the network adds one where there is none.
    """
    kind, at, end = read_element(interest.wire, 0, len(interest.wire))
    begin = at
    while at < end:
        kind, _, behind = read_element(interest.wire, at, end)
        if kind not in _BEFORE_NONCE:
            break
        at = behind
    element = tlv(_NONCE, nonce.to_bytes(4, "big"))
    return peek_interest(tlv(INTEREST, interest.wire[begin:at] + element + interest.wire[at:end]))


def _freshness_ms(wire: bytes, at: int, end: int) -> int:
    freshness_ms = before = 0
    while at < end:
        kind, start, at = read_element(wire, at, end)
        if _CONTENT_TYPE <= kind <= _FINAL_BLOCK_ID:
            if kind <= before:
                raise MalformedError(f"element of type {kind} out of order in MetaInfo")
            before = kind
            if kind == _FRESHNESS_PERIOD:
                freshness_ms = read_non_negative_integer(wire, start, at)
        elif is_critical(kind):
            raise MalformedError(f"critical element of unknown type {kind} in MetaInfo")
    return freshness_ms


def encode_interest(
    name: bytes,
    *,
    nonce: int,
    lifetime_ms: int = LIFETIME_DEFAULT_MS,
    parameters: bytes | None = None,
    can_be_prefix: bool = False,
    must_be_fresh: bool = False,
) -> tuple[bytes, bytes]:
    """Return (name, packet); with *parameters* the returned name ends in their digest.

    Raises: ValueError where the packet would be larger than PACKET_MAX_BYTES.
    """
    tail = b""
    if parameters is not None:
        tail = tlv(_APPLICATION_PARAMETERS, parameters)
        name += tlv(PARAMETERS_SHA256, hashlib.sha256(tail).digest())
    packet = tlv(
        INTEREST,
        tlv(NAME, name)
        + (b"\x21\x00" if can_be_prefix else b"")
        + (b"\x12\x00" if must_be_fresh else b"")
        + b"\x0a\x04"
        + nonce.to_bytes(4, "big")
        + tlv(_INTEREST_LIFETIME, non_negative_integer(lifetime_ms))
        + tail,
    )
    return name, _within_limit(packet)


def encode_data(name: bytes, content: bytes, *, freshness_ms: int = 0, final_block: bytes = b"") -> bytes:
    """Return a Data packet under a DigestSha256 signature; *final_block* is the last component that names of its kind have.

    Raises: ValueError where the packet would be larger than PACKET_MAX_BYTES.
    """
    meta = tlv(_FRESHNESS_PERIOD, non_negative_integer(freshness_ms)) if freshness_ms else b""
    if final_block:
        meta += tlv(_FINAL_BLOCK_ID, final_block)
    if meta:
        meta = tlv(_META_INFO, meta)
    signed = tlv(NAME, name) + meta + tlv(_CONTENT, content) + _SIGNATURE_TYPE_DIGEST_SHA256
    return _within_limit(tlv(DATA, signed + tlv(_SIGNATURE_VALUE, hashlib.sha256(signed).digest())))


def _within_limit(packet: bytes) -> bytes:
    if len(packet) > PACKET_MAX_BYTES:
        raise ValueError(f"packet of {len(packet)} bytes; {PACKET_MAX_BYTES} is the limit")
    return packet
