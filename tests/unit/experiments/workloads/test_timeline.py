from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.spec_schema import AttendanceSection
from experiments.spec_workloads import (
    ConstantWorkload,
    DiurnalWorkload,
    FlashCrowdWorkload,
    MediaWorkload,
    ObjectsWorkload,
    OnceWorkload,
    OnOffWorkload,
    PoissonWorkload,
    PresenterWorkload,
    WhiteboardWorkload,
    Workload,
)
from experiments.workloads import (
    UPDATES_MAX,
    Scheduled,
    ScheduledObject,
    ScheduledPresence,
    ScheduledStream,
    ScheduledUpdate,
    check_size,
    timeline,
)
from topologies.errors import InputError

POISSON = PoissonWorkload(rate_per_s=5.0)
CONSTANT = ConstantWorkload(rate_per_s=2.0, event="stroke", size_bytes=7, start_s=1.0, stop_s=4.0)


def schedules(
    workloads: Sequence[Workload],
    *,
    devices: Sequence[str] = ("ue1",),
    duration_s: float = 10,
    seed: int = 7,
    attendance: Sequence[AttendanceSection] = (),
) -> dict[str, list[Scheduled]]:
    """Return what each device does, in the order of time."""
    wanted: dict[str, list[Scheduled]] = {device: [] for device in devices}
    entries = list(timeline(workloads, devices=devices, duration_s=duration_s, seed=seed, attendance=attendance))
    assert [entry.what.at_s for entry in entries] == sorted(entry.what.at_s for entry in entries)
    for entry in entries:
        wanted[entry.device].append(entry.what)
    return wanted


def times_s(workload: Workload, *, duration_s: float, seed: int = 7) -> list[float]:
    return [what.at_s for what in schedules([workload], duration_s=duration_s, seed=seed)["ue1"]]


def test_the_same_seed_gives_the_same_schedule_and_another_another() -> None:
    once = schedules([POISSON], devices=["ue1", "ue2"])
    assert once == schedules([POISSON], devices=["ue1", "ue2"])
    assert once != schedules([POISSON], devices=["ue1", "ue2"], seed=8)
    assert once["ue1"] != once["ue2"]


def test_a_device_or_a_workload_more_moves_nobody_elses_updates() -> None:
    few = schedules([POISSON])
    more = schedules([POISSON, CONSTANT], devices=["ue0", "ue1"])
    messages = [what for what in more["ue1"] if isinstance(what, ScheduledUpdate) and what.event == "message"]
    assert messages == few["ue1"]


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    short = schedules([POISSON])["ue1"]
    assert schedules([POISSON], duration_s=20)["ue1"][: len(short)] == short


def test_constant_has_equal_gaps_and_keeps_to_its_time() -> None:
    updates = schedules([CONSTANT])["ue1"]
    assert len(updates) == 6
    assert all(1.0 <= update.at_s < 4.0 for update in updates)
    assert all(after.at_s - before.at_s == pytest.approx(0.5) for before, after in pairwise(updates))
    assert all(isinstance(update, ScheduledUpdate) and update.event == "stroke" for update in updates)
    assert {update.size_bytes for update in updates if isinstance(update, ScheduledUpdate)} == {7}


def test_poisson_has_its_rate_and_exponential_gaps() -> None:
    gaps_s = [after - before for before, after in pairwise(times_s(POISSON, duration_s=2_000))]
    mean_s = sum(gaps_s) / len(gaps_s)
    # 10,000 gaps: the mean is within 4 standard errors, the part of gaps above the mean within 4 of exp(-1).
    assert mean_s == pytest.approx(0.2, abs=4 * 0.2 / 100)
    assert sum(gap_s > mean_s for gap_s in gaps_s) / len(gaps_s) == pytest.approx(math.exp(-1), abs=4 * 0.5 / 100)


@pytest.mark.parametrize("law", ["constant", "exponential", "lognormal"])
def test_on_off_is_on_for_its_part_of_the_time_and_publishes_in_bursts(law: str) -> None:
    workload = OnOffWorkload(rate_per_s=20, on_s=1.0, off_s=3.0, law=law)  # type: ignore[arg-type]
    at_s = times_s(workload, duration_s=8_000)
    # 2,000 bursts of 20 updates in the mean; a burst's length varies by 1.31 of itself at most (log-normal, sigma 1).
    assert len(at_s) / 8_000 == pytest.approx(5.0, rel=0.15)
    silences = sum(after - before > 1.0 for before, after in pairwise(at_s))
    assert silences == pytest.approx(2_000, rel=0.45)


