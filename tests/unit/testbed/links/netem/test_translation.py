"""An impairment in terms of netem: golden values, and what the table of delays says about frames."""

import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.links.model import Impairment
from testbed.links.netem.qdisc import CERTAIN, NO_LIMIT, NO_TIME_BYTES_PER_S, TABLE_MAX, TABLE_SCALE, Netem
from testbed.links.netem.translation import loss_moments, refusal, stages_of
from topologies.errors import CapabilityError


def delay_stage(**properties: Any) -> Netem:
    return stages_of(Impairment(**properties), where="x").delay


def delays_ms(stage: Netem) -> list[float]:
    """Return the delay that each entry of the table gives, by the kernel's arithmetic (tabledist)."""
    whole, rest = divmod(stage.jitter_ns, TABLE_SCALE)
    found = []
    for entry in stage.table:
        x = rest * entry
        x += TABLE_SCALE // 2 if x >= 0 else -(TABLE_SCALE // 2)
        found.append((int(x / TABLE_SCALE) + whole * entry + stage.latency_ns) / 1e6)
    return found


def test_each_property_by_itself() -> None:
    assert delay_stage() == Netem(rate_bytes_per_s=NO_TIME_BYTES_PER_S)
    assert delay_stage(delay_ms=20.5).latency_ns == 20_500_000
    assert delay_stage(loss_ratio=0.25).loss == 0x4000_0000
    assert delay_stage(loss_ratio=1.0).loss == CERTAIN
    assert delay_stage(duplicate_ratio=0.5, late_max_ms=0.0).duplicate == 0x8000_0000
    assert delay_stage(corrupt_ratio=0.5).corrupt == 0x8000_0000
    assert delay_stage(delay_ms=1).limit_packets == NO_LIMIT  # of what is on its way


def test_bursts_as_the_kernel_has_them() -> None:
    stage = delay_stage(good_to_bad_ratio=0.25, bad_to_good_ratio=0.5, bad_loss_ratio=0.75, loss_ratio=0.125)
    assert stage.loss == 0  # or a frame would be drawn for twice
    assert stage.bursts == (0x4000_0000, 0x8000_0000, CERTAIN - 0xBFFF_FFFF, 0x2000_0000)
    assert delay_stage(bad_loss_ratio=0.5, bad_to_good_ratio=0.5).bursts is None  # there is no bad state to come to


def test_the_line_is_a_stage_of_its_own() -> None:
    stages = stages_of(Impairment(rate_mbps=10, queue_packets=7, delay_ms=20), where="x")
    assert stages.rate == Netem(rate_bytes_per_s=1_250_000, limit_packets=7)
    assert stages.delay.limit_packets == NO_LIMIT
    assert stages_of(Impairment(rate_mbps=0.001), where="x").rate == Netem(rate_bytes_per_s=125, limit_packets=1_000)


def test_order_is_kept_unless_it_is_not_to_be() -> None:
    assert delay_stage(jitter_ms=5).rate_bytes_per_s == NO_TIME_BYTES_PER_S
    assert delay_stage(jitter_ms=5, jitter_keeps_order=False).rate_bytes_per_s == 0
    assert delay_stage(reorder_ratio=0.5).rate_bytes_per_s == 0


def test_uniform_jitter() -> None:
    stage = delay_stage(delay_ms=20, jitter_ms=10)
    delays = delays_ms(stage)
    assert len(delays) <= TABLE_MAX
    assert 20.0 <= min(delays) < 20.01
    assert 29.99 < max(delays) <= 30.001
    assert statistics.mean(delays) == pytest.approx(25.0, abs=0.01)
    assert statistics.pstdev(delays) == pytest.approx(10 / 12**0.5, rel=0.01)


def test_normal_jitter() -> None:
    delays = delays_ms(delay_stage(delay_ms=40, jitter_ms=5, jitter_distribution="normal"))
    assert statistics.mean(delays) == pytest.approx(40.0, abs=0.01)
    assert statistics.pstdev(delays) == pytest.approx(5.0, rel=0.01)
    assert min(delays) >= 20.0 - 0.01  # four deviations
    assert max(delays) <= 60.0 + 0.01
    near = delays_ms(delay_stage(delay_ms=3, jitter_ms=5, jitter_distribution="normal"))
    assert min(near) >= -0.001  # never before it was sent


