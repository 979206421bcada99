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
SEGMENT: Final = 50  #: carries the number of a segment
VERSION: Final = 54  #: carries a boot number
SEQUENCE: Final = 58  #: carries a sequence number

#: SHA-256, of the two kinds of components that carry one.
DIGEST_OCTETS: Final = 32
_DIGEST_START: Final = bytes((IMPLICIT_SHA256, DIGEST_OCTETS))

#: Longest name we handle; a name with more components is malformed to us (bounded work per packet).
COMPONENTS_MAX: Final = 32

#: How a URI spells the components that have a form of their own.
_NUMBERS: Final = {"seg": SEGMENT, "v": VERSION, "seq": SEQUENCE}
_DIGESTS: Final = {"sha256digest": IMPLICIT_SHA256, "params-sha256": PARAMETERS_SHA256}
_UNESCAPED: Final = frozenset((string.ascii_letters + string.digits + "-._~").encode())


def component(value: str | bytes, kind: int = GENERIC) -> bytes:
    """Encode one component."""
    return tlv(kind, value.encode() if isinstance(value, str) else value)


def keyword(word: str) -> bytes:
    """Encode a keyword component, which says what kind of message a name is for."""
    return tlv(KEYWORD, word.encode())


def number(value: int, kind: int) -> bytes:
    """Encode a typed number component (boot, sequence number or segment)."""
    return tlv(kind, non_negative_integer(value))


def boundaries(name: bytes) -> list[int]:
    """Return the offset behind each component, ascending.

    Raises: MalformedError for a broken component, a type outside 1 to 65535, a digest that is not 32 octets long, or more
        than COMPONENTS_MAX components.
    """
    ends: list[int] = []
    at, size = 0, len(name)
    while at < size:
        # one-octet type and length, as nearly always; the slow path checks and handles the rest
        if at + 2 <= size and PARAMETERS_SHA256 < name[at] < 253 and name[at + 1] < 253:
            at += 2 + name[at + 1]
            if at > size:
                raise MalformedError("name component ends behind the name")
        else:
            kind, start, at = next(elements(name, at, size))
            _check_component(kind, at - start)
        if len(ends) == COMPONENTS_MAX:
            raise MalformedError(f"name of more than {COMPONENTS_MAX} components")
        ends.append(at)
    return ends


def split(name: bytes) -> list[tuple[int, bytes]]:
    """Return the components as (type, value).

    Raises: MalformedError as ``boundaries``.
    """
    parts: list[tuple[int, bytes]] = []
    for kind, start, end in elements(name, 0, len(name)):
        if len(parts) == COMPONENTS_MAX:
            raise MalformedError(f"name of more than {COMPONENTS_MAX} components")
        _check_component(kind, end - start)
        parts.append((kind, name[start:end]))
    return parts


def _check_component(kind: int, size: int) -> None:
    if not 1 <= kind <= 65_535:
        raise MalformedError(f"component type {kind} is outside 1 to 65535")
    if kind in (IMPLICIT_SHA256, PARAMETERS_SHA256) and size != DIGEST_OCTETS:
        raise MalformedError(f"digest of {size} octets in a name")


def split_implicit_digest(name: bytes) -> tuple[bytes, bytes] | None:
    """Return (name of the Data, its digest) of a name that ends in an implicit digest, None for any other.

    Raises: MalformedError as ``boundaries``.

    >>> split_implicit_digest(from_uri("/a/sha256digest=" + 32 * "00")) == (from_uri("/a"), bytes(32))
    True
    """
    at = len(name) - len(_DIGEST_START) - DIGEST_OCTETS
    # What looks like one may also be the end of a long component: then no component begins there.
    if at <= 0 or name[at : at + len(_DIGEST_START)] != _DIGEST_START or at not in boundaries(name):
        return None
    return name[:at], name[-DIGEST_OCTETS:]


def read_number(value: bytes) -> int:
    """Decode the value of a typed number component.

    Raises: MalformedError.
    """
    return read_non_negative_integer(value, 0, len(value))


def from_uri(uri: str) -> bytes:
    """Encode an NDN URI such as ``/hconf/csr1/32=sync/main/v=1/seq=7``.

    Source: NDN Packet Format, "NDN URI Scheme"; NDN-0022 for ``seg=``, ``v=`` and ``seq=``. Raises: ValueError for what is none.

    >>> from_uri("/a/32=sync").hex()
    '080161200473796e63'
    """
    if not uri.startswith("/"):
        raise ValueError(f"{uri!r} is no NDN URI: it must start with '/'")
    parts = uri.removeprefix("/").removesuffix("/")
    return b"".join(_component_from_uri(part, uri) for part in parts.split("/")) if parts else b""


def _component_from_uri(part: str, uri: str) -> bytes:
    kind_text, equals, rest = part.partition("=")
    if not equals:
        return component(_unescaped(part, uri))
    if kind_text in _NUMBERS:
        if not rest.isdecimal():
            raise ValueError(f"{uri!r}: {rest!r} is no number")
        return number(int(rest), _NUMBERS[kind_text])
    if kind_text in _DIGESTS:
        digest = bytes.fromhex(rest)
        if len(digest) != 32:
            raise ValueError(f"{uri!r}: a digest has 32 octets, not {len(digest)}")
        return component(digest, _DIGESTS[kind_text])
    if not kind_text.isdecimal() or not 1 <= int(kind_text) <= 65_535:
        raise ValueError(f"{uri!r}: {kind_text!r} is no component type")
    return component(_unescaped(rest, uri), int(kind_text))


def _unescaped(text: str, uri: str) -> bytes:
    """Undo percent escapes; a component of periods alone has three more in a URI, so that none is ``.`` or ``..``."""
    value = unquote_to_bytes(text)
    if value.strip(b"."):
        return value
    if len(value) < 3:
        raise ValueError(f"{uri!r}: a component of {len(value)} periods; write three more than it has")
    return value[3:]


def to_uri(name: bytes) -> str:
    """Return the URI of a name.

    Raises: MalformedError as ``split``.

    >>> to_uri(from_uri("/hconf/csr1/32=sync/a%20b/v=1/seq=700"))
    '/hconf/csr1/32=sync/a%20b/v=1/seq=700'
    """
    return "/" + "/".join(_component_to_uri(kind, value) for kind, value in split(name))


def _component_to_uri(kind: int, value: bytes) -> str:
    for word, its_kind in _NUMBERS.items():
        if kind == its_kind and value == non_negative_integer(int.from_bytes(value[:8], "big")):
            return f"{word}={int.from_bytes(value, 'big')}"
    for word, its_kind in _DIGESTS.items():
        if kind == its_kind and len(value) == 32:
            return f"{word}={value.hex()}"
    text = "".join(chr(octet) if octet in _UNESCAPED else f"%{octet:02X}" for octet in value)
    if not value.strip(b"."):
        text += "..."
    return text if kind == GENERIC else f"{kind}={text}"
