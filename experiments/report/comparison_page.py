"""``comparison.csv``, ``report.html`` and plots of several runs: distributions and medians of each group side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.analysis.comparison import (
    CONFIDENCE,
    Comparison,
    Group,
    Interval,
    RunResult,
    compare,
    differing_settings,
    group_runs,
    pairs_by_seed,
    repeated_simulations,
)
from experiments.analysis.csv_files import write_csv
from experiments.columns import COMPARISON
from experiments.report.canvas import PLOTS_DIR, new_figure, plotting, save
from experiments.report.figures import Distribution, latency_figure, plain_log_ticks
from experiments.report.page import Banner, Cell, HtmlTable, Page, Section, spell_number
from experiments.report.palette import SERIES
from experiments.report.run_page import PAGE_FILE, quantiles, spell_verdict
from experiments.report.run_tables import read_deliveries
from experiments.run_folder import write_whole
from topologies.errors import InputError

#: Metrics that every comparison shows: (metric, words, unit).
HEADLINES: Final = (
    ("deliveries.ratio.p50", "latency / path delay, p50", "1"),
    ("deliveries.ratio.p99", "latency / path delay, p99", "1"),
    ("deliveries.latency_ms.p50", "latency, p50", "ms"),
    ("deliveries.latency_ms.p99", "latency, p99", "ms"),
    ("recovery.outage_ms.max", "outage, worst client", "ms"),
    ("messages.packets_per_update", "packets per update, all links", "1"),
    ("messages.bytes", "bytes, all links", "bytes"),
    ("deliveries.lost", "deliveries lost", "count"),
    ("nodes.cpu_s", "CPU time of all nodes", "s"),
)
_PLOTTED: Final = (0, 1, 4, 5)
_ON_INTERVALS: Final = (
    f"Median over runs and its bootstrap interval ({CONFIDENCE:.0%}) in brackets, at least as wide as the order statistics that hold "
    "the median as often. One run has no interval, and of fewer than six it is narrower than it says. (of n): so many runs have a "
    "value. comparison.csv has every metric."
)
#: Deliveries that are drawn, of one run in the mean of its group; of more, evenly spaced ones of those in order.
_DRAWN_MAX: Final = 50_000
#: Settings that decide, with the seed, who publishes what and when.
_SCHEDULE_KEYS: Final = ("workload.", "attendance.", "topology.", "experiment.duration_s")
_SHORT_MAX: Final = 20
#: Medians that differ by more than this ratio are on a log scale.
_LOG_FROM: Final = 10.0
_RUNS_DRAWN_MAX: Final = 40  #: of one group
_GROUPS_DRAWN_MAX: Final = 7  #: more lines cannot be told apart


def write_comparison(
    directory: Path, runs: Sequence[RunResult], *, title: str, keys: Sequence[str] | None = None
) -> Comparison:
    """Compare *runs*, the group of the first with the others, and write all that comes of it into *directory*.

    *keys*: the settings that differ, where that is known. Raises: InputError if something cannot be read or written.
    """
    comparison = compare(group_runs(runs, keys))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_csv(directory, COMPARISON, comparison.frame)
        with plotting():
            sections = list(_sections(comparison, directory))
        page = Page(title, _subtitle(comparison), list(_banners(comparison, runs, directory)), sections)
        write_whole(directory / PAGE_FILE, page.html().encode())
    except OSError as error:
        raise InputError(
            where=str(error.filename or directory),
            problem=f"cannot be written: {error.strerror}",
            remedy="make room, or choose another place with --out",
        ) from error
    return comparison


def _subtitle(comparison: Comparison) -> str:
    runs = sum(len(group.runs) for group in comparison.groups)
    return f"{runs} runs in {len(comparison.groups)} groups; reference: {comparison.groups[0].label}"


def _banners(comparison: Comparison, runs: Sequence[RunResult], directory: Path) -> Iterator[Banner]:
    unfaithful = [run for run in runs if run.unfaithful]
    if unfaithful:
        rows = [(_place(run, directory), ", ".join(run.unfaithful)) for run in unfaithful]
        text = f"{len(unfaithful)} of {len(runs)} runs: the machine or the testbed did not do all that was asked of it."
        yield Banner("warn", "Fidelity failed", text, HtmlTable(("run", "checks"), rows))
    again = [
        (group.label, _place(run, directory), run.seed)
        for group in comparison.groups
        for run in repeated_simulations(group)
    ]
    if again:
        text = (
            "These are simulated with a seed that a run of their group has already: the same run once more, not another repetition. "
            "The intervals of their groups are narrower than they say."
        )
        yield Banner("warn", "Runs that count twice", text, HtmlTable(("group", "run", "seed"), again))
    bad = [run for run in runs if run.verdict != "pass"]
    if bad:
        text = f"{len(bad)} of {len(runs)} runs did not pass: read the figures of their groups with care."
        rows = [(_place(run, directory), spell_verdict(run.verdict)) for run in bad]
        yield Banner("fail", "Not all runs passed", text, HtmlTable(("run", "verdict"), rows, verdict_column=1))
    else:
        yield Banner("pass", "All runs passed", f"{len(runs)} runs.")


def _sections(comparison: Comparison, directory: Path) -> Iterator[Section]:
    plots = directory / PLOTS_DIR
    yield Section(
        "Medians", save(medians_figure(comparison), plots, "medians"), "Medians of each group with their intervals",
        [headline_table(comparison)],
        [_ON_INTERVALS],
    )  # fmt: skip
    reference, *others = comparison.groups
    if any(pairs_by_seed(reference, group) for group in others):
        yield Section("Differences, paired by seed", tables=_paired_tables(comparison), notes=_pairing(comparison))
    elif others:
        note = f"No run of another group has a seed that one of {reference.label} has, so nothing can be paired: give both the same seeds."
        yield Section("Differences, paired by seed", notes=[note])
    figure, table = _distributions(comparison.groups)
    yield Section(
        "Latency against the path delay", save(figure, plots, "latency"), "Distributions of latency by group", [table],
        list(_never_came(comparison.groups)),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (group.label, _place(run, directory), run.seed, run.mode, spell_verdict(run.verdict))
        for group in comparison.groups
        for run in group.runs
    ]
    yield Section(
        "Runs", tables=[HtmlTable(("group", "run", "seed", "mode", "verdict"), rows, verdict_column=4, rows_max=500)]
    )


def _place(run: RunResult, directory: Path) -> str:
    """Return where the run is: seen from the comparison, where that is around it, so that both can be moved together."""
    place = run.path.relative_to(directory) if run.path.is_relative_to(directory) else run.path
    return str(place)


def headline_table(comparison: Comparison) -> HtmlTable:
    """Return the metrics that people ask for first, a row each, a column a group."""
    rows: list[tuple[Cell, ...]] = []
    for metric, words, unit in HEADLINES:
        intervals = [comparison.medians.get((group.label, metric)) for group in comparison.groups]
        if any(interval is not None and interval.count for interval in intervals):
            cells = zip(intervals, comparison.groups, strict=True)
            rows.append((f"{words} ({unit})", *(spell_interval(each, of=len(group.runs)) for each, group in cells)))
    columns = (
        "metric",
        *(f"{name} (n={len(group.runs)})" for name, group in zip(_names(comparison), comparison.groups, strict=True)),
    )
    return HtmlTable(columns, rows, _keys_of(comparison))


def _names(comparison: Comparison) -> list[str]:
    """Return short labels of the groups, or the whole ones where short ones are the same."""
    short = [short_label(group.label) for group in comparison.groups]
    return short if len(set(short)) == len(short) else [group.label for group in comparison.groups]


def _keys_of(comparison: Comparison) -> str:
    """Return what the short labels of columns are values of."""
    parts = (part.partition("=") for group in comparison.groups for part in group.label.split(", "))
    return ", ".join(dict.fromkeys(key for key, equals, _ in parts if equals))


def spell_interval(interval: Interval | None, *, of: int | None = None) -> str:
    """Return a median with its interval, and of how many values, unless that is *of*.

    >>> spell_interval(Interval(1.25, 1.2, 1.31, 10)), spell_interval(Interval(4, float("nan"), float("nan"), 1), of=3)
    ('1.25 [1.2, 1.31]', '4 (of 1)')
    """
    if interval is None or not interval.count:
        return "-"
    text = spell_number(interval.median)
    if not np.isnan(interval.low):
        text += f" [{spell_number(interval.low)}, {spell_number(interval.high)}]"
    return text if of is None or interval.count == of else f"{text} (of {interval.count})"


def _paired_tables(comparison: Comparison) -> list[HtmlTable]:
    """Return how the other groups differ from the reference: as a difference, which there always is, and as a ratio."""
    keys = _keys_of(comparison)
    others = [(group, len(pairs_by_seed(comparison.groups[0], group))) for group in comparison.groups[1:]]
    tables = []
    for what, intervals in (
        ("value minus that of the reference", comparison.differences),
        ("value over that of the reference", comparison.ratios),
    ):
        rows: list[tuple[Cell, ...]] = []
        for metric, words, unit in HEADLINES:
            mine = [(intervals.get((group.label, metric)), pairs) for group, pairs in others]
            if any(interval is not None and interval.count for interval, _ in mine):
                name = words if intervals is comparison.ratios else f"{words} ({unit})"
                rows.append((name, *(spell_interval(interval, of=pairs) for interval, pairs in mine)))
        named = zip(_names(comparison)[1:], others, strict=True)
        tables.append(HtmlTable((what, *(f"{name} (pairs={pairs})" for name, (_, pairs) in named)), rows, keys))
    return tables


def _pairing(comparison: Comparison) -> list[str]:
    how = (
        f"Each run against the one of the same seed in {comparison.groups[0].label}: medians over these pairs, with intervals. 0 is no "
        "difference, and 1 no ratio; an interval without it is a difference that the choice of seeds does not explain."
    )
    care = (
        "A ratio to 0 is none: (of n) says how many pairs are left. Of twenty such intervals one is wrong by chance alone: what "
        "was asked before the runs counts for more than what was found in these tables."
    )
    runs = [run for group in comparison.groups for run in group.runs]
    schedule = [key for key in differing_settings(runs) if key.startswith(_SCHEDULE_KEYS)]
    other = (
        f"The groups differ in {', '.join(schedule[:3])}{' and more' if len(schedule) > 3 else ''}, so who publishes what and when is not "
        "the same in both runs of a pair: pairing takes out little of what the seed does."
    )
    return [how, care, *([other] if schedule else [])]


def _never_came(groups: Sequence[Group]) -> Iterator[str]:
    """Say what is missing from the distributions: only what was delivered has a latency."""
    for group in groups:
        lost, expected = (
            sum(value for run in group.runs if not math.isnan(value := run.metrics.get(metric, math.nan)))
            for metric in ("deliveries.lost", "deliveries.expected")
        )
        if lost > 0:
            yield (
                f"{group.label}: {spell_number(lost)} of {spell_number(expected)} expected deliveries never happened, and are in no "
                "distribution, quantile or median of latencies."
            )


def medians_figure(comparison: Comparison) -> Figure:
    """Draw the median of four metrics for each group, with its interval as a line."""
    groups = comparison.groups[:40]
    figure, all_axes = new_figure(
        11.0, 1.0 + 0.3 * max(2, len(groups)), columns=len(_PLOTTED), margins=(0.2, 0.1, 0.985, 0.9)
    )
    figure.subplots_adjust(
        left=min(0.38, 0.02 + 0.0062 * max(len(group.label) for group in groups)),
        bottom=0.5 / figure.get_figheight(), top=1 - 0.3 / figure.get_figheight(), wspace=0.18,
    )  # fmt: skip
    for axes, index in zip(all_axes, _PLOTTED, strict=True):
        metric, words, unit = HEADLINES[index]
        for place, group in enumerate(groups):
            interval = comparison.medians.get((group.label, metric))
            if interval is None or not interval.count:
                continue
            colour = SERIES[place % len(SERIES)].light
            if not np.isnan(interval.low):
                axes.plot(
                    [interval.low, interval.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt"
                )
            axes.scatter([interval.median], [place], s=26, color=colour, zorder=3)
            axes.annotate(
                spell_number(interval.median), (interval.median, place), xytext=(0, 5), textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
        axes.set_ylim(len(groups) - 0.4, -0.7)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ratio" if unit == "1" and "ratio" in metric else "packets" if unit == "1" else unit)
        axes.set_title(words, fontsize=8)
        axes.set_yticks(
            range(len(groups)), [group.label for group in groups] if axes is all_axes[0] else [""] * len(groups)
        )
        known = [
            each.median for group in groups if (each := comparison.medians.get((group.label, metric))) and each.count
        ]
        if (
            unit == "1" and known and 0 < _LOG_FROM * min(known) < max(known)
        ):  # or one group squeezes all others together
            axes.set_xscale("log")
            plain_log_ticks(axes)
            axes.set_xlabel(f"{axes.get_xlabel()} (log)")
        else:
            low, high = axes.get_xlim()
            axes.set_xlim(max(0.0, low) if high > 0 else low, high)
    return figure


def _distributions(groups: Sequence[Group]) -> tuple[Figure, HtmlTable]:
    latencies: list[Distribution] = []
    ratios: list[Distribution] = []
    floors: list[NDArray[np.float32]] = []
    rows: list[tuple[Cell, ...]] = []
    for group in groups[:_GROUPS_DRAWN_MAX]:
        parts = [read_deliveries(run.path) for run in group.runs[:_RUNS_DRAWN_MAX]]
        latency = np.concatenate(_drawn([part.latency_ms for part in parts]))
        ratio = np.concatenate(_drawn([part.ratio for part in parts]))
        floors.append(np.concatenate(_drawn([part.path_delay_ms[part.path_delay_ms > 0] for part in parts])))
        latencies.append(Distribution(short_label(group.label), latency))
        ratios.append(Distribution(short_label(group.label), ratio))
        deliveries = sum(len(part.latency_ms) for part in parts)
        rows.append((group.label, "latency (ms)", deliveries, *quantiles(latency)))
        rows.append((group.label, "ratio", deliveries, *quantiles(ratio)))
    # Groups of different networks have no floor in common; each has its own in the plot of the ratios.
    is_common = all(np.allclose(quantiles(each), quantiles(floors[0]), rtol=0.02, equal_nan=True) for each in floors)
    floor = Distribution("path delay (floor)" if is_common else "path delay, all", np.concatenate(floors))
    figure = latency_figure(latencies, ratios, floor)
    more = len(groups) - _GROUPS_DRAWN_MAX
    caption = "all deliveries of a group together" + (
        f"; {more} more groups are in comparison.csv only" if more > 0 else ""
    )
    return figure, HtmlTable(("group", "what", "deliveries", "p50", "p90", "p99", "max"), rows, caption)


def short_label(label: str) -> str:
    """Return a label that fits beside a line: values without their keys.

    >>> short_label("conference.mode=push"), short_label("links.core.delay_ms=5, conference.mode=svs")
    ('push', '5, svs')
    """
    short = ", ".join(part.partition("=")[2] or part for part in label.split(", "))
    return short if len(short) <= _SHORT_MAX else f"{short[: _SHORT_MAX - 3]}..."


def _drawn(parts: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the values of each run, or of very many an even choice: of each run the same share, or the small ones would outweigh."""
    share = _DRAWN_MAX * len(parts) / max(1, sum(map(len, parts)))
    return list(parts) if share >= 1 else [_thinned(part, max(2, round(len(part) * share))) for part in parts]


def _thinned(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return *count* of *values*, evenly spaced among those in order, the least and the greatest with them."""
    if len(values) <= count:
        return values
    places = np.linspace(0, len(values) - 1, count).round().astype(np.int64)
    return np.sort(values)[places]
