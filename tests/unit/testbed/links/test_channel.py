import math

import pytest

from testbed.links.channel import LOST, QUEUE_FULL, Channel, draws
from testbed.links.model import Impairment

FRAMES = 100_000

GOLDEN_DRAWS = ((8671552008926726004, 13508096147141598936), (4933025127907683165, 3725331288984033480))
GOLDEN_LOST = [2, 5, 6, 7, 8, 11, 16, 17]


def lost_numbers(loss_ratio: float, *, seed: int = 7, link: str = "a-b", direction: str = "a_to_b") -> set[int]:
    impairment = Impairment(loss_ratio=loss_ratio)
    made = Channel(impairment, seed=seed, link=link, direction=direction)  # type: ignore[arg-type]
    return {number for number in range(FRAMES) if made.offer(100, now_ns=number) == LOST}


@pytest.mark.parametrize("loss_ratio", [0.001, 0.02, 0.3, 0.97])
def test_loss_is_within_the_binomial_interval(loss_ratio: float) -> None:
    lost = len(lost_numbers(loss_ratio))
    three_nines = 3.29 * math.sqrt(FRAMES * loss_ratio * (1 - loss_ratio))  # 99.9 %, two-sided
    assert abs(lost - FRAMES * loss_ratio) <= three_nines


def test_no_loss_and_total_loss_are_exact() -> None:
    assert lost_numbers(0.0) == set()
    assert len(lost_numbers(1.0)) == FRAMES


def test_losses_do_not_cluster() -> None:
    lost = lost_numbers(0.3)
    pairs = sum(number + 1 in lost for number in lost)
    assert abs(pairs - 0.09 * FRAMES) < 4 * math.sqrt(0.09 * FRAMES)


@pytest.mark.parametrize("other", [{"seed": 8}, {"link": "a-c"}, {"direction": "b_to_a"}])
def test_another_seed_link_or_direction_loses_independently(other: dict[str, str]) -> None:
    both = len(lost_numbers(0.3) & lost_numbers(0.3, **other))  # type: ignore[arg-type]
    assert abs(both - 0.09 * FRAMES) < 4 * math.sqrt(0.09 * FRAMES)


def test_draws_stay_what_they_were() -> None:
    """Golden: a change here changes every seeded run that anyone has published."""
    assert draws(bytes(16), 0) == GOLDEN_DRAWS[0]
    assert draws(bytes(range(16)), 123_456_789) == GOLDEN_DRAWS[1]
    assert sorted(lost_numbers(0.3))[:8] == GOLDEN_LOST


def test_jitter_is_uniform_over_its_range() -> None:
    made = Channel(Impairment(jitter_ms=10.0), seed=7, link="a-b", direction="a_to_b")
    gap_ns = 20_000_000  # so far apart that keeping the order does nothing
    jitter_ms = [(made.offer(100, now_ns=number * gap_ns) - number * gap_ns) / 1e6 for number in range(10_000)]
    tenths = [sum(int(value) == tenth for value in jitter_ms) for tenth in range(10)]
    assert sum(tenths) == len(jitter_ms)
    assert all(abs(count - 1_000) < 4 * math.sqrt(900) for count in tenths)


def test_a_change_leaves_frames_in_flight_alone() -> None:
    made = Channel(Impairment(rate_mbps=8.0, delay_ms=10.0), seed=7, link="a-b", direction="a_to_b")
    assert [made.offer(1_000, now_ns=0) for _ in range(2)] == [11_000_000, 12_000_000]
    made.change(Impairment(rate_mbps=80.0, delay_ms=1.0))
    # at 80 Mbit/s it is sent after the two, at 2.1 ms, and would arrive at 3.1 ms: before them
    assert made.offer(1_000, now_ns=0) == 12_000_000
    assert made.offer(1_000, now_ns=20_000_000) == 21_100_000


def test_a_lost_frame_has_taken_its_time_on_the_line() -> None:
    made = Channel(Impairment(rate_mbps=8.0, loss_ratio=1.0), seed=7, link="a-b", direction="a_to_b")
    assert made.offer(1_000, now_ns=0) == LOST
    made.change(Impairment(rate_mbps=8.0))
    assert made.offer(1_000, now_ns=0) == 2_000_000


def test_expected_loss_adds_up_over_changes() -> None:
    made = Channel(Impairment(loss_ratio=0.5), seed=7, link="a-b", direction="a_to_b")
    for _ in range(100):
        made.offer(100, now_ns=0)
    made.change(Impairment(loss_ratio=0.1))
    for _ in range(200):
        made.offer(100, now_ns=0)
    made.change(Impairment())
    made.offer(100, now_ns=0)
    assert made.expected_loss() == pytest.approx((70.0, 25.0 + 18.0))


def test_a_place_in_the_queue_is_free_when_its_frame_has_left_the_line() -> None:
    made = Channel(Impairment(rate_mbps=8.0, queue_packets=1), seed=7, link="a-b", direction="a_to_b")
    assert made.offer(1_000, now_ns=0) == 1_000_000
    assert made.offer(1_000, now_ns=999_999) == QUEUE_FULL
    assert made.offer(1_000, now_ns=1_000_000) == 2_000_000


def test_a_cut_empties_the_queue() -> None:
    made = Channel(Impairment(rate_mbps=8.0, queue_packets=1), seed=7, link="a-b", direction="a_to_b")
    assert made.offer(1_000, now_ns=0) == 1_000_000
    made.cut()
    assert made.offer(1_000, now_ns=0) == 1_000_000
