import math
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec
import pytest

from testbed.links.channel import (
    BLOCKED,
    CORRUPTED,
    DUPLICATED,
    JITTER,
    LOSS,
    LOST,
    NAMES_MAX,
    QUEUE_FULL,
    REORDERED,
    Channel,
    draw,
    draws,
    named,
    numbered,
)
from testbed.links.model import Impairment

FRAMES = 100_000

GOLDEN_DRAWS = (101324959072147, 234295856780516)
GOLDEN_LOST = [2, 3, 9, 14, 15, 23, 25, 26]
GOLDEN_NAMED_LOST = [2, 3, 9, 10, 13, 15, 18, 19, 21, 22, 25, 26, 27, 29]


def channel(seed: int = 7, /, **properties: Any) -> Channel:
    return Channel(Impairment(**properties), seed=seed, link="a-b", direction="a_to_b")


def three_nines(mean: float, variance: float) -> tuple[float, float]:
    """Return the interval that holds 99.9 % of a normal distribution."""
    return mean - 3.291 * math.sqrt(variance), mean + 3.291 * math.sqrt(variance)


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
    key = bytes(range(16))
    found = (
        draw(draws(key, numbered(123_456_789)), LOSS),
        draw(draws(key, named(b"\x05\x08\x01a", 2)), JITTER),
    )
    assert found == GOLDEN_DRAWS
    assert sorted(lost_numbers(0.3))[:8] == GOLDEN_LOST
    made = channel(loss_ratio=0.3)
    results = [made.offer(100, now_ns=0, name=b"\x05\x08\x01" + bytes([number])) for number in range(30)]
    assert [number for number, result in enumerate(results) if result == LOST] == GOLDEN_NAMED_LOST


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


@pytest.mark.parametrize("others", [{}, {"corrupt_ratio": 0.001}])
def test_not_even_by_a_nanosecond_does_a_frame_overtake(others: dict[str, Any]) -> None:
    made = channel(delay_ms=1.0, **others)
    first_ns = made.offer(100, now_ns=0)
    made.change(Impairment(delay_ms=0.999_999, **others))
    assert made.offer(100, now_ns=0) == first_ns == 1_000_000


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


def test_expected_alterations_add_up_over_changes_and_over_the_frames_that_are_not_lost() -> None:
    made = Channel(Impairment(duplicate_ratio=0.5, corrupt_ratio=0.1), seed=7, link="a-b", direction="a_to_b")
    for _ in range(100):
        made.offer(100, now_ns=0)
    made.change(Impairment(duplicate_ratio=0.25, reorder_ratio=1.0, loss_ratio=0.5))
    passed = 100 + sum(made.offer(100, now_ns=0) != LOST for _ in range(200))
    made.change(Impairment(loss_ratio=1.0))
    made.offer(100, now_ns=0)
    assert made.frames_passed == passed < 300
    again = passed - 100
    assert made.expected_alterations() == pytest.approx({"duplicate": 50 + again / 4, "reorder": again, "corrupt": 10})


def test_order_is_kept_again_behind_all_that_came_before_it_was_not() -> None:
    free = Impairment(jitter_keeps_order=False)
    made = Channel(msgspec.structs.replace(free, delay_ms=5.0), seed=7, link="a-b", direction="a_to_b")
    assert made.offer(100, now_ns=0) == 5_000_000
    made.change(free)
    assert made.offer(100, now_ns=1) == 1, "it overtakes"
    made.change(Impairment())
    assert made.offer(100, now_ns=2) == 5_000_000


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


# Names


