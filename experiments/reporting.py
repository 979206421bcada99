"""What `hconf report` does and prints. It loads no more than that takes: what runs experiments is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.report import print_summary, write_report
from experiments.run_folder import RUNS_DIR, TWIN, RunFolder, check_can_create, has_twin
from experiments.sweep import PLAN_FILE, POINTS_DIR
from topologies.errors import InputError

if TYPE_CHECKING:
    from experiments.analysis import Analysis
    from experiments.analysis.comparison import Comparison

#: More runs than these are not each summed up in the terminal, and have no page of their own made anew.
_PRINTED_MAX: Final = 12
_GROUPS_PRINTED_MAX: Final = 40
#: So many runs make a 95 % interval of a median.
_RUNS_MIN: Final = 6
#: Columns of the table of medians.
_COLUMNS: Final = {
    "deliveries.ratio.p50": "p50 ratio",
    "deliveries.ratio.p99": "p99 ratio",
    "recovery.outage_ms.max": "worst outage (ms)",
    "messages.packets_per_update": "packets per update",
    "deliveries.lost": "lost",
}


def report_runs(paths: Sequence[Path], out: Path | None) -> None:
    """Make the files of every run anew; of several also the comparison, in *out*. A sweep's folder stands for its points.

    Raises: InputError, before anything is written if a folder is no run or sweep.
    """
    if len(paths) == 1 and (paths[0] / PLAN_FILE).is_file():
        from experiments.sweep.reporting import report_sweep  # noqa: PLC0415  # loads what runs experiments

        report_sweep(paths[0])
        return
    folders = [folder for path in paths for folder in _run_folders(path)]
    _check_distinct(folders)
    if out is not None and len(folders) == 1:
        raise InputError(
            where="--out", problem="one run is not compared with any", remedy="leave --out out, or give more runs"
        )
    target = out if out is not None else RUNS_DIR / f"comparison-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if len(folders) > 1:
        check_can_create(target, given=out is not None)
    for folder in folders:
        folder.read_manifest()
    console = Console()
    for folder in folders:
        remake(folder, console if len(folders) <= _PRINTED_MAX else None)
    if len(folders) > 1:
        from experiments.analysis.results import load_result  # noqa: PLC0415  # loads pandas
        from experiments.report.comparison_page import write_comparison  # noqa: PLC0415

        comparison = write_comparison(
            target, [load_result(folder) for folder in folders], title=f"comparison of {len(folders)} runs"
        )
        print_comparison(console, comparison, target)


def _check_distinct(folders: Sequence[RunFolder]) -> None:
    """Refuse a run that is given twice, once by itself and once with its sweep for instance: it is one, and would count as two."""
    seen: set[Path] = set()
    for folder in folders:
        path = folder.path.resolve()
        if path in seen:
            raise InputError(
                where=str(folder.path),
                problem="it is given twice, and one run is no two repetitions",
                remedy="give each run once; the folder of a sweep stands for all of its runs",
            )
        seen.add(path)


def print_comparison(console: Console, comparison: Comparison, folder: Path) -> None:
    """Print the medians that people ask for first."""
    from experiments.report.comparison_page import spell_interval  # noqa: PLC0415
    from experiments.report.run_page import PAGE_FILE  # noqa: PLC0415

    table = Table(title="Medians, with 95 % bootstrap intervals; ratio: latency / path delay", title_justify="left")
    key, labels = _without_common_keys([group.label for group in comparison.groups])
    table.add_column(key, overflow="fold")
    table.add_column("runs", justify="right")
    shown = comparison.groups[:_GROUPS_PRINTED_MAX]
    columns = {
        words: [spell_interval(comparison.medians.get((group.label, metric))) for group in shown]
        for metric, words in _COLUMNS.items()
    }
    columns = {words: cells for words, cells in columns.items() if set(cells) != {"-"}}
    for words in columns:
        table.add_column(words, justify="right")
    for group, label, *cells in zip(shown, labels, *columns.values(), strict=False):
        table.add_row(escape(label), str(len(group.runs)), *map(escape, cells))
    if any(1 < len(group.runs) < _RUNS_MIN for group in shown):
        table.caption = f"Of fewer than {_RUNS_MIN} runs an interval is narrower than it says."
        table.caption_justify = "left"
    console.print(table)
    if (more := len(comparison.groups) - _GROUPS_PRINTED_MAX) > 0:
        console.print(f"... and {more} more, in comparison.csv", highlight=False)
    console.print(f"comparison: {folder / PAGE_FILE}", highlight=False, markup=False, soft_wrap=True)


def _without_common_keys(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Return a heading that is as short as it can be, and the labels without their keys, if they differ in values of the same keys.

    >>> _without_common_keys(["conference.mode=push", "conference.mode=svs"])
    ('mode', ['push', 'svs'])
    >>> _without_common_keys(["topology.csrs=2, conference.mode=svs", "topology.csrs=3, conference.mode=svs"])
    ('csrs, mode', ['2, svs', '3, svs'])
    >>> _without_common_keys(["push", "svs"])
    ('runs with', ['push', 'svs'])
    """
    parted = [[part.partition("=") for part in label.split(", ")] for label in labels]
    keys = {tuple(key for key, _, _ in parts) for parts in parted}
    if len(keys) == 1 and all(equals for parts in parted for _, equals, _ in parts):
        heading = ", ".join(key.rpartition(".")[2] for key in keys.pop())
        return heading, [", ".join(value for _, _, value in parts) for parts in parted]
    return "runs with", list(labels)


def _run_folders(path: Path) -> Iterator[RunFolder]:
    if (path / PLAN_FILE).is_file():
        from experiments.sweep.run import finished_points, load_plan  # noqa: PLC0415  # loads what runs experiments

        folder = path.absolute()
        plan = load_plan(folder)
        for point in finished_points(plan, folder):
            yield RunFolder.open(folder / POINTS_DIR / point.folder_name)
    else:
        yield RunFolder.open(path)


def remake(folder: RunFolder, console: Console | None) -> None:
    """Make the files of one run anew, with *console* its page, too, and print its summary there. Raises: InputError."""
    manifest = folder.read_manifest()
    if has_twin(manifest) and (folder.path / TWIN).is_dir():
        twin = RunFolder.open(folder.path / TWIN)
        _make_files(twin, twin.read_manifest(), page=console is not None)
    analysis = _make_files(folder, manifest, page=console is not None)
    if console is not None:
        print_summary(console, folder.path, analysis, manifest)


def _make_files(folder: RunFolder, manifest: Mapping[str, Any], *, page: bool) -> Analysis:
    from experiments.analysis import analyse  # noqa: PLC0415  # loads pandas
    from experiments.report.run_page import write_page  # noqa: PLC0415

    analysis = analyse(folder)
    write_report(folder, analysis, manifest)
    if page:
        write_page(folder, analysis, manifest)
    return analysis
