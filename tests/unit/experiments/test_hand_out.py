from __future__ import annotations

from itertools import islice

from experiments.hand_out import CHUNK, HandOut, Share, requests
from experiments.spec_workloads import ConstantWorkload, MediaWorkload, ObjectsWorkload, Workload
from experiments.workloads import (
    Entry,
    ScheduledObject,
    ScheduledPresence,
    ScheduledStream,
    ScheduledUpdate,
    timeline,
)


def test_shares_follow_each_other_without_gap_or_overlap() -> None:
    def entries() -> list[Entry]:
        workload = ConstantWorkload(rate_per_s=3.0)
        return list(timeline([workload], devices=["ue1", "ue2"], duration_s=20.0, seed=1))

    hand_out = HandOut(iter(entries()))
    handed: list[tuple[str, ScheduledUpdate]] = []
    for until_s in range(1, 21):
        assert not hand_out.is_over
        share = hand_out.take_until(until_s)
        assert share.size == sum(map(len, share.updates.values()))
        for device, updates in share.updates.items():
            assert all(until_s - 1 <= update.at_s < until_s for update in updates)
            handed += [(device, update) for update in updates]
    assert hand_out.is_over
    assert sorted(handed, key=repr) == sorted(((entry.device, entry.what) for entry in entries()), key=repr)


def test_nothing_is_read_before_it_is_needed() -> None:
    read = 0

    def endless() -> object:
        nonlocal read
        while True:
            read += 1
            yield Entry("ue1", ScheduledUpdate(float(read), "message", 1))

    hand_out = HandOut(endless())  # type: ignore[arg-type]
    assert hand_out.take_until(10.0).size == 9
    assert read == 10


def test_requests_are_in_chunks_and_times_on_the_runs_clock() -> None:
    share = Share()
    for number in range(CHUNK + 1):
        share.add(Entry("ue1", ScheduledUpdate(number / 1e4, "message", "hello" if number == 0 else 5)))
    share.add(Entry("ue2", ScheduledObject(1.0, 9)))
    share.add(Entry("ue2", ScheduledStream(2.0, 50, 160, 0.02, 0.15)))
    share.add(Entry("ue3", ScheduledPresence(3.0, there=True)))
    told = list(requests(share, 100.0))
    assert [(device, op) for device, op, _ in told] == [
        ("ue1", "schedule"), ("ue1", "schedule"), ("ue2", "schedule-objects"), ("ue2", "schedule-objects"),
    ]  # fmt: skip
    assert told[0][2]["updates"][0] == (100.0, "message", "hello")
    assert [len(arguments["updates"]) for _, _, arguments in told[:2]] == [CHUNK, 1]
    assert told[2][2] == {"objects": [(101.0, 9)]}
    assert told[3][2] == {"streams": [(102.0, 50, 160, 0.02, 0.15)]}
    assert share.presence == [("ue3", ScheduledPresence(3.0, there=True))]


def test_a_day_of_a_thousand_devices_is_not_made_before_it_is_read() -> None:
    devices = [f"ue{number}" for number in range(1_000)]
    workloads: list[Workload] = [
        ConstantWorkload(rate_per_s=10.0),
        ObjectsWorkload(size_bytes=9, every_s=0.1),
        MediaWorkload(frames_per_s=9, frame_bytes=9),
    ]
    day = timeline(workloads, devices=devices, duration_s=86_400.0, seed=1)
    first = list(islice(day, 10))
    assert all(entry.what.at_s < 0.1 for entry in first)
