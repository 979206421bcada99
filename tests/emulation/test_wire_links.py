"""Links over real TAP interfaces between real network namespaces."""

import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from testbed.links.ledger import FrameAltered, FrameDropped, LedgerRecord
from testbed.links.linux import enter_netns, new_netns, returning_to_own_netns
from testbed.links.model import Impairment, LinkPlan
from testbed.links.rtnetlink import RouteSocket, delete_together
from testbed.links.tap import make_taps, remove_taps
from testbed.links.wire import WireEmulator
from tests.emulation.wire_pair import (
    ADDRESS_A,
    ADDRESS_B,
    PORT,
    Pair,
    intf_names,
    ip,
    plan_between,
    socket_in,
    wire_pair,
)
from topologies.errors import HconfError, InputError


@pytest.fixture
def pair() -> Iterator[Pair]:
    with wire_pair() as made:
        yield made


def exchange(pair: Pair, payload: bytes) -> bytes:
    sender, receiver = pair.sockets()
    with sender, receiver:
        sender.send(payload)
        return receiver.recv(2_000)


def records(pair: Pair) -> list[LedgerRecord]:
    return [msgspec.json.decode(line, type=LedgerRecord) for line in pair.ledger_path.read_bytes().splitlines()]


def ledger(pair: Pair) -> list[FrameDropped]:
    return [record for record in records(pair) if isinstance(record, FrameDropped)]


def received_until(receiver: socket.socket, last: bytes) -> list[bytes]:
    packets = []
    while (packet := receiver.recv(2_000)) != last:
        packets.append(packet)
    return packets


# What is made


def test_interfaces_are_as_planned(pair: Pair) -> None:
    (link,) = [link for link in ip(pair.netns_a, "address") if link["ifname"] != "lo"]
    assert (link["ifname"], link["address"], link["mtu"]) == ("a-eth0", "02:00:00:00:00:0a", 1_500)
    assert {"UP", "LOWER_UP"} <= set(link["flags"])
    assert link["txqlen"] == 1_000
    (address,) = link["addr_info"]  # and no IPv6 one
    assert (address["local"], address["prefixlen"]) == (ADDRESS_A, 31)
    (neighbour,) = ip(pair.netns_a, "neighbour")
    assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (
        ADDRESS_B,
        "02:00:00:00:00:0b",
        ["PERMANENT"],
    )


def test_a_new_link_carries_nothing_of_its_own(pair: Pair) -> None:
    """Neither ARP nor IPv6 neighbour discovery nor IGMP: frame numbers are those of what the nodes send."""
    assert exchange(pair, b"hello") == b"hello"
    a_to_b, b_to_a = pair.emulator.counters()
    assert (a_to_b.packets, a_to_b.carried_bytes) == (1, 14 + 20 + 8 + len(b"hello"))
    assert (b_to_a.packets, sum(b_to_a.dropped_packets.values())) == (0, 0)
    assert (a_to_b.sender, a_to_b.receiver, a_to_b.in_flight_packets) == ("a", "b", 0)


def test_tcp_arrives_unaltered() -> None:
    data = os.urandom(1 << 20)
    with wire_pair(impairment=Impairment(delay_ms=2.0, loss_ratio=0.01, rate_mbps=200.0)) as pair:
        listener = socket_in(pair.netns_b, ADDRESS_B, kind=socket.SOCK_STREAM)
        caller = socket_in(pair.netns_a, ADDRESS_A, kind=socket.SOCK_STREAM)
        listener.listen()

        def send() -> None:
            with caller:
                caller.connect((ADDRESS_B, PORT))
                caller.sendall(data)

        thread = threading.Thread(target=send)
        thread.start()
        with listener, listener.accept()[0] as connection, connection.makefile("rb") as stream:
            digest = hashlib.sha256(stream.read()).digest()
        thread.join()
        assert digest == hashlib.sha256(data).digest()


