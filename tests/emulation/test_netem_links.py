"""Links of the kernel's own making. Where the kernel has no netem, `./hconf test --vm` runs these in one that has."""

import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio

from testbed.faults.injector import BreakableNetwork, FaultInjector
from testbed.faults.model import Fault
from testbed.links.backends import Links, rehearsal_plan, rehearse, require_targets, why_no_netem
from testbed.links.linux import enter_netns, new_netns, returning_to_own_netns
from testbed.links.model import Direction, Impairment, LinkCounters
from testbed.links.netem.links import NetemLinks
from testbed.links.netem.match import Match
from tests.emulation.wire_pair import ADDRESS_A, ADDRESS_B, MAC_B, PORT, intf_names, ip, plan_between, socket_in
from topologies.errors import CapabilityError, InputError
from topologies.model import Link, LinkProperties, Node, Topology

_PROBLEM = why_no_netem() if os.geteuid() == 0 else "takes root"
pytestmark = pytest.mark.skipif(_PROBLEM is not None, reason=f"no netem here; see ./hconf test --vm ({_PROBLEM})")

#: Silence after which nothing comes any more. Emulated processors are slow.
SILENCE_S = 0.6


class Network:
    """Hosts a and b, and a netem link ``a-b`` between them; only what a sends is impaired."""

    def __init__(self, a_to_b: Impairment) -> None:
        self.netns_a, self.netns_b = new_netns(), new_netns()
        plan = msgspec.structs.replace(plan_between(), a_to_b=a_to_b, b_to_a=Impairment(mtu_bytes=a_to_b.mtu_bytes))
        self.links = NetemLinks.start([plan], netns_fds={"a": self.netns_a, "b": self.netns_b}, seed=7)

    @property
    def sent_by_a(self) -> LinkCounters:
        return self.links.counters()[0]

    def send(self, packets: int, *, size_bytes: int = 100, gap_s: float = 0.0) -> list[tuple[int, float]]:
        """Send numbered packets from a, and return number and one-way delay in ms of each that came, as they came."""
        came: list[tuple[int, float]] = []
        sender, receiver = socket_in(self.netns_a, ADDRESS_A), socket_in(self.netns_b, ADDRESS_B)
        receiver.settimeout(SILENCE_S)

        def receive() -> None:
            try:
                while True:
                    data = receiver.recv(3_000)
                    delay_ns = time.monotonic_ns() - int.from_bytes(data[4:12], "big")
                    came.append((int.from_bytes(data[:4], "big"), delay_ns / 1e6))
            except TimeoutError:
                pass

        with sender, receiver:
            sender.connect((ADDRESS_B, PORT))
            receiving = threading.Thread(target=receive)
            receiving.start()
            for number in range(packets):
                sender.send(number.to_bytes(4, "big") + time.monotonic_ns().to_bytes(8, "big") + bytes(size_bytes - 12))
                if gap_s:
                    time.sleep(gap_s)
            receiving.join()
        return came

    def close(self) -> None:
        self.links.stop()
        os.close(self.netns_a)
        os.close(self.netns_b)


@contextmanager
def network(**properties: Any) -> Iterator[Network]:
    made = Network(Impairment(**properties))
    try:
        yield made
    finally:
        made.close()


def numbers(came: list[tuple[int, float]]) -> list[int]:
    return [number for number, _ in came]


# What is made


def test_interfaces_are_as_those_of_wire_links() -> None:
    with network(mtu_bytes=1_400) as made:
        (link,) = [link for link in ip(made.netns_a, "address") if link["ifname"] != "lo"]
        assert (link["ifname"], link["address"], link["mtu"]) == ("a-eth0", "02:00:00:00:00:0a", 1_400)
        assert {"UP", "LOWER_UP"} <= set(link["flags"])
        (address,) = link["addr_info"]  # and no IPv6 one
        assert (address["local"], address["prefixlen"]) == (ADDRESS_A, 31)
        (neighbour,) = ip(made.netns_a, "neighbour")
        assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (ADDRESS_B, MAC_B, ["PERMANENT"])


