"""One run: network up, conference joined, workload and faults on schedule, records, network down, verdict.

    outcome = run_experiment(load_experiment(path), out=None, progress=choose_progress("quickstart"))

Everything that can be wrong with the input or the machine is found before the run folder is made.
"""

# ruff: noqa: PLC0415  # the emulation loads mininet, the analysis pandas: only when there is a run, not for --help

from __future__ import annotations

import contextlib
import dataclasses
import errno
import signal
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import trio

from experiments.flow import ConferenceFlow, Pace, RealTime, RunFailureError, RunningNetwork, plan_of
from experiments.history import FAULTS_FILE, LINKS_FILE, NODES_FILE, TOPOLOGY_FILE, NodeExit
from experiments.machine import (
    CpuTimes,
    utc_offset_s,
)
from experiments.manifest import first_manifest
from experiments.processing_times import PROCESSING_FILE
from experiments.progress import RunProgress
from experiments.recorded_run import write_topology
from experiments.report import write_report
from experiments.run_folder import TWIN, RunFolder, RunVerdict, check_can_create, has_twin
from experiments.run_mode import RunMode, as_twin, check_mode, check_twin
from experiments.spec import Experiment, Impair
from experiments.spec_backends import check_faults_of_netem
from experiments.spec_places import Source
from experiments.twin import ProgressOfTwin, processing_of_twin
from experiments.workloads import check_size
from testbed.plan import NetworkPlan
from testbed.simulation.processing import ProcessTimes
from topologies.errors import CapabilityError, HconfError

if TYPE_CHECKING:
    from experiments.analysis import Analysis
    from testbed.emulation.network import EmulatedNetwork
    from testbed.links.model import LinkCounters

FINAL_LIMIT_S: Final = 5.0  #: for all nodes to report at the end
FINAL_LIMIT_INTERRUPTED_S: Final = 0.5  #: same, when the user is waiting for Ctrl-C

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Console(Protocol):
    """Somebody at a terminal while a run goes on (`experiments.shell`). The run is then looked after in another thread."""

    def make_flow(self, *args: Any, **kwargs: Any) -> ConferenceFlow:  # noqa: ANN401  as ConferenceFlow takes them
        """Make the flow of the run."""

    def conduct(self, supervise: Callable[[AsyncIterable[int]], Awaitable[None]]) -> None:
        """Have *supervise* run to its end; it is given the numbers of signals that end the run. Raises: what it raises."""

    async def attend(self, run: RunInProgress, network: EmulatedNetwork, flow: ConferenceFlow) -> None:
        """Hold the conference of *flow*, with the user at the prompt."""


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


