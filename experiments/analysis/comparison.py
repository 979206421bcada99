"""Several runs side by side: what differs between them, and medians of every metric with bootstrap intervals, paired by seed.

Runs with the same settings but for the seed are one *group*: repetitions of each other. The first group is the reference that
the others are compared with; where a run of a group has the same seed as one of the reference, the two saw the same schedule, and
their difference is free of what the seed does to both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.columns import COMPARISON

#: Confidence of every interval.
CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2_000
_BOOTSTRAP_SEED: Final = 20_260_101
#: Settings that make no difference between runs; the seed is what repetitions differ by.
_IGNORED: Final = ("experiment.seed", "experiment.name", "expect.")
_LABEL_KEYS_MAX: Final = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run, as far as it is compared."""

    path: Path
    name: str  #: of the experiment
    seed: int
    mode: str
    verdict: str
    settings: Mapping[str, Any]  #: the resolved experiment, flat: "links.access.loss_ratio" -> 0.02
    metrics: Mapping[str, float]  #: of summary.csv
    units: Mapping[str, str]
    unfaithful: Sequence[str] = ()  #: names of fidelity checks that failed


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    runs: Sequence[RunResult]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its confidence interval; NaN where there is nothing, and bounds where one run tells none."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    groups: Sequence[Group]
    frame: pd.DataFrame  #: the rows of comparison.csv
    medians: Mapping[tuple[str, str], Interval] = field(default_factory=dict)  #: by (group, metric)
    #: To the reference, paired, by the same; a ratio only of pairs whose reference is not 0.
    differences: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    ratios: Mapping[tuple[str, str], Interval] = field(default_factory=dict)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key, entries of lists numbered from 1 as in ``--set``.

    >>> flatten({"a": {"b": 1}, "fault": [{"at_s": 2}]})
    {'a.b': 1, 'fault.1.at_s': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(entry, Mapping) for entry in value):
            flat |= flatten({str(number): entry for number, entry in enumerate(value, start=1)}, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def group_runs(runs: Sequence[RunResult], keys: Sequence[str] | None = None) -> list[Group]:
    """Put repetitions together, in the order in which they come, and say by what each group differs from the others.

    *keys*: the settings that may differ, where that is known; otherwise all do.
    """
    differing = list(keys) if keys is not None else differing_settings(runs)
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for run in runs:
        groups.setdefault(tuple(repr(_setting(run, key)) for key in differing), []).append(run)
    labels = [_label(members[0], differing) for members in groups.values()]
    if len(set(labels)) < len(labels) or any(len(label) > 120 for label in labels):
        labels = [f"{number}: {label[:100]}" for number, label in enumerate(labels, start=1)]
    return [Group(label, members) for label, members in zip(labels, groups.values(), strict=True)]


def compare(groups: Sequence[Group]) -> Comparison:
    """Return medians of every metric of every group, and how they differ from the first."""
    rows: list[tuple[Any, ...]] = []
    medians: dict[tuple[str, str], Interval] = {}
    differences: dict[tuple[str, str], Interval] = {}
    ratios: dict[tuple[str, str], Interval] = {}
    reference = groups[0]
    units = {metric: unit for group in groups for run in group.runs for metric, unit in run.units.items()}
    for group in groups:
        paired = [] if group is reference else pairs_by_seed(reference, group)
        for metric in dict.fromkeys(metric for run in group.runs for metric in run.metrics):
            median = bootstrap_median(_values(group.runs, metric))
            theirs = _values([theirs for theirs, _ in paired], metric)
            ours = _values([ours for _, ours in paired], metric)
            difference = bootstrap_median(ours - theirs)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = bootstrap_median(np.where(theirs != 0, ours / theirs, np.nan))
            of_what = group.label, metric
            medians[of_what], differences[of_what], ratios[of_what] = median, difference, ratio
            against = (reference.label, difference.count) if paired else ("", None)
            rows.append(
                (
                    group.label,
                    metric,
                    units[metric],
                    median.count,
                    *_bounds(median),
                    *against,
                    *_bounds(difference),
                    ratio.count if paired else None,
                    *_bounds(ratio),
                )
            )
    return Comparison(groups, pd.DataFrame(rows, columns=COMPARISON.names), medians, differences, ratios)


def bootstrap_median(values: Floats) -> Interval:
    """Return the median and its percentile bootstrap interval; the same values always have the same.

    Medians of few values jump from one of them to the next, and so do their percentiles: of seven, the plain interval goes from
    the second to the sixth and holds the median in 87 of 100 cases, not 95. So it is made as wide as the order statistics
    that hold it in 95 of 100 whatever the distribution, where it is narrower.

    With one value there is no interval. With fewer than six, no interval of a median that is made from the values alone reaches
    95 % (the widest, from the least to the greatest, holds the median with probability 1 - 2 ** (1 - n)), and this one is narrower
    than it says.

    Sources: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; H. A. David, H. N. Nagaraja, "Order
    Statistics", 3rd edition, section 7.1.

    >>> bootstrap_median(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    Interval(median=4.0, low=1.0, high=7.0, count=7)
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 0)
    median = float(np.median(known))
    if len(known) == 1:
        return Interval(median, np.nan, np.nan, 1)
    ordered = np.sort(known)
    chosen = np.random.default_rng([_BOOTSTRAP_SEED, len(known)]).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(np.median(ordered[chosen], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    rank = order_statistic(len(known))
    return Interval(
        median, min(float(low), float(ordered[rank - 1])), max(float(high), float(ordered[-rank])), len(known)
    )


@functools.cache
def order_statistic(count: int) -> int:
    """Return k so that the k-th least and the k-th greatest of *count* values hold the median between them with 95 %, at least 1.

    They miss it where fewer than k of the values are on one side of it, and each is on either side by the toss of a coin.

    >>> [order_statistic(count) for count in (1, 5, 6, 8, 9, 10, 20)]
    [1, 1, 1, 1, 2, 2, 6]
    """
    rank, ways = 0, 1  # in which `rank` tosses of *count* come down on one side
    below, allowed = 1, int((1 - CONFIDENCE) / 2 * 2**53) * 2**count >> 53
    while below <= allowed:
        rank += 1
        ways = ways * (count - rank + 1) // rank
        below += ways
    return max(1, rank)


def repeated_simulations(group: Group) -> list[RunResult]:
    """Return the simulated runs of *group* that have a seed which one before them has: the same run once more, not another one."""
    seen: set[int] = set()
    again: list[RunResult] = []
    for run in group.runs:
        if run.mode == "simulated" and run.seed in seen:
            again.append(run)
        seen.add(run.seed)
    return again


def _bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.median, interval.low, interval.high


def _values(runs: Sequence[RunResult], metric: str) -> Floats:
    return np.array([run.metrics.get(metric, np.nan) for run in runs], dtype=np.float64)


def pairs_by_seed(reference: Group, group: Group) -> list[tuple[RunResult, RunResult]]:
    """Return runs of the same seed; several of one seed are paired in the order in which they were given."""
    waiting: dict[int, list[RunResult]] = {}
    for run in reversed(reference.runs):
        waiting.setdefault(run.seed, []).append(run)
    return [(waiting[run.seed].pop(), run) for run in group.runs if waiting.get(run.seed)]


def differing_settings(runs: Sequence[RunResult]) -> list[str]:
    """Return the settings, and "mode", that are not the same in all *runs*, but for those that make no difference."""
    keys = dict.fromkeys(key for run in runs for key in ("mode", *run.settings) if not key.startswith(_IGNORED))
    return [key for key in keys if len({repr(_setting(run, key)) for run in runs}) > 1]


def _setting(run: RunResult, key: str) -> object:
    return run.mode if key == "mode" else run.settings.get(key)


def _label(run: RunResult, keys: Sequence[str]) -> str:
    if not keys or len(keys) > _LABEL_KEYS_MAX:
        return run.name
    return ", ".join(f"{key}={_spell(_setting(run, key))}" for key in keys)


def _spell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)


def swept_columns(runs: Sequence[RunResult], keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each swept key with its value in every run, as text."""
    for key in keys:
        yield key, [_spell(_setting(run, key)) for run in runs]
