"""Reports boiled down say the same as all of them: to the check of bounds, of timer lag, and as the last of each process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from experiments.checker import check_bounded
from experiments.counter_totals import CounterTotals
from experiments.history import History
from experiments.timer_lag import timer_lags
from proxy.records import CountersReported, MessageCount

SINCE_S, UNTIL_S = 3.0, 9.0
counts = st.fixed_dictionaries({}, optional=dict.fromkeys(("pit_entries", "cs_entries", "log"), st.integers(0, 6)))
report = st.builds(
    CountersReported,
    t_s=st.just(0.0), node=st.sampled_from(["csr1", "ue1"]), process=st.sampled_from(["forwarder", "proxy"]),
    cpu_s=st.just(1.0), max_rss_bytes=st.integers(1, 9), timer_lag_since_s=st.just(0.0),
    timer_lag_bins=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 5)), max_size=3),
    timer_lag_max_ms=st.floats(0, 50), sent=st.builds(lambda packets: [MessageCount("l", "p", "m", packets, 1)], st.integers(0, 9)),
    counters=counts, bounds=counts,
)  # fmt: skip


def told(reports: list[CountersReported]) -> tuple[Any, ...]:
    run = cast(
        "Any", SimpleNamespace(history=History(counters=reports, quiesced_s=UNTIL_S), epoch_s=SINCE_S, faults=())
    )
    lags = {name: (lag.quantile_ms(0.5), lag.quantile_ms(0.99), lag.max_ms) for name, lag in timer_lags(run).items()}
    last = {(one.node, one.process): (one.sent, one.counters, one.bounds, one.max_rss_bytes) for one in reports}
    return check_bounded(run.history), list(lags.items()), last


@given(st.lists(report, min_size=1, max_size=12))
def test_no_question_is_answered_otherwise(reports: list[CountersReported]) -> None:
    for index, one in enumerate(reports):  # one second after the other
        reports[index] = msgspec.structs.replace(one, t_s=index + 1.0, timer_lag_since_s=float(index))
    totals = CounterTotals(SINCE_S, UNTIL_S)
    for one in reports:
        totals.add(one)
    assert told(totals.reports()) == told(reports)


def test_a_bound_that_was_exceeded_twice_is_told_as_by_all_reports() -> None:
    reports = [
        CountersReported(second, "csr1", "forwarder", 1.0, 1, second - 1, [], 0.0, [], {"log": value}, {"log": 1})
        for second, value in ((1.0, 0), (2.0, 6), (3.0, 5), (4.0, 0))
    ]
    totals = CounterTotals(SINCE_S, UNTIL_S)
    for one in reports:
        totals.add(one)
    assert told(totals.reports()) == told(reports)
    assert "log = 5 exceeds 1" in told(reports)[0].detail


def test_however_many_reports_there_are_few_are_kept() -> None:
    totals = CounterTotals(0.0, 1e9)
    for second in range(10_000):
        counters = {"pit_entries": second % 17}
        totals.add(
            CountersReported(
                second + 1.0,
                "csr1",
                "forwarder",
                1.0,
                1,
                float(second),
                [(1, 1)],
                0.1,
                [],
                counters,
                {"pit_entries": 9},
            )
        )
    assert len(totals.reports()) < 10
