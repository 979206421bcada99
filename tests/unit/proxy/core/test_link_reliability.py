"""Both ends of a link in virtual time, over a channel that loses what it is told to lose."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.link_reliability import (
    ACK_DELAY_S,
    CALM_S,
    EARLY_MAX_BYTES,
    EARLY_S,
    PROBATION,
    REPETITIONS_MAX,
    SEEN_WINDOW,
    UNACKED_MAX,
    WINDOW,
    LinkReliability,
    Mode,
)
from proxy.core.seeded import SplitMix64
from proxy.wire.lp import ACKS_MAX, LinkPacket, decode_link_packet

DELAY_S = 0.010


class Pair:
    """End 0 sends to end 1; both are driven by their deadlines. ``loses(sender, n)``: the n-th datagram of an end."""

    def __init__(self, mode: Mode, loses: Callable[[int, int], bool] = lambda _sender, _n: False) -> None:
        self.ends = [LinkReliability(mode, SplitMix64(seed), mtu_bytes=1_500) for seed in (1, 2)]
        self.loses = loses
        self.now_s = 0.0
        self.sent = [0, 0]
        self.arrived: list[tuple[float, bytes]] = []
        self.lost: list[bytes] = []
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def send(self, payload: bytes, *, end: int = 0, is_regular: bool = False) -> None:
        self._put(end, self.ends[end].wrap(LinkPacket(payload), now_s=self.now_s, is_regular=is_regular))

    def idle(self, end: int) -> None:
        self._put(end, [self.ends[end].idle(3)])

    def _put(self, sender: int, datagrams: Iterable[bytes]) -> None:
        for datagram in datagrams:
            n, self.sent[sender] = self.sent[sender], self.sent[sender] + 1
            if not self.loses(sender, n):
                self._count += 1
                heapq.heappush(self._heap, (self.now_s + DELAY_S, self._count, 1 - sender, datagram))

    def run(self, until_s: float) -> None:
        while True:
            times = [end.deadline_s for end in self.ends if end.deadline_s is not None]
            times += [self._heap[0][0]] if self._heap else []
            if not times or min(times) > until_s:
                break
            self.now_s = max(self.now_s, min(times))
            while self._heap and self._heap[0][0] <= self.now_s:
                _, _, receiver, datagram = heapq.heappop(self._heap)
                packet = decode_link_packet(datagram)
                is_new, repeat, lost = self.ends[receiver].received(packet, now_s=self.now_s)
                if packet.fragment and is_new and receiver == 1:
                    self.arrived.append((self.now_s, packet.fragment))
                self._put(receiver, repeat)
                self.lost += [item.fragment for item in lost]
            for index, end in enumerate(self.ends):
                if end.deadline_s is not None and end.deadline_s <= self.now_s:
                    repeat, lost = end.on_timer(now_s=self.now_s)
                    ack = end.late_ack(3, now_s=self.now_s)
                    self._put(index, repeat if ack is None else [*repeat, ack])
                    self.lost += [item.fragment for item in lost]
        self.now_s = until_s


def fresh() -> Pair:
    """Return two ends that have just said hello."""
    pair = Pair("auto")
    for end in (0, 1):
        pair.idle(end)
    pair.run(0.1)
    pair.sent = [0, 0]
    return pair


def trusted() -> Pair:
    """Return two ends of a link that has lost nothing for as long as it takes to believe it."""
    pair = fresh()
    for _ in range(PROBATION):
        for end in (0, 1):
            pair.send(b"early", end=end)
        pair.run(pair.now_s + 0.05)
    pair.arrived.clear()
    pair.sent = [0, 0]
    return pair


def test_without_loss_auto_sends_nothing_but_the_packets() -> None:
    pair = trusted()
    for number in range(50):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + 0.001)
    pair.run(pair.now_s + 1.0)
    assert [payload for _, payload in pair.arrived] == [b"%d" % number for number in range(50)]
    assert pair.sent == [50, 0]


def test_the_first_packets_of_a_link_are_acked_and_no_others() -> None:
    pair = fresh()
    for number in range(2 * PROBATION):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + 0.05)
    assert pair.sent == [2 * PROBATION, PROBATION]
    pair.ends[0].forget()  # whoever is there when the session is up again is new
    pair.idle(1)
    pair.run(pair.now_s + 0.05)
    pair.send(b"again")
    pair.run(pair.now_s + 0.05)
    assert pair.sent == [2 * PROBATION + 1, PROBATION + 2]


def test_what_is_sent_regularly_is_not_acked_and_counts_all_the_same() -> None:
    pair = fresh()
    for _ in range(PROBATION - 1):
        pair.send(b"heartbeat", is_regular=True)
        pair.run(pair.now_s + 0.05)
    assert pair.sent == [PROBATION - 1, 0]
    pair.send(b"update")
    pair.run(pair.now_s + 0.05)
    assert pair.sent == [PROBATION, 1], "the last of the probation"
    pair.send(b"update")
    pair.run(pair.now_s + 0.05)
    assert pair.sent == [PROBATION + 1, 1]


def test_of_a_new_link_one_loss_of_what_is_sent_regularly_says_enough() -> None:
    pair = fresh()
    pair.loses = lambda sender, n: sender == 0 and n == 0
    for _ in range(3):
        pair.send(b"heartbeat", is_regular=True)
        pair.run(pair.now_s + 0.05)
    pair.idle(1)  # that tells of the gap
    pair.run(pair.now_s + 0.05)
    assert pair.ends[0].is_lossy
    before = pair.sent[1]
    pair.send(b"heartbeat", is_regular=True)
    pair.run(pair.now_s + 0.05)
    assert pair.sent[1] == before + 1, "from now on all are acked"


def test_peer_that_may_not_know_of_acks_is_not_asked_for_any() -> None:
    """Its heartbeats do not say how much it has sent, as ours do."""
    end = LinkReliability("auto", SplitMix64(1), mtu_bytes=1_500)
    end.received(LinkPacket(b"", session_state=3), now_s=0.0)
    (datagram,) = end.wrap(LinkPacket(b"x"), now_s=0.0)
    assert decode_link_packet(datagram).tx_sequence is None
    assert not end.is_watched


def test_loss_of_the_very_first_packets_is_mended() -> None:
    pair = fresh()
    pair.loses = lambda sender, n: sender == 0 and n < 2
    for number in range(4):
        pair.send(b"%d" % number)
    pair.run(1.0)
    assert sorted(payload for _, payload in pair.arrived) == [b"0", b"1", b"2", b"3"]


def test_off_adds_no_header_field() -> None:
    (datagram,) = LinkReliability("off", SplitMix64(1), mtu_bytes=1_500).wrap(LinkPacket(b"x"), now_s=0.0)
    assert decode_link_packet(datagram) == LinkPacket(b"x")


def test_a_gap_switches_acks_on_for_a_while() -> None:
    pair = trusted()
    begun_s = pair.now_s
    pair.loses = lambda sender, n: sender == 0 and n == 1
    for number in range(3):
        pair.send(b"%d" % number)
    pair.run(begun_s + 0.1)
    assert [payload for _, payload in pair.arrived] == [b"0", b"2"]  # the first loss is only noticed
    pair.send(b"back", end=1)  # tells of the gap
    pair.run(begun_s + 0.2)
    pair.send(b"3")
    sent_before = pair.sent[1]
    pair.run(begun_s + 0.3)
    assert pair.sent[1] == sent_before + 1  # an ack of its own, since nothing else went back
    pair.run(begun_s + 0.3 + CALM_S)
    pair.send(b"4")
    pair.run(begun_s + 1.0 + CALM_S)
    assert pair.sent[1] == sent_before + 1  # calm for long enough: no acks any more


def test_lost_tail_shows_in_the_next_heartbeat() -> None:
    pair = trusted()
    begun_s = pair.now_s
    pair.loses = lambda sender, n: sender == 0 and n == 1
    pair.send(b"0")
    pair.send(b"1")
    pair.run(begun_s + 0.1)
    pair.idle(0)
    pair.run(begun_s + 0.2)
    pair.idle(1)
    pair.run(begun_s + 0.3)
    pair.send(b"2")
    pair.run(begun_s + 0.5)
    assert pair.sent[1] == 2  # its heartbeat, and the ack that "2" asked for


def test_lost_packet_is_repeated_after_about_a_round_trip() -> None:
    pair = Pair("on", loses=lambda sender, n: sender == 0 and n == 40)
    for number in range(42):  # by the 40th, the estimate of the round trip has settled
        pair.send(b"%d" % number)
        pair.run(pair.now_s + 0.1)
    delays_s = {payload: at_s - int(payload) * 0.1 for at_s, payload in pair.arrived}
    assert delays_s[b"39"] == pytest.approx(DELAY_S)
    assert DELAY_S * 3 < delays_s[b"40"] < DELAY_S * 3 + 4 * ACK_DELAY_S
    assert pair.ends[0].repeated == 1


def test_a_packet_does_not_wait_for_one_that_is_overdue_for_longer() -> None:
    """Repetitions back off; what was sent after one of them, and is lost too, is repeated after its own time."""
    pair = Pair("on", loses=lambda sender, n: sender == 0 and 40 <= n <= 43)
    for number in range(41):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + (0.1 if number < 40 else 0.0))
    while pair.sent[0] < 43:  # it is lost, and two repetitions of it
        pair.run(pair.now_s + 0.001)
    sent_s = pair.now_s
    pair.send(b"later")
    pair.run(sent_s + 1.0)
    arrived_s = {payload: at_s for at_s, payload in pair.arrived}
    assert arrived_s[b"later"] - sent_s < DELAY_S * 3 + 4 * ACK_DELAY_S
    assert b"40" in arrived_s


def test_three_later_acks_prove_a_loss_before_the_timeout() -> None:
    pair = Pair("on", loses=lambda sender, n: sender == 0 and n == 0)
    for number in range(4):  # no round trip is known yet: the timeout is a quarter of a second
        pair.send(b"%d" % number)
    pair.run(0.2)
    assert [payload for _, payload in pair.arrived] == [b"1", b"2", b"3", b"0"]


def test_lost_ack_costs_a_repetition_that_the_receiver_drops() -> None:
    pair = Pair("on", loses=lambda sender, n: sender == 1 and n == 0)
    pair.send(b"0")
    pair.run(2.0)
    assert [payload for _, payload in pair.arrived] == [b"0"]
    assert pair.ends[1].doubles == 1


def test_dead_link_gives_every_packet_back_once() -> None:
    pair = Pair("on", loses=lambda sender, _n: sender == 0)
    for number in range(3):
        pair.send(b"%d" % number)
    pair.run(60.0)
    assert sorted(pair.lost) == [b"0", b"1", b"2"]
    assert pair.sent[0] == 3 * (1 + REPETITIONS_MAX)
    assert pair.ends[0].deadline_s is None


def test_unacked_is_bounded() -> None:
    end = LinkReliability("on", SplitMix64(1), mtu_bytes=1_500)
    for number in range(2 * UNACKED_MAX):
        end.wrap(LinkPacket(b"%d" % number), now_s=0.0)
    repeat, _ = end.on_timer(now_s=1.0)
    assert len(repeat) == UNACKED_MAX


def test_acks_of_a_burst_come_in_packets_of_bounded_size() -> None:
    pair = Pair("on")
    for number in range(3 * ACKS_MAX):
        pair.send(b"%d" % number)
    pair.run(1.0)
    assert pair.sent == [3 * ACKS_MAX, 3]


def test_forget_stops_repeating() -> None:
    pair = Pair("on", loses=lambda sender, _n: sender == 0)
    pair.send(b"0")
    pair.ends[0].forget()
    pair.run(5.0)
    assert pair.sent == [1, 0]
    assert pair.lost == []


def test_restarted_peer_is_not_taken_for_its_past() -> None:
    old, new, receiver = (LinkReliability("on", SplitMix64(seed), mtu_bytes=1_500) for seed in (1, 3, 2))
    for end in (old, new):
        for _ in range(3):
            (datagram,) = end.wrap(LinkPacket(b"x"), now_s=0.0)
            is_new, _, _ = receiver.received(decode_link_packet(datagram), now_s=0.0)
            assert is_new


@settings(max_examples=300, deadline=None)
@given(lost=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 60)), max_size=40), packets=st.integers(1, 30))
def test_whatever_is_lost_each_packet_arrives_once_or_is_given_back(lost: set[tuple[int, int]], packets: int) -> None:
    pair = Pair("on", loses=lambda sender, n: (sender, n) in lost)
    for number in range(packets):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + 0.004)
    pair.run(pair.now_s + 60.0)
    arrived = [payload for _, payload in pair.arrived]
    assert len(arrived) == len(set(arrived))
    assert set(arrived) | set(pair.lost) == {b"%d" % number for number in range(packets)}


def test_ack_of_an_earlier_transmission_will_do() -> None:
    """The first ack is late, so the packet is repeated; then the ack comes, and nothing is repeated any more."""
    sender = LinkReliability("on", SplitMix64(1), mtu_bytes=1_500)
    receiver = LinkReliability("on", SplitMix64(2), mtu_bytes=1_500)
    (first,) = sender.wrap(LinkPacket(b"x"), now_s=0.0)
    receiver.received(decode_link_packet(first), now_s=0.01)
    assert receiver.on_timer(now_s=0.1) == ([], [])
    ack = receiver.late_ack(3, now_s=0.1)
    assert ack is not None
    deadline_s = sender.deadline_s
    assert deadline_s is not None
    assert len(sender.on_timer(now_s=deadline_s)[0]) == 1
    sender.received(decode_link_packet(ack), now_s=deadline_s + 0.01)
    assert not sender.is_watched
    assert sender.repeated == 1


def after_a_while(*, loss_of_every: int) -> Pair:
    """Return two ends of a link, after one of so many datagrams has been lost in either direction for some time."""
    pair = Pair("on", loses=lambda _sender, n: n % loss_of_every == 1)
    for number in range(3 * WINDOW):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + 0.05)
    pair.loses = lambda _sender, _n: False
    return pair


@pytest.mark.parametrize(
    ("loss_of_every", "size_bytes", "transmissions"),
    [
        pytest.param(20, 100, 2, id="5 %"),
        pytest.param(10, 100, 2, id="10 %"),
        pytest.param(100, 100, 1, id="1 %: too little"),
        pytest.param(10, EARLY_MAX_BYTES + 1, 1, id="too large"),
        pytest.param(10, 2 * EARLY_MAX_BYTES, 2, id="in two fragments, each once"),
    ],
)
def test_on_a_link_that_loses_a_lot_small_packets_are_repeated_early(
    loss_of_every: int, size_bytes: int, transmissions: int
) -> None:
    pair = after_a_while(loss_of_every=loss_of_every)
    before, begun_s = pair.sent[0], pair.now_s
    pair.send(bytes(size_bytes))
    pair.run(begun_s + EARLY_S)
    assert pair.sent[0] - before == transmissions
    pair.run(begun_s + 1.0)
    assert pair.sent[0] - before == transmissions
    assert pair.ends[0].deadline_s is None


@pytest.mark.parametrize(
    ("lost", "is_lossy"),
    [
        pytest.param({5}, True, id="one of the first"),
        pytest.param({25}, False, id="one later"),
        pytest.param({200, 210, 220}, False, id="three of twenty"),
        pytest.param({200, 202, 204}, True, id="three of five"),
        pytest.param({200, 210, 220, 230, 240}, True, id="five of forty"),
        pytest.param({200, 201, 202, 203}, False, id="one burst"),
    ],
)
def test_how_many_losses_make_a_link_lossy(lost: set[int], is_lossy: bool) -> None:  # noqa: FBT001
    """Sent one way, so what counts is which transmissions were acked."""
    pair = Pair("on", loses=lambda sender, n: sender == 0 and n in lost)
    was_lossy = False
    for number in range(300):
        pair.send(b"%d" % number)
        pair.run(pair.now_s + (0.001 if number + 1 in lost and number in lost else 0.05))
        was_lossy |= pair.ends[0].is_lossy
    assert was_lossy is is_lossy


def test_receiver_that_misses_transmissions_takes_its_own_for_endangered_too() -> None:
    pair = Pair("on", loses=lambda sender, n: sender == 1 and n % 10 == 9)
    for number in range(100):
        pair.send(b"%d" % number, end=1)
        pair.run(pair.now_s + 0.05)
    assert pair.ends[0].is_lossy


def test_link_that_loses_nothing_any_more_is_trusted_again() -> None:
    pair = after_a_while(loss_of_every=10)
    for number in range(2 * WINDOW):
        pair.send(b"again %d" % number)
        pair.run(pair.now_s + 0.05)
    before = pair.sent[0]
    pair.send(b"last")
    pair.run(pair.now_s + 1.0)
    assert pair.sent[0] - before == 1


def test_what_was_sent_before_and_repeated_is_remembered_in_bounded_number() -> None:
    end = LinkReliability("on", SplitMix64(1), mtu_bytes=1_500)
    for number in range(3 * UNACKED_MAX):
        end.wrap(LinkPacket(b"%d" % number), now_s=0.01 * number)
        end.on_timer(now_s=0.01 * number)
        assert len(end._superseded) <= UNACKED_MAX
    assert end.repeated > UNACKED_MAX


def test_what_arrives_twice_is_known_as_far_back_as_the_window_goes() -> None:
    """Against a set of all numbers received, which needs no window."""
    chance = random.Random(20261123)
    link, received, highest = LinkReliability("auto", SplitMix64(1), mtu_bytes=1_500), set[int](), 5_000
    for _ in range(20_000):
        highest += chance.choice((0, 0, 1, 1, 1, 2, 5, 900, 1_500) if chance.random() < 0.05 else (0, 1, 1, 2))
        sequence = highest - chance.choice((0, 0, 0, 1, 3, 60, 1_000))
        if max(received, default=sequence) - sequence < SEEN_WINDOW:
            assert link.is_new(sequence) == (sequence not in received)
        else:
            assert link.is_new(sequence), "too old to tell"
        received.add(sequence)


def test_a_peer_that_starts_again_is_not_taken_for_its_past() -> None:
    link = LinkReliability("auto", SplitMix64(1), mtu_bytes=1_500)
    assert all(link.is_new(sequence) for sequence in range(10**12, 10**12 + 50))
    assert all(link.is_new(sequence) for sequence in range(100, 150))
    assert not link.is_new(120)
    assert not link.is_new(149)
