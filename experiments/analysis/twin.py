"""Whether the simulated twin of an emulated run says the same as the run: each is a check of the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from experiments.analysis.comparison import RunResult
from experiments.analysis.results import load_result
from experiments.checker import Check, Verdict
from experiments.judgement import TWIN_CHECKS
from experiments.recorded_run import RecordedRun
from experiments.run_folder import TWIN, RunFolder, has_twin
from topologies.errors import InputError

#: Quantile of the ratio -> how far the simulated one may be off, as a share of the emulated one.
DIFFERENCE_MAX_RATIO: Final = {"p50": 0.10, "p99": 0.25}
_VERDICTS: Final[dict[str, Verdict]] = {"pass": "pass", "fail": "fail", "error": "fail"}


def judge_twin(run: RecordedRun, values: Mapping[str, float]) -> Iterator[Check]:
    """Compare a run with its twin, if it was to have one, by the CSV files that the twin's folder holds."""
    if not has_twin(run.manifest):
        return
    twin: RunResult | None = None
    try:
        twin = load_result(RunFolder.open(run.folder.path / TWIN))
        measured, detail = twin.verdict, "" if twin.verdict == "pass" else f"see {TWIN}/report.txt"
    except InputError as error:
        measured, detail = "there is none", error.problem
    verdict = _VERDICTS.get(measured, "inconclusive")
    yield Check("run.twin", verdict, measured, "the simulated twin passes", detail)
    if verdict == "inconclusive":
        twin = None
    for name, quantile in zip(TWIN_CHECKS, DIFFERENCE_MAX_RATIO, strict=True):
        yield _judge_quantile(name, quantile, values, twin)


def _judge_quantile(name: str, quantile: str, values: Mapping[str, float], twin: RunResult | None) -> Check:
    metric, most = f"deliveries.ratio.{quantile}", DIFFERENCE_MAX_RATIO[quantile]
    required = f"at most {most:.0%} apart"
    emulated = values.get(metric, math.nan)
    simulated = math.nan if twin is None else twin.metrics.get(metric, math.nan)
    if math.isnan(emulated) or math.isnan(simulated):
        return Check(name, "inconclusive", "", required, "nothing was measured in one of them")
    difference = abs(simulated - emulated) / emulated
    return Check(
        name,
        "pass" if difference <= most else "fail",
        f"{difference:.1%}",
        required,
        f"latency / path delay, {quantile}: emulated {emulated:.4g}, simulated {simulated:.4g}",
    )
