"""What is typed in the shell, as ``raw/shell.jsonl`` keeps it: the source of `hconf replay`.

All times are CLOCK_MONOTONIC seconds; a fault's `at_s` counts from the start of the run, as in an experiment file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

SHELL_FILE: Final = "shell.jsonl"


class LineTyped(Struct, frozen=True, tag_field="kind", tag="line"):
    """Any line, as it was typed."""

    t_s: float
    line: str


class FaultTyped(Struct, frozen=True, tag_field="kind", tag="fault"):
    """A fault was applied by hand, or put on the schedule."""

    t_s: float
    fault_id: str
    fault: dict[str, Any]  #: as an entry of ``[[fault]]``


class HealTyped(Struct, frozen=True, tag_field="kind", tag="heal"):
    """A fault, of whatever source, was healed by hand."""

    t_s: float
    fault_id: str


class PublishTyped(Struct, frozen=True, tag_field="kind", tag="publish"):
    """A device published an update."""

    t_s: float
    device: str
    event: str
    text: str
    boot: int
    seq: int


class CaptureTyped(Struct, frozen=True, tag_field="kind", tag="capture"):
    """A capture was started or stopped."""

    t_s: float
    link: str
    state: Literal["started", "stopped"]
    file: str


class Marked(Struct, frozen=True, tag_field="kind", tag="mark"):
    """The user wants to find this moment again."""

    t_s: float
    text: str


class ShellEnded(Struct, frozen=True, tag_field="kind", tag="end"):
    """The user has left; the time of the run is over."""

    t_s: float


Typed = LineTyped | FaultTyped | HealTyped | PublishTyped | CaptureTyped | Marked | ShellEnded


def healed_after(fault: Mapping[str, Any], for_s: float) -> dict[str, Any]:
    """Return what of an entry of ``[[fault]]`` is another for one that was healed by hand after *for_s*; None: not there.

    >>> healed_after({"kind": "flap", "period_s": 1.0, "count": 9}, 2.5)
    {'for_s': 2.5, 'count': None}
    """
    changes: dict[str, Any] = {"for_s": for_s}
    if fault.get("kind") == "flap" and fault.get("count") is not None:
        changes["count"] = None
    if (fault.get("ramp_s") or 0.0) > for_s:
        changes["ramp_s"] = for_s
    return changes


class TypedLog:
    """Appends to ``raw/shell.jsonl``; opened for each record, so that a shell that is killed loses none."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self.clock = path, clock
        self.records: list[Typed] = []  #: as many as a hand types
        path.touch()

    def add(self, record: Typed) -> None:
        self.records.append(record)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")
