"""Forwarding information base: name prefix -> ranked next hops and strategy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from proxy.wire.name import boundaries
from proxy.wire.value import Value

StrategyName = Literal["best-route", "multicast"]

#: Who has made a route; numbers as in NFD's RIB management ("Route Origin").
ORIGIN_APPLICATION: Final = 0
ORIGIN_STATIC: Final = 255
#: Routes of all prefixes together; what applications register beyond that is refused.
ROUTES_MAX: Final = 65_536
STRATEGIES_MAX: Final = 4_096


class NextHop(Value):
    def __init__(self, face_id: int, cost_ms: float) -> None:
        self.face_id: Final = face_id
        self.cost_ms: Final = cost_ms  #: path delay through this face

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.face_id, self.cost_ms)


class Fib:
    """Longest-prefix match by trying the component boundaries of a name, longest first, down to the root prefix ``/``.

    A face may be a next hop of a prefix for several reasons (origins); it stays one as long as one of them holds, at the
    lowest of their costs.
    """

    def __init__(self, *, routes_max: int = ROUTES_MAX) -> None:
        self._routes_max = routes_max
        self._routes: dict[bytes, dict[tuple[int, int], float]] = {}  #: prefix -> (face, origin) -> cost
        self._next_hops: dict[bytes, tuple[NextHop, ...]] = {}  #: what follows from the routes
        self._strategies: dict[bytes, StrategyName] = {}
        self._components_max = 0  #: of all prefixes: nothing longer needs to be tried
        self._routes_count = 0

    def __len__(self) -> int:
        """Return the number of prefixes."""
        return len(self._next_hops)

    def insert(self, name_prefix: bytes, next_hops: Iterable[NextHop]) -> None:
        """Set the next hops of a prefix that configuration gives, none to take them away.

        They are ranked by cost, then face ID. Raises: MalformedError for a broken name, as all of these.
        """
        self.insert_all((name_prefix,), next_hops)

    def insert_all(self, name_prefixes: Iterable[bytes], next_hops: Iterable[NextHop]) -> None:
        """Do that for several prefixes; what they have in common is kept once."""
        given = {(hop.face_id, ORIGIN_STATIC): hop.cost_ms for hop in next_hops}
        ranked = _ranked(given)
        for name_prefix in name_prefixes:
            known = self._routes.get(name_prefix)
            of_others = {key: cost for key, cost in known.items() if key[1] != ORIGIN_STATIC} if known else None
            if of_others:
                self._set(name_prefix, of_others | given)
            else:
                self._set(name_prefix, given, ranked)

    def register(self, name_prefix: bytes, face_id: int, cost_ms: float, *, origin: int = ORIGIN_APPLICATION) -> bool:
        """Add a route or change its cost; return False, and do nothing, where the table is full."""
        routes = self._routes.get(name_prefix, {})
        if (face_id, origin) not in routes and self._routes_count >= self._routes_max:
            return False
        self._set(name_prefix, routes | {(face_id, origin): cost_ms})
        return True

    def unregister(self, name_prefix: bytes, face_id: int, *, origin: int = ORIGIN_APPLICATION) -> bool:
        """Take away a route; return whether it was there."""
        routes = self._routes.get(name_prefix, {})
        if (face_id, origin) not in routes:
            return False
        self._set(name_prefix, {key: cost for key, cost in routes.items() if key != (face_id, origin)})
        return True

    def remove_face(self, face_id: int) -> list[bytes]:
        """Take away every route over a face; return the prefixes."""
        prefixes = [prefix for prefix, routes in self._routes.items() if any(face == face_id for face, _ in routes)]
        for prefix in prefixes:
            self._set(prefix, {key: cost for key, cost in self._routes[prefix].items() if key[0] != face_id})
        return prefixes

    def _set(
        self, name_prefix: bytes, routes: dict[tuple[int, int], float], ranked: tuple[NextHop, ...] | None = None
    ) -> None:
        """Take over *routes*, which are never changed after that; *ranked*: what follows from them, where it is known."""
        self._components_max = max(self._components_max, len(boundaries(name_prefix)))
        self._routes_count += len(routes) - len(self._routes.get(name_prefix, ()))
        if not routes:
            self._routes.pop(name_prefix, None)
            self._next_hops.pop(name_prefix, None)
            return
        self._routes[name_prefix] = routes
        self._next_hops[name_prefix] = _ranked(routes) if ranked is None else ranked

    def set_strategy(self, name_prefix: bytes, strategy: StrategyName) -> bool:
        """Choose the strategy of all names under a prefix; best-route is the default. Return False where the table is full."""
        if name_prefix not in self._strategies and len(self._strategies) >= STRATEGIES_MAX:
            return False
        self._components_max = max(self._components_max, len(boundaries(name_prefix)))
        self._strategies[name_prefix] = strategy
        return True

    def entries(self) -> list[tuple[bytes, tuple[NextHop, ...]]]:
        """Return every prefix with its next hops, best first."""
        return list(self._next_hops.items())

    def strategies(self) -> list[tuple[bytes, StrategyName]]:
        """Return every prefix that a strategy was chosen for."""
        return list(self._strategies.items())

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
        if next_hops is None:
            next_hops = self._next_hops.get(b"", ())
        return next_hops, strategy or self._strategies.get(b"", "best-route")


def _ranked(routes: dict[tuple[int, int], float]) -> tuple[NextHop, ...]:
    """Return the next hops by cost, then face ID."""
    costs_ms: dict[int, float] = {}
    for (face_id, _), cost_ms in routes.items():
        costs_ms[face_id] = min(cost_ms, costs_ms.get(face_id, cost_ms))
    ranked = sorted((cost_ms, face_id) for face_id, cost_ms in costs_ms.items())
    return tuple(NextHop(face_id, cost_ms) for cost_ms, face_id in ranked)