def test_a_new_link_carries_nothing_of_its_own_and_nothing_of_it_stays() -> None:
    with network() as made:
        assert numbers(made.send(3)) == [0, 1, 2]
        a_to_b, b_to_a = made.links.counters()
        assert (a_to_b.packets, a_to_b.carried_bytes, a_to_b.drawn_packets) == (3, 3 * (14 + 20 + 8 + 100), 3)
        assert (b_to_a.packets, sum(b_to_a.dropped_packets.values())) == (0, 0)
        assert a_to_b.altered_packets == {"duplicate": 0}
        made.links.stop()
        assert intf_names(made.netns_a) == []
        assert intf_names(made.netns_b) == []


@pytest.mark.timeout(120)
def test_not_even_the_first_frame_of_a_new_link_is_lost() -> None:
    """The kernel drops what is sent before it has looked after a carrier, and says "running" of one that it never looked at."""
    for _ in range(25):
        with network() as made:
            sender, receiver = socket_in(made.netns_a, ADDRESS_A), socket_in(made.netns_b, ADDRESS_B)
            with sender, receiver:
                receiver.settimeout(5.0)
                sender.sendto(b"first", (ADDRESS_B, PORT))
                assert receiver.recv(10) == b"first"


def test_a_name_that_is_taken_is_refused_and_nothing_of_the_others_stays() -> None:
    netns_a, netns_b = new_netns(), new_netns()
    first = plan_between()
    second = msgspec.structs.replace(first, name="again")
    with pytest.raises(
        InputError, match=r"again: a's interface a-eth0 \(veth\): the kernel refuses it \(File exists\)"
    ):
        NetemLinks.start([first, second], netns_fds={"a": netns_a, "b": netns_b}, seed=1)
    assert intf_names(netns_a) == intf_names(netns_b) == []
    os.close(netns_a)
    os.close(netns_b)


# What it does to packets


def test_delay() -> None:
    with network(delay_ms=20) as made:
        delays_ms = [delay_ms for _, delay_ms in made.send(100, gap_s=0.002)]
        assert len(delays_ms) == 100
        assert min(delays_ms) >= 20.0
        assert statistics.median(delays_ms) < 40.0  # a busy machine is late, half of the time by less than this
        assert made.sent_by_a.delay_error_p99_ms is None  # the kernel does not say
        assert made.sent_by_a.measured_delay_mean_ms is None


@pytest.mark.parametrize("keeps_order", [True, False])
def test_jitter_keeps_the_order_or_does_not(*, keeps_order: bool) -> None:
    with network(delay_ms=10, jitter_ms=20, jitter_keeps_order=keeps_order) as made:
        came = made.send(200, gap_s=0.001)
        assert sorted(numbers(came)) == list(range(200))
        assert (numbers(came) == list(range(200))) is keeps_order
        delays_ms = [delay_ms for _, delay_ms in came]
        assert min(delays_ms) >= 10.0
        assert statistics.mean(delays_ms) > 17.0  # 20 if the order is not kept, else more


def test_normal_jitter_has_the_delay_for_its_mean() -> None:
    with network(delay_ms=30, jitter_ms=5, jitter_distribution="normal", jitter_keeps_order=False) as made:
        delays_ms = sorted(delay_ms for _, delay_ms in made.send(150, gap_s=0.002))
        assert 10.0 <= delays_ms[0] < 30.0  # at most four deviations below; half of them are below at all
        assert statistics.median(delays_ms) > 28.0


def test_loss_and_what_was_expected_of_it() -> None:
    with network(loss_ratio=0.3) as made:
        came = made.send(1_000)
        counted = made.sent_by_a
        assert counted.packets == len(came)
        assert counted.dropped_packets["loss"] == 1_000 - len(came)
        assert counted.drawn_packets == 1_000
        assert counted.expected_lost_packets == pytest.approx(300)
        assert counted.expected_lost_variance == pytest.approx(210)
        assert abs(counted.dropped_packets["loss"] - 300) < 5 * 210**0.5