def test_two_hundred_links_are_up_and_gone_again() -> None:
    hosts = {f"h{number}": new_netns() for number in range(201)}
    try:
        emulator = WireEmulator.start(
            [plan_between(f"h{number}", f"h{number + 1}", subnet=number) for number in range(200)],
            netns_fds=hosts,
            seed=7,
            ledger_path=Path("/dev/null"),
        )
        try:
            assert [len(intf_names(hosts[name])) for name in ("h0", "h100", "h200")] == [1, 2, 1]
            assert len(emulator.counters()) == 400
            sender, receiver = socket_in(hosts["h199"], "10.0.199.0"), socket_in(hosts["h200"], "10.0.199.1")
            with sender, receiver:
                sender.sendto(b"last link", ("10.0.199.1", PORT))
                assert receiver.recv(100) == b"last link"
        finally:
            emulator.stop()
        assert all(intf_names(netns) == [] for netns in hosts.values())
    finally:
        for netns in hosts.values():
            os.close(netns)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_no_interface_outlives_the_emulator(pair: Pair, way: str) -> None:
    if way == "kill":
        os.kill(pair.emulator.pid, 9)
    pair.emulator.stop()
    assert intf_names(pair.netns_a) == intf_names(pair.netns_b) == []


def test_what_is_not_the_emulators_stays(tmp_path: Path) -> None:
    hosts = {name: new_netns() for name in "abc"}
    emulator = WireEmulator.start(
        [plan_between("a", "b"), plan_between("b", "c", subnet=1)],
        netns_fds=hosts,
        seed=7,
        ledger_path=tmp_path / "ledger.jsonl",
    )
    try:
        add_dummy(hosts["b"], "theirs")
        subprocess.run(
            ("nsenter", f"--net=/proc/{os.getpid()}/fd/{hosts['b']}", "ip", "link", "delete", "b-eth0"), check=True
        )
        emulator.stop()
        assert [intf_names(netns) for netns in hosts.values()] == [[], ["theirs"], []]
    finally:
        emulator.stop()
        for netns in hosts.values():
            os.close(netns)


@pytest.mark.parametrize("way", ["as a group", "by closing"])
def test_interfaces_of_a_host_are_removed(way: str) -> None:
    ends = [(plan_between(subnet=number).a, 1_500) for number in range(3)]
    netns, kept = new_netns(), list[int]()
    try:
        taps = list(make_taps({"a": ends}, netns_fds={"a": netns}).values())
        assert len(intf_names(netns)) == 3
        if way == "as a group":
            kept += [os.dup(tap.fd) for tap in taps]  # with these, closing would remove nothing
            assert taps[0].route.carry_out(delete_together([taps[0].index])) == [0, 0]
            assert intf_names(netns) == ["a-eth1", "a-eth2"]
        else:
            taps[0].route.close()  # the kernel cannot be asked
        remove_taps(taps)
        assert intf_names(netns) == []
        for tap in taps:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(tap.fd)
    finally:
        for fd in (netns, *kept):
            os.close(fd)


# What cannot be made


def add_dummy(netns: int, name: str) -> None:
    """Make an interface that is not ours: a persistent TAP, to which a careless TUNSETIFF would attach."""
    inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{netns}")
    subprocess.run((*inside, "ip", "tuntap", "add", "dev", name, "mode", "tap"), check=True)


def with_end(plan: LinkPlan, **fields: str) -> LinkPlan:
    return msgspec.structs.replace(plan, b=msgspec.structs.replace(plan.b, **fields))


