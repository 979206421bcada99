"""Snapshots that are larger than a packet: frozen and cut into segments by one side, fetched and checked by the other.

A frozen snapshot never changes and its digest is in its names: whoever joins within a short time asks for the same
segments, and content stores and the aggregation of pending Interests serve a crowd as they serve one. Nothing is taken over
before all of it is there and has the digest that the proxy has announced; whatever goes wrong leads to asking anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from proxy.core.consumer import Consumer
from proxy.core.digest_log import DigestLog
from proxy.core.events import Effect
from proxy.core.trust import Refusal
from proxy.wire.message_names import SNAPSHOT, message_name, node_prefix
from proxy.wire.messages import SEGMENT_BYTES, SNAPSHOT_MAX_BYTES, Position, Snapshot, SnapshotManifest
from proxy.wire.payload import decode, encode

#: Frozen snapshots kept per conference; the one not asked for the longest goes first.
FROZEN_MAX: Final = 4
#: A frozen snapshot that nobody has asked for so long is forgotten.
FROZEN_IDLE_S: Final = 30.0
#: Another one is frozen no sooner than this after the last, or those who fetch would see theirs forgotten meanwhile ...
FREEZE_INTERVAL_S: Final = 1.0
#: ... and not before what has come since, in entries of about this size, is a quarter as long as the snapshot.
ENTRY_MEAN_BYTES: Final = 500
#: Segments asked for and not yet there; some 64 kB, about what a link of 10 Mbit/s carries in a round trip of 50 ms.
IN_FLIGHT_MAX: Final = 8
#: Times that a segment is asked for before all of it is given up.
SEGMENT_ATTEMPTS: Final = 6
#: The consumer's estimate of round trips is that of segments, whoever sends them: most of a round trip is their size.
SEGMENTS: Final = "segments"

K = TypeVar("K", bound=Hashable)


@dataclass
class Frozen:
    """One snapshot as it was at some moment."""

    manifest: SnapshotManifest
    content: bytes
    vector: tuple[Position, ...]
    frozen_s: float
    used_s: float  #: when it was last announced or asked for


class FrozenSnapshots:
    """Those of one conference at one proxy."""

    def __init__(self, *, max_bytes: int = SNAPSHOT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._by_digest: dict[str, Frozen] = {}
        self._newest: Frozen | None = None

    def __len__(self) -> int:
        return len(self._by_digest)

    def reusable(self, log: DigestLog, *, now_s: float) -> SnapshotManifest | None:
        """Return the newest, if who installs it can go on from there with entries, and these are not too many."""
        newest = self._newest
        if newest is None or not log.reaches_back_to(newest.vector):
            return None
        entries = sum(seq for _, _, seq in log.vector()) - sum(seq for _, _, seq in newest.vector)
        is_short = entries * ENTRY_MEAN_BYTES <= max(SEGMENT_BYTES, newest.manifest.size_bytes // 4)
        if not is_short and now_s - newest.frozen_s >= FREEZE_INTERVAL_S:
            return None
        newest.used_s = now_s
        return newest.manifest

    def freeze(self, log: DigestLog, *, boot: int, now_s: float) -> SnapshotManifest | None:
        """Freeze the log's snapshot, with all tokens; None where it is larger than anybody would take."""
        content = encode(log.snapshot(complete=True))
        if len(content) > self._max_bytes:
            return None
        manifest = SnapshotManifest(boot, len(content), hashlib.sha256(content).digest())
        self._newest = Frozen(manifest, content, log.vector(), now_s, now_s)
        self._by_digest[manifest.digest.hex()] = self._newest
        if len(self._by_digest) > FROZEN_MAX:
            others = (digest for digest in self._by_digest if digest != manifest.digest.hex())
            del self._by_digest[min(others, key=lambda digest: self._by_digest[digest].used_s)]
        return manifest

    def segment(self, digest: str, number: int, *, now_s: float) -> bytes:
        """Return a segment; empty where there is none (any more)."""
        frozen = self._by_digest.get(digest)
        if frozen is None or number >= frozen.manifest.segments:
            return b""
        frozen.used_s = now_s
        return frozen.content[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]

    def forget_idle(self, *, now_s: float) -> None:
        """Forget what nobody has asked for for a while."""
        for digest, frozen in list(self._by_digest.items()):
            if now_s - frozen.used_s > FROZEN_IDLE_S:
                del self._by_digest[digest]
                if frozen is self._newest:
                    self._newest = None


