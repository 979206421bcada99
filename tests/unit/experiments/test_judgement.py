from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checker import Check
from experiments.history import Configured, FaultRecord, History, LinkRecord, NodeExit
from experiments.judgement import binomial_tail, fails_the_run, judge_expectation, judge_fidelity, verdict_now
from experiments.recorded_run import RecordedRun
from experiments.run_folder import RunFolder
from experiments.spec_schema import Expectation
from proxy.lag import LagHistogram
from proxy.records import CountersReported
from topologies.model import Link, LinkProperties, Node, Topology


def lag_of(*lags_ms: float) -> tuple[list[tuple[int, int]], float]:
    histogram = LagHistogram()
    for lag_ms in lags_ms:
        histogram.add(lag_ms / 1e3)
    return histogram.take()


TOPOLOGY = Topology(
    "pair",
    (Node("csr1", "csr"), Node("ue1", "ue")),
    (Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=2)),),
)
FAULT = FaultRecord("f1", "link-down", "csr1-ue1", intended_s=105.0, applied_s=105.001, verified=True)
COUNTERS = CountersReported(106.0, "csr1", "forwarder", 1.0, 1000, 105.0, *lag_of(0.4, 1.0), [], {}, {})
LATE_BINS, LATE_MAX_MS = lag_of(9.0)
LATE = msgspec.structs.replace(COUNTERS, timer_lag_bins=LATE_BINS, timer_lag_max_ms=LATE_MAX_MS)
LINK = LinkRecord(
    "csr1-ue1", "csr1", "ue1", Configured(delay_ms=2.0, loss_ratio=0.02, rate_mbps=10.0), 9_800, 10**6,
    {"loss": 200, "queue": 0, "carrier": 0, "overrun": 0}, delay_error_p50_ms=0.05, delay_error_p99_ms=0.4,
    delay_error_max_ms=0.9, delay_error_histogram=[(0.05, 9_000), (0.4, 790), (0.9, 10)], measured_rate_mbps=4.0,
    expected_lost_packets=200.0, altered_packets={"duplicate": 95, "corrupt": 0}, passed_packets=9_800,
    expected_altered_packets={"duplicate": 98.0, "reorder": 0.0, "corrupt": 0.0},
)  # fmt: skip


def judged(**changes: Any) -> tuple[Check, ...]:
    manifest = {"experiment": {"fault": [{}]}, "cpu_busy_ratio": 0.4} | changes.pop("manifest", {})
    history = changes.pop("history", History(counters=[COUNTERS], quiesced_s=110.0))
    parts: dict[str, Any] = {"faults": [FAULT], "links": [LINK], "exits": [NodeExit("csr1.forwarder", 0)]} | changes
    run = RecordedRun(
        folder=RunFolder.__new__(RunFolder), manifest=manifest, topology=TOPOLOGY, history=history, epoch_s=100.0,
        end_s=110.0, **parts,
    )  # fmt: skip
    return judge_fidelity(run)


def verdicts(**changes: Any) -> dict[str, str]:
    return {check.name: check.verdict for check in judged(**changes)}


def link(**changes: Any) -> LinkRecord:
    return msgspec.structs.replace(LINK, **changes)


def test_a_faithful_run_passes_everything() -> None:
    assert set(verdicts().values()) == {"pass"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("run.complete", {"manifest": {"problem": "the zygote ended"}}),
        ("fidelity.faults", {"faults": [msgspec.structs.replace(FAULT, verified=False)]}),
        ("fidelity.faults", {"faults": []}),
        ("fidelity.nodes", {"exits": [NodeExit("csr1.forwarder", -9)]}),
        ("fidelity.records", {"history": History(counters=[COUNTERS], quiesced_s=110.0, damage=["a.jsonl:3: torn"])}),
        ("fidelity.link-delay", {"links": [link(delay_error_histogram=[(0.05, 4_000), (0.3, 6_000)])]}),
        ("fidelity.link-delay", {"links": [link(delay_error_histogram=[(0.05, 9_800), (1.2, 200)])]}),
        ("fidelity.link-loss", {"links": [link(dropped_packets={"loss": 260}, packets=9_740)]}),
        ("fidelity.link-loss", {"links": [link(dropped_packets={"loss": 140}, packets=9_860)]}),
        ("fidelity.link-loss", {"links": [link(dropped_packets={"loss": 3}, expected_lost_packets=0.0)]}),
        ("fidelity.link-alterations", {"links": [link(altered_packets={"duplicate": 140})]}),
        ("fidelity.link-alterations", {"links": [link(altered_packets={"duplicate": 62})]}),
        ("fidelity.link-alterations", {"links": [link(altered_packets={"duplicate": 98, "corrupt": 1})]}),
        ("fidelity.link-rate", {"links": [link(measured_rate_mbps=10.5)]}),
        ("fidelity.overrun", {"links": [link(dropped_packets={"loss": 200, "overrun": 1})]}),
        (
            "fidelity.timer-lag",
            {"history": History(counters=[COUNTERS, LATE], quiesced_s=110.0)},
        ),
        ("fidelity.cpu", {"manifest": {"cpu_busy_ratio": 0.95}}),
        (
            "run.settled",
            {
                "manifest": {"unsettled": "csr1 sees another state"},
                "faults": [msgspec.structs.replace(FAULT, healed_s=106.0)],
            },
        ),
        ("fidelity.fault-timing", {"faults": [msgspec.structs.replace(FAULT, applied_s=105.3)]}),
    ],
)
def test_each_unfaithfulness_fails_its_check_and_no_other(name: str, changes: dict[str, Any]) -> None:
    found = verdicts(**changes)
    assert found.pop(name) == "fail"
    assert set(found.values()) == {"pass"}


