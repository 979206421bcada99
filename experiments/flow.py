"""What a run does with a network that is up, emulated or simulated: join, workload and faults on schedule, settle, records.

One task does it all, in the order of a timeline, so that a simulated run does the same things in the same order each time.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from experiments.conference_state import ConferenceState, disagreement
from experiments.hand_out import AHEAD_S, EVERY_S, HandOut, Share, requests
from experiments.progress import RunProgress
from experiments.spec import Experiment
from experiments.spec_faults import as_injected, needs_scapy
from experiments.spec_schema import Fault, fault_ids
from experiments.workloads import absent_at_start, timeline
from testbed.emulation.control import NodeError, NodeGoneError, NodeSilentError
from testbed.faults.injector import BreakableNetwork, FaultInjector
from testbed.faults.model import Fault as InjectedFault
from testbed.faults.model import FaultApplied
from testbed.links.model import LinkCounters
from testbed.plan import PROXYLESS_MODES, NetworkPlan

JOIN_LIMIT_S: Final = 30.0  #: from the first join until everybody is in sync
JOIN_LIMIT_PER_DEVICE_S: Final = 0.1  #: and so much more for each
#: Devices that have asked to join and have not yet. All at once, hundreds would log in while no router of a small machine keeps
#: up with its heartbeats; one after the other, the later ones get the earlier ones in one snapshot.
JOINING_AT_ONCE: Final = 32
#: Where nobody is told of those who join, so many of them: no machine that holds so many devices but in simulation is known.
QUIETLY_JOINING_RATIO: Final = 0.25
JOIN_POLL_S: Final = 0.005
FACES_UP_LIMIT_S: Final = 2.0  #: a node that breaks down before must not hold up the others
EPOCH_LEAD_S: Final = 0.3  #: from everybody in sync to t = 0: schedules reach the clients meanwhile
REQUEST_S_PER_ENTRY: Final = 20e-6  #: how long handing over a schedule takes, generously
POLL_S: Final = 0.05
TICK_S: Final = 0.2

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

    async def aside(self, nursery: trio.Nursery, call: Call) -> None:
        """Make a call without waiting for it where it takes time."""


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

    async def aside(self, nursery: trio.Nursery, call: Call) -> None:
        """Start the call and go on."""
        nursery.start_soon(call)


class _Agenda:
    """What is to be done when; what is due together, in the order in which it was entered."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, due_s: float, do: Call) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due_s, self._count, do))

    def pop(self) -> tuple[float, Call]:
        due_s, _, do = heapq.heappop(self._heap)
        return due_s, do


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
    hand_out: HandOut = field(default_factory=lambda: HandOut(iter(())))  #: what the clients have not been told yet
    first_share: Share = field(default_factory=Share)  #: what they were told before t = 0

    async def hold(self) -> None:
        """Everything from the first join until all agree. Raises: RunFailureError if the conference does not come about."""
        await self._run_to_end(await self._begin())
        await self._settle()

    async def _begin(self) -> float:
        """Have all join that are there at first, and tell them what to do. Returns: the time of t = 0 of the run."""
        experiment, settings = self.experiment, self.experiment.settings
        absent = absent_at_start(experiment.attendance).union(
            *(trace.absent_at_start for trace in experiment.traces.values())
        )
        await self._join([device for device in experiment.topology.ues if device not in absent])
        self.hand_out = HandOut(
            timeline(
                experiment.workloads,
                devices=experiment.topology.ues,
                duration_s=settings.duration_s,
                seed=settings.seed,
                attendance=experiment.attendance,
                traces=experiment.traces,
            )
        )
        self.first_share = self.hand_out.take_until(AHEAD_S)
        return await self._hand_out_first(self.first_share)

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
        """Have all join, so many at a time; return when they have, or when it is *until_s*."""
        waiting, asked = deque(devices), set[str]()
        at_once = JOINING_AT_ONCE
        if not announces_joins(self.experiment):
            at_once = max(at_once, int(QUIETLY_JOINING_RATIO * len(devices)))
        while self.pace.now_s() < until_s:
            room = at_once - len(asked - self.joined)
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
            asked_s = self.pace.now_s()
            statuses: dict[str, dict[str, Any]] = {}
            await self.pace.together([partial(self._ask_status, process, statuses) for process in sorted(forwarders)])
            forwarders = {
                process
                for process in forwarders
                if any(
                    face["state"] != "up" for face in statuses.get(process, {}).get("forwarder", {}).get("faces", ())
                )
            }
            if forwarders:  # asking must not be most of what the nodes do
                now_s = self.pace.now_s()
                await self.pace.sleep_until(now_s + max(JOIN_POLL_S, now_s - asked_s))

    async def _ask_status(self, process: str, statuses: dict[str, dict[str, Any]]) -> None:
        with contextlib.suppress(NodeError):  # a node that broke down has none; the others may still agree
            statuses[process] = (await self.network.request(process, "status", writes=False))["status"]

    async def _hand_out_first(self, share: Share) -> float:
        """Tell each client what to do in the first seconds. Returns: the time of t = 0 of the run."""
        epoch_s = self.pace.now_s() + EPOCH_LEAD_S + REQUEST_S_PER_ENTRY * share.size
        self.note_clock(epoch_s=epoch_s)
        await self.pace.together(
            [
                *(
                    partial(self.network.request, _client(device), op, **arguments)
                    for device, op, arguments in requests(share, epoch_s)
                ),
                # What they count of the time before is then apart from what they count of the run.
                *(partial(self._ask_quietly, process, ["counters"]) for process in list(self.network.processes)),
            ]
        )
        return epoch_s

    async def _run_to_end(self, epoch_s: float) -> None:
        """Do everything on time: faults, who comes and goes, and handing out what is next."""
        hand_out = self.hand_out
        self.progress.phase("running")
        self.injector = injector = FaultInjector(
            self.network,
            self.experiment.topology,
            self.fault_rows,
            clock=self.pace.now_s,
            seed=self.experiment.settings.seed,
        )
        self.faults = injector.rows
        agenda = _Agenda()
        for step in injector.timeline(injectable(self.experiment.faults), epoch_s=epoch_s):
            agenda.add(step.due_s, partial(injector.take, step))
        async with trio.open_nursery() as aside:

            def enter_presence(share: Share) -> None:
                for device, what in share.presence:
                    ask = partial(self._ask_quietly, _client(device), ["join" if what.there else "close"])
                    agenda.add(epoch_s + what.at_s, partial(self.pace.aside, aside, ask))

            async def hand_out_more(until_s: float) -> None:
                share = hand_out.take_until(until_s)
                enter_presence(share)
                for device, op, arguments in requests(share, epoch_s):
                    await self.pace.aside(aside, partial(self._tell, _client(device), op, arguments))
                if not hand_out.is_over:
                    agenda.add(epoch_s + until_s + EVERY_S - AHEAD_S, partial(hand_out_more, until_s + EVERY_S))

            enter_presence(self.first_share)
            if not hand_out.is_over:
                agenda.add(epoch_s + EVERY_S, partial(hand_out_more, AHEAD_S + EVERY_S))
            await self.pace.sleep_until(epoch_s)
            self.on_epoch()
            known: dict[str, bool] = {}
            while agenda:
                due_s, do = agenda.pop()
                known = await self._pass_time(due_s, epoch_s, known)
                await do()
            await self._pass_time(epoch_s + self.experiment.settings.duration_s, epoch_s, known)
            aside.cancel_scope.cancel()  # who has not answered by now is frozen, or gone
        self.on_end()

    async def _tell(self, process: str, op: str, arguments: Mapping[str, Any]) -> None:
        """Hand something to a client. One that is gone needs nothing; one that is frozen finds it when it thaws."""
        with contextlib.suppress(NodeGoneError, NodeSilentError):
            await self.network.request(process, op, **arguments)

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
            apart = disagreement(states, rosters=rosters, announced=announces_joins(self.experiment))
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
    announce = {"announce": experiment.conference.announced(len(experiment.topology.ues))}
    return NetworkPlan(
        run_id=run_id,
        topology=experiment.topology,
        seed=experiment.settings.seed,
        run_dir=run_dir,
        conference=experiment.conference.name,
        conferences=experiment.conference_of,
        mode=experiment.conference.mode,
        forwarder_settings=sections["forwarder"] | experiment.forwarding.node_section(),
        proxy_settings=sections["proxy"] | announce,
        client_settings=sections["client"] | announce,
        login_settings=sections["login"],
        sync_settings=experiment.sync,
        packet_code=any(map(needs_scapy, experiment.faults)),
    )


def announces_joins(experiment: Experiment) -> bool:
    """Tell whether everybody is told of who joins, be it only to listen."""
    conference = experiment.conference
    return conference.mode in PROXYLESS_MODES or conference.announced(len(experiment.topology.ues)) == "at-join"


def injectable(faults: Sequence[Fault]) -> Iterator[InjectedFault]:
    """Yield the faults of an experiment as the injector takes them."""
    for fault_id, fault in zip(fault_ids(faults), faults, strict=True):
        yield as_injected(fault_id, fault)


def _client(device: str) -> str:
    return f"{device}.forwarder"  # on a UE, forwarder and client share one process
