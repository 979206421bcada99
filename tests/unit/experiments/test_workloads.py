from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.spec_schema import (
    ConstantWorkload,
    MediaWorkload,
    ObjectsWorkload,
    OnceWorkload,
    PoissonWorkload,
    Workload,
)
from experiments.workloads import (
    UPDATES_MAX,
    ScheduledObject,
    ScheduledStream,
    ScheduledUpdate,
    check_size,
    data_schedules,
    schedules,
)
from topologies.errors import InputError

POISSON = PoissonWorkload(rate_per_s=5.0)
CONSTANT = ConstantWorkload(rate_per_s=2.0, event="stroke", size_bytes=7, start_s=1.0, stop_s=4.0)


def test_the_same_seed_gives_the_same_schedule_and_another_another() -> None:
    once = schedules([POISSON], devices=["ue1", "ue2"], duration_s=10, seed=7)
    assert once == schedules([POISSON], devices=["ue1", "ue2"], duration_s=10, seed=7)
    assert once != schedules([POISSON], devices=["ue1", "ue2"], duration_s=10, seed=8)
    assert once["ue1"] != once["ue2"]


def test_a_device_or_a_workload_more_moves_nobody_elses_updates() -> None:
    few = schedules([POISSON], devices=["ue1"], duration_s=10, seed=7)
    more = schedules([POISSON, CONSTANT], devices=["ue0", "ue1"], duration_s=10, seed=7)
    assert [update for update in more["ue1"] if update.event == "message"] == list(few["ue1"])


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    short = schedules([POISSON], devices=["ue1"], duration_s=10, seed=7)["ue1"]
    assert schedules([POISSON], devices=["ue1"], duration_s=20, seed=7)["ue1"][: len(short)] == short


def test_constant_has_equal_gaps_and_keeps_to_its_time() -> None:
    updates = schedules([CONSTANT], devices=["ue1"], duration_s=10, seed=7)["ue1"]
    assert len(updates) == 6
    assert all(1.0 <= update.at_s < 4.0 for update in updates)
    assert all(after.at_s - before.at_s == pytest.approx(0.5) for before, after in pairwise(updates))
    assert {(update.event, update.size_bytes) for update in updates} == {("stroke", 7)}


def test_poisson_has_its_rate_and_exponential_gaps() -> None:
    updates = schedules([POISSON], devices=["ue1"], duration_s=2_000, seed=7)["ue1"]
    gaps_s = [after.at_s - before.at_s for before, after in pairwise(updates)]
    mean_s = sum(gaps_s) / len(gaps_s)
    # 10,000 gaps: the mean is within 4 standard errors, the part of gaps above the mean within 4 of exp(-1).
    assert mean_s == pytest.approx(0.2, abs=4 * 0.2 / 100)
    assert sum(gap_s > mean_s for gap_s in gaps_s) / len(gaps_s) == pytest.approx(math.exp(-1), abs=4 * 0.5 / 100)


def test_only_the_publishers_publish() -> None:
    workload = PoissonWorkload(rate_per_s=5.0, publishers=("ue2",))
    wanted = schedules([workload], devices=["ue1", "ue2"], duration_s=10, seed=7)
    assert wanted["ue1"] == ()
    assert wanted["ue2"]


def test_what_is_published_once_stands_among_the_others_and_moves_none_of_them() -> None:
    hello = OnceWorkload(at_s=1.5, text="grüß", publishers=("ue2",))
    both = OnceWorkload(at_s=0.5, event="stroke", size_bytes=7)
    late = OnceWorkload(at_s=10.0)
    wanted = schedules([POISSON, hello, both, late], devices=["ue1", "ue2"], duration_s=10, seed=7)
    alone = schedules([POISSON], devices=["ue1", "ue2"], duration_s=10, seed=7)
    assert set(wanted["ue2"]) - set(alone["ue2"]) == {
        ScheduledUpdate(1.5, "message", "grüß"),
        ScheduledUpdate(0.5, "stroke", 7),
    }
    assert set(wanted["ue1"]) - set(alone["ue1"]) == {ScheduledUpdate(0.5, "stroke", 7)}
    assert ScheduledUpdate(1.5, "message", "grüß").size_bytes == 6


def test_objects_and_streams_have_a_schedule_of_their_own() -> None:
    once = ObjectsWorkload(size_bytes=1_000, start_s=2.0, publishers=("ue1",))
    often = ObjectsWorkload(size_bytes=9, start_s=1.0, every_s=3.0, stop_s=10.0)
    media = MediaWorkload(frames_per_s=50, frame_bytes=160, start_s=5.0, deadline_ms=120, publishers=("ue2",))
    workloads: list[Workload] = [once, POISSON, often, media]
    wanted = data_schedules(workloads, devices=["ue1", "ue2"], duration_s=8.0)
    assert wanted["ue1"] == (
        ScheduledObject(2.0, 1_000),
        ScheduledObject(1.0, 9),
        ScheduledObject(4.0, 9),
        ScheduledObject(7.0, 9),
    )
    assert wanted["ue2"][-1] == ScheduledStream(5.0, 150, 160, 0.02, 0.12)
    updates = schedules(workloads, devices=["ue1", "ue2"], duration_s=8.0, seed=7)
    assert {update.event for update in updates["ue1"]} == {"message"}
    check_size(workloads, devices=["ue1"], duration_s=8.0, where="a.toml")


@given(
    rate_per_s=st.floats(0.01, 50.0),
    start_s=st.floats(0.0, 20.0),
    duration_s=st.floats(0.1, 20.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_schedule_is_sorted_and_inside_the_run(
    rate_per_s: float, start_s: float, duration_s: float, seed: int
) -> None:
    workloads = [kind(rate_per_s=rate_per_s, start_s=start_s) for kind in (PoissonWorkload, ConstantWorkload)]
    updates = schedules(workloads, devices=["ue1"], duration_s=duration_s, seed=seed)["ue1"]
    assert [update.at_s for update in updates] == sorted(update.at_s for update in updates)
    assert all(start_s <= update.at_s < duration_s for update in updates)
    assert all(isinstance(update, ScheduledUpdate) for update in updates)


def test_more_updates_than_can_be_held_are_refused() -> None:
    with pytest.raises(InputError, match=r"x\.toml: \[\[workload\]\]: about 2e\+07 updates .*fix: lower rate_per_s"):
        check_size(
            [PoissonWorkload(rate_per_s=2.0)], devices=["u"] * 1000, duration_s=UPDATES_MAX / 1000, where="x.toml"
        )
    check_size([PoissonWorkload(rate_per_s=0.5)], devices=["u"] * 1000, duration_s=UPDATES_MAX / 1000, where="x.toml")
