"""Applied updates column by column: some 17 octets each instead of some 400, so that a day's deliveries fit into memory.

Reads like a sequence of `Applied` records. What goes through millions of them takes the columns instead.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args, overload

import numpy as np
from numpy.typing import NDArray

from proxy.records import Applied, SnapshotApplied, Via

UpdateId = tuple[str, str, int, int]  #: (conference, publisher, boot, seq)
Reader = tuple[str, str]  #: (conference, receiver)

VIAS: Final[tuple[Via, ...]] = get_args(Via)
_VIA_CODES: Final = {via: code for code, via in enumerate(VIAS)}


class AppliedUpdates(Sequence[Applied]):
    """What was applied, in the order of time; what one process applied at one instant, in the order in which it wrote it.

    at_s: when, on CLOCK_MONOTONIC.
    reader: by whom, an index into `readers`.
    version: what, an index into `versions` and `update_of`; updates with other bytes are other versions.
    via: an index into `VIAS`.
    update_of: of each version, its index in `updates`.
    """

    def __init__(
        self,
        columns: tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]],
        readers: Sequence[Reader],
        versions: Sequence[tuple[str, str, int, int, str]],
    ) -> None:
        self.at_s, self.reader, self.version, self.via = columns
        self.readers, self.versions = readers, versions
        codes: dict[UpdateId, int] = {}
        numbers = (codes.setdefault(version[:4], len(codes)) for version in versions)
        self.update_of: NDArray[np.int32] = np.fromiter(numbers, np.int32, count=len(versions))
        self.updates = codes
        self._grouped: tuple[NDArray[np.int32], NDArray[np.intp]] | None = None

    @classmethod
    def of(cls, records: Sequence[Applied]) -> AppliedUpdates:
        """Return *records*, which are in the order of time, as columns; themselves if that is what they are."""
        if isinstance(records, AppliedUpdates):
            return records
        collected = AppliedCollector()
        collected.add(records)
        return collected.sorted()[0]

    def __len__(self) -> int:
        return len(self.at_s)

    @overload
    def __getitem__(self, index: int) -> Applied: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Applied]: ...
    def __getitem__(self, index: int | slice) -> Applied | Sequence[Applied]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        conference, receiver = self.readers[self.reader[index]]
        _, publisher, boot, seq, sha256 = self.versions[self.version[index]]
        via = VIAS[self.via[index]]
        return Applied(float(self.at_s[index]), conference, receiver, publisher, boot, seq, via, sha256)

    def update_codes(self, places: Any = slice(None)) -> NDArray[np.int32]:  # noqa: ANN401 - what numpy takes as an index
        """Return of each applied update at *places* its index in `updates`."""
        version: NDArray[np.int32] = self.version[places]
        # Where nothing was altered, both are numbered alike.
        return version if len(self.updates) == len(self.versions) else self.update_of[version]

    def by_reader(self) -> Iterator[tuple[Reader, NDArray[np.int32]]]:
        """Yield each reader and the places of what it applied, in the order of its first."""
        if self._grouped is None:
            codes = (
                self.reader.astype(np.int16) if len(self.readers) < 1 << 15 else self.reader
            )  # these are sorted by radix
            order = np.argsort(codes, kind="stable").astype(np.int32)
            self._grouped = order, np.bincount(self.reader, minlength=len(self.readers)).cumsum()
        order, ends = self._grouped
        groups = np.split(order, ends[:-1]) if len(ends) else []
        for code in sorted((code for code, group in enumerate(groups) if len(group)), key=lambda code: groups[code][0]):
            yield self.readers[code], groups[code]

    def of_receiver(self, receiver: str) -> Iterator[Applied]:
        """Yield what *receiver* applied, in any conference."""
        for (_, device), places in self.by_reader():
            if device == receiver:
                yield from (self[place] for place in places.tolist())


class AppliedCollector:
    """Takes `Applied` records as they are read, and keeps columns of them."""

    def __init__(self) -> None:
        self._at_s, self._reader, self._version, self._via = array("d"), array("i"), array("i"), array("b")
        self._readers: dict[Reader, int] = {}
        self._versions: dict[tuple[str, str, int, int, str], int] = {}
        self._snapshots: list[tuple[SnapshotApplied, int]] = []

    def add(self, records: Iterable[Any]) -> list[Any]:
        """Take in what is applied of *records*; return the others, snapshots among them."""
        others: list[Any] = []
        at_s, reader, version, via = self._at_s.append, self._reader.append, self._version.append, self._via.append
        readers, versions = self._readers, self._versions
        for record in records:
            if type(record) is not Applied:
                others.append(record)
                if type(record) is SnapshotApplied:
                    self._snapshots.append((record, len(self._at_s)))
                continue
            at_s(record.t_s)
            reader(readers.setdefault((record.conference, record.receiver), len(readers)))
            what = (record.conference, record.publisher, record.boot, record.seq, record.sha256)
            version(versions.setdefault(what, len(versions)))
            via(_VIA_CODES[record.via])
        return others

    def sorted(self) -> tuple[AppliedUpdates, list[SnapshotApplied], list[int]]:
        """Return what was taken in, in the order of time: updates, snapshots, and how many of the updates precede each snapshot.

        What was written at one instant stays in the order in which it was taken in.
        """
        at_s = np.frombuffer(self._at_s, np.float64)
        in_order = bool((at_s[1:] >= at_s[:-1]).all())
        order = None if in_order else np.argsort(at_s, kind="stable")

        def arranged(column: array[Any], dtype: type[Any]) -> NDArray[Any]:
            values = np.frombuffer(column, dtype)
            return values if order is None else values[order]

        times_s = arranged(self._at_s, np.float64)
        snapshots = sorted(self._snapshots, key=lambda taken: taken[0].t_s)
        places: list[int] = []
        for snapshot, before in snapshots:
            first, last = (int(np.searchsorted(times_s, snapshot.t_s, side)) for side in ("left", "right"))
            written = np.arange(first, last) if order is None else order[first:last]
            places.append(first + int((written < before).sum()))
        columns = (
            times_s,
            arranged(self._reader, np.int32),
            arranged(self._version, np.int32),
            arranged(self._via, np.int8),
        )
        updates = AppliedUpdates(columns, list(self._readers), list(self._versions))
        return updates, [snapshot for snapshot, _ in snapshots], places
