"""Writing frames as CSV, by the schema of `experiments.columns`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.columns import Column, Table

#: Decimals by the unit at the end of a column's name: clocks to the microsecond, delays to a tenth of one.
_DECIMALS = {"_s": 6, "_ms": 4}
_DECIMALS_OTHERWISE = 6


def write_csv(directory: Path, table: Table, frames: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    """Write a frame, or frames one after the other, as *table*'s file, whole or not at all."""
    path = directory / table.file
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate([frames] if isinstance(frames, pd.DataFrame) else frames):
            shaped = pd.DataFrame({column.name: _shaped(frame[column.name], column) for column in table.columns})
            shaped.to_csv(file, index=False, header=number == 0, lineterminator="\n")
    beside.replace(path)


def _shaped(values: pd.Series, column: Column) -> pd.Series:
    match column.kind:
        case "text":
            return values
        case "flag":
            return values.astype("boolean").map({True: "true", False: "false"})
        case "count":
            return pd.to_numeric(values).astype("Int64")
        case "number":
            decimals = next((n for unit, n in _DECIMALS.items() if column.name.endswith(unit)), _DECIMALS_OTHERWISE)
            numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
            return pd.Series(np.round(numbers, decimals) + 0.0, index=values.index)  # + 0.0: no minus zero
