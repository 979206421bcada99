from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.comparison import (
    RunResult,
    bootstrap_median,
    compare,
    flatten,
    group_runs,
    repeated_simulations,
)

METRIC = "deliveries.ratio.p50"


def run(seed: int, value: float, name: str = "x", **settings: Any) -> RunResult:
    return RunResult(
        path=Path(f"{name}-{seed}"), name=name, seed=seed, mode=settings.pop("mode", "simulated"), verdict="pass",
        settings={key.replace("__", "."): value for key, value in settings.items()} | {"experiment.seed": seed},
        metrics={METRIC: value}, units={METRIC: "1"},
    )  # fmt: skip


def test_repetitions_are_one_group_and_the_others_are_named_by_what_differs() -> None:
    runs = [
        run(seed, 1.0, conference__mode=mode, links__core__delay_ms=5.0) for mode in ("push", "svs") for seed in (1, 2)
    ]
    groups = group_runs(runs)
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("conference.mode=push", 2),
        ("conference.mode=svs", 2),
    ]
    assert [group.label for group in group_runs(runs[:2])] == ["x"]


def test_runs_that_differ_in_much_are_named_by_their_experiment() -> None:
    runs = [run(1, 1.0, "one", a=1, b=1, c=1, d=1), run(1, 1.0, "two", a=2, b=2, c=2, d=2)]
    assert [group.label for group in group_runs(runs)] == ["one", "two"]
    same_name = [run(1, 1.0, a=1, b=1, c=1, d=1), run(1, 1.0, a=2, b=2, c=2, d=2)]
    assert [group.label for group in group_runs(same_name)] == ["1: x", "2: x"]


def test_emulated_and_simulated_are_two_groups() -> None:
    assert [group.label for group in group_runs([run(1, 1.0), run(1, 2.0, mode="emulated")])] == [
        "mode=simulated",
        "mode=emulated",
    ]


def test_pairs_by_seed_take_out_what_the_seed_does() -> None:
    """Seeds make these values anything from 1 to 1000; within a seed the second is always twice the first."""
    seeds = range(1, 13)
    values = {seed: float(10 ** (seed % 4)) for seed in seeds}
    runs = [run(seed, values[seed], a=1) for seed in seeds] + [
        run(seed, 2 * values[seed], a=2) for seed in reversed(seeds)
    ]
    comparison = compare(group_runs(runs))
    ratio = comparison.ratios["a=2", METRIC]
    assert (ratio.median, ratio.low, ratio.high, ratio.count) == (2.0, 2.0, 2.0, 12)
    median = comparison.medians["a=2", METRIC]
    assert median.low < 0.5 * median.high, "unpaired, nothing could be said"
    row = comparison.frame[comparison.frame["group"] == "a=2"].iloc[0]
    assert (row["reference"], row["pairs"], row["reference_ratio"]) == ("a=1", 12, 2.0)
    assert comparison.frame.iloc[0]["reference"] == ""


def test_without_a_seed_in_common_nothing_is_paired() -> None:
    comparison = compare(group_runs([run(1, 1.0, a=1), run(2, 2.0, a=2)]))
    assert comparison.ratios["a=2", METRIC].count == 0
    assert comparison.frame.iloc[1]["reference"] == ""
    assert comparison.medians["a=2", METRIC].median == 2.0


def test_of_one_run_there_is_no_interval_and_of_none_nothing() -> None:
    one, none = bootstrap_median(np.array([3.0])), bootstrap_median(np.array([np.nan]))
    assert (one.median, one.count) == (3.0, 1)
    assert np.isnan([one.low, one.high, none.median]).all()
    assert none.count == 0


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    """Of skewed samples of 15 from a distribution with median ln 2: the interval holds it 93 to 99 times in 100."""
    rng = np.random.default_rng(1)
    intervals = [bootstrap_median(rng.exponential(size=15)) for _ in range(300)]
    held = np.mean([each.low <= np.log(2) <= each.high for each in intervals])
    assert 0.93 <= held <= 0.99


@pytest.mark.parametrize("runs", [6, 7, 8, 9, 10, 12, 15])
def test_the_interval_of_few_runs_covers_the_median_as_often_as_it_says(runs: int) -> None:
    """The percentile bootstrap alone holds the median of seven in 87 cases of 100, and of nine in 89."""
    rng = np.random.default_rng(runs)
    intervals = [bootstrap_median(rng.lognormal(size=runs)) for _ in range(1_000)]
    held = sum(each.low <= 1.0 <= each.high for each in intervals)
    assert held >= 935  # of a thousand at 95 %, fewer come in one case of 50


def test_a_value_over_nothing_is_no_ratio() -> None:
    comparison = compare(group_runs([run(1, 0.0, a=1), run(1, 5.0, a=2)]))
    assert comparison.ratios["a=2", METRIC].count == 0
    assert comparison.frame.iloc[1]["difference_value"] == 5.0
    assert comparison.differences["a=2", METRIC].median == 5.0


def test_of_how_many_pairs_a_ratio_is_stands_beside_it() -> None:
    """One reference of three is 0: its pair has a difference, and no ratio."""
    runs = [run(seed, float(seed - 1), a=1) for seed in (1, 2, 3)] + [run(seed, 4.0, a=2) for seed in (1, 2, 3)]
    row = compare(group_runs(runs)).frame.iloc[1]
    assert (row["pairs"], row["difference_value"], row["ratio_pairs"], row["reference_ratio"]) == (3, 3.0, 2, 3.0)


def test_a_simulated_run_with_a_seed_of_its_group_is_no_repetition() -> None:
    """It is the same to the byte; of an emulated one the machine makes another."""
    (simulated,) = group_runs([run(seed, 1.0, name=f"{seed}") for seed in (1, 2, 1)])
    assert [each.path for each in repeated_simulations(simulated)] == [simulated.runs[2].path]
    (emulated,) = group_runs([run(1, value, mode="emulated") for value in (1.0, 1.1)])
    assert repeated_simulations(emulated) == []


@pytest.mark.parametrize("value", [[], ["a", "b"], [1, {"x": 2}]])
def test_lists_that_are_no_tables_stay_whole(value: list[object]) -> None:
    assert flatten({"k": value}) == {"k": value}
