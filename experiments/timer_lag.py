"""How late the timers of each process fired while the workload ran."""

from __future__ import annotations

from experiments.recorded_run import RecordedRun
from proxy.lag import LagHistogram


def timer_lags(run: RecordedRun) -> dict[tuple[str, str], LagHistogram]:
    """Return the histogram of each (node, process) that reported, from t = 0 to the end of the workload.

    What nodes do before, all joining at once, may overload the machine without any figure of the report being touched.
    A report counts where most of what it tells of lies within.
    """
    end_s = run.history.quiesced_s if run.history.quiesced_s is not None else float("inf")
    lags: dict[tuple[str, str], LagHistogram] = {}
    for report in run.history.counters:
        lag = lags.setdefault((report.node, report.process), LagHistogram())
        if run.epoch_s <= (report.timer_lag_since_s + report.t_s) / 2 <= end_s:
            lag.merge(report.timer_lag_bins, report.timer_lag_max_ms)
    return lags
