"""The summary: every metric of `experiments.metrics.METRICS`, from the other frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.deliveries import Deliveries, Flags, Floats, ratio_of
from experiments.applied import VIAS
from experiments.metrics import DELIVERY_SCOPES, METRICS, QUANTITIES, STATISTICS
from experiments.recorded_run import RecordedRun
from proxy.records import SessionChanged

Values = dict[str, float]


def measure_summary(
    run: RecordedRun, deliveries: Deliveries, recovery: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> Values:
    """Return the value of every metric; NaN where there was nothing to measure. The checks are counted later.

    Args:
        run: the run.
        deliveries: as measured.
        recovery: rows of recovery.csv.
        tables: rows of "messages", "links", "nodes" and "objects".
    """
    values = {f"network.{name}": float(value) for name, value in (run.manifest.get("phases") or {}).items()}
    values |= _distribution("sessions.join_ms", _join_times_ms(run.history.sessions))
    values |= _update_metrics(deliveries.updates)
    values |= _delivery_metrics(run, deliveries)
    values |= _recovery_metrics(run, recovery)
    values |= _object_metrics(run, tables["objects"], tables["messages"])
    published = values["updates.published"]
    packets = float(tables["messages"]["packets"].sum())
    links, nodes = tables["links"], tables["nodes"]
    values |= {
        "messages.packets": packets,
        "messages.bytes": float(tables["messages"]["bytes"].sum()),
        "messages.packets_per_update": packets / published if published else np.nan,
        "links.delay_error_ms.p50": _statistic(_floats(links["delay_error_p50_ms"]), 0.5),
        "links.delay_error_ms.p99": _statistic(_floats(links["delay_error_p99_ms"]), 1.0),
        "nodes.cpu_s": float(_floats(nodes["cpu_s"]).sum()),
        "nodes.max_rss_bytes": _statistic(_floats(nodes["max_rss_bytes"]), 1.0),
        "nodes.timer_lag_ms.p99": _statistic(_floats(nodes["timer_lag_p99_ms"]), 1.0),
    }
    return values


def summary_frame(values: Values, fault_ids: list[str]) -> pd.DataFrame:
    """Return the rows of summary.csv, in the order of COLUMNS.md."""
    rows: list[tuple[str, float, str]] = []
    for metric in METRICS:
        names = [metric.name]
        if "<fault_id>" in metric.name:
            names = [metric.name.replace("<fault_id>", fault_id) for fault_id in fault_ids]
        rows += [(name, values.get(name, np.nan), metric.unit) for name in names]
    return pd.DataFrame(rows, columns=["metric", "value", "unit"])


def _join_times_ms(sessions: Sequence[SessionChanged]) -> Floats:
    """Return how long each device that asked to join took, in ms; those that never got there are left out."""
    asked_s: dict[tuple[str, str], float] = {}
    times_ms: list[float] = []
    for session in sessions:
        device = (session.conference, session.device)
        if session.state == "login":
            asked_s[device] = session.t_s
        elif session.state == "joined" and device in asked_s:
            times_ms.append((session.t_s - asked_s.pop(device)) * 1e3)
        elif session.state == "closed":
            asked_s.pop(device, None)
    return np.array(times_ms, dtype=np.float64)


def _update_metrics(updates: pd.DataFrame) -> Values:
    counted = updates[updates["published_s"] >= 0]
    acked = counted[counted["acked_s"].notna()]
    expected, delivered = counted["expected_receivers"].sum(), counted["delivered_receivers"].sum()
    return {
        "updates.published": float(len(counted)),
        "updates.acked": float(len(acked)),
        **_distribution("updates.ack_ms", (_floats(acked["acked_s"]) - _floats(acked["published_s"])) * 1e3),
        "deliveries.expected": float(expected),
        "deliveries.delivered": float(delivered),
        "deliveries.lost": float(expected - delivered),
    }


def _delivery_metrics(run: RecordedRun, deliveries: Deliveries) -> Values:
    counted: Flags = deliveries.was_joined & (_each(deliveries, deliveries.published_s) >= 0)
    ways = np.bincount(deliveries.via[counted], minlength=len(VIAS))
    values = {f"deliveries.via.{via}": float(count) for via, count in zip(VIAS, ways.tolist(), strict=True)}
    applied = [fault.applied_s - run.epoch_s for fault in run.faults if fault.applied_s is not None]
    scopes: dict[str, Flags] = {
        "": counted,
        "before_fault.": counted & (deliveries.delivered_s < min(applied, default=np.inf)),
        "during_fault.": counted & deliveries.during_fault,
        "outside_fault.": counted & ~deliveries.during_fault,
    }
    measures: dict[str, Callable[[slice], Floats]] = {
        "latency_ms": deliveries.latency_ms,
        "excess_ms": lambda rows: deliveries.latency_ms(rows) - deliveries.path_delay_ms(rows),
        "ratio": lambda rows: ratio_of(deliveries.latency_ms(rows), deliveries.path_delay_ms(rows)),
    }
    found: Values = {}
    for quantity in QUANTITIES:
        measured = _each(deliveries, measures[quantity])  # one at a time: of millions each takes its space
        for scope in DELIVERY_SCOPES:
            found |= _distribution(f"deliveries.{scope}{quantity}", measured[scopes[scope]])
    return values | found


def _each(deliveries: Deliveries, measure: Callable[[slice], Floats]) -> Floats:
    """Return what *measure* says of all deliveries, asked a part at a time."""
    values = np.empty(len(deliveries), dtype=np.float64)
    for rows in deliveries.parts():
        values[rows] = measure(rows)
    return values


def _object_metrics(run: RecordedRun, rows: pd.DataFrame, messages: pd.DataFrame) -> Values:
    objects, streams = rows[rows["kind"] == "object"], rows[rows["kind"] == "stream"]
    published_bytes = sum(published.size_bytes for published in run.history.objects)
    routers = {node.name for node in run.topology.nodes if node.role in ("core", "csr")}
    carried = messages[
        (messages["message"] == "object-segment") & messages["from"].isin(routers) & messages["to"].isin(routers)
    ]
    missed, came, asked = (
        float(np.nansum(_floats(streams[column]))) for column in ("deadline_misses", "segments", "segments_asked")
    )
    return {
        "objects.expected": float(len(objects)),
        "objects.lost": float((objects["outcome"] != "complete").sum()),
        **_distribution("objects.fetch_ms", _floats(objects["fetch_ms"])),
        **_distribution("objects.goodput_bps", _floats(objects["goodput_bps"])),
        "objects.copies.max": (
            float(carried["bytes"].max()) / published_bytes if published_bytes and len(carried) else np.nan
        ),
        "streams.expected": float(len(streams)),
        "streams.frames": came,
        "streams.deadline_misses": missed,
        "streams.miss_ratio": missed / asked if asked else np.nan,
    }


def _recovery_metrics(run: RecordedRun, recovery: pd.DataFrame) -> Values:
    outages = recovery[recovery["updates_missed"].notna()]
    outage_ms, lost = _floats(outages["outage_ms"]), _floats(outages["updates_lost"])
    values = {
        "recovery.outage_ms.p50": _statistic(outage_ms, 0.5),
        "recovery.outage_ms.max": _statistic(outage_ms, 1.0),
        "recovery.excess_ms.max": _statistic(np.maximum(outage_ms - _floats(outages["floor_ms"]), 0.0), 1.0),
        "recovery.detection_ms.max": _statistic(_floats(recovery["detection_ms"]), 1.0),
        "recovery.updates_lost": float(lost.sum()),
    }
    if run.faults and outages.empty:
        values |= {"recovery.outage_ms.max": 0.0, "recovery.excess_ms.max": 0.0}
    for fault in run.faults:
        mine = (outages["fault_id"] == fault.fault_id).to_numpy(dtype=np.bool_)
        values[f"recovery.{fault.fault_id}.outage_ms.max"] = _statistic(outage_ms[mine], 1.0)
        values[f"recovery.{fault.fault_id}.updates_lost"] = float(lost[mine].sum())
    return values


def _distribution(name: str, values: Floats) -> Values:
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys((f"{name}.{statistic}" for statistic in STATISTICS), float("nan"))
    found = {statistic: float(known.mean()) for statistic, share in STATISTICS.items() if share is None}
    shares = {statistic: share for statistic, share in STATISTICS.items() if share is not None}
    quantiles = np.quantile(known, list(shares.values()), overwrite_input=True).tolist()  # of *known*, a copy
    found |= dict(zip(shares, quantiles, strict=True))
    return {f"{name}.{statistic}": found[statistic] for statistic in STATISTICS}


def _statistic(values: Floats, quantile: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, quantile)) if len(known) else float("nan")


def _floats(column: Any) -> Floats:  # noqa: ANN401 - a column of a frame, whose stub says less than it is
    values: Floats = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    return values
