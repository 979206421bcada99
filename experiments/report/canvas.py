"""Figures as all plots have them, and how they become files: no window, no global state, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.report.palette import INK, MUTED, PAPER, RULE

PLOTS_DIR: Final = "plots"
_DOTS_PER_INCH: Final = 200
_SETTINGS: Final[Any] = {  # its keys are a type of hundreds of words
    "axes.edgecolor": MUTED.light,
    "axes.labelcolor": INK.light,
    "axes.titlecolor": INK.light,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": PAPER.light,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER.light,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a plot is the same everywhere
    "font.size": 9,
    "grid.color": RULE.light,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "text.color": INK.light,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "xtick.labelcolor": INK.light,
    "ytick.labelcolor": INK.light,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.parse_math": False,  # names of nodes and links are no formulas
}


@contextmanager
def plotting() -> Iterator[None]:
    """Draw with our settings inside of the block; matplotlib is as it was afterwards."""
    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(
    width_in: float = 7.2,
    height_in: float = 3.0,
    *,
    columns: int = 1,
    margins: Sequence[float] = (0.1, 0.17, 0.97, 0.9),
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, side by side. *margins*: left, bottom, right and top, as shares of the figure."""
    figure = Figure(figsize=(width_in, height_in))
    left, bottom, right, top = margins
    axes = figure.subplots(1, columns, squeeze=False)[0]
    figure.subplots_adjust(left=left, bottom=bottom, right=right, top=top, wspace=0.3)
    return figure, list(axes)


def save(figure: Figure, directory: Path, name: str) -> str:
    """Write ``<name>.svg`` and ``<name>.png`` into *directory*, and return the SVG as text. Raises: OSError."""
    directory.mkdir(exist_ok=True)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # identifiers follow from the name: several plots fit into one page
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": name})
    (directory / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    figure.savefig(directory / f"{name}.png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return text.getvalue()


def spread(places: Sequence[float], *, least: float, low: float, high: float) -> list[float]:
    """Return *places* moved apart so that neighbours are *least* apart, in the same order, from *low* to *high*.

    >>> spread([0.5, 0.5], least=0.1, low=0.0, high=1.0)
    [0.45, 0.55]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [places[index] for index in order]
    for _ in range(200):
        pushed = False
        for lower in range(len(moved) - 1):
            lacking = least - (moved[lower + 1] - moved[lower])
            if lacking > 1e-9:
                moved[lower] -= lacking / 2
                moved[lower + 1] += lacking / 2
                pushed = True
        moved = [min(max(place, low), high) for place in moved]
        if not pushed:
            break
    result = list(places)
    for index, place in zip(order, moved, strict=True):
        result[index] = round(place, 6)
    return result


def label_at_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels in the right margin of *axes*: (height as a share of the axes, text, colour); none covers another."""
    heights = spread([height for height, _, _ in labels], least=0.085, low=0.03, high=0.97)
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        axes.text(1.015, height, text, color=colour, transform=axes.transAxes, va="center", fontsize=8)


def cumulative(values: NDArray[np.floating[Any]], *, points: int = 400) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the empirical distribution of *values* as a line of at most *points*, its tail as exact as its middle."""
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return ordered, ordered
    tail = 1.0 - np.geomspace(1.0, 1.0 / len(ordered), points // 2)
    shares = np.unique(np.concatenate([np.linspace(0.0, 1.0, points - points // 2), tail]))
    places = np.minimum((shares * len(ordered)).astype(np.int64), len(ordered) - 1)
    return ordered[places], (places + 1) / len(ordered)