def test_the_same_message_is_treated_the_same_way_whatever_came_before() -> None:
    """Bernoulli's loss, jitter, duplication, reordering and corruption: of a name and how often it has been offered."""
    properties = {
        "loss_ratio": 0.2,
        "jitter_ms": 5.0,
        "duplicate_ratio": 0.3,
        "reorder_ratio": 0.3,
        "corrupt_ratio": 0.3,
    }

    def treated(before: int) -> list[tuple[int, ...]]:
        made = channel(jitter_keeps_order=False, **properties)
        for number in range(before):
            made.offer(1_000, now_ns=0, name=b"another %d" % number if number % 2 else b"")
        found: list[tuple[int, ...]] = []
        for number in range(300):
            due_ns = made.offer(100, now_ns=0, name=b"name %d" % (number // 3))
            of_frame: tuple[int, ...] = (made.altered, made.attempt)
            if due_ns >= 0:
                of_frame += (made.late_ns if made.altered & REORDERED else 0,)
                of_frame += (made.copy_due_ns if made.altered & DUPLICATED else 0,)
                of_frame += (made.corrupt_draw if made.altered & CORRUPTED else 0,)
            found.append((due_ns, *of_frame))
        return found

    alone = treated(0)
    assert treated(1) == alone
    assert treated(1_001) == alone
    assert len(set(alone)) > 200  # attempts of one name are treated differently
    assert [attempt for _, _, attempt, *_ in alone] == [1, 2, 3] * 100


def test_no_more_names_are_remembered_than_the_bound_and_the_longest_not_seen_go_first() -> None:
    made = channel(loss_ratio=0.5)

    def attempt(name: bytes) -> int:
        made.offer(100, now_ns=0, name=name)
        return made.attempt

    assert (attempt(b"first"), attempt(b"second"), attempt(b"first")) == (1, 1, 2)
    for number in range(NAMES_MAX - 1):
        assert attempt(b"%d" % number) == 1
    assert attempt(b"first") == 3  # seen after the second
    assert attempt(b"second") == 1  # forgotten, and counted from the start


def test_a_channel_that_draws_nothing_does_not_count_names() -> None:
    made = channel(delay_ms=5.0, rate_mbps=8.0)
    assert not made.draws_frames
    made.offer(100, now_ns=0, name=b"name")
    assert made.attempt == 0
    for name, value in {"loss_ratio": 0.1, "jitter_ms": 1.0, "good_to_bad_ratio": 0.1, "corrupt_ratio": 0.1}.items():
        assert channel(**{name: value}).draws_frames
    made.change(Impairment(loss_ratio=0.1))
    assert made.draws_frames


# Jitter


def arrivals(made: Channel, *, gap_ns: int, count: int) -> list[int]:
    return [made.offer(100, now_ns=number * gap_ns) for number in range(count)]


def test_normal_jitter_has_the_mean_and_the_deviation_asked_for() -> None:
    made, gap_ns, count = channel(delay_ms=50.0, jitter_ms=2.0, jitter_distribution="normal"), 100_000_000, 20_000
    delays_ms = [(due - n * gap_ns) / 1e6 for n, due in enumerate(arrivals(made, gap_ns=gap_ns, count=count))]
    mean = sum(delays_ms) / count
    variance = sum((delay - mean) ** 2 for delay in delays_ms) / count
    low, high = three_nines(50.0, 4.0 / count)
    assert low <= mean <= high
    low, high = three_nines(4.0, 2 * 4.0**2 / count)
    assert low <= variance <= high
    for sigmas, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        inside = sum(abs(delay - 50.0) <= 2.0 * sigmas for delay in delays_ms)
        low, high = three_nines(count * share, count * share * (1 - share))
        assert low <= inside <= high
    assert all(42.0 <= delay <= 58.0 for delay in delays_ms)


def test_normal_jitter_never_makes_a_delay_negative() -> None:
    made = channel(delay_ms=1.0, jitter_ms=10.0, jitter_distribution="normal", jitter_keeps_order=False)
    dues = arrivals(made, gap_ns=1_000, count=1_000)
    assert all(due >= number * 1_000 for number, due in enumerate(dues))
    assert sum(due == number * 1_000 for number, due in enumerate(dues)) > 300


def test_jitter_that_does_not_keep_order_lets_frames_overtake() -> None:
    in_order = arrivals(channel(delay_ms=5.0, jitter_ms=5.0), gap_ns=1_000, count=200)
    assert in_order == sorted(in_order)
    free = channel(delay_ms=5.0, jitter_ms=5.0, jitter_keeps_order=False)
    overtaking = arrivals(free, gap_ns=1_000, count=200)
    assert overtaking != sorted(overtaking)
    assert all(5_000_000 <= due - number * 1_000 < 10_000_000 for number, due in enumerate(overtaking))
    free.change(Impairment(delay_ms=0.0))  # asked for again: nothing overtakes what is in flight
    assert free.offer(100, now_ns=200_000) == max(overtaking)


# Bursts


def losses(made: Channel, count: int = FRAMES) -> Iterator[bool]:
    return (made.offer(100, now_ns=number) == LOST for number in range(count))


@pytest.mark.parametrize(
    ("p", "r", "bad", "good"),
    [(0.01, 0.25, 1.0, 0.0), (0.001, 0.05, 0.7, 0.01), (0.3, 0.6, 0.9, 0.1), (0.9, 0.8, 1.0, 0.0)],
)
def test_bursts_lose_what_gilbert_and_elliott_say(p: float, r: float, bad: float, good: float) -> None:
    made = channel(good_to_bad_ratio=p, bad_to_good_ratio=r, bad_loss_ratio=bad, loss_ratio=good)
    lost = sum(losses(made))
    share = p / (p + r)
    mean, variance = made.expected_loss()
    assert mean == pytest.approx(FRAMES * (share * bad + (1 - share) * good))
    low, high = three_nines(mean, variance)
    assert low <= lost <= high


def test_variance_of_losses_in_bursts_is_that_of_many_channels() -> None:
    """The closed form against repetition: 400 channels of 200 frames."""
    made = [channel(seed, good_to_bad_ratio=0.05, bad_to_good_ratio=0.2) for seed in range(400)]
    counts = [sum(losses(each, 200)) for each in made]
    mean, variance = made[0].expected_loss()
    assert mean == pytest.approx(40.0)
    low, high = three_nines(mean, variance / len(counts))
    assert low <= sum(counts) / len(counts) <= high
    observed = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 0.75 <= observed / variance <= 1.25
    assert variance > 5 * 200 * 0.2 * 0.8  # and a good deal above that of independent losses


@pytest.mark.parametrize(("p", "r"), [(0.01, 0.25), (0.02, 0.5), (0.005, 0.1)])
def test_lengths_of_bursts_are_geometric(p: float, r: float) -> None:
    """Gilbert's model with 1-h = 1 and 1-k = 0: a burst ends with r after each frame, the time between with p."""
    made = channel(good_to_bad_ratio=p, bad_to_good_ratio=r)
    runs = [(lost, len(list(run))) for lost, run in groupby(losses(made))][1:-1]
    for wanted, ends in ((True, r), (False, p)):
        lengths = [length for lost, length in runs if lost is wanted]
        low, high = three_nines(1 / ends, (1 - ends) / ends**2 / len(lengths))
        assert low <= sum(lengths) / len(lengths) <= high
        counted = Counter(lengths)
        for length in (1, 2, 3):
            share = ends * (1 - ends) ** (length - 1)
            low, high = three_nines(len(lengths) * share, len(lengths) * share * (1 - share))
            assert low <= counted[length] <= high


def test_bursts_strike_the_same_numbers_again_whatever_the_names() -> None:
    asked = {"good_to_bad_ratio": 0.05, "bad_to_good_ratio": 0.2}
    first, second = channel(**asked), channel(**asked)
    for number in range(2_000):
        one = first.offer(100, now_ns=number, name=b"%d" % (number % 7))
        two = second.offer(1_000, now_ns=number * 1_000)
        assert (one == LOST) == (two == LOST)


def test_the_bad_state_ends_with_the_bursts() -> None:
    made = channel(good_to_bad_ratio=1.0, bad_to_good_ratio=0.0)
    assert all(losses(made, 10))
    made.change(Impairment())
    assert not any(losses(made, 10))


# Duplicates, reordering, corruption


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.3])
@pytest.mark.parametrize(
    ("name", "bit"), [("duplicate_ratio", DUPLICATED), ("reorder_ratio", REORDERED), ("corrupt_ratio", CORRUPTED)]
)
def test_alterations_are_within_the_binomial_interval(name: str, bit: int, ratio: float) -> None:
    made, altered = channel(**{name: ratio}), 0
    for number in range(FRAMES):
        made.offer(100, now_ns=number)
        assert made.altered in (0, bit)
        altered += made.altered == bit
    low, high = three_nines(FRAMES * ratio, FRAMES * ratio * (1 - ratio))
    assert low <= altered <= high