def test_on_off_sources_are_on_at_the_start_as_often_as_later() -> None:
    devices = [f"ue{number}" for number in range(1, 1_001)]
    workload = OnOffWorkload(rate_per_s=100, on_s=1.0, off_s=3.0)
    begun = [bool(whats) for whats in schedules([workload], devices=devices, duration_s=0.05).values()]
    # Off at 0, a source comes on within 50 ms with a probability of 1.7 %; on, it publishes then with one of 99 %.
    assert sum(begun) / 1_000 == pytest.approx(0.25, abs=0.06)


def test_a_flash_crowd_rises_holds_and_decays() -> None:
    workload = FlashCrowdWorkload(rate_per_s=20, peak_rate_per_s=2_000, peak_at_s=30, rise_s=10, hold_s=5, decay_s=10)
    counts = Counter(int(at_s) for at_s in times_s(workload, duration_s=100))
    assert sum(counts[second] for second in range(20)) == pytest.approx(400, abs=80)  # 20/s, 4 standard deviations
    assert counts[25] == pytest.approx(20 + 0.55 * 1_980, rel=0.15)  # half way up: the mean of 25 to 26
    assert counts[32] == pytest.approx(2_000, rel=0.1)
    assert counts[45] == pytest.approx(
        20 + 1_980 * 0.3507, rel=0.2
    )  # one time constant after the end of the peak: mean of e^-1 to e^-1.1
    assert sum(counts[second] for second in range(90, 100)) == pytest.approx(
        200 + 19_800 * math.exp(-5.5) * 1.0, rel=0.35
    )


def test_a_day_has_a_peak_and_a_valley() -> None:
    workload = DiurnalWorkload(rate_per_s=50, day_s=100, peak_at_s=25, swing_ratio=0.8)
    at_s = times_s(workload, duration_s=1_000)
    assert len(at_s) / 1_000 == pytest.approx(50, rel=0.03)
    near_peak = sum(abs(at % 100 - 25) < 5 for at in at_s) / 100
    near_valley = sum(abs(at % 100 - 75) < 5 for at in at_s) / 100
    assert near_peak == pytest.approx(90, rel=0.1)
    assert near_valley == pytest.approx(10, rel=0.25)


def test_a_whiteboard_has_strokes_and_pauses() -> None:
    workload = WhiteboardWorkload(pause_s=2.0, stroke_updates=12, updates_per_s=20)
    updates = schedules([workload], duration_s=4_000)["ue1"]
    assert {what.event for what in updates if isinstance(what, ScheduledUpdate)} == {"stroke"}
    gaps_s = [after.at_s - before.at_s for before, after in pairwise(updates)]
    within = [gap_s for gap_s in gaps_s if gap_s == pytest.approx(0.05)]
    strokes = len(gaps_s) - len(within)
    assert strokes == pytest.approx(4_000 / (2.0 + 11 / 20), rel=0.1)
    assert len(updates) / strokes == pytest.approx(12, rel=0.1)


def test_zipf_gives_few_talkers_most_of_it_and_keeps_the_mean() -> None:
    devices = [f"ue{number}" for number in range(1, 101)]
    talkers = ConstantWorkload(rate_per_s=10, zipf_exponent=1.0)
    wanted = schedules([talkers], devices=devices, duration_s=100)
    counts = sorted((len(whats) for whats in wanted.values()), reverse=True)
    assert sum(counts) == pytest.approx(100_000, rel=0.01)
    # H(100) = 5.187: the first has 100/5.187 of the mean, the second half of it, the tenth a tenth.
    assert counts[0] == pytest.approx(1_000 * 100 / 5.187, rel=0.01)
    assert counts[1] == pytest.approx(counts[0] / 2, rel=0.01)
    assert counts[9] == pytest.approx(counts[0] / 10, rel=0.01)
    loudest = {
        seed: max(devices, key=lambda ue: len(who[ue]))
        for seed in (7, 8, 9)
        for who in [schedules([talkers], devices=devices, seed=seed)]
    }
    assert len(set(loudest.values())) > 1, "who talks most is drawn, not the first of the list"


def test_only_the_publishers_publish() -> None:
    wanted = schedules([PoissonWorkload(rate_per_s=5.0, publishers=("ue2",))], devices=["ue1", "ue2"])
    assert wanted["ue1"] == []
    assert wanted["ue2"]


