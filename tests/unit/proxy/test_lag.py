"""The histogram of timer lag: quantiles within a bin's width, constant memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lag import LagHistogram


def test_of_nothing() -> None:
    assert LagHistogram().quantile_ms(0.99) == 0.0
    assert LagHistogram().max_ms == 0.0


@given(st.lists(st.floats(0.0, 60.0), min_size=1), st.floats(0.01, 1.0))
def test_quantiles_are_at_most_a_quarter_too_high_and_never_too_low(lags_s: list[float], share: float) -> None:
    histogram = LagHistogram()
    for lag_s in lags_s:
        histogram.add(lag_s)
    ordered_ms = sorted(lag_s * 1e3 for lag_s in lags_s)
    exact_ms = next(ms for rank, ms in enumerate(ordered_ms, start=1) if rank >= share * len(ordered_ms))
    assert histogram.max_ms == ordered_ms[-1]
    slack = 1 + 1e-9
    assert exact_ms <= histogram.quantile_ms(share) * slack
    assert histogram.quantile_ms(share) <= max(exact_ms * 1.25, 0.001) * slack


@pytest.mark.parametrize("lag_s", [0.0, -1.0, 1e-9, 1e-6, 60.0])
def test_extremes(lag_s: float) -> None:
    histogram = LagHistogram()
    histogram.add(lag_s)
    assert histogram.quantile_ms(0.5) == max(0.0, lag_s * 1e3)


@given(st.lists(st.floats(0.0, 60.0)), st.lists(st.floats(0.0, 60.0)))
def test_what_was_taken_merges_into_the_same(earlier_s: list[float], later_s: list[float]) -> None:
    whole, parts, merged = LagHistogram(), LagHistogram(), LagHistogram()
    for lags_s in (earlier_s, later_s):
        for lag_s in lags_s:
            whole.add(lag_s)
            parts.add(lag_s)
        merged.merge(*parts.take())
    assert merged.take() == whole.take()
    assert whole.take() == ([], 0.0)


def test_a_bin_that_there_is_none_of_counts_as_the_last() -> None:
    histogram = LagHistogram()
    histogram.merge([(10_000, 1)], 70_000.0)
    assert histogram.quantile_ms(0.5) == 70_000.0
