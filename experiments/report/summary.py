"""The summary that a run ends with, for people: the verdict first, then the figures, then what failed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.checker import Check
from experiments.judgement import TWIN_CHECKS, verdict_now
from experiments.run_folder import RunFolder

if TYPE_CHECKING:
    from experiments.analysis import Analysis

_STYLES: Final = {"pass": "bold green", "fail": "bold red", "interrupted": "bold yellow", "error": "bold red"}


#: The summary as a file of the run folder.
REPORT_FILE: Final = "report.txt"
_PAGE_FILE: Final = "report.html"
_REPORT_WIDTH: Final = 120


def write_report(folder: RunFolder, analysis: Analysis | None, manifest: Mapping[str, Any]) -> None:
    """Write the summary into the run folder."""
    with (folder.path / REPORT_FILE).open("w", encoding="utf-8") as file:
        print_summary(Console(file=file, width=_REPORT_WIDTH), Path(), analysis, manifest)


def print_summary(console: Console, folder: Path, analysis: Analysis | None, manifest: Mapping[str, Any]) -> None:
    """Print what came of a run.

    Args:
        console: where to.
        folder: the run folder, as the user is to see it.
        analysis: None if there was nothing to analyse.
        manifest: of the run.
    """
    recorded, problem = str(manifest.get("verdict", "unknown")), str(manifest.get("problem") or "")
    verdict = verdict_now(recorded, analysis.checks if analysis is not None else ())
    name = str(manifest.get("experiment", {}).get("experiment", {}).get("name", folder.name))
    console.print()
    if problem:
        console.print(f"[bold red]The run broke off:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if analysis is not None and analysis.unfaithful:
        console.print("[bold yellow]Fidelity failed:[/] read the figures with care.", highlight=False)
        _print_checks(console, analysis.unfaithful)
    table = Table(show_header=False, title=escape(name), title_justify="left", min_width=60)
    table.add_column("what", style="dim")
    table.add_column("value", overflow="fold")
    spelt = "unfinished: still running, or killed" if verdict == "running" else verdict
    if verdict != recorded:
        spelt += f" (it ended with {recorded}: what is left of its records, or this version of hconf, says otherwise)"
    table.add_row("verdict", f"[{_STYLES.get(verdict, 'bold')}]{spelt}[/]")
    if analysis is not None:
        for what, value in _figures(analysis):
            table.add_row(what, escape(value))
    table.add_row("report", escape(str(folder / _PAGE_FILE if (folder / _PAGE_FILE).is_file() else folder)))
    console.print(table)
    if analysis is not None and analysis.failed:
        console.print("[bold red]Did not pass:[/]")
        _print_checks(console, analysis.failed)


def _figures(analysis: Analysis) -> Iterator[tuple[str, str]]:
    values = analysis.values

    def spell(metric: str, form: str = ".3g") -> str:
        value = values.get(metric, math.nan)
        return "-" if math.isnan(value) else format(value, form)

    is_gone = not math.isnan(values.get("network.down_s", math.nan))  # a simulated one is nowhere
    down = f", down in {spell('network.down_s', '.2f')} s" if is_gone else ""
    yield "network", f"up and in sync in {spell('network.up_s', '.2f')} s{down}"

    def quantiles(metric: str, form: str) -> str:
        return f"p50 {spell(f'{metric}.p50', form)}, p99 {spell(f'{metric}.p99', form)}"

    yield "updates", f"{spell('updates.published', '.0f')} published, {spell('updates.acked', '.0f')} acked"
    yield "deliveries", f"{spell('deliveries.delivered', '.0f')} of {spell('deliveries.expected', '.0f')} expected"
    yield (
        "latency in ms",
        f"{quantiles('deliveries.latency_ms', '.2f')}, max {spell('deliveries.latency_ms.max', '.2f')}",
    )
    yield "latency / path delay", quantiles("deliveries.ratio", ".3f")
    if analysis.faults:
        yield "  before any fault", quantiles("deliveries.before_fault.ratio", ".3f")
        yield "  during faults", quantiles("deliveries.during_fault.ratio", ".3f")
    for fault in analysis.faults:
        at = "never applied" if fault.applied_s is None else f"at {fault.applied_s:.2f} s"
        outage = "no outage measured" if fault.outage_max_ms is None else f"outage at most {fault.outage_max_ms:.1f} ms"
        lost = f", {fault.updates_lost} updates lost" if fault.updates_lost else ""
        yield f"{fault.kind} {fault.target}", f"{at}: {outage}, {fault.clients} clients affected{lost}"
    twin = {check.name: check for check in analysis.checks if check.name in TWIN_CHECKS}
    if twin:
        yield (
            "simulated twin",
            ", ".join(
                f"{name.rpartition('.')[2]} {check.measured} apart"
                if check.measured
                else f"{name.rpartition('.')[2]} -"
                for name, check in twin.items()
            ),
        )
    held = sum(check.verdict == "pass" for check in analysis.checks)
    yield "checks", f"{held} of {len(analysis.checks)} passed, {len(analysis.failed)} failed the run"


def _print_checks(console: Console, checks: Sequence[Check]) -> None:
    for check in checks:
        detail = f" ({check.detail})" if check.detail else ""
        console.print(
            f"  {escape(check.name)}: {check.verdict}; measured {escape(check.measured or 'nothing')}, "
            f"required {escape(check.required)}{escape(detail)}",
            highlight=False,
            soft_wrap=True,
        )
