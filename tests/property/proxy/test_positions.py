"""Positions against a set of everything that is known."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core.positions import AHEAD_MAX, Positions, vector_digest

streams = st.sampled_from([("csr1", 1), ("csr1", 2), ("csr2", 1)])
seqs = st.integers(1, 12)


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions()
        self.known: dict[tuple[str, int], set[int]] = {}

    @rule(key=streams, seq=seqs)
    def learn(self, key: tuple[str, int], seq: int) -> None:
        self.positions.add(key, seq)
        self.known.setdefault(key, set()).add(seq)

    @rule(key=streams, seq=st.integers(0, 12))
    def take_over_a_snapshot(self, key: tuple[str, int], seq: int) -> None:
        self.positions.install([(*key, seq)])
        self.known.setdefault(key, set()).update(range(1, seq + 1))

    def complete(self, key: tuple[str, int]) -> int:
        seq = 0
        while seq + 1 in self.known.get(key, ()):
            seq += 1
        return seq

    @invariant()
    def vector_is_what_is_complete(self) -> None:
        expected = tuple((*key, self.complete(key)) for key in sorted(self.known) if self.complete(key))
        assert self.positions.vector() == expected
        assert self.positions.digest() == vector_digest(expected)

    @rule(key=streams, seq=seqs)
    def has(self, key: tuple[str, int], seq: int) -> None:
        assert self.positions.has(key, seq) is (seq in self.known.get(key, ()))

    @rule(key=streams, seq=st.integers(0, 12))
    def is_behind(self, key: tuple[str, int], seq: int) -> None:
        assert self.positions.is_behind([(*key, seq)]) is (seq > self.complete(key))


TestPositions = AnyHistory.TestCase
TestPositions.settings = settings(max_examples=100, stateful_step_count=30)


def test_what_lies_ahead_is_bounded() -> None:
    positions = Positions()
    for seq in range(2, 3 * AHEAD_MAX):
        positions.add(("csr1", 1), seq)
    assert sum(positions.has(("csr1", 1), seq) for seq in range(2, 3 * AHEAD_MAX)) == AHEAD_MAX
    positions.add(("csr1", 1), 1)
    assert positions.vector() == (("csr1", 1, AHEAD_MAX + 1),)


def test_vectors_with_different_content_have_different_digests() -> None:
    vectors = [(), (("a", 1, 1),), (("a", 1, 2),), (("a", 2, 1),), (("b", 1, 1),), (("a", 1, 1), ("b", 1, 1))]
    assert len({vector_digest(vector) for vector in vectors}) == len(vectors)
