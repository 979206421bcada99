"""Applied updates as columns: they read like the records that went in, in the order of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from experiments.applied import VIAS, AppliedCollector, AppliedUpdates
from proxy.records import Applied, SnapshotApplied

names = st.sampled_from(["ue1", "ue2", "ue3"])
times_s = st.integers(0, 5).map(float)
applied = st.builds(
    Applied, times_s, st.sampled_from(["main", "other"]), names, names, st.integers(1, 2), st.integers(1, 4),
    st.sampled_from(VIAS), st.sampled_from(["ab", "cd"]),
)  # fmt: skip
snapshot = st.builds(SnapshotApplied, times_s, st.just("main"), names, st.just([("ue1", 1, 1)]))


@given(st.lists(st.one_of(applied, snapshot)))
def test_columns_hold_what_went_in_and_snapshots_keep_their_place(records: list[Applied | SnapshotApplied]) -> None:
    collector = AppliedCollector()
    assert collector.add(records) == [record for record in records if isinstance(record, SnapshotApplied)]
    updates, snapshots, places = collector.sorted()
    merged: list[Applied | SnapshotApplied] = list(updates)
    for one, place in reversed(list(zip(snapshots, places, strict=True))):
        merged.insert(place, one)
    assert merged == sorted(records, key=lambda record: record.t_s)


@given(st.lists(applied))
def test_each_reader_has_its_own_and_each_update_its_code(records: list[Applied]) -> None:
    records.sort(key=lambda record: record.t_s)
    updates = AppliedUpdates.of(records)
    assert AppliedUpdates.of(updates) is updates
    by_reader = {reader: [updates[place] for place in places.tolist()] for reader, places in updates.by_reader()}
    expected: dict[tuple[str, str], list[Applied]] = {}
    for record in records:
        expected.setdefault((record.conference, record.receiver), []).append(record)
    assert list(by_reader.items()) == list(expected.items())
    ids = list(updates.updates)
    assert [ids[code] for code in updates.update_codes().tolist()] == [
        (record.conference, record.publisher, record.boot, record.seq) for record in records
    ]
    assert sorted(map(repr, updates.of_receiver("ue1"))) == sorted(
        repr(one) for one in records if one.receiver == "ue1"
    )
