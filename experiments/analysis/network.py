"""Messages, links, nodes and faults as frames: what the counters of forwarders, link back end and kernel say."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final

import msgspec
import pandas as pd

from experiments.columns import FAULTS, LINKS, MESSAGES, NODES
from experiments.history import NodeExit
from experiments.processing_times import times_of_processes
from experiments.recorded_run import RecordedRun
from experiments.timer_lag import timer_lags
from proxy.lag import LagHistogram
from proxy.records import CountersReported
from testbed.simulation.processing import ProcessTimes

#: Counters of what a node did not allow or believe begin so; the reason follows.
REFUSED: Final = "refused_"


#: Why a frame was dropped, in the order of the columns of links.csv.
_CAUSES: Final = ("loss", "queue", "carrier", "blocked", "corrupt", "fault", "overrun")


def measure_messages(run: RecordedRun) -> pd.DataFrame:
    """Return the rows of messages.csv: the last totals of every forwarder."""
    rows = [
        (count.link, report.node, count.peer, count.message, count.packets, count.bytes)
        for report in _last_reports(run)
        for count in report.sent
    ]
    return pd.DataFrame(sorted(rows), columns=MESSAGES.names)


def measure_links(run: RecordedRun) -> pd.DataFrame:
    """Return the rows of links.csv."""
    rows = [
        (
            link.link,
            link.sender,
            link.receiver,
            link.configured.delay_ms,
            link.measured_delay_mean_ms,
            link.configured.jitter_ms,
            link.configured.mean_loss_ratio,
            link.measured_loss_ratio,
            _bps(link.configured.rate_mbps),
            _bps(link.measured_rate_mbps),
            link.configured.duplicate_ratio,
            link.configured.reorder_ratio,
            link.configured.corrupt_ratio,
            link.configured.mtu_bytes,
            link.packets,
            link.carried_bytes,
            *(link.dropped_packets.get(cause, 0) for cause in _CAUSES),
            *(link.altered_packets.get(alteration) for alteration in ("duplicate", "reorder", "corrupt")),
            link.delay_error_p50_ms,
            link.delay_error_p99_ms,
            link.delay_error_max_ms,
        )
        for link in run.links
    ]
    return pd.DataFrame(rows, columns=LINKS.names)


#: Role in nodes.csv of a UE that runs a service proxy beside its client.
PROXY_UE: Final = "proxy-ue"


def measure_nodes(run: RecordedRun) -> pd.DataFrame:
    """Return the rows of nodes.csv, in the order of the topology."""
    reports: dict[str, list[CountersReported]] = {}
    for report in _last_reports(run):
        reports.setdefault(report.node, []).append(report)
    lags: dict[str, list[LagHistogram]] = {}
    for (node_name, _), lag in timer_lags(run).items():
        lags.setdefault(node_name, []).append(lag)
    processing: dict[str, list[ProcessTimes]] = {}
    for process, times in times_of_processes(run.history.processing, run.manifest.get("clock") or {}).items():
        processing.setdefault(process.rpartition(".")[0], []).append(times)
    exits: dict[str, list[NodeExit]] = {}
    for exit_ in run.exits:
        exits.setdefault(exit_.node, []).append(exit_)
    rows = [
        _node_row(
            run,
            node.name,
            PROXY_UE if node.is_proxy else node.role,
            reports.get(node.name, []),
            lags.get(node.name, []),
            exits.get(node.name, []),
        )
        | _processing(processing.get(node.name, []))
        for node in run.topology.nodes
    ]
    return pd.DataFrame(rows, columns=NODES.names)


def measure_faults(run: RecordedRun) -> pd.DataFrame:
    """Return the rows of faults.csv, in the order of application."""
    rows = [
        (
            fault.fault_id,
            fault.kind,
            fault.target,
            msgspec.json.encode(fault.parameters).decode(),
            _since(run, fault.intended_s),
            _since(run, fault.applied_s),
            fault.verified,
            _since(run, fault.healed_s),
            fault.source,
            fault.healed_by or None,
            fault.packets_matched,
            fault.packets_hit,
            fault.detail or None,
        )
        for fault in run.faults
    ]
    return pd.DataFrame(rows, columns=FAULTS.names)


def _node_row(
    run: RecordedRun,
    name: str,
    role: str,
    reports: list[CountersReported],
    lags: list[LagHistogram],
    exits: list[NodeExit],
) -> dict[str, Any]:
    """Prefer what the kernel says at a process's end; a process that was still running last said it itself."""
    cpu_s: dict[str, float] = {report.process: report.cpu_s for report in reports}
    cpu_s |= {exit_.process: exit_.cpu_s for exit_ in exits if exit_.cpu_s is not None}
    rss: dict[str, int] = {report.process: report.max_rss_bytes for report in reports}
    rss |= {exit_.process: exit_.max_rss_bytes for exit_ in exits if exit_.max_rss_bytes is not None}
    has_processes = run.manifest.get("mode") != "simulated"  # there, nobody has measured anything
    refusals: Counter[str] = Counter()
    for report in reports:
        refusals.update(
            {
                counter.removeprefix(REFUSED): count
                for counter, count in report.counters.items()
                if counter.startswith(REFUSED)
            }
        )
    hits, misses = (sum(report.counters.get(name, 0) for report in reports) for name in ("cs_hits", "cs_misses"))
    ready = [exit_.ready_s for exit_ in exits if exit_.ready_s is not None]
    return {
        "node": name,
        "role": role,
        "cpu_s": sum(cpu_s.values()) if cpu_s and has_processes else None,
        "max_rss_bytes": sum(rss.values()) if rss and has_processes else None,
        "start_s": max(ready) - run.epoch_s if ready else None,
        "exits": _spell_exits(exits),
        "cs_hits": hits if reports else None,
        "cs_misses": misses if reports else None,
        "cs_hit_ratio": hits / (hits + misses) if hits + misses else None,
        "malformed": sum(report.counters.get("malformed", 0) for report in reports) if reports else None,
        "refused": sum(refusals.values()) if reports else None,
        "refusals": "; ".join(f"{reason}: {count}" for reason, count in sorted(refusals.items())),
        "applications": sum(report.counters.get("applications", 0) for report in reports) if reports else None,
        "unread": sum(report.counters.get("unread", 0) for report in reports) if reports else None,
        "timer_lag_p99_ms": max((lag.quantile_ms(0.99) for lag in lags), default=None),
        "timer_lag_max_ms": max((lag.max_ms for lag in lags), default=None),
    }


