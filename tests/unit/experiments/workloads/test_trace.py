"""Traces: what is replayed, and what is said of each that is wrong, with its line."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.spec_workloads import TraceWorkload
from experiments.workloads import CheckedTrace, ScheduledObject, ScheduledPresence, ScheduledUpdate, check_trace
from experiments.workloads.trace import LINE_MAX_BYTES, replay
from topologies.errors import InputError

UES = ("ue1", "ue2", "ue3")
HEADER = "time_s,device_id,event,size_bytes,text\n"
GOOD = (
    HEADER
    + """\
0.5,ue1,message,120,
1.0,ue2,message,,"Hello, ""you""
there"
1.0,ue3,join,,
2,ue1,stroke,0,
3.5,ue1,object,1000000,
4.0,ue3,leave,0,
"""
)

Check = Callable[..., CheckedTrace]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check_text(text: str | bytes, *, duration_s: float = 10.0, **keys: object) -> CheckedTrace:
        path = tmp_path / "trace.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return check_trace(path, TraceWorkload(file="trace.csv", **keys), ues=UES, duration_s=duration_s)  # type: ignore[arg-type]

    return check_text


def entries(trace: CheckedTrace, duration_s: float = 10.0) -> list[tuple[str, object]]:
    return [(entry.device, entry.what) for entry in replay(trace, duration_s=duration_s)]


def test_every_kind_of_row_is_replayed(check: Check) -> None:
    trace = check(GOOD)
    assert (trace.rows, trace.replayed, trace.updates, trace.first_s, trace.last_s) == (6, 6, 4, 0.5, 4.0)
    assert trace.absent_at_start == trace.comes_and_goes == {"ue3"}
    assert entries(trace) == [
        ("ue1", ScheduledUpdate(0.5, "message", 120)),
        ("ue2", ScheduledUpdate(1.0, "message", 'Hello, "you"\nthere')),
        ("ue3", ScheduledPresence(1.0, there=True)),
        ("ue1", ScheduledUpdate(2.0, "stroke", 0)),
        ("ue1", ScheduledObject(3.5, 1_000_000)),
        ("ue3", ScheduledPresence(4.0, there=False)),
    ]


def test_columns_stand_in_any_order_and_the_text_may_be_missing(check: Check) -> None:
    trace = check("event,size_bytes,time_s,device_id\r\nmessage,5,1,ue1\r\n\r\n")
    assert entries(trace) == [("ue1", ScheduledUpdate(1.0, "message", 5))]
    assert entries(check("\ufefftime_s,device_id,event,size_bytes\n1,ue2,stroke,3")) == [
        ("ue2", ScheduledUpdate(1.0, "stroke", 3))
    ]


def test_time_is_shifted_and_scaled_and_cut(check: Check) -> None:
    rows = "".join(f"{1_700_000_000 + second},ue1,message,1,\n" for second in range(100))
    trace = check(HEADER + rows, from_s=1_700_000_010.0, speed=10.0, start_s=1.0, stop_s=3.0)
    assert (trace.rows, trace.replayed) == (100, 20)
    times_s = [what.at_s for _, what in entries(trace) if isinstance(what, ScheduledUpdate)]
    assert times_s == pytest.approx([1.0 + step / 10 for step in range(20)])


def test_devices_can_be_called_otherwise(check: Check) -> None:
    trace = check(HEADER + "1,alice,message,1,\n2,ue2,message,1,\n", devices={"alice": "ue3"})
    assert [device for device, _ in entries(trace)] == ["ue3", "ue2"]


def test_who_left_or_came_before_the_replay_begins_is_away_or_there(check: Check) -> None:
    rows = "1,ue1,join,,\n2,ue2,leave,,\n3,ue3,leave,,\n4,ue3,join,,\n6,ue1,leave,,\n7,ue2,join,,\n"
    trace = check(HEADER + rows, from_s=5.0)
    assert trace.absent_at_start == {"ue2"}
    assert [device for device, _ in entries(trace)] == ["ue1", "ue2"]


MISTAKES = [
    ("", 1, "it is empty", "begin with the header time_s,device_id,event,size_bytes"),
    ("time_s,device_id,event\n", 1, "the column size_bytes is missing", "begin with the header"),
    ("1,ue1,message,3\n", 1, "unknown column `1`", "use one of `time_s`"),
    ("time_s,device_id,event,size\n", 1, "unknown column `size`", "`size_bytes`"),
    ("time_s,device_id,event,size_bytes,event\n", 1, "the column `event` is there twice", "leave one out"),
    (HEADER, 2, "it has no rows below its header", "add some"),
    (HEADER + "1,ue1,message,3\n", 2, "it has 4 values, and the header names 5 columns", "one value for each column"),
    (HEADER + "2,ue1,message,3,\n1,ue1,message,3,\n", 3, "time_s = 1 is before the row above it (2)", "sort the rows"),
    (HEADER + "soon,ue1,message,3,\n", 2, "time_s = 'soon' is no time", "write seconds"),
    (HEADER + "nan,ue1,message,3,\n", 2, "time_s = 'nan' is no time", "write seconds"),
    (HEADER + "-1,ue1,message,3,\n", 2, "time_s = '-1' is no time", "from 0"),
    (HEADER + "1,ue9,message,3,\n", 2, "there is no UE `ue9`", 'the UEs are ue1 to ue3; to call one otherwise, write devices = { "ue9" = "ue1" }'),
    (HEADER + "1,,message,3,\n", 2, "there is no UE ``", "the UEs are ue1 to ue3"),
    (HEADER + "1,ue1,mesage,3,\n", 2, "the event 'mesage' is unknown", "did you mean `message`?"),
    (HEADER + "1,ue1,message,,\n", 2, "size_bytes is empty", "or a text"),
    (HEADER + "1,ue1,message,1 kB,\n", 2, "size_bytes = '1 kB' is no whole number", "without a unit"),
    (HEADER + "1,ue1,message,-5,\n", 2, "size_bytes = -5 is outside 0 to 7000", "more goes as event object"),
    (HEADER + f"1,ue1,message,{'9' * 60_000},\n", 2, "size_bytes = 999999999999... is outside 0 to 7000", "a message has 0 to"),
    (HEADER + "1,ue1,message,7001,\n", 2, "size_bytes = 7001 is outside 0 to 7000", "more goes as event object"),
    (HEADER + "1,ue1,object,99999999999,\n", 2, "size_bytes = 99999999999 is outside 1 to 67108864", "an object has 1 to"),
    (HEADER + "1,ue1,object,0,\n", 2, "size_bytes = 0 is outside 1 to 67108864", ""),
    (HEADER + "1,ue1,object,5,hello\n", 2, "an object has no text", "leave its text empty"),
    (HEADER + "1,ue1,message,9,hello\n", 2, "size_bytes = 9, but the text has 5", "leave size_bytes empty"),
    (HEADER + f"1,ue1,message,,{'x' * 7001}\n", 2, "the text is too long: size_bytes = 7001", "more goes as event object"),
    (HEADER + "1,ue1,join,3,\n", 2, "size_bytes = 3 is outside 0 to 0", "a join has none"),
    (HEADER + '1,ue1,message,,"open\n', 2, "it is not valid CSV: unexpected end of data", "double quotes"),
    (HEADER + '1,ue1,message,,"a" b\n', 2, "it is not valid CSV", "double quotes"),
    (HEADER + "1,ue1,join,,\n2,ue1,join,,\n", 3, "ue1 is there already, since line 2", "leave the row out"),
    (HEADER + "1,ue1,message,1,\n2,ue1,join,,\n", 3, "ue1 is there already, since the beginning", "leave the row out"),
    (HEADER + "1,ue1,leave,,\n2,ue1,leave,,\n", 3, "ue1 has left already, since line 2", "leave the row out"),
    (HEADER + "1,ue1,leave,,\n2,ue1,message,1,\n", 3, "ue1 is not there: it left in line 2", "let it join"),
    (HEADER + "1,ue1,leave,,\n1,ue1,join,,\n", 3, "ue1 joins and leaves at the same time as in line 2", "some time"),
    (HEADER + "1,ue1,message,,\0\n", 2, "it has a zero byte", "CSV file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "problem", "remedy"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_a_mistake_is_named_with_its_line(check: Check, text: str, line: int, problem: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        check(text)
    assert caught.value.where.endswith(f"trace.csv:{line}")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_lines_are_counted_through_texts_of_several_lines(check: Check) -> None:
    with pytest.raises(InputError, match=r"trace\.csv:5: the event 'x' is unknown"):
        check(HEADER + '1,ue1,message,,"a\nb"\n\n2,ue1,x,1,\n')


def test_broken_utf8_is_named_with_line_and_column(check: Check) -> None:
    with pytest.raises(InputError, match=r"trace\.csv:3: it is not UTF-8 text: byte 0xff at column 18 "):
        check((HEADER + "1,ue1,message,,Gruß\n2,ue1,message,,a").encode() + b"b\xff\n")


def test_a_file_without_line_breaks_is_not_read_whole(check: Check) -> None:
    with pytest.raises(InputError, match=rf"trace\.csv:1: the line is longer than {LINE_MAX_BYTES} bytes"):
        check(b"x" * (LINE_MAX_BYTES + 1))


def test_a_trace_of_another_time_is_refused_with_the_key_that_mends_it(check: Check) -> None:
    rows = "1700000000,ue1,message,1,\n1700000060,ue1,message,1,\n"
    with pytest.raises(InputError) as caught:
        check(HEADER + rows)
    assert (
        "none of its rows falls into the run: their time_s goes from 1700000000 to 1700000060" in caught.value.problem
    )
    assert caught.value.remedy == "write from_s = 1700000000 in the workload"


@pytest.mark.parametrize("name", ["nothing.csv", ".", "a\0b"])
def test_no_file_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        check_trace(tmp_path / name, TraceWorkload(file=name), ues=UES, duration_s=1)


def test_a_trace_that_changes_after_it_was_checked_is_not_replayed(check: Check) -> None:
    trace = check(GOOD)
    os.utime(trace.path, ns=(1, 1))
    with pytest.raises(InputError, match="it has changed since it was checked"):
        entries(trace)


def test_a_long_trace_is_never_in_memory(tmp_path: Path) -> None:
    rows = 50_000
    text = HEADER + "".join(f"{number / 100:.2f},ue{number % 3 + 1},message,100,\n" for number in range(rows))
    path = tmp_path / "trace.csv"
    path.write_text(text)
    size_bytes = len(text)
    del text
    workload = TraceWorkload(file="trace.csv")
    tracemalloc.start()
    trace = check_trace(path, workload, ues=UES, duration_s=1_000)
    count = sum(1 for _ in replay(trace, duration_s=1_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert trace.rows == count == rows
    assert peak_bytes < size_bytes / 4


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(alphabet='0123456789,."\nuemsagjoinleavtrk', max_size=200).map(str.encode))
def test_any_file_is_accepted_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.csv"
    for text in (content, HEADER.encode() + content):
        path.write_bytes(text)
        try:
            trace = check_trace(path, TraceWorkload(file="any.csv"), ues=UES, duration_s=1e4)
        except InputError as error:
            assert error.where.startswith(str(path))  # noqa: PT017
        else:
            assert len(entries(trace, 1e4)) == trace.replayed
