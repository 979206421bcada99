"""Which proxy a service client goes to: the nearest that answers, and back to a nearer one after a hold-down."""

from __future__ import annotations

from typing import Final

from proxy.core.seeded import SplitMix64

#: Clients that lost their proxy together come back one after another: a hold-down is longer by up to this part of itself.
SPREAD_RATIO: Final = 0.5


class ProxyChoice:
    """The ranking that the login server assigned, where we have tried, and how long to hold down a return."""

    def __init__(self, chance: SplitMix64, *, hold_down_s: float, hold_down_max_s: float) -> None:
        self._chance = chance
        self._hold_down_s, self._hold_down_max_s = hold_down_s, hold_down_max_s
        self._assigned: tuple[str, ...] = ()
        self._detached: set[str] = set()  #: CSRs that our link to is down
        self._tried = 0  #: place in the ranking, counted on over its end
        self._passed_over = 0  #: proxies given up at a Nack since we last waited
        self._short_returns = 0  #: times in a row that we came to the best proxy and soon had to leave it again
        self._in_vain = 0  #: hold-downs since then after which we asked, or will ask
        self._was_away = False  #: from the best proxy
        self._returned_s: float | None = None  #: when we came back to it, if we have not left it since
        self._round: list[str] = []  #: proxies that we have not asked yet whether to move there

    @property
    def ranked(self) -> tuple[str, ...]:
        """All proxies assigned to us, best first: those behind a link of ours that is down are the last."""
        return tuple(sorted(self._assigned, key=self._detached.__contains__))

    def assign(self, ranked: tuple[str, ...]) -> None:
        """The login server says which proxies we may go to, best first."""
        self._assigned = ranked

    def set_attached(self, csr: str, *, attached: bool) -> None:
        """Our link to a CSR has come up or gone down."""
        if attached:
            self._detached.discard(csr)
            self._in_vain = 0  # what could not be reached before may be now
        else:
            self._detached.add(csr)

    # ------------------------------------------------------------------ a session that was lost

    def start_at(self, proxy: str) -> str:
        """Return where to begin: *proxy* if it is assigned to us still, else the best."""
        ranked = self.ranked
        self._tried = ranked.index(proxy) if proxy in ranked else 0
        return ranked[self._tried]

    def next(self) -> str:
        """Return the one to ask after one that does not answer: in order of rank, over and over."""
        self._tried += 1
        ranked = self.ranked
        return ranked[self._tried % len(ranked)]

    def passes_over(self) -> bool:
        """The network cannot reach the proxy; tell whether to ask the next one now, instead of waiting.

        Each proxy once at once; after that at the pace of retransmissions.
        """
        if self._passed_over >= len(self._assigned):
            return False
        self._passed_over += 1
        if self._passed_over == len(self._assigned):
            self._tried = -1  # none is in reach: what comes back first had better be the nearest
        return True

    def wait(self) -> None:
        """We have waited for an answer in vain: at the next Nacks each proxy may be passed over again."""
        self._passed_over = 0

    def settle(self) -> None:
        """We are joined."""
        self._tried = self._passed_over = 0

    # ------------------------------------------------------------------ moving while the session goes on

    def is_best(self, proxy: str) -> bool:
        return not self._better_than(proxy)

    def is_better(self, proxy: str, *, than: str) -> bool:
        """Tell by what the login server assigned, whichever links of ours are down."""
        return self._place(proxy) < self._place(than)

    def _place(self, proxy: str) -> int:
        return self._assigned.index(proxy) if proxy in self._assigned else len(self._assigned)

    def note_best(self, proxy: str, *, now_s: float) -> None:
        """We are at *proxy*, the best that is attached; if it is the very best and we were away from it, we are back."""
        if self._was_away and self._place(proxy) == 0:
            self._returned_s, self._was_away = now_s, False

    def hold_down_s(self, *, now_s: float) -> float:
        """Return how long to stay at a proxy that is not the best, in seconds.

        Twice as long each time that we ask in vain, or that a return does not last as long as the longest hold-down.
        """
        self._was_away = True
        if self._returned_s is not None:
            lasted = now_s - self._returned_s >= self._hold_down_max_s
            self._short_returns = 0 if lasted else min(self._short_returns + 1, 16)
            self._returned_s, self._in_vain = None, 0
        wait_s = self._hold_down_s * 2.0 ** (self._short_returns + self._in_vain)
        self._in_vain = min(self._in_vain + 1, 16)
        return min(wait_s, max(self._hold_down_s, self._hold_down_max_s)) * (
            1.0 + SPREAD_RATIO * self._chance.uniform()
        )

    def start_round(self, proxy: str, *, better_only: bool) -> None:
        """Begin to look for another one than *proxy*."""
        self._round = [other for other in (self._better_than(proxy) if better_only else self.ranked) if other != proxy]

    def next_of_round(self) -> str | None:
        """Return the best of those not asked yet; None: none of them answers."""
        return self._round.pop(0) if self._round else None

    def _better_than(self, proxy: str) -> tuple[str, ...]:
        ranked = self.ranked
        return ranked[: ranked.index(proxy)] if proxy in ranked else ranked
