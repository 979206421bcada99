"""Applies faults at their times, verifies each by reading back or observing, and writes down what was done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
import trio

from testbed.faults.composition import (
    ActiveFaults,
    Change,
    SetBlocked,
    SetCarrier,
    SetProperties,
    SetTargets,
)
from testbed.faults.message_faults import directions_of, rule_of
from testbed.faults.model import Fault, FaultApplied
from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.faults.processes import ActiveProcessFaults, CpuShare, LoseDisk, ProcessEffect, SetCpu, SetProcess
from testbed.faults.targets import (
    MESSAGE_KINDS,
    PROCESS_EVENTS,
    PROCESS_KINDS,
    ProcessState,
    lanes_of,
    links_of,
    processes_of,
)
from testbed.links.model import DIRECTIONS, Direction, Impairment, impairment_of
from testbed.links.netem.match import Match
from topologies.errors import HconfError, InputError, pick_one_of
from topologies.model import LinkProperties, Topology

#: How far the share of a processor that a starved process had may be from what it was to have: this part of it, or so much.
SHARE_TOLERANCE_RATIO: Final = 0.25
SHARE_TOLERANCE: Final = 0.05


class BreakableNetwork(Protocol):
    """What the injector needs of a network; `EmulatedNetwork` and `ControlledSimulation` have it."""

    async def set_carrier(self, link: str, up: bool) -> None: ...  # noqa: FBT001  as the link back end has it
    async def read_carrier(self, link: str) -> tuple[bool, bool]: ...
    async def change_link(self, link: str, **properties: Any) -> Mapping[Any, Any]: ...  # noqa: ANN401
    async def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> Mapping[Match, Impairment]: ...
    async def set_blocked(self, link: str, directions: Collection[Direction]) -> None: ...
    async def read_blocked(self, link: str) -> frozenset[Direction]: ...
    async def kill_process(self, process: str) -> None: ...
    async def restart_process(self, process: str) -> None: ...
    async def freeze_process(self, process: str) -> None: ...
    async def thaw_process(self, process: str) -> None: ...
    async def starve_process(self, process: str, cpu_ratio: float, period_ms: float) -> None: ...
    async def feed_process(self, process: str) -> float: ...
    def lose_disk(self, process: str) -> None: ...
    def process_state(self, process: str) -> ProcessState: ...
    async def add_message_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport: ...
    async def report_message_rule(self, fault_id: str) -> RuleReport: ...
    async def remove_message_rule(self, fault_id: str) -> RuleReport: ...
    async def inject_packet(self, link: str, direction: Direction, packet: str) -> bool: ...


Action = Literal["apply", "advance", "heal"]
_ORDER: Final[Mapping[Action, int]] = {"apply": 0, "advance": 1, "heal": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class FaultStep:
    """One entry of the schedule: a fault is applied, brought into its next phase, or healed."""

    due_s: float  #: CLOCK_MONOTONIC
    action: Action
    fault: Fault
    phase: int = 0


@dataclasses.dataclass(slots=True)
class _Injection:
    """Packets on their way, one a phase."""

    fault: Fault
    direction: Direction
    sent: int = 0


class FaultInjector:
    """All faults of one run, from the schedule and by hand. One at a time: each is applied and verified as a whole.

    Its rows are appended to the file *rows_path*, if there is to be one.

    Args:
        seed: of the run; it decides which packets a message fault hits.
    """

    def __init__(
        self,
        network: BreakableNetwork,
        topology: Topology,
        rows_path: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        self._network, self._topology, self._rows_path, self._clock = network, topology, rows_path, clock
        self._seed = seed
        self._on_links = ActiveFaults(topology)
        self._on_processes = ActiveProcessFaults(topology)
        self._on_messages: dict[str, Fault] = {}
        self._injections: dict[str, _Injection] = {}
        self._starved: dict[str, float] = {}  # process -> the share of a processor that it is to have
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
        steps: list[tuple[float, int, int, FaultStep]] = []

        def add(due_s: float, action: Action, order: int, fault: Fault, phase: int = 0) -> None:
            steps.append((due_s, _ORDER[action], order, FaultStep(due_s, action, fault, phase)))

        for order, fault in enumerate(faults):
            begin_s = epoch_s + fault.at_s
            add(begin_s, "apply", order, fault)
            for phase, at_s in enumerate(fault.phases_s(), start=1):
                add(begin_s + at_s, "advance", order, fault, phase)
            if fault.duration_s is not None:
                add(begin_s + fault.duration_s, "heal", order, fault)
        return [step for *_, step in sorted(steps, key=lambda entry: entry[:3])]

    async def take(self, step: FaultStep) -> None:
        """Do what is due now; what a hand, or another fault, has ended meanwhile is let be."""
        fault = step.fault
        match step.action:
            case "apply":
                try:
                    await self.apply(fault, intended_s=step.due_s)
                except InputError as error:  # not as things stood when the schedule was checked
                    is_so_already = fault.kind in ("link-up", "thaw")
                    row = self._row(fault, self._clock(), step.due_s, verified=is_so_already)
                    self._write(msgspec.structs.replace(row, detail=error.problem))
            case "advance" if self.is_active(fault.fault_id):
                await self._advance(fault.fault_id, step.phase)
            case "heal" if self.is_active(fault.fault_id):
                await self.heal(fault.fault_id, by="schedule")

    async def apply(self, fault: Fault, *, intended_s: float | None = None) -> FaultApplied:
        """Apply *fault* now, whatever its `at_s`; healing it after `for_s` is the caller's (`run` does it).

        Returns: its row, `verified` false if the network did not do it.
        Raises: InputError for an unknown target, an ID that is taken, or where there is nothing to end; nothing is changed then.
        """
        async with self._one_at_a_time:
            fault = dataclasses.replace(fault, target=self._resolved(fault))
            if fault.fault_id in self.rows:
                raise InputError(
                    where=f"fault {fault.fault_id}", problem="that ID is taken", remedy="give it one of its own"
                )
            applied_s = self._clock()
            healed: tuple[str, ...] = ()
            if fault.kind in PROCESS_KINDS or fault.kind in PROCESS_EVENTS:
                on_processes = self._on_processes.apply(fault)
                healed = on_processes.healed
                verified, detail = await self._carry_out_on_processes(fault.target, on_processes.effects)
            elif fault.kind in MESSAGE_KINDS:
                verified, detail = await self._add_rule(fault)
            elif fault.kind == "inject":
                verified, detail = await self._begin_injection(fault)
            else:
                change = self._on_links.apply(fault)
                healed = change.healed
                verified, detail = await self._carry_out(change)
            row = self._row(fault, applied_s, intended_s, verified=verified)
            if fault.kind in MESSAGE_KINDS:
                row = msgspec.structs.replace(row, packets_matched=0, packets_hit=0)
            elif fault.kind == "inject":
                row = msgspec.structs.replace(row, packets_hit=self._injections[fault.fault_id].sent)
            row = msgspec.structs.replace(row, detail=detail)
            self._write(row)
            for fault_id in healed:
                self._close_row(fault_id, applied_s, verified=verified, by=fault.fault_id)
            return row

    async def heal(self, fault_id: str, *, by: str = "hand") -> FaultApplied:
        """End one fault now. Returns: its row. Raises: InputError if it is not active."""
        async with self._one_at_a_time:
            if not self.is_active(fault_id):
                problem = "is not active" if fault_id not in self.rows else "is not active any more"
                raise InputError(where=f"fault {fault_id}", problem=problem, remedy=pick_one_of(fault_id, self.active))
            healed_s, target = self._clock(), self.rows[fault_id].target
            if fault_id in self._on_messages:
                await self._remove_rule(fault_id, healed_s, by)
            elif fault_id in self._injections:
                del self._injections[fault_id]
                self._close_row(fault_id, healed_s, verified=True, by=by)
            elif fault_id in self._on_processes:
                on_processes = self._on_processes.heal(fault_id)
                verified, detail = await self._carry_out_on_processes(target, on_processes.effects)
                self._close_row(fault_id, healed_s, verified=verified, by=by, detail=detail)
            else:
                verified, detail = await self._carry_out(self._on_links.heal(fault_id))
                self._close_row(fault_id, healed_s, verified=verified, by=by, detail=detail)
            return self.rows[fault_id]

    @property
    def active(self) -> list[str]:
        """IDs of the faults in force, in the order in which they were applied."""
        return [fault_id for fault_id in self.rows if self.is_active(fault_id)]

    async def finish(self) -> None:
        """Write down what the message faults and starvations that are still in force have come to: the run is over."""
        async with self._one_at_a_time:
            for fault_id in list(self._on_messages):
                try:
                    report = await self._network.report_message_rule(fault_id)
                except (HconfError, OSError) as error:
                    self._write(msgspec.structs.replace(self.rows[fault_id], verified=False, detail=str(error)))
                    continue
                row = _with_report(self.rows[fault_id], report)
                if report.exhausted_s is not None:
                    row = msgspec.structs.replace(row, healed_s=report.exhausted_s, healed_by="count")
                self._write(row)

    def is_active(self, fault_id: str) -> bool:
        """Tell whether a fault is in force."""
        parts = (self._on_links, self._on_processes, self._on_messages, self._injections)
        return any(fault_id in part for part in parts)

    def _resolved(self, fault: Fault) -> str:
        """Return the target as the topology has it: a link's ends may be in either order. Raises: InputError."""
        links = links_of(self._topology, fault.kind, fault.target)
        return links[0].name if "-" in fault.target and links else fault.target

    # ------------------------------------------------------------------ links

    async def _advance(self, fault_id: str, phase: int) -> None:
        async with self._one_at_a_time:
            if fault_id in self._injections:
                verified, detail = await self._inject(self._injections[fault_id])
                row = self.rows[fault_id]
                hit = self._injections[fault_id].sent
                self.rows[fault_id] = msgspec.structs.replace(
                    row, verified=row.verified and verified, packets_hit=hit, detail=row.detail or detail
                )
            elif fault_id in self._on_links:
                verified, detail = await self._carry_out(self._on_links.advance(fault_id, phase))
                if not verified:
                    row = self.rows[fault_id]
                    self._write(msgspec.structs.replace(row, verified=False, detail=row.detail or detail))

    async def _carry_out(self, change: Change) -> tuple[bool, str]:
        """Make the change. Returns: whether the links are now, as read back, what they should be; else what they are not."""
        try:
            for effect in change.effects:
                match effect:
                    case SetCarrier(link, up):
                        await self._network.set_carrier(link, up)
                    case SetBlocked(link, directions):
                        await self._network.set_blocked(link, directions)
                    case SetTargets(link, direction, targets):
                        wanted = {match: impairment_of(properties) for match, properties in targets.items()}
                        if await self._network.set_targets(link, direction, wanted) != wanted:
                            return False, f"{link} does not impair the frames that it should"
                    case SetProperties():
                        if not await self._set_properties(effect):
                            return False, f"{effect.link} has not the properties that it was given"
            for link in change.links:
                state = self._on_links.state(link)
                carrier = state.carrier
                if await self._network.read_blocked(link) != state.blocked:
                    return False, f"{link} does not swallow what it should"
                if await self._network.read_carrier(link) != (carrier, carrier):
                    return False, f"the carrier of {link} is not {'up' if carrier else 'down'} at both ends"
        except (HconfError, OSError) as error:
            return False, str(error)  # it did not take; the row says so, and the run's fidelity check fails
        return True, ""

    async def _set_properties(self, effect: SetProperties) -> bool:
        wanted = dataclasses.asdict(effect.properties)
        if effect.direction is not None:
            wanted["direction"] = effect.direction
        read_back = await self._network.change_link(effect.link, **wanted)
        return all(
            _has(impairment, effect.properties)
            for direction, impairment in read_back.items()
            if effect.direction in (None, direction)
        )

    # ------------------------------------------------------------------ processes

    async def _carry_out_on_processes(self, target: str, effects: Iterable[ProcessEffect]) -> tuple[bool, str]:
        """Make the change. Returns: whether the processes of *target* now are, as read back, what they should be; else why not."""
        network, wrong = self._network, ""
        try:
            for effect in effects:
                match effect:
                    case LoseDisk(process):
                        network.lose_disk(process)
                    case SetCpu(process, CpuShare(cpu_ratio, period_ms)):
                        await network.starve_process(process, cpu_ratio, period_ms)
                        self._starved[process] = cpu_ratio
                    case SetCpu(process, _):
                        wrong = wrong or self._starvation_missed(process, await network.feed_process(process))
                    case SetProcess(process, "dead"):
                        await network.kill_process(process)
                    case SetProcess(process, "frozen"):
                        await network.freeze_process(process)
                    case SetProcess(process, "running") if network.process_state(process) == "frozen":
                        await network.thaw_process(process)
                    case SetProcess(process, _):
                        await network.restart_process(process)
            for process in processes_of(self._topology, target):
                state = network.process_state(process)
                if state != self._on_processes.state(process):
                    wrong = wrong or f"{process} is {state}"
        except (HconfError, OSError) as error:
            return False, str(error)
        return not wrong, wrong

    def _starvation_missed(self, process: str, measured: float) -> str:
        """Return what is wrong with the share of a processor that a process had, nothing if it is near what was asked for."""
        asked = self._starved.pop(process)
        if abs(measured - asked) <= max(SHARE_TOLERANCE, SHARE_TOLERANCE_RATIO * asked):
            return ""
        return f"{process} could run {measured:.0%} of the time, not {asked:.0%}"

    # ------------------------------------------------------------------ messages

    async def _add_rule(self, fault: Fault) -> tuple[bool, str]:
        rule = rule_of(fault, seed=self._seed)
        lanes = [
            (link.name, direction)
            for link, direction in directions_of(
                lanes_of(
                    self._topology,
                    fault.kind,
                    fault.target,
                    sender=fault.sender,
                    receiver=fault.parameters.get("receiver"),
                )
            )
        ]
        try:
            report = await self._network.add_message_rule(rule, lanes)
        except InputError:
            raise
        except (HconfError, OSError) as error:
            self._on_messages.pop(fault.fault_id, None)
            return False, str(error)
        self._on_messages[fault.fault_id] = fault
        if report.lanes != len(lanes):
            return False, f"it is in force on {report.lanes} of {len(lanes)} directions of links"
        return True, ""

    async def _remove_rule(self, fault_id: str, healed_s: float, by: str) -> None:
        del self._on_messages[fault_id]
        row = self.rows[fault_id]
        try:
            report = await self._network.remove_message_rule(fault_id)
        except (HconfError, OSError) as error:
            self._write(
                msgspec.structs.replace(row, healed_s=healed_s, verified=False, healed_by=by, detail=str(error))
            )
            return
        row = _with_report(row, report)
        if report.exhausted_s is not None and report.exhausted_s < healed_s:
            healed_s, by = report.exhausted_s, "count"
        self._write(msgspec.structs.replace(row, healed_s=healed_s, healed_by=by))

    async def _begin_injection(self, fault: Fault) -> tuple[bool, str]:
        link = self._topology.link(fault.target)
        direction = DIRECTIONS[0] if fault.sender == link.a else DIRECTIONS[1]
        injection = self._injections[fault.fault_id] = _Injection(fault, direction)
        return await self._inject(injection)

    async def _inject(self, injection: _Injection) -> tuple[bool, str]:
        fault = injection.fault
        try:
            for packet in fault.parameters["hex"]:
                if not await self._network.inject_packet(fault.target, injection.direction, packet):
                    return False, f"{fault.target} did not take it: it is down"
                injection.sent += 1
        except (HconfError, OSError) as error:
            return False, str(error)
        return True, ""

    # ------------------------------------------------------------------ rows

    def _row(self, fault: Fault, applied_s: float, intended_s: float | None, *, verified: bool) -> FaultApplied:
        parameters = {
            **fault.parameters,
            **({} if fault.for_s is None else {"for_s": fault.for_s}),
            **({} if fault.sender is None else {"sender": fault.sender}),
        }
        return FaultApplied(
            fault_id=fault.fault_id,
            kind=fault.kind,
            target=fault.target,
            parameters=parameters,
            intended_s=applied_s if intended_s is None else intended_s,
            applied_s=applied_s,
            verified=verified,
            healed_s=None,
            source=fault.source,
        )

    def _close_row(self, fault_id: str, healed_s: float, *, verified: bool, by: str, detail: str = "") -> None:
        row = self.rows[fault_id]
        self._write(
            msgspec.structs.replace(
                row,
                healed_s=healed_s,
                verified=row.verified and verified,
                healed_by=by,
                detail=row.detail or detail,
            )
        )

    def _write(self, row: FaultApplied) -> None:
        self.rows[row.fault_id] = row
        if self._rows_path is None:
            return
        with self._rows_path.open("ab") as rows:  # opened for each: a run that is killed loses none
            rows.write(msgspec.json.encode(row) + b"\n")


def _with_report(row: FaultApplied, report: RuleReport) -> FaultApplied:
    """Return the row of a message fault with what came of it. One that never met a packet that it was meant for did not take."""
    detail = row.detail
    if report.errors:
        code = "edit" if row.kind == "forge" and report.matched else "predicate"
        detail = detail or f"the {code} failed on {report.errors} packets, the last time with {report.last_error}"
    if not report.matched:
        detail = detail or "no packet that it was meant for came by"
    return msgspec.structs.replace(
        row,
        verified=row.verified and report.matched > 0,
        packets_matched=report.matched,
        packets_hit=report.hit,
        detail=detail,
    )


def _has(read_back: object, wanted: LinkProperties) -> bool:
    """Return whether one direction's impairment, as read back, has the wanted properties."""
    return all(getattr(read_back, name) == value for name, value in dataclasses.asdict(wanted).items())