def test_alterations_are_independent_of_each_other_and_of_loss() -> None:
    ratios = dict.fromkeys(("loss_ratio", "duplicate_ratio", "reorder_ratio", "corrupt_ratio"), 0.5)
    made, found = channel(**ratios), Counter[int]()
    for number in range(16_000):
        lost = made.offer(100, now_ns=number) == LOST
        found[-1 if lost else made.altered] += 1
    assert abs(found.pop(-1) - 8_000) < 4 * math.sqrt(4_000)
    assert len(found) == 8
    assert all(abs(count - 1_000) < 4 * math.sqrt(16_000 / 16 * 15 / 16) for count in found.values())


def test_what_is_reordered_comes_later_and_alone() -> None:
    made = channel(delay_ms=1.0, reorder_ratio=0.3, late_max_ms=5.0)
    for number in range(2_000):
        due_ns, usual_ns = made.offer(100, now_ns=number * 1_000), number * 1_000 + 1_000_000
        if made.altered & REORDERED:
            assert due_ns == usual_ns + made.late_ns
            assert 0 <= made.late_ns < 5_000_000
        else:
            assert due_ns == usual_ns  # nobody waits for it


def test_a_duplicate_comes_within_the_bound_of_the_first() -> None:
    made = channel(delay_ms=1.0, duplicate_ratio=1.0, late_max_ms=5.0)
    later_ms = []
    for number in range(2_000):
        due_ns = made.offer(100, now_ns=number)
        assert due_ns == number + 1_000_000
        later_ms.append((made.copy_due_ns - due_ns) / 1e6)
    assert 0 <= min(later_ms) < 0.1
    assert 4.9 < max(later_ms) < 5.0
    low, high = three_nines(2.5, 25 / 12 / len(later_ms))
    assert low <= sum(later_ms) / len(later_ms) <= high


