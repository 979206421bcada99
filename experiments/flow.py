"""What a run does with a network that is up, emulated or simulated: join, workload and faults on schedule, settle, records.

One task does it all, in the order of a timeline, so that a simulated run does the same things in the same order each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import trio

from experiments.conference_state import ConferenceState, disagreement
from experiments.progress import RunProgress
from experiments.spec import Experiment
from experiments.spec_faults import as_injected, needs_scapy
from experiments.spec_schema import Fault, fault_ids
from experiments.workloads import ScheduledObject, ScheduledStream, ScheduledUpdate, data_schedules, schedules
from testbed.emulation.control import NodeError
from testbed.faults.injector import BreakableNetwork, FaultInjector
from testbed.faults.model import Fault as InjectedFault
from testbed.faults.model import FaultApplied
from testbed.links.model import LinkCounters
from testbed.plan import NetworkPlan

JOIN_LIMIT_S: Final = 30.0  #: from the first join until everybody is in sync
JOIN_LIMIT_PER_DEVICE_S: Final = 0.1  #: and so much more for each
#: Devices that have asked to join and have not yet. All at once, hundreds would tell each other of each other while no router of
#: a small machine keeps up with its heartbeats; one after the other, the later ones get the earlier ones in one snapshot.
JOINING_AT_ONCE: Final = 16
JOIN_POLL_S: Final = 0.005
FACES_UP_LIMIT_S: Final = 2.0  #: a node that breaks down before must not hold up the others
EPOCH_LEAD_S: Final = 0.3  #: from everybody in sync to t = 0: schedules reach the clients meanwhile
SCHEDULE_CHUNK: Final = 2_000  #: updates in one request
REQUEST_S_PER_UPDATE: Final = 20e-6  #: how long handing over a schedule takes, generously
POLL_S: Final = 0.05
TICK_S: Final = 0.2

S = TypeVar("S", ScheduledUpdate, ScheduledObject | ScheduledStream)
Call = Callable[[], Awaitable[Any]]


class RunFailureError(Exception):
    """The run could not go on: nothing that the user wrote is wrong."""


class RunningNetwork(BreakableNetwork, Protocol):
    """What a run needs of a network that is up: `EmulatedNetwork` and `ControlledSimulation` have it."""

    @property
    def processes(self) -> Mapping[str, Any]: ...
    async def request(self, process: str, op: str, **arguments: Any) -> dict[str, Any]: ...  # noqa: ANN401
    async def link_counters(self) -> list[LinkCounters]: ...


class Pace(Protocol):
    """How time passes in a run."""

    def now_s(self) -> float:
        """Return the time of the clock that all records share."""

    async def sleep_until(self, at_s: float) -> None:
        """Return when it is *at_s*."""

    async def together(self, calls: Sequence[Call]) -> None:
        """Make all calls, none waiting for another where they take time."""


class RealTime:
    """CLOCK_MONOTONIC."""

    def now_s(self) -> float:
        """Return its seconds."""
        return time.monotonic()

    async def sleep_until(self, at_s: float) -> None:
        """Wait."""
        await trio.sleep(max(0.0, at_s - time.monotonic()))

    async def together(self, calls: Sequence[Call]) -> None:
        """Make the calls concurrently."""
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)


@dataclass(frozen=True, slots=True)
class Attendance:
    """When one device is there; times count from the start of the run."""

    join_at_s: float | None  #: None: from before the start
    leave_at_s: float | None  #: None: to the end


@dataclass(frozen=True, slots=True)
class _Step:
    due_s: float
    do: Call


@dataclass
class ConferenceFlow:
    """The conference of one experiment, over *network*."""

    experiment: Experiment
    network: RunningNetwork
    pace: Pace
    joined: AbstractSet[str]  #: devices that have joined so far; grows by itself
    progress: RunProgress
    fault_rows: Path | None = None  #: file for `FaultApplied` rows
    note_clock: Callable[..., None] = lambda **_: None  #: is told epoch_s and quiesced_s as they come
    on_epoch: Callable[[], None] = lambda: None  #: at t = 0
    on_end: Callable[[], None] = lambda: None  #: at duration_s
    phases: dict[str, float] = field(default_factory=dict)  #: how long join and settle took
    faults: Mapping[str, FaultApplied] = field(default_factory=dict)  #: by fault ID, as they stand
    unsettled: str = ""  #: what still differed when time was up
    injector: FaultInjector | None = None  #: there from t = 0 on

    async def hold(self) -> None:
        """Everything from the first join until all agree. Raises: RunFailureError if the conference does not come about."""
        when = attendance(self.experiment)
        await self._join([device for device, at in when.items() if at.join_at_s is None])
        epoch_s = await self._hand_out_schedules(when)
        await self._run_to_end(epoch_s, when)
        await self._settle()

    async def take_leave(self) -> None:
        """Have every node write down where it stands; what does not answer is missing, and the checks say so."""
        if self.injector is not None:
            await self.injector.finish()
        conference = set(self._conference_processes())
        await self.pace.together(
            [
                partial(self._ask_quietly, process, ["status", "counters"] if process in conference else ["counters"])
                for process in list(self.network.processes)
            ]
        )

    async def _join(self, devices: Sequence[str]) -> None:
        begun_s = self.pace.now_s()
        self.progress.phase(f"joining: {len(devices)} devices")
        await self._wait_faces_up()
        limit_s = JOIN_LIMIT_S + JOIN_LIMIT_PER_DEVICE_S * len(devices)
        until_s = begun_s + limit_s
        await self._ask_to_join(devices, until_s)
        if missing := set(devices) - self.joined:
            apart = f"{len(missing)} have not joined, such as {min(missing)}"
        else:
            apart = await self._wait_agreed(until_s, rosters=self._rosters(devices))
        if apart:
            raise RunFailureError(f"the conference was not in sync after {limit_s:g} s: {apart}")
        self.phases["join_s"] = self.pace.now_s() - begun_s

    async def _ask_to_join(self, devices: Sequence[str], until_s: float) -> None:
        """Have all join, JOINING_AT_ONCE at a time; return when they have, or when it is *until_s*."""
        waiting, asked = deque(devices), set[str]()
        while self.pace.now_s() < until_s:
            room = JOINING_AT_ONCE - len(asked - self.joined)
            if turn := [waiting.popleft() for _ in range(min(room, len(waiting)))]:
                asked.update(turn)
                await self.pace.together([partial(self.network.request, _client(device), "join") for device in turn])
            elif not waiting and self.joined >= asked:
                return
            else:
                await self.pace.sleep_until(self.pace.now_s() + JOIN_POLL_S)

    async def _wait_faces_up(self) -> None:
        """Wait until neighbours know of each other: who joins before is sent to whichever proxy can be reached already."""
        until_s = self.pace.now_s() + FACES_UP_LIMIT_S
        forwarders = {process for process in self.network.processes if process.endswith(".forwarder")}
        while forwarders and self.pace.now_s() < until_s:
            statuses: dict[str, dict[str, Any]] = {}
            await self.pace.together([partial(self._ask_status, process, statuses) for process in sorted(forwarders)])
            forwarders = {
                process
                for process in forwarders
                if any(
                    face["state"] != "up" for face in statuses.get(process, {}).get("forwarder", {}).get("faces", ())
                )
            }
            if forwarders:
                await self.pace.sleep_until(self.pace.now_s() + JOIN_POLL_S)

    async def _ask_status(self, process: str, statuses: dict[str, dict[str, Any]]) -> None:
        with contextlib.suppress(NodeError):  # a node that broke down has none; the others may still agree
            statuses[process] = (await self.network.request(process, "status"))["status"]

    async def _hand_out_schedules(self, when: Mapping[str, Attendance]) -> float:
        """Tell each client what to publish when. Returns: the time of t = 0 of the run."""
        settings = self.experiment.settings
        wanted = schedules(
            self.experiment.workloads, devices=list(when), duration_s=settings.duration_s, seed=settings.seed
        )
        wanted = {device: _while_there(updates, when[device]) for device, updates in wanted.items()}
        data = data_schedules(self.experiment.workloads, devices=list(when), duration_s=settings.duration_s)
        data = {device: _while_there(objects, when[device]) for device, objects in data.items() if objects}
        epoch_s = self.pace.now_s() + EPOCH_LEAD_S + REQUEST_S_PER_UPDATE * sum(map(len, wanted.values()))
        self.note_clock(epoch_s=epoch_s)
        await self.pace.together(
            [
                *(
                    partial(self._send_schedule, _client(device), updates, epoch_s)
                    for device, updates in wanted.items()
                ),
                *(partial(self._send_objects, _client(device), objects, epoch_s) for device, objects in data.items()),
                # What they count of the time before is then apart from what they count of the run.
                *(partial(self._ask_quietly, process, ["counters"]) for process in list(self.network.processes)),
            ]
        )
        return epoch_s

    async def _send_schedule(self, process: str, updates: Sequence[ScheduledUpdate], epoch_s: float) -> None:
        for start in range(0, len(updates), SCHEDULE_CHUNK):
            chunk = [(epoch_s + one.at_s, one.event, one.body) for one in updates[start : start + SCHEDULE_CHUNK]]
            await self.network.request(process, "schedule", updates=chunk)

    async def _send_objects(
        self, process: str, planned: Sequence[ScheduledObject | ScheduledStream], epoch_s: float
    ) -> None:
        objects, streams = list[Any](), list[Any]()
        for one in planned:
            at_s, *what = dataclasses.astuple(one)
            (objects if isinstance(one, ScheduledObject) else streams).append((epoch_s + at_s, *what))
        for start in range(0, len(objects), SCHEDULE_CHUNK):
            chunk = objects[start : start + SCHEDULE_CHUNK]
            await self.network.request(process, "schedule-objects", objects=chunk)
        if streams:
            await self.network.request(process, "schedule-objects", streams=streams)

    async def _run_to_end(self, epoch_s: float, when: Mapping[str, Attendance]) -> None:
        self.progress.phase("running")
        self.injector = injector = FaultInjector(
            self.network,
            self.experiment.topology,
            self.fault_rows,
            clock=self.pace.now_s,
            seed=self.experiment.settings.seed,
        )
        self.faults = injector.rows
        steps = [
            _Step(step.due_s, partial(injector.take, step))
            for step in injector.timeline(injectable(self.experiment.faults), epoch_s=epoch_s)
        ]
        for device, at in when.items():
            if at.join_at_s is not None:
                steps.append(_Step(epoch_s + at.join_at_s, partial(self._ask_quietly, _client(device), ["join"])))
            if at.leave_at_s is not None:
                steps.append(_Step(epoch_s + at.leave_at_s, partial(self._ask_quietly, _client(device), ["close"])))
        await self.pace.sleep_until(epoch_s)
        self.on_epoch()
        known: dict[str, bool] = {}
        for step in sorted(steps, key=lambda step: step.due_s):  # stable: what is due together stays in this order
            known = await self._pass_time(step.due_s, epoch_s, known)
            await step.do()
        known = await self._pass_time(epoch_s + self.experiment.settings.duration_s, epoch_s, known)
        self.on_end()

    async def _pass_time(self, until_s: float, epoch_s: float, known: Mapping[str, bool]) -> dict[str, bool]:
        """Wait until *until_s*, saying how it goes. Returns: what of the faults has been said."""
        told = self._announce_faults(known, epoch_s)
        while (now_s := self.pace.now_s()) < until_s:
            self.progress.running(now_s - epoch_s, self.experiment.settings.duration_s)
            await self.pace.sleep_until(min(until_s, now_s + TICK_S))
            told = self._announce_faults(told, epoch_s)
        return told

    def _announce_faults(self, known: Mapping[str, bool], epoch_s: float) -> dict[str, bool]:
        """Say what has been applied or healed since *known*. Returns: fault_id -> whether it is healed."""
        now = {fault_id: row.healed_s is not None for fault_id, row in self.faults.items()}
        for fault_id, healed in now.items():
            row = self.faults[fault_id]
            what = f"{row.kind} {row.target}" + ("" if row.verified else ", which DID NOT TAKE")
            if fault_id not in known:
                self.progress.note(f"t = {row.applied_s - epoch_s:.3f} s: {what}")
            if row.healed_s is not None and healed and not known.get(fault_id, False):
                self.progress.note(f"t = {row.healed_s - epoch_s:.3f} s: end of {what}")
        return now

    async def _settle(self) -> None:
        begun_s = self.pace.now_s()
        self.progress.phase("settling")
        limit_s = self.experiment.settings.settle_s
        self.unsettled = await self._wait_agreed(begun_s + limit_s, rosters=None)
        self.phases["settle_s"] = self.pace.now_s() - begun_s
        if self.unsettled:
            self.progress.note(f"not settled after {limit_s:g} s: {self.unsettled}")
        self.note_clock(quiesced_s=self.pace.now_s())

    def _rosters(self, devices: Iterable[str]) -> dict[str, set[str]]:
        """Return which of *devices* are to be in which conference."""
        rosters: dict[str, set[str]] = {}
        for device in devices:
            rosters.setdefault(self.experiment.conference_of[device], set()).add(device)
        return rosters

    async def _wait_agreed(self, until_s: float, *, rosters: Mapping[str, set[str]] | None) -> str:
        """Ask everybody for their state until all agree; return what still differed at *until_s*, else nothing."""
        while True:
            asked_s = self.pace.now_s()
            states = await self._ask_states()
            apart = disagreement(states, rosters=rosters)
            now_s = self.pace.now_s()
            if not apart or now_s >= until_s:
                return apart
            # Asking must not be most of what the nodes do.
            await self.pace.sleep_until(now_s + max(POLL_S, now_s - asked_s))

    async def _ask_states(self) -> list[ConferenceState]:
        statuses: dict[str, dict[str, Any]] = {}
        processes = self._conference_processes()
        await self.pace.together([partial(self._ask_status, process, statuses) for process in processes])
        return [state for process, status in statuses.items() for state in ConferenceState.all_of(process, status)]

    def _conference_processes(self) -> list[str]:
        topology = self.experiment.topology
        return [*map(_client, topology.ues), *(f"{node}.proxy" for node in topology.proxies)]

    async def _ask_quietly(self, process: str, ops: Sequence[str]) -> None:
        with contextlib.suppress(NodeError):
            for op in ops:
                await self.network.request(process, op)


def plan_of(experiment: Experiment, *, run_id: str, run_dir: Path) -> NetworkPlan:
    """Return the network and the conference that *experiment* asks for."""
    sections = experiment.conference.node_sections()
    return NetworkPlan(
        run_id=run_id,
        topology=experiment.topology,
        seed=experiment.settings.seed,
        run_dir=run_dir,
        conference=experiment.conference.name,
        conferences=experiment.conference_of,
        mode=experiment.conference.mode,
        forwarder_settings=sections["forwarder"] | experiment.forwarding.node_section(),
        proxy_settings=sections["proxy"],
        client_settings=sections["client"],
        login_settings=sections["login"],
        sync_settings=experiment.sync,
        packet_code=any(map(needs_scapy, experiment.faults)),
    )


def attendance(experiment: Experiment) -> dict[str, Attendance]:
    """Return for every UE when it is there. A moment within `join_within_s` follows from the seed and the device alone."""
    when = dict.fromkeys(experiment.topology.ues, Attendance(None, None))
    for section in experiment.attendance:
        for device in section.devices or ():
            at_s = section.join_at_s
            if at_s is not None and section.join_within_s:
                digest = sha256(f"attendance/{experiment.settings.seed}/{device}".encode()).digest()
                at_s += section.join_within_s * random.Random(int.from_bytes(digest[:8], "big")).random()
            when[device] = Attendance(at_s, section.leave_at_s)
    return when


def _while_there(updates: Sequence[S], at: Attendance) -> tuple[S, ...]:
    """Return what a device publishes in the time in which it is there."""
    return tuple(
        update
        for update in updates
        if (at.join_at_s is None or update.at_s >= at.join_at_s)
        and (at.leave_at_s is None or update.at_s < at.leave_at_s)
    )


def injectable(faults: Sequence[Fault]) -> Iterator[InjectedFault]:
    """Yield the faults of an experiment as the injector takes them."""
    for fault_id, fault in zip(fault_ids(faults), faults, strict=True):
        yield as_injected(fault_id, fault)


def _client(device: str) -> str:
    return f"{device}.forwarder"  # on a UE, forwarder and client share one process
