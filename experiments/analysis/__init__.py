"""The analysis: from the raw records of a run to its CSV files. The only part, with the report, that imports pandas.

    analysis = analyse(RunFolder.open(Path("runs/latest")))

Needs nothing but the folder: no root, no network, none of the machine that the run was made on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import pandas as pd

from experiments.analysis.captures import CaptureWitness
from experiments.analysis.csv_files import write_csv
from experiments.analysis.deliveries import measure_deliveries
from experiments.analysis.network import measure_faults, measure_links, measure_messages, measure_nodes
from experiments.analysis.objects import measure_objects
from experiments.analysis.recovery import measure_recovery
from experiments.analysis.summary import measure_summary, summary_frame
from experiments.analysis.twin import judge_twin
from experiments.checker import Check, check_invariants
from experiments.columns import (
    CAPTURES,
    CHECKS,
    DELIVERIES,
    FAULTS,
    LINKS,
    MESSAGES,
    NODES,
    OBJECTS,
    RECOVERY,
    SUMMARY,
    UPDATES,
    Table,
)
from experiments.judgement import fails_the_run, judge_expectations, judge_fidelity
from experiments.recorded_run import RecordedRun
from experiments.run_folder import RunFolder
from topologies.errors import InputError

__all__ = ["Analysis", "FaultOutcome", "analyse"]


@dataclass(frozen=True, slots=True)
class FaultOutcome:
    """What one fault did to the clients."""

    fault_id: str
    kind: str
    target: str
    applied_s: float | None  #: since the run's start
    outage_max_ms: float | None  #: None: nobody was affected, or nothing was measured
    clients: int  #: affected
    updates_lost: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a summary table shows; everything else is in the CSV files."""

    values: dict[str, float]  #: metric -> value; NaN: nothing to measure
    checks: tuple[Check, ...]
    faults: tuple[FaultOutcome, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that fail the run."""
        return tuple(check for check in self.checks if fails_the_run(check))

    @property
    def unfaithful(self) -> tuple[Check, ...]:
        """The fidelity checks that failed, whether or not they fail the run."""
        return tuple(check for check in self.checks if check.name.startswith("fidelity.") and check.verdict == "fail")


def analyse(folder: RunFolder) -> Analysis:
    """Read the raw records of a run, judge it, and write its CSV files (again).

    Raises: InputError if the folder holds no run that can be read, or cannot be written to.
    """
    run = RecordedRun.load(folder)
    invariants = check_invariants(run.history)
    witness = CaptureWitness(run)
    _write(folder, CAPTURES, witness.frames())
    deliveries = measure_deliveries(run)
    run = dataclasses.replace(run, history=dataclasses.replace(run.history, applied=()))  # of millions: makes room
    recovery = measure_recovery(run, deliveries)
    tables = {
        "messages": measure_messages(run),
        "links": measure_links(run),
        "nodes": measure_nodes(run),
        "objects": measure_objects(run),
    }
    values = measure_summary(run, deliveries, recovery, tables)
    checks = (
        *invariants,
        *judge_expectations(run, values),
        *judge_fidelity(run),
        *witness.checks(),
        *judge_twin(run, values),
    )
    values["checks.failed"] = float(sum(map(fails_the_run, checks)))
    values["checks.fidelity_failed"] = float(
        sum(check.name.startswith("fidelity.") and check.verdict == "fail" for check in checks)
    )
    fault_ids = [fault.fault_id for fault in run.faults]
    for table, frame in (
        (UPDATES, deliveries.updates),
        (DELIVERIES, deliveries.frames()),
        (FAULTS, measure_faults(run)),
        (RECOVERY, recovery),
        (MESSAGES, tables["messages"]),
        (LINKS, tables["links"]),
        (NODES, tables["nodes"]),
        (OBJECTS, tables["objects"]),
        (CHECKS, pd.DataFrame([msgspec.to_builtins(check) for check in checks], columns=CHECKS.names)),
        (SUMMARY, summary_frame(values, fault_ids)),
    ):
        _write(folder, table, frame)
    return Analysis(values, checks, tuple(_outcome(run, recovery, fault_id) for fault_id in fault_ids))


def _write(folder: RunFolder, table: Table, frames: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    try:
        write_csv(folder.path, table, frames)
    except OSError as error:
        raise InputError(
            where=str(folder.path / table.file),
            problem=f"cannot be written: {error.strerror}",
            remedy="make room, or copy the run folder to where you can write",
        ) from error


def _outcome(run: RecordedRun, recovery: pd.DataFrame, fault_id: str) -> FaultOutcome:
    fault = next(fault for fault in run.faults if fault.fault_id == fault_id)
    clients = recovery[(recovery["fault_id"] == fault_id) & recovery["updates_missed"].notna()]
    worst = pd.to_numeric(clients["outage_ms"]).max() if len(clients) else math.nan
    return FaultOutcome(
        fault_id=fault_id,
        kind=fault.kind,
        target=fault.target,
        applied_s=None if fault.applied_s is None else fault.applied_s - run.epoch_s,
        outage_max_ms=None if math.isnan(worst) else float(worst),
        clients=len(clients),
        updates_lost=int(pd.to_numeric(clients["updates_lost"]).sum()),
    )
