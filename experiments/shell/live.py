"""The run behind the prompt: asks and tells it from the main thread, and writes down what was typed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import msgspec
import trio

from experiments.flow import injectable
from experiments.shell.fault_line import NO_END_S, parse_fault
from experiments.shell.flow import ShellFlow
from experiments.shell.status_view import Moment
from experiments.spec import Experiment
from experiments.spec_schema import Fault, fault_ids, kind_of
from experiments.typed import (
    SHELL_FILE,
    CaptureTyped,
    FaultTyped,
    HealTyped,
    LineTyped,
    Marked,
    PublishTyped,
    TypedLog,
    healed_after,
)
from testbed.emulation.control import NodeError, NodeGoneError, NodeRefusedError
from testbed.emulation.network import EmulatedNetwork
from testbed.faults.injector import FaultInjector, FaultStep
from testbed.faults.model import FaultApplied
from testbed.shell.cli import NetworkGoneError
from topologies.errors import InputError, pick_one_of

if TYPE_CHECKING:
    from experiments.analysis import Analysis
    from experiments.runner import RunInProgress

P = ParamSpec("P")
T = TypeVar("T")

#: A node that is frozen does not answer; nobody wants to wait for it at a prompt.
ANSWER_LIMIT_S: Final = 1.0
#: Nodes write their records down at least so often.
FLUSHED_AFTER_S: Final = 1.1
#: Shortest time that a fault which was healed by hand has lasted, for the schedule.
_SHORTEST_S: Final = 0.001


class _SilentError(InputError):
    """A node was asked, and has not answered yet."""


class Portal:
    """Calls from the main thread into the thread that looks after the network."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def __call__(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *function* there and return what it returns. Raises: what it raises; NetworkGoneError if all is over."""
        try:
            result: T = trio.from_thread.run(partial(function, *args, **kwargs), trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise NetworkGoneError from error  # noqa: ASYNC104  we are in no task that was cancelled
        return result


class LiveRun:
    """One run with a user at the prompt. Its methods are for the main thread."""

    def __init__(
        self, run: RunInProgress, network: EmulatedNetwork, flow: ShellFlow, nursery: trio.Nursery, portal: Portal
    ) -> None:
        self._run, self.network, self._flow, self._nursery, self._portal = run, network, flow, nursery, portal
        self.experiment: Experiment = run.experiment
        self.topology = run.experiment.topology
        self.typed = TypedLog(run.folder.raw / SHELL_FILE)
        #: Every fault of the run, as an experiment file would have it.
        self.faults: dict[str, Fault] = dict(
            zip(fault_ids(self.experiment.faults), self.experiment.faults, strict=True)
        )
        self.captures: dict[str, Path] = {
            link: run.folder.captures / f"{link}.pcapng" for link in self.experiment.captures
        }  #: link -> file, of those that go on
        self._numbers = itertools.count(1)

    @property
    def epoch_s(self) -> float:
        return self._flow.epoch_s

    @property
    def folder(self) -> Path:
        return self._run.folder.path

    @property
    def run_id(self) -> str:
        return self.network.plan.run_id

    def now_s(self) -> float:
        """Return the time since the run's start."""
        return time.monotonic() - self.epoch_s

    def line(self, text: str) -> None:
        """Write down a line that was typed."""
        self.typed.add(LineTyped(time.monotonic(), text))

    def mark(self, text: str) -> None:
        """Write down a remark."""
        self.typed.add(Marked(time.monotonic(), text))

    # ------------------------------------------------------------------ what nodes say

    def moment(self) -> Moment:
        """Ask every node where it stands."""
        statuses = self._portal(self._ask_all, [*self.network.processes], "status")
        phase = "the experiment is over" if self._flow.is_over else ""
        if not phase and self.experiment.settings.duration_s < NO_END_S:
            phase = f"of {self.experiment.settings.duration_s:g} s"
        return Moment(self.now_s(), statuses, [self.spell_fault(fault_id) for fault_id in self.active()], phase)

    def tables(self, nodes: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the tables of forwarders, by node; None where one does not answer."""
        told = self._portal(self._ask_all, [f"{node}.forwarder" for node in nodes], "tables")
        return {process.rpartition(".")[0]: tables for process, tables in told.items()}

    async def _ask_all(self, processes: Sequence[str], op: str) -> dict[str, Mapping[str, Any] | None]:
        answers: dict[str, Mapping[str, Any] | None] = dict.fromkeys(processes)

        async def ask(process: str) -> None:
            with contextlib.suppress(NodeError):
                answers[process] = (await self.network.request(process, op, limit_s=ANSWER_LIMIT_S))[op]

        async with trio.open_nursery() as together:
            for process in processes:
                together.start_soon(ask, process)
        return answers

    def carriers(self) -> dict[str, tuple[bool, bool]]:
        """Return for each link whether its ends have a carrier."""
        return self._portal(self._read_carriers)

    async def _read_carriers(self) -> dict[str, tuple[bool, bool]]:
        return {link.name: await self.network.read_carrier(link.name) for link in self.topology.links}

    # ------------------------------------------------------------------ the conference

    def publish(self, device: str, text: str, event: str) -> tuple[int, int]:
        """Have a device publish an update. Returns: its boot and sequence number. Raises: InputError."""
        at_s = time.monotonic()
        try:
            reply = self._ask_client(device, "publish", body=text, event=event)
        except _SilentError:
            self.typed.add(PublishTyped(at_s, device, event, text, 0, 0))  # it will, when it goes on
            raise
        boot, seq = int(reply["boot"]), int(reply["seq"])
        self.typed.add(PublishTyped(at_s, device, event, text, boot, seq))
        return boot, seq

    def _ask_client(self, device: str, op: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        where = f"{op} {device}"
        try:
            return self._portal(self.network.request, f"{device}.forwarder", op, limit_s=ANSWER_LIMIT_S, **arguments)
        except NodeRefusedError as error:
            said = str(error).rpartition("`: ")[2] or str(error)
            raise InputError(where=where, problem=said, remedy=f"see `status {device}`") from error
        except NodeGoneError as error:
            raise InputError(where=where, problem="it is not running", remedy="see `faults`, and `heal` it") from error
        except NodeError as error:
            remedy = "see `faults`: is it frozen? It does what it was asked when it goes on"
            raise _SilentError(where=where, problem=f"no answer within {ANSWER_LIMIT_S:g} s", remedy=remedy) from error

    # ------------------------------------------------------------------ faults

    @property
    def injector(self) -> FaultInjector:
        assert self._flow.injector is not None, "the prompt comes after t = 0"
        return self._flow.injector

    def rows(self) -> Mapping[str, FaultApplied]:
        """Return what was done about each fault so far."""
        return self.injector.rows

    def active(self) -> list[str]:
        """Return the IDs of the faults in force."""
        return self.injector.active

    def inject(self, words: Sequence[str]) -> tuple[str, FaultApplied | None]:
        """Apply the fault that was typed, or put it on the schedule. Returns: its ID; its row if it was applied.

        Raises: InputError for whatever an experiment file would be refused for.
        """
        fault, is_later = parse_fault(words, before=self.faults, topology=self.topology, now_s=self.now_s())
        fault_id = next(one for one in (f"h{number}" for number in self._numbers) if one not in self.faults)
        return fault_id, self._portal(self._inject, fault_id, fault, is_later)

    async def _inject(self, fault_id: str, fault: Fault, is_later: bool) -> FaultApplied | None:  # noqa: FBT001
        (injected,) = injectable([fault])
        injected = dataclasses.replace(injected, fault_id=fault_id, source="hand")
        now, *later = FaultInjector.timeline([injected], epoch_s=self.epoch_s)
        if is_later:
            self._note_fault(fault_id, fault)
            self._nursery.start_soon(self._take_all, [now, *later])
            return None
        self._flow.told[fault_id] = False  # whoever typed it is told by the command
        await self.injector.take(now)
        self._note_fault(fault_id, fault)
        self._nursery.start_soon(self._take_all, later)
        return self.injector.rows[fault_id]

    def _note_fault(self, fault_id: str, fault: Fault) -> None:
        self.faults[fault_id] = fault
        entry = {"kind": kind_of(fault), **msgspec.to_builtins(fault)}
        entry = {name: value for name, value in entry.items() if value is not None}
        self.typed.add(FaultTyped(time.monotonic(), fault_id, entry))

    async def _take_all(self, steps: Sequence[FaultStep]) -> None:
        for step in steps:
            await trio.sleep(max(0.0, step.due_s - time.monotonic()))
            await self.injector.take(step)

    def heal(self, what: str) -> list[FaultApplied]:
        """End a fault, all faults on a target, or all of them. Returns: their rows. Raises: InputError."""
        active = self.active()
        if what == "all":
            chosen = active
        elif what in active:
            chosen = [what]
        else:
            chosen = [one for one in active if self._is_on(what, self.rows()[one].target)]
        if not chosen:
            raise self._nothing_to_heal(what, active)
        return [self._portal(self._heal, fault_id) for fault_id in chosen]

    def _is_on(self, what: str, target: str) -> bool:
        with contextlib.suppress(InputError):
            what = self.topology.link(what).name
        return what in (target, target.partition(".")[0])

    def _nothing_to_heal(self, what: str, active: Sequence[str]) -> InputError:
        if not active:
            return InputError(
                where=f"heal {what}", problem="no fault is active", remedy="`faults` lists what there was"
            )
        if what in self.rows():
            return InputError(
                where=f"heal {what}", problem="it is healed already", remedy=f"active: {', '.join(active)}"
            )
        if what in self.faults:
            return InputError(where=f"heal {what}", problem="it is still to come", remedy="wait for it, then heal it")
        targets = [self.rows()[one].target for one in active]
        return InputError(
            where=f"heal {what}",
            problem="there is no such fault, nor is anything wrong with a target of that name",
            remedy=pick_one_of(what, ["all", *active, *dict.fromkeys(targets)]),
        )

    async def _heal(self, fault_id: str) -> FaultApplied:
        self._flow.told[fault_id] = True
        row = await self.injector.heal(fault_id)
        self.typed.add(HealTyped(time.monotonic(), fault_id))
        fault = self.faults[fault_id]
        if "for_s" in fault.__struct_fields__:  # what comes after is checked against how long it really lasted
            lasted_s = max(_SHORTEST_S, (row.healed_s or time.monotonic()) - self.epoch_s - fault.at_s)
            as_entry = {"kind": kind_of(fault), **msgspec.structs.asdict(fault)}
            self.faults[fault_id] = msgspec.structs.replace(fault, **healed_after(as_entry, lasted_s))
        return row

    def spell_fault(self, fault_id: str) -> str:
        """Return one line on a fault that was applied."""
        row = self.rows()[fault_id]
        parameters = " ".join(f"{name}={value}" for name, value in row.parameters.items())
        since = f"{row.applied_s - self.epoch_s:.3f} s"
        when = f"since {since}" if row.healed_s is None else f"from {since} to {row.healed_s - self.epoch_s:.3f} s"
        if row.healed_s is None and fault_id not in self.active():
            when = f"at {since}"
        took = "" if row.verified else ", which DID NOT TAKE"
        return (
            f"{fault_id}  {row.kind} {row.target}{' ' + parameters if parameters else ''}, {when} ({row.source}){took}"
        )

    # ------------------------------------------------------------------ captures and report

    def start_capture(self, link: str) -> Path:
        """Capture a link. Returns: the file. Raises: InputError, CapabilityError."""
        if link in self.captures:
            raise InputError(
                where=f"capture {link}",
                problem=f"it is captured already, into {self._short(self.captures[link])}",
                remedy=f"`capture stop {link}` ends that",
            )
        folder = self._run.folder.captures
        folder.mkdir(exist_ok=True)
        names = (f"{link}.pcapng" if number == 1 else f"{link}-{number}.pcapng" for number in itertools.count(1))
        path = next(folder / name for name in names if not (folder / name).exists())
        self._portal(self.network.start_capture, link, path)
        self.captures[link] = path
        self.typed.add(CaptureTyped(time.monotonic(), link, "started", path.name))
        return path

    def stop_capture(self, link: str) -> Path:
        """End the capture of a link. Returns: the file. Raises: InputError."""
        path = self.captures.pop(link, None)
        if path is None:
            remedy = f"captured are: {', '.join(self.captures)}" if self.captures else f"`capture start {link}` begins"
            raise InputError(where=f"capture {link}", problem="it is not captured", remedy=remedy)
        self._portal(self.network.stop_capture, link)
        self.typed.add(CaptureTyped(time.monotonic(), link, "stopped", path.name))
        return path

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def report(self) -> tuple[Analysis, Mapping[str, Any]]:
        """Write the CSV files of the run so far. Returns: the analysis, and the manifest that it is of. Raises: InputError."""
        from experiments.analysis import analyse  # noqa: PLC0415  loads pandas

        manifest = self._portal(self._write_down)
        time.sleep(FLUSHED_AFTER_S)
        return analyse(self._run.folder), manifest

    async def _write_down(self) -> Mapping[str, Any]:
        with trio.move_on_after(ANSWER_LIMIT_S):
            async with trio.open_nursery() as together:
                together.start_soon(self._flow.take_leave)
                together.start_soon(self._run.write_links, self.network)
        self._run.save()
        return dict(self._run.manifest)

    def require_node(self, name: str, where: str) -> str:
        """Return *name*. Raises: InputError if there is no such node."""
        nodes = [node.name for node in self.topology.nodes]
        if name not in nodes:
            raise InputError(where=where, problem=f"there is no node `{name}`", remedy=pick_one_of(name, nodes))
        return name

    def require_ue(self, name: str, where: str) -> str:
        """Return *name*. Raises: InputError if there is no such UE."""
        if name not in self.topology.ues:
            self.require_node(name, where)
            role = self.topology.node(name).role
            raise InputError(
                where=where,
                problem=f"`{name}` is a {role}, which publishes nothing",
                remedy=f"name a UE, such as {self.topology.ues[0]}",
            )
        return name

    def require_link(self, name: str, where: str) -> str:
        """Return the topology's own name of a link. Raises: InputError if there is no such link."""
        try:
            return self.topology.link(name).name
        except InputError as error:
            raise InputError(where=where, problem=f"there is no link `{name}`", remedy=error.remedy) from None
