"""NDN names as plain bytes: the concatenated TLVs of the components, without the outer Name TLV.

A prefix of a name is then a prefix of its bytes that ends at a component boundary, and a FIB or PIT is a dictionary.
Naming conventions: NDN technical report NDN-0022 revision 3 (typed components).
"""

from __future__ import annotations

import string
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.wire.tlv import MalformedError, elements, non_negative_integer, read_non_negative_integer, tlv

GENERIC: Final = 8
IMPLICIT_SHA256: Final = 1
PARAMETERS_SHA256: Final = 2
KEYWORD: Final = 32
VERSION: Final = 54  #: carries a boot number
SEQUENCE: Final = 58  #: carries a sequence number

#: Longest name we handle; a name with more components is malformed to us (bounded work per packet).
COMPONENTS_MAX: Final = 32

_UNESCAPED = frozenset((string.ascii_letters + string.digits + "-._~").encode())


def component(value: str | bytes, kind: int = GENERIC) -> bytes:
    """Encode one component."""
    return tlv(kind, value.encode() if isinstance(value, str) else value)


def keyword(word: str) -> bytes:
    """Encode a keyword component, which says what kind of message a name is for."""
    return tlv(KEYWORD, word.encode())


def number(value: int, kind: int) -> bytes:
    """Encode a typed number component (boot or sequence number)."""
    return tlv(kind, non_negative_integer(value))


def boundaries(name: bytes) -> list[int]:
    """Return the offset behind each component, ascending.

    Raises: MalformedError for a broken component or more than COMPONENTS_MAX of them.
    """
    ends: list[int] = []
    at, size = 0, len(name)
    while at < size:
        # one-octet type and length, as nearly always; the slow path checks and handles the rest
        if at + 2 <= size and name[at] < 253 and name[at + 1] < 253:
            at += 2 + name[at + 1]
            if at > size:
                raise MalformedError("name component ends behind the name")
        else:
            _, _, at = next(elements(name, at, size))
        ends.append(at)
    if len(ends) > COMPONENTS_MAX:
        raise MalformedError(f"name of {len(ends)} components")
    return ends


def split(name: bytes) -> list[tuple[int, bytes]]:
    """Return the components as (type, value).

    Raises: MalformedError as ``boundaries``, and for component types outside 1 to 65535.
    """
    parts = [(kind, name[start:end]) for kind, start, end in elements(name, 0, len(name))]
    if len(parts) > COMPONENTS_MAX:
        raise MalformedError(f"name of {len(parts)} components")
    if any(not 1 <= kind <= 65_535 for kind, _ in parts):
        raise MalformedError("component type outside 1 to 65535")
    return parts


def read_number(value: bytes) -> int:
    """Decode the value of a typed number component.

    Raises: MalformedError.
    """
    return read_non_negative_integer(value, 0, len(value))


def from_uri(uri: str) -> bytes:
    """Encode an NDN URI such as ``/hconf/csr1/32=sync/main/54=1/58=7``.

    Typed number components are written with their decimal value. Raises: ValueError for what is no NDN URI.

    >>> from_uri("/a/32=sync").hex()
    '080161200473796e63'
    """
    if not uri.startswith("/"):
        raise ValueError(f"{uri!r} is no NDN URI: it must start with '/'")
    encoded = b""
    for part in uri.strip("/").split("/") if uri != "/" else ():
        kind_text, equals, rest = part.partition("=")
        if not equals:
            encoded += component(unquote_to_bytes(part))
            continue
        if not kind_text.isdecimal():
            raise ValueError(f"{uri!r}: component type {kind_text!r} is no number")
        kind = int(kind_text)
        encoded += number(int(rest), kind) if kind in (VERSION, SEQUENCE) else component(unquote_to_bytes(rest), kind)
    return encoded


def to_uri(name: bytes) -> str:
    """Return the URI of a name.

    >>> to_uri(from_uri("/hconf/csr1/32=sync/a%20b/54=1/58=700"))
    '/hconf/csr1/32=sync/a%20b/54=1/58=700'
    """
    return "/" + "/".join(_component_to_uri(kind, value) for kind, value in split(name))


def _component_to_uri(kind: int, value: bytes) -> str:
    if kind in (VERSION, SEQUENCE) and len(value) in (1, 2, 4, 8):
        return f"{kind}={int.from_bytes(value, 'big')}"
    if kind in (IMPLICIT_SHA256, PARAMETERS_SHA256):
        return f"{'sha256digest' if kind == IMPLICIT_SHA256 else 'params-sha256'}={value.hex()}"
    text = "".join(chr(octet) if octet in _UNESCAPED else f"%{octet:02X}" for octet in value)
    return text if kind == GENERIC else f"{kind}={text}"
