"""The metrics of summary.csv, which expectations and comparisons name: each is named and defined here and nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, get_args

from proxy.records import Via


@dataclass(frozen=True, slots=True)
class Metric:
    name: str  #: may hold ``<fault_id>``, which stands for any fault of the run
    unit: str
    meaning: str


#: Statistics of a distribution, as the last part of a metric's name, and the quantile each is (None: the mean).
STATISTICS: Final[dict[str, float | None]] = {"mean": None, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

#: Which deliveries a metric is over: those with ``published_s`` >= 0 and ``was_joined``, and of these …
DELIVERY_SCOPES: Final = {
    "": "all",
    "before_fault.": "those delivered before the first fault (all, where there is none)",
    "during_fault.": "those with `during_fault`",
    "outside_fault.": "those without `during_fault`",
}

QUANTITIES: Final = {
    "latency_ms": ("ms", "latency"),
    "excess_ms": ("ms", "latency minus path delay"),
    "ratio": ("1", "latency over path delay"),
}


def _metrics() -> Iterator[Metric]:
    """Yield every metric of summary.csv, in the order in which it is written."""
    yield Metric("network.up_s", "s", "from starting to build the network until all nodes had joined and were in sync")
    yield Metric("network.hosts_s", "s", "of that: namespaces and Mininet hosts")
    yield Metric("network.links_s", "s", "of that: links")
    yield Metric("network.nodes_s", "s", "of that: node programs started and ready")
    yield Metric("network.join_s", "s", "of that: log in, join, and get in sync")
    yield Metric("network.settle_s", "s", "from the end of the workload until all views agreed and nothing was unacked")
    yield Metric("network.down_s", "s", "from stopping the nodes until the network was gone")
    for statistic in STATISTICS:
        yield Metric(
            f"sessions.join_ms.{statistic}", "ms", f"from asking to join, login included, until joined, {statistic}"
        )
    yield Metric("updates.published", "count", "updates published at or after t = 0")
    yield Metric("updates.acked", "count", "of those, acked")
    for statistic in STATISTICS:
        yield Metric(f"updates.ack_ms.{statistic}", "ms", f"from publishing to the first ack, {statistic}")
    yield Metric("deliveries.expected", "count", "sum of `expected_receivers` over updates with `published_s` ≥ 0")
    yield Metric("deliveries.delivered", "count", "sum of `delivered_receivers` over the same")
    yield Metric("deliveries.lost", "count", "the difference: deliveries that never happened")
    for via in get_args(Via):
        yield Metric(f"deliveries.via.{via}", "count", f"deliveries with `via` = `{via}`")
    for (scope, which), (quantity, (unit, words)) in product(DELIVERY_SCOPES.items(), QUANTITIES.items()):
        for statistic in STATISTICS:
            yield Metric(f"deliveries.{scope}{quantity}.{statistic}", unit, f"{words}, {statistic}, over {which}")
    yield Metric("objects.expected", "count", "rows of `objects.csv` that are no streams")
    yield Metric("objects.lost", "count", "of those, not `complete`")
    for statistic in STATISTICS:
        yield Metric(f"objects.fetch_ms.{statistic}", "ms", f"`fetch_ms`, {statistic}")
    for statistic in STATISTICS:
        yield Metric(f"objects.goodput_bps.{statistic}", "bps", f"`goodput_bps`, {statistic}")
    yield Metric(
        "objects.copies.max",
        "1",
        "bytes of segments and frames (`object-segment`) over the bytes of everything published, on the link between routers, "
        "and in the direction, with the most",
    )
    yield Metric("streams.expected", "count", "rows of `objects.csv` that are streams")
    yield Metric("streams.frames", "count", "frames that came")
    yield Metric("streams.deadline_misses", "count", "sum of `deadline_misses`")
    yield Metric("streams.miss_ratio", "1", "deadline misses over the frames that receivers asked for")
    yield Metric("recovery.outage_ms.p50", "ms", "`outage_ms` over clients and faults, median")
    yield Metric(
        "recovery.outage_ms.max", "ms", "same, worst; 0 where a fault affected no client, empty without faults"
    )
    yield Metric(
        "recovery.excess_ms.max",
        "ms",
        "`outage_ms` minus `floor_ms`, worst; 0 where there was no outage, empty where a fault leaves no path",
    )
    yield Metric("recovery.detection_ms.max", "ms", "`detection_ms`, worst of the nodes that noticed")
    yield Metric("recovery.updates_lost", "count", "sum of `updates_lost`")
    yield Metric("recovery.<fault_id>.outage_ms.max", "ms", "worst `outage_ms` of this fault")
    yield Metric("recovery.<fault_id>.updates_lost", "count", "sum of `updates_lost` of this fault")
    yield Metric("messages.packets", "count", "packets sent on all links")
    yield Metric("messages.bytes", "bytes", "their size")
    yield Metric("messages.packets_per_update", "1", "packets on all links per update published at or after t = 0")
    yield Metric("links.delay_error_ms.p50", "ms", "`delay_error_p50_ms`, median over links that carried frames")
    yield Metric("links.delay_error_ms.p99", "ms", "`delay_error_p99_ms`, worst link")
    yield Metric("nodes.cpu_s", "s", "CPU time of all nodes; empty where they are simulated")
    yield Metric("nodes.max_rss_bytes", "bytes", "peak memory, worst node; empty where they are simulated")
    yield Metric("nodes.timer_lag_ms.p99", "ms", "`timer_lag_p99_ms`, worst node")
    yield Metric("checks.failed", "count", "invariants and expectations that failed or stayed inconclusive")
    yield Metric("checks.fidelity_failed", "count", "fidelity checks that failed")


METRICS: Final = tuple(_metrics())


def unknown_metric(name: str, *, fault_ids: Iterable[str]) -> str | None:
    """Return None if *name* is a metric of a run with these faults, else which names are near it, for a message.

    >>> unknown_metric("deliveries.ratio.p50", fault_ids=[])
    >>> unknown_metric("deliveries.ratio.p5", fault_ids=[])
    'did you mean deliveries.ratio.p50, deliveries.ratio.p90 or deliveries.ratio.p99?'
    """
    known = [name for metric in METRICS for name in _expanded(metric, tuple(fault_ids))]
    if name in known:
        return None
    near = sorted(difflib.get_close_matches(name, known, n=3))
    if not near:
        return "experiments/COLUMNS.md lists the metrics"
    return f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"


def _expanded(metric: Metric, fault_ids: tuple[str, ...]) -> list[str]:
    if "<fault_id>" not in metric.name:
        return [metric.name]
    return [metric.name.replace("<fault_id>", fault_id) for fault_id in fault_ids]
