"""How late the timers of each process fired while the workload ran."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from experiments.recorded_run import RecordedRun
from proxy.lag import LagHistogram
from testbed.faults.targets import processes_of

#: Faults that keep processes from running on time.
_HOLDING_KINDS: Final = frozenset({"freeze", "starve", "login-outage"})


def timer_lags(run: RecordedRun) -> dict[tuple[str, str], LagHistogram]:
    """Return the histogram of each (node, process) that reported, from t = 0 to the end of the workload.

    What nodes do before, all joining at once, may overload the machine without any figure of the report being touched.
    A report counts where most of what it tells of lies within, and where no fault kept the process from its timers meanwhile.
    """
    end_s = run.history.quiesced_s if run.history.quiesced_s is not None else math.inf
    held = list(_held(run))
    lags: dict[tuple[str, str], LagHistogram] = {}
    for report in run.history.counters:
        name, since_s, until_s = f"{report.node}.{report.process}", report.timer_lag_since_s, report.t_s
        lag = lags.setdefault((report.node, report.process), LagHistogram())
        if any(name == process and since_s < to_s and from_s < until_s for process, from_s, to_s in held):
            continue
        if run.epoch_s <= (since_s + until_s) / 2 <= end_s:
            lag.merge(report.timer_lag_bins, report.timer_lag_max_ms)
    return lags


def _held(run: RecordedRun) -> Iterator[tuple[str, float, float]]:
    """Yield each process that a fault held, from when and to when."""
    for fault in run.faults:
        if fault.kind in _HOLDING_KINDS and fault.applied_s is not None:
            healed_s = math.inf if fault.healed_s is None else fault.healed_s
            for process in processes_of(run.topology, fault.target):
                yield process, fault.applied_s, healed_s
