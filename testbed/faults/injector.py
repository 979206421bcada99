"""Applies faults at their times, verifies each by reading back, and writes down what was done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from testbed.faults.composition import ActiveFaults, Change, SetCarrier
from testbed.faults.model import Fault, FaultApplied
from testbed.faults.processes import ActiveProcessFaults, LoseDisk, ProcessEffect, SetProcess
from testbed.faults.targets import PROCESS_KINDS, ProcessState, processes_of
from topologies.errors import HconfError, InputError, pick_one_of
from topologies.model import LinkProperties, Topology


class BreakableNetwork(Protocol):
    """What the injector needs of a network; `EmulatedNetwork` has it."""

    async def set_carrier(self, link: str, up: bool) -> None: ...  # noqa: FBT001  as the link back end has it
    async def read_carrier(self, link: str) -> tuple[bool, bool]: ...
    async def change_link(self, link: str, **properties: Any) -> Mapping[Any, Any]: ...  # noqa: ANN401
    async def kill_process(self, process: str) -> None: ...
    async def restart_process(self, process: str) -> None: ...
    async def freeze_process(self, process: str) -> None: ...
    async def thaw_process(self, process: str) -> None: ...
    def lose_disk(self, process: str) -> None: ...
    def process_state(self, process: str) -> ProcessState: ...


@dataclasses.dataclass(frozen=True, slots=True)
class FaultStep:
    """One entry of the schedule: a fault is applied, or healed."""

    due_s: float  #: CLOCK_MONOTONIC
    heals: bool
    fault: Fault


class FaultInjector:
    """All faults of one run, from the schedule and by hand. One at a time: each is applied and verified as a whole.

    Its rows are appended to the file *rows_path*, if there is to be one.
    """

    def __init__(
        self,
        network: BreakableNetwork,
        topology: Topology,
        rows_path: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network, self._topology, self._rows_path, self._clock = network, topology, rows_path, clock
        self._active = ActiveFaults(
            {link.name: link.properties for link in topology.links},
            {link.name: link.back for link in topology.links if link.back is not None},
        )
        self._on_processes = ActiveProcessFaults(topology)
        self._one_at_a_time = trio.Lock()
        self.rows: dict[str, FaultApplied] = {}  #: fault_id -> its latest row

    async def run(self, faults: Iterable[Fault], *, epoch_s: float) -> None:
        """Apply and heal *faults* at their times; returns when the last one is done, or is cancelled.

        Args:
            faults: their `at_s` counts from *epoch_s*, their `for_s` from the intended time.
            epoch_s: CLOCK_MONOTONIC.
        """
        for step in self.timeline(faults, epoch_s=epoch_s):
            await trio.sleep(max(0.0, step.due_s - self._clock()))
            await self.take(step)

    @staticmethod
    def timeline(faults: Iterable[Fault], *, epoch_s: float) -> list[FaultStep]:
        """Return what is to be done, in the order of time; arguments as those of `run`.

        At equal times faults are applied before others are healed, in the order given: a link that is down until
        12 s for one reason and from 12 s on for another stays down.
        """
        timeline: list[tuple[float, bool, int, Fault]] = []
        for order, fault in enumerate(faults):
            timeline.append((epoch_s + fault.at_s, False, order, fault))
            if fault.for_s is not None:
                timeline.append((epoch_s + fault.at_s + fault.for_s, True, order, fault))
        return [
            FaultStep(due_s, heals, fault) for due_s, heals, _, fault in sorted(timeline, key=lambda entry: entry[:3])
        ]

    async def take(self, step: FaultStep) -> None:
        """Do what is due now."""
        if not step.heals:
            await self.apply(step.fault, intended_s=step.due_s)
        elif self._is_active(step.fault.fault_id):  # else a `link-up` or a hand was faster
            await self.heal(step.fault.fault_id)

    async def apply(self, fault: Fault, *, intended_s: float | None = None) -> FaultApplied:
        """Apply *fault* now, whatever its `at_s`; healing it after `for_s` is the caller's (`run` does it).

        Returns: its row, `verified` false if the network did not do it.
        Raises: InputError for an unknown target or an ID that is taken; nothing is changed then.
        """
        async with self._one_at_a_time:
            is_on_process = fault.kind in PROCESS_KINDS
            if not is_on_process:
                fault = dataclasses.replace(fault, target=self._topology.link(fault.target).name)
            if fault.fault_id in self.rows:
                raise InputError(
                    where=f"fault {fault.fault_id}", problem="that ID is taken", remedy="give it one of its own"
                )
            applied_s = self._clock()
            if is_on_process:
                change = Change(())
                verified = await self._carry_out_on_processes(fault.target, self._on_processes.apply(fault))
            else:
                change = self._active.apply(fault)
                verified = await self._carry_out(fault.target, change)
            row = FaultApplied(
                fault_id=fault.fault_id,
                kind=fault.kind,
                target=fault.target,
                parameters={
                    **fault.parameters,
                    **({} if fault.for_s is None else {"for_s": fault.for_s}),
                    **({} if fault.sender is None else {"sender": fault.sender}),
                },
                intended_s=applied_s if intended_s is None else intended_s,
                applied_s=applied_s,
                verified=verified,
                healed_s=None,
                source=fault.source,
            )
            self._write(row)
            self._close_rows(change, applied_s, verified=verified)
            return row

    async def heal(self, fault_id: str) -> FaultApplied:
        """End one fault now. Returns: its row. Raises: InputError if it is not active."""
        async with self._one_at_a_time:
            if not self._is_active(fault_id):
                active = [known for known in self.rows if self._is_active(known)]
                raise InputError(
                    where=f"fault {fault_id}", problem="is not active", remedy=pick_one_of(fault_id, active)
                )
            healed_s, target = self._clock(), self.rows[fault_id].target
            if fault_id in self._on_processes:
                change = Change((), (fault_id,))
                verified = await self._carry_out_on_processes(target, self._on_processes.heal(fault_id))
            else:
                change = self._active.heal(fault_id)
                verified = await self._carry_out(target, change)
            self._close_rows(change, healed_s, verified=verified)
            return self.rows[fault_id]

    @property
    def active(self) -> list[str]:
        """IDs of the faults in force, in the order in which they were applied."""
        return [fault_id for fault_id in self.rows if self._is_active(fault_id)]

    def _is_active(self, fault_id: str) -> bool:
        return fault_id in self._active or fault_id in self._on_processes

    async def _carry_out(self, link: str, change: Change) -> bool:
        """Make the change and return whether the link is now, as read back, what it should be."""
        try:
            for effect in change.effects:
                if isinstance(effect, SetCarrier):
                    await self._network.set_carrier(effect.link, effect.up)
                else:
                    wanted = dataclasses.asdict(effect.properties)
                    if effect.direction is not None:
                        wanted["direction"] = effect.direction
                    read_back = await self._network.change_link(effect.link, **wanted)
                    for direction, impairment in read_back.items():
                        if effect.direction in (None, direction) and not _has(impairment, effect.properties):
                            return False
            carrier = self._active.carrier(link)
            return await self._network.read_carrier(link) == (carrier, carrier)
        except (HconfError, OSError):
            return False  # it did not take; the row says so, and the run's fidelity check fails

    async def _carry_out_on_processes(self, target: str, effects: Iterable[ProcessEffect]) -> bool:
        """Make the change and return whether the processes of *target* now are, as read back, what they should be."""
        network = self._network
        try:
            for effect in effects:
                match effect:
                    case LoseDisk(process):
                        network.lose_disk(process)
                    case SetProcess(process, "dead"):
                        await network.kill_process(process)
                    case SetProcess(process, "frozen"):
                        await network.freeze_process(process)
                    case SetProcess(process, "running") if network.process_state(process) == "frozen":
                        await network.thaw_process(process)
                    case SetProcess(process, _):
                        await network.restart_process(process)
            return all(
                network.process_state(process) == self._on_processes.state(process)
                for process in processes_of(self._topology, target)
            )
        except (HconfError, OSError):
            return False

    def _close_rows(self, change: Change, healed_s: float, *, verified: bool) -> None:
        for fault_id in change.healed:
            row = self.rows[fault_id]
            self._write(msgspec.structs.replace(row, healed_s=healed_s, verified=row.verified and verified))

    def _write(self, row: FaultApplied) -> None:
        self.rows[row.fault_id] = row
        if self._rows_path is None:
            return
        with self._rows_path.open("ab") as rows:  # opened for each: a run that is killed loses none
            rows.write(msgspec.json.encode(row) + b"\n")


def _has(read_back: object, wanted: LinkProperties) -> bool:
    """Return whether one direction's impairment, as read back, has the wanted properties."""
    return all(getattr(read_back, name) == value for name, value in dataclasses.asdict(wanted).items())
