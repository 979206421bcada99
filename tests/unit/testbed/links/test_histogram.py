import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.links.histogram import BIN_COUNT, BOUNDS_NS, as_pairs, bin_of, new_bins, quantile_ms


@given(st.lists(st.integers(0, 60_000_000_000), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_never_too_low_and_at_most_one_bin_too_high(durations_ns: list[int], share: float) -> None:
    bins = new_bins()
    for duration_ns in durations_ns:
        bins[bin_of(duration_ns)] += 1
    ordered = sorted(durations_ns)
    exact_ns = next(value for rank, value in enumerate(ordered, start=1) if rank >= share * len(ordered))
    found_ms = quantile_ms(bins, share, max_ns=ordered[-1])
    assert found_ms is not None
    upper_ns = next((bound for bound in BOUNDS_NS if bound >= exact_ns), ordered[-1])
    assert exact_ns / 1e6 <= found_ms <= upper_ns / 1e6
    assert sum(count for _, count in as_pairs(bins, max_ns=ordered[-1])) == len(durations_ns)


def test_bins_are_fine_enough_and_reach_ten_seconds() -> None:
    assert all(upper <= 1.123 * lower for lower, upper in itertools.pairwise(BOUNDS_NS))
    assert (BOUNDS_NS[0], BOUNDS_NS[-1]) == (1_000, 10_000_000_000)
    assert bin_of(BOUNDS_NS[-1] + 1) == BIN_COUNT - 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_nothing_seen_has_no_quantile(share: float) -> None:
    assert quantile_ms(new_bins(), share, max_ns=0) is None
    assert as_pairs(new_bins(), max_ns=0) == []
