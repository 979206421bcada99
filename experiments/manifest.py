"""What manifest.json says from the start of a run on; the runner adds what comes of it."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import Any, Final

from experiments.machine import describe_commit, describe_machine, describe_versions, describe_vm
from experiments.run_folder import SCHEMA_VERSION
from experiments.run_mode import RunMode
from experiments.spec import Experiment

#: Keys of manifest.json that say where, when and by which hconf a run was made. All the rest of the folder of a simulated
#: run follows from file and seed, byte for byte.
HOST_FACTS: Final = (
    *("experiment_file", "git_commit", "git_dirty", "kernel", "machine", "simulator", "start", "versions"),
)


def _spell_backends(experiment: Experiment) -> str:
    """Return the back end of all links, or ``mixed``."""
    backends = {link.backend for link in experiment.topology.links}
    return backends.pop() if len(backends) == 1 else "mixed"


def first_manifest(experiment: Experiment, now: datetime, mode: RunMode) -> dict[str, Any]:
    """Return the manifest of a run of *experiment* that begins at *now*."""
    simulated = mode == "simulated"
    run_id = (
        f"simulated-{experiment.settings.name}" if simulated else f"{now:%Y%m%dT%H%M%S%f}-{experiment.settings.name}"
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id[:40],
        "experiment": experiment.resolved,
        "experiment_file": str(experiment.path),
        "traces": [
            {"workload": index + 1, "rows": trace.rows, "replayed": trace.replayed, "sha256": trace.sha256}
            for index, trace in experiment.traces.items()
        ],
        "seed": experiment.settings.seed,
        "mode": mode,
        "link_backend": "simulated" if simulated else _spell_backends(experiment),
        "link_backends": {} if simulated else {link.name: link.backend for link in experiment.topology.links},
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "versions": describe_versions(),
        **describe_commit(),
        "machine": describe_machine(),
        "vm": describe_vm(),
        "start": now.isoformat(timespec="milliseconds"),
        "duration_s": None,
        "verdict": "running",
        "clock": {},
        "phases": {},
    }
