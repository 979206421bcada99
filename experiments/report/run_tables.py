"""What the plots of one run are made from: its CSV files, read back, of the deliveries only what a plot needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.applied import VIAS
from experiments.columns import DELIVERIES, FAULTS, LINKS, MESSAGES, NODES, OBJECTS, RECOVERY, SUMMARY, Table
from experiments.run_folder import RunFolder
from topologies.errors import InputError

Floats = NDArray[np.float32]

#: Rows of deliveries.csv in memory at a time; of each, some 20 octets stay.
_CHUNK_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class DeliveredUpdates:
    """The deliveries that count: published from t = 0 on, to a receiver that had joined. One array a column."""

    published_s: Floats
    latency_ms: Floats
    path_delay_ms: Floats
    via: NDArray[np.int8]  #: index in VIAS; -1: another
    during_fault: NDArray[np.bool_]

    @property
    def ratio(self) -> Floats:
        """Latency over path delay, of those whose path has a delay."""
        has_delay = self.path_delay_ms > 0
        return self.latency_ms[has_delay] / self.path_delay_ms[has_delay]


@dataclass(frozen=True, slots=True)
class RunTables:
    deliveries: DeliveredUpdates
    faults: pd.DataFrame
    recovery: pd.DataFrame
    messages: pd.DataFrame
    links: pd.DataFrame
    nodes: pd.DataFrame
    objects: pd.DataFrame
    metrics: dict[str, float]  #: of summary.csv; NaN: nothing to measure

    @classmethod
    def load(cls, folder: RunFolder) -> RunTables:
        """Read the CSV files of a run. Raises: InputError if one is missing or not what it has to be."""
        path = folder.path
        summary = read_table(path, SUMMARY)
        return cls(
            deliveries=read_deliveries(path),
            faults=read_table(path, FAULTS),
            recovery=read_table(path, RECOVERY),
            messages=read_table(path, MESSAGES),
            links=read_table(path, LINKS),
            nodes=read_table(path, NODES),
            objects=read_table(path, OBJECTS),
            metrics=dict(zip(summary["metric"], summary["value"].astype(float), strict=True)),
        )


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of *frame* with its columns as attributes."""
    yield from frame.itertuples()


def read_table(directory: Path, table: Table) -> pd.DataFrame:
    """Read a CSV file of a run folder whole. Raises: InputError."""
    path = directory / table.file
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise _unreadable(path, error) from error
    _check_columns(path, frame, table.names)
    return frame


def read_deliveries(directory: Path) -> DeliveredUpdates:
    """Read deliveries.csv a part at a time. Raises: InputError."""
    path = directory / DELIVERIES.file
    columns = ["published_s", "latency_ms", "path_delay_ms", "via", "during_fault", "was_joined"]
    kinds: dict[str, Any] = dict.fromkeys(columns[:3], np.float64) | {"via": str}
    codes = {via: code for code, via in enumerate(VIAS)}
    parts: list[list[NDArray[Any]]] = [[np.empty(0, dtype)] for dtype in (np.float32,) * 3 + (np.int8, np.bool_)]
    try:
        with pd.read_csv(path, usecols=columns, dtype=kinds, chunksize=_CHUNK_ROWS) as chunks:
            for chunk in chunks:
                counted = chunk[(chunk["published_s"] >= 0) & chunk["was_joined"].astype(bool)]
                for name, column in zip(columns[:3], parts, strict=False):
                    column.append(counted[name].to_numpy(dtype=np.float32))
                parts[3].append(counted["via"].map(codes).fillna(-1).to_numpy().astype(np.int8))
                parts[4].append(counted["during_fault"].astype(bool).to_numpy())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    whole: list[NDArray[Any]] = []
    while parts:  # one column after the other: not all of it is in memory twice
        whole.append(np.concatenate(parts.pop(0)))
    return DeliveredUpdates(*whole)


def _check_columns(path: Path, frame: pd.DataFrame, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InputError(
            where=str(path),
            problem=f"line 1 has no column `{missing[0]}`",
            remedy="make the CSV files again: hconf report RUN",
        )


def _unreadable(path: Path, error: Exception) -> InputError:
    problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return InputError(where=str(path), problem=problem, remedy="make the CSV files again: hconf report RUN")
