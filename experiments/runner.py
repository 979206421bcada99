"""One run: network up, conference joined, workload and faults on schedule, records, network down, verdict.

    outcome = run_experiment(load_experiment(path), out=None, progress=choose_progress("quickstart"))

Everything that can be wrong with the input or the machine is found before the run folder is made.
"""

# ruff: noqa: PLC0415  # the emulation loads mininet, the analysis pandas: only when there is a run, not for --help

from __future__ import annotations

import contextlib
import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import trio

from experiments.conference_state import ConferenceState, disagreement
from experiments.history import FAULTS_FILE, LINKS_FILE, NODES_FILE, TOPOLOGY_FILE, NodeExit
from experiments.machine import CpuTimes, describe_commit, describe_machine, describe_versions
from experiments.progress import RunProgress
from experiments.recorded_run import write_topology
from experiments.report import write_report
from experiments.run_folder import SCHEMA_VERSION, RunFolder, RunVerdict, check_can_create
from experiments.spec import Experiment
from experiments.spec_schema import Fault, Impair, LinkUp, kind_of
from experiments.workloads import ScheduledUpdate, check_size, schedules
from testbed.plan import NetworkPlan
from topologies.errors import HconfError

if TYPE_CHECKING:
    from experiments.analysis import Analysis
    from testbed.emulation.network import EmulatedNetwork
    from testbed.faults.model import FaultKind

