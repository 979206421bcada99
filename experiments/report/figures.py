"""The plots of one run. Each says on its axes what it shows and in which unit; each has a table beside it in the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from experiments.applied import VIAS
from experiments.report.canvas import cumulative, label_at_right, new_figure
from experiments.report.palette import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    SERIES,
    SHADE,
    SKY,
    VERMILLION,
    Colour,
)  # fmt: skip
from experiments.report.run_tables import DeliveredUpdates

#: More points than these are drawn as pixels, so that a file stays small.
_POINTS_MAX: Final = 1_500
#: A timeline has this many places for a point, along and up: what falls together is drawn once.
_GRID: Final = (700, 220)
#: Points that are looked at in one go.
_PART_POINTS: Final = 200_000
_BARS_MAX: Final = 40

VIA_COLOURS: Final[Mapping[str, Colour]] = {
    "armed": BLUE, "push": GREEN, "recovery": VERMILLION, "snapshot": PURPLE, "fetch": BLUE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Distribution:
    """One line of a plot of distributions; *count* is how many values it stands for."""

    label: str
    values: NDArray[np.floating[Any]]


def latency_figure(latencies: Sequence[Distribution], ratios: Sequence[Distribution], floor: Distribution) -> Figure:
    """Draw the distributions of latency against that of the path delay, and of their ratio; both on log scales."""
    figure, (left, right) = new_figure(9.6, 3.4, columns=2, margins=(0.065, 0.15, 0.875, 0.9))
    figure.subplots_adjust(wspace=0.52)
    _draw_distributions(left, [floor, *latencies], floor=True)
    left.set(title="Latency of deliveries", xlabel="latency (ms, log)", ylabel="share of deliveries")
    _draw_distributions(right, ratios, floor=False)
    right.axvline(1.0, color=MUTED.light, linewidth=1.2)
    low, high = right.get_xlim()
    right.set_xlim(min(low, 0.93), max(high, 2.2))
    plain_log_ticks(right)
    right.text(
        0.985,
        0.03,
        "floor",
        color=MUTED.light,
        fontsize=8,
        ha="right",
        rotation=90,
        transform=right.get_xaxis_transform(),
    )
    right.set(title="Latency / path delay", xlabel="ratio (1 = the path delay, log)", ylabel="share of deliveries")
    return figure


def _draw_distributions(axes: Axes, distributions: Sequence[Distribution], *, floor: bool) -> None:
    labels: list[tuple[float, str, str]] = []
    drawn = [each for each in distributions if np.isfinite(each.values).any()]
    for index, distribution in enumerate(drawn):
        is_floor = floor and index == 0
        nth = index - floor
        colour = (MUTED if is_floor else SERIES[nth % len(SERIES)]).light
        values, shares = cumulative(np.maximum(distribution.values, 1e-3))
        axes.step(
            values,
            shares,
            where="post",
            color=colour,
            linewidth=5.0 if is_floor else _line_width(nth, len(drawn) - floor),
            alpha=0.45 if is_floor else 1.0,  # a broad band, to be seen where deliveries take no longer
            linestyle="-" if is_floor else DASHES[nth % len(DASHES)],
        )
        labels.append((0.95 - 0.11 * index, f"{_LINE.get(nth, '')}{distribution.label}", colour))
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    plain_log_ticks(axes)
    label_at_right(axes, labels)
    if not drawn:
        _say_nothing(axes)


def _line_width(nth: int, lines: int) -> float:
    """Return the width of a line: the first are wider, so that those drawn over them do not hide them where all are the same."""
    return 1.4 + 0.8 * max(0, min(lines, 4) - 1 - nth)


_LINE: Final = {-1: "— ", 0: "— ", 1: "-- ", 2: "-· ", 3: "·· ", 4: "-·· ", 5: "—— ", 6: "··· "}


def timeline_figure(
    deliveries: DeliveredUpdates, faults: Sequence[tuple[str, float, float]], *, end_s: float
) -> Figure:
    """Draw every delivery at the time of its publication, its latency above, with the faults (label, from, to) shaded."""
    figure, (axes,) = new_figure(9.6, 3.4, margins=(0.065, 0.15, 0.875, 0.86))
    axes.set_yscale("log")
    for label, begin_s, until_s in faults[:_BARS_MAX]:
        axes.axvspan(begin_s, until_s, color=SHADE.light, linewidth=0, zorder=0)
        axes.axvline(begin_s, color=VERMILLION.light, linewidth=0.8, zorder=1)
        if len(faults) <= 8:
            axes.text(begin_s, 1.02, label, fontsize=8, color=VERMILLION.light, transform=axes.get_xaxis_transform())
    labels: list[tuple[float, str, str]] = []
    for code, via in enumerate(VIAS):
        mine = deliveries.via == code
        if not mine.any():
            continue
        colour = VIA_COLOURS[via].light
        published_s, latency_ms = _thinned(deliveries.published_s[mine], np.maximum(deliveries.latency_ms[mine], 1e-3))
        axes.scatter(
            published_s,
            latency_ms,
            s=7,
            color=colour,
            marker=_VIA_MARKERS[via],
            linewidths=0,
            alpha=0.75,
            rasterized=len(published_s) > _POINTS_MAX,
        )
        labels.append((0.95 - 0.11 * len(labels), f"{_VIA_SIGNS[via]} {via} ({int(mine.sum()):,})", colour))
    floors = deliveries.path_delay_ms[deliveries.path_delay_ms > 0]
    if len(floors):
        median_ms = float(np.median(floors))
        axes.axhline(median_ms, color=MUTED.light, linewidth=1.0, linestyle="--")
        labels.append((0.95 - 0.11 * len(labels), "-- path delay, p50", MUTED.light))
    label_at_right(axes, labels)
    axes.set_xlim(0, max(end_s, 1e-3))
    axes.set(xlabel="published (s since the start of the run)", ylabel="latency (ms, log)")
    axes.set_title("Deliveries, by how they came", pad=18 if faults else 6)
    plain_log_ticks(axes, vertical=True)
    if not labels:
        _say_nothing(axes)
    return figure


_VIA_SIGNS: Final = {"armed": "●", "push": "▲", "recovery": "■", "snapshot": "◆", "fetch": "●"}
_VIA_MARKERS: Final = {"armed": "o", "push": "^", "recovery": "s", "snapshot": "D", "fetch": "o"}


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return one point of those that would be drawn on top of each other (*y* on a log scale)."""
    if len(x) <= _POINTS_MAX:
        return x, y
    (left, right), (low, high) = ((float(values.min()), float(values.max())) for values in (x, y))
    taken = np.zeros(_GRID[0] * _GRID[1], dtype=np.bool_)
    kept = [np.empty(0, dtype=np.intp)]
    for begin in range(0, len(x), _PART_POINTS):
        part = slice(begin, begin + _PART_POINTS)
        column = _scaled(x[part], left, right, _GRID[0])
        row = _scaled(np.log(y[part]), math.log(low), math.log(high), _GRID[1])
        cells, first = np.unique(column * _GRID[1] + row, return_index=True)
        kept.append(begin + first[~taken[cells]])
        taken[cells] = True
    places = np.concatenate(kept)
    return x[places], y[places]


