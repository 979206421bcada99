"""The emulator process: owns the TAP interfaces of all `wire` links and carries the frames between them.

``python -m testbed.links.emulator --socket-fd N --parent-pid P``, started by `wire.WireEmulator`. It ends, and with it
every interface it made, when it is told to, when its control socket closes, or when its parent ends. (It watches its
parent through a pidfd. PR_SET_PDEATHSIG would fire when the *thread* that started us ends, and worker threads do.)

It runs under SCHED_FIFO where it may, at a real-time priority above the nodes: a frame that is due must not wait for a
node to use up its time slice. It cannot lock up the machine: it sleeps unless frames are there, it uses one core at most, and it
steps down from that priority for a tenth of the time while it does (`turns`).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from testbed.faults.packets.crafting import datagram_and_frame
from testbed.faults.packets.frames import LaneEnds
from testbed.faults.packets.interceptor import ActiveRules, FrameInterceptor
from testbed.faults.packets.rules import MessageHit, MessageRule, RuleReport
from testbed.links.channel import Channel
from testbed.links.frame_loop import FrameLoop, Lane
from testbed.links.histogram import as_pairs, quantile_ms
from testbed.links.ledger import Ledger
from testbed.links.linux import hold_cpus_awake, lock_memory, termination_fd
from testbed.links.messages import (
    MAX_FDS_PER_MESSAGE,
    AddHosts,
    AddRule,
    Build,
    Change,
    Failure,
    Inject,
    ReadCounters,
    ReadStats,
    RemoveRule,
    Reply,
    ReportRule,
    Request,
    SetBlocked,
    SetCarrier,
    encoder,
    request_decoder,
)
from testbed.links.model import DIRECTIONS, Direction, EmulatorStats, Impairment, LinkCounters, LinkEnd, LinkPlan
from testbed.links.rtnetlink import set_carrier, set_mtu
from testbed.links.tap import Tap, make_taps, remove_taps
from testbed.links.turns import TurnTaking
from topologies.errors import CapabilityError, HconfError, InputError

_FIFO_PRIORITY: Final = 2
_NO_PRIORITY: Final = "other"
#: Part of a processor above which the loop is told to rather be a little late than to poll for what is nearly due.
_POLL_LESS_RATIO: Final = 0.4
_RECEIVE_BYTES: Final = 1 << 18
_THREAD_STACK_BYTES: Final = 1 << 18  # they only remove interfaces, and memory is locked


class _Stopped(Exception):
    """Told to end: by a request, by the supervisor's end, or by a signal."""


class _Link:
    """A link that was made: its two lanes and the TAPs at its ends."""

    __slots__ = ("a", "a_to_b", "b", "b_to_a", "plan", "up")

    def __init__(self, plan: LinkPlan, *, a: Tap, b: Tap, seed: int) -> None:
        self.plan, self.a, self.b, self.up = plan, a, b, True
        self.a_to_b = Lane(
            link=plan.name,
            direction="a_to_b",
            channel=Channel(plan.a_to_b, seed=seed, link=plan.name, direction="a_to_b"),
            from_fd=a.fd,
            to_fd=b.fd,
        )
        self.b_to_a = Lane(
            link=plan.name,
            direction="b_to_a",
            channel=Channel(plan.b_to_a, seed=seed, link=plan.name, direction="b_to_a"),
            from_fd=b.fd,
            to_fd=a.fd,
        )

    def ends(self, direction: Direction) -> LaneEnds:
        """Return who sends to whom in one direction."""
        ours, theirs = (self.plan.a, self.plan.b) if direction == "a_to_b" else (self.plan.b, self.plan.a)
        return LaneEnds(
            link=self.plan.name,
            sender=ours.host,
            receiver=theirs.host,
            sender_mac=ours.mac,
            receiver_mac=ours.peer_mac,
            sender_address=ours.address.partition("/")[0],
            receiver_address=ours.peer_address,
        )