# Queue in bytes, black hole


def test_a_queue_of_bytes_is_bounded_by_bytes_alone() -> None:
    made = channel(rate_mbps=8.0, queue_bytes=2_500, queue_packets=1)
    assert [made.offer(1_000, now_ns=0) for _ in range(3)] == [1_000_000, 2_000_000, QUEUE_FULL]
    assert made.offer(500, now_ns=0) == 2_500_000  # a shorter one still fits
    assert made.offer(1, now_ns=999_999) == QUEUE_FULL
    assert made.offer(1_000, now_ns=1_000_000) == 3_500_000  # the first has left the line
    idle = channel(rate_mbps=8.0, queue_bytes=100)
    assert idle.offer(1_000, now_ns=0) == 1_000_000  # an idle line takes a frame of any length
    assert idle.offer(10, now_ns=0) == QUEUE_FULL


def test_a_black_hole_swallows_without_using_the_line() -> None:
    made = channel(rate_mbps=8.0, delay_ms=1.0)
    made.blocked = True
    assert [made.offer(1_000, now_ns=0) for _ in range(3)] == [BLOCKED] * 3
    assert (made.frames_offered, made.frames_drawn) == (3, 0)
    made.blocked = False
    assert made.offer(1_000, now_ns=0) == 2_000_000
