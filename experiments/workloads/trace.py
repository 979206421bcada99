"""Traces: CSV files of what devices did, checked once from beginning to end, then replayed row by row.

A trace may be of any length: of a row nothing is kept but counts, and what each device did last.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from experiments.spec_workloads import OBJECT_MAX_BYTES, UPDATE_BODY_MAX_BYTES, TraceWorkload
from experiments.workloads.model import Entry, Scheduled, ScheduledObject, ScheduledPresence, ScheduledUpdate
from topologies.errors import InputError, pick_one_of

REQUIRED_COLUMNS: Final = ("time_s", "device_id", "event", "size_bytes")
OPTIONAL_COLUMNS: Final = ("text",)
EVENTS: Final = ("message", "stroke", "object", "join", "leave")

#: No line of a trace is longer; a text has 7,000 bytes at most, each of which may be quoted.
LINE_MAX_BYTES: Final = 65_536
#: As `from_s`: times of day since 1970 in seconds are far below.
TIME_MAX_S: Final = 1e12

_INTEGER: Final = re.compile(r"-?[0-9]+")
#: Digits of a size that are read; one with more is as large as all of these say.
_DIGITS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class CheckedTrace:
    """A trace that was found right; what is left is to replay it."""

    path: Path
    workload: TraceWorkload
    rows: int  #: of the file
    replayed: int  #: of them, within the run
    updates: int  #: of those, FP updates and objects
    first_s: float  #: time_s of the first row
    last_s: float
    sha256: str
    absent_at_start: frozenset[
        str
    ]  #: UEs that are not there at first: their first row is a join, or they have left before from_s
    comes_and_goes: frozenset[str]  #: UEs that have a join or leave
    identity: tuple[int, int]  #: size in bytes and time of change in nanoseconds, when it was checked


@dataclass(slots=True)
class _Presence:
    """What the rows so far say of the presence of each UE."""

    there: dict[str, bool] = field(default_factory=dict)
    absent_at_start: set[str] = field(default_factory=set)  #: at from_s
    said: dict[str, tuple[float, int]] = field(default_factory=dict)  #: time and line of the last join or leave


@dataclass(slots=True)
class _Row:
    line: int  #: from 1; of a row of several lines, the first
    time_s: float
    device: str
    event: str
    size_bytes: int
    text: str | None


def check_trace(path: Path, workload: TraceWorkload, *, ues: Collection[str], duration_s: float) -> CheckedTrace:
    """Read the whole trace and check every row.

    Args:
        path: of the CSV file.
        workload: that replays it.
        ues: device IDs that there are.
        duration_s: of the run.

    Raises: InputError with file and line for the first mistake in it, or if no row of it falls into the run.
    """
    presence, known = _Presence(), frozenset(ues)
    digest = hashlib.sha256()
    rows = replayed = updates = 0
    first_s = last_s = 0.0
    stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
    with _opened(path) as file:
        identity = _identity(file)
        for row in _rows(file, path, digest):
            device = workload.devices.get(row.device, row.device)
            if device not in known:
                raise _unknown_device(path, row, device, ues)
            if rows == 0:
                first_s = row.time_s
            elif row.time_s < last_s:
                raise _error(
                    path,
                    row.line,
                    problem=f"time_s = {row.time_s:.12g} is before the row above it ({last_s:.12g})",
                    remedy="sort the rows by time_s",
                )
            last_s = row.time_s
            rows += 1
            _check_presence(presence, row, device, path, is_before=row.time_s < workload.from_s)
            if workload.from_s <= row.time_s and _run_time_s(workload, row.time_s) < stop_s:
                replayed += 1
                updates += row.event not in ("join", "leave")
    if rows == 0:
        raise _error(path, 2, problem="it has no rows below its header", remedy="add some, or leave this workload out")
    if replayed == 0:
        raise _nothing_to_replay(path, workload, first_s, last_s, stop_s)
    return CheckedTrace(
        path, workload, rows, replayed, updates, first_s, last_s, digest.hexdigest(),
        frozenset(presence.absent_at_start), frozenset(presence.said), identity,
    )  # fmt: skip


def replay(trace: CheckedTrace, *, duration_s: float) -> Iterator[Entry]:
    """Yield what the rows of a checked trace say, in the order of the file.

    Raises: InputError if the file is not the one that was checked.
    """
    workload = trace.workload
    stop_s = duration_s if workload.stop_s is None else min(workload.stop_s, duration_s)
    with _opened(trace.path) as file:
        if _identity(file) != trace.identity:
            raise InputError(
                where=str(trace.path),
                problem="it has changed since it was checked",
                remedy="leave traces alone while they are replayed, and run it again",
            )
        for row in _rows(file, trace.path):
            if row.time_s < workload.from_s:
                continue
            at_s = _run_time_s(workload, row.time_s)
            if at_s >= stop_s:
                return
            device = workload.devices.get(row.device, row.device)
            yield Entry(device, _scheduled(row, at_s))


def _scheduled(row: _Row, at_s: float) -> Scheduled:
    match row.event:
        case "join" | "leave":
            return ScheduledPresence(at_s, row.event == "join")
        case "object":
            return ScheduledObject(at_s, row.size_bytes)
        case _:
            return ScheduledUpdate(at_s, row.event, row.size_bytes if row.text is None else row.text)


def _run_time_s(workload: TraceWorkload, time_s: float) -> float:
    return workload.start_s + (time_s - workload.from_s) / workload.speed


def _opened(path: Path) -> BinaryIO:
    where = str(path) if str(path).isprintable() else repr(str(path))
    try:
        if not path.is_file():
            problem = "it is no file" if path.exists() else "there is no such file"
            raise InputError(
                where=where, problem=problem, remedy="name a CSV file, as seen from the experiment file's folder"
            )
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        problem = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(where=where, problem=problem, remedy="check its name and permissions") from error


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


class _Lines:
    """The lines of a file as text, with their numbers. Raises, when iterated: InputError for what is no text."""

    def __init__(self, file: BinaryIO, path: Path, digest: hashlib._Hash | None) -> None:
        self._file, self._path, self._digest = file, path, digest
        self.number = 0  #: of the last line, from 1

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LINE_MAX_BYTES + 1):
            self.number += 1
            if self._digest is not None:
                self._digest.update(line)
            if len(line) > LINE_MAX_BYTES:
                raise _error(
                    self._path,
                    self.number,
                    problem=f"the line is longer than {LINE_MAX_BYTES} bytes",
                    remedy="close the quotes of a text, and end each row with a line break",
                )
            try:
                text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _error(
                    self._path,
                    self.number,
                    problem=f"it is not UTF-8 text: byte {line[error.start]:#04x} at column {error.start + 1}",
                    remedy="save the trace as UTF-8",
                ) from error
            if "\0" in text:
                raise _error(self._path, self.number, problem="it has a zero byte", remedy="name a CSV file (text)")
            yield text


def _rows(file: BinaryIO, path: Path, digest: hashlib._Hash | None = None) -> Iterator[_Row]:
    """Yield the rows below the header; empty lines are left out. Raises: InputError."""
    lines = _Lines(file, path, digest)
    reader = csv.reader(iter(lines), strict=True)
    columns: Sequence[int] | None = None
    width = 0
    while True:
        line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise _error(
                path,
                line,
                problem=f"it is not valid CSV: {error}",
                remedy="put a text into double quotes, and double those in it",
            ) from error
        if not cells:
            continue
        if columns is None:
            columns, width = _columns(cells, path, line), len(cells)
            continue
        if len(cells) != width:
            raise _error(
                path,
                line,
                problem=f"it has {len(cells)} values, and the header names {width} columns",
                remedy="write one value for each column; a text with commas goes into double quotes",
            )
        yield _row(cells, columns, path, line)
    if columns is None:
        raise _error(path, 1, problem="it is empty", remedy=f"begin with the header {','.join(REQUIRED_COLUMNS)}")


def _columns(header: Sequence[str], path: Path, line: int) -> Sequence[int]:
    """Return the positions of the columns of a row, -1 for one that is not there."""
    names = [cell.strip() for cell in header]
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    for name in names:
        if name not in known:
            raise _error(path, line, problem=f"unknown column `{name[:60]}`", remedy=pick_one_of(name, known))
        if names.count(name) > 1:
            raise _error(path, line, problem=f"the column `{name}` is there twice", remedy="leave one out")
    if missing := [name for name in REQUIRED_COLUMNS if name not in names]:
        raise _error(
            path,
            line,
            problem=f"the column{'s' if len(missing) > 1 else ''} {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing",
            remedy=f"begin with the header {','.join(REQUIRED_COLUMNS)}, and text if you like",
        )
    return [names.index(name) if name in names else -1 for name in known]


def _row(cells: Sequence[str], columns: Sequence[int], path: Path, line: int) -> _Row:
    """Return what one row says. Raises: InputError."""
    time_at, device_at, event_at, size_at, text_at = columns
    try:
        time_s = float(cells[time_at])
    except ValueError:
        time_s = math.nan
    if not 0 <= time_s <= TIME_MAX_S:
        raise _error(
            path,
            line,
            problem=f"time_s = {cells[time_at][:40]!r} is no time",
            remedy=f"write seconds, from 0 to {TIME_MAX_S:g}",
        )
    event, device = cells[event_at], cells[device_at]
    if event not in EVENTS:
        raise _error(path, line, problem=f"the event {event[:40]!r} is unknown", remedy=pick_one_of(event, EVENTS))
    text = cells[text_at] if text_at >= 0 and cells[text_at] else None
    size_bytes = _size(cells[size_at], event, text, path, line)
    return _Row(line, time_s, device, event, size_bytes, text)


def _size(cell: str, event: str, text: str | None, path: Path, line: int) -> int:
    """Return the size in bytes that a row gives, or that its text has. Raises: InputError."""
    presence = event in ("join", "leave")
    if text is not None and event not in ("message", "stroke"):
        raise _error(path, line, problem=f"{_with_article(event)} has no text", remedy="leave its text empty")
    text_bytes = 0 if text is None else len(text.encode())
    if not cell and (text is not None or presence):
        size_bytes = text_bytes
    elif not _INTEGER.fullmatch(cell):
        raise _error(
            path,
            line,
            problem=f"size_bytes = {cell[:40]!r} is no whole number" if cell else "size_bytes is empty",
            remedy="write the size in bytes, without a unit" + ("" if event == "object" else ", or a text"),
        )
    else:
        size_bytes = int(cell[: _DIGITS_MAX + 1])
    low, high = (1, OBJECT_MAX_BYTES) if event == "object" else (0, 0 if presence else UPDATE_BODY_MAX_BYTES)
    if not low <= size_bytes <= high:
        what = "the text is too long: " if text is not None and not cell else ""
        remedy = (
            f"{_with_article(event)} has {low} to {high} bytes" if high else f"a {event} has none: write 0 or nothing"
        )
        if event in ("message", "stroke"):
            remedy += "; more goes as event object"
        said = size_bytes if not cell else cell if len(cell) <= _DIGITS_MAX else f"{cell[:_DIGITS_MAX]}..."
        raise _error(path, line, problem=f"{what}size_bytes = {said} is outside {low} to {high}", remedy=remedy)
    if text is not None and size_bytes != text_bytes:
        raise _error(
            path,
            line,
            problem=f"size_bytes = {size_bytes}, but the text has {text_bytes}",
            remedy="leave size_bytes empty where there is a text",
        )
    return size_bytes


def _with_article(event: str) -> str:
    return f"an {event}" if event == "object" else f"a {event}"


def _check_presence(presence: _Presence, row: _Row, device: str, path: Path, *, is_before: bool) -> None:
    """A device joins when it is away, leaves when it is there, and publishes in between. Raises: InputError.

    *is_before*: the row is not replayed; what it says of the device's presence counts from the start on.
    """
    if row.event not in ("join", "leave"):
        if not presence.there.setdefault(device, True):
            left_at = presence.said[device][1]
            raise _error(
                path,
                row.line,
                problem=f"{row.device} is not there: it left in line {left_at}",
                remedy="let it join before it publishes, or leave the row out",
            )
        return
    joins = row.event == "join"
    was_there = presence.there.get(device)
    if was_there is joins:
        since = (
            f"line {presence.said[device][1]}"
            if device in presence.said
            else "the beginning, as it acted without a join"
        )
        raise _error(
            path,
            row.line,
            problem=f"{row.device} {'is there already' if joins else 'has left already'}, since {since}",
            remedy="leave the row out",
        )
    if device in presence.said and presence.said[device][0] == row.time_s:
        raise _error(
            path,
            row.line,
            problem=f"{row.device} joins and leaves at the same time as in line {presence.said[device][1]}",
            remedy="put some time between them",
        )
    if is_before:
        (presence.absent_at_start.discard if joins else presence.absent_at_start.add)(device)
    elif was_there is None and joins:
        presence.absent_at_start.add(device)
    presence.there[device] = joins
    presence.said[device] = (row.time_s, row.line)


def _unknown_device(path: Path, row: _Row, device: str, ues: Collection[str]) -> InputError:
    names = list(ues)
    remedy = f"the UEs are {names[0]} to {names[-1]}" if names else "leave this workload out: there are no UEs"
    if device == row.device:
        remedy += (
            f'; to call one otherwise, write devices = {{ "{row.device[:40]}" = "{names[0] if names else "ue1"}" }}'
        )
    return _error(path, row.line, problem=f"there is no UE `{device[:60]}`", remedy=remedy)


def _nothing_to_replay(path: Path, workload: TraceWorkload, first_s: float, last_s: float, stop_s: float) -> InputError:
    end_s = workload.from_s + (stop_s - workload.start_s) * workload.speed
    return InputError(
        where=str(path),
        problem=f"none of its rows falls into the run: their time_s goes from {first_s:.12g} to {last_s:.12g}, "
        f"and {workload.from_s:.12g} to {end_s:.12g} is replayed",
        remedy=f"write from_s = {first_s:.12g} in the workload",
    )


def _error(path: Path, line: int, *, problem: str, remedy: str) -> InputError:
    return InputError(where=f"{path}:{line}", problem=problem, remedy=remedy)