def test_loss_in_bursts() -> None:
    with network(good_to_bad_ratio=0.02, bad_to_good_ratio=0.2) as made:
        came = set(numbers(made.send(3_000)))
        lost = [number not in came for number in range(3_000)]
        bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
        assert sum(lost) == made.sent_by_a.dropped_packets["loss"]
        assert made.sent_by_a.expected_lost_packets == pytest.approx(3_000 / 11)
        assert 2.5 < sum(lost) / bursts < 10.0  # 5 in the mean


def test_duplicates_and_corruption() -> None:
    with network(duplicate_ratio=0.3, late_max_ms=0.0) as made:
        came = numbers(made.send(500))
        assert set(came) == set(range(500))
        assert 500 + 80 < len(came) < 500 + 220
        assert made.sent_by_a.altered_packets == {"duplicate": len(came) - 500}
    with network(corrupt_ratio=0.3) as made:
        came = numbers(made.send(500))
        assert 280 < len(came) < 420  # the receiver's kernel finds the others
        assert made.sent_by_a.packets == 500


def test_reordered_packets_come_late_never_early() -> None:
    with network(delay_ms=10, reorder_ratio=0.2, late_max_ms=50) as made:
        came = made.send(300, gap_s=0.001)
        assert sorted(numbers(came)) == list(range(300))
        assert numbers(came) != list(range(300))
        assert min(delay_ms for _, delay_ms in came) >= 10.0


def test_rate_and_its_queue() -> None:
    with network(rate_mbps=1.0, delay_ms=30) as made:
        came = made.send(60, size_bytes=1_000)
        line_ms = (1_000 + 42) * 8 / 1_000
        assert numbers(came) == list(range(60))
        assert came[0][1] >= 30 + line_ms  # one frame alone takes its time on the line, too
        assert came[-1][1] >= 30 + 60 * line_ms - 100  # … and each waits for those before it; sending took a while
    with network(rate_mbps=1.0, queue_packets=10, delay_ms=30) as made:
        came = made.send(60, size_bytes=1_000)  # what is on its way is not in the queue
        assert numbers(came)[:10] == list(range(10))
        assert len(came) + made.sent_by_a.dropped_packets["queue"] == 60
        assert made.sent_by_a.dropped_packets["queue"] > 20
        assert made.sent_by_a.dropped_packets["loss"] == 0


# What changes while it runs


def test_changes_are_read_back_and_do_not_disturb_what_is_on_its_way() -> None:
    with network(delay_ms=400) as made:
        sender, receiver = socket_in(made.netns_a, ADDRESS_A), socket_in(made.netns_b, ADDRESS_B)
        with sender, receiver:
            sender.connect((ADDRESS_B, PORT))
            sent_s = time.monotonic()
            sender.send(b"slow")
            is_now = made.links.change("a-b", direction="a_to_b", delay_ms=1.0, rate_mbps=10, jitter_ms=1.0)
            sender.send(b"quick")
            assert receiver.recv(10) == b"slow"
            assert time.monotonic() - sent_s >= 0.4
            assert receiver.recv(10) == b"quick"  # order is kept, as on a wire link
        assert (is_now["a_to_b"].delay_ms, is_now["a_to_b"].rate_mbps) == (1.0, 10.0)
        assert is_now["b_to_a"] == Impairment()
        made.links.change("a-b", rate_mbps=None, jitter_ms=0.0, loss_ratio=1.0)
        assert made.send(5) == []
        made.links.change("a-b", loss_ratio=0.0, mtu_bytes=1_300)
        assert numbers(made.send(5)) == [0, 1, 2, 3, 4]
        assert [link["mtu"] for netns in (made.netns_a, made.netns_b) for link in ip(netns, "link")[1:]] == [1_300] * 2