def test_reordered_frames_are_late_as_often_and_as_much_as_asked() -> None:
    delays = delays_ms(delay_stage(delay_ms=10, reorder_ratio=0.1, late_max_ms=50))
    late = [delay_ms for delay_ms in delays if delay_ms > 10.001]
    assert len(late) / len(delays) == pytest.approx(0.1, rel=0.01)
    assert min(delays) >= 10.0
    assert max(late) <= 60.001
    assert statistics.mean(late) == pytest.approx(35.0, abs=0.2)


def test_jitter_and_lateness_have_nothing_to_do_with_each_other() -> None:
    stage = delay_stage(jitter_ms=10, jitter_keeps_order=False, reorder_ratio=0.5, late_max_ms=10)
    delays = delays_ms(stage)
    assert statistics.mean(delays) == pytest.approx(5.0 + 2.5, abs=0.05)
    assert statistics.pvariance(delays) == pytest.approx(100 / 12 + (0.5 * 100 / 3 - 2.5**2), rel=0.02)


@settings(max_examples=20)
@given(
    st.floats(0, 60_000), st.floats(0, 4_000), st.sampled_from(("uniform", "normal")), st.sampled_from((0.0, 0.01, 1.0))
)
def test_the_table_fits_its_numbers(delay_ms: float, jitter_ms: float, distribution: Any, reorder_ratio: float) -> None:
    stage = delay_stage(
        delay_ms=delay_ms,
        jitter_ms=jitter_ms / 4 if distribution == "normal" else jitter_ms,
        jitter_distribution=distribution,
        jitter_keeps_order=False,
        reorder_ratio=reorder_ratio,
    )
    assert len(stage.table) <= TABLE_MAX
    assert all(-32_768 <= entry <= 32_767 for entry in stage.table)
    assert 0 <= stage.jitter_ns <= 2**31 - 1
    assert Netem.decode(stage.encode()).is_as_asked(stage)


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"rate_mbps": 1.0, "queue_bytes": 10_000}, "a queue that is bounded by bytes"),
        ({"duplicate_ratio": 0.1}, "duplicates that come later than the frame itself"),
        ({"duplicate_ratio": 0.1, "late_max_ms": 0.0, "rate_mbps": 1.0}, "duplicates together with a rate"),
        ({"reorder_ratio": 0.1, "jitter_ms": 1.0}, "reordering on top of a jitter that keeps the order"),
        ({"reorder_ratio": 1e-5}, "a reorder_ratio of 1e-05"),
        ({"jitter_ms": 10_000.0}, "delays that vary so much (jitter_ms)"),
        ({"jitter_ms": 2_000.0, "jitter_distribution": "normal"}, "delays that vary so much (jitter_ms)"),
        ({"reorder_ratio": 0.5, "late_max_ms": 50_000.0}, "delays that vary so much (late_max_ms)"),
    ],
)
def test_what_netem_cannot_do_is_refused(properties: dict[str, Any], problem: str) -> None:
    impairment = Impairment(**properties)
    assert problem in (refusal(impairment) or "")
    with pytest.raises(CapabilityError) as caught:
        stages_of(impairment, where="link a-b")
    assert caught.value.where == "link a-b"
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    "properties",
    [
        {"queue_bytes": 10_000},
        {"duplicate_ratio": 0.1, "late_max_ms": 0.0},
        {"reorder_ratio": 0.1, "jitter_ms": 1.0, "jitter_keeps_order": False},
        {"late_max_ms": 60_000.0},
    ],
)
def test_what_is_only_near_to_that_is_not_refused(properties: dict[str, Any]) -> None:
    assert refusal(Impairment(**properties)) is None


def test_expected_loss() -> None:
    assert loss_moments(Impairment(loss_ratio=0.25)) == (0.25, 0.1875)
    mean, variance = loss_moments(Impairment(good_to_bad_ratio=0.02, bad_to_good_ratio=0.2))
    assert mean == pytest.approx(1 / 11)
    independent = mean * (1 - mean)
    assert variance == pytest.approx(independent * (1 + 0.78) / (1 - 0.78))  # as of any two-state chain
    assert loss_moments(Impairment(good_to_bad_ratio=0.5, bad_to_good_ratio=0.5))[1] == pytest.approx(0.25)
