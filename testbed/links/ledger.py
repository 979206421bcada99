"""The ledger: one JSON line for every frame that was dropped, written as the run goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from testbed.links.model import Cause, Direction

#: A ledger line is about 110 bytes. What is over the limit is still counted, only no longer listed.
MAX_RECORDS: Final = 200_000


class FrameDropped(Struct, frozen=True, tag_field="kind", tag="frame_dropped"):
    """A frame that did not arrive; a line of ``raw/wire-ledger.jsonl``."""

    t_s: float  #: CLOCK_MONOTONIC
    link: str
    direction: Direction
    cause: Cause
    frame_number: int  #: counts the frames that entered this direction of this link, from 0
    length_bytes: int  #: Ethernet frame without FCS


class Ledger:
    """Buffers records; the owner says when there is time to write. Not safe for several threads."""

    def __init__(self, path: Path, *, max_records: int = MAX_RECORDS) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encoder = msgspec.json.Encoder()
        self._max_records = max_records
        self._pending: list[FrameDropped] = []
        self.records = 0
        self.omitted = 0

    def add(self, record: FrameDropped) -> None:
        if self.records >= self._max_records:
            self.omitted += 1
            return
        self.records += 1
        self._pending.append(record)

    def flush(self) -> None:
        """Write what is pending. What the disk does not take is counted in `omitted`: frames go on all the same."""
        lines = memoryview(self._encoder.encode_lines(self._pending))
        try:
            while lines:
                lines = lines[os.write(self._fd, lines) :]
        except OSError:
            unwritten = bytes(lines).count(b"\n")
            self.records -= unwritten
            self.omitted += unwritten
        self._pending.clear()

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