def test_what_netem_cannot_do_is_refused_and_nothing_changes() -> None:
    with network(delay_ms=3) as made:
        with pytest.raises(CapabilityError, match=r"link a-b, a to b: the link back end netem cannot do .* bounded by"):
            made.links.change("a-b", rate_mbps=1.0, queue_bytes=10_000)
        with pytest.raises(InputError, match="loss_ratio = 2"):
            made.links.change("a-b", loss_ratio=2.0)
        assert made.links.impairments("a-b")["a_to_b"] == Impairment(delay_ms=3)
        assert numbers(made.send(2)) == [0, 1]


def test_black_hole_one_way() -> None:
    with network() as made:
        made.links.set_blocked("a-b", ["a_to_b"])
        assert made.links.read_blocked("a-b") == {"a_to_b"}
        assert made.send(7) == []
        a_to_b, b_to_a = made.links.counters()
        assert (a_to_b.blocked, a_to_b.dropped_packets["blocked"], a_to_b.dropped_packets["loss"]) == (True, 7, 0)
        assert not b_to_a.blocked
        made.links.set_blocked("a-b", [])
        assert made.links.read_blocked("a-b") == frozenset()
        assert len(made.send(7)) == 7


def test_both_ends_see_the_carrier_go_and_keep_what_they_have() -> None:
    with network() as made:
        before = [ip(netns, *what) for netns in (made.netns_a, made.netns_b) for what in (("neighbour",), ("route",))]
        watches = []
        for netns in (made.netns_a, made.netns_b):
            with returning_to_own_netns():
                enter_netns(netns)
                watches.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
                watches[-1].bind((0, 1))  # RTMGRP_LINK
        made.links.set_carrier("a-b", False)
        for watch in watches:  # told by the time that it returns, not within a second
            with watch:
                flags = struct.unpack_from("=I", watch.recv(65_536, socket.MSG_DONTWAIT), 16 + 8)[0]
                assert flags & 0x1_0001 == 1  # IFF_UP without IFF_LOWER_UP
        for netns in (made.netns_a, made.netns_b):
            (link,) = [link for link in ip(netns, "link") if link["ifname"] != "lo"]
            assert "UP" in link["flags"]
            assert "LOWER_UP" not in link["flags"]
        assert made.send(3) == []
        assert not made.sent_by_a.carrier
        made.links.set_carrier("a-b", True)
        assert numbers(made.send(3)) == [0, 1, 2]
        after = [ip(netns, *what) for netns in (made.netns_a, made.netns_b) for what in (("neighbour",), ("route",))]
        assert after == before


def ours(*more: str) -> Match:
    return Match.parse(" ".join(("udp", f"dst {ADDRESS_B}", *more)), where="x")


def test_a_target_is_impaired_and_nothing_else_is() -> None:
    with network(delay_ms=1) as made:
        others = {Match.parse("udp dst-port 9", where="x"): Impairment(loss_ratio=1.0)}
        assert made.links.set_targets("a-b", "a_to_b", others) == others
        assert len(made.send(20)) == 20
        made.links.set_targets("a-b", "a_to_b", {**others, ours(f"dst-port {PORT}"): Impairment(delay_ms=100)})
        assert min(delay_ms for _, delay_ms in made.send(20)) >= 100.0
        made.links.set_targets("a-b", "a_to_b", others)
        assert min(delay_ms for _, delay_ms in made.send(20)) < 100.0
        assert made.links.set_targets("a-b", "a_to_b", {}) == {}
        assert len(made.send(20)) == 20
        assert (made.sent_by_a.packets, made.sent_by_a.drawn_packets) == (80, 80)  # what went by targets, too
        assert made.links.impairments("a-b")["a_to_b"] == Impairment(delay_ms=1)


