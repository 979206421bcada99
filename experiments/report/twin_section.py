"""The section of a run's report about its simulated twin: both distributions, and how far they are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from experiments.analysis.twin import DIFFERENCE_MAX_RATIO
from experiments.report.canvas import save
from experiments.report.figures import Distribution, latency_figure
from experiments.report.page import Cell, HtmlTable, Section
from experiments.report.run_tables import DeliveredUpdates, read_deliveries
from experiments.run_folder import TWIN

_QUANTILES: Final = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_NOTES: Final = (
    "The same file and seed in virtual time, with processes as slow as those of the emulated run were.",
    "What is left between the two is what links, timers or the simulator do wrong.",
    f"The simulated run has its own folder and report: {TWIN}/report.html.",
)


def twin_section(run: Path, emulated: DeliveredUpdates, plots: Path) -> Section:
    """Compare the deliveries of a run with those of its twin. Raises: InputError if those cannot be read."""
    simulated = read_deliveries(run / TWIN)
    both = {"emulated": emulated, "simulated": simulated}
    figure = latency_figure(
        [Distribution(mode, each.latency_ms) for mode, each in both.items()],
        [Distribution(mode, each.ratio) for mode, each in both.items()],
        Distribution("path delay (floor)", emulated.path_delay_ms[emulated.path_delay_ms > 0]),
    )
    rows: list[tuple[Cell, ...]] = []
    for what, is_judged, ours, theirs in (
        ("latency / path delay", True, emulated.ratio, simulated.ratio),
        ("latency (ms)", False, emulated.latency_ms, simulated.latency_ms),
    ):
        for name, share in _QUANTILES.items():
            if not (len(ours) and len(theirs)):
                continue
            measured, computed = float(np.quantile(ours, share)), float(np.quantile(theirs, share))
            apart = abs(computed - measured) / measured * 100 if measured else float("nan")
            most = DIFFERENCE_MAX_RATIO.get(name) if is_judged else None
            rows.append((f"{what}, {name}", measured, computed, apart, "" if most is None else f"{most:.0%}"))
    caption = f"{len(emulated.latency_ms)} deliveries emulated, {len(simulated.latency_ms)} simulated"
    table = HtmlTable(("what", "emulated", "simulated", "apart (%)", "allowed"), rows, caption)
    return Section(
        "Emulated and simulated", save(figure, plots, "twin"), "Distributions of latency and ratio in both modes",
        [table], _NOTES,
    )  # fmt: skip