def _processing(times: list[ProcessTimes]) -> dict[str, float | None]:
    """Return the columns on what a node's processes took; whatever was no packet is left out."""
    handling, wake_up = LagHistogram(), LagHistogram()
    for each in times:
        for count in each.handling:
            if count.size_bits:
                handling.merge(count.bins, math.inf)
        wake_up.merge(each.wake_up_bins, math.inf)
    return {
        f"{what}_{name}_ms": taken.quantile_ms(share) or None
        for what, taken in (("processing", handling), ("wake_up", wake_up))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def _spell_exits(exits: list[NodeExit]) -> str:
    if not exits:
        return ""
    if all(exit_.status == 0 for exit_ in exits):
        return "ok"
    return "; ".join(f"{exit_.process}: {spell_status(exit_.status)}" for exit_ in exits)


def spell_status(status: int | None) -> str:
    """Return how a process ended, in words.

    >>> spell_status(0), spell_status(-9), spell_status(1), spell_status(None)
    ('ok', 'signal 9', 'exit code 1', 'not seen')
    """
    match status:
        case None:
            return "not seen"
        case 0:
            return "ok"
        case _:
            return f"signal {-status}" if status < 0 else f"exit code {status}"


def _last_reports(run: RecordedRun) -> list[CountersReported]:
    """Return the last totals of each process, those of its last boot."""
    return list({(report.node, report.process): report for report in run.history.counters}.values())


def _since(run: RecordedRun, at_s: float | None) -> float | None:
    return None if at_s is None else at_s - run.epoch_s


def _bps(rate_mbps: float | None) -> float | None:
    return None if rate_mbps is None else rate_mbps * 1e6
