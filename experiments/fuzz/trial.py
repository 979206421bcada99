"""One schedule, run in the simulator and judged; nothing is written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import trio

from experiments.checker import check_invariants
from experiments.flow import ConferenceFlow, RunFailureError, plan_of
from experiments.fuzz.case import Case, draw_case
from experiments.history import FaultRecord, history_of
from experiments.recorded_run import nodes_struck, proxy_only
from experiments.simulated_run import no_search_for_cycles, simulate
from experiments.spec import Experiment, parse_experiment
from experiments.toml_text import to_toml
from proxy.records import Record
from testbed.faults.targets import KILLING_KINDS


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one schedule."""

    seed: int
    violations: tuple[str, ...]  #: "invariant: what happened"; empty: all is well
    virtual_s: float

    @property
    def kinds(self) -> frozenset[str]:
        """The names of the invariants that did not hold."""
        return frozenset(violation.partition(":")[0] for violation in self.violations)


class _Silence:
    """A `RunProgress` that says nothing."""

    def phase(self, name: str) -> None: ...
    def running(self, at_s: float, duration_s: float) -> None: ...
    def note(self, text: str) -> None: ...
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def try_seed(seed: int) -> Trial:
    """Draw the schedule that *seed* stands for and try it."""
    return try_case(draw_case(seed))


def try_case(case: Case) -> Trial:
    """Run a schedule. Raises: InputError if it is no valid experiment."""
    return try_experiment(parse_experiment(to_toml(case), Path(f"{case['experiment']['name']}.toml")))


def try_experiment(experiment: Experiment) -> Trial:
    """Run an experiment in the simulator and check every invariant. An exception out of a core is a violation too."""
    with no_search_for_cycles():
        return _try(experiment)


def _try(experiment: Experiment) -> Trial:
    records: dict[str, list[Record]] = {}

    def keep(process: str, record: Record) -> None:
        records.setdefault(process, []).append(record)

    network = simulate(experiment, plan_of(experiment, run_id="fuzz", run_dir=Path()), keep)
    started_s, quiesced_s = network.now_s(), 0.0
    flow = ConferenceFlow(experiment, network, network, network.joined, _Silence())

    async def hold() -> None:
        nonlocal quiesced_s
        await flow.hold()
        quiesced_s = network.now_s()
        await flow.take_leave()

    violations: list[str] = []
    try:
        trio.run(hold)
    except RunFailureError as failure:
        violations.append(f"run.complete: {failure}")
    except Exception as error:  # noqa: BLE001  # whatever comes out of a core is what is looked for
        violations.append(f"exception: {type(error).__name__}: {error}")
    else:
        if flow.unsettled:
            violations.append(f"run.settled: {flow.unsettled}")
        faults = [msgspec.convert(msgspec.to_builtins(row), FaultRecord) for row in flow.faults.values()]
        history = history_of(
            (record for process in sorted(records) for record in records[process]),
            crashed=nodes_struck(experiment.topology, faults, KILLING_KINDS),
            disks_lost=nodes_struck(experiment.topology, faults, {"disk-loss"}),
            proxy_only=proxy_only(experiment.topology, faults),
            quiesced_s=quiesced_s,
        )
        violations += [
            f"{check.name}: {check.detail or check.measured}"
            for check in check_invariants(history)
            if check.verdict == "fail"
        ]
    return Trial(experiment.settings.seed, tuple(violations), network.now_s() - started_s)
