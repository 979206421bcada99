"""The channel core against a slow second model, and what must hold whatever enters and whenever."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from testbed.links.channel import DUPLICATED, LOST, QUEUE_FULL, REORDERED, Channel
from testbed.links.model import Impairment

FRAME_BYTES = st.integers(42, 1_514)
GAP_NS = st.integers(0, 3_000_000)
FRAMES = st.lists(st.tuples(GAP_NS, FRAME_BYTES), min_size=1, max_size=80)
IMPAIRMENTS = st.builds(
    Impairment,
    delay_ms=st.integers(0, 40).map(lambda quarters: quarters / 4),
    jitter_ms=st.sampled_from([0.0, 0.0, 2.5]),
    good_to_bad_ratio=st.sampled_from([0.0, 0.0, 0.2]),
    bad_to_good_ratio=st.just(0.3),
    loss_ratio=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    rate_mbps=st.sampled_from([None, 1.0, 10.0, 97.3]),
    queue_packets=st.integers(1, 12),
)
#: With what lets frames overtake each other as well.
DISORDERLY = st.builds(
    Impairment,
    delay_ms=st.sampled_from([0.0, 3.0]),
    jitter_ms=st.sampled_from([0.0, 2.5]),
    jitter_distribution=st.sampled_from(["uniform", "normal"]),
    jitter_keeps_order=st.booleans(),
    loss_ratio=st.sampled_from([0.0, 0.3]),
    rate_mbps=st.sampled_from([None, 10.0]),
    queue_packets=st.integers(1, 12),
    queue_bytes=st.sampled_from([None, None, 100, 5_000]),
    duplicate_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    reorder_ratio=st.sampled_from([0.0, 0.5]),
    corrupt_ratio=st.sampled_from([0.0, 0.5]),
    late_max_ms=st.sampled_from([0.0, 4.0]),
)


def channel(impairment: Impairment, *, seed: int = 7, link: str = "a-b") -> Channel:
    return Channel(impairment, seed=seed, link=link, direction="a_to_b")


@dataclass
class Passed:
    now_ns: int
    length_bytes: int
    result_ns: int


def offered(made: Channel, frames: list[tuple[int, int]], *, start_ns: int = 0) -> list[Passed]:
    history, now_ns = [], start_ns
    for gap_ns, length_bytes in frames:
        now_ns += gap_ns
        history.append(Passed(now_ns, length_bytes, made.offer(length_bytes, now_ns=now_ns)))
    return history


def sending_ns(length_bytes: int, rate_mbps: float) -> float:
    return length_bytes * 8 / (rate_mbps * 1e6) * 1e9


@given(IMPAIRMENTS, FRAMES)
def test_no_frame_is_early_and_none_overtakes(impairment: Impairment, frames: list[tuple[int, int]]) -> None:
    arrived = [passed for passed in offered(channel(impairment), frames) if passed.result_ns >= 0]
    for passed in arrived:
        assert passed.result_ns - passed.now_ns >= impairment.delay_ms * 1e6
    dues = [passed.result_ns for passed in arrived]
    assert dues == sorted(dues)


@given(st.lists(st.tuples(DISORDERLY, FRAMES), min_size=1, max_size=4), st.booleans())
def test_time_never_goes_back_and_order_is_kept_where_asked(
    phases: list[tuple[Impairment, list[tuple[int, int]]]],
    named: bool,  # noqa: FBT001
) -> None:
    """Through live changes: nothing leaves before it came; only what is reordered, or comes twice, is out of order."""
    made, now_ns, latest_ns = channel(phases[0][0]), 0, 0
    for impairment, frames in phases:
        made.change(impairment)
        for gap_ns, length_bytes in frames:
            now_ns += gap_ns
            due_ns = made.offer(length_bytes, now_ns=now_ns, name=b"name" if named else b"")
            if due_ns < 0:
                assert due_ns in (LOST, QUEUE_FULL)
                continue
            late_ns = made.late_ns if made.altered & REORDERED else 0
            least_ns = impairment.delay_ms * 1e6 if impairment.jitter_distribution == "uniform" else 0.0
            assert due_ns - late_ns >= now_ns + least_ns
            assert 0 <= late_ns <= impairment.late_max_ms * 1e6
            if made.altered & DUPLICATED:
                assert due_ns <= made.copy_due_ns <= due_ns + impairment.late_max_ms * 1e6
            if impairment.jitter_keeps_order:
                assert due_ns - late_ns >= latest_ns
            latest_ns = max(latest_ns, due_ns - late_ns)


@given(IMPAIRMENTS, st.lists(st.tuples(IMPAIRMENTS, FRAMES), min_size=1, max_size=4), FRAMES)
def test_order_and_least_delay_hold_through_live_changes(
    first: Impairment, changes: list[tuple[Impairment, list[tuple[int, int]]]], frames: list[tuple[int, int]]
) -> None:
    made = channel(first)
    history = offered(made, frames)
    latest_ns = max(passed.result_ns for passed in history)
    for impairment, more in changes:
        made.change(impairment)
        history = offered(made, more, start_ns=history[-1].now_ns)
        for passed in history:
            if passed.result_ns >= 0:
                assert passed.result_ns >= max(latest_ns, passed.now_ns + impairment.delay_ms * 1e6)
                latest_ns = passed.result_ns


@given(st.sampled_from([0.0, 2.5]), st.integers(0, 40), FRAMES)
def test_without_rate_the_delay_is_configured_plus_at_most_the_jitter(
    jitter_ms: float, delay_ms: int, frames: list[tuple[int, int]]
) -> None:
    # Exactly, but for order: a frame that jitter made slow holds up those behind it, for no longer than it takes itself.
    for passed in offered(channel(Impairment(delay_ms=delay_ms, jitter_ms=jitter_ms)), frames):
        assert delay_ms * 1e6 <= passed.result_ns - passed.now_ns <= (delay_ms + jitter_ms) * 1e6


@given(IMPAIRMENTS.filter(lambda impairment: impairment.rate_mbps is not None), FRAMES)
def test_queue_and_line_are_those_of_a_fluid_model(impairment: Impairment, frames: list[tuple[int, int]]) -> None:
    # The second model: when each accepted frame has left the line, in real numbers, the whole history looked through.
    rate_mbps = impairment.rate_mbps
    assert rate_mbps is not None
    left_ns: list[float] = []
    made = channel(Impairment(rate_mbps=rate_mbps, queue_packets=impairment.queue_packets, delay_ms=5.0))
    for passed in offered(made, frames):
        rounding_ns = len(left_ns) + 1  # half a nanosecond a frame, and then some
        surely_waiting = sum(time_ns > passed.now_ns + rounding_ns for time_ns in left_ns)
        maybe_waiting = sum(time_ns > passed.now_ns - rounding_ns for time_ns in left_ns)
        if passed.result_ns == QUEUE_FULL:
            assert maybe_waiting >= impairment.queue_packets
            continue
        assert surely_waiting < impairment.queue_packets
        free_ns = max(left_ns[-1] if left_ns else 0.0, float(passed.now_ns))
        left_ns.append(free_ns + sending_ns(passed.length_bytes, rate_mbps))
        assert abs(passed.result_ns - 5e6 - left_ns[-1]) <= rounding_ns


@given(st.lists(FRAME_BYTES, min_size=1, max_size=200), st.floats(0.1, 1_000.0))
def test_back_to_back_frames_leave_at_the_rate(lengths: list[int], rate_mbps: float) -> None:
    made = channel(Impairment(rate_mbps=rate_mbps, queue_packets=len(lengths)))
    history = offered(made, [(0, length) for length in lengths], start_ns=1_000)
    took_ns = history[-1].result_ns - 1_000
    assert abs(took_ns - sending_ns(sum(lengths), rate_mbps)) <= len(lengths)


@given(
    st.integers(), st.sampled_from([0.02, 0.3, 0.9]), IMPAIRMENTS, FRAMES, st.lists(GAP_NS, min_size=80, max_size=80)
)
def test_what_is_lost_depends_on_seed_and_number_alone(
    seed: int, loss_ratio: float, other: Impairment, frames: list[tuple[int, int]], gaps_ns: list[int]
) -> None:
    """Timing, length, delay and jitter do not matter; a frame that finds the queue full is dropped for that instead."""
    plain = offered(channel(Impairment(loss_ratio=loss_ratio), seed=seed), frames)
    impaired = Impairment(
        delay_ms=other.delay_ms,
        jitter_ms=other.jitter_ms,
        rate_mbps=other.rate_mbps,
        queue_packets=other.queue_packets,
        loss_ratio=loss_ratio,
    )
    retimed = [(gap_ns, 100) for gap_ns, _ in zip(gaps_ns, frames, strict=False)]
    for first, second in zip(plain, offered(channel(impaired, seed=seed), retimed), strict=True):
        assert second.result_ns == QUEUE_FULL or (first.result_ns == LOST) == (second.result_ns == LOST)


@given(st.integers(), st.sampled_from([(0.0, 0.02), (0.02, 0.3), (0.3, 1.0)]), FRAMES)
def test_a_higher_loss_ratio_loses_the_same_frames_and_more(
    seed: int, ratios: tuple[float, float], frames: list[tuple[int, int]]
) -> None:
    lower, higher = (offered(channel(Impairment(loss_ratio=ratio), seed=seed), frames) for ratio in ratios)
    assert all(high.result_ns == LOST for low, high in zip(lower, higher, strict=True) if low.result_ns == LOST)


@given(IMPAIRMENTS, FRAMES)
def test_a_cut_forgets_queue_and_order_but_not_the_numbers(
    impairment: Impairment, frames: list[tuple[int, int]]
) -> None:
    made = channel(impairment)
    now_ns = offered(made, frames)[-1].now_ns
    made.cut()
    assert made.refuse() == len(frames)
    made.change(Impairment(delay_ms=1.0))
    assert made.offer(100, now_ns=now_ns) == now_ns + 1_000_000
    assert made.frames_offered == len(frames) + 2
