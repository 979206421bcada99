"""Link reliability over a link that loses what it likes: every packet arrives once, or its sender is told."""

from __future__ import annotations

import heapq
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.fragmentation import UDP_HEADERS_BYTES, Reassembler
from proxy.core.link_reliability import CALM_S, PROBATION, SEEN_WINDOW, UNACKED_MAX, LinkReliability, Mode
from proxy.core.seeded import SplitMix64
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data

DELAY_S = 0.01
MTU_BYTES = 1_500
UP = 3


class Link:
    """Two ends and the packets between them; *losses* says of each packet sent in turn whether it gets lost."""

    def __init__(self, mode: Mode, losses: list[bool]) -> None:
        self.now_s = 100.0
        self.ends = [LinkReliability(mode, SplitMix64(seed), mtu_bytes=MTU_BYTES) for seed in (1, 2)]
        self.arrived: list[Counter[bytes]] = [Counter(), Counter()]
        self.lost: list[list[bytes]] = [[], []]
        self.datagrams: list[LinkPacket] = []
        self._reassemblers = [Reassembler(), Reassembler()]
        self.lose(losses)
        self._flying: list[tuple[float, int, int, bytes]] = []

    def lose(self, losses: list[bool]) -> None:
        """From now on, lose what is said."""
        self._losses = losses[::-1]

    def send(self, end: int, fragment: bytes) -> None:
        for datagram in self.ends[end].wrap(LinkPacket(fragment), now_s=self.now_s):
            assert len(datagram) <= MTU_BYTES - UDP_HEADERS_BYTES
            self._put(end, datagram)

    def heartbeat(self, end: int) -> None:
        self._put(end, self.ends[end].idle(UP))

    def _put(self, end: int, datagram: bytes) -> None:
        self.datagrams.append(decode_link_packet(datagram))
        if not (self._losses.pop() if self._losses else False):
            heapq.heappush(self._flying, (self.now_s + DELAY_S, len(self.datagrams), 1 - end, datagram))

    def run(self, duration_s: float) -> None:
        end_s = self.now_s + duration_s
        while True:
            timers = [(at_s, end) for end in (0, 1) if (at_s := self.ends[end].deadline_s) is not None]
            timer_s, timer_end = min(timers, default=(float("inf"), 0))
            arrival_s = self._flying[0][0] if self._flying else float("inf")
            if min(timer_s, arrival_s) > end_s:
                break
            self.now_s = max(self.now_s, min(timer_s, arrival_s))
            if arrival_s <= timer_s:
                _, _, end, datagram = heapq.heappop(self._flying)
                packet = decode_link_packet(datagram)
                is_new, repeat, lost = self.ends[end].received(packet, now_s=self.now_s)
                if packet.fragment and is_new:
                    self._arrive(end, packet)
            else:
                end = timer_end
                repeat, lost = self.ends[end].on_timer(now_s=self.now_s)
                ack = self.ends[end].late_ack(UP, now_s=self.now_s)
                repeat = repeat if ack is None else [*repeat, ack]
            self.lost[end] += [each.fragment for each in lost]
            for datagram in repeat:
                assert len(datagram) <= MTU_BYTES - UDP_HEADERS_BYTES
                self._put(end, datagram)
            assert all(len(each._unacked) <= UNACKED_MAX for each in self.ends)
            assert all(each._seen.bit_length() <= SEEN_WINDOW for each in self.ends)
        self.now_s = end_s

    def _arrive(self, end: int, packet: LinkPacket) -> None:
        whole = packet if packet.frag_count == 1 else self._reassemblers[end].take(packet, now_s=self.now_s)
        if whole is not None:
            self.arrived[end][whole.fragment] += 1


def content(number: int, *, size: int = 0) -> bytes:
    return encode_data(from_uri(f"/a/{number}"), bytes(size))


losses = st.lists(st.sampled_from([False, False, True]), max_size=80)


@settings(max_examples=200)
@given(
    losses=losses,
    packets=st.lists(
        st.tuples(st.sampled_from([0, 1, 5, 20, 100]), st.sampled_from([0, 1_300, 1_400, 8_000])),
        min_size=1,
        max_size=25,
    ),
)
def test_every_packet_arrives_once_or_its_sender_is_told(losses: list[bool], packets: list[tuple[int, int]]) -> None:
    link = Link("on", losses)
    contents = [content(number, size=size) for number, (_, size) in enumerate(packets)]
    for number, (gap_ms, _) in enumerate(packets):
        link.send(number % 2, contents[number])
        link.run(gap_ms / 1e3)
    link.run(30.0)
    for number, sent in enumerate(contents):
        sender, receiver = number % 2, 1 - number % 2
        assert link.arrived[receiver][sent] <= 1
        assert link.lost[sender].count(sent) <= 1
        assert link.arrived[receiver][sent] or sent in link.lost[sender]
    assert all(end.deadline_s is None for end in link.ends)  # nothing is left to be done


@settings(max_examples=100)
@given(losses=st.lists(st.booleans(), max_size=12), count=st.integers(1, 20))
def test_a_loss_now_and_then_is_mended(losses: list[bool], count: int) -> None:
    """At most every second transmission of the first 24 is lost: four repetitions get everything across."""
    spread = [each for lost in losses for each in (lost, False)]
    link = Link("on", spread)
    for number in range(count):
        link.send(0, content(number))
        link.run(0.02)
    link.run(30.0)
    assert link.arrived[1] == Counter(content(number) for number in range(count))


