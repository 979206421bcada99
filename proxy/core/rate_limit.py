"""How often somebody may come: a token bucket per name, of bounded number."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Buckets kept; the one not used for longest goes first, and is full again when it comes back.
BUCKETS_MAX: Final = 4_096


class RateLimit:
    """*burst* at once, *per_s* in the long run, for each key by itself.

    >>> limit = RateLimit(per_s=1.0, burst=2)
    >>> [limit.admits("ue1", now_s=now_s) for now_s in (0.0, 0.1, 0.2, 1.2)]
    [True, True, False, True]
    """

    def __init__(self, *, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  #: key -> (level, as of)

    def admits(self, key: str, *, now_s: float) -> bool:
        """Tell whether *key* may come now, and count it where it may."""
        level = self._level(key, now_s)
        admitted = level >= 1.0
        self._buckets[key] = (level - 1.0 if admitted else level, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return admitted

    def has_room(self, key: str, *, now_s: float) -> bool:
        """Tell whether *key* might come now, without counting it."""
        return self._level(key, now_s) >= 1.0

    def _level(self, key: str, now_s: float) -> float:
        level, as_of_s = self._buckets.get(key, (self._burst, now_s))
        return min(self._burst, level + max(0.0, now_s - as_of_s) * self._per_s)