def run_experiment(
    experiment: Experiment,
    *,
    out: Path | None,
    progress: RunProgress,
    mode: RunMode | Literal["both"] = "emulated",
    hold: bool = False,
    console: Console | None = None,
    page: bool = False,
    processing: Mapping[str, ProcessTimes] | None = None,
) -> Outcome:
    """Run *experiment* on an emulated network, or on a simulated one in virtual time.

    Args:
        experiment: as loaded, with all overrides.
        out: run folder to make; None: ``runs/<name>-<UTC time>``.
        progress: is told how it goes.
        mode: the simulated one takes neither root nor Mininet; both: the emulated run is simulated afterwards, in its
            folder, and fails if the two disagree.
        hold: keep the network up when the experiment is over, until the user interrupts; then go on as ever.
        console: a shell; None: nobody is there but to interrupt.
        page: make report.html and the plots, too, which takes a second or two.
        processing: how long each process of a simulated run takes for an event; None: no time.

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
    twin = mode == "both"
    if mode == "both":
        check_twin(experiment, hold=hold)
        mode = "emulated"
    check_mode(experiment, mode, hold=hold)
    if mode == "emulated":
        from testbed.doctor import require_for_run
        from testbed.links.backends import require_targets, with_backends

        topology = with_backends(experiment.topology)
        check_faults_of_netem(experiment.faults, topology, Source(str(experiment.path)))
        if any(isinstance(fault, Impair) and fault.match is not None for fault in experiment.faults):
            require_targets()
        taps = any(link.backend == "wire" for link in topology.links)
        require_for_run(capture=bool(experiment.captures), taps=taps, topology=topology)
        experiment = dataclasses.replace(experiment, topology=topology)
    now = datetime.now(UTC)
    folder = RunFolder.create(settings.name, out=out, now=now)
    run = RunInProgress(experiment, folder, first_manifest(experiment, now, mode), progress, hold, console, page)
    if twin:
        run.manifest |= {TWIN: True}
    if processing is not None:
        run.use_processing(processing)
    write_topology(folder.raw / TOPOLOGY_FILE, experiment.topology)
    run.save()
    try:
        return _carry_through(run)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        raise CapabilityError(
            where=str(folder.path),
            problem="the disk is full; the network is gone, and the records are kept as far as they were written",
            remedy="make room or choose another place with --out, and run it again",
        ) from error
    finally:
        folder.hand_over()


def _carry_through(run: RunInProgress) -> Outcome:
    """Hold the conference, make the CSV files, write down the verdict: of whatever happened."""
    folder, progress = run.folder, run.progress
    try:
        with progress:
            try:
                if run.console is None:
                    trio.run(run.supervise)
                else:
                    run.console.conduct(run.supervise_until)
            except KeyboardInterrupt:  # before or after the time in which signals are listened to
                run.interrupted = True
            if has_twin(run.manifest) and not run.interrupted and not run.manifest.get("problem"):
                run.simulate_twin()
            progress.phase("analysing")
            analysis = run.analyse()
        verdict: RunVerdict = "fail" if analysis is None or analysis.failed else "pass"
        if run.interrupted:
            verdict = "interrupted"
        run.manifest |= {"verdict": verdict}
        run.save()
        write_report(folder, analysis, run.manifest)
        if run.page:
            from experiments.report.run_page import write_page

            write_page(folder, analysis, run.manifest)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        run.manifest |= {"verdict": "interrupted" if interrupted else "error"}
        run.manifest.setdefault("problem", "" if interrupted else f"{type(error).__name__}: {error}")
        with contextlib.suppress(OSError):  # what failed may be the disk
            run.save()
        raise
    return Outcome(folder.path, verdict, analysis, run.manifest)


@dataclass
class RunInProgress:
    """One run while it goes on."""

    experiment: Experiment
    folder: RunFolder
    manifest: dict[str, Any]
    progress: RunProgress
    hold: bool = False  #: keep the network up at the end
    console: Console | None = None
    page: bool = False  #: make report.html
    processing: Mapping[str, ProcessTimes] | None = None  #: of a simulated run; None: computing takes no time
    interrupted: bool = False
    held: trio.Event | None = None  #: set to let go of a network that is kept up; None: it is not
    ready_s: dict[str, float] = field(default_factory=dict)  #: process -> when it was ready
    joined: set[str] = field(default_factory=set)  #: devices that have ever been
    cpu_before: CpuTimes | None = None

    @property
    def simulated(self) -> bool:
        return bool(self.manifest["mode"] == "simulated")

    def save(self) -> None:
        self.folder.write_manifest(self.manifest)

    def note_clock(self, **times_s: float) -> None:
        self.manifest["clock"] |= times_s

    def use_processing(self, processing: Mapping[str, ProcessTimes]) -> None:
        """Have processes take these times, and write them down: with file and seed, all of the run follows from them."""
        self.processing = processing
        self.manifest |= {"processing": f"raw/{PROCESSING_FILE}"}
        (self.folder.raw / PROCESSING_FILE).write_bytes(msgspec.json.encode(processing) + b"\n")

    def simulate_twin(self) -> None:
        """Simulate what was emulated; an interrupted twin is as if the run was."""
        self.progress.note("the simulated twin")
        try:
            outcome = run_experiment(
                as_twin(self.experiment),
                out=self.folder.path / TWIN,
                progress=ProgressOfTwin(self.progress),
                mode="simulated",
                page=self.page,
                processing=processing_of_twin(self.folder.raw, self.manifest["clock"], self.plan()),
            )
        except KeyboardInterrupt:  # while nobody listened to signals
            self.interrupted = True
        else:
            self.interrupted = outcome.verdict == "interrupted"

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
        if threading.current_thread() is not threading.main_thread():  # as on a Dask worker: no other has signals
            await self.supervise_until(_no_signals())
            return
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            await self.supervise_until(signals)

    async def supervise_until(self, signals: AsyncIterable[int]) -> None:
        """As `supervise`; interrupted by what comes from *signals*."""
        failure: Exception | None = None
        scope = trio.CancelScope()
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
        from testbed.links.wire import EmulatorDied

        leaves = list(_leaves(failure))
        for leaf in leaves:
            if isinstance(leaf, HconfError):
                raise leaf
            if not isinstance(leaf, RunFailureError | HelperError | NodeError | EmulatorDied):
                raise failure
        self.manifest["problem"] = str(leaves[0])
        self.progress.note(f"broke off: {leaves[0]}")

    async def _listen(self, signals: AsyncIterable[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            if self.held is not None and not self.held.is_set():
                self.held.set()
                continue
            if self.interrupted:
                self.progress.note("already stopping: removing the network takes a few seconds")
                continue
            self.interrupted = True
            self.progress.note(f"interrupted by {signal.Signals(number).name}: removing the network")
            scope.cancel()

    async def _network(self) -> None:
        """Build the network, hold the conference, take the network down."""
        if self.simulated:
            from experiments.simulated_run import no_search_for_cycles

            with no_search_for_cycles():
                await self._simulated_network()
        else:
            await self._emulated_network()

    async def _emulated_network(self) -> None:
        from testbed.emulation.network import emulated_network

        begun_s = time.monotonic()
        self.note_clock(start_s=begun_s, utc_offset_s=utc_offset_s())
        self.save()
        self.progress.phase(f"building the network: {_spell_size(self.experiment)}")
        network: EmulatedNetwork | None = None
        try:
            async with emulated_network(self.plan()) as network:
                self._note_timings(network, begun_s)
                async with trio.open_nursery() as background:
                    background.start_soon(self._follow_events, network)
                    for link in self.experiment.captures:
                        self.folder.captures.mkdir(exist_ok=True)
                        await network.start_capture(link, self.folder.captures / f"{link}.pcapng")
                    flow = self._flow(network, RealTime(), begun_s)
                    try:
                        if self.console is None:
                            await self.hold_conference(flow)
                        else:
                            await self.console.attend(self, network, flow)
                        if self.hold:
                            await self._keep_up()
                    finally:
                        # Bounded, and also when the run is being broken off: records are all that will be left of it.
                        with trio.move_on_after(self._final_limit_s(), shield=True) as limit:
                            await self._take_leave(flow, network)
                        if limit.cancelled_caught:
                            self.progress.note("not every node reported in time")
                    background.cancel_scope.cancel()
                self.progress.phase("taking the network down")
        finally:
            if network is not None:
                self._note_end(network)

    async def _keep_up(self) -> None:
        """Leave the network as it is until the user interrupts: what was measured is measured."""
        self.held = trio.Event()
        run_id, nodes = self.manifest["run_id"], [node.name for node in self.experiment.topology.nodes]
        self.progress.note(f"run {run_id} is kept up; Ctrl-C ends it and writes the report. Nodes: {' '.join(nodes)}")
        self.progress.note(f"to run a program in one: hconf exec {self.experiment.topology.ues[0]} -- PROGRAM ...")
        self.progress.phase("kept up")
        await self.held.wait()

    async def _simulated_network(self) -> None:
        from experiments.simulated_run import SimulatedRecords, simulate

        begun_s, cpu_begun_s = time.monotonic(), time.process_time()
        self.progress.phase(f"simulating: {_spell_size(self.experiment)}")
        plan = self.plan()
        with SimulatedRecords(self.folder.raw) as records:
            network = simulate(self.experiment, plan, records, records.note_message_hit, self.processing)
            records.write_configs(plan)
            self.joined, start_s = network.joined, network.now_s()
            self.note_clock(start_s=start_s)
            flow = self._flow(network, network, start_s)
            try:
                await self.hold_conference(flow)
            finally:
                with trio.CancelScope(shield=True):  # takes no time
                    await flow.take_leave()
                    self._write_link_counters(await network.link_counters())
                self._write_exits(
                    NodeExit(name=name, status=0 if process.running else -signal.SIGKILL, ready_s=start_s)
                    for name, process in network.processes.items()
                )
                self.note_clock(end_s=network.now_s())
                self.manifest["duration_s"] = network.now_s() - start_s
                self.manifest["simulator"] = {
                    "wall_s": time.monotonic() - begun_s,
                    "cpu_s": time.process_time() - cpu_begun_s,
                }
                self.save()

    def _flow(self, network: RunningNetwork, pace: Pace, begun_s: float) -> ConferenceFlow:
        def note_clock(**times_s: float) -> None:
            if "epoch_s" in times_s:  # all are in sync
                self.manifest["phases"] |= {"up_s": pace.now_s() - begun_s}
                self.progress.note(f"in sync after {pace.now_s() - begun_s:.2f} s")
            self.note_clock(**times_s)
            self.save()

        make = ConferenceFlow if self.console is None else self.console.make_flow
        return make(
            self.experiment,
            network,
            pace,
            self.joined,
            self.progress,
            fault_rows=self.folder.raw / FAULTS_FILE,
            note_clock=note_clock,
            on_epoch=self._begin_cpu_measurement,
            on_end=self._end_cpu_measurement,
        )

    async def hold_conference(self, flow: ConferenceFlow) -> None:
        """Everything from the first join to the last agreement; the manifest says how long it took."""
        try:
            await flow.hold()
        finally:
            self.manifest["phases"] |= flow.phases
            if flow.unsettled:
                self.manifest["unsettled"] = flow.unsettled

    def _begin_cpu_measurement(self) -> None:
        self.cpu_before = None if self.simulated else CpuTimes.now()

    def _end_cpu_measurement(self) -> None:
        if self.cpu_before is not None:
            self.manifest["cpu_busy_ratio"] = CpuTimes.now().busy_ratio_since(self.cpu_before)

    def plan(self) -> NetworkPlan:
        """Return the network to build."""
        plan = plan_of(self.experiment, run_id=self.manifest["run_id"], run_dir=self.folder.path)
        return dataclasses.replace(
            plan,
            # What will be typed in a shell is not known: it may have code over packets.
            packet_code=plan.packet_code or self.console is not None,
            measures_processing=has_twin(self.manifest),
        )

    def _final_limit_s(self) -> float:
        return FINAL_LIMIT_S if "quiesced_s" in self.manifest["clock"] else FINAL_LIMIT_INTERRUPTED_S

    async def _take_leave(self, flow: ConferenceFlow, network: EmulatedNetwork) -> None:
        """Have everybody write down where they stand."""
        async with trio.open_nursery() as together:
            together.start_soon(flow.take_leave)
            together.start_soon(self.write_links, network)

    async def write_links(self, network: EmulatedNetwork) -> None:
        """Write down what each link has carried so far."""
        self._write_link_counters(await network.link_counters())
        if (stats := await network.link_stats()) is not None:
            self.manifest["link_emulator"] = msgspec.to_builtins(stats)

    def _write_link_counters(self, counters: Sequence[LinkCounters]) -> None:
        (self.folder.raw / LINKS_FILE).write_bytes(msgspec.json.Encoder().encode_lines(counters))

    async def _follow_events(self, network: EmulatedNetwork) -> None:
        async for event in network.events:
            match event.event:
                case "ready":
                    self.ready_s[event.process] = event.t_s
                case "session" if event.fields.get("state") == "joined":
                    self.joined.add(str(event.fields.get("device")))
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
        self.note_clock(end_s=time.monotonic(), utc_offset_end_s=utc_offset_s())
        if network.timings.down_s is not None:
            self.manifest["phases"] |= {"down_s": network.timings.down_s}
        self.manifest["duration_s"] = self.manifest["clock"]["end_s"] - self.manifest["clock"]["start_s"]
        ended = network.exits()
        self._write_exits(
            NodeExit(
                name=process,
                status=ended[process].status if process in ended else None,
                cpu_s=ended[process].cpu_s if process in ended else None,
                max_rss_bytes=ended[process].max_rss_bytes if process in ended else None,
                ready_s=self.ready_s.get(process),
            )
            for process in network.processes
        )
        self.save()

    def _write_exits(self, exits: Iterable[NodeExit]) -> None:
        (self.folder.raw / NODES_FILE).write_bytes(msgspec.json.Encoder().encode_lines(exits))


async def _no_signals() -> AsyncIterator[int]:
    await trio.Event().wait()  # for ever, of which mypy must not know: what follows makes this an iterator
    yield 0


def _is_disk_full(error: BaseException) -> bool:
    """Tell whether nothing but a full disk, or the user's share of it, has stopped us."""
    return isinstance(error, Exception) and all(
        isinstance(leaf, OSError) and leaf.errno in (errno.ENOSPC, errno.EDQUOT) for leaf in _leaves(error)
    )


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield the errors in an exception group, however deep."""
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _spell_size(experiment: Experiment) -> str:
    topology = experiment.topology
    return (
        f"{topology.name}, {len(topology.nodes)} hosts ({len(topology.csrs)} CSRs, {len(topology.ues)} UEs), "
        f"{len(topology.links)} links"
    )
