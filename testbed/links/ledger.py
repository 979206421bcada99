"""The ledger: one JSON line for every frame that was dropped or altered, written as the run goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from testbed.faults.packets.rules import MessageHit
from testbed.links.model import Alteration, Cause, Direction

#: A ledger line is 110 to 250 bytes. What is over the limit is still counted, only no longer listed.
MAX_RECORDS: Final = 200_000


class FrameDropped(Struct, frozen=True, tag_field="kind", tag="frame_dropped", omit_defaults=True):
    """A frame that did not arrive; a line of ``raw/wire-ledger.jsonl``."""

    t_s: float  #: CLOCK_MONOTONIC
    link: str
    direction: Direction
    cause: Cause
    frame_number: int  #: counts the frames that entered this direction of this link, from 0
    length_bytes: int  #: Ethernet frame without FCS
    name: str = ""  #: kind and name of its NDN packet, digests left out (`frame_names.spell`); empty: it has none
    #: How often the link has been offered that name in this direction while it drew for frames; 0: it was not drawn for.
    attempt: int = 0


class FrameAltered(Struct, frozen=True, tag_field="kind", tag="frame_altered", omit_defaults=True):
    """A frame that was duplicated, reordered or corrupted; fields as those of `FrameDropped`."""

    t_s: float
    link: str
    direction: Direction
    alterations: list[Alteration]
    frame_number: int
    length_bytes: int
    name: str = ""
    attempt: int = 0
    late_ms: float = 0.0  #: reordered: how much later than it would have been
    copy_late_ms: float = 0.0  #: duplicated: how much later than the first the second one leaves
    bit: int | None = (
        None  #: corrupted: the one that was changed, counted from the frame's first octet, its highest bit first
    )


LedgerRecord = FrameDropped | FrameAltered  #: of the links themselves; message faults write `MessageHit`


class Ledger:
    """Buffers records; the owner says when there is time to write. Not safe for several threads."""

    def __init__(self, path: Path, *, max_records: int = MAX_RECORDS) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encoder = msgspec.json.Encoder()
        self._max_records = max_records
        self._pending: list[LedgerRecord | MessageHit] = []
        self.records = 0
        self.omitted = 0

    def add(self, record: LedgerRecord | MessageHit) -> None:
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