def trusted() -> Link:
    """Return a link that has lost nothing for as long as it takes to believe it."""
    link = Link("auto", [])
    for end in (0, 1):
        link.heartbeat(end)
    link.run(0.1)
    for number in range(2 * PROBATION):
        link.send(number % 2, content(1_000 + number))
        link.run(0.05)
    link.datagrams.clear()
    return link


def test_without_loss_nothing_is_asked_for_and_nothing_repeated() -> None:
    link = trusted()
    for number in range(200):
        link.send(number % 2, content(number))
        if number % 20 == 0:
            link.heartbeat(0)
            link.heartbeat(1)
        link.run(0.01)
    link.run(1.0)
    assert not [packet for packet in link.datagrams if packet.tx_sequence is not None or packet.acks]
    assert sum(end.repeated + end.doubles + end.lost for end in link.ends) == 0


def test_a_gap_switches_it_on_and_calm_switches_it_off() -> None:
    link = trusted()
    link.lose([False, True])
    for number in range(3):
        link.send(0, content(number))  # the second is lost
        link.run(0.02)
    link.heartbeat(1)  # tells of the gap
    link.run(0.1)
    before = len(link.datagrams)
    link.send(0, content(10))
    link.run(0.1)
    sent, ack = link.datagrams[before:]
    assert sent.tx_sequence is not None
    assert ack.acks == (sent.tx_sequence,)
    link.run(CALM_S)
    before = len(link.datagrams)
    link.send(0, content(11))
    link.run(1.0)
    assert [packet.tx_sequence for packet in link.datagrams[before:]] == [None]


def test_loss_of_the_last_packet_shows_in_the_next_heartbeat() -> None:
    link = trusted()
    link.lose([False, True])
    link.send(0, content(0))
    link.run(0.1)
    link.send(0, content(1))  # lost, and nothing follows
    link.run(0.1)
    link.heartbeat(0)
    link.run(0.1)
    link.heartbeat(1)
    assert link.datagrams[-1].gaps_seen == 1


def test_loss_of_one_fragment_repeats_that_one() -> None:
    link = Link("on", [False, False, True])
    whole = content(0, size=8_000)
    link.send(0, whole)
    link.run(5.0)
    assert link.arrived[1] == Counter([whole])
    fragments = [packet.frag_index for packet in link.datagrams if packet.frag_count > 1]
    assert fragments == [0, 1, 2, 3, 4, 5, 2]
    assert link.ends[0].repeated == 1


def test_packet_that_lacks_one_fragment_for_good_is_given_back_whole_and_once() -> None:
    link = Link("on", [])
    whole = content(0, size=8_000)
    (first, *_) = link.ends[0].wrap(LinkPacket(whole), now_s=link.now_s)
    link._losses = [True] * 1_000
    link.run(30.0)
    assert decode_link_packet(first).frag_count == 6
    assert link.lost == [[whole], []]
    assert not link.ends[0].is_watched


def test_what_is_not_to_be_acked_is_sent_once() -> None:
    link = Link("on", [True] * 7)
    for size in (0, 8_000):
        for datagram in link.ends[0].wrap(LinkPacket(content(0, size=size)), now_s=link.now_s, acked=False):
            link._put(0, datagram)
    link.run(30.0)
    assert [packet.tx_sequence for packet in link.datagrams] == [None] * 7
    assert link.lost == [[], []]


def test_switched_off_it_adds_nothing() -> None:
    link = Link("off", [True])
    link.send(0, content(0))
    link.run(10.0)
    assert link.datagrams == [LinkPacket(content(0))]
    assert link.arrived[1] == Counter()


def test_peer_that_has_started_again_is_no_loss() -> None:
    a = LinkReliability("auto", SplitMix64(1), mtu_bytes=MTU_BYTES)
    for seed in (2, 3):
        peer = LinkReliability("auto", SplitMix64(seed), mtu_bytes=MTU_BYTES)
        for number in range(3):
            (datagram,) = peer.wrap(LinkPacket(content(number)), now_s=0.0)
            packet = decode_link_packet(datagram)
            assert a.received(packet, now_s=0.0)[0]
    assert decode_link_packet(a.idle(UP)).gaps_seen is None


def test_what_was_unacked_when_the_session_went_down_is_forgotten() -> None:
    link = Link("on", [True] * 100)
    link.send(0, content(0))
    link.ends[0].forget()
    link.run(10.0)
    assert len(link.datagrams) == 1
    assert link.lost == [[], []]


def test_packets_of_peers_that_know_nothing_of_it_are_always_new() -> None:
    a = LinkReliability("on", SplitMix64(1), mtu_bytes=MTU_BYTES)
    bare = decode_link_packet(content(0))
    assert a.received(bare, now_s=0.0) == (True, [], [])
    assert a.received(bare, now_s=0.0) == (True, [], [])
    assert decode_link_packet(encode_link_packet(LinkPacket(content(0)))).sequence is None


def test_unacked_packets_are_bounded() -> None:
    a = LinkReliability("on", SplitMix64(1), mtu_bytes=MTU_BYTES)
    for number in range(UNACKED_MAX + 10):
        a.wrap(LinkPacket(content(number)), now_s=0.0)
    assert len(a._unacked) == UNACKED_MAX
    assert a.lost == 10
