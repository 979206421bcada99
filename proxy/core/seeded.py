"""Numbers that look random and follow from a seed: nonces, jitter. A core may not ask the machine for chance."""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


class SplitMix64:
    """Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014), figure 17.

    >>> SplitMix64(0).next_u64() == 0xE220A8397B1DCDAF
    True
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def next_u64(self) -> int:
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def nonce(self) -> int:
        """Return an Interest's nonce, 32 bits."""
        return self.next_u64() >> 32

    def uniform(self) -> float:
        """Return a number in [0, 1)."""
        return (self.next_u64() >> 11) * 2.0**-53