GOOD = plan_between("a", "b", subnet=1)
REFUSED = {
    "name taken": (with_end(GOOD, intf="taken"), "host b: interface taken: cannot make it"),
    "name too long": (
        with_end(GOOD, intf="b-ethernet-12345"),
        "host b: interface b-ethernet-12345: a name has 1 to 15",
    ),
    "name not allowed": (with_end(GOOD, intf="b/eth"), "host b: interface b/eth: cannot make it"),
    "bad address": (with_end(GOOD, address="10.0.0.256/31"), "host b: interface b-eth1: .*10.0.0.256"),
    "bad prefix": (with_end(GOOD, address="10.0.0.1/33"), "host b: interface b-eth1: the kernel refused address"),
    "bad mac": (with_end(GOOD, mac="02:00:00"), "host b: interface b-eth1: .*six bytes"),
    "multicast mac": (with_end(GOOD, mac="01:00:00:00:00:01"), "host b: interface b-eth1: the kernel refused MAC"),
    "bad peer": (with_end(GOOD, peer_address="10.0.0.0/31"), "host b: interface b-eth1: .*without /31"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_failure_half_way_is_clear_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    refused, message = REFUSED[case]
    hosts = {name: new_netns() for name in "abcd"}
    try:
        add_dummy(hosts["b"], "taken")
        with pytest.raises(InputError, match=message):
            WireEmulator.start(
                [plan_between("c", "d"), refused], netns_fds=hosts, seed=7, ledger_path=tmp_path / "ledger.jsonl"
            )
        assert [intf_names(netns) for netns in hosts.values()] == [[], ["taken"], [], []]
    finally:
        for netns in hosts.values():
            os.close(netns)


def test_a_descriptor_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(HconfError, match="host a: cannot enter"):
        WireEmulator.start(
            [GOOD], netns_fds={"a": file.fileno(), "b": file.fileno()}, seed=7, ledger_path=tmp_path / "ledger.jsonl"
        )


# What changes while it runs


def test_a_link_that_goes_down_drops_what_is_in_flight_and_both_ends_see_it(pair: Pair) -> None:
    pair.emulator.change("a-b", delay_ms=200.0)
    sender, receiver = pair.sockets()
    with sender, receiver:
        sender.send(b"in flight")
        while not pair.emulator.counters()[0].in_flight_packets:
            pass
        pair.emulator.set_carrier("a-b", False)
        for netns in (pair.netns_a, pair.netns_b):
            (link,) = [link for link in ip(netns, "link") if link["ifname"] != "lo"]
            assert "NO-CARRIER" in link["flags"]
        counters = pair.emulator.counters()[0]
        assert (counters.carrier, counters.dropped_packets["carrier"], counters.packets) == (False, 1, 0)

        pair.emulator.change("a-b", delay_ms=0.0)
        pair.emulator.set_carrier("a-b", True)
        receiver.settimeout(0.05)
        while True:  # the kernel takes a moment until it sends again
            sender.send(b"up again")
            try:
                assert receiver.recv(100) == b"up again"
                break
            except TimeoutError:
                continue
    pair.emulator.stop()
    assert [(record.cause, record.frame_number) for record in ledger(pair)][:1] == [("carrier", 0)]


def test_listeners_hear_of_a_carrier_change_at_once(pair: Pair) -> None:
    """Not with the up to one second that the kernel's link watch takes, even for several changes in a row."""
    with returning_to_own_netns():
        enter_netns(pair.netns_b)
        index = socket.if_nametoindex("b-eth0")
        route = RouteSocket()
    listener = route._socket
    listener.bind((0, 1))  # RTMGRP_LINK
    try:
        for up in (False, True, False, True):
            pair.emulator.set_carrier("a-b", up)
            assert listener.recv(65_536, socket.MSG_DONTWAIT)  # sent before set_carrier returned
            while True:
                try:
                    listener.recv(65_536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
            assert route.link_state(index).carrier is up
    finally:
        route.close()


def test_a_change_is_live_read_back_and_one_way(pair: Pair) -> None:
    before = pair.emulator.impairments("a-b")
    after = pair.emulator.change("a-b", direction="a_to_b", loss_ratio=1.0, rate_mbps=10.0)
    assert after == {
        "a_to_b": msgspec.structs.replace(before["a_to_b"], loss_ratio=1.0, rate_mbps=10.0),
        "b_to_a": before["b_to_a"],
    }
    assert [row.configured for row in pair.emulator.counters()] == [after["a_to_b"], after["b_to_a"]]
    sender, receiver = pair.sockets()
    with sender, receiver:
        sender.send(b"lost")
        while not pair.emulator.counters()[0].dropped_packets["loss"]:
            pass
        assert pair.emulator.change("a-b", loss_ratio=0.0, rate_mbps=None) == before
        sender.send(b"arrives")
        assert receiver.recv(100) == b"arrives"
    row = pair.emulator.counters()[0]
    assert (row.measured_loss_ratio, row.expected_lost_packets, row.expected_lost_variance) == (0.5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("properties", "message"),
    [({"loss_ratio": 1.5}, "loss_ratio = 1.5"), ({"delay_ms": -1}, "delay_ms"), ({"delay_ms": "5"}, "float")],
)
def test_a_wrong_change_is_refused_and_changes_nothing(pair: Pair, properties: dict[str, float], message: str) -> None:
    before = [row.configured for row in pair.emulator.counters()]
    with pytest.raises(InputError, match=f"link a-b: .*{message}"):
        pair.emulator.change("a-b", **properties)  # type: ignore[arg-type]
    assert [row.configured for row in pair.emulator.counters()] == before


def test_a_frame_in_flight_keeps_its_time_when_the_delay_changes(pair: Pair) -> None:
    pair.emulator.change("a-b", delay_ms=100.0)
    sender, receiver = pair.sockets()
    with sender, receiver:
        sender.send(b"slow")
        while not pair.emulator.counters()[0].in_flight_packets:
            pass
        pair.emulator.change("a-b", delay_ms=0.0)
        sender.send(b"behind")  # not before the one ahead of it
        assert [receiver.recv(100), receiver.recv(100)] == [b"slow", b"behind"]
    measured = pair.emulator.counters()[0].measured_delay_mean_ms
    assert measured is not None
    assert measured >= 50.0


def test_the_same_seed_loses_the_same_frames_of_a_fixed_input() -> None:
    def arrived(seed: int) -> list[bytes]:
        with wire_pair(seed=seed, impairment=Impairment(delay_ms=1.0, jitter_ms=1.0, loss_ratio=0.2)) as pair:
            sender, receiver = pair.sockets()
            with sender, receiver:
                for number in range(500):
                    sender.send(b"%d" % number)
                while pair.emulator.counters()[0].packets + pair.emulator.counters()[0].dropped_packets["loss"] < 500:
                    pass
                pair.emulator.change("a-b", loss_ratio=0.0)
                sender.send(b"end")
                packets = received_until(receiver, b"end")
            pair.emulator.stop()
            lost = {record.frame_number for record in ledger(pair)}
            assert {int(packet) for packet in packets} == set(range(500)) - lost
            return packets

    first = arrived(7)
    assert arrived(7) == first
    assert arrived(8) != first


def test_what_the_kernel_drops_because_nobody_reads_is_an_overrun(pair: Pair) -> None:
    sender, receiver = pair.sockets()
    with sender, receiver:
        os.kill(pair.emulator.pid, 19)  # SIGSTOP
        for _ in range(1_200):
            sender.send(b"frame")
        os.kill(pair.emulator.pid, 18)  # SIGCONT
        while (row := pair.emulator.counters()[0]).packets + row.dropped_packets["overrun"] < 1_200:
            pass
    assert row.dropped_packets["overrun"] > 0
    assert row.packets >= 1_000


# What happens to frames


def sent_through(pair: Pair, count: int) -> list[int]:
    """Send numbers from a, wait until the link has nothing left in flight, and return those that arrived at b."""
    sender, receiver = pair.sockets()
    with sender, receiver:
        for number in range(count):
            sender.send(number.to_bytes(2, "big") + bytes(100))
        while (row := pair.emulator.counters()[0]).drawn_packets < count or row.in_flight_packets:
            pass
        receiver.setblocking(False)
        arrived = []
        while True:
            try:
                arrived.append(int.from_bytes(receiver.recv(2_000)[:2], "big"))
            except BlockingIOError:
                return arrived


def test_a_corrupted_frame_ends_at_the_checksum_of_the_receivers_kernel() -> None:
    with wire_pair(impairment=Impairment(corrupt_ratio=0.3)) as pair:
        arrived = sent_through(pair, 400)
        row = pair.emulator.counters()[0]
        pair.emulator.stop()
        corrupted = {record.frame_number for record in records(pair)}
        assert sorted(arrived) == sorted(set(range(400)) - corrupted)
        assert row.altered_packets["corrupt"] == len(corrupted) > 50
        assert (row.packets, sum(row.dropped_packets.values())) == (400, 0)  # the link has carried them


def test_duplicates_and_what_is_late_arrive_as_the_ledger_says() -> None:
    asked = Impairment(delay_ms=1.0, duplicate_ratio=0.2, reorder_ratio=0.2, late_max_ms=20.0)
    with wire_pair(impairment=asked) as pair:
        arrived = sent_through(pair, 400)
        row = pair.emulator.counters()[0]
        pair.emulator.stop()
        altered = [record for record in records(pair) if isinstance(record, FrameAltered)]
        twice = [record.frame_number for record in altered if "duplicate" in record.alterations]
        late = {record.frame_number for record in altered if "reorder" in record.alterations}
        assert sorted(arrived) == sorted([*range(400), *twice])
        assert row.packets == 400 + len(twice) == 400 + row.altered_packets["duplicate"] > 450
        assert row.altered_packets["reorder"] == len(late) > 50
        first = list(dict.fromkeys(arrived))
        on_time = [number for number in first if number not in late]
        assert on_time == sorted(on_time)
        assert first != sorted(first)


def test_a_black_hole_takes_one_direction_or_both_and_neither_end_sees_it(pair: Pair) -> None:
    pair.emulator.set_blocked("a-b", {"a_to_b"})
    assert pair.emulator.read_blocked("a-b") == {"a_to_b"}
    there, back = pair.sockets()
    with there, back:
        there.send(b"swallowed")
        back.sendto(b"arrives", (ADDRESS_A, PORT))
        assert there.recv(100) == b"arrives"
        while not pair.emulator.counters()[0].dropped_packets["blocked"]:
            pass
        for netns in (pair.netns_a, pair.netns_b):
            (link,) = [link for link in ip(netns, "link") if link["ifname"] != "lo"]
            assert {"UP", "LOWER_UP"} <= set(link["flags"])
        assert [row.blocked for row in pair.emulator.counters()] == [True, False]
        pair.emulator.set_blocked("a-b", ())
        there.send(b"through again")
        assert back.recv(100) == b"through again"
    with pytest.raises(InputError, match="no such link"):
        pair.emulator.set_blocked("x-y", {"a_to_b"})


def test_each_end_has_the_mtu_of_what_it_sends_and_it_changes_live() -> None:
    with wire_pair(impairment=Impairment(mtu_bytes=9_000), back=Impairment(mtu_bytes=1_280)) as pair:
        assert [mtu(netns) for netns in (pair.netns_a, pair.netns_b)] == [9_000, 1_280]
        there, back = pair.sockets()
        with there, back:
            there.send(bytes(8_800))
            assert len(back.recv(9_000)) == 8_800
            assert pair.emulator.counters()[0].packets == 1
            back.sendto(bytes(2_000), (ADDRESS_A, PORT))  # in two IP fragments
            assert len(there.recv(9_000)) == 2_000
            assert pair.emulator.counters()[1].packets == 2
            after = pair.emulator.change("a-b", direction="a_to_b", mtu_bytes=1_400, delay_ms=1.0)
            assert (after["a_to_b"].mtu_bytes, after["b_to_a"].mtu_bytes) == (1_400, 1_280)
            assert [mtu(netns) for netns in (pair.netns_a, pair.netns_b)] == [1_400, 1_280]
            there.send(bytes(1_500))
            assert len(back.recv(9_000)) == 1_500
            assert pair.emulator.counters()[0].packets == 3


def mtu(netns: int) -> int:
    (size,) = [link["mtu"] for link in ip(netns, "link") if link["ifname"] != "lo"]
    return int(size)


# What others do to the interfaces


def test_an_interface_taken_down_and_up_by_hand_works_again(pair: Pair) -> None:
    inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{pair.netns_b}", "ip", "link", "set", "b-eth0")
    sender, receiver = pair.sockets()
    with sender, receiver:
        subprocess.run((*inside, "down"), check=True)
        sender.send(b"lost")
        while not pair.emulator.counters()[0].dropped_packets["carrier"]:
            pass
        subprocess.run((*inside, "up"), check=True)
        sender.send(b"arrives")
        assert receiver.recv(100) == b"arrives"


def test_an_interface_deleted_by_hand_costs_its_own_link_only(tmp_path: Path) -> None:
    hosts = {name: new_netns() for name in "abc"}
    emulator = WireEmulator.start(
        [plan_between("a", "b"), plan_between("b", "c", subnet=1)],
        netns_fds=hosts,
        seed=7,
        ledger_path=tmp_path / "ledger.jsonl",
    )
    try:
        inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{hosts['a']}", "ip", "link", "delete", "a-eth0")
        subprocess.run(inside, check=True)
        sender, receiver = socket_in(hosts["b"], "10.0.1.0"), socket_in(hosts["c"], "10.0.1.1")
        with sender, receiver:
            sender.sendto(b"still here", ("10.0.1.1", PORT))
            assert receiver.recv(100) == b"still here"
        assert [row.link for row in emulator.counters()] == ["a-b", "a-b", "b-c", "b-c"]
    finally:
        emulator.stop()
        for netns in hosts.values():
            os.close(netns)
