from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.analysis import Analysis, FaultOutcome
from experiments.checker import Check
from experiments.report import print_summary

ANALYSIS = Analysis(
    values={"deliveries.ratio.p50": 1.0834, "deliveries.expected": 12.0, "deliveries.delivered": 11.0},
    checks=(
        Check("invariant.in-order", "pass", "0 out of order", "0"),
        Check("expect.deliveries.lost", "fail", "1", "equal to 0", "main/ue1/1/2 [sic]"),
        Check("fidelity.cpu", "fail", "97%", "at most 85%"),
    ),
    faults=(
        FaultOutcome("f1", "link-down", "a-b", 8.0, 123.4, 3, 1),
        FaultOutcome("f2", "impair", "c-d", None, None, 0, 0),
    ),
)


def printed(analysis: Analysis | None, **manifest: Any) -> str:
    stream = io.StringIO()
    print_summary(Console(file=stream, width=120), Path("runs/x"), analysis, manifest)
    return stream.getvalue()


def test_fidelity_comes_first_then_the_verdict_then_what_failed() -> None:
    text = printed(ANALYSIS, verdict="fail", experiment={"experiment": {"name": "quick"}})
    places = [text.index(word) for word in ("Fidelity failed", "quick", "verdict", "11 of 12", "Did not pass")]
    assert places == sorted(places)
    assert "main/ue1/1/2 [sic]" in text  # what looks like markup is printed as it is
    assert "at 8.00 s: outage at most 123.4 ms, 3 clients affected, 1 updates lost" in text
    assert "never applied: no outage measured" in text
    assert "p50 1.083, p99 -" in text


@pytest.mark.parametrize(
    ("verdict", "said"), [("running", "unfinished: still running, or killed"), ("interrupted", "interrupted")]
)
def test_a_run_that_left_nothing_is_reported_all_the_same(verdict: str, said: str) -> None:
    text = printed(None, verdict=verdict, problem="the zygote [did not] start")
    assert "The run broke off: the zygote [did not] start" in text
    assert said in text
    assert "runs/x" in text