class Emulator:
    """Carries out the supervisor's requests between the turns of the frame loop."""

    def __init__(self, control: socket.socket, *, stop_fds: Sequence[int], scheduler: str, memory_locked: bool) -> None:
        self._control = control
        self._scheduler, self._memory_locked = scheduler, memory_locked
        self._received = bytearray()
        self._fds: deque[int] = deque()  # received, not yet claimed by AddHosts
        self._netns_fds: dict[str, int] = {}
        self._links: dict[str, _Link] = {}
        self._ledger: Ledger | None = None
        self._awake_fd: int | None = None  # held open, see hold_cpus_awake
        self._rules = ActiveRules()
        self._packet_code = False
        self._loop = FrameLoop()
        self._turns = TurnTaking(_FIFO_PRIORITY)
        if scheduler != _NO_PRIORITY:
            self._loop.take_turns = self._take_turns
        self._loop.watch(control.fileno(), self._receive)
        for fd in stop_fds:
            self._loop.watch(fd, self._stop)

    def run(self) -> None:
        """Carry frames until told to end, then remove every interface."""
        try:
            while True:
                self._loop.turn()
        except _Stopped:
            return
        finally:
            self._close()

    def _take_turns(self, now_ns: int) -> int:
        due_ns = self._turns.consider(now_ns)
        self._loop.poll_less(is_busy=self._turns.busy_ratio > _POLL_LESS_RATIO)
        return due_ns

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        remove_taps(tap for link in self._links.values() for tap in (link.a, link.b))
        if self._ledger is not None:
            self._ledger.close()

    def _stop(self) -> None:
        raise _Stopped

    def _receive(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._control, _RECEIVE_BYTES, MAX_FDS_PER_MESSAGE, socket.MSG_DONTWAIT)
        self._fds.extend(fds)
        if not data:
            raise _Stopped
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        for line in lines:
            request = request_decoder.decode(line)
            try:
                reply = self._carry_out(request)
            except HconfError as error:
                capability = isinstance(error, CapabilityError)
                reply = Reply(failure=Failure(error.where, error.problem, error.remedy, capability))
            self._control.sendall(encoder.encode(reply) + b"\n")

    def _carry_out(self, request: Request) -> Reply:
        match request:
            case AddHosts(hosts):
                self._netns_fds |= {host: self._fds.popleft() for host in hosts}
                return Reply()
            case Build():
                if request.packet_code:
                    importlib.import_module(
                        "testbed.faults.packets.expressions"
                    )  # once frames are there it would be late
                    self._packet_code = True
                self._build(request.plans, seed=request.seed, ledger_path=Path(request.ledger_path))
                self._awake_fd = hold_cpus_awake() if request.hold_cpus_awake else None
                return Reply()
            case Change(link, a_to_b, b_to_a):
                found = self._links[link]
                return Reply(
                    a_to_b=_change(found.a_to_b, found.a, a_to_b),
                    b_to_a=_change(found.b_to_a, found.b, b_to_a),
                )
            case SetCarrier(link, up):
                return Reply(carriers=self._set_carrier(self._links[link], up=up))
            case SetBlocked(link, directions):
                return Reply(blocked=self._set_blocked(self._links[link], directions))
            case AddRule() | ReportRule() | RemoveRule():
                return Reply(report=self._carry_out_rule(request))
            case Inject(link, direction, packet):
                return Reply(injected=self._inject(self._links[link], direction, packet))
            case ReadCounters(links):
                return Reply(counters=[row for link in links for row in self._counters(self._links[link])])
            case ReadStats():
                return Reply(stats=self._stats())
            case _:
                raise _Stopped

    def _build(self, plans: list[LinkPlan], *, seed: int, ledger_path: Path) -> None:
        ends: dict[str, list[tuple[LinkEnd, int]]] = {}
        for plan in plans:
            for end, sent in ((plan.a, plan.a_to_b), (plan.b, plan.b_to_a)):
                ends.setdefault(end.host, []).append((end, sent.mtu_bytes))
        try:
            self._ledger = Ledger(ledger_path)
        except OSError as error:
            raise InputError(
                where=str(ledger_path), problem=f"cannot write it ({error.strerror})", remedy="name a writable file"
            ) from error
        self._loop.ledger = self._ledger
        taps = make_taps(ends, netns_fds=self._netns_fds)
        for fd in self._netns_fds.values():
            os.close(fd)
        self._netns_fds.clear()
        for plan in plans:
            link = _Link(plan, a=taps[plan.a.host, plan.a.intf], b=taps[plan.b.host, plan.b.intf], seed=seed)
            self._links[plan.name] = link
            self._loop.add_lane(link.a_to_b)
            self._loop.add_lane(link.b_to_a)
        gc.collect()
        gc.freeze()

    def _carry_out_rule(self, request: AddRule | ReportRule | RemoveRule) -> RuleReport:
        match request:
            case AddRule(rule, lanes):
                return self._add_rule(rule, lanes)
            case ReportRule(fault_id):
                return self._rules.report(fault_id)
            case RemoveRule(fault_id):
                return self._remove_rule(fault_id)

    def _add_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        if rule.needs_scapy and not self._packet_code:
            raise CapabilityError(
                where=f"fault {rule.fault_id}",
                problem="these links were made without what runs code over packets",
                remedy="choose by message and name; or put the fault into the experiment file",
            )
        on = [self._interceptor(self._links[link], direction) for link, direction in lanes]
        return self._rules.add(rule, [each.interceptor for each in on])

    def _interceptor(self, link: _Link, direction: Direction) -> FrameInterceptor:
        lane = link.a_to_b if direction == "a_to_b" else link.b_to_a
        if not isinstance(lane.intercept, FrameInterceptor):
            lane.intercept = FrameInterceptor(link.ends(direction), self._note_hit)
        return lane.intercept

    def _note_hit(self, hit: MessageHit) -> None:
        if self._ledger is not None:
            self._ledger.add(hit)
            self._loop.plan_flush(time.monotonic_ns())

    def _remove_rule(self, fault_id: str) -> RuleReport:
        report, _ = self._rules.remove(fault_id)
        for link in self._links.values():
            for lane in (link.a_to_b, link.b_to_a):
                if isinstance(lane.intercept, FrameInterceptor) and not lane.intercept.interceptor.rules:
                    lane.intercept = None
        return report

    def _inject(self, link: _Link, direction: Direction, packet: str) -> bool:
        lane = link.a_to_b if direction == "a_to_b" else link.b_to_a
        if not lane.up:
            return False
        datagram, frame = datagram_and_frame(packet)
        if datagram is not None:
            frame = link.ends(direction).frame(datagram)
        assert frame is not None
        self._loop.admit(lane, frame, now_ns=time.monotonic_ns(), later_ns=0)
        return True

    def _set_carrier(self, link: _Link, *, up: bool) -> list[bool]:
        """Set the carrier at both ends and return it as the kernel reads it back."""
        for tap in (link.a, link.b):
            tap.route.carry_out([set_carrier(tap.index, up=up)])
        if not up and link.up:
            self._loop.cut(link.a_to_b)
            self._loop.cut(link.b_to_a)
        link.up = link.a_to_b.up = link.b_to_a.up = up
        return [tap.route.link_state(tap.index).carrier for tap in (link.a, link.b)]

    @staticmethod
    def _set_blocked(link: _Link, directions: Sequence[Direction]) -> list[Direction]:
        """Make *link* a black hole in *directions* and no other, and return those in which it now is one."""
        channels = {"a_to_b": link.a_to_b.channel, "b_to_a": link.b_to_a.channel}
        for direction, channel in channels.items():
            channel.blocked = direction in directions
        return [direction for direction in DIRECTIONS if channels[direction].blocked]

    def _counters(self, link: _Link) -> list[LinkCounters]:
        rows = []
        for lane, sender, receiver in ((link.a_to_b, link.a, link.b), (link.b_to_a, link.b, link.a)):
            rows.append(_lane_counters(lane, sender=sender, receiver=receiver))
            self._loop.send_due()  # do not let frames wait for figures
        return rows

    def _stats(self) -> EmulatorStats:
        loop, ledger = self._loop, self._ledger
        return EmulatorStats(
            pid=os.getpid(),
            scheduler=self._scheduler,
            memory_locked=self._memory_locked,
            cpus_held_awake=self._awake_fd is not None,
            cpu_s=time.process_time(),
            wakeups=loop.wakeups,
            busy_p50_ms=quantile_ms(loop.busy_bins, 0.5, max_ns=loop.busy_max_ns),
            busy_p99_ms=quantile_ms(loop.busy_bins, 0.99, max_ns=loop.busy_max_ns),
            busy_max_ms=loop.busy_max_ns / 1e6 if loop.wakeups else None,
            ledger_records=ledger.records if ledger else 0,
            ledger_omitted=ledger.omitted if ledger else 0,
        )


