"""Forwarding information base: name prefix -> ranked next hops and strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from proxy.wire.name import boundaries

Strategy = Literal["best-route", "multicast"]


class NextHop(Struct, frozen=True):
    face_id: int
    cost_ms: float  #: path delay through this face


class Fib:
    """Longest-prefix match by trying the component boundaries of a name, longest first."""

    def __init__(self) -> None:
        self._next_hops: dict[bytes, tuple[NextHop, ...]] = {}
        self._strategies: dict[bytes, Strategy] = {}

    def insert(self, name_prefix: bytes, next_hops: Iterable[NextHop]) -> None:
        """Set the next hops of a prefix; they are ranked by cost, then face ID."""
        self._next_hops[name_prefix] = tuple(sorted(next_hops, key=lambda hop: (hop.cost_ms, hop.face_id)))

    def set_strategy(self, name_prefix: bytes, strategy: Strategy) -> None:
        """Choose the strategy of all names under a prefix; best-route is the default."""
        self._strategies[name_prefix] = strategy

    def lookup(self, name: bytes) -> tuple[NextHop, ...]:
        """Return the next hops of the longest matching prefix, best first; none if nothing matches.

        Raises: MalformedError for a broken name.
        """
        table = self._next_hops
        for end in reversed(boundaries(name)):
            next_hops = table.get(name[:end])
            if next_hops is not None:
                return next_hops
        return ()

    def strategy(self, name: bytes) -> Strategy:
        """Return the strategy of the longest matching prefix."""
        for end in reversed(boundaries(name)):
            strategy = self._strategies.get(name[:end])
            if strategy is not None:
                return strategy
        return "best-route"
