"""Data signed with a participant's own key, as sync protocols put them into their Interests.

Source: NDN Packet Format v0.3, "Signature": SignatureEd25519 is type 5 and covers everything from the name to the
SignatureInfo, whose KeyLocator says by whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from proxy.wire.packet import DATA, NAME
from proxy.wire.tlv import MalformedError, elements, is_critical, non_negative_integer, read_element, tlv

_META_INFO: Final = 0x14
_CONTENT: Final = 0x15
_SIGNATURE_INFO: Final = 0x16
_SIGNATURE_VALUE: Final = 0x17
_SIGNATURE_TYPE: Final = 0x1B
_KEY_LOCATOR: Final = 0x1C
_FRESHNESS_PERIOD: Final = 0x19
_FINAL_BLOCK_ID: Final = 0x1A
SIGNATURE_ED25519: Final = 5


class SignedData(Struct, frozen=True):
    """A Data whose signature has still to be verified."""

    name: bytes
    content: bytes
    key_name: bytes  #: whose key: the name in the KeyLocator
    statement: bytes  #: what the signature covers
    signature: bytes


def encode_signed_data(
    name: bytes,
    content: bytes,
    *,
    key_name: bytes,
    sign: Callable[[bytes], bytes],
    freshness_ms: int = 0,
    final_block: bytes = b"",
) -> bytes:
    """Return a Data that *sign* has signed; *key_name* tells where the key is found. The rest as of `encode_data`."""
    meta = tlv(_FRESHNESS_PERIOD, non_negative_integer(freshness_ms)) if freshness_ms else b""
    if final_block:
        meta += tlv(_FINAL_BLOCK_ID, final_block)
    if meta:
        meta = tlv(_META_INFO, meta)
    info = tlv(_SIGNATURE_TYPE, bytes((SIGNATURE_ED25519,))) + tlv(_KEY_LOCATOR, tlv(NAME, key_name))
    statement = tlv(NAME, name) + meta + tlv(_CONTENT, content) + tlv(_SIGNATURE_INFO, info)
    return tlv(DATA, statement + tlv(_SIGNATURE_VALUE, sign(statement)))


def decode_signed_data(wire: bytes) -> SignedData:
    """Take a Data apart that is signed with an Ed25519 key. Raises: MalformedError."""
    kind, start, end = read_element(wire, 0, len(wire))
    if kind != DATA or end != len(wire):
        raise MalformedError("not one Data")
    kind, at, name_end = read_element(wire, start, end)
    if kind != NAME or at == name_end:
        raise MalformedError("Data without a name")
    name, content, key_name, signature, covered = wire[at:name_end], b"", b"", b"", 0
    before, behind = NAME, name_end
    while behind < end:
        kind, at, behind = read_element(wire, behind, end)
        if not _META_INFO <= kind <= _SIGNATURE_VALUE:
            if is_critical(kind):
                raise MalformedError(f"critical element of type {kind} in a Data")
            continue
        if kind <= before:
            raise MalformedError(f"element of type {kind} out of order in a Data")
        if kind == _CONTENT:
            content = wire[at:behind]
        elif kind == _SIGNATURE_INFO:
            key_name, covered = _key_name(wire, at, behind), behind
        elif kind == _SIGNATURE_VALUE:
            signature = wire[at:behind]
        before = kind
    if not covered or not signature:
        raise MalformedError("Data without an Ed25519 signature")
    return SignedData(name, content, key_name, wire[start:covered], signature)


def _key_name(wire: bytes, at: int, end: int) -> bytes:
    """Return the name in the KeyLocator of a SignatureInfo."""
    signature_type, key_name = -1, b""
    for kind, start, behind in elements(wire, at, end):
        if kind == _SIGNATURE_TYPE:
            signature_type = int.from_bytes(wire[start:behind], "big")
        elif kind == _KEY_LOCATOR:
            inner, name_start, name_end = read_element(wire, start, behind)
            if inner == NAME and name_end == behind:
                key_name = wire[name_start:name_end]
    if signature_type != SIGNATURE_ED25519 or not key_name:
        raise MalformedError("signature is not Ed25519 by a key with a name")
    return key_name
