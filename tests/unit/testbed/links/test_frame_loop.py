"""The frame loop over socket pairs, which keep frames apart as TAPs do; no root needed."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.links.channel import Channel
from testbed.links.frame_loop import WAKE_AHEAD_BUSY_MAX_NS, WAKE_AHEAD_MAX_NS, FrameLoop, Lane
from testbed.links.histogram import bin_of
from testbed.links.ledger import FrameAltered, FrameDropped, Ledger, LedgerRecord
from testbed.links.model import Direction, Impairment


class LoopedHosts:
    """Hosts a and b, their ends of a link, and the loop between."""

    def __init__(self, impairment: Impairment, ledger_path: Path) -> None:
        self.a, self._tap_a = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.b, self._tap_b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.a, self._tap_a, self.b, self._tap_b):
            each.setblocking(False)
        self.ledger_path = ledger_path
        self.loop = FrameLoop(Ledger(ledger_path))
        self.a_to_b = self._lane("a_to_b", impairment, self._tap_a, self._tap_b)
        self.b_to_a = self._lane("b_to_a", impairment, self._tap_b, self._tap_a)

    def _lane(self, direction: Direction, impairment: Impairment, source: socket.socket, sink: socket.socket) -> Lane:
        channel = Channel(impairment, seed=7, link="a-b", direction=direction)
        lane = Lane(link="a-b", direction=direction, channel=channel, from_fd=source.fileno(), to_fd=sink.fileno())
        self.loop.add_lane(lane)
        return lane

    def turn_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.loop.turn()

    def ledger(self) -> list[FrameDropped]:
        return [record for record in self.records() if isinstance(record, FrameDropped)]

    def alterations(self) -> list[FrameAltered]:
        return [record for record in self.records() if isinstance(record, FrameAltered)]

    def records(self) -> list[LedgerRecord]:
        assert self.loop.ledger is not None
        self.loop.ledger.flush()
        lines = self.ledger_path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=LedgerRecord) for line in lines]

    def close(self) -> None:
        self.loop.close()
        assert self.loop.ledger is not None
        self.loop.ledger.close()
        for each in (self.a, self._tap_a, self.b, self._tap_b):
            each.close()


MakeHosts = Callable[[Impairment], LoopedHosts]


@pytest.fixture
def make_hosts(tmp_path: Path) -> Iterator[MakeHosts]:
    made: list[LoopedHosts] = []

    def make(impairment: Impairment) -> LoopedHosts:
        made.append(LoopedHosts(impairment, tmp_path / "ledger.jsonl"))
        return made[-1]

    yield make
    for hosts in made:
        hosts.close()


@pytest.mark.parametrize("delay_ms", [0.0, 3.0])
def test_frames_cross_unaltered_in_order_and_are_counted(make_hosts: MakeHosts, delay_ms: float) -> None:
    hosts = make_hosts(Impairment(delay_ms=delay_ms))
    sent = [bytes([number]) * (60 + number) for number in range(100)]
    for frame in sent:
        hosts.a.send(frame)
    hosts.b.send(b"the other way")
    hosts.turn_until(lambda: hosts.a_to_b.packets == 100 and hosts.b_to_a.packets == 1)
    assert [hosts.b.recv(2_000) for _ in sent] == sent
    assert hosts.a.recv(2_000) == b"the other way"
    lane = hosts.a_to_b
    assert lane.carried_bytes == sum(map(len, sent))
    assert sum(lane.bins) == 100
    assert lane.held_ns >= 100 * delay_ms * 1e6
    assert (lane.in_flight_packets, sum(lane.dropped.values())) == (0, 0)
    assert hosts.ledger() == []


def test_lost_frames_are_in_the_ledger_with_their_numbers(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(loss_ratio=0.5))
    for number in range(100):
        hosts.a.send(number.to_bytes(2, "big"))
    hosts.turn_until(lambda: hosts.a_to_b.packets + hosts.a_to_b.dropped["loss"] == 100)
    arrived = [int.from_bytes(hosts.b.recv(10), "big") for _ in range(hosts.a_to_b.packets)]
    lost = hosts.ledger()
    assert sorted(arrived + [record.frame_number for record in lost]) == list(range(100))
    assert {(record.cause, record.link, record.direction, record.length_bytes) for record in lost} == {
        ("loss", "a-b", "a_to_b", 2)
    }


def test_the_queue_in_front_of_the_rate_drops_its_tail(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(rate_mbps=0.008, queue_packets=3))  # 1 ms a byte
    for _ in range(5):
        hosts.a.send(b"x" * 100)
    hosts.turn_until(lambda: hosts.a_to_b.dropped["queue"] == 2)
    assert [record.frame_number for record in hosts.ledger()] == [3, 4]
    assert hosts.a_to_b.in_flight_packets == 3


def test_a_cut_drops_what_is_in_flight_in_that_lane_only(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=50.0))
    hosts.a.send(b"gone")
    hosts.b.send(b"stays")
    hosts.turn_until(lambda: hosts.a_to_b.in_flight_packets == 1 and hosts.b_to_a.in_flight_packets == 1)
    hosts.loop.cut(hosts.a_to_b)
    assert hosts.a_to_b.dropped["carrier"] == 1
    hosts.a.send(b"refused")
    hosts.turn_until(lambda: hosts.b_to_a.packets == 1 and hosts.a_to_b.dropped["carrier"] == 2)
    assert [(record.cause, record.frame_number) for record in hosts.ledger()] == [("carrier", 0), ("carrier", 1)]
    hosts.a_to_b.up = True
    hosts.a.send(b"goes on")
    hosts.turn_until(lambda: hosts.a_to_b.packets == 1)
    assert hosts.b.recv(100) == b"goes on"


def test_frames_in_flight_are_bounded(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=20.0))
    hosts.loop.max_in_flight = 3
    for _ in range(5):
        hosts.a.send(b"frame")
    hosts.turn_until(lambda: hosts.a_to_b.packets == 3)
    assert hosts.a_to_b.dropped["overrun"] == 2
    assert [(record.cause, record.frame_number) for record in hosts.ledger()] == [("overrun", 3), ("overrun", 4)]


def test_a_receiver_that_takes_no_more_is_an_overrun_and_one_that_is_gone_is_down(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment())
    while not hosts.a_to_b.dropped["overrun"]:
        hosts.a.send(b"x" * 1_500)
        hosts.loop.turn()
    hosts.b.close()
    hosts.a.send(b"frame")
    hosts.turn_until(lambda: hosts.a_to_b.dropped["carrier"] == 1)


def test_other_descriptors_get_their_callback(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment())
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []
    with ours, theirs:
        hosts.loop.watch(ours.fileno(), lambda: heard.append(ours.recv(10)))
        theirs.send(b"hello")
        hosts.turn_until(lambda: bool(heard))
    assert heard == [b"hello"]


def test_the_ledger_is_written_without_being_asked(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(loss_ratio=1.0))
    hosts.a.send(b"frame")
    hosts.turn_until(lambda: hosts.ledger_path.stat().st_size > 0)  # the loop's own timer wakes it


def test_frames_that_are_due_at_the_same_time_leave_in_the_order_they_came(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=20.0))
    hosts.a.send(b"z")
    hosts.turn_until(lambda: hosts.a_to_b.in_flight_packets == 1)
    hosts.a_to_b.channel.change(Impairment())
    for frame in (b"y", b"x"):
        hosts.a.send(frame)
    hosts.turn_until(lambda: hosts.a_to_b.packets == 3)
    assert [hosts.b.recv(10) for _ in range(3)] == [b"z", b"y", b"x"]


def test_a_frame_that_leaves_late_is_counted_with_its_error(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=1.0))
    hosts.a.send(b"frame")
    hosts.turn_until(lambda: hosts.a_to_b.in_flight_packets == 1)
    late_ns = time.monotonic_ns() + 6_000_000
    while time.monotonic_ns() < late_ns:
        pass  # something else keeps the processor
    hosts.turn_until(lambda: hosts.a_to_b.packets == 1)
    assert hosts.a_to_b.error_max_ns >= 5_000_000
    assert sum(hosts.a_to_b.bins[bin_of(5_000_000) :]) == 1


def test_a_duplicate_is_delivered_twice_and_counted(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(duplicate_ratio=1.0, late_max_ms=2.0))
    sent = [b"frame %d" % number for number in range(20)]
    for frame in sent:
        hosts.a.send(frame)
    hosts.turn_until(lambda: hosts.a_to_b.packets == 40)
    assert sorted(hosts.b.recv(100) for _ in range(40)) == sorted(sent * 2)
    lane = hosts.a_to_b
    assert (lane.altered["duplicate"], lane.in_flight_packets, lane.channel.frames_offered) == (20, 0, 20)
    records = hosts.alterations()
    assert [record.frame_number for record in records] == list(range(20))
    assert all(record.alterations == ["duplicate"] and 0 <= record.copy_late_ms <= 2.0 for record in records)
    assert any(record.copy_late_ms > 0 for record in records)


def test_a_reordered_frame_is_overtaken(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=5.0, reorder_ratio=0.2, late_max_ms=20.0))
    sent = [b"%03d" % number for number in range(50)]
    for frame in sent:
        hosts.a.send(frame)
    hosts.turn_until(lambda: hosts.a_to_b.packets == 50)
    arrived = [hosts.b.recv(100) for _ in sent]
    late = {record.frame_number for record in hosts.alterations()}
    assert hosts.a_to_b.altered["reorder"] == len(late) > 0
    assert sorted(arrived) == sent
    assert [frame for frame in arrived if int(frame) not in late] == [frame for frame in sent if int(frame) not in late]
    assert arrived != sent
    assert all(0 < record.late_ms < 20.0 for record in hosts.alterations())


def test_a_corrupted_frame_has_one_bit_changed_behind_its_ethernet_header(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(corrupt_ratio=1.0, duplicate_ratio=0.5))
    sent = bytes(range(100))
    for _ in range(50):
        hosts.a.send(sent)
    hosts.turn_until(lambda: hosts.a_to_b.packets == 50 + hosts.a_to_b.altered["duplicate"])
    arrived = [int.from_bytes(hosts.b.recv(200), "big") for _ in range(hosts.a_to_b.packets)]
    changed = [value ^ int.from_bytes(sent, "big") for value in arrived]
    assert all(difference.bit_count() == 1 for difference in changed)
    assert all(difference.bit_length() <= 8 * (100 - 14) for difference in changed)  # not in the first 14 octets
    records = hosts.alterations()
    assert {8 * 100 - difference.bit_length() for difference in changed} == {record.bit for record in records}
    assert len({record.bit for record in records}) > 30
    assert hosts.a_to_b.altered["corrupt"] == 50
    assert (
        len([record for record in records if "duplicate" in record.alterations])
        == hosts.a_to_b.altered["duplicate"]
        > 0
    )


def test_a_frame_shorter_than_an_ethernet_header_can_be_corrupted(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(corrupt_ratio=1.0))
    hosts.a.send(bytes(5))
    hosts.turn_until(lambda: hosts.a_to_b.packets == 1)
    assert int.from_bytes(hosts.b.recv(10), "big").bit_count() == 1


def test_duplicates_are_bounded_like_all_frames_in_flight(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=20.0, duplicate_ratio=1.0))
    hosts.loop.max_in_flight = 4
    for _ in range(3):
        hosts.a.send(b"frame")
    lane = hosts.a_to_b
    hosts.turn_until(lambda: lane.channel.frames_offered == 3)
    assert len(hosts.loop._heap) == 4  # two frames and the copy of each, or three and that of the first
    assert lane.dropped["overrun"] == 3 + lane.altered["duplicate"] - 4
    hosts.turn_until(lambda: not lane.in_flight_packets)
    assert lane.channel.frames_offered + lane.altered["duplicate"] == lane.packets + lane.dropped["overrun"]


def test_a_black_hole_swallows_and_what_is_in_flight_arrives(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(delay_ms=10.0))
    hosts.a.send(b"in flight")
    hosts.turn_until(lambda: hosts.a_to_b.in_flight_packets == 1)
    hosts.a_to_b.channel.blocked = True
    hosts.a.send(b"swallowed")
    hosts.b.send(b"the other way")
    hosts.turn_until(lambda: hosts.a_to_b.packets == 1 and hosts.b_to_a.packets == 1)
    assert hosts.b.recv(100) == b"in flight"
    hosts.turn_until(lambda: hosts.a_to_b.dropped["blocked"] == 1)
    assert [(record.cause, record.frame_number) for record in hosts.ledger()] == [("blocked", 1)]


def test_the_ledger_says_which_message_it_was(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment(loss_ratio=1.0))
    for name in (b"a", b"b", b"a"):
        hosts.a.send(interest_frame(name))
    hosts.turn_until(lambda: hosts.a_to_b.dropped["loss"] == 3)
    named = [(record.name, record.attempt) for record in hosts.ledger()]
    assert named == [("Interest /a", 1), ("Interest /b", 1), ("Interest /a", 2)]
    hosts.a_to_b.channel.change(Impairment())
    hosts.a_to_b.channel.blocked = True
    hosts.a.send(interest_frame(b"c"))
    hosts.turn_until(lambda: hosts.a_to_b.dropped["blocked"] == 1)
    assert (hosts.ledger()[-1].name, hosts.ledger()[-1].attempt) == ("Interest /c", 0)


def interest_frame(component: bytes) -> bytes:
    name = b"\x08" + bytes([len(component)]) + component
    interest = b"\x05" + bytes([len(name) + 2]) + b"\x07" + bytes([len(name)]) + name
    udp = bytes.fromhex("18db18db") + (8 + len(interest)).to_bytes(2, "big") + bytes(2) + interest
    ip = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(10)
    return bytes(12) + b"\x08\0" + ip + udp


ANY_IMPAIRMENT = st.builds(
    Impairment,
    delay_ms=st.sampled_from([0.0, 1.0]),
    jitter_ms=st.sampled_from([0.0, 1.0]),
    jitter_distribution=st.sampled_from(["uniform", "normal"]),
    jitter_keeps_order=st.booleans(),
    loss_ratio=st.sampled_from([0.0, 0.3]),
    good_to_bad_ratio=st.sampled_from([0.0, 0.2]),
    bad_to_good_ratio=st.just(0.5),
    rate_mbps=st.sampled_from([None, 50.0]),
    queue_packets=st.sampled_from([2, 1_000]),
    queue_bytes=st.sampled_from([None, 500]),
    duplicate_ratio=st.sampled_from([0.0, 0.5]),
    reorder_ratio=st.sampled_from([0.0, 0.5]),
    corrupt_ratio=st.sampled_from([0.0, 0.5]),
    late_max_ms=st.just(1.0),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ANY_IMPAIRMENT, st.booleans(), st.integers(1, 12)), min_size=1, max_size=4), st.booleans())
def test_every_frame_is_accounted_for(
    tmp_path: Path,
    phases: list[tuple[Impairment, bool, int]],
    is_cut: bool,  # noqa: FBT001
) -> None:
    """Offered + second copies = carried + dropped + in flight, through every change; and nothing is in flight for ever."""
    hosts = LoopedHosts(phases[0][0], tmp_path / "ledger.jsonl")
    try:
        lane, offered = hosts.a_to_b, 0
        for impairment, blocked, count in phases:
            lane.channel.change(impairment)
            lane.channel.blocked = blocked
            for _ in range(count):
                hosts.a.send(bytes(60))
            offered += count
            hosts.turn_until(lambda: lane.channel.frames_offered == offered)  # noqa: B023
            in_flight = sum(flight[2] is lane for flight in hosts.loop._heap)
            assert lane.in_flight_packets == in_flight
        if is_cut:
            hosts.loop.cut(lane)
        hosts.turn_until(lambda: not lane.in_flight_packets)
        assert offered + lane.altered["duplicate"] == lane.packets + sum(lane.dropped.values())
        assert len([hosts.b.recv(100) for _ in range(lane.packets)]) == lane.packets
        with pytest.raises(BlockingIOError):
            hosts.b.recv(100)
        assert len(hosts.ledger()) == sum(lane.dropped.values())
    finally:
        hosts.close()
        hosts.ledger_path.unlink()


def test_other_work_is_done_when_it_is_due(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(Impairment())
    asked_ns: list[int] = []

    def take_turns(now_ns: int) -> int:
        asked_ns.append(now_ns)
        return now_ns + 20_000_000

    hosts.loop.take_turns = take_turns
    for number in range(300):
        hosts.a.send(b"frame")
        hosts.turn_until(lambda number=number: hosts.a_to_b.packets == number + 1)  # type: ignore[misc]
        hosts.b.recv(10)
        time.sleep(0.0002)
    assert len(asked_ns) >= 2
    assert all(second - first >= 20_000_000 for first, second in itertools.pairwise(asked_ns))


def test_a_busy_loop_polls_less(make_hosts: MakeHosts) -> None:
    loop = make_hosts(Impairment()).loop
    assert loop._ahead_ns == WAKE_AHEAD_MAX_NS
    loop.poll_less(is_busy=True)
    assert loop._ahead_ns == WAKE_AHEAD_BUSY_MAX_NS
    loop._learn_lateness(1_000_000)
    assert loop._ahead_ns == WAKE_AHEAD_BUSY_MAX_NS
    loop.poll_less(is_busy=False)
    loop._learn_lateness(1_000_000)
    assert loop._ahead_ns > WAKE_AHEAD_BUSY_MAX_NS
