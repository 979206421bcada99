"""SplitMix64 against the reference implementation's output, and the ranges that users rely on."""

from __future__ import annotations

import pytest

from proxy.core.seeded import SplitMix64

#: First outputs of Vigna's splitmix64.c for seed 1234567 (as in Rosetta Code's task "Pseudo-random numbers/Splitmix64").
REFERENCE = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_reference_output() -> None:
    chance = SplitMix64(1234567)
    assert [chance.next_u64() for _ in REFERENCE] == REFERENCE


@pytest.mark.parametrize("seed", [0, 1, 2**63, -5, 2**200])
def test_ranges(seed: int) -> None:
    chance = SplitMix64(seed)
    for _ in range(1_000):
        assert 0 <= chance.nonce() < 2**32
        assert 0.0 <= chance.uniform() < 1.0


def test_seeds_differ() -> None:
    assert len({SplitMix64(seed).next_u64() for seed in range(1_000)}) == 1_000