JOIN_LIMIT_S: Final = 30.0  #: from the first join until everybody is in sync
EPOCH_LEAD_S: Final = 0.3  #: from everybody in sync to t = 0: schedules reach the clients meanwhile
SCHEDULE_CHUNK: Final = 2_000  #: updates in one request
REQUEST_S_PER_UPDATE: Final = 20e-6  #: how long handing over a schedule takes, generously
FINAL_LIMIT_S: Final = 5.0  #: for all nodes to report at the end
FINAL_LIMIT_INTERRUPTED_S: Final = 0.5  #: same, when the user is waiting for Ctrl-C
POLL_S: Final = 0.05
TICK_S: Final = 0.2

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunFailureError(Exception):
    """The run could not go on: nothing that the user wrote is wrong, and the network has been removed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    folder: Path
    verdict: RunVerdict
    analysis: Analysis | None  #: None where there was nothing to analyse
    manifest: Mapping[str, Any]  #: as written

    @property
    def exit_code(self) -> int:
        """As design.md section 7."""
        match self.verdict:
            case "pass":
                return 0
            case "interrupted":
                return 130
            case _:
                return 1


def run_experiment(experiment: Experiment, *, out: Path | None, progress: RunProgress) -> Outcome:
    """Run *experiment* on an emulated network.

    Args:
        experiment: as loaded, with all overrides.
        out: run folder to make; None: ``runs/<name>-<UTC time>``.
        progress: is told how it goes.

    Raises: InputError or CapabilityError before anything is started.
    """
    settings = experiment.settings
    check_size(
        experiment.workloads,
        devices=experiment.topology.ues,
        duration_s=settings.duration_s,
        where=str(experiment.path),
    )
    if out is not None:
        check_can_create(out, given=True)
    from testbed.doctor import require_for_run

    require_for_run(capture=bool(experiment.captures))
    now = datetime.now(UTC)
    folder = RunFolder.create(settings.name, out=out, now=now)
    run = _Run(experiment, folder, _first_manifest(experiment, now), progress)
    write_topology(folder.raw / TOPOLOGY_FILE, experiment.topology)
    run.save()
    try:
        with progress:
            try:
                trio.run(run.supervise)
            except KeyboardInterrupt:  # before or after the time in which signals are listened to
                run.interrupted = True
            progress.phase("analysing")
            analysis = run.analyse()
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        run.manifest |= {"verdict": "interrupted" if interrupted else "error"}
        run.manifest.setdefault("problem", "" if interrupted else f"{type(error).__name__}: {error}")
        run.save()
        raise
    finally:
        folder.hand_over()
    verdict: RunVerdict = "fail" if analysis is None or analysis.failed else "pass"
    if run.interrupted:
        verdict = "interrupted"
    run.manifest |= {"verdict": verdict}
    run.save()
    write_report(folder, analysis, run.manifest)
    folder.hand_over()
    return Outcome(folder.path, verdict, analysis, run.manifest)


@dataclass
class _Run:
    """One run while it goes on."""

    experiment: Experiment
    folder: RunFolder
    manifest: dict[str, Any]
    progress: RunProgress
    interrupted: bool = False
    ready_s: dict[str, float] = field(default_factory=dict)  #: process -> when it was ready
    joined: set[str] = field(default_factory=set)
    all_joined: trio.Event = field(default_factory=trio.Event)

    def save(self) -> None:
        self.folder.write_manifest(self.manifest)

    def note_clock(self, **times_s: float) -> None:
        self.manifest["clock"] |= times_s

    def analyse(self) -> Analysis | None:
        """Make the CSV files from what there is. A run that broke off may have left nothing that can be read."""
        from experiments.analysis import analyse

        self.save()
        try:
            return analyse(self.folder)
        except HconfError:
            if self.manifest.get("problem") or self.interrupted:
                return None
            raise

    async def supervise(self) -> None:
        """Hold the conference until it is over, fails, or the user interrupts; then the network is gone."""
        failure: Exception | None = None
        scope = trio.CancelScope()
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, signals, scope)
                with scope:
                    try:
                        await self._network()
                    except Exception as error:  # noqa: BLE001  # sorted out below, outside of the nursery
                        failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            self._explain(failure)

    def _explain(self, failure: Exception) -> None:
        """Turn what a broken network raises into the run's problem. Raises: *failure* if it is a bug or the machine's."""
        from testbed.emulation.children import HelperError
        from testbed.emulation.control import NodeError

        leaves = list(_leaves(failure))
        for leaf in leaves:
            if isinstance(leaf, HconfError):
                raise leaf
            if not isinstance(leaf, RunFailureError | HelperError | NodeError):
                raise failure
        self.manifest["problem"] = str(leaves[0])
        self.progress.note(f"broke off: {leaves[0]}")

    async def _listen(self, signals: Any, scope: trio.CancelScope) -> None:  # noqa: ANN401  # has no public type
        async for number in signals:
            if self.interrupted:
                self.progress.note("already stopping: removing the network takes a few seconds")
                continue
            self.interrupted = True
            self.progress.note(f"interrupted by {signal.Signals(number).name}: removing the network")
            scope.cancel()

    async def _network(self) -> None:
        from testbed.emulation.network import emulated_network

        begun_s = time.monotonic()
        self.note_clock(start_s=begun_s)
        self.save()
        self.progress.phase(f"building the network: {_spell_size(self.experiment)}")
        network: EmulatedNetwork | None = None
        try:
            async with emulated_network(self._plan()) as network:
                self._note_timings(network, begun_s)
                async with trio.open_nursery() as background:
                    background.start_soon(self._follow_events, network)
                    try:
                        await self._conference(network, begun_s)
                    finally:
                        # Bounded, and also when the run is being broken off: records are all that will be left of it.
                        with trio.move_on_after(self._final_limit_s(), shield=True) as limit:
                            await self._take_leave(network)
                        if limit.cancelled_caught:
                            self.progress.note("not every node reported in time")
                    background.cancel_scope.cancel()
                self.progress.phase("taking the network down")
        finally:
            if network is not None:
                self._note_end(network)

    def _plan(self) -> NetworkPlan:
        experiment = self.experiment
        sections = experiment.conference.node_sections()
        return NetworkPlan(
            run_id=self.manifest["run_id"],
            topology=experiment.topology,
            seed=experiment.settings.seed,
            run_dir=self.folder.path,
            conference=experiment.conference.name,
            conferences=experiment.conference_of,
            mode=experiment.conference.mode,
            forwarder_settings=sections["forwarder"],
            proxy_settings=sections["proxy"],
            client_settings=sections["client"],
            login_settings=sections["login"],
        )

    async def _conference(self, network: EmulatedNetwork, begun_s: float) -> None:
        for link in self.experiment.captures:
            self.folder.captures.mkdir(exist_ok=True)
            await network.start_capture(link, self.folder.captures / f"{link}.pcapng")
        await self._join(network)
        in_sync_s = time.monotonic()
        self.manifest["phases"] |= {"up_s": in_sync_s - begun_s}
        self.progress.note(f"in sync after {in_sync_s - begun_s:.2f} s")
        epoch_s = await self._hand_out_schedules(network)
        await self._run_to_end(network, epoch_s)
        await self._settle(network)

    async def _join(self, network: EmulatedNetwork) -> None:
        """Let everybody join, and wait until all know of all. Raises: RunFailureError if that does not come about."""
        begun_s, devices = time.monotonic(), self.experiment.topology.ues
        self.progress.phase(f"joining: {len(devices)} devices")
        async with trio.open_nursery() as together:
            for device in devices:
                together.start_soon(network.request, _client(device), "join")
        with trio.move_on_after(JOIN_LIMIT_S):
            await self.all_joined.wait()
        if missing := set(devices) - self.joined:
            apart = f"{len(missing)} have not joined, such as {min(missing)}"
        else:
            apart = await self._wait_agreed(network, begun_s + JOIN_LIMIT_S, rosters=self._rosters())
        if apart:
            raise RunFailureError(f"the conference was not in sync after {JOIN_LIMIT_S:g} s: {apart}")
        self.manifest["phases"] |= {"join_s": time.monotonic() - begun_s}

    async def _hand_out_schedules(self, network: EmulatedNetwork) -> float:
        """Tell each client what to publish when. Returns: CLOCK_MONOTONIC at t = 0 of the run."""
        settings, topology = self.experiment.settings, self.experiment.topology
        wanted = schedules(
            self.experiment.workloads, devices=topology.ues, duration_s=settings.duration_s, seed=settings.seed
        )
        epoch_s = time.monotonic() + EPOCH_LEAD_S + REQUEST_S_PER_UPDATE * sum(map(len, wanted.values()))
        self.note_clock(epoch_s=epoch_s)
        self.save()
        async with trio.open_nursery() as together:
            for device, updates in wanted.items():
                together.start_soon(_send_schedule, network, _client(device), updates, epoch_s)
        return epoch_s

    async def _run_to_end(self, network: EmulatedNetwork, epoch_s: float) -> None:
        from testbed.faults.injector import FaultInjector

        duration_s = self.experiment.settings.duration_s
        self.progress.phase("running")
        injector = FaultInjector(network, self.experiment.topology, self.folder.raw / FAULTS_FILE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(injector.run, injectable(self.experiment.faults), epoch_s=epoch_s))
            await trio.sleep(max(0.0, epoch_s - time.monotonic()))
            cpu_before = CpuTimes.now()
            known: dict[str, bool] = {}
            while (at_s := time.monotonic() - epoch_s) < duration_s:
                self.progress.running(at_s, duration_s)
                known = self._announce_faults(injector.rows, known, epoch_s)
                await trio.sleep(min(TICK_S, duration_s - at_s))
            self.manifest["cpu_busy_ratio"] = CpuTimes.now().busy_ratio_since(cpu_before)
            self._announce_faults(injector.rows, known, epoch_s)
        # The injector has ended by itself: the experiment's rules keep all faults within the duration.

    def _announce_faults(self, rows: Mapping[str, Any], known: Mapping[str, bool], epoch_s: float) -> dict[str, bool]:
        """Say what has been applied or healed since *known*. Returns: fault_id -> whether it is healed."""
        now = {fault_id: row.healed_s is not None for fault_id, row in rows.items()}
        for fault_id, healed in now.items():
            row = rows[fault_id]
            what = f"{row.kind} {row.target}" + ("" if row.verified else ", which DID NOT TAKE")
            if fault_id not in known:
                self.progress.note(f"t = {row.applied_s - epoch_s:.3f} s: {what}")
            if healed and not known.get(fault_id, False):
                self.progress.note(f"t = {row.healed_s - epoch_s:.3f} s: end of {what}")
        return now

    async def _settle(self, network: EmulatedNetwork) -> None:
        begun_s = time.monotonic()
        self.progress.phase("settling")
        limit_s = self.experiment.settings.settle_s
        apart = await self._wait_agreed(network, begun_s + limit_s, rosters=None)
        self.manifest["phases"] |= {"settle_s": time.monotonic() - begun_s}
        if apart:
            self.progress.note(f"not settled after {limit_s:g} s: {apart}")
        self.note_clock(quiesced_s=time.monotonic())

    def _rosters(self) -> dict[str, set[str]]:
        """Return who is to be in which conference."""
        rosters: dict[str, set[str]] = {}
        for ue, conference in self.experiment.conference_of.items():
            rosters.setdefault(conference, set()).add(ue)
        return rosters

    async def _wait_agreed(
        self, network: EmulatedNetwork, until_s: float, *, rosters: Mapping[str, set[str]] | None
    ) -> str:
        """Ask everybody for their state until all agree; return what still differed at *until_s*, else nothing."""
        while True:
            asked_s = time.monotonic()
            states = await self._ask_states(network)
            apart = disagreement(states, rosters=rosters)
            now_s = time.monotonic()
            if not apart or now_s >= until_s:
                return apart
            await trio.sleep(max(POLL_S, now_s - asked_s))  # asking must not be most of what the nodes do

    async def _ask_states(self, network: EmulatedNetwork) -> list[ConferenceState]:
        from testbed.emulation.control import NodeError

        states: list[ConferenceState] = []

        async def ask(process: str) -> None:
            with contextlib.suppress(NodeError):  # a node that broke down has no state; the others may still agree
                reply = await network.request(process, "status")
                states.extend(ConferenceState.all_of(process, reply["status"]))

        async with trio.open_nursery() as together:
            for process in self._conference_processes():
                together.start_soon(ask, process)
        return states

    def _conference_processes(self) -> list[str]:
        topology = self.experiment.topology
        return [*map(_client, topology.ues), *(f"{csr}.proxy" for csr in topology.csrs)]

    def _final_limit_s(self) -> float:
        return FINAL_LIMIT_S if "quiesced_s" in self.manifest["clock"] else FINAL_LIMIT_INTERRUPTED_S

    async def _take_leave(self, network: EmulatedNetwork) -> None:
        """Have everybody write down where they stand."""
        conference = set(self._conference_processes())
        async with trio.open_nursery() as together:
            for process in list(network.processes):
                ops = ["status", "counters"] if process in conference else ["counters"]
                together.start_soon(self._ask_quietly, network, process, ops)
            together.start_soon(self._write_links, network)

    async def _ask_quietly(self, network: EmulatedNetwork, process: str, ops: Sequence[str]) -> None:
        from testbed.emulation.control import NodeError

        with contextlib.suppress(NodeError):  # what does not answer is missing in the records, and the checks say so
            for op in ops:
                await network.request(process, op)

    async def _write_links(self, network: EmulatedNetwork) -> None:
        counters = await network.link_counters()
        (self.folder.raw / LINKS_FILE).write_bytes(msgspec.json.Encoder().encode_lines(counters))
        self.manifest["link_emulator"] = msgspec.to_builtins(await network.link_stats())

    async def _follow_events(self, network: EmulatedNetwork) -> None:
        async for event in network.events:
            match event.event:
                case "ready":
                    self.ready_s[event.process] = event.t_s
                case "session" if event.fields.get("state") == "joined":
                    self.joined.add(str(event.fields.get("device")))
                    if self.joined.issuperset(self.experiment.topology.ues):
                        self.all_joined.set()
                case "exited" if not event.fields.get("asked"):
                    self._note_breakdown(event.process, event.fields.get("status"))
                case _:
                    pass

    def _note_breakdown(self, process: str, status: object) -> None:
        """A node program ended that nobody asked to. Raises: RunFailureError if the conference cannot come about then."""
        what = f"{process} ended by itself with status {status}; see {self.folder.raw / 'log' / f'{process}.log'}"
        if "up_s" not in self.manifest["phases"]:
            raise RunFailureError(what)
        self.progress.note(what)

    def _note_timings(self, network: EmulatedNetwork, begun_s: float) -> None:
        timings = network.timings
        phases = {"hosts_s": timings.hosts_s, "links_s": timings.links_s, "nodes_s": timings.nodes_s}
        self.manifest["phases"] |= {name: value for name, value in phases.items() if value is not None}
        spelt = ", ".join(
            f"{name.removesuffix('_s')} {value:.2f} s" for name, value in phases.items() if value is not None
        )
        self.progress.note(f"network built in {time.monotonic() - begun_s:.2f} s ({spelt})")

    def _note_end(self, network: EmulatedNetwork) -> None:
        """Write down how every process ended; the network is gone."""
        self.note_clock(end_s=time.monotonic())
        if network.timings.down_s is not None:
            self.manifest["phases"] |= {"down_s": network.timings.down_s}
        self.manifest["duration_s"] = self.manifest["clock"]["end_s"] - self.manifest["clock"]["start_s"]
        ended = network.exits()
        exits = [
            NodeExit(
                name=process,
                status=ended[process].status if process in ended else None,
                cpu_s=ended[process].cpu_s if process in ended else None,
                max_rss_bytes=ended[process].max_rss_bytes if process in ended else None,
                ready_s=self.ready_s.get(process),
            )
            for process in network.processes
        ]
        (self.folder.raw / NODES_FILE).write_bytes(msgspec.json.Encoder().encode_lines(exits))
        self.save()


def fault_ids(faults: Sequence[Fault]) -> list[str]:
    """Return the identities that scheduled faults get: ``f1``, ``f2``, … in the order of the file."""
    return [f"f{number}" for number in range(1, len(faults) + 1)]


def injectable(faults: Sequence[Fault]) -> Iterator[Any]:
    """Yield the faults of an experiment as the injector takes them."""
    from testbed.faults.model import Fault as InjectedFault

    for fault_id, fault in zip(fault_ids(faults), faults, strict=True):
        yield InjectedFault(
            fault_id=fault_id,
            kind=cast("FaultKind", kind_of(fault)),
            target=fault.target,
            at_s=fault.at_s,
            for_s=None if isinstance(fault, LinkUp) else fault.for_s,
            parameters=fault.changes() if isinstance(fault, Impair) else {},
        )


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield the errors in an exception group, however deep."""
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