def test_of_two_targets_the_strictest_has_the_frame_whichever_came_first() -> None:
    everything, all_of_udp, strict = Match(), ours(), ours(f"dst-port {PORT}")
    lost, slow = Impairment(loss_ratio=1.0), Impairment(delay_ms=50)
    with network() as made:
        for order in ([strict, all_of_udp, everything], [everything, all_of_udp, strict]):
            for number in range(1, 4):
                targets = {match: slow if match == strict else lost for match in order[:number]}
                made.links.set_targets("a-b", "a_to_b", targets)
                came = made.send(5)
                assert len(came) == (5 if strict in targets else 0)
                assert all(delay_ms >= 50 for _, delay_ms in came)
            made.links.set_targets("a-b", "a_to_b", {})
        assert made.sent_by_a.dropped_packets["loss"] == 15 - 5  # the second time


def test_what_is_on_its_way_in_a_target_that_ends_arrives() -> None:
    with network() as made:
        made.links.set_targets("a-b", "a_to_b", {ours(): Impairment(delay_ms=400)})
        sender, receiver = socket_in(made.netns_a, ADDRESS_A), socket_in(made.netns_b, ADDRESS_B)
        with sender, receiver:
            receiver.settimeout(5.0)
            sender.connect((ADDRESS_B, PORT))
            sender.send(b"slow")
            made.links.set_targets("a-b", "a_to_b", {})
            sender.send(b"quick")
            assert [receiver.recv(10), receiver.recv(10)] == [b"quick", b"slow"]
        assert made.sent_by_a.in_flight_packets == 0
        assert made.sent_by_a.packets == 2


def test_a_filter_that_somebody_removes_is_missed() -> None:
    with network() as made:
        made.links.set_targets("a-b", "a_to_b", {ours(): Impairment(delay_ms=1)})
        inside = f"--net=/proc/{os.getpid()}/fd/{made.links._netns_fd}"
        for name in ("x0a", "x0b"):  # the inner ends
            subprocess.run(["nsenter", inside, "tc", "filter", "del", "dev", name, "parent", "6363:"], check=True)
        with pytest.raises(CapabilityError, match="its filters are not those of its targets"):
            made.links.change("a-b", delay_ms=2.0)


def test_faults_of_some_frames_compose_and_heal_in_any_order(tmp_path: Path) -> None:
    """As a run has them: injector, back end, kernel; each row is verified by reading back."""
    topology = Topology(
        "pair", (Node("a", "core"), Node("b", "core")), (Link.between("a", "b", "core", LinkProperties(delay_ms=1)),)
    )
    with network(delay_ms=1) as made:
        injector = FaultInjector(cast("BreakableNetwork", KernelLinks(made.links)), topology, tmp_path / "rows.jsonl")

        def impair(fault_id: str, match: str, **parameters: float) -> None:
            fault = Fault(fault_id, "impair", "a-b", parameters={"match": match, **parameters}, sender="a")
            assert trio.run(injector.apply, fault).verified

        def heal(fault_id: str) -> None:
            assert trio.run(injector.heal, fault_id).verified

        impair("slow", f"udp dst-port {PORT}", delay_ms=60)
        impair("others", "udp dst-port 9", loss_ratio=1.0)
        came = made.send(20)
        assert len(came) == 20
        assert min(delay_ms for _, delay_ms in came) >= 60.0
        impair("lossy", f"src {ADDRESS_A}", loss_ratio=0.5)
        came = made.send(100)
        assert 20 < len(came) < 80
        assert min(delay_ms for _, delay_ms in came) >= 60.0  # both of them
        heal("slow")
        assert min(delay_ms for _, delay_ms in made.send(20)) < 60.0
        heal("others")
        heal("lossy")
        assert len(made.send(20)) == 20