def _change(lane: Lane, sender: Tap, wanted: Impairment) -> Impairment:
    """Have *lane* do what is *wanted*; return what it does, as read back."""
    if wanted.mtu_bytes != lane.channel.impairment.mtu_bytes:
        sender.route.carry_out([set_mtu(sender.index, wanted.mtu_bytes)])
        wanted = msgspec.structs.replace(wanted, mtu_bytes=sender.route.link_state(sender.index).mtu_bytes)
    lane.channel.change(wanted)
    return lane.channel.impairment


def _lane_counters(lane: Lane, *, sender: Tap, receiver: Tap) -> LinkCounters:
    try:
        unread_packets = sender.route.link_state(sender.index).tx_dropped_packets
    except OSError:  # the interface was deleted by someone
        unread_packets = 0
    lost, drawn, max_ns = lane.dropped["loss"], lane.channel.frames_drawn, lane.error_max_ns
    expected_lost, expected_variance = lane.channel.expected_loss()
    active_ns = lane.last_ns - lane.first_ns
    return LinkCounters(
        link=lane.link,
        direction=lane.direction,
        sender=sender.end.host,
        receiver=receiver.end.host,
        configured=lane.channel.impairment,
        carrier=lane.up,
        blocked=lane.channel.blocked,
        packets=lane.packets,
        carried_bytes=lane.carried_bytes,
        dropped_packets=lane.dropped | {"overrun": lane.dropped["overrun"] + unread_packets},
        altered_packets=dict(lane.altered),
        expected_altered_packets=lane.channel.expected_alterations(),
        passed_packets=lane.channel.frames_passed,
        in_flight_packets=lane.in_flight_packets,
        drawn_packets=drawn,
        delay_error_p50_ms=quantile_ms(lane.bins, 0.5, max_ns=max_ns),
        delay_error_p99_ms=quantile_ms(lane.bins, 0.99, max_ns=max_ns),
        delay_error_max_ms=max_ns / 1e6 if lane.packets else None,
        delay_error_histogram=as_pairs(lane.bins, max_ns=max_ns),
        measured_delay_mean_ms=lane.held_ns / lane.packets / 1e6 if lane.packets else None,
        measured_loss_ratio=lost / drawn if drawn else None,
        measured_rate_mbps=lane.carried_bytes * 8_000 / active_ns if active_ns else None,
        expected_lost_packets=expected_lost,
        expected_lost_variance=expected_variance,
    )


def _become_real_time() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except OSError:
        return _NO_PRIORITY
    return f"fifo {_FIFO_PRIORITY}"


def _raise_fd_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="testbed.links.emulator", description="internal; started by hconf")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    options = parser.parse_args(arguments)
    parent_pidfd = os.pidfd_open(options.parent_pid)
    if os.getppid() != options.parent_pid:
        return 1  # it ended before we could watch it
    stop_fds = termination_fd(), parent_pidfd
    _raise_fd_limit()
    gc.disable()  # nothing here makes reference cycles, and a collection takes milliseconds
    threading.stack_size(_THREAD_STACK_BYTES)
    with socket.socket(fileno=options.socket_fd) as control:
        emulator = Emulator(control, stop_fds=stop_fds, memory_locked=lock_memory(), scheduler=_become_real_time())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            emulator.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
