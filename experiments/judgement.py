"""Judging a run beyond its invariants: whether the declared expectations held and the emulation was faithful.

A run whose fidelity failed says so first, but only a fault that did not take, a node that broke down, or a twin that disagrees
fails it: the first two change what was measured, the last is what was asked for; the others say how far to trust it.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from experiments.checker import Check, Verdict, examples
from experiments.history import LinkRecord
from experiments.recorded_run import RecordedRun, processes_struck
from experiments.spec_schema import Expectation
from experiments.timer_lag import timer_lags
from testbed.faults.targets import EVENT_KINDS, KILLING_KINDS

#: Whether an emulated run and its simulated twin agree (`experiments.analysis.twin`): who asks for a twin asks for this.
TWIN_CHECKS: Final = ("fidelity.twin.ratio.p50", "fidelity.twin.ratio.p99")

#: Fidelity checks without which the run did not do what the experiment says.
_FATAL: Final = frozenset({"fidelity.faults", "fidelity.nodes", *TWIN_CHECKS})

DELAY_ERROR_P50_MAX_MS: Final = 0.2
DELAY_ERROR_P99_MAX_MS: Final = 1.0
TIMER_LAG_P99_MAX_MS: Final = 5.0
CPU_BUSY_MAX_RATIO: Final = 0.85
FAULT_LAG_MAX_S: Final = 0.1
RATE_EXCESS_MAX_RATIO: Final = 1.02

#: Probability with which a faithful run fails the loss check, all links together (the 99.9 % interval).
LOSS_FALSE_ALARM: Final = 0.001


def fails_the_run(check: Check) -> bool:
    """Whether this check makes the verdict `fail`: what was required has not been shown to hold."""
    return check.verdict != "pass" and (not check.name.startswith("fidelity.") or check.name in _FATAL)


def verdict_now(recorded: str, checks: Iterable[Check]) -> str:
    """Return the verdict of a run: what it ended with, but `fail` where it passed then and its records no longer show it."""
    return "fail" if recorded == "pass" and any(map(fails_the_run, checks)) else recorded


def judge_expectations(run: RecordedRun, values: Mapping[str, float]) -> Iterator[Check]:
    """Compare every ``[[expect]]`` of the experiment with the summary."""
    declared = run.manifest.get("experiment", {}).get("expect", [])
    for expectation in msgspec.convert(declared, list[Expectation]):
        yield judge_expectation(expectation, values.get(expectation.metric, math.nan))


def judge_expectation(expectation: Expectation, value: float) -> Check:
    """Compare one value with its bounds; a metric without a value is inconclusive.

    >>> judge_expectation(Expectation("deliveries.ratio.p50", at_most=1.15), 1.2).verdict
    'fail'
    """
    bounds: list[tuple[str, float, bool]] = []
    if expectation.at_most is not None:
        bounds.append(("at most", expectation.at_most, value <= expectation.at_most))
    if expectation.at_least is not None:
        bounds.append(("at least", expectation.at_least, value >= expectation.at_least))
    if expectation.equals is not None:
        bounds.append(("equal to", expectation.equals, value == expectation.equals))
    verdict: Verdict = "pass" if all(holds for _, _, holds in bounds) else "fail"
    if math.isnan(value):
        verdict = "inconclusive"
    return Check(
        f"expect.{expectation.metric}",
        verdict,
        "" if math.isnan(value) else f"{value:.6g}",
        " and ".join(f"{words} {bound:g}" for words, bound, _ in bounds),
        "nothing was measured" if math.isnan(value) else "",
    )


def judge_fidelity(run: RecordedRun) -> tuple[Check, ...]:
    """Compare what was asked of the testbed with what it did, its coming to the end first."""
    return (
        _complete(run),
        _settled(run),
        _faults_took(run),
        _nodes_ran(run),
        _records_intact(run),
        _delay(run.links),
        _loss(run.links),
        _alterations(run.links),
        _rate(run.links),
        _overrun(run.links),
        _timer_lag(run),
        _cpu(run),
        _fault_timing(run),
    )


def binomial_tail(hits: int, trials: int, probability: float) -> float:
    """Return how probable it is to be at least as far off the mean as *hits*, on its side, in *trials*.

    Source: the binomial distribution, summed from *hits* outwards until the terms no longer count.

    >>> round(binomial_tail(8, 10, 0.5), 6), round(binomial_tail(0, 100, 0.05), 6)
    (0.054688, 0.005921)
    """
    if probability <= 0.0 or probability >= 1.0:
        return 1.0 if hits == round(trials * probability) else 0.0
    step = 1 if hits > trials * probability else -1
    log_term = (
        math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
        + hits * math.log(probability) + (trials - hits) * math.log1p(-probability)
    )  # fmt: skip
    term, total, at, odds = math.exp(log_term), 0.0, hits, probability / (1.0 - probability)
    while 0 <= at <= trials and term > total * 1e-15:
        total += term
        term *= odds * (trials - at) / (at + 1) if step > 0 else at / (odds * (trials - at + 1))
        at += step
    return min(1.0, total)


def _complete(run: RecordedRun) -> Check:
    problem = str(run.manifest.get("problem") or "")
    verdict: Verdict = "fail" if problem else "inconclusive" if run.history.quiesced_s is None else "pass"
    measured = {"fail": "broke off", "inconclusive": "cut short", "pass": "went on to the end"}[verdict]
    return Check("run.complete", verdict, measured, "goes on to the end", problem)


def _settled(run: RecordedRun) -> Check:
    """A conference that nothing disturbs any more comes to rest: all agree, and nobody waits for an ack."""
    apart = str(run.manifest.get("unsettled") or "")
    lasting = [fault.fault_id for fault in run.faults if fault.kind not in EVENT_KINDS and fault.healed_s is None]
    verdict: Verdict = "fail" if apart and not lasting else "pass"
    measured = "cut short" if run.history.quiesced_s is None else "did not" if apart else "did"
    detail = f"{apart}; {', '.join(lasting)} lasted to the end" if apart and lasting else apart
    return Check("run.settled", verdict, measured, "settles, unless a fault lasts to the end", detail)


def _faults_took(run: RecordedRun) -> Check:
    left_s = run.manifest.get("clock", {}).get("left_s", math.inf)  # the user of a shell may have left before the end
    planned = run.manifest.get("experiment", {}).get("fault", [])
    scheduled = sum(run.epoch_s + fault.get("at_s", 0.0) < left_s for fault in planned)
    applied = sum(fault.source == "schedule" for fault in run.faults)
    missing = [
        f"{fault.fault_id} {fault.kind} {fault.target} was not verified" + (f": {fault.detail}" if fault.detail else "")
        for fault in run.faults
        if not fault.verified
    ]
    if applied < scheduled and run.history.quiesced_s is not None:
        missing.append(f"{scheduled - applied} of the schedule were never applied")
    took = sum(fault.verified for fault in run.faults)
    return _check("fidelity.faults", missing, f"{took} of {max(scheduled, len(run.faults))} took", "all")


def _nodes_ran(run: RecordedRun) -> Check:
    killed = processes_struck(run.topology, run.faults, KILLING_KINDS)
    broken = [
        f"{exit_.name} ended with status {exit_.status}"
        for exit_ in run.exits
        if exit_.status and not (exit_.status == -signal.SIGKILL and exit_.name in killed)
    ]
    unseen = sum(exit_.status is None for exit_ in run.exits)
    if not broken and (unseen or not run.exits):
        return Check(
            "fidelity.nodes", "inconclusive", "", "every program ends in an orderly way", "nobody saw how they ended"
        )
    return _check("fidelity.nodes", broken, f"{len(broken)} of {len(run.exits)} programs broke down", "0")


def _records_intact(run: RecordedRun) -> Check:
    damage = list(run.history.damage)
    return _check("fidelity.records", damage, f"{len(damage)} damaged lines or missing files in raw records", "0")


def _delay(links: Sequence[LinkRecord]) -> Check:
    """Judge all frames of all links together; one frame that came late on an idle link says little."""
    frames = sorted((bound_ms, count) for link in links for bound_ms, count in link.delay_error_histogram)
    p50_ms, p99_ms = _quantile(frames, 0.5), _quantile(frames, 0.99)
    required = f"p50 at most {DELAY_ERROR_P50_MAX_MS} ms, p99 at most {DELAY_ERROR_P99_MAX_MS} ms"
    if p50_ms is None or p99_ms is None:
        return Check(
            "fidelity.link-delay",
            "inconclusive",
            "",
            required,
            "no frames on links that measure their delays; netem links do not",
        )
    worst = max(links, key=lambda link: link.delay_error_p99_ms or 0.0)
    return Check(
        "fidelity.link-delay",
        "pass" if p50_ms <= DELAY_ERROR_P50_MAX_MS and p99_ms <= DELAY_ERROR_P99_MAX_MS else "fail",
        f"p50 {p50_ms:.3f} ms, p99 {p99_ms:.3f} ms later than configured",
        required,
        f"worst: {worst.sender} to {worst.receiver}, p99 {worst.delay_error_p99_ms or 0.0:.3f} ms, "
        f"max {worst.delay_error_max_ms or 0.0:.3f} ms",
    )


def _loss(links: Sequence[LinkRecord]) -> Check:
    wrong: list[str] = []
    lossy = [link for link in links if link.expected_lost_packets > 0 or link.dropped_packets.get("loss", 0) > 0]
    for link in lossy:
        lost = link.dropped_packets.get("loss", 0)
        offered = lost + link.packets if link.drawn_packets is None else link.drawn_packets
        tail = _loss_tail(link, lost, offered) if offered else 1.0
        if 2 * tail < LOSS_FALSE_ALARM / len(lossy):
            wrong.append(
                f"{link.sender} to {link.receiver} lost {lost} of {offered}, expected {link.expected_lost_packets:.1f}"
            )
    required = "loss of every link within the 99.9 % binomial interval"
    return _check("fidelity.link-loss", wrong, f"{len(wrong)} of {len(lossy)} lossy directions outside", required)


def _loss_tail(link: LinkRecord, lost: int, offered: int) -> float:
    """Return how likely it is to lose at least (or at most) so many of the frames.

    Losses in bursts vary more than single ones: so many frames say as much as fewer independent ones do, in proportion of the
    variances (Kish's design effect).
    """
    ratio = min(1.0, link.expected_lost_packets / offered)
    single, in_bursts = offered * ratio * (1 - ratio), link.expected_lost_variance
    effect = in_bursts / single if in_bursts is not None and in_bursts > single > 0 else 1.0
    return binomial_tail(round(lost / effect), round(offered / effect), ratio) if offered >= effect else 1.0


def _alterations(links: Sequence[LinkRecord]) -> Check:
    drawn = [
        (link, kind, link.altered_packets.get(kind, 0), expected, link.passed_packets or 0)
        for link in links
        for kind, expected in link.expected_altered_packets.items()
        if expected > 0 or link.altered_packets.get(kind, 0) > 0
    ]
    wrong = [
        f"{link.sender} to {link.receiver}: {kind} of {altered} in {passed}, expected {expected:.1f}"
        for link, kind, altered, expected, passed in drawn
        if 2 * binomial_tail(altered, passed, expected / max(1, passed)) < LOSS_FALSE_ALARM / len(drawn)
    ]
    required = "duplicates, reordering and corruption of every link within the 99.9 % binomial interval"
    return _check("fidelity.link-alterations", wrong, f"{len(wrong)} of {len(drawn)} outside", required)


def _rate(links: Sequence[LinkRecord]) -> Check:
    limited = [link for link in links if link.configured.rate_mbps and link.measured_rate_mbps]
    wrong = [
        f"{link.sender} to {link.receiver} carried {link.measured_rate_mbps:.3f} of {link.configured.rate_mbps:.3f} Mbit/s"
        for link in limited
        if (link.measured_rate_mbps or 0.0) > RATE_EXCESS_MAX_RATIO * (link.configured.rate_mbps or math.inf)
    ]
    required = f"no more than {RATE_EXCESS_MAX_RATIO:.0%} of the configured rate"
    return _check("fidelity.link-rate", wrong, f"{len(wrong)} of {len(limited)} limited directions above", required)


def _overrun(links: Sequence[LinkRecord]) -> Check:
    wrong = [
        f"{link.sender} to {link.receiver}: {link.dropped_packets['overrun']} frames"
        for link in links
        if link.dropped_packets.get("overrun", 0)
    ]
    return _check("fidelity.overrun", wrong, f"{len(wrong)} directions dropped frames that the network would not", "0")


def _timer_lag(run: RecordedRun) -> Check:
    required = f"p99 at most {TIMER_LAG_P99_MAX_MS} ms at every node"
    lags = timer_lags(run)
    if not lags:
        return Check("fidelity.timer-lag", "inconclusive", "", required, "no counters were reported")
    (node, process), worst = max(lags.items(), key=lambda item: item[1].quantile_ms(0.99))
    p99_ms = worst.quantile_ms(0.99)
    return Check(
        "fidelity.timer-lag",
        "pass" if p99_ms <= TIMER_LAG_P99_MAX_MS else "fail",
        f"p99 {p99_ms:.3f} ms",
        required,
        f"worst: {node}.{process}, max {worst.max_ms:.3f} ms",
    )


def _cpu(run: RecordedRun) -> Check:
    required = f"at most {CPU_BUSY_MAX_RATIO:.0%} of all CPUs busy while the workload ran"
    busy = run.manifest.get("cpu_busy_ratio")
    if busy is None:
        return Check("fidelity.cpu", "inconclusive", "", required, "not measured")
    return Check("fidelity.cpu", "pass" if busy <= CPU_BUSY_MAX_RATIO else "fail", f"{busy:.0%}", required)


def _fault_timing(run: RecordedRun) -> Check:
    lags_s = {
        fault.fault_id: abs(fault.applied_s - fault.intended_s)
        for fault in run.faults
        if fault.applied_s is not None and fault.intended_s is not None and fault.source == "schedule"
    }
    wrong = [f"{fault_id} {lag_s:.3f} s off" for fault_id, lag_s in lags_s.items() if lag_s > FAULT_LAG_MAX_S]
    worst = f"worst {max(lags_s.values(), default=0.0) * 1e3:.1f} ms off schedule"
    return _check("fidelity.fault-timing", wrong, worst, f"at most {FAULT_LAG_MAX_S * 1e3:.0f} ms")


def _quantile(frames: Sequence[tuple[float, int]], share: float) -> float | None:
    """Return the upper bound of the bin that holds the *share* quantile; *frames* is (bound, count), sorted."""
    total, seen = sum(count for _, count in frames), 0
    for bound, count in frames:
        seen += count
        if seen >= share * total:
            return bound
    return None


def _check(name: str, problems: Sequence[str], measured: str, required: str) -> Check:
    return Check(name, "fail" if problems else "pass", measured, required, examples(problems))
