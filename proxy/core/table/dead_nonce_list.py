"""Dead nonce list: (name, nonce) pairs of Interests whose PIT entry is gone, so that a late copy is seen to loop.

As in NFD it keeps 64-bit hashes: a false positive (about entries x 2**-64) drops one Interest, which its sender repeats.
They are BLAKE2b and not Python's own, which differs from process to process: what is dropped must not.
Two generations: a pair is remembered for between one and two lifetimes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

#: NFD's default: longer than any packet loops.
LIFETIME_S: Final = 6.0
ENTRIES_MAX: Final = 65_536


class DeadNonceList:
    """Bounded: a full generation retires early, which shortens memory instead of growing it."""

    def __init__(self, *, lifetime_s: float = LIFETIME_S, max_entries: int = ENTRIES_MAX) -> None:
        self._lifetime_s, self._max_entries = lifetime_s, max_entries
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._turned_s = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, name: bytes, nonce: int, *, now_s: float) -> None:
        """Remember that this Interest has been here."""
        if now_s - self._turned_s > self._lifetime_s or 2 * len(self._young) >= self._max_entries:
            silent = now_s - self._turned_s > 2 * self._lifetime_s
            self._old, self._young, self._turned_s = (set() if silent else self._young), set(), now_s
        self._young.add(_digest(name, nonce))

    def has(self, name: bytes, nonce: int) -> bool:
        """Tell whether this Interest has been here."""
        key = _digest(name, nonce)
        return key in self._young or key in self._old


def _digest(name: bytes, nonce: int) -> bytes:
    return blake2b(name + nonce.to_bytes(8, "big", signed=True), digest_size=8).digest()
