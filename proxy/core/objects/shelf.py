"""What a UE has published: objects it can give out segment by segment, as long as there is room for them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from proxy.wire.messages import DIGESTS_PER_SEGMENT, OBJECT_SEGMENT_BYTES, ObjectDescription
from proxy.wire.name import SEGMENT, number
from proxy.wire.objects import ObjectName
from proxy.wire.packet import encode_data

#: Segments never change, so stores may keep them as long as they like.
SEGMENT_FRESHNESS_MS: Final = 600_000
#: What a device keeps of its own objects; the oldest goes first, and lives on in stores.
SHELF_MAX_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True)
class _Shelved:
    content: bytes
    manifest: tuple[bytes, ...]  #: its segments


class Shelf:
    """Of one device."""

    def __init__(self, *, max_bytes: int = SHELF_MAX_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._objects: OrderedDict[bytes, _Shelved] = OrderedDict()

    def put(self, name: bytes, content: bytes) -> ObjectDescription:
        """Take an object that is not empty; return what to announce."""
        digests = [
            hashlib.sha256(content[at : at + OBJECT_SEGMENT_BYTES]).digest()
            for at in range(0, len(content), OBJECT_SEGMENT_BYTES)
        ]
        manifest = tuple(
            b"".join(digests[at : at + DIGESTS_PER_SEGMENT]) for at in range(0, len(digests), DIGESTS_PER_SEGMENT)
        )
        self._objects[name] = _Shelved(content, manifest)
        self._bytes += len(content)
        while self._bytes > self._max_bytes and len(self._objects) > 1:
            self._bytes -= len(self._objects.popitem(last=False)[1].content)
        manifest_digests = tuple(hashlib.sha256(segment).digest() for segment in manifest)
        return ObjectDescription(len(content), OBJECT_SEGMENT_BYTES, manifest_digests)

    def data(self, asked: ObjectName, name: bytes) -> bytes | None:
        """Return the Data packet that answers an Interest; None where it is not (any more) here."""
        shelved = self._objects.get(asked.object_name)
        if shelved is None:
            return None
        if asked.is_manifest:
            count = len(shelved.manifest)
            content = shelved.manifest[asked.segment] if asked.segment < count else b""
        else:
            count = -(-len(shelved.content) // OBJECT_SEGMENT_BYTES)
            content = shelved.content[asked.segment * OBJECT_SEGMENT_BYTES : (asked.segment + 1) * OBJECT_SEGMENT_BYTES]
        if asked.segment >= count:
            return None
        final_block = number(count - 1, SEGMENT)
        return encode_data(name, content, freshness_ms=SEGMENT_FRESHNESS_MS, final_block=final_block)
