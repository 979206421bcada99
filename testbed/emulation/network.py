"""A network of a plan, up and running: hosts, links, node processes; and gone without a trace afterwards.

    async with emulated_network(plan) as network:
        await network.request("ue1.forwarder", "join")

Tasks and processes::

    supervisor (trio) ── control channel (JSON lines) ──> node process, one or two a host
     ├─ zygote ── forks ─────────────────────────────────────┘
     ├─ holder program ── forks ──> one holder a host: keeps its namespaces; attached to by Mininet
     ├─ link emulator: the TAP interfaces of all links
     └─ worker thread: Mininet
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import trio

from testbed.addresses import PREFIX_LENGTH, AddressPlan
from testbed.capture.link_capture import LinkCapture
from testbed.emulation import mininet_net, preflight
from testbed.emulation.announcements import Announcements
from testbed.emulation.children import HelperError, run_environment
from testbed.emulation.control import REPLY_LIMIT_S
from testbed.emulation.hosts import Hosts, read_carrier
from testbed.emulation.node_addresses import node_addresses, set_node_addresses
from testbed.emulation.node_processes import NodeEvent, NodeProcess, NodeProcesses
from testbed.emulation.ownership import Ownership
from testbed.emulation.scopes import ShieldedTasks, lone_exception, run_undisturbed
from testbed.emulation.worker import WorkerThread
from testbed.emulation.zygote import NODE_PROGRAM, Exit, Zygote
from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.faults.targets import ProcessState
from testbed.links.backends import Links, with_backends
from testbed.links.model import (
    Direction,
    EmulatorStats,
    Impairment,
    LinkCounters,
    LinkEnd,
    LinkPlan,
    impairments_of,
)
from testbed.links.netem.match import Match
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from topologies.model import Link, LinkBackend

P = ParamSpec("P")
T = TypeVar("T")


CAPTURE_LIMIT_S: Final = 1.0  #: for all captures to be written to their end
MININET_LIMIT_S: Final = 1.0  #: for Mininet to notice, unless a call that was abandoned still waits for something else
LINKS_LIMIT_S: Final = 4.0  #: for the emulator to remove its interfaces; then it is killed


@dataclass(slots=True)
class Timings:
    """Wall-clock time of each phase; None as long as it has not ended."""

    hosts_s: float | None = None  #: namespaces of all hosts
    links_s: float | None = None  #: interfaces, addresses, emulator, and the Mininet objects over them
    nodes_s: float | None = None  #: from the first spawn until every node is ready
    up_s: float | None = None  #: all of it; phases overlap
    stop_nodes_s: float | None = None
    stop_links_s: float | None = None
    stop_hosts_s: float | None = None
    down_s: float | None = None


@asynccontextmanager
async def emulated_network(
    plan: NetworkPlan, *, node_program: Sequence[str] | None = NODE_PROGRAM
) -> AsyncIterator[EmulatedNetwork]:
    """Build the network of *plan*, and take it down again whatever happens.

    Args:
        plan: what to build.
        node_program: the zygote that node processes are forked from; None: hosts and links only, no node runs in them.

    Raises: CapabilityError if this machine cannot; HelperError or NodeError if a part fails, also while the block runs
        (then the block is cancelled); FileExistsError if a run of that ID lives. An exception of the block itself comes
        out as it is.
    """
    network = EmulatedNetwork(plan, node_program)
    try:
        async with trio.open_nursery() as nursery:
            background = ShieldedTasks(nursery)
            try:
                await network.build(background)
                yield network
            finally:
                try:
                    await run_undisturbed(network.tear_down)  # noqa: ASYNC102  shielded there; every step has its limit
                finally:
                    background.cancel()
    except BaseExceptionGroup as group:
        lone = lone_exception(group)
        if lone is None:
            raise
        raise lone from lone.__cause__


class EmulatedNetwork:
    """What `emulated_network` hands out. Everything async is to be called from trio's thread."""

    def __init__(self, plan: NetworkPlan, node_program: Sequence[str] | None) -> None:
        self.plan = plan
        self.addresses = AddressPlan.of(plan.topology)
        self.timings = Timings()
        self._node_program = node_program
        self._ownership = Ownership(plan.run_id)
        #: Of each link the back end that makes it.
        self.backends: dict[str, LinkBackend] = {}
        self._announcements = Announcements(plan.topology, self.request)
        self._nodes = NodeProcesses(plan, self._ownership, self._announcements.note)
        self._captures: dict[str, LinkCapture] = {}
        self._stopping = False
        # Parts, in the order of their making; teardown takes what is there.
        self._claimed = False
        self._worker: WorkerThread | None = None
        self._log_route: mininet_net.LogRoute | None = None
        self._hosts: Hosts | None = None
        self._zygote: Zygote | None = None
        self._links: Links | None = None
        self._net: Any = None  # mininet is not typed

    # What a run does with it

    @property
    def net(self) -> Any:  # noqa: ANN401  mininet is not typed
        """The Mininet object. Its calls block and must not overlap: use `in_mininet`."""
        if self._net is None:
            raise RuntimeError("the network is not up: use it inside of `async with emulated_network(...)`")
        return self._net

    @property
    def processes(self) -> dict[str, NodeProcess]:
        """By name, such as ``ue1.forwarder``."""
        return self._nodes.processes

    @property
    def events(self) -> trio.MemoryReceiveChannel[NodeEvent]:
        """What nodes say unasked, and their ends."""
        return self._nodes.events

    @property
    def events_dropped(self) -> int:
        """Events that nobody took in time."""
        return self._nodes.events_dropped

    async def in_mininet(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of Mininet's API in the thread for it: ``await n.in_mininet(n.net.get("ue1").cmd, "ip addr")``.

        A task that is cancelled does not wait for the end of the call: that comes when the hosts are ended.
        """
        return await _there(self._worker).run_abandonable(function, *args, **kwargs)

    async def request(
        self,
        process: str,
        op: str,
        *,
        limit_s: float = REPLY_LIMIT_S,
        **arguments: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Ask the node process *process*, for instance ``ue1.forwarder``, and return its reply.

        Raises: NodeGoneError, NodeRefusedError, NodeSilentError; KeyError if there is no such process.
        """
        return await self.processes[process].control.request(op, limit_s=limit_s, **arguments)

    def host_pid(self, host: str) -> int:
        """Return the process whose namespaces are those of *host* (``nsenter -t``). Raises: KeyError."""
        return _there(self._hosts).pids[host]

    def exits(self) -> dict[str, Exit]:
        """Return how each process that has ended did; complete once the network is down."""
        return dict(self._nodes.exits)

    async def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001  as the link back end has it
        """Take *link* down or up at both ends. Raises: InputError, CapabilityError if it did not take."""
        await trio.to_thread.run_sync(_there(self._links).set_carrier, self._link(link).name, up)

    async def read_carrier(self, link: str) -> tuple[bool, bool]:
        """Return whether each end of *link* has a carrier, as its host's kernel says."""
        found = self._link(link)
        a, b = (
            read_carrier(self.host_pid(node), self.addresses.end(found.name, node).intf) for node in (found.a, found.b)
        )
        return a, b

    async def change_link(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401
    ) -> dict[Direction, Impairment]:
        """Change properties of *link* (fields of `Impairment`); frames in flight are not disturbed.

        Returns: both directions, read back. Raises: InputError.
        """
        change: Callable[..., dict[Direction, Impairment]] = _there(self._links).change
        return await trio.to_thread.run_sync(partial(change, self._link(link).name, direction=direction, **properties))

    async def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> dict[Match, Impairment]:
        """Have *link* impair these kinds of frames by themselves, and no others. Returns: them, read back. Raises: as `Links`."""
        return await trio.to_thread.run_sync(_there(self._links).set_targets, self._link(link).name, direction, targets)

    async def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        """Make *link* a black hole in these *directions*, and in no other; neither end sees it.

        Raises: InputError, CapabilityError if it did not take.
        """
        await trio.to_thread.run_sync(_there(self._links).set_blocked, self._link(link).name, directions)

    async def read_blocked(self, link: str) -> frozenset[Direction]:
        """Return the directions in which *link* is a black hole. Raises: InputError."""
        return await trio.to_thread.run_sync(_there(self._links).read_blocked, self._link(link).name)

    async def add_message_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        """Put a message fault into force. Raises: InputError where its code is wrong; CapabilityError."""
        return await trio.to_thread.run_sync(_there(self._links).add_rule, rule, lanes)

    async def report_message_rule(self, fault_id: str) -> RuleReport:
        """Return what came of a message fault so far."""
        return await trio.to_thread.run_sync(_there(self._links).report_rule, fault_id)

    async def remove_message_rule(self, fault_id: str) -> RuleReport:
        """End a message fault. Returns: what came of it."""
        return await trio.to_thread.run_sync(_there(self._links).remove_rule, fault_id)

    async def inject_packet(self, link: str, direction: Direction, packet: str) -> bool:
        """Send a packet made by hand from one end of *link*. Returns: whether that is up. Raises: InputError."""
        return await trio.to_thread.run_sync(_there(self._links).inject, self._link(link).name, direction, packet)

    # Faults of processes, as the injector wants them

    async def kill_process(self, process: str) -> None:
        """End a node process without warning, and wait until it is gone. Raises: KeyError, CapabilityError."""
        await self._nodes.kill(process)

    async def restart_process(self, process: str) -> None:
        """Start a process that has ended, under its next boot number, and wait until it is ready.

        Raises: KeyError, CapabilityError if it did not come up.
        """
        await self._nodes.restart(process)

    async def freeze_process(self, process: str) -> None:
        """Stop a process (SIGSTOP): it keeps its sockets, and does nothing. Raises: KeyError, OSError."""
        await self._nodes.freeze(process)

    async def thaw_process(self, process: str) -> None:
        """Let a process that was stopped go on (SIGCONT). Raises: KeyError, OSError."""
        await self._nodes.thaw(process)

    async def starve_process(self, process: str, cpu_ratio: float, period_ms: float) -> None:
        """Let a process run for a part of each period only. Raises: KeyError, OSError, CapabilityError if it did not take."""
        await self._nodes.starve(process, cpu_ratio=cpu_ratio, period_ms=period_ms)

    async def feed_process(self, process: str) -> float:
        """Let a starved process run whenever it wants to. Returns: the part of the time that it could run. Raises: KeyError."""
        return await self._nodes.feed(process)

    def lose_disk(self, process: str) -> None:
        """Remove what a service proxy, which has ended, has stored. Raises: OSError."""
        self._nodes.lose_disk(process)

    def process_state(self, process: str) -> ProcessState:
        """Return what a node process is doing, as the kernel says. Raises: KeyError."""
        return self._nodes.state(process)

    # Links

    async def link_counters(self) -> list[LinkCounters]:
        """Return what each direction of each link has carried and dropped since the network is up."""
        return await trio.to_thread.run_sync(_there(self._links).counters)

    async def link_stats(self) -> EmulatorStats | None:
        """Return how the link emulator itself is doing; None if no link is a `wire` one."""
        return await trio.to_thread.run_sync(_there(self._links).stats)

    async def start_capture(self, link: str, path: Path) -> None:
        """Capture what passes an end of *link* into the pcapng file *path*, until `stop_capture` or the end.

        Of an access link that is the UE's, where what the link lost, delayed and repeated is as the UE had it; else end `a`.
        """
        found = self._link(link)
        ues = [name for name in (found.a, found.b) if self.plan.topology.node(name).role == "ue"]
        node = ues[0] if len(ues) == 1 else found.a
        start = partial(
            LinkCapture.start,
            f"{found.name} at {node}",
            pid=self.host_pid(node),
            intf=self.addresses.end(found.name, node).intf,
            path=path,
            environment=run_environment(self.plan.run_id),
        )
        capture = self._captures[found.name] = await trio.to_thread.run_sync(start)
        self._ownership.record({f"capture {found.name}": capture.pid})

    async def stop_capture(self, link: str) -> None:
        """End the capture of *link*. Raises: KeyError if there is none."""
        await trio.to_thread.run_sync(self._captures.pop(self._link(link).name).stop)

    def _link(self, name: str) -> Link:
        return self.plan.topology.link(name)

    # Building

    @trio.lowlevel.enable_ki_protection  # an interrupt comes at an await: whatever was made is known to tear_down
    async def build(self, background: ShieldedTasks) -> None:
        """Make everything; what exists when this raises is for `tear_down` to remove."""
        start_s, plan = time.monotonic(), self.plan
        names = [node.name for node in plan.topology.nodes]
        self.backends = {link.name: link.backend for link in with_backends(plan.topology).links}
        preflight.check_machine(plan.topology, taps="wire" in self.backends.values())
        for directory in (plan.config_dir, plan.log_dir, plan.state_dir):
            directory.mkdir(parents=True, exist_ok=True)
        self._ownership.claim()
        self._claimed = True
        self._worker = WorkerThread(f"mininet {plan.run_id}")
        self._log_route = mininet_net.LogRoute(plan.log_dir / "mininet.log")
        self._hosts = Hosts.begin(names, run_id=plan.run_id, log_path=plan.log_dir / "holders.log")
        self._ownership.record({"holders": self._hosts.helper.pid})
        self._links = Links.begin(
            self.backends, log_path=plan.log_dir / "links.log", environment=run_environment(plan.run_id)
        )
        if self._links.pid is not None:
            self._ownership.record({"link emulator": self._links.pid})
        if self._node_program is None:
            await self._build_hosts_and_links(names, background)
        else:
            await self._build_with_nodes(names, self._node_program, background)
        self.timings.up_s = time.monotonic() - start_s

    @trio.lowlevel.enable_ki_protection
    async def _build_with_nodes(
        self, names: Sequence[str], node_program: Sequence[str], background: ShieldedTasks
    ) -> None:
        worker, hosts = _there(self._worker), _there(self._hosts)
        self._zygote = zygote = Zygote.begin(
            run_id=self.plan.run_id,
            log_path=self.plan.log_dir / "zygote.log",
            on_exit=self._nodes.note_exit,
            program=node_program,
        )
        self._ownership.record({"zygote": zygote.helper.pid})
        background.start_soon(self._serve_zygote, zygote)
        background.start_soon(self._announcements.serve)
        async with trio.open_nursery() as together:
            together.start_soon(self._build_hosts_and_links, names, background)
            together.start_soon(zygote.wait_ready)
            configs = await worker.run(self._write_configs)
        start_nodes_s = time.monotonic()
        await self._nodes.start_all(configs, zygote=zygote, netns_fds=hosts.netns_fds, background=background)
        self.timings.nodes_s = time.monotonic() - start_nodes_s

    @trio.lowlevel.enable_ki_protection
    async def _build_hosts_and_links(self, names: Sequence[str], background: ShieldedTasks) -> None:
        hosts, worker, start_s = _there(self._hosts), _there(self._worker), time.monotonic()
        await hosts.ready(names)
        self._ownership.record({f"host {name}": pid for name, pid in hosts.pids.items()})
        background.start_soon(self._watch, "holder program", hosts.helper.pid)
        self.timings.hosts_s = time.monotonic() - start_s

        links_start_s = time.monotonic()
        await worker.run(self._build_links)
        pid = _there(self._links).pid
        if pid is not None:
            background.start_soon(self._watch, "link emulator", pid)
        await worker.run(set_node_addresses, self.plan.topology, self.addresses, hosts.netns_fds)
        await worker.run(self._build_mininet)
        self.timings.links_s = time.monotonic() - links_start_s

    def _build_links(self) -> None:
        _there(self._links).build(
            build_link_plans(self.plan, self.addresses),
            netns_fds=_there(self._hosts).netns_fds,
            seed=self.plan.seed,
            ledger_path=self.plan.raw_dir / "wire-ledger.jsonl",
            packet_code=self.plan.packet_code,
        )

    def _build_mininet(self) -> None:
        def intf_plan(link: Link, node: str) -> mininet_net.IntfPlan:
            end = self.addresses.end(link.name, node)
            return mininet_net.IntfPlan(node, end.intf, end.address, PREFIX_LENGTH, end.mac)

        own, pids = node_addresses(self.plan.topology), _there(self._hosts).pids
        self._net = mininet_net.build_mininet(
            self.plan.run_id,
            [mininet_net.HostPlan(name, pid, str(own[name])) for name, pid in pids.items()],
            [(intf_plan(link, link.a), intf_plan(link, link.b)) for link in self.plan.topology.links],
        )

    def _write_configs(self) -> list[tuple[str, Path]]:
        written = []
        for name, config in build_node_configs(self.plan, self.addresses):
            path = (self.plan.config_dir / f"{name}.json").absolute()
            if "login" in config:  # the register is a file of its own, as any login server has one
                register = (self.plan.config_dir / f"{name}.devices.json").absolute()
                register.write_text(json.dumps({"devices": config["login"].pop("devices")}), encoding="utf-8")
                config["login"]["devices_path"] = str(register)
            path.write_text(json.dumps(config), encoding="utf-8")
            written.append((name, path))
        return written

    # While it runs

    async def _serve_zygote(self, zygote: Zygote) -> None:
        await zygote.serve()
        if self.timings.up_s is not None and not self._stopping:  # before, whoever waits for it says so
            raise HelperError("the zygote ended while the network was up, and all nodes with it; its log may say why")

    async def _watch(self, what: str, pid: int) -> None:
        """Raise HelperError when a helper ends that nobody asked to. It is not reaped here: its number stays its own."""
        pidfd = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
        if not self._stopping:
            raise HelperError(f"the {what} ended while the network was up; its log may say why")

    # Taking down

    async def tear_down(self) -> None:
        """Remove everything that `build` made. Bounded; one step's failure does not keep the others from being made.

        Raises: ExceptionGroup with what went wrong, after everything has been tried.
        """
        start_s, self._stopping, self._nodes.is_stopping = time.monotonic(), True, True
        self._announcements.is_stopping = True
        failures: list[Exception] = []

        async def step(function: Callable[[], Awaitable[None]]) -> float:
            step_start_s = time.monotonic()
            try:
                await function()
            except Exception as error:  # noqa: BLE001  collected, and raised at the end
                failures.append(error)
            return time.monotonic() - step_start_s

        await step(self._stop_captures)
        self.timings.stop_nodes_s = await step(self._stop_nodes)
        self.timings.stop_links_s = await step(self._stop_links)
        self.timings.stop_hosts_s = await step(self._stop_hosts)
        await step(self._stop_rest)
        self.timings.down_s = time.monotonic() - start_s
        if failures:
            raise ExceptionGroup("taking the network down", failures)

    async def _stop_captures(self) -> None:
        with trio.move_on_after(CAPTURE_LIMIT_S):
            async with trio.open_nursery() as together:
                for capture in self._captures.values():
                    together.start_soon(partial(trio.to_thread.run_sync, capture.stop, abandon_on_cancel=True))

    async def _stop_nodes(self) -> None:
        await self._nodes.stop_all()
        if self._zygote is not None:
            await self._zygote.end()  # kills those that are left
        await self._nodes.close()

    async def _stop_links(self) -> None:
        links = self._links
        if links is None:
            return
        with trio.move_on_after(LINKS_LIMIT_S) as limit:
            await trio.to_thread.run_sync(links.stop, abandon_on_cancel=True)
        if limit.cancelled_caught:
            if links.pid is not None:
                os.kill(links.pid, 9)  # our child, and reaped only by the call above, which still waits for it
            raise HelperError(f"the link emulator was killed: it did not stop within {LINKS_LIMIT_S:g} s")

    async def _stop_hosts(self) -> None:
        if self._hosts is not None:
            await self._hosts.end()  # with every shell and whatever was typed at it
        if self._net is not None:  # nothing of it is left to end; this closes terminals
            with trio.move_on_after(MININET_LIMIT_S):
                await _there(self._worker).run_abandonable(self._net.stop)

    async def _stop_rest(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._log_route is not None:
            self._log_route.close()
        if self._claimed:
            self._ownership.release()
        self._nodes.close_events()


def build_link_plans(plan: NetworkPlan, addresses: AddressPlan) -> list[LinkPlan]:
    """Return what the link back end is to make of the topology's links."""

    def end(link: Link, node: str) -> LinkEnd:
        planned = addresses.end(link.name, node)
        return LinkEnd(
            host=node,
            intf=planned.intf,
            address=planned.cidr,
            mac=planned.mac,
            peer_address=planned.peer_address,
            peer_mac=planned.peer_mac,
        )

    plans = []
    for link in plan.topology.links:
        a_to_b, b_to_a = impairments_of(link)
        plans.append(LinkPlan(name=link.name, a=end(link, link.a), b=end(link, link.b), a_to_b=a_to_b, b_to_a=b_to_a))
    return plans


def _there(part: T | None) -> T:
    """Return a part of the network. Raises: RuntimeError if it is not there: a use before it is up."""
    if part is None:
        raise RuntimeError("the network is not up: use it inside of `async with emulated_network(...)`")
    return part
