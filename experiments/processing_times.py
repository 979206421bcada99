"""How long the processes of an emulated run took for what they were given, from the records of `proxy.processing`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from proxy.records import HandlingCount, ProcessingMeasured
from testbed.simulation.processing import ProcessTimes, pooled

#: In the raw records of a simulated twin: what it was told of its processes.
PROCESSING_FILE: Final = "processing.json"
#: How a line of them begins, which tells them apart without decoding all others.
_BEGIN: Final = b'{"kind":"processing"'


def read_processing(raw: Path) -> list[ProcessingMeasured]:
    """Return what the nodes of a run wrote of it, in no order; a damaged line, which the analysis names, is left out."""
    records: list[ProcessingMeasured] = []
    decoder = msgspec.json.Decoder(ProcessingMeasured)
    for path in sorted(raw.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                if line.startswith(_BEGIN):
                    try:
                        records.append(decoder.decode(line))
                    except msgspec.DecodeError:
                        continue
    return records


def times_of_processes(records: Iterable[ProcessingMeasured], clock: Mapping[str, Any]) -> dict[str, ProcessTimes]:
    """Return the times of each process while the workload ran; of classes of events that came only before, from then.

    When all join at once, the machine may be overloaded without any figure of the run being touched.

    Args:
        records: of the run.
        clock: of its manifest.
    """
    begin_s, end_s = clock.get("epoch_s", 0.0), clock.get("quiesced_s", float("inf"))
    parts: dict[str, tuple[list[ProcessTimes], list[ProcessTimes]]] = {}
    for record in records:
        within, outside = parts.setdefault(f"{record.node}.{record.process}", ([], []))
        is_within = begin_s <= (record.since_s + record.t_s) / 2 <= end_s
        (within if is_within else outside).append(ProcessTimes(record.handling, record.wake_up_bins))
    return {process: _completed(pooled(within), pooled(outside)) for process, (within, outside) in parts.items()}


def _completed(times: ProcessTimes, other: ProcessTimes) -> ProcessTimes:
    def by_class(of: ProcessTimes) -> dict[tuple[int, int], HandlingCount]:
        return {(count.size_bits, count.sent_bits): count for count in of.handling}

    return ProcessTimes(list((by_class(other) | by_class(times)).values()), times.wake_up_bins or other.wake_up_bins)