def test_once_is_one_update_at_its_moment() -> None:
    said = OnceWorkload(at_s=3.0, text="Grüße", publishers=("ue2",))
    wanted = schedules([said, OnceWorkload(at_s=20.0)], devices=["ue1", "ue2"])
    assert wanted == {"ue1": [], "ue2": [ScheduledUpdate(3.0, "message", "Grüße")]}


def test_objects_and_streams_stand_among_the_updates() -> None:
    once = ObjectsWorkload(size_bytes=1_000, start_s=2.0, publishers=("ue1",))
    often = ObjectsWorkload(size_bytes=9, start_s=1.0, every_s=3.0, stop_s=10.0)
    media = MediaWorkload(frames_per_s=50, frame_bytes=160, start_s=5.0, deadline_ms=120, publishers=("ue2",))
    workloads: list[Workload] = [once, POISSON, often, media]
    wanted = schedules(workloads, devices=["ue1", "ue2"], duration_s=8.0)
    objects = [what for what in wanted["ue1"] if isinstance(what, ScheduledObject)]
    assert objects == [
        ScheduledObject(1.0, 9),
        ScheduledObject(2.0, 1_000),
        ScheduledObject(4.0, 9),
        ScheduledObject(7.0, 9),
    ]
    assert [what for what in wanted["ue2"] if isinstance(what, ScheduledStream)] == [
        ScheduledStream(5.0, 150, 160, 0.02, 0.12)
    ]
    assert any(isinstance(what, ScheduledUpdate) for what in wanted["ue1"])
    check_size(workloads, devices=["ue1"], duration_s=8.0, where="a.toml")


def test_a_presenter_shows_slides_of_different_sizes() -> None:
    talk = PresenterWorkload(slide_s=10.0, size_bytes=100_000, start_s=1.0)
    slides = [what for what in schedules([talk], duration_s=5_000)["ue1"] if isinstance(what, ScheduledObject)]
    assert slides[0].at_s == 1.0
    assert len(slides) == pytest.approx(500, rel=0.3)
    assert sum(slide.size_bytes for slide in slides) / len(slides) == pytest.approx(100_000, rel=0.3)
    assert len({slide.size_bytes for slide in slides}) > 400
    few = PresenterWorkload(slide_s=1.0, slides=3)
    assert len(schedules([few], duration_s=5_000)["ue1"]) == 3


def test_churn_has_sessions_and_absences_of_their_mean_length() -> None:
    churn = AttendanceSection(devices=("ue1",), session_s=20.0, away_s=5.0)
    presences = schedules([], duration_s=50_000, attendance=[churn])["ue1"]
    assert [what.there for what in presences[:4] if isinstance(what, ScheduledPresence)] == [False, True, False, True]
    away_s = sum(after.at_s - before.at_s for before, after in list(pairwise(presences))[::2])
    assert away_s / 50_000 == pytest.approx(0.2, abs=0.03)
    assert len(presences) / 2 == pytest.approx(2_000, rel=0.1)


def test_churn_begins_when_the_device_joins_and_ends_when_it_leaves_for_good() -> None:
    churn = AttendanceSection(devices=("ue1",), join_at_s=10.0, leave_at_s=60.0, session_s=5.0, away_s=5.0)
    for seed in range(20):
        presences = schedules([], duration_s=100, attendance=[churn], seed=seed)["ue1"]
        assert presences[0] == ScheduledPresence(10.0, there=True)
        assert presences[-1].at_s <= 60.0
        assert isinstance(presences[-1], ScheduledPresence)
        assert not presences[-1].there
        assert [what.there for what in presences if isinstance(what, ScheduledPresence)] == [
            number % 2 == 0 for number in range(len(presences))
        ]


def test_a_session_without_return_is_the_last() -> None:
    leaves = AttendanceSection(devices=("ue1",), session_s=5.0)
    presences = schedules([], duration_s=1_000, attendance=[leaves])["ue1"]
    assert [what.there for what in presences if isinstance(what, ScheduledPresence)] == [False]


def test_who_is_away_publishes_nothing() -> None:
    churn = AttendanceSection(devices=("ue1",), join_at_s=2.0, session_s=4.0, away_s=4.0)
    there = False
    published = 0
    for what in schedules([POISSON], duration_s=200, attendance=[churn])["ue1"]:
        if isinstance(what, ScheduledPresence):
            there = what.there
        else:
            assert there
            published += 1
    assert published == pytest.approx(500, rel=0.4)


