"""The simulator behind the surface that `testbed.emulation.network.EmulatedNetwork` has, so that one runner drives both.

Nothing here waits: a request is answered at once, ``sleep_until`` lets virtual time pass as fast as it can be computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
import trio

from proxy.core.build import client_of
from proxy.core.events import (
    CloseRequested,
    JoinRequested,
    ObjectsScheduled,
    PublishRequested,
    ScheduleEnded,
    ScheduleExtended,
)
from proxy.core.service_client import PublishError
from proxy.driver.status import bounds_of, counters_of, reported_state, sent_messages, status_of
from proxy.records import CountersReported, Record, SessionChanged
from testbed.emulation.control import NodeGoneError, NodeRefusedError, NodeSilentError
from testbed.faults.packets.rules import MessageHit, MessageRule, RuleReport
from testbed.faults.targets import ProcessState
from testbed.links.model import DIRECTIONS, Direction, Impairment, LinkCounters
from testbed.links.netem.match import Match
from testbed.plan import NetworkPlan
from testbed.simulation.line import SimulatedLink
from testbed.simulation.network import SimulatedNetwork
from testbed.simulation.process import SimulatedProcess
from testbed.simulation.processing import ProcessTimes
from topologies.errors import CapabilityError

#: As proxy/driver/program.py does it.
COUNTERS_INTERVAL_S: Final = 1.0


class ControlledSimulation:
    """A simulated network, asked and told what an emulated one is. All times are virtual seconds.

    Args:
        plan: of the network.
        on_record: is given every record, and the process that wrote it.
        clock_skew_ppm: as `SimulatedNetwork` takes it.
        on_message_hit: is given what message faults do.
        processing: as `SimulatedNetwork` takes it.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        *,
        on_record: Callable[[str, Record], None],
        clock_skew_ppm: Mapping[str, float] | None = None,
        on_message_hit: Callable[[MessageHit], None] = lambda _: None,
        processing: Mapping[str, ProcessTimes] | None = None,
    ) -> None:
        self._on_record = on_record
        self.joined: set[str] = set()  #: devices that have ever been
        self.network = SimulatedNetwork(
            plan,
            clock_skew_ppm=clock_skew_ppm,
            on_record=self._take_record,
            on_message_hit=on_message_hit,
            processing=processing,
        )
        self.network.at(self.network.now_s + COUNTERS_INTERVAL_S, self._count_regularly)

    @property
    def processes(self) -> Mapping[str, SimulatedProcess]:
        return self.network.processes

    # ------------------------------------------------------------------ time

    def now_s(self) -> float:
        """Return the virtual time."""
        return self.network.now_s

    async def sleep_until(self, at_s: float) -> None:
        """Let virtual time pass until *at_s*."""
        await trio.lowlevel.checkpoint()  # where the user may interrupt
        if at_s > self.network.now_s:
            self.network.run_until(at_s)

    async def together(self, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Do all of them at this instant, one after the other: the order must be the same in every run."""
        for call in calls:
            await call()

    async def aside(self, nursery: trio.Nursery, call: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002
        """Do it at this instant: it takes no time."""
        await call()

    # ------------------------------------------------------------------ nodes

    async def request(self, process: str, op: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask a node program, as over the control channel (proxy/driver/control.py).

        Raises: NodeGoneError if it does not run; NodeRefusedError as the node refuses; KeyError if there is no such process; ValueError for what it cannot do.
        """
        simulated = self.processes[process]
        if not simulated.running:
            raise NodeGoneError(f"{process} is not running")
        if self.process_state(process) == "frozen" and op in ("ping", "status", "counters"):
            raise NodeSilentError(f"{process} is frozen")
        match op:
            case "ping":
                return {}
            case "status":
                if arguments.get("writes", True):
                    for record in reported_state(simulated.core, simulated.config.node, self.now_s()):
                        self.network.log(simulated, record)
                return {"status": status_of(simulated.core)}
            case "counters":
                return {"counters": msgspec.to_builtins(self._count(simulated))}
            case "join":
                self._tell_client(simulated, op, JoinRequested())
            case "publish":
                text = arguments.get("body")
                body = bytes(arguments.get("size_bytes", 0)) if text is None else str(text).encode()
                self._tell_client(simulated, op, PublishRequested(arguments.get("event", "message"), body))
            case "schedule":
                clock = simulated.clock
                updates = tuple(
                    (clock.local_s(at_s), event, body.encode() if isinstance(body, str) else body)
                    for at_s, event, body in arguments["updates"]
                )
                self._tell_client(simulated, op, ScheduleExtended(updates))
            case "schedule-objects":
                clock = simulated.clock
                objects, streams = (
                    tuple((clock.local_s(at_s), *rest) for at_s, *rest in arguments.get(kind, ()))
                    for kind in ("objects", "streams")
                )
                self._tell_client(simulated, op, ObjectsScheduled(objects, streams))
            case "end-schedule":
                self._tell_client(simulated, op, ScheduleEnded())
            case "close":
                self._tell_client(simulated, op, CloseRequested())
            case _:
                raise ValueError(f"unknown op {op!r}")
        return {}

    def _tell_client(
        self,
        process: SimulatedProcess,
        op: str,
        event: JoinRequested | PublishRequested | ScheduleExtended | ObjectsScheduled | ScheduleEnded | CloseRequested,
    ) -> None:
        if client_of(process.core) is None:
            raise ValueError(f"{op} is for UEs; {process.name} has no client")
        try:
            self.network.send(process.config.node, event)
        except PublishError as error:
            raise NodeRefusedError(str(error)) from error
        if self.process_state(process.name) == "frozen":  # it waits in its control channel, and nobody answers
            raise NodeSilentError(f"{process.name} is frozen")

    def _take_record(self, process: str, record: Record) -> None:
        if isinstance(record, SessionChanged) and record.state == "joined":
            self.joined.add(record.device)
        self._on_record(process, record)

    def _count_regularly(self) -> None:
        for process in self.processes.values():
            if self.process_state(process.name) == "running":
                self._count(process)
        self.network.at(self.network.now_s + COUNTERS_INTERVAL_S, self._count_regularly)

    def _count(self, process: SimulatedProcess) -> CountersReported:
        """Write down and return a process' counters. It takes no time and no memory of its own."""
        report = CountersReported(
            self.now_s(),
            process.config.node,
            process.config.process,
            0.0,
            0,
            self.now_s(),
            [],
            0.0,
            sent_messages(process.core),
            dict(counters_of(process.core)),
            bounds_of(process.config),
        )
        self.network.log(process, report)
        return report

    async def kill_process(self, process: str) -> None:
        """End a process without warning."""
        self.network.crash(process)

    async def restart_process(self, process: str) -> None:
        """Start a process that has ended, under its next boot number."""
        self.network.restart(process)

    async def freeze_process(self, process: str) -> None:
        """Let a process do nothing."""
        self.network.freeze(process)

    async def thaw_process(self, process: str) -> None:
        """Let a frozen process go on."""
        self.network.thaw(process)

    async def starve_process(self, process: str, cpu_ratio: float, period_ms: float) -> None:
        """Stop a process for a part of each period."""
        self.network.starve(process, cpu_ratio=cpu_ratio, period_ms=period_ms)

    async def feed_process(self, process: str) -> float:
        """Let a starved process run whenever it wants to. Returns: the part of the time that it could run."""
        return self.network.feed(process)

    def lose_disk(self, process: str) -> None:
        """Empty the disk of a service proxy that has ended."""
        self.network.lose_disk(process)

    def process_state(self, process: str) -> ProcessState:
        """Return what a process is doing."""
        return self.network.process_state(process)

    # ------------------------------------------------------------------ links

    async def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001  as the emulated network has it
        """Take a link down or up."""
        self.network.set_carrier(link, up=up)

    async def read_carrier(self, link: str) -> tuple[bool, bool]:
        """Return whether each end of *link* has a carrier."""
        carrier = self.network.links[link].carrier
        return carrier, carrier

    async def add_message_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        """Put a message fault into force. Raises: InputError where its code is wrong."""
        return self.network.add_message_rule(rule, lanes)

    async def report_message_rule(self, fault_id: str) -> RuleReport:
        """Return what came of a message fault so far."""
        return self.network.report_message_rule(fault_id)

    async def remove_message_rule(self, fault_id: str) -> RuleReport:
        """End a message fault. Returns: what came of it."""
        return self.network.remove_message_rule(fault_id)

    async def inject_packet(self, link: str, direction: Direction, packet: str) -> bool:
        """Send a packet made by hand from one end of a link. Returns: whether that is up."""
        return self.network.inject(link, direction, packet)

    async def change_link(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401
    ) -> dict[Direction, Impairment]:
        """Change properties of *link* (fields of `Impairment`). Returns: both directions. Raises: ValueError."""
        channels = self.network.links[link].channels
        for each in DIRECTIONS if direction is None else (direction,):
            self.network.impair(link, msgspec.structs.replace(channels[each].impairment, **properties), each)
        return {each: channels[each].impairment for each in DIRECTIONS}

    async def set_targets(
        self, link: str, _direction: Direction, _targets: Mapping[Match, Impairment]
    ) -> dict[Match, Impairment]:
        """Refuse: a simulated link carries no frames that have addresses and ports. Raises: CapabilityError."""
        raise CapabilityError(
            where=f"link {link}",
            problem="a simulated network has no frames with addresses and ports to choose by",
            remedy="use message faults, or run the experiment emulated",
        )

    async def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        """Make *link* a black hole in these *directions*, and in no other; neither end sees it."""
        for direction in DIRECTIONS:
            (self.network.block if direction in directions else self.network.unblock)(link, direction)

    async def read_blocked(self, link: str) -> frozenset[Direction]:
        """Return the directions in which *link* is a black hole."""
        channels = self.network.links[link].channels
        return frozenset(direction for direction in DIRECTIONS if channels[direction].blocked)

    async def link_counters(self) -> list[LinkCounters]:
        """Return what each direction of each link has carried and dropped."""
        return [_counters(link, direction) for link in self.network.links.values() for direction in DIRECTIONS]


def _counters(simulated: SimulatedLink, direction: Direction) -> LinkCounters:
    """Return the counters of one direction. Nothing is ever late here."""
    link, channel, traffic = simulated.link, simulated.channels[direction], simulated.traffic[direction]
    sender, receiver = (link.a, link.b) if direction == "a_to_b" else (link.b, link.a)
    expected, variance = channel.expected_loss()
    packets, lost = traffic.packets, traffic.dropped["loss"]
    time_s = 0.0 if traffic.first_s is None else traffic.last_s - traffic.first_s
    return LinkCounters(
        link=link.name,
        direction=direction,
        sender=sender,
        receiver=receiver,
        configured=channel.impairment,
        carrier=simulated.carrier,
        blocked=channel.blocked,
        packets=packets,
        carried_bytes=traffic.carried_bytes,
        dropped_packets=dict(traffic.dropped),
        altered_packets=dict(traffic.altered),
        expected_altered_packets=channel.expected_alterations(),
        passed_packets=channel.frames_passed,
        in_flight_packets=traffic.in_flight,
        drawn_packets=channel.frames_drawn,
        delay_error_p50_ms=0.0 if packets else None,
        delay_error_p99_ms=0.0 if packets else None,
        delay_error_max_ms=0.0 if packets else None,
        delay_error_histogram=[(0.0, packets)] if packets else [],
        measured_delay_mean_ms=traffic.delay_sum_s / packets * 1e3 if packets else None,
        measured_loss_ratio=lost / channel.frames_drawn if channel.frames_drawn else None,
        measured_rate_mbps=traffic.carried_bytes * 8 / time_s / 1e6 if packets > 1 and time_s > 0 else None,
        expected_lost_packets=expected,
        expected_lost_variance=variance,
    )
