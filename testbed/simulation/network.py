"""The second driver: the same cores as in a real network, in one process and in virtual time.

Packets cross the same channels as frames on `wire` links do (`testbed.links.channel`); processing takes no time, unless the
network is given what it took elsewhere (`testbed.simulation.processing`). Same plan, seed and times, same bytes: nothing here
asks a clock or the machine for chance.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from proxy.config import NodeConfig
from proxy.core.build import Client, NodeCore, build_core, client_of, forwarder_of, login_server_of, service_face
from proxy.core.events import (
    LOCAL_FACE,
    CarrierChanged,
    Effect,
    Event,
    Log,
    MtuChanged,
    PacketReceived,
    Persist,
    Persisted,
    Restored,
    Send,
    TimerExpired,
)
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy
from proxy.core.signing import share_verifications
from proxy.records import Record
from testbed.addresses import AddressPlan
from testbed.faults.packets.crafting import datagram_and_frame
from testbed.faults.packets.frames import LaneEnds
from testbed.faults.packets.interceptor import ActiveRules, Interceptor
from testbed.faults.packets.rules import MessageHit, MessageRule, RuleReport
from testbed.faults.targets import ProcessState
from testbed.links.channel import CAUSE_OF, CORRUPTED, DUPLICATED, Channel, alterations
from testbed.links.frame_names import name_in_packet
from testbed.links.model import (
    ALTERATIONS,
    CAUSES,
    DIRECTIONS,
    Alteration,
    Cause,
    Direction,
    Impairment,
    impairments_of,
)
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from testbed.simulation.disk import SimulatedDisk
from testbed.simulation.processing import ProcessTimes, Server, make_server
from topologies.model import Link

#: Ethernet, IPv4 and UDP headers, which a packet has on a `wire` link too.
HEADERS_BYTES = 14 + 20 + 8
#: A virtual network starts here, so that "long ago" is a positive time too.
START_S = 1_000.0
#: What the buffers of a frozen process' sockets hold.
FROZEN_EVENTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class NodeClock:
    """The clock of a node, which may run fast or slow; at *start_s* it is right."""

    start_s: float
    rate: float  #: seconds of its own per true second

    def local_s(self, true_s: float) -> float:
        """Return what it says at a time."""
        return true_s if self.rate == 1.0 else self.start_s + (true_s - self.start_s) * self.rate

    def true_s(self, local_s: float) -> float:
        """Return when it will say *local_s*, or a nanosecond later: it must not be early for a deadline."""
        return local_s if self.rate == 1.0 else self.start_s + (local_s - self.start_s) / self.rate + 1e-9


@dataclass(slots=True)
class SimulatedProcess:
    """One node program. A stopped one takes in nothing."""

    name: str
    config: NodeConfig
    core: NodeCore
    clock: NodeClock
    running: bool = True
    wakes_at_s: float | None = None
    disk: SimulatedDisk | None = None
    #: what has arrived since it was frozen; None while it is not
    frozen: list[Event] | None = None
    starvation: Starvation | None = None
    server: Server | None = None  #: None: computing takes no time


@dataclass(slots=True)
class Starvation:
    """A process is stopped for a part of each period."""

    cpu_ratio: float  #: of the time it may run
    period_s: float
    begun_s: float
    stopped_s: float = 0.0  #: altogether, up to the last time it was let go on
    stopped_at_s: float | None = None  #: None: it may run


@dataclass(slots=True)
class LinkTraffic:
    """What one direction of a link has done to packets."""

    packets: int = 0  #: arrived; a duplicate counts again
    carried_bytes: int = 0
    delay_sum_s: float = 0.0  #: of those that arrived
    first_s: float | None = None
    last_s: float = 0.0
    dropped: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    altered: dict[Alteration, int] = field(default_factory=lambda: dict.fromkeys(ALTERATIONS, 0))
    in_flight: int = 0


@dataclass(slots=True)
class SimulatedLink:
    """Two channels and a carrier."""

    link: Link
    channels: dict[Direction, Channel]
    traffic: dict[Direction, LinkTraffic]
    carrier: bool = True
    interceptors: dict[Direction, Interceptor] = field(
        default_factory=dict
    )  #: of message faults; as a rule there are none
    epoch: int = 0  #: frames in flight when the carrier is lost do not arrive


class SimulatedNetwork:
    """Build it, ``run_until`` some time, look at ``records`` and at the cores.

    Args:
        plan: of the network.
        clock_skew_ppm: how much faster than the virtual clock that of a node runs; 0 for those not named.
        on_record: is given each record and the process that wrote it, instead of ``records``.
        on_message_hit: is given what message faults do.
        processing: how long each process takes for an event; those not named take no time.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        *,
        clock_skew_ppm: Mapping[str, float] | None = None,
        on_record: Callable[[str, Record], None] | None = None,
        on_message_hit: Callable[[MessageHit], None] = lambda _: None,
        processing: Mapping[str, ProcessTimes] | None = None,
    ) -> None:
        share_verifications()
        self.now_s = START_S
        self.records: list[Record] = []
        self._on_record, self._on_message_hit = on_record, on_message_hit
        self._rules = ActiveRules()
        self._addresses = AddressPlan.of(plan.topology)
        self.delivered_packets = 0
        self.processes: dict[str, SimulatedProcess] = {}
        self.links: dict[str, SimulatedLink] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        #: (node, face) -> (link, direction in which it sends, node at the other end, its face)
        self._wires: dict[tuple[str, int], tuple[SimulatedLink, Direction, str, int]] = {}
        for link in plan.topology.links:
            self.links[link.name] = SimulatedLink(
                link,
                {
                    direction: Channel(impairment, seed=plan.seed, link=link.name, direction=direction)
                    for direction, impairment in zip(DIRECTIONS, impairments_of(link), strict=True)
                },
                {direction: LinkTraffic() for direction in DIRECTIONS},
            )
        skew_ppm = clock_skew_ppm or {}
        for name, raw in build_node_configs(plan):
            config = msgspec.convert(raw, NodeConfig)
            disk = None
            if config.proxy is not None and config.proxy.log_path is not None:
                disk = SimulatedDisk(self._after)
                config = msgspec.structs.replace(config, boot=disk.take_boot(config.boot))
            clock = NodeClock(START_S, 1.0 + skew_ppm.get(config.node, 0.0) * 1e-6)
            process = self.processes[name] = SimulatedProcess(name, config, build_core(config), clock, disk=disk)
            process.server = make_server(
                name,
                processing,
                seed=plan.seed,
                at=self._after,
                handle=partial(self._take_turn, process),
                perform=partial(self._perform, process),
            )
        self._connect()
        for name in self.processes:
            self._deliver(name, TimerExpired())
        for process in self.processes.values():
            if process.config.process == "proxy":
                forwarder = self.processes[f"{process.config.node}.forwarder"]
                self._deliver(forwarder.name, CarrierChanged(_face_of_other_half(forwarder), up=True))

    def _connect(self) -> None:
        faces = self._faces = {
            (process.config.node, face.link): face.face_id
            for process in self.processes.values()
            if process.config.forwarder is not None
            for face in process.config.forwarder.faces
        }
        for name, simulated in self.links.items():
            a, b = simulated.link.a, simulated.link.b
            self._wires[a, faces[a, name]] = (simulated, "a_to_b", b, faces[b, name])
            self._wires[b, faces[b, name]] = (simulated, "b_to_a", a, faces[a, name])

    # ------------------------------------------------------------------ time

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do something at a time; what is due at the same time happens in the order in which it was asked for."""
        self._count += 1
        heapq.heappush(self._heap, (max(at_s, self.now_s), self._count, action))

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, action)

    def run_until(self, until_s: float, *, stop_when: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether *stop_when* became true (it is asked after every event)."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._heap)
            action()
            if stop_when is not None and stop_when():
                return True
        self.now_s = until_s
        return False

    # ------------------------------------------------------------------ nodes

    def send(self, node: str, event: Event) -> None:
        """Hand an event to the forwarder process of a node now (a UE's client lives in it)."""
        self._deliver(f"{node}.forwarder", event)

    def client(self, node: str) -> ServiceClient:
        """Return the service client of a UE."""
        client = client_of(self.processes[f"{node}.forwarder"].core)
        assert isinstance(client, ServiceClient), f"{node} has no service client"
        return client

    def participant(self, node: str) -> Client:
        """Return the client core of a UE, whatever the mode."""
        client = client_of(self.processes[f"{node}.forwarder"].core)
        assert client is not None, f"{node} is no UE"
        return client

    def proxy(self, node: str) -> ServiceProxy:
        """Return the service proxy core of a CSR or proxy UE."""
        core = self.processes[f"{node}.proxy"].core
        assert isinstance(core, ServiceProxy)
        return core

    def counters(self, process: str) -> dict[str, int]:
        """Return the counters of a process, those of its application included."""
        core = self.processes[process].core
        forwarder = forwarder_of(core)
        counters = dict(core.counters) if forwarder is None else forwarder.counters_now()
        client = client_of(core)
        return counters if client is None else counters | client.counters

    def _deliver(self, name: str, event: Event) -> None:
        process = self.processes[name]
        if not process.running:
            return
        if process.frozen is not None:
            is_lost = isinstance(event, PacketReceived) and len(process.frozen) >= FROZEN_EVENTS_MAX
            if not is_lost and not isinstance(event, TimerExpired):
                process.frozen.append(event)
            return
        if process.server is not None and isinstance(event, PacketReceived | TimerExpired | Persisted):
            process.server.take(event)
            return
        for effect in process.core.handle(event, now_s=process.clock.local_s(self.now_s)):
            self._perform(process, effect)
        self._wake(process)

    def _take_turn(self, process: SimulatedProcess, event: Event) -> list[Effect] | None:
        """Handle what has waited for its process; None where that is not to be done, or not now."""
        if process.frozen is not None:
            self._deliver(process.name, event)  # it waits there
            return None
        now_s, due_s, effects = process.clock.local_s(self.now_s), process.core.deadline_s, None
        if not isinstance(event, TimerExpired) or (due_s is not None and due_s <= now_s):
            effects = process.core.handle(event, now_s=now_s)
        self._wake(process)
        return effects

    def _perform(self, process: SimulatedProcess, effect: Effect) -> None:
        match effect:
            case Send(face_id, packet):
                self._transmit(process, face_id, packet)
            case Log(record):
                self.log(process, record)
            case Persist():
                assert process.disk is not None, "the core persists only where there is a log"
                process.disk.put(effect, lambda done: self._deliver(process.name, done))

    def log(self, process: SimulatedProcess, record: Record) -> None:
        """Keep a record; whatever the node's clock says, its time is that of the one clock that all records share."""
        if process.clock.rate != 1.0:
            record = msgspec.structs.replace(record, t_s=self.now_s)
        if self._on_record is None:
            self.records.append(record)
        else:
            self._on_record(process.name, record)

    def _wake(self, process: SimulatedProcess) -> None:
        deadline_s = process.core.deadline_s
        if deadline_s is not None:
            deadline_s = process.clock.true_s(deadline_s)
        if deadline_s is None or (process.wakes_at_s is not None and process.wakes_at_s <= deadline_s):
            return
        at_s = max(deadline_s, self.now_s)
        process.wakes_at_s = at_s

        def wake() -> None:
            if process.wakes_at_s == at_s:
                process.wakes_at_s = None
                self._deliver(process.name, TimerExpired())

        self.at(at_s, wake)

    def _transmit(self, process: SimulatedProcess, face_id: int, packet: bytes) -> None:
        node = process.config.node
        if face_id == _face_of_other_half(process):
            other = self.processes[f"{node}.{'forwarder' if process.config.process == 'proxy' else 'proxy'}"]
            received = PacketReceived(_face_of_other_half(other), packet)
            self.at(self.now_s, lambda: self._deliver(other.name, received))
            return
        simulated, direction, *_ = self._wires[node, face_id]
        if not simulated.carrier:
            self._refuse(simulated, direction, "carrier")
            return
        interceptor = simulated.interceptors.get(direction)
        copies = None if interceptor is None else interceptor.intercept(packet, self.now_s)
        if copies is None:
            self._carry(simulated, direction, packet)
        elif not copies:
            self._refuse(simulated, direction, "fault")
        else:
            for copy in copies:
                self._carry(
                    simulated, direction, copy.datagram, later_ms=copy.later_ms, checksum_right=copy.checksum_right
                )

    @staticmethod
    def _refuse(simulated: SimulatedLink, direction: Direction, cause: Cause) -> None:
        """Drop a packet before it takes its place on the line."""
        simulated.channels[direction].refuse()
        simulated.traffic[direction].dropped[cause] += 1

    def _carry(
        self,
        simulated: SimulatedLink,
        direction: Direction,
        packet: bytes | None,
        *,
        later_ms: float = 0.0,
        checksum_right: bool = True,
    ) -> None:
        """Bring a packet to the other end of a link; None: what no forwarder would get. *later_ms*: than the channel says."""
        channel, traffic = simulated.channels[direction], simulated.traffic[direction]
        size_bytes = len(packet or b"") + HEADERS_BYTES
        name = name_in_packet(packet) if channel.draws_frames and packet is not None else b""
        due_ns = channel.offer(size_bytes, now_ns=round(self.now_s * 1e9), name=name)
        if due_ns < 0:
            traffic.dropped[CAUSE_OF[due_ns]] += 1
            return
        epoch, sent_s, altered = simulated.epoch, self.now_s, channel.altered
        for alteration in alterations(altered):
            traffic.altered[alteration] += 1
        is_broken = bool(altered & CORRUPTED) or not checksum_right
        peer = simulated.link.b if direction == "a_to_b" else simulated.link.a
        peer_face = self._faces[peer, simulated.link.name]

        def arrive() -> None:
            traffic.in_flight -= 1
            if simulated.epoch != epoch:
                traffic.dropped["carrier"] += 1
                return
            if is_broken:  # the receiver's kernel finds its UDP checksum wrong
                traffic.dropped["corrupt"] += 1
                return
            self.delivered_packets += 1
            traffic.packets += 1
            traffic.carried_bytes += size_bytes
            traffic.delay_sum_s += self.now_s - sent_s
            traffic.last_s = self.now_s
            if traffic.first_s is None:
                traffic.first_s = self.now_s
            if packet is not None:
                self._deliver(f"{peer}.forwarder", PacketReceived(peer_face, packet))

        for at_ns in (due_ns, channel.copy_due_ns) if altered & DUPLICATED else (due_ns,):
            traffic.in_flight += 1
            self.at(at_ns / 1e9 + later_ms / 1e3, arrive)

    # ------------------------------------------------------------------ faults

    def crash(self, name: str) -> None:
        """End a process without warning; what it had in memory is lost, what is on its disk is not."""
        process = self.processes[name]
        if not process.running:
            return
        process.running, process.frozen = False, None
        if process.server is not None:
            process.server.crash()
        if process.disk is not None:
            process.disk.crash()
        self._tell_other_half(process, attached=False)

    def lose_disk(self, name: str) -> None:
        """Empty the disk of a service proxy, which must have crashed."""
        process = self.processes[name]
        assert process.disk is not None, f"{name} has no disk"
        assert not process.running, f"{name} still uses its disk"
        process.disk.lose()

    def restart(self, name: str) -> None:
        """Start a process that has crashed, under its next boot number."""
        process = self.processes[name]
        assert not process.running, f"{name} has not ended"
        boot = process.config.boot + 1
        if process.disk is not None:
            boot = process.disk.take_boot(boot)
        process.config = msgspec.structs.replace(process.config, boot=boot)
        server = login_server_of(process.core)
        if server is not None and process.config.login is not None:  # the driver keeps these in a file
            login = msgspec.structs.replace(process.config.login, revoked=server.revoked)
            process.config = msgspec.structs.replace(process.config, login=login)
        process.core, process.running, process.wakes_at_s = build_core(process.config), True, None
        if process.disk is not None:
            self._deliver(name, Restored(process.disk.stored()))
        self._deliver(name, TimerExpired())
        for (node, face_id), (wire, direction, *_) in self._wires.items():
            if node == process.config.node and process.config.process == "forwarder":
                self._deliver(name, MtuChanged(face_id, wire.channels[direction].impairment.mtu_bytes))
                if not wire.carrier:
                    self._deliver(name, CarrierChanged(face_id, up=False))
        self._tell_other_half(process, attached=True)

    def process_state(self, name: str) -> ProcessState:
        """Return what a process is doing."""
        process = self.processes[name]
        if not process.running:
            return "dead"
        return "running" if process.frozen is None or process.starvation is not None else "frozen"

    def freeze(self, name: str) -> None:
        """Let a process do nothing; what is sent to it waits, as far as its sockets' buffers go."""
        process = self.processes[name]
        if process.running and process.frozen is None:
            process.frozen = []

    def thaw(self, name: str) -> None:
        """Let a frozen process go on, with what has arrived meanwhile."""
        process = self.processes[name]
        waiting, process.frozen = process.frozen or [], None
        for event in waiting:
            self._deliver(name, event)
        self._deliver(name, TimerExpired())

    def starve(self, name: str, *, cpu_ratio: float, period_ms: float) -> None:
        """Stop a process for a part of each period, as one that has to share its processor."""
        process = self.processes[name]
        starvation = process.starvation = Starvation(cpu_ratio, period_ms / 1e3, self.now_s)

        def stop() -> None:
            if process.starvation is not starvation:
                return
            starvation.stopped_at_s = self.now_s
            self.freeze(name)
            self.at(self.now_s + (1.0 - cpu_ratio) * starvation.period_s, go_on)

        def go_on() -> None:
            if process.starvation is not starvation or starvation.stopped_at_s is None:
                return
            starvation.stopped_s += self.now_s - starvation.stopped_at_s
            starvation.stopped_at_s = None
            self.at(self.now_s + cpu_ratio * starvation.period_s, stop)
            self.thaw(name)

        stop()

    def feed(self, name: str) -> float:
        """Let a starved process run whenever it wants to. Returns: the part of the time that it could run."""
        process = self.processes[name]
        starvation, process.starvation = process.starvation, None
        assert starvation is not None, f"{name} is not starved"
        stopped_s = starvation.stopped_s
        if starvation.stopped_at_s is not None:
            stopped_s += self.now_s - starvation.stopped_at_s
            if process.running:
                self.thaw(name)
        time_s = self.now_s - starvation.begun_s
        return 1.0 - stopped_s / time_s if time_s > starvation.period_s else starvation.cpu_ratio

    def _tell_other_half(self, process: SimulatedProcess, *, attached: bool) -> None:
        """The forwarder and the service proxy of a node see each other come and go; a new one attaches at once."""
        node, is_proxy = process.config.node, process.config.process == "proxy"
        other = self.processes.get(f"{node}.{'forwarder' if is_proxy else 'proxy'}")
        if other is None:
            return
        self._deliver(other.name, CarrierChanged(_face_of_other_half(other), up=attached))
        if attached and other.running:
            self._deliver(process.name, CarrierChanged(_face_of_other_half(process), up=True))

    def set_carrier(self, link: str, *, up: bool) -> None:
        """Take a link down or up; both ends see it."""
        simulated = self.links[link]
        if simulated.carrier is up:
            return
        simulated.carrier = up
        simulated.epoch += 1
        for channel in simulated.channels.values():
            channel.cut()
        for (node, face_id), (wire, *_) in self._wires.items():
            if wire is simulated:
                self._deliver(f"{node}.forwarder", CarrierChanged(face_id, up))

    def block(self, link: str, *directions: Direction) -> None:
        """Make a black hole of a link, in the directions named (default both): neither end sees it."""
        for direction in directions or DIRECTIONS:
            self.links[link].channels[direction].blocked = True

    def unblock(self, link: str, *directions: Direction) -> None:
        """Let everything through again, in the directions named (default both)."""
        for direction in directions or DIRECTIONS:
            self.links[link].channels[direction].blocked = False

    def add_message_rule(self, rule: MessageRule, lanes: Iterable[tuple[str, Direction]]) -> RuleReport:
        """Put a message fault into force. Raises: InputError where its code is wrong."""
        return self._rules.add(rule, [self._interceptor(link, direction) for link, direction in lanes])

    def report_message_rule(self, fault_id: str) -> RuleReport:
        """Return what came of a message fault so far. Raises: KeyError if it is not active."""
        return self._rules.report(fault_id)

    def remove_message_rule(self, fault_id: str) -> RuleReport:
        """End a message fault. Returns: what came of it. Raises: KeyError if it is not active."""
        report, _ = self._rules.remove(fault_id)
        for simulated in self.links.values():
            for direction in [each for each, interceptor in simulated.interceptors.items() if not interceptor.rules]:
                del simulated.interceptors[direction]
        return report

    def inject(self, link: str, direction: Direction, packet: str) -> bool:
        """Send a packet made by hand (testbed/faults/packets/crafting.py) from one end of a link. Returns: whether it is up."""
        simulated = self.links[link]
        if not simulated.carrier:
            return False
        datagram, _ = datagram_and_frame(packet)
        self._carry(simulated, direction, datagram)
        return True

    def _interceptor(self, link: str, direction: Direction) -> Interceptor:
        simulated = self.links[link]
        if direction not in simulated.interceptors:
            ends = lane_ends(simulated.link, direction, self._addresses)
            simulated.interceptors[direction] = Interceptor(ends, self._on_message_hit)
        return simulated.interceptors[direction]

    def impair(self, link: str, impairment: Impairment, *directions: Direction) -> None:
        """Change what a link does, in the directions named (default both), from the next packet on."""
        simulated = self.links[link]
        for direction in directions or DIRECTIONS:
            channel = simulated.channels[direction]
            if channel.impairment.mtu_bytes != impairment.mtu_bytes:
                self._tell_of_mtu(simulated, direction, impairment.mtu_bytes)
            channel.change(impairment)

    def _tell_of_mtu(self, link: SimulatedLink, direction: Direction, mtu_bytes: int) -> None:
        for (node, face_id), (wire, way, *_) in self._wires.items():
            if wire is link and way == direction:
                self._deliver(f"{node}.forwarder", MtuChanged(face_id, mtu_bytes))


def lane_ends(link: Link, direction: Direction, addresses: AddressPlan) -> LaneEnds:
    """Return who sends to whom in one direction of a link."""
    sender, receiver = (link.a, link.b) if direction == "a_to_b" else (link.b, link.a)
    ours = addresses.end(link.name, sender)
    return LaneEnds(link.name, sender, receiver, ours.mac, ours.peer_mac, ours.address, ours.peer_address)


def _face_of_other_half(process: SimulatedProcess) -> int:
    """Return the face by which the two processes of a node are joined, as *process* calls it."""
    service = service_face(process.config)
    return LOCAL_FACE if service is None else service
