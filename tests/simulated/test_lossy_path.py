"""Four hops that each lose 5 % in either direction: what nobody but the links repeats is answered all the same, and in time."""

from __future__ import annotations

import pytest

from testbed.links.model import Impairment
from tests.bench.link_loss import LOSS_LIMIT, Line, measure, percentile

DELAY_MS = 10.0


@pytest.mark.parametrize(("per_s", "size_bytes"), [(20.0, 200), (200.0, 200), (50.0, 4_000)])
def test_lossy_links_lose_nothing_and_add_little(per_s: float, size_bytes: int) -> None:
    impairment = Impairment(delay_ms=DELAY_MS, loss_ratio=0.05)
    line = Line(hops=4, impairment=impairment, mode="on", size_bytes=size_bytes)
    loss_ratio, added_ms = measure(line, interests=1_500, per_s=per_s)
    assert loss_ratio < LOSS_LIMIT
    assert added_ms[0] >= -1e-6
    if size_bytes < 1_000:  # larger ones are not sent twice
        assert percentile(added_ms, 0.99) <= 2 * 2 * DELAY_MS


def test_without_link_reliability_a_third_is_lost() -> None:
    line = Line(hops=4, impairment=Impairment(delay_ms=DELAY_MS, loss_ratio=0.05), mode="off", size_bytes=200)
    loss_ratio, added_ms = measure(line, interests=1_500, per_s=200.0)
    assert loss_ratio == pytest.approx(1 - 0.95**8, abs=0.04)
    assert max(added_ms) < 1e-6


def test_auto_is_as_good_once_there_has_been_a_loss() -> None:
    line = Line(hops=4, impairment=Impairment(delay_ms=DELAY_MS, loss_ratio=0.05), mode="auto", size_bytes=200)
    loss_ratio, _ = measure(line, interests=1_500, per_s=20.0)
    assert loss_ratio < LOSS_LIMIT
