"""Tables of the forwarder: bounds that hold whatever comes, and what must not be forgotten."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core.table.cs import STEPS_MAX, ContentStore
from proxy.core.table.dead_nonce_list import DeadNonceList
from proxy.core.table.fib import Fib, NextHop
from proxy.wire.name import component, number
from proxy.wire.packet import Data, Interest, decode_interest, encode_interest
from proxy.wire.tlv import MalformedError

#: A tree of two levels, so that prefixes have something below them.
names = st.sampled_from([component(a) + tail for a in "abc" for tail in (b"", component("x"), component("yy"))])


def interest(name: bytes, *, must_be_fresh: bool, can_be_prefix: bool = False) -> Interest:
    return decode_interest(encode_interest(name, nonce=1, must_be_fresh=must_be_fresh, can_be_prefix=can_be_prefix)[1])


class AnyContentStore(RuleBasedStateMachine):
    """Against an OrderedDict: least recently used goes first, bounded in entries and in bytes; first in order for a prefix."""

    MAX_ENTRIES, MAX_BYTES = 5, 250

    def __init__(self) -> None:
        super().__init__()
        self.cs = ContentStore(max_entries=self.MAX_ENTRIES, max_bytes=self.MAX_BYTES)
        self.model: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.now_s = 0.0
        self.lookups = 0

    @rule(name=names, size=st.integers(0, 300), freshness_ms=st.sampled_from([0, 250, 1_000]))
    def insert(self, name: bytes, size: int, freshness_ms: int) -> None:
        wire = bytes(size)
        self.cs.insert(Data(name, freshness_ms, b"", wire), now_s=self.now_s)
        if freshness_ms and size <= self.MAX_BYTES:
            self.model.pop(name, None)
            self.model[name] = (wire, self.now_s + freshness_ms / 1e3)
            while (
                len(self.model) > self.MAX_ENTRIES or sum(len(held) for held, _ in self.model.values()) > self.MAX_BYTES
            ):
                self.model.popitem(last=False)

    def may_have(self, name: bytes, *, must_be_fresh: bool) -> bool:
        held = self.model.get(name)
        return held is not None and not (must_be_fresh and self.now_s >= held[1])

    def check(self, asked: Interest, expected: bytes | None) -> None:
        found = self.cs.find(asked, now_s=self.now_s)
        self.lookups += 1
        if expected is None:
            assert found is None
        else:
            assert found == self.model[expected][0]
            self.model.move_to_end(expected)

    @rule(name=names, must_be_fresh=st.booleans())
    def find(self, name: bytes, must_be_fresh: bool) -> None:  # noqa: FBT001
        asked = interest(name, must_be_fresh=must_be_fresh)
        self.check(asked, name if self.may_have(name, must_be_fresh=must_be_fresh) else None)

    @rule(name=names, must_be_fresh=st.booleans())
    def find_under(self, name: bytes, must_be_fresh: bool) -> None:  # noqa: FBT001
        under = [
            each
            for each in sorted(self.model)
            if each.startswith(name) and self.may_have(each, must_be_fresh=must_be_fresh)
        ]
        self.check(interest(name, must_be_fresh=must_be_fresh, can_be_prefix=True), next(iter(under), None))

    @rule(name=names, must_be_fresh=st.booleans(), size=st.none() | st.integers(0, 300))
    def find_by_digest(self, name: bytes, must_be_fresh: bool, size: int | None) -> None:  # noqa: FBT001
        wire = bytes(size) if size is not None else self.model.get(name, (b"?",))[0]
        asked = interest(name + component(hashlib.sha256(wire).digest(), 1), must_be_fresh=must_be_fresh)
        there = self.may_have(name, must_be_fresh=must_be_fresh) and self.model[name][0] == wire
        self.check(asked, name if there else None)

    @rule(quarters=st.integers(1, 4))
    def let_time_pass(self, quarters: int) -> None:
        self.now_s += quarters / 4

    @invariant()
    def bounded(self) -> None:
        assert len(self.cs) == len(self.model) <= self.MAX_ENTRIES
        assert self.cs.bytes == sum(len(held) for held, _ in self.model.values()) <= self.MAX_BYTES
        assert self.cs.hits + self.cs.misses == self.lookups
        assert self.cs._ordered is None or self.cs._ordered == sorted(self.model)


TestContentStore = AnyContentStore.TestCase
TestContentStore.settings = settings(max_examples=200, stateful_step_count=40)


def test_content_store_of_no_entries_keeps_nothing() -> None:
    cs = ContentStore(max_entries=0, max_bytes=1_000)
    cs.insert(Data(b"a", 1_000, b"", b"x"), now_s=0.0)
    assert len(cs) == cs.bytes == 0


def test_look_up_by_prefix_gives_up_after_so_many_stale_ones() -> None:
    cs = ContentStore(max_entries=1_000, max_bytes=100_000)
    for n in range(100):
        fresh_ms = 1_000 if n < STEPS_MAX else 60_000
        cs.insert(Data(component("a") + number(n, 50), fresh_ms, b"", b"x"), now_s=0.0)
    asked = interest(component("a"), must_be_fresh=True, can_be_prefix=True)
    assert cs.find(asked, now_s=0.5) == b"x"
    assert cs.find(asked, now_s=2.0) is None
    cs.insert(Data(component("a"), 60_000, b"", b"y"), now_s=2.0)
    assert cs.find(asked, now_s=2.0) == b"y"


def test_prefix_ends_at_a_component() -> None:
    cs = ContentStore(max_entries=10, max_bytes=1_000)
    cs.insert(Data(component("abc") + component("d"), 1_000, b"", b"x"), now_s=0.0)
    assert cs.find(interest(component("ab"), must_be_fresh=False, can_be_prefix=True), now_s=0.0) is None
    whole = interest(component("abc"), must_be_fresh=False, can_be_prefix=True)
    assert cs.find(whole, now_s=0.0) == b"x"
    with pytest.raises(MalformedError):
        cs.find(interest(component("abc")[:-1], must_be_fresh=False, can_be_prefix=True), now_s=0.0)


class AnyDeadNonces(RuleBasedStateMachine):
    LIFETIME_S, MAX_ENTRIES = 6.0, 40

    def __init__(self) -> None:
        super().__init__()
        self.list = DeadNonceList(lifetime_s=self.LIFETIME_S, max_entries=self.MAX_ENTRIES)
        self.added: dict[int, tuple[float, int]] = {}
        self.now_s, self.count = 1_000.0, 0

    @rule(nonces=st.lists(st.integers(0, 1_000), max_size=8))
    def add(self, nonces: list[int]) -> None:
        for nonce in nonces:
            self.list.add(b"name", nonce, now_s=self.now_s)
            self.count += 1
            self.added[nonce] = (self.now_s, self.count)

    @rule(quarters=st.integers(0, 16))
    def let_time_pass(self, quarters: int) -> None:
        self.now_s += quarters / 4

    @invariant()
    def remembers_for_a_lifetime_what_fits(self) -> None:
        for nonce, (at_s, count) in self.added.items():
            if self.now_s - at_s <= self.LIFETIME_S and self.count - count < self.MAX_ENTRIES // 2:
                assert self.list.has(b"name", nonce)

    @invariant()
    def forgets_what_nobody_added(self) -> None:
        assert not any(self.list.has(b"other", nonce) for nonce in self.added)
        assert not self.list.has(b"name", -1)

    @invariant()
    def bounded(self) -> None:
        assert len(self.list) <= self.MAX_ENTRIES


TestDeadNonceList = AnyDeadNonces.TestCase
TestDeadNonceList.settings = settings(max_examples=100, stateful_step_count=30)


def test_dead_nonces_are_forgotten_in_the_end() -> None:
    dead = DeadNonceList(lifetime_s=6.0)
    dead.add(b"name", 1, now_s=0.0)
    for at_s in (7.0, 14.0, 21.0):
        dead.add(b"name", 2, now_s=at_s)
    assert not dead.has(b"name", 1)


prefixes = st.lists(st.sampled_from("abc"), max_size=4).map(lambda letters: b"".join(map(component, letters)))


@settings(max_examples=500)
@given(
    routes=st.dictionaries(prefixes, st.integers(0, 9), max_size=8),
    multicast=st.sets(prefixes, max_size=2),
    name=prefixes,
)
def test_longest_prefix_match(routes: dict[bytes, int], multicast: set[bytes], name: bytes) -> None:
    fib = Fib()
    for prefix, face in routes.items():
        fib.insert(prefix, [NextHop(face, 1.0)])
    for prefix in multicast:
        fib.set_strategy(prefix, "multicast")
    matching = [prefix for prefix in routes if name.startswith(prefix)]
    best = max(matching, key=len, default=None)
    strategy = "multicast" if any(name.startswith(prefix) for prefix in multicast) else "best-route"
    assert fib.lookup(name) == (() if best is None else (NextHop(routes[best], 1.0),), strategy)


class AnyRoutes(RuleBasedStateMachine):
    """Against a set of (prefix, face, origin): a face is a next hop at the lowest cost of its routes, and leaves with them."""

    def __init__(self) -> None:
        super().__init__()
        self.fib = Fib()
        self.routes: dict[tuple[bytes, int, int], float] = {}

    @rule(prefix=prefixes, face=st.integers(1, 4), origin=st.sampled_from([0, 65, 255]), cost=st.integers(0, 3))
    def register(self, prefix: bytes, face: int, origin: int, cost: int) -> None:
        assert self.fib.register(prefix, face, float(cost), origin=origin)
        self.routes[prefix, face, origin] = float(cost)

    @rule(prefix=prefixes, face=st.integers(1, 4), origin=st.sampled_from([0, 65, 255]))
    def unregister(self, prefix: bytes, face: int, origin: int) -> None:
        was_there = self.routes.pop((prefix, face, origin), None) is not None
        assert self.fib.unregister(prefix, face, origin=origin) is was_there

    @rule(prefix=prefixes, hops=st.dictionaries(st.integers(1, 4), st.integers(0, 3)))
    def configure(self, prefix: bytes, hops: dict[int, int]) -> None:
        self.fib.insert(prefix, [NextHop(face, float(cost)) for face, cost in hops.items()])
        self.routes = {key: cost for key, cost in self.routes.items() if (key[0], key[2]) != (prefix, 255)}
        self.routes |= {(prefix, face, 255): float(cost) for face, cost in hops.items()}

    @rule(face=st.integers(1, 4))
    def remove_face(self, face: int) -> None:
        gone = {prefix for prefix, its_face, _ in self.routes if its_face == face}
        assert set(self.fib.remove_face(face)) == gone
        self.routes = {key: cost for key, cost in self.routes.items() if key[1] != face}

    @invariant()
    def ranked(self) -> None:
        found = {prefix for prefix, *_ in self.routes}
        assert len(self.fib) == len(found)
        for prefix in found:
            costs: dict[int, list[float]] = {}
            for (its_prefix, face, _), cost in self.routes.items():
                if its_prefix == prefix:
                    costs.setdefault(face, []).append(cost)
            expected = sorted((min(each), face) for face, each in costs.items())
            assert [(hop.cost_ms, hop.face_id) for hop in self.fib.lookup(prefix)[0]] == expected


TestRoutes = AnyRoutes.TestCase
TestRoutes.settings = settings(max_examples=100, stateful_step_count=30)


def test_no_more_routes_than_fit() -> None:
    fib = Fib(routes_max=2)
    assert fib.register(component("a"), 1, 0.0)
    assert fib.register(component("a"), 2, 0.0)
    assert not fib.register(component("b"), 1, 0.0)
    assert fib.register(component("a"), 2, 5.0)  # is there already
    assert fib.unregister(component("a"), 1)
    assert fib.register(component("b"), 1, 0.0)
