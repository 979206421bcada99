"""What a simulated link does to a packet beyond delay, rate and loss: duplicates, delays out of order, corrupts it.

As in `testbed.links.channel`, the draws of packet *n* are a hash of (seed, link, direction, n).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from testbed.links.model import Direction, Impairment

#: A reordered packet, and the second copy of a duplicated one, comes up to this much later.
LATER_MAX_MS: Final = 10.0

_LIMIT: Final = 1 << 32


class Mangler:
    """Decides for one direction of one link."""

    def __init__(self, *, seed: int, link: str, direction: Direction) -> None:
        self._key = blake2b(f"mangle|{seed}|{link}|{direction}".encode(), digest_size=16).digest()
        self._packets = 0

    def extra_delays_ms(self, impairment: Impairment) -> tuple[float, ...]:
        """Return how much later than due each copy of the next packet arrives, in ms; none where it is corrupted.

        >>> mangler = Mangler(seed=1, link="a-b", direction="a_to_b")
        >>> mangler.extra_delays_ms(Impairment()), mangler.extra_delays_ms(Impairment(corrupt_ratio=1.0))
        ((0.0,), ())
        """
        number = self._packets
        self._packets = number + 1
        if not (impairment.corrupt_ratio or impairment.reorder_ratio or impairment.duplicate_ratio):
            return (0.0,)
        digest = blake2b(number.to_bytes(8, "little"), digest_size=20, key=self._key).digest()
        corrupt, reorder, reorder_by, duplicate, duplicate_by = (
            int.from_bytes(digest[at : at + 4], "little") / _LIMIT for at in range(0, 20, 4)
        )
        if corrupt < impairment.corrupt_ratio:
            return ()
        first_ms = reorder_by * LATER_MAX_MS if reorder < impairment.reorder_ratio else 0.0
        if duplicate < impairment.duplicate_ratio:
            return (first_ms, first_ms + duplicate_by * LATER_MAX_MS)
        return (first_ms,)
