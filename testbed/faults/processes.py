"""How faults on processes add up: no I/O, no clock.

A process is dead while any ``crash``, ``disk-loss`` or ``login-outage`` on it is active; else frozen while any ``freeze`` is (or an
outage that freezes); else it runs, with the least of the shares of a processor that a ``starve`` leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.faults.model import Fault
from testbed.faults.targets import ProcessState, processes_of
from topologies.errors import InputError
from topologies.model import Topology


@dataclass(frozen=True, slots=True)
class CpuShare:
    """A process runs for this part of each period, and is stopped for the rest of it."""

    cpu_ratio: float  #: above 0, below 1
    period_ms: float


@dataclass(frozen=True, slots=True)
class SetProcess:
    """Bring a process into a state: end it without warning, start it anew, stop or continue it."""

    process: str
    state: ProcessState


@dataclass(frozen=True, slots=True)
class SetCpu:
    """Starve a running process, or let it run whenever it wants to."""

    process: str
    share: CpuShare | None  #: None: all that there is


@dataclass(frozen=True, slots=True)
class LoseDisk:
    """Remove everything that a dead process has stored."""

    process: str


ProcessEffect = SetProcess | SetCpu | LoseDisk


@dataclass(frozen=True, slots=True)
class ProcessChange:
    """What applying or healing a fault comes to."""

    effects: tuple[ProcessEffect, ...]  #: empty if another fault hides it
    healed: tuple[str, ...] = ()  #: IDs of the faults that are over by it


@dataclass(frozen=True, slots=True)
class _Condition:
    state: ProcessState
    share: CpuShare | None  #: of one that runs


class ActiveProcessFaults:
    """The faults in force on processes."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._active: dict[str, tuple[Fault, tuple[str, ...]]] = {}

    def __contains__(self, fault_id: str) -> bool:
        return fault_id in self._active

    def state(self, process: str) -> ProcessState:
        """Return what *process* should be doing now."""
        ways = {way_of(fault) for fault, processes in self._active.values() if process in processes}
        return "dead" if "dead" in ways else "frozen" if "frozen" in ways else "running"

    def share(self, process: str) -> CpuShare | None:
        """Return the share of a processor that *process* should have; None: all that it wants, or it does not run."""
        if self.state(process) != "running":
            return None
        shares = [
            CpuShare(float(fault.parameters["cpu_ratio"]), float(fault.parameters["period_ms"]))
            for fault, processes in self._active.values()
            if fault.kind == "starve" and process in processes
        ]
        return min(shares, key=lambda share: share.cpu_ratio, default=None)

    def apply(self, fault: Fault) -> ProcessChange:
        """Put *fault* into force.

        Raises: InputError for a target that it cannot strike, or where there is nothing to thaw. Nothing has changed then.
        """
        processes = self._struck(fault)
        before = [self._condition(name) for name in processes]
        if fault.kind in ("thaw", "restart"):
            return self._end_others(fault, processes, before)
        self._active[fault.fault_id] = (fault, processes)
        effects = self._difference(processes, before)
        if fault.kind == "disk-loss":
            effects += tuple(LoseDisk(name) for name in processes)
        return ProcessChange(effects)

    def heal(self, fault_id: str) -> ProcessChange:
        """End one fault. Raises: KeyError if it is not active."""
        processes = self._active[fault_id][1]
        before = [self._condition(name) for name in processes]
        del self._active[fault_id]
        return ProcessChange(self._difference(processes, before), (fault_id,))

    def _struck(self, fault: Fault) -> tuple[str, ...]:
        processes = processes_of(self._topology, fault.target)
        if fault.kind == "disk-loss":
            processes = tuple(name for name in processes if name.endswith(".proxy"))
            if not processes:
                raise self._refuse(
                    fault,
                    f"{fault.target} stores nothing",
                    f"name a service proxy{_example(self._topology)}",
                )
        if fault.kind == "login-outage" and processes[0].partition(".")[0] not in self._topology.login_servers:
            raise self._refuse(fault, f"{fault.target} is no login server", "leave the target out")
        return processes

    def _end_others(self, fault: Fault, processes: tuple[str, ...], before: Sequence[_Condition]) -> ProcessChange:
        """``thaw`` ends what freezes these processes, ``restart`` also what ended them, and starts them anew."""
        ended = {"frozen"} if fault.kind == "thaw" else {"frozen", "dead"}
        struck = {
            other_id: other
            for other_id, (other, theirs) in self._active.items()
            if way_of(other) in ended and not set(theirs).isdisjoint(processes)
        }
        if fault.kind == "thaw" and not struck:
            raise self._refuse(fault, f"{fault.target} is not frozen", "leave it out")
        for other_id, other in struck.items():
            if not set(self._active[other_id][1]) <= set(processes):
                raise self._refuse(
                    fault,
                    f"{other_id} has struck all of {other.target}",
                    f"{fault.kind} {other.target}, or heal {other_id}",
                )
        for other_id in struck:
            del self._active[other_id]
        killed: tuple[ProcessEffect, ...] = ()
        if fault.kind == "restart":
            killed = tuple(
                SetProcess(name, "dead") for name, was in zip(processes, before, strict=True) if was.state != "dead"
            )
            if any(was.share is not None for was in before):
                starved = zip(processes, before, strict=True)
                killed = (*(SetCpu(name, None) for name, was in starved if was.share is not None), *killed)
            before = [_Condition("dead", None)] * len(processes)
        return ProcessChange((*killed, *self._difference(processes, before)), tuple(struck))

    def _condition(self, process: str) -> _Condition:
        return _Condition(self.state(process), self.share(process))

    def _difference(self, processes: Sequence[str], before: Sequence[_Condition]) -> tuple[ProcessEffect, ...]:
        effects: list[ProcessEffect] = []
        for name, was in zip(processes, before, strict=True):
            now = self._condition(name)
            if was.share is not None and now.share != was.share:
                effects.append(SetCpu(name, None))
            if now.state != was.state:
                if was.state == "dead" and now.state == "frozen":  # a process has to be there to be stopped
                    effects.append(SetProcess(name, "running"))
                effects.append(SetProcess(name, now.state))
            if now.share is not None and now.share != was.share:
                effects.append(SetCpu(name, now.share))
        return tuple(effects)

    @staticmethod
    def _refuse(fault: Fault, problem: str, remedy: str) -> InputError:
        return InputError(where=f"fault {fault.fault_id}", problem=problem, remedy=remedy)


def way_of(fault: Fault) -> ProcessState:
    """Return what a fault makes of the processes that it strikes."""
    match fault.kind:
        case "crash" | "disk-loss":
            return "dead"
        case "freeze":
            return "frozen"
        case "login-outage":
            return "frozen" if fault.parameters.get("how") == "freeze" else "dead"
        case _:
            return "running"


def _example(topology: Topology) -> str:
    return f", such as {topology.proxies[0]}.proxy" if topology.proxies else "; in this mode there are none"