@pytest.mark.parametrize(
    ("target", "healed_s", "verdict"),
    [
        ("csr1.forwarder", 105.5, "pass"),
        ("csr1", None, "pass"),
        ("ue1", 105.5, "fail"),  # another process
        ("csr1.forwarder", 104.5, "fail"),  # before
    ],
)
def test_a_process_that_a_fault_holds_is_late_as_it_should_be(
    target: str, healed_s: float | None, verdict: str
) -> None:
    freeze = FaultRecord("f1", "freeze", target, intended_s=104.0, applied_s=104.0, verified=True, healed_s=healed_s)
    late = History(counters=[COUNTERS, LATE], quiesced_s=110.0)
    found = verdicts(history=late, faults=[freeze])
    assert found["fidelity.timer-lag"] == verdict


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("run.complete", {"history": History(counters=[COUNTERS])}),
        ("fidelity.nodes", {"exits": []}),
        ("fidelity.nodes", {"exits": [NodeExit("csr1.forwarder")]}),
        ("fidelity.link-delay", {"links": []}),
        ("fidelity.timer-lag", {"history": History(quiesced_s=110.0)}),
        ("fidelity.cpu", {"manifest": {"cpu_busy_ratio": None}}),
    ],
)
def test_what_was_not_measured_is_inconclusive(name: str, changes: dict[str, Any]) -> None:
    assert verdicts(**changes)[name] == "inconclusive"


def test_only_what_changes_the_experiment_fails_the_run() -> None:
    failing = {name for name in verdicts() if fails_the_run(Check(name, "fail", "", ""))}
    assert failing == {"run.complete", "run.settled", "fidelity.faults", "fidelity.nodes"}
    assert fails_the_run(Check("invariant.in-order", "inconclusive", "", ""))
    assert fails_the_run(Check("expect.deliveries.lost", "inconclusive", "", ""))
    assert not fails_the_run(Check("invariant.in-order", "pass", "", ""))


@pytest.mark.parametrize(
    ("bounds", "value", "verdict"),
    [
        ({"at_most": 2.0}, 2.0, "pass"),
        ({"at_most": 2.0}, 2.1, "fail"),
        ({"at_least": 1.0, "at_most": 2.0}, 0.9, "fail"),
        ({"equals": 0.0}, 0.0, "pass"),
        ({"equals": 0.0}, 1.0, "fail"),
        ({"at_most": 2.0}, math.nan, "inconclusive"),
    ],
)
def test_expectations(bounds: dict[str, float], value: float, verdict: str) -> None:
    check = judge_expectation(Expectation("deliveries.lost", **bounds), value)
    assert (check.name, check.verdict) == ("expect.deliveries.lost", verdict)


@given(trials=st.integers(1, 60), probability=st.floats(0.01, 0.99), data=st.data())
def test_the_binomial_tail_is_the_sum_of_its_terms(trials: int, probability: float, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    side = range(hits, trials + 1) if hits > trials * probability else range(hits + 1)
    terms = [math.comb(trials, n) * probability**n * (1 - probability) ** (trials - n) for n in side]
    assert binomial_tail(hits, trials, probability) == pytest.approx(math.fsum(terms), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("since_s", "until_s"), [(98.0, 101.0), (109.8, 112.0)])
def test_timers_that_fire_late_before_or_after_the_workload_touch_no_figure(since_s: float, until_s: float) -> None:
    late = msgspec.structs.replace(LATE, timer_lag_since_s=since_s, t_s=until_s)
    assert verdicts(history=History(counters=[late, COUNTERS], quiesced_s=110.0))["fidelity.timer-lag"] == "pass"


def test_a_run_that_passed_does_not_pass_for_ever() -> None:
    good, bad = Check("invariant.agreement", "pass", "", ""), Check("invariant.agreement", "fail", "", "")
    assert verdict_now("pass", [good]) == "pass"
    assert verdict_now("pass", [good, bad]) == "fail"
    assert verdict_now("interrupted", [bad]) == "interrupted"


def test_faults_whose_records_are_gone_did_not_take() -> None:
    (check,) = (check for check in judged(faults=[]) if check.name == "fidelity.faults")
    assert (check.verdict, check.measured) == ("fail", "0 of 1 took")
