"""Which proxy a service client goes to: the nearest that answers, and back to a nearer one after a hold-down."""

from __future__ import annotations

from proxy.core.seeded import SplitMix64

#: Clients that lost their proxy together come back one after another: a hold-down is longer by up to this part of itself.
SPREAD_RATIO = 0.5


class ProxyChoice:
    """The ranking that the login server assigned, where we have tried, and how long to hold down a return."""

    def __init__(self, chance: SplitMix64, *, hold_down_s: float, hold_down_max_s: float) -> None:
        self._chance = chance
        self._hold_down_s, self._hold_down_max_s = hold_down_s, hold_down_max_s
        self.ranked: tuple[str, ...] = ()
        self._tried = 0  #: place in the ranking, counted on over its end
        self._passed_over = 0  #: proxies given up at a Nack since we last waited
        self._held_down = 0  #: hold-downs since we were last at the best proxy for long
        self._best_since_s: float | None = None  #: when we came to the best proxy, where we are
        self._round: list[str] = []  #: better proxies that this attempt to return has not asked yet

    # ------------------------------------------------------------------ a session that was lost

    def start_at(self, proxy: str) -> str:
        """Return where to begin: *proxy* if it is assigned to us still, else the best."""
        self._tried = self.ranked.index(proxy) if proxy in self.ranked else 0
        return self.ranked[self._tried]

    def next(self) -> str:
        """Return the one to ask after one that does not answer: in order of rank, over and over."""
        self._tried += 1
        return self.ranked[self._tried % len(self.ranked)]

    def passes_over(self) -> bool:
        """The network cannot reach the proxy; tell whether to ask the next one now, instead of waiting.

        Each proxy once at once; after that at the pace of retransmissions.
        """
        if self._passed_over >= len(self.ranked):
            return False
        self._passed_over += 1
        if self._passed_over == len(self.ranked):
            self._tried = -1  # none is in reach: what comes back first had better be the nearest
        return True

    def wait(self) -> None:
        """We have waited for an answer in vain: at the next Nacks each proxy may be passed over again."""
        self._passed_over = 0

    def settle(self) -> None:
        """We are joined."""
        self._tried = self._passed_over = 0

    # ------------------------------------------------------------------ returning

    def is_best(self, proxy: str) -> bool:
        return not self._better_than(proxy)

    def note_best(self, *, now_s: float) -> None:
        """We are at the best proxy."""
        if self._best_since_s is None:
            self._best_since_s = now_s

    def hold_down_s(self, *, now_s: float) -> float:
        """Return how long to stay at a proxy that is not the best, in seconds.

        Twice as long each time; from the beginning again once we were at the best for as long as the longest hold-down.
        """
        if self._best_since_s is not None and now_s - self._best_since_s >= self._hold_down_max_s:
            self._held_down = 0
        self._best_since_s = None
        wait_s = min(self._hold_down_s * 2.0**self._held_down, max(self._hold_down_s, self._hold_down_max_s))
        self._held_down = min(self._held_down + 1, 16)
        return wait_s * (1.0 + SPREAD_RATIO * self._chance.uniform())

    def start_round(self, proxy: str) -> None:
        """Begin to look for a better one than *proxy*."""
        self._round = list(self._better_than(proxy))

    def next_of_round(self) -> str | None:
        """Return the best of those not asked yet; None: none of them answers."""
        return self._round.pop(0) if self._round else None

    def _better_than(self, proxy: str) -> tuple[str, ...]:
        return self.ranked[: self.ranked.index(proxy)] if proxy in self.ranked else self.ranked
