"""Two emulated runs of one file with one seed: what was offered to a link, and what the link dropped of it.

A capture at the sending end has every frame before the link does anything to it; the ledger says which the link dropped.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from experiments.capture_file import CaptureReader
from experiments.progress import PlainProgress
from experiments.runner import run_experiment
from experiments.spec import load_experiment
from testbed.links.frame_names import name_in_frame, spell
from testbed.links.ledger import FrameDropped, LedgerRecord

_ENHANCED_PACKET: Final = 6
_FLAGS_OPTION: Final = 2
_OUTBOUND: Final = 2

Attempt = tuple[str, str, int]  #: (link, kind and name, how often it had been offered, that time included)


@dataclass(frozen=True)
class SeenRun:
    """What one run offered to its captured links, from the ends that they were captured at, and which of that was lost."""

    offered: frozenset[Attempt]
    unnamed: int  #: frames without a name, which go by number
    lost: frozenset[Attempt]


def outbound_frames(path: Path) -> Iterator[bytes]:
    """Yield the frames that the captured host sent, in order."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if kind == _ENHANCED_PACKET:
            (size,) = struct.unpack_from("=I", data, at + 20)
            option = at + 28 + (size + 3 & ~3)
            while option < at + length - 4:
                code, option_bytes = struct.unpack_from("=HH", data, option)
                if code == _FLAGS_OPTION and data[option + 4] & 3 == _OUTBOUND:
                    yield data[at + 28 : at + 28 + size]
                if not code:
                    break
                option += 4 + (option_bytes + 3 & ~3)
        at += length


def seen_run(file: Path, out: Path, *overrides: str) -> SeenRun:
    """Run an experiment that captures links, and return what came of it. Raises: as `run_experiment`."""
    experiment = load_experiment(file, overrides)
    run_experiment(experiment, out=out, progress=PlainProgress(experiment.settings.name))
    offered: set[Attempt] = set()
    captured: set[tuple[str, str]] = set()
    unnamed = 0
    for link in experiment.captures:
        counts: Counter[str] = Counter()
        reader = CaptureReader(out / "captures" / f"{link}.pcapng")
        end_a = experiment.topology.link(link).a
        captured |= {(link, "a_to_b" if reader.node == end_a else "b_to_a") for _ in reader}
        for frame in outbound_frames(out / "captures" / f"{link}.pcapng"):
            name = spell(name_in_frame(frame))
            if name:
                counts[name] += 1
                offered.add((link, name, counts[name]))
            else:
                unnamed += 1
    lines = (out / "raw" / "wire-ledger.jsonl").read_bytes().splitlines()
    records = [msgspec.json.decode(line, type=LedgerRecord) for line in lines]
    lost = {
        (record.link, record.name, record.attempt)
        for record in records
        if isinstance(record, FrameDropped) and record.cause == "loss" and record.name
        if (record.link, record.direction) in captured
    }
    return SeenRun(frozenset(offered), unnamed, frozenset(lost))
