"""The second driver: the same cores as in a real network, in one process and in virtual time.

Packets cross the same channels as frames on `wire` links do (`testbed.links.channel`); processing takes no time, unless the
network is given what it took elsewhere (`testbed.simulation.processing`). Same plan, seed and times, same bytes: nothing here
asks a clock or the machine for chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from proxy.config import NodeConfig
from proxy.core.build import Client, build_core, client_of, forwarder_of, login_server_of, service_face
from proxy.core.events import (
    LOCAL_FACE,
    CarrierChanged,
    Event,
    MtuChanged,
    Restored,
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
from testbed.links.channel import Channel
from testbed.links.model import (
    DIRECTIONS,
    Direction,
    Impairment,
    impairments_of,
)
from testbed.node_config import node_configs
from testbed.plan import NetworkPlan
from testbed.simulation.disk import SimulatedDisk
from testbed.simulation.line import Line, LinkTraffic, SimulatedLink
from testbed.simulation.process import NodeClock, SimulatedProcess, Starvation
from testbed.simulation.processing import ProcessTimes, make_server
from testbed.simulation.virtual_time import START_S, VirtualTime
from topologies.model import Link


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
        self.time = VirtualTime()
        self.records: list[Record] = []
        self._on_record, self._on_message_hit = on_record, on_message_hit
        self._rules = ActiveRules()
        self._addresses = AddressPlan.of(plan.topology)
        self.processes: dict[str, SimulatedProcess] = {}
        self.links: dict[str, SimulatedLink] = {}
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
        for name, raw in node_configs(plan):
            config = msgspec.convert(raw, NodeConfig)
            disk = None
            if config.proxy is not None and config.proxy.log_path is not None:
                disk = SimulatedDisk(self.time.after)
                config = msgspec.structs.replace(config, boot=disk.take_boot(config.boot))
            clock = NodeClock(START_S, 1.0 + skew_ppm.get(config.node, 0.0) * 1e-6)
            process = self.processes[name] = SimulatedProcess(
                name, config, build_core(config), clock, self.time, disk=disk, on_record=self._keep
            )
            process.server = make_server(
                name,
                processing,
                seed=plan.seed,
                at=self.time.after,
                handle=process.take_turn,
                perform=process.perform,
            )
        self._connect()
        for process in self.processes.values():
            process.take(TimerExpired())
        for process in self.processes.values():
            if process.config.process == "proxy" and (forwarder := process.other_half) is not None:
                forwarder.take(CarrierChanged(forwarder.other_face, up=True))

    def _connect(self) -> None:
        faces = {
            (process.config.node, face.link): face.face_id
            for process in self.processes.values()
            if process.config.forwarder is not None
            for face in process.config.forwarder.faces
        }
        for name, simulated in self.links.items():
            a, b = simulated.link.a, simulated.link.b
            for sender, receiver, direction in zip((a, b), (b, a), DIRECTIONS, strict=True):
                forwarder = self.processes[f"{receiver}.forwarder"]
                line = Line(self.time, simulated, direction, face_id=faces[receiver, name], deliver=forwarder.take)
                self.processes[f"{sender}.forwarder"].lines[faces[sender, name]] = line
        for process in self.processes.values():
            process.other_face = _face_of_other_half(process.config)
            if process.config.process == "proxy":
                forwarder = self.processes[f"{process.config.node}.forwarder"]
                process.other_half, forwarder.other_half = forwarder, process

    # ------------------------------------------------------------------ time

    @property
    def now_s(self) -> float:
        return self.time.now_s

    @property
    def delivered_packets(self) -> int:
        """How many packets have crossed a link so far."""
        return sum(traffic.packets for simulated in self.links.values() for traffic in simulated.traffic.values())

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do something at a time; what is due at the same time happens in the order in which it was asked for."""
        self.time.at(at_s, action)

    def run_until(self, until_s: float, *, stop_when: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether *stop_when* became true (it is asked after every event)."""
        return self.time.run_until(until_s, stop_when)

    # ------------------------------------------------------------------ nodes

    def send(self, node: str, event: Event) -> None:
        """Hand an event to the forwarder process of a node now (a UE's client lives in it)."""
        self.processes[f"{node}.forwarder"].take(event)

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

    def log(self, process: SimulatedProcess, record: Record) -> None:
        """Write down something that a process says when it is asked."""
        process.log(record)

    def _keep(self, process: str, record: Record) -> None:
        if self._on_record is None:
            self.records.append(record)
        else:
            self._on_record(process, record)

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
            process.take(Restored(process.disk.stored()))
        process.take(TimerExpired())
        for face_id, line in process.lines.items():
            process.take(MtuChanged(face_id, line.link.channels[line.direction].impairment.mtu_bytes))
            if not line.link.carrier:
                process.take(CarrierChanged(face_id, up=False))
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
            process.take(event)
        process.take(TimerExpired())

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
        other = process.other_half
        if other is None:
            return
        other.take(CarrierChanged(other.other_face, up=attached))
        if attached and other.running:
            process.take(CarrierChanged(process.other_face, up=True))

    def set_carrier(self, link: str, *, up: bool) -> None:
        """Take a link down or up; both ends see it."""
        simulated = self.links[link]
        if simulated.carrier is up:
            return
        simulated.carrier = up
        simulated.epoch += 1
        for channel in simulated.channels.values():
            channel.cut()
        for process, face_id, _ in self._ends(simulated):
            process.take(CarrierChanged(face_id, up))

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
        sender = simulated.link.a if direction == "a_to_b" else simulated.link.b
        for line in self.processes[f"{sender}.forwarder"].lines.values():
            if line.link is simulated:
                line.carry(datagram)
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
        for process, face_id, way in self._ends(link):
            if way == direction:
                process.take(MtuChanged(face_id, mtu_bytes))

    def _ends(self, link: SimulatedLink) -> list[tuple[SimulatedProcess, int, Direction]]:
        """Return the forwarder at each end of a link, its face, and the direction in which it sends."""
        return [
            (process, face_id, line.direction)
            for process in (self.processes[f"{end}.forwarder"] for end in (link.link.a, link.link.b))
            for face_id, line in process.lines.items()
            if line.link is link
        ]


def lane_ends(link: Link, direction: Direction, addresses: AddressPlan) -> LaneEnds:
    """Return who sends to whom in one direction of a link."""
    sender, receiver = (link.a, link.b) if direction == "a_to_b" else (link.b, link.a)
    ours = addresses.end(link.name, sender)
    return LaneEnds(link.name, sender, receiver, ours.mac, ours.peer_mac, ours.address, ours.peer_address)


def _face_of_other_half(config: NodeConfig) -> int:
    """Return the face by which the two processes of a node are joined, as one of them calls it."""
    service = service_face(config)
    return LOCAL_FACE if service is None else service
