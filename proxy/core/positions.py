"""How far sync streams are known: (proxy, boot) -> seq, with what arrived early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.core.view import chained
from proxy.wire.messages import EMPTY_DIGEST, Position

StreamKey = tuple[str, int]  # (proxy, boot)

#: Early positions remembered per stream; what lies further ahead is learned again by recovery.
AHEAD_MAX: Final = 1_024


class Positions:
    """The vector of a client: everything up to a position is known, plus some beyond it."""

    def __init__(self) -> None:
        self._known: dict[StreamKey, int] = {}
        self._ahead: dict[StreamKey, set[int]] = {}

    def add(self, key: StreamKey, seq: int) -> None:
        """Entry *seq* of a stream is known."""
        known = self._known.get(key, 0)
        if seq <= known:
            return
        ahead = self._ahead.setdefault(key, set())
        if seq != known + 1:
            if len(ahead) < AHEAD_MAX:
                ahead.add(seq)
            return
        while seq + 1 in ahead:
            seq += 1
            ahead.remove(seq)
        self._known[key] = seq

    def install(self, positions: Iterable[Position]) -> None:
        """Everything up to *positions* is known (a snapshot)."""
        for proxy, boot, seq in positions:
            key = (proxy, boot)
            if seq > self._known.get(key, 0):
                ahead = self._ahead.get(key, set())
                self._ahead[key] = {early for early in ahead if early > seq}
                self._known[key] = seq
                if seq + 1 in self._ahead[key]:
                    self._ahead[key].remove(seq + 1)
                    self.add(key, seq + 1)

    def has(self, key: StreamKey, seq: int) -> bool:
        """Tell whether entry *seq* is known."""
        return seq <= self._known.get(key, 0) or seq in self._ahead.get(key, ())

    def is_behind(self, current: Iterable[Position]) -> bool:
        """Tell whether *current* contains something unknown here."""
        return any(seq > self._known.get((proxy, boot), 0) for proxy, boot, seq in current)

    def behind(self, current: Iterable[Position]) -> tuple[Position, ...]:
        """Return how far those streams are known here of which *current* has more."""
        return tuple(
            (proxy, boot, self._known.get((proxy, boot), 0))
            for proxy, boot, seq in current
            if seq > self._known.get((proxy, boot), 0)
        )

    def vector(self) -> tuple[Position, ...]:
        """Return (proxy, boot, seq) of every stream, sorted."""
        return tuple((proxy, boot, seq) for (proxy, boot), seq in sorted(self._known.items()))

    def digest(self) -> bytes:
        """Return 16 bytes that are equal where two vectors are equal."""
        return vector_digest(self.vector())


def vector_digest(vector: Iterable[Position]) -> bytes:
    """Return the digest of a vector, in its order."""
    return chained(EMPTY_DIGEST, *(f"{proxy} {boot} {seq}".encode() for proxy, boot, seq in vector))
