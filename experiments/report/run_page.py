"""``report.html`` and ``plots/`` of one run: the verdict first, then what was measured, each plot with its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from experiments.applied import VIAS
from experiments.checker import Check
from experiments.columns import DELIVERIES
from experiments.history import TOPOLOGY_FILE
from experiments.judgement import verdict_now
from experiments.recorded_run import read_topology
from experiments.report.canvas import PLOTS_DIR, plotting, save
from experiments.report.figures import (
    Distribution,
    bars_figure,
    latency_figure,
    message_colour,
    messages_rows,
    outage_figure,
    timeline_figure,
)
from experiments.report.network_picture import network_figure
from experiments.report.page import Banner, Cell, HtmlTable, Page, Section, spell_number
from experiments.report.palette import MUTED, ROLE_COLOURS
from experiments.report.run_tables import RunTables, rows_of
from experiments.report.twin_section import twin_section
from experiments.run_folder import TWIN, RunFolder, has_twin, write_whole
from testbed.faults.targets import ALL_LINKS, links_of, processes_of
from topologies.errors import InputError
from topologies.model import Topology

if TYPE_CHECKING:
    from experiments.analysis import Analysis

PAGE_FILE: Final = "report.html"
_QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)
_QUANTILE_NAMES: Final = ("p50", "p90", "p99", "max")
_CHECK_COLUMNS: Final = ("check", "verdict", "measured", "required", "detail")


def write_page(folder: RunFolder, analysis: Analysis | None, manifest: Mapping[str, Any]) -> Path:
    """Write ``report.html``, and the plots as SVG and PNG files, into the run folder; return the page's path.

    Raises: InputError if the CSV files are not those of a run, or the folder cannot be written to.
    """
    banners = list(_banners(analysis, manifest))
    sections: list[Section] = []
    path = folder.path / PAGE_FILE
    try:
        if analysis is not None:
            with plotting():
                sections = list(_sections(folder, analysis, manifest))
        page = Page(_title(folder, manifest), _subtitle(manifest), banners, sections)
        write_whole(path, page.html().encode())
    except OSError as error:
        raise InputError(
            where=str(error.filename or path),
            problem=f"cannot be written: {error.strerror}",
            remedy="make room, or copy the run folder to where you can write",
        ) from error
    return path


def _title(folder: RunFolder, manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("experiment") or {}).get("experiment", {}).get("name", folder.path.name))


def _subtitle(manifest: Mapping[str, Any]) -> str:
    """Say what was run. Of a simulated run all of it follows from file and seed, so when and where is left out."""
    experiment = manifest.get("experiment") or {}
    said = [
        str(manifest.get("mode", "")),
        str((experiment.get("topology") or {}).get("name", "")),
        f"conference mode {(experiment.get('conference') or {}).get('mode', '?')}",
        f"seed {manifest.get('seed', '?')}",
        f"{(experiment.get('experiment') or {}).get('duration_s', 0):g} s",
    ]
    if manifest.get("mode") != "simulated":
        said += [
            str(manifest.get("start", "")),
            f"links: {manifest.get('link_backend', '?')}",
            str(manifest.get("kernel", "")),
        ]
    return " · ".join(part for part in said if part)


def _banners(analysis: Analysis | None, manifest: Mapping[str, Any]) -> Iterator[Banner]:
    """Yield what has to be read before any figure."""
    if problem := str(manifest.get("problem") or ""):
        yield Banner("fail", "The run broke off", problem)
    if analysis is not None and analysis.unfaithful:
        yield Banner(
            "warn",
            "Fidelity failed",
            "The machine or the testbed did not do all that was asked of it: read the figures with care.",
            _checks_table(analysis.unfaithful),
        )
    recorded = str(manifest.get("verdict", "unknown"))
    verdict = verdict_now(recorded, analysis.checks if analysis is not None else ())
    kind = {"pass": "pass", "fail": "fail", "error": "fail"}.get(verdict, "warn")
    spelt = spell_verdict(verdict)
    if analysis is None:
        yield Banner(kind, spelt, "There was nothing to analyse.")
        return
    held = sum(check.verdict == "pass" for check in analysis.checks)
    failed = _checks_table(analysis.failed) if analysis.failed else None
    text = f"{held} of {len(analysis.checks)} checks passed, {len(analysis.failed)} failed the run."
    if others := [check.name for check in analysis.checks if check.verdict != "pass" and check not in analysis.failed]:
        text += f" Neither: {', '.join(others)}."
    if verdict == "running":
        text = f"The run is still going on, or was killed: what is here goes as far as its records. {text}"
    if verdict != recorded:
        text = f"The run ended with {recorded}; what is left of its records, or this version of hconf, says otherwise. {text}"
    yield Banner(kind, spelt, text, failed)


def spell_verdict(verdict: str) -> str:
    """Return the verdict of a run in words: one that is still running may have been killed as well."""
    return "unfinished" if verdict == "running" else verdict


def _checks_table(checks: Sequence[Check]) -> HtmlTable:
    rows = [(check.name, check.verdict, check.measured, check.required, check.detail) for check in checks]
    return HtmlTable(_CHECK_COLUMNS, rows, verdict_column=1)


def _sections(folder: RunFolder, analysis: Analysis, manifest: Mapping[str, Any]) -> Iterator[Section]:
    tables = RunTables.load(folder)
    topology = read_topology(folder.raw / TOPOLOGY_FILE)
    plots = folder.path / PLOTS_DIR
    yield Section("Summary", tables=[_summary_table(tables)])
    figure = network_figure(topology, struck=_struck(topology, tables.faults))
    yield Section(
        "Network", save(figure, plots, "topology"), f"The network {topology.name}", [_tiers_table(topology)],
    )  # fmt: skip
    yield _latency_section(tables, plots)
    if has_twin(manifest) and (folder.path / TWIN / DELIVERIES.file).is_file():
        yield twin_section(folder.path, tables.deliveries, plots)
    yield _timeline_section(tables, plots, manifest)
    if len(tables.faults):
        yield _outage_section(tables, plots)
    yield _messages_section(tables, topology, plots)
    yield _cpu_section(tables, plots, manifest)
    if len(tables.objects):
        yield _objects_section(tables)
    yield Section("All checks", tables=[_checks_table(analysis.checks)])


def _struck(topology: Topology, faults: pd.DataFrame) -> set[str]:
    """Return the links and nodes that faults struck; not what struck every link there is."""
    struck: set[str] = set()
    for fault in rows_of(faults):
        kind, target = str(fault.kind), str(fault.target)
        if target == ALL_LINKS:
            continue
        try:
            if links := links_of(topology, kind, target):
                struck |= {link.name for link in links}
            else:
                struck |= {process.partition(".")[0] for process in processes_of(topology, target)}
        except InputError:
            continue  # of a kind, or in a place, that this version does not know
    return struck


def _summary_table(tables: RunTables) -> HtmlTable:
    metrics = tables.metrics

    def row(what: str, *names: str) -> tuple[str, str]:
        return what, ", ".join(
            f"{metric.rpartition('.')[2]} {spell_number(metrics.get(metric, float('nan')))}" for metric in names
        )

    latency, ratio = "deliveries.latency_ms", "deliveries.ratio"
    rows = [
        row("updates", "updates.published", "updates.acked"),
        row("deliveries", "deliveries.expected", "deliveries.delivered", "deliveries.lost"),
        row("latency in ms", *(f"{latency}.{name}" for name in _QUANTILE_NAMES)),
        row("latency / path delay", *(f"{ratio}.{name}" for name in _QUANTILE_NAMES)),
        row("outage in ms", "recovery.outage_ms.p50", "recovery.outage_ms.max"),
        ("packets per update, all links", spell_number(metrics.get("messages.packets_per_update", float("nan")))),
    ]
    return HtmlTable(("what", "value"), rows)


def _tiers_table(topology: Topology) -> HtmlTable:
    rows: list[tuple[Cell, ...]] = []
    for tier in dict.fromkeys(link.tier for link in topology.links):
        links = [link.properties for link in topology.links if link.tier == tier]
        delays = [link.delay_ms for link in links]
        rates = {link.rate_mbps for link in links}
        rate = ", ".join(sorted("not limited" if rate is None else f"{rate:g}" for rate in rates))
        rows.append(
            (
                tier,
                len(links),
                min(delays),
                float(np.median(delays)),
                max(delays),
                max(link.loss_ratio for link in links),
                rate,
            )
        )
    columns = ("links", "number", "delay min (ms)", "median (ms)", "max (ms)", "loss max", "rate (Mbit/s)")
    return HtmlTable(columns, rows, f"{len(topology.nodes)} nodes, {len(topology.links)} links")


def _latency_section(tables: RunTables, plots: Path) -> Section:
    deliveries = tables.deliveries
    scopes = [("all", np.ones(len(deliveries.latency_ms), np.bool_))]
    if deliveries.during_fault.any():
        scopes += [("outside faults", ~deliveries.during_fault), ("during faults", deliveries.during_fault)]
    has_delay = deliveries.path_delay_ms > 0
    ratio = np.where(has_delay, deliveries.latency_ms / np.where(has_delay, deliveries.path_delay_ms, 1), np.nan)
    shown = scopes[1:] or scopes
    floor = Distribution("path delay (floor)", deliveries.path_delay_ms[has_delay])
    figure = latency_figure(
        [Distribution(label, deliveries.latency_ms[mine]) for label, mine in shown],
        [Distribution(label, ratio[mine & has_delay]) for label, mine in shown],
        floor,
    )
    rows: list[tuple[Cell, ...]] = [("path delay", "ms", len(floor.values), *quantiles(floor.values))]
    for label, mine in scopes:
        rows.append((f"latency, {label}", "ms", int(mine.sum()), *quantiles(deliveries.latency_ms[mine])))
        rows.append((f"ratio, {label}", "1", int((mine & has_delay).sum()), *quantiles(ratio[mine & has_delay])))
    table = HtmlTable(("what", "unit", "deliveries", *_QUANTILE_NAMES), rows)
    return Section(
        "Latency against the path delay", save(figure, plots, "latency"),
        "Distributions of delivery latency and of its ratio to the path delay", [table],
    )  # fmt: skip


def quantiles(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - an array of any kind of float
    """Return p50, p90, p99 and the maximum; NaN where there is nothing."""
    known = np.array(values, dtype=np.float64)  # a copy, which may be put into another order
    if np.isnan(known).any():
        known = known[~np.isnan(known)]
    if not len(known):
        return (float("nan"),) * len(_QUANTILES)
    return tuple(np.quantile(known, _QUANTILES, overwrite_input=True).tolist())


def _timeline_section(tables: RunTables, plots: Path, manifest: Mapping[str, Any]) -> Section:
    deliveries, faults = tables.deliveries, tables.faults
    duration_s = float((manifest.get("experiment") or {}).get("experiment", {}).get("duration_s") or 0.0)
    end_s = max(duration_s, float(deliveries.published_s.max(initial=0.0)))
    spans: list[tuple[str, float, float]] = []
    rows: list[tuple[Cell, ...]] = []
    for fault in rows_of(faults):
        label = f"{fault.fault_id} {fault.kind}"
        applied_s, healed_s = float(fault.applied_s), float(fault.healed_s)
        rows.append((f"{fault.fault_id} {fault.kind} {fault.target}", applied_s, healed_s, bool(fault.verified)))
        if not np.isnan(applied_s):
            spans.append((label, applied_s, end_s if np.isnan(healed_s) else healed_s))
    by_via: list[tuple[Cell, ...]] = []
    for code, via in enumerate(VIAS):
        mine = deliveries.latency_ms[deliveries.via == code]
        if len(mine):
            by_via.append((via, len(mine), *quantiles(mine)))
    shown = [HtmlTable(("via", "deliveries", *(f"{name} (ms)" for name in _QUANTILE_NAMES)), by_via)]
    if rows:
        shown.append(HtmlTable(("fault", "applied (s)", "healed (s)", "verified"), rows))
    lost = tables.metrics.get("deliveries.lost", 0.0)
    notes = [f"{spell_number(lost)} expected deliveries never happened; they are no points here."] if lost else []
    figure = timeline_figure(deliveries, spans, end_s=end_s)
    return Section(
        "Deliveries over time", save(figure, plots, "timeline"),
        "Latency of each delivery at its time of publication, with faults shaded", shown, notes,
    )  # fmt: skip


def _outage_section(tables: RunTables, plots: Path) -> Section:
    clients = tables.recovery[tables.recovery["updates_missed"].notna()]
    shown: list[tuple[str, Any, Any]] = []
    rows: list[tuple[Cell, ...]] = []
    for fault in rows_of(tables.faults):
        mine = clients[clients["fault_id"] == fault.fault_id]
        label = f"{fault.fault_id} {fault.kind} {fault.target}"
        outages = pd.to_numeric(mine["outage_ms"]).to_numpy(dtype=np.float64)
        floors = pd.to_numeric(mine["floor_ms"]).to_numpy(dtype=np.float64)
        shown.append((f"{fault.fault_id} {fault.kind}\n{fault.target}", outages, floors))
        known = outages[~np.isnan(outages)]
        everyone = tables.recovery[tables.recovery["fault_id"] == fault.fault_id]
        detection = pd.to_numeric(everyone["detection_ms"]).max()
        rows.append(
            (
                label,
                len(mine),
                int((known > 0).sum()),
                float(np.median(known)) if len(known) else None,
                float(known.max()) if len(known) else None,
                float(np.nanmax(floors)) if np.isfinite(floors).any() else None,
                None if pd.isna(detection) else float(detection),
                int(pd.to_numeric(mine["updates_lost"]).sum()),
            )
        )
    columns = (
        "fault", "clients", "with outage", "median (ms)", "max (ms)", "floor (ms)", "detection max (ms)", "updates lost",
    )  # fmt: skip
    notes = ["0 ms: nothing was late by more than 15 % of the path delay that the fault leaves, and 10 ms."]
    figure = outage_figure(shown)
    return Section("Outage of each fault", save(figure, plots, "outage"), "Outage of each client by fault",
                   [HtmlTable(columns, rows)], notes)  # fmt: skip


def _messages_section(tables: RunTables, topology: Topology, plots: Path) -> Section:
    updates = tables.metrics.get("updates.published", float("nan"))
    by_type = messages_rows(tables.messages, updates=updates, directions=2 * len(topology.links))
    figure = bars_figure(
        [(row.message, row.packets_per_update_link, message_colour(row.message)) for row in rows_of(by_type)]
        if updates
        else [],
        title="Packets by message type",
        unit="packets per update and link",
    )
    rows = [
        (row.message, int(row.packets), int(row.bytes), row.packets_per_update_link, row.bytes_per_update_link)
        for row in rows_of(by_type)
    ]
    sums = by_type[["packets", "bytes", "packets_per_update_link", "bytes_per_update_link"]].sum()
    rows.append(("all", int(sums.iloc[0]), int(sums.iloc[1]), float(sums.iloc[2]), float(sums.iloc[3])))
    columns = ("message", "packets", "bytes", "packets / update / link", "bytes / update / link")
    counted = f"{spell_number(updates)} updates, {len(topology.links)} links, both directions together"
    notes = [f"{counted}; joining and heartbeats of the whole run included."]
    return Section(
        "Messages per update and link", save(figure, plots, "messages"), "Packets per update and link by message type",
        [HtmlTable(columns, rows)], notes,
    )  # fmt: skip


def _cpu_section(tables: RunTables, plots: Path, manifest: Mapping[str, Any]) -> Section:
    if manifest.get("mode") == "simulated":
        taken = "as long as in the run that it is the twin of" if manifest.get("processing") else "no time"
        return Section("CPU", notes=[f"Computing takes {taken} in a simulated run, so there is nothing to show."])
    nodes = tables.nodes.sort_values("cpu_s", ascending=False, kind="stable")
    figure = bars_figure(
        [
            (str(row.node), float(row.cpu_s), ROLE_COLOURS.get(str(row.role), MUTED))
            for row in rows_of(nodes)
            if not np.isnan(row.cpu_s)
        ],
        title="CPU time of each node",
        unit="CPU time (s), user and system, all processes of the node",
    )
    rows: list[tuple[Cell, ...]] = []
    for role, group in tables.nodes.groupby("role", sort=False):
        cpu_s = group["cpu_s"].to_numpy(dtype=np.float64)
        rss = group["max_rss_bytes"].to_numpy(dtype=np.float64)
        lag = group["timer_lag_p99_ms"].to_numpy(dtype=np.float64)
        rows.append((str(role), len(group), float(np.nansum(cpu_s)), _max(cpu_s), _max(rss / 2**20), _max(lag)))
    columns = ("role", "nodes", "CPU, sum (s)", "CPU, max (s)", "memory, max (MiB)", "timer lag p99, max (ms)")
    busy = manifest.get("cpu_busy_ratio")
    notes = (
        []
        if busy is None
        else [f"All CPUs of the machine were busy for {busy:.0%} of the time while the workload ran."]
    )
    return Section("CPU", save(figure, plots, "cpu"), "CPU time of each node", [HtmlTable(columns, rows)], notes)


def _max(values: Any) -> float | None:  # noqa: ANN401 - an array of floats
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else None


def _objects_section(tables: RunTables) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for kind, group in tables.objects.groupby("kind", sort=False):
        complete = int((group["outcome"] == "complete").sum())
        fetch = pd.to_numeric(group["fetch_ms"]).to_numpy(dtype=np.float64)
        misses = pd.to_numeric(group["deadline_misses"]).sum()
        rows.append((str(kind), len(group), complete, *quantiles(fetch), int(misses)))
    columns = (
        "kind",
        "at receivers",
        "complete",
        *(f"fetch {name} (ms)" for name in _QUANTILE_NAMES),
        "deadline misses",
    )
    return Section("Objects and live streams", tables=[HtmlTable(columns, rows)])