class SnapshotFetch(Generic[K]):
    """Fetches one snapshot at a time through *consumer*, which knows the segment with a number by ``key(number)``.

    *asker* is no other node's, nor another boot's.
    """

    def __init__(self, consumer: Consumer[K], key: Callable[[int], K], *, conference: str, asker: str) -> None:
        self.source = ""  #: the proxy that is asked; empty while nothing is under way
        self.current: tuple[Position, ...] = ()  #: what that proxy said of its state when it announced the snapshot
        self._consumer, self._key = consumer, key
        self._conference, self._asker = conference, asker
        self._manifest: SnapshotManifest | None = None
        self._parts: dict[int, bytes] = {}
        self._next = 0  #: segments from this one on have not been asked for
        self._forged = 0  #: snapshots in a row that did not have their digest

    @property
    def is_under_way(self) -> bool:
        return self._manifest is not None

    def start(
        self, manifest: SnapshotManifest, source: str, *, current: tuple[Position, ...], now_s: float
    ) -> list[Effect]:
        """Fetch what *source* has announced, instead of what was being fetched."""
        if (manifest, source) == (self._manifest, self.source):
            self.current = current
            return []
        self.cancel()
        self._manifest, self.source, self.current = manifest, source, current
        return self._ask(now_s)

    def cancel(self) -> None:
        """Stop fetching; nothing need be under way."""
        for number in range(self._next):
            self._consumer.cancel(self._key(number))
        self._manifest, self.source, self.current = None, "", ()
        self._parts, self._next = {}, 0

    def take(self, number: int, content: bytes, *, now_s: float) -> tuple[list[Effect], Snapshot | None]:
        """Take in a segment; return what to send, and the snapshot once it is complete (then nothing is under way).

        Raises: Refusal, MalformedError where it is of no use; then nothing is under way either.
        """
        manifest = self._manifest
        if manifest is None:
            return [], None
        if not content:
            self.cancel()
            raise Refusal("snapshot_gone")
        if len(content) != min(SEGMENT_BYTES, manifest.size_bytes - number * SEGMENT_BYTES):
            raise self._forgery()
        self._parts[number] = content
        if len(self._parts) < manifest.segments:
            return self._ask(now_s), None
        whole = b"".join(self._parts[each] for each in range(manifest.segments))
        if hashlib.sha256(whole).digest() != manifest.digest:
            raise self._forgery()
        self._forged = 0
        self.cancel()
        return [], decode(whole, Snapshot)

    def _forgery(self) -> Refusal:
        self.cancel()
        self._forged += 1
        return Refusal("snapshot_forged")

    def _ask(self, now_s: float) -> list[Effect]:
        assert self._manifest is not None, "asked for segments of no snapshot"
        effects: list[Effect] = []
        # Whoever forged a segment may have filled content stores with it: the next time the names are our own.
        parameters = f"{self._asker} {self._forged}".encode() if self._forged else None
        while self._next < self._manifest.segments and self._next - len(self._parts) < IN_FLIGHT_MAX:
            name = message_name(
                node_prefix(self.source), SNAPSHOT, self._conference, self._manifest.digest.hex(),
                boot=self._manifest.boot, seq=self._next,
            )  # fmt: skip
            effects += self._consumer.express(
                self._key(self._next),
                name,
                now_s=now_s,
                peer=SEGMENTS,
                parameters=parameters,
                attempts_max=SEGMENT_ATTEMPTS,
            )
            self._next += 1
        return effects
