"""The counters that every process reports once a second, boiled down as they are read: a run of a day has millions of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from proxy.lag import LagHistogram
from proxy.records import CountersReported


@dataclass(slots=True)
class _Process:
    """What is kept of the reports of one process."""

    first: CountersReported
    last: CountersReported
    lag: LagHistogram = field(default_factory=LagHistogram)
    lag_at: CountersReported | None = None  #: the last report that `lag` holds
    #: By bounded counter: first report of its fullest, first and last above its bound, first that lacks it.
    peaks: dict[str, CountersReported] = field(default_factory=dict)
    first_above: dict[str, CountersReported] = field(default_factory=dict)
    last_above: dict[str, CountersReported] = field(default_factory=dict)
    unmeasured: dict[str, CountersReported] = field(default_factory=dict)


class CounterTotals:
    """Keeps, of any number of reports, some that say all that is asked of them.

    That is: the last of each process; every bound at its fullest and when it was exceeded; timer lag from *since_s* to
    *until_s* in one histogram, a report counting where most of what it tells of lies within.
    """

    def __init__(self, since_s: float, until_s: float) -> None:
        self._since_s, self._until_s = since_s, until_s
        self._processes: dict[tuple[str, str], _Process] = {}

    def add(self, report: CountersReported) -> None:
        """Take in the next report of a process; those of one process come in the order of time."""
        kept = self._processes.setdefault((report.node, report.process), _Process(report, report))
        kept.last = report
        if self._since_s <= (report.timer_lag_since_s + report.t_s) / 2 <= self._until_s:
            kept.lag.merge(report.timer_lag_bins, report.timer_lag_max_ms)
            kept.lag_at = report
        for name, bound in report.bounds.items():
            value = report.counters.get(name)
            if value is None:
                kept.unmeasured.setdefault(name, report)
                continue
            fullest = kept.peaks.get(name)
            if bound > 0 and (fullest is None or value / bound > fullest.counters[name] / fullest.bounds[name]):
                kept.peaks[name] = report
            if value > bound:
                kept.first_above.setdefault(name, report)
                kept.last_above[name] = report

    def reports(self) -> list[CountersReported]:
        """Return what was kept, in the order of time."""
        return sorted((report for kept in self._processes.values() for report in _told(kept)), key=lambda one: one.t_s)


def _told(kept: _Process) -> Iterator[CountersReported]:
    """Yield the reports that stand for all of one process, its last one last. Lag is told by one of them alone."""
    chosen = {id(kept.first): kept.first}  # processes stay in the order in which they were first heard
    for by_name in (kept.peaks, kept.first_above, kept.last_above, kept.unmeasured):
        chosen |= {id(report): report for report in by_name.values()}
    for report in chosen.values():
        yield msgspec.structs.replace(report, sent=[], timer_lag_bins=[], timer_lag_max_ms=0.0)
    if kept.lag_at is not None:
        bins, max_ms = kept.lag.take()
        yield msgspec.structs.replace(
            kept.lag_at, sent=[], counters={}, bounds={}, timer_lag_bins=bins, timer_lag_max_ms=max_ms
        )
    yield msgspec.structs.replace(kept.last, timer_lag_bins=[], timer_lag_max_ms=0.0)
