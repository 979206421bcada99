"""State Vector Sync, version 3: which publications there are, without the packets that say so.

Source: State Vector Sync specification, version 3 (2025-01-14), sections 3 and 4
(named-data.github.io/StateVectorSync/Specification.html). Bootstrap times are boot numbers here: they grow at every start
of a node, which is what the protocol needs of them; that they are not too far in the future is not checked.
"""

from __future__ import annotations

import math

from proxy.config import SvsConfig
from proxy.core.seeded import SplitMix64
from proxy.wire.svs import StateVector


class StateVectorSync:
    """One node's vector and its one timer. In suppression state while ``merged`` is not None, else in steady state."""

    def __init__(self, config: SvsConfig, chance: SplitMix64) -> None:
        self._config, self._chance = config, chance
        self.vector: StateVector = {}
        self.merged: StateVector | None = None  #: what others have said since we have found somebody to be behind
        self._updated_s: dict[bytes, float] = {}  #: of each node, when others have last told us something new
        self.next_s: float | None = None  #: when ``on_timer`` wants to be called; None before ``enter_steady_state``

    def enter_steady_state(self, now_s: float) -> None:
        """Begin, or go on after a sync Interest was sent or all was found to be in sync."""
        self.merged = None
        config = self._config
        spread = config.periodic_jitter_ratio * (2.0 * self._chance.uniform() - 1.0)
        self.next_s = now_s + config.periodic_s * (1.0 + spread)

    def publish(self, name: bytes, boot: int, seq: int) -> None:
        """Take in a publication of our own; a sync Interest is to be sent at once."""
        self.vector.setdefault(name, {})[boot] = seq

    def on_vector(self, received: StateVector, now_s: float) -> list[tuple[bytes, int, int]]:
        """Take in what a sync Interest says; return the (name, boot, seq) that are news."""
        news: list[tuple[bytes, int, int]] = []
        for name, numbers in received.items():
            ours = self.vector.get(name)
            for boot, seq in sorted(numbers.items(), reverse=True):
                if ours is None:
                    ours = self.vector[name] = {}
                if seq > ours.get(boot, 0):
                    ours[boot] = seq
                    self._updated_s[name] = now_s
                    news.append((name, boot, seq))
        if self.merged is not None:
            _merge(self.merged, received)
        behind = _behind(received, self.vector)
        if not behind:
            self.enter_steady_state(now_s)  # in suppression state: somebody else has told whoever was behind
        elif self.merged is None:
            since_s = now_s - self._config.suppression_s
            if any(self._updated_s.get(name, -math.inf) < since_s for name in behind):
                self.merged = {name: dict(numbers) for name, numbers in received.items()}
                self.next_s = now_s + self._suppression_timeout_s()
        return news

    def on_timer(self, now_s: float) -> bool:
        """Return whether a sync Interest is to be sent."""
        if self.next_s is None or self.next_s > now_s:
            return False
        is_wanted = self.merged is None or bool(_behind(self.merged, self.vector))
        self.enter_steady_state(now_s)
        return is_wanted

    def _suppression_timeout_s(self) -> float:
        """Return a random wait, most often close to the longest, so that the few who are quick spare the others."""
        longest_s = self._config.suppression_s
        drawn = self._chance.uniform()  # v / c in the specification
        return longest_s * (1.0 - math.exp((drawn - 1.0) * self._config.suppression_decay))


def _behind(vector: StateVector, other: StateVector) -> list[bytes]:
    """Return the names of which *vector* has less than *other*; it is outdated if there are any."""
    empty: dict[int, int] = {}
    return [
        name
        for name, numbers in other.items()
        if any(vector.get(name, empty).get(boot, 0) < seq for boot, seq in numbers.items())
    ]


def _merge(vector: StateVector, other: StateVector) -> None:
    """Raise what *vector* has to what *other* has."""
    for name, numbers in other.items():
        ours = vector.setdefault(name, {})
        for boot, seq in numbers.items():
            ours[boot] = max(ours.get(boot, 0), seq)
