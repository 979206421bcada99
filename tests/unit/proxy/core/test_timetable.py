"""What is to be published when."""

from __future__ import annotations

from proxy.core.events import ObjectsScheduled
from proxy.core.timetable import Timetable


def filled() -> Timetable:
    timetable = Timetable()
    timetable.add_updates([(2.0, "message", 10), (1.0, "stroke", b"text"), (1.0, "stroke", b"text")])
    timetable.add_objects(ObjectsScheduled(((1.5, 1_000),), ((3.0, 50, 160, 1.0, 150.0),)))
    return timetable


def test_everything_comes_at_its_time_alike_or_not() -> None:
    timetable = filled()
    assert timetable.next_s == 1.0
    assert timetable.due_updates(1.0) == [("stroke", b"text"), ("stroke", b"text")]
    assert timetable.next_s == 1.5
    assert timetable.due_objects(1.5) == [[1_000]]
    assert timetable.due_updates(9.0) == [("message", 10)]
    assert timetable.next_s == 3.0
    assert timetable.due_objects(9.0) == [[50, 160, 1.0, 150.0]]
    assert timetable.next_s is None


def test_a_timetable_that_is_cleared_has_neither_updates_nor_objects() -> None:
    timetable = filled()
    timetable.clear()
    assert timetable.next_s is None
    assert (timetable.due_updates(9.0), timetable.due_objects(9.0)) == ([], [])