async def _send_schedule(
    network: EmulatedNetwork, process: str, updates: Sequence[ScheduledUpdate], epoch_s: float
) -> None:
    for start in range(0, len(updates), SCHEDULE_CHUNK):
        chunk = [(epoch_s + one.at_s, one.event, one.size_bytes) for one in updates[start : start + SCHEDULE_CHUNK]]
        await network.request(process, "schedule", updates=chunk)


def _client(device: str) -> str:
    return f"{device}.forwarder"  # on a UE, forwarder and client share one process


def _spell_size(experiment: Experiment) -> str:
    topology = experiment.topology
    return (
        f"{topology.name}, {len(topology.nodes)} hosts ({len(topology.csrs)} CSRs, {len(topology.ues)} UEs), "
        f"{len(topology.links)} links"
    )


def _first_manifest(experiment: Experiment, now: datetime) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{now:%Y%m%dT%H%M%S%f}-{experiment.settings.name}"[:40],
        "experiment": experiment.resolved,
        "experiment_file": str(experiment.path),
        "seed": experiment.settings.seed,
        "mode": "emulated",
        "link_backend": "wire",
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "versions": describe_versions(),
        **describe_commit(),
        "machine": describe_machine(),
        "start": now.isoformat(timespec="milliseconds"),
        "duration_s": None,
        "verdict": "running",
        "clock": {},
        "phases": {},
    }