class KernelLinks:
    """What the injector needs of a network for impairments alone, by the real back end."""

    def __init__(self, links: NetemLinks) -> None:
        self.links = links

    async def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> dict[Match, Impairment]:
        return self.links.set_targets(link, direction, targets)

    async def read_blocked(self, link: str) -> frozenset[Direction]:
        return self.links.read_blocked(link)

    async def read_carrier(self, link: str) -> tuple[bool, bool]:
        up = all(row.carrier for row in self.links.counters() if row.link == link)
        return up, up


def test_somebody_elses_qdiscs_are_neither_touched_nor_taken_for_ours() -> None:
    with network(delay_ms=1) as made:
        inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{made.netns_a}", "tc")
        theirs = ("dev", "a-eth0", "root", "handle", "6370:", "netem", "delay", "50ms")
        subprocess.run([*inside, "qdisc", "add", *theirs], check=True)
        made.links.change("a-b", delay_ms=2.0)
        said = subprocess.run([*inside, "qdisc", "show", "dev", "a-eth0"], check=True, capture_output=True, text=True)
        assert "6370: root" in said.stdout
        assert "delay 50ms" in said.stdout
        assert min(delay_ms for _, delay_ms in made.send(10)) >= 52.0


# All of it together


def test_both_back_ends_in_one_run(tmp_path: Path) -> None:
    netns_fds = {host: new_netns() for host in "abc"}
    plans = [plan_between("a", "b", subnet=0), plan_between("b", "c", subnet=1)]
    links = Links.begin({"a-b": "netem", "b-c": "wire"})
    try:
        links.build(plans, netns_fds=netns_fds, seed=1, ledger_path=tmp_path / "ledger.jsonl")
        assert [(row.link, row.direction) for row in links.counters()] == [
            *(("a-b", "a_to_b"), ("a-b", "b_to_a"), ("b-c", "a_to_b"), ("b-c", "b_to_a")),
        ]
        for host, peer, link in (("a", "10.0.0.1", "a-b"), ("b", "10.0.1.1", "b-c")):
            own = "10.0.0.0" if host == "a" else "10.0.1.0"
            with (
                socket_in(netns_fds[host], own) as sender,
                socket_in(netns_fds["b" if host == "a" else "c"], peer) as receiver,
            ):
                receiver.settimeout(5.0)
                sender.sendto(b"hello", (peer, PORT))
                assert receiver.recv(10) == b"hello"
            assert links.change(link, loss_ratio=1.0)["a_to_b"].loss_ratio == 1.0
        assert [row.packets for row in links.counters()] == [1, 0, 1, 0]
    finally:
        links.stop()
        for fd in netns_fds.values():
            os.close(fd)


def test_a_rehearsal_tries_every_kind_of_link() -> None:
    rehearse(
        [rehearsal_plan(f"link{n}", Impairment(delay_ms=n, jitter_ms=n), Impairment(rate_mbps=1)) for n in range(3)]
    )
    require_targets()
    with pytest.raises(CapabilityError, match="link bad, b to a: the link back end netem cannot do duplicates"):
        rehearse([rehearsal_plan("bad", Impairment(), Impairment(duplicate_ratio=0.5))])


def test_a_dead_supervisor_takes_its_links_along() -> None:
    """They are in a namespace that only it holds: the kernel removes both ends."""
    program = (
        "import sys, time; from testbed.links.linux import new_netns; from testbed.links.netem.links import NetemLinks; "
        "from tests.emulation.wire_pair import plan_between; "
        "NetemLinks.start([plan_between()], netns_fds={'a': int(sys.argv[1]), 'b': int(sys.argv[2])}, seed=1); "
        "print('up', flush=True); time.sleep(60)"
    )
    netns_a, netns_b = new_netns(), new_netns()
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, str(netns_a), str(netns_b)],
        pass_fds=(netns_a, netns_b),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"up\n"
    assert intf_names(netns_a) == ["a-eth0"]
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    deadline_s = time.monotonic() + 10.0
    while intf_names(netns_a) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert intf_names(netns_a) == intf_names(netns_b) == []
    os.close(netns_a)
    os.close(netns_b)