KINDS: list[type[Workload]] = [
    PoissonWorkload,
    ConstantWorkload,
    OnOffWorkload,
    FlashCrowdWorkload,
    DiurnalWorkload,
    WhiteboardWorkload,
    ObjectsWorkload,
    PresenterWorkload,
    MediaWorkload,
]
start = st.floats(0.0, 20.0)
rate = st.floats(0.05, 20.0)
laws = st.sampled_from(["constant", "exponential", "lognormal", "pareto"])
spans = st.floats(0.05, 10.0)
anything = st.one_of(
    st.builds(PoissonWorkload, rate_per_s=rate, start_s=start, zipf_exponent=st.none() | st.floats(0, 3)),
    st.builds(ConstantWorkload, rate_per_s=rate, start_s=start, zipf_exponent=st.none() | st.floats(0, 3)),
    st.builds(OnOffWorkload, rate_per_s=rate, start_s=start, on_s=spans, off_s=spans, law=laws),
    st.builds(
        FlashCrowdWorkload, rate_per_s=rate, start_s=start, peak_rate_per_s=st.floats(20.0, 60.0), peak_at_s=start,
        rise_s=spans, hold_s=spans, decay_s=spans,
    ),
    st.builds(DiurnalWorkload, rate_per_s=rate, start_s=start, day_s=spans, swing_ratio=st.floats(0, 1)),
    st.builds(WhiteboardWorkload, pause_s=spans, start_s=start, stroke_updates=st.floats(1, 30)),
    st.builds(ObjectsWorkload, size_bytes=st.just(9), every_s=st.none() | spans, start_s=start),
    st.builds(PresenterWorkload, slide_s=spans, law=laws, start_s=start),
    st.builds(MediaWorkload, frames_per_s=st.floats(0.1, 100), frame_bytes=st.just(9), start_s=start),
)  # fmt: skip
sections = st.builds(
    AttendanceSection,
    devices=st.just(("ue2", "ue3")),
    join_at_s=st.none() | st.floats(0, 5),
    session_s=st.floats(0.5, 10.0),
    away_s=st.none() | st.floats(0.5, 10.0),
    law=laws,
)


@settings(max_examples=150)
@given(
    st.lists(anything, max_size=3),
    st.lists(sections, max_size=1),
    st.floats(0.1, 15.0),
    st.integers(0, 2**63 - 1),
    st.data(),
)
def test_a_schedule_follows_from_the_seed_whatever_else_there_is(
    workloads: list[Workload],
    attendance: list[AttendanceSection],
    duration_s: float,
    seed: int,
    data: st.DataObject,
) -> None:
    """Sorted, inside the run, the same when it is read anew; and what is added behind it moves nothing of it."""
    devices = ["ue1", "ue2", "ue3"]
    wanted = schedules(workloads, devices=devices, duration_s=duration_s, seed=seed, attendance=attendance)
    for device, whats in wanted.items():
        assert device in devices
        assert all(0 <= what.at_s < duration_s for what in whats)
    again = schedules(workloads, devices=devices, duration_s=duration_s, seed=seed, attendance=attendance)
    assert wanted == again
    more = schedules(
        [*workloads, data.draw(anything)], devices=devices, duration_s=duration_s, seed=seed, attendance=attendance
    )
    for device in devices:
        rest = Counter(map(repr, more[device]))
        rest.subtract(map(repr, wanted[device]))
        assert all(count >= 0 for count in rest.values())
    if not any(getattr(workload, "zipf_exponent", None) is not None for workload in workloads):
        with_another = schedules(
            workloads, devices=[*devices, "ue4"], duration_s=duration_s, seed=seed, attendance=attendance
        )
        assert {device: with_another[device] for device in devices} == wanted


def test_what_nobody_can_have_meant_is_refused() -> None:
    with pytest.raises(InputError, match=r"x\.toml: \[\[workload\]\]: about 2e\+07 updates .*fix: lower rate_per_s"):
        check_size(
            [PoissonWorkload(rate_per_s=2.0)], devices=["u"] * 1000, duration_s=UPDATES_MAX / 1000, where="x.toml"
        )
    check_size([PoissonWorkload(rate_per_s=0.5)], devices=["u"] * 1000, duration_s=UPDATES_MAX / 1000, where="x.toml")
