"""A run as one row of a comparison: its manifest, summary and failed checks, read back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pandas as pd

from experiments.analysis.comparison import RunResult, flatten
from experiments.checker import Check, Verdict
from experiments.columns import CHECKS, SUMMARY, Table
from experiments.judgement import verdict_now
from experiments.run_folder import RunFolder
from topologies.errors import InputError


def load_result(folder: RunFolder) -> RunResult:
    """Read what a comparison needs of a run folder with its CSV files made. Raises: InputError."""
    manifest = folder.read_manifest()
    experiment = manifest.get("experiment") or {}
    summary, checks = _read(folder.path, SUMMARY), _read(folder.path, CHECKS)
    judged = [Check(str(row.name), cast("Verdict", row.verdict), "", "") for row in checks.itertuples(index=False)]
    failed = checks[checks["name"].astype(str).str.startswith("fidelity.") & (checks["verdict"] == "fail")]
    seed = manifest.get("seed")
    return RunResult(
        path=folder.path,
        name=str(experiment.get("experiment", {}).get("name", folder.path.name)),
        seed=seed if isinstance(seed, int) else -1,
        mode=str(manifest.get("mode", "")),
        verdict=verdict_now(str(manifest["verdict"]), judged),
        settings=flatten(experiment),
        metrics=dict(zip(summary["metric"].astype(str), pd.to_numeric(summary["value"]).astype(float), strict=True)),
        units=dict(zip(summary["metric"].astype(str), summary["unit"].astype(str), strict=True)),
        unfaithful=tuple(failed["name"].astype(str)),
    )


def _read(directory: Path, table: Table) -> pd.DataFrame:
    path = directory / table.file
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})
        return frame[table.names]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            where=str(path), problem=f"cannot be read: {error}", remedy=f"make it again: hconf report {directory}"
        ) from error
