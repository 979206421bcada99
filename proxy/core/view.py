"""What a participant sees of a conference: per publisher how far, in order, each update once; and who is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, Head, SignedUpdate, Via, decode

#: Updates of one publisher kept while an earlier one is missing; beyond that the newest are dropped and recovered later.
HELD_MAX = 1_024


def chained(digest: bytes, *contents: bytes) -> bytes:
    """Return the digest of a chain after one more link.

    >>> chained(bytes(16), b"a", b"b") != chained(bytes(16), b"ab")
    True
    """
    state = hashlib.sha256(digest)
    for content in contents:
        state.update(len(content).to_bytes(4, "big"))
        state.update(content)
    return state.digest()[:16]


class AppliedUpdate(Struct, frozen=True):
    """One update that has just become visible."""

    update: FpUpdate
    signed: SignedUpdate
    via: Via


@dataclass(slots=True)
class _Publisher:
    seq: int = 0
    content_digest: bytes = EMPTY_DIGEST
    joined: bool = False
    held: dict[int, AppliedUpdate] = field(default_factory=dict)


class View:
    """Keyed by (device, boot): a publisher that starts again is a new sequence."""

    def __init__(self) -> None:
        self._publishers: dict[tuple[str, int], _Publisher] = {}

    def seq(self, device: str, boot: int) -> int:
        """Return the last sequence number applied of a publisher, 0 for none."""
        publisher = self._publishers.get((device, boot))
        return publisher.seq if publisher is not None else 0

    def offer(self, signed: SignedUpdate, via: Via) -> list[AppliedUpdate]:
        """Take in an update; return what can be applied now, in order (none where it is known or comes too early).

        Raises: MalformedError.
        """
        update = decode(signed.update, FpUpdate)
        publisher = self._publishers.setdefault((update.device, update.boot), _Publisher())
        if update.seq <= publisher.seq or update.seq in publisher.held:
            return []
        if update.seq > publisher.seq + 1:
            if len(publisher.held) < HELD_MAX:
                publisher.held[update.seq] = AppliedUpdate(update, signed, via)
            return []
        return [self._apply(publisher, AppliedUpdate(update, signed, via)), *self._release(publisher)]

    def _apply(self, publisher: _Publisher, applied: AppliedUpdate) -> AppliedUpdate:
        publisher.seq = applied.update.seq
        publisher.content_digest = chained(publisher.content_digest, applied.signed.update)
        if applied.update.event in ("join", "leave"):
            publisher.joined = applied.update.event == "join"
        return applied

    def _release(self, publisher: _Publisher) -> list[AppliedUpdate]:
        released = []
        while (held := publisher.held.pop(publisher.seq + 1, None)) is not None:
            released.append(self._apply(publisher, held))
        return released

    def install(self, heads: Iterable[Head]) -> tuple[list[Head], list[AppliedUpdate]]:
        """Take over a snapshot; return the heads that brought something new and what could be applied behind them."""
        news: list[Head] = []
        released: list[AppliedUpdate] = []
        for head in heads:
            publisher = self._publishers.setdefault((head.device, head.boot), _Publisher())
            if head.seq <= publisher.seq:
                continue
            news.append(head)
            publisher.seq, publisher.content_digest, publisher.joined = head.seq, head.content_digest, head.joined
            publisher.held = {seq: held for seq, held in publisher.held.items() if seq > head.seq}
            released += self._release(publisher)
        return news, released

    def heads(self) -> tuple[Head, ...]:
        """Return what is known of every publisher, sorted."""
        return tuple(
            Head(device, boot, publisher.seq, publisher.content_digest, publisher.joined)
            for (device, boot), publisher in sorted(self._publishers.items())
            if publisher.seq
        )

    def held(self) -> tuple[SignedUpdate, ...]:
        """Return the updates that cannot be applied yet because an earlier one is missing, sorted."""
        return tuple(
            publisher.held[seq].signed
            for _, publisher in sorted(self._publishers.items())
            for seq in sorted(publisher.held)
        )

    def roster(self) -> list[str]:
        """Return the devices that are joined, sorted; the latest boot of a device decides."""
        latest = {head.device: head.joined for head in self.heads()}  # sorted by boot, so the last one wins
        return sorted(device for device, joined in latest.items() if joined)

    def digest(self) -> bytes:
        """Return 16 bytes that are equal where two views are equal."""
        return chained(
            EMPTY_DIGEST,
            *(f"{head.device} {head.boot} {head.seq} {head.content_digest.hex()}".encode() for head in self.heads()),
        )
