"""The simulated twin of an emulated run: the same file and seed once more, in virtual time, in a run folder of its own.

Its processes take as long for each event as those of the emulated run took, so what is left between both is what either of
them does wrong: `experiments.analysis.twin` judges that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from experiments.processing_times import read_processing, times_of_processes
from experiments.progress import RunProgress
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from testbed.simulation.processing import ProcessTimes, pooled


def processing_of_twin(raw: Path, clock: Mapping[str, Any], plan: NetworkPlan) -> dict[str, ProcessTimes]:
    """Return how long each process of the twin takes for an event; one that wrote nothing, being killed early, as its kind.

    Args:
        raw: where the emulated run has its records.
        clock: of the emulated run's manifest.
        plan: of the network.
    """
    measured = times_of_processes(read_processing(raw), clock)

    def kind(process: str) -> tuple[str, str]:
        node, _, part = process.rpartition(".")
        return plan.topology.node(node).role, part

    def times_of(process: str) -> ProcessTimes:
        alike = (times for other, times in measured.items() if kind(other) == kind(process))
        return measured[process] if process in measured else pooled(alike)

    return {process: times_of(process) for process, _ in build_node_configs(plan)}


class ProgressOfTwin:
    """Tells a progress that is shown already."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress

    def phase(self, name: str) -> None:
        self._progress.phase(f"twin, {name}")

    def running(self, at_s: float, duration_s: float) -> None:
        self._progress.running(at_s, duration_s)

    def note(self, text: str) -> None:
        self._progress.note(f"twin: {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass
