"""How faults on one process add up: no I/O, no clock.

A process is dead while any ``crash`` or ``disk-loss`` on it is active; else frozen while any ``freeze`` is; else it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.faults.model import Fault
from testbed.faults.targets import ProcessState, processes_of
from topologies.errors import InputError
from topologies.model import Topology


@dataclass(frozen=True, slots=True)
class SetProcess:
    """Bring a process into a state: end it without warning, start it anew, stop or continue it."""

    process: str
    state: ProcessState


@dataclass(frozen=True, slots=True)
class LoseDisk:
    """Remove everything that a dead process has stored."""

    process: str


ProcessEffect = SetProcess | LoseDisk


class ActiveProcessFaults:
    """The faults in force on processes."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._active: dict[str, tuple[Fault, tuple[str, ...]]] = {}

    def __contains__(self, fault_id: str) -> bool:
        return fault_id in self._active

    def state(self, process: str) -> ProcessState:
        """Return what *process* should be doing now."""
        kinds = {fault.kind for fault, processes in self._active.values() if process in processes}
        if kinds & {"crash", "disk-loss"}:
            return "dead"
        return "frozen" if "freeze" in kinds else "running"

    def apply(self, fault: Fault) -> tuple[ProcessEffect, ...]:
        """Put *fault* into force. Raises: InputError for a target that it cannot strike."""
        processes = processes_of(self._topology, fault.target)
        if fault.kind == "disk-loss":
            processes = tuple(name for name in processes if name.endswith(".proxy"))
            if not processes:
                raise InputError(
                    where=f"fault {fault.fault_id}",
                    problem=f"{fault.target} stores nothing",
                    remedy=f"name a service proxy{_example(self._topology)}",
                )
        before = [self.state(name) for name in processes]
        self._active[fault.fault_id] = (fault, processes)
        effects = self._difference(processes, before)
        if fault.kind == "disk-loss":
            effects += tuple(LoseDisk(name) for name in processes)
        return effects

    def heal(self, fault_id: str) -> tuple[ProcessEffect, ...]:
        """End one fault. Raises: KeyError if it is not active."""
        processes = self._active[fault_id][1]
        before = [self.state(name) for name in processes]
        del self._active[fault_id]
        return self._difference(processes, before)

    def _difference(self, processes: Sequence[str], before: Sequence[ProcessState]) -> tuple[ProcessEffect, ...]:
        effects: list[ProcessEffect] = []
        for name, was in zip(processes, before, strict=True):
            now = self.state(name)
            if now != was:
                if was == "dead" and now == "frozen":  # a process has to be there to be stopped
                    effects.append(SetProcess(name, "running"))
                effects.append(SetProcess(name, now))
        return tuple(effects)


def _example(topology: Topology) -> str:
    return f", such as {topology.proxies[0]}.proxy" if topology.proxies else "; in this mode there are none"
