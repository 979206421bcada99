"""Forwarding information base: name prefix -> ranked next hops and strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from proxy.wire.name import boundaries

StrategyName = Literal["best-route", "multicast"]


class NextHop(Struct, frozen=True):
    face_id: int
    cost_ms: float  #: path delay through this face


class Fib:
    """Longest-prefix match by trying the component boundaries of a name, longest first."""

    def __init__(self) -> None:
        self._next_hops: dict[bytes, tuple[NextHop, ...]] = {}
        self._strategies: dict[bytes, StrategyName] = {}
        self._components_max = 0  #: of all prefixes: nothing longer needs to be tried

    def insert(self, name_prefix: bytes, next_hops: Iterable[NextHop]) -> None:
        """Set the next hops of a prefix; they are ranked by cost, then face ID."""
        self._components_max = max(self._components_max, len(boundaries(name_prefix)))
        self._next_hops[name_prefix] = tuple(sorted(next_hops, key=lambda hop: (hop.cost_ms, hop.face_id)))

    def set_strategy(self, name_prefix: bytes, strategy: StrategyName) -> None:
        """Choose the strategy of all names under a prefix; best-route is the default."""
        self._components_max = max(self._components_max, len(boundaries(name_prefix)))
        self._strategies[name_prefix] = strategy

    def lookup(self, name: bytes) -> tuple[tuple[NextHop, ...], StrategyName]:
        """Return next hops, best first, and strategy; each of its own longest matching prefix.

        Nothing matches: no next hops, and best-route. Raises: MalformedError for a broken name.
        """
        next_hops: tuple[NextHop, ...] | None = None
        strategy: StrategyName | None = None
        for end in reversed(boundaries(name)[: self._components_max]):
            name_prefix = name[:end]
            if next_hops is None:
                next_hops = self._next_hops.get(name_prefix)
            if strategy is None:
                strategy = self._strategies.get(name_prefix)
        return next_hops or (), strategy or "best-route"
