"""Fetching one object: its manifest, then its segments, each checked against its digest when it comes."""

from __future__ import annotations

import hashlib
from collections import Counter

from proxy.core.objects.pipeline import Pipeline
from proxy.core.trust import Refusal
from proxy.wire.messages import DIGEST_BYTES, DIGESTS_PER_SEGMENT, OBJECT_MAX_BYTES, ObjectDescription
from proxy.wire.objects import manifest_name, segment_name
from proxy.wire.tlv import MalformedError


class ObjectFetch:
    """Holds digests and counts, not content: whoever wants that takes each segment as it comes."""

    def __init__(self, name: bytes, description: ObjectDescription, *, now_s: float) -> None:
        self.name, self.description, self.begun_s = name, description, now_s
        self.progress_s = now_s  #: when something of it last came
        self.bytes_by_hops: Counter[int] = Counter()  #: content bytes by links crossed; -1: not known
        self._manifest = Pipeline(len(description.manifest_digests))
        self._object = Pipeline(description.segments)
        self._digests: dict[int, bytes] = {}  #: segment of the manifest -> digests

    @property
    def is_complete(self) -> bool:
        return self._object.is_complete

    @property
    def segments(self) -> int:
        """How many have come."""
        return self._object.there

    @property
    def segments_asked(self) -> int:
        return self.description.segments

    @property
    def retransmissions(self) -> int:
        return self._manifest.retransmissions + self._object.retransmissions

    @property
    def next_s(self) -> float | None:
        return self._phase.next_s

    @property
    def size_bytes(self) -> int:
        """What has been fetched so far, without the manifest."""
        return sum(self.bytes_by_hops.values())

    @property
    def _phase(self) -> Pipeline:
        return self._object if self._manifest.is_complete else self._manifest

    def due(self, now_s: float) -> list[bytes] | None:
        """Return the names to ask for now; None: give up."""
        base = self.name if self._manifest.is_complete else manifest_name(self.name)
        indexes = self._phase.due(now_s)
        return None if indexes is None else [segment_name(base, index) for index in indexes]

    def on_data(self, index: int, content: bytes, hop_count: int | None, now_s: float, *, is_manifest: bool) -> None:
        """A segment has come. Raises: Refusal, MalformedError where it is not what the publisher has announced."""
        pipeline = self._manifest if is_manifest else self._object
        if not pipeline.is_asked(index):
            raise Refusal("object_unasked")
        digest = self.description.manifest_digests[index] if is_manifest else self._digest_of(index)
        if hashlib.sha256(content).digest() != digest:
            pipeline.on_refused(index, now_s, is_congestion=False)
            raise Refusal("object_forged")
        if is_manifest:
            left = self.description.segments - index * DIGESTS_PER_SEGMENT
            if len(content) != min(left, DIGESTS_PER_SEGMENT) * DIGEST_BYTES:
                pipeline.on_refused(index, now_s, is_congestion=False)
                raise MalformedError("manifest with too many or too few digests")
            self._digests[index] = content
        else:
            self.bytes_by_hops[-1 if hop_count is None else hop_count] += len(content)
        pipeline.on_data(index, now_s)
        self.progress_s = now_s

    def on_refused(self, index: int, now_s: float, *, is_manifest: bool, is_congestion: bool) -> None:
        """The network has answered with a Nack."""
        (self._manifest if is_manifest else self._object).on_refused(index, now_s, is_congestion=is_congestion)

    def _digest_of(self, index: int) -> bytes:
        digests = self._digests[index // DIGESTS_PER_SEGMENT]
        at = index % DIGESTS_PER_SEGMENT * DIGEST_BYTES
        return digests[at : at + DIGEST_BYTES]


def is_consistent(description: ObjectDescription) -> bool:
    """Tell whether there are as many digests of the manifest as there must be."""
    if description.is_stream:
        return not description.manifest_digests and description.deadline_s > 0
    if description.size_bytes > OBJECT_MAX_BYTES:
        return False
    return len(description.manifest_digests) == -(-description.segments // DIGESTS_PER_SEGMENT)