def _scaled(values: NDArray[Any], low: float, high: float, steps: int) -> NDArray[np.int64]:
    return np.minimum((values - low) / max(high - low, 1e-9) * steps, steps - 1).astype(np.int64)


def outage_figure(rows: Sequence[tuple[str, NDArray[Any], NDArray[Any]]]) -> Figure:
    """Draw of each fault (label, outages in ms, floors in ms) a dot for every client, and the floor as a line."""
    shown = rows[:_BARS_MAX]
    figure, (axes,) = new_figure(7.2, 1.1 + 0.42 * max(1, len(shown)), margins=(0.3, 0.1, 0.97, 0.9))
    figure.subplots_adjust(bottom=0.55 / figure.get_figheight(), top=1 - 0.32 / figure.get_figheight())
    for place, (_, outages_ms, floors_ms) in enumerate(shown):
        known = outages_ms[~np.isnan(outages_ms)]
        fan = np.linspace(-0.18, 0.18, len(known)) if len(known) > 1 else np.zeros(len(known))
        axes.scatter(np.sort(known), place + fan, s=20, color=BLUE.light, alpha=0.8, linewidths=0, zorder=3)
        if len(known):
            worst = float(known.max())
            axes.annotate(
                f"{worst:.0f} ms",
                (worst, place + fan[-1]),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        floor = floors_ms[~np.isnan(floors_ms)]
        if len(floor):
            axes.plot([floor.max()] * 2, [place - 0.3, place + 0.3], color=MUTED.light, linewidth=1.6)
    axes.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="outage (ms); a dot is a client, the bar the longest path delay that the fault leaves")
    axes.set_title("Outage of each fault")
    return figure


def bars_figure(
    rows: Sequence[tuple[str, float, Colour]], *, title: str, unit: str, form: str = ".3g", width_in: float = 7.2
) -> Figure:
    """Draw horizontal bars (label, value, colour), with the value at the end of each."""
    shown = rows[:_BARS_MAX]
    figure, (axes,) = new_figure(width_in, 0.95 + 0.2 * max(1, len(shown)), margins=(0.25, 0.1, 0.93, 0.9))
    figure.subplots_adjust(bottom=0.48 / figure.get_figheight(), top=1 - 0.28 / figure.get_figheight())
    values = [value for _, value, _ in shown]
    axes.barh(range(len(shown)), values, color=[colour.light for _, _, colour in shown], height=0.72)
    for place, value in enumerate(values):
        axes.annotate(
            format(value, form), (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
            color=INK.light,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=unit)
    axes.set_title(title + (f" (the {_BARS_MAX} highest of {len(rows)})" if len(rows) > _BARS_MAX else ""))
    return figure


def messages_rows(messages: pd.DataFrame, *, updates: float, directions: int) -> pd.DataFrame:
    """Return per message type: packets, bytes, and both per update and link (in both directions), most packets first."""
    by_type = messages.groupby("message")[["packets", "bytes"]].sum().sort_values("packets", ascending=False)
    by_type = by_type.reset_index()
    share = updates * directions / 2
    for what in ("packets", "bytes"):
        by_type[f"{what}_per_update_link"] = by_type[what] / share if share else np.nan
    return by_type


def message_colour(message: str) -> Colour:
    """Return the colour of a message type: what carries updates, what pulls and acks, what keeps alive."""
    if message.startswith(("update", "notification", "sync-update", "push")):
        return BLUE
    if message.startswith(("heartbeat", "idle", "face")):
        return MUTED
    return GREEN if message.startswith("object") else SKY


def plain_log_ticks(axes: Axes, *, vertical: bool = False) -> None:
    """Write the ticks of a log axis as plain numbers."""
    axis = axes.yaxis if vertical else axes.xaxis
    low, high = sorted(axes.get_ylim() if vertical else axes.get_xlim())
    decades = np.log10(max(high, 1e-9) / max(low, 1e-9))
    narrow = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 1 else narrow))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _say_nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing was delivered", ha="center", va="center", transform=axes.transAxes, color=MUTED.light)
