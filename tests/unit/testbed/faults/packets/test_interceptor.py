from typing import Any

import pytest

from proxy.wire.lp import encode_sequenced
from proxy.wire.message_names import PUSH, SYNC, message_name, node_prefix
from proxy.wire.tlv import tlv
from testbed.capture.layers import NdnPacket
from testbed.faults.packets.frames import LaneEnds, datagram_in
from testbed.faults.packets.interceptor import ActiveRules, Copy, FrameInterceptor, Interceptor
from testbed.faults.packets.rules import MessageHit, MessageRule
from topologies.errors import InputError

ENDS = LaneEnds("a-b", "a", "b", "02:0a:00:00:00:00", "02:0a:00:00:01:00", "10.0.0.0", "10.0.0.1")
BACK = LaneEnds("a-b", "b", "a", "02:0a:00:00:01:00", "02:0a:00:00:00:00", "10.0.0.1", "10.0.0.0")


def packet(seq: int, kind: bytes = SYNC, *, wire_seq: int = 0) -> bytes:
    name = message_name(node_prefix("csr1"), kind, "main", boot=1, seq=seq)
    return encode_sequenced(wire_seq, tlv(6, tlv(7, name) + tlv(0x15, b"content")))


class Lane:
    """One direction of a link with rules on it."""

    def __init__(self, *rules: MessageRule, ends: LaneEnds = ENDS) -> None:
        self.hits: list[MessageHit] = []
        self.interceptor = Interceptor(ends, self.hits.append)
        self.rules = ActiveRules()
        for rule in rules:
            self.rules.add(rule, [self.interceptor])

    def send(self, datagram: bytes, now_s: float = 1.0) -> list[Copy] | None:
        return self.interceptor.intercept(datagram, now_s)


def rule(action: Any, **fields: Any) -> MessageRule:
    return MessageRule(**{"fault_id": "f1", "action": action, "seed": 7, **fields})


def test_the_next_three_are_dropped_and_no_more() -> None:
    lane = Lane(rule("drop", messages=("sync-update",), count=3))
    fate = [lane.send(packet(seq, kind), float(seq)) for seq in range(6) for kind in (PUSH, SYNC)]
    assert fate == [None, []] * 3 + [None, None] * 3
    report = lane.rules.report("f1")
    assert (report.lanes, report.matched, report.hit, report.exhausted_s) == (1, 3, 3, 2.0)
    assert [(hit.name, hit.attempt) for hit in lane.hits] == [
        (f"/hconf/csr1/32=sync/main/v=1/seq={seq}", 0) for seq in range(3)
    ]


def test_a_name_pattern_is_one_of_the_uri() -> None:
    lane = Lane(rule("drop", name="/hconf/*/32=sync/main/v=1/seq=1?"))
    assert [lane.send(packet(seq)) for seq in (1, 10, 19, 100)] == [None, [], [], None]


def test_what_is_hit_does_not_depend_on_order_nor_on_what_else_comes() -> None:
    fields: dict[str, Any] = {"ratio": 0.4}
    first, second = Lane(rule("drop", **fields)), Lane(rule("drop", **fields))
    sent = [(seq, attempt) for attempt in range(3) for seq in range(100)]
    for seq, attempt in sent:
        first.send(packet(seq, wire_seq=attempt))
    for seq in reversed(range(50)):
        for _ in range(3):
            second.send(packet(seq, PUSH))
            second.send(packet(seq, wire_seq=77))
    hit = {(each.name, each.attempt) for each in first.hits}
    assert 80 < len(hit) < 160
    of_both = {(name, attempt) for name, attempt in hit if int(name.rpartition("=")[2]) < 50}
    assert of_both == {(each.name, each.attempt) for each in second.hits if each.message == "sync-update"}


@pytest.mark.parametrize("other", [{"seed": 8}, {"fault_id": "f2"}, {"ends": BACK}])
def test_seed_fault_and_direction_each_decide_for_themselves(other: dict[str, Any]) -> None:
    ends = other.pop("ends", ENDS)
    lanes = Lane(rule("drop", ratio=0.5)), Lane(rule("drop", **{"ratio": 0.5, **other}), ends=ends)
    fates = [[lane.send(packet(seq)) for seq in range(100)] for lane in lanes]
    assert fates[0] != fates[1]


def test_delay_duplicate_and_replay() -> None:
    datagram = packet(1)
    assert Lane(rule("delay", delay_ms=30.0)).send(datagram) == [Copy(datagram, 30.0)]
    assert Lane(rule("duplicate", times=2)).send(datagram) == [Copy(datagram)] * 3
    replayed = Lane(rule("replay", delay_ms=100.0, times=2, every_ms=50.0)).send(datagram)
    assert replayed == [Copy(datagram), Copy(datagram, 100.0), Copy(datagram, 150.0)]


@pytest.mark.parametrize("bits", [1, 3, 64])
def test_corruption_flips_that_many_bits_the_same_ones_again(bits: int) -> None:
    datagram = packet(1)
    corrupted = [Lane(rule("corrupt", bits=bits, checksum_right=False)).send(datagram) for _ in range(2)]
    assert corrupted[0] == corrupted[1]
    assert corrupted[0] is not None
    (copy,) = corrupted[0]
    assert not copy.checksum_right
    flipped = int.from_bytes(datagram, "big") ^ int.from_bytes(copy.datagram, "big")
    assert flipped.bit_count() == bits
    assert len(copy.datagram) == len(datagram)


def test_rules_follow_each_other_and_end_in_any_order() -> None:
    rules = rule("duplicate", times=1), rule("delay", delay_ms=5.0, fault_id="f2"), rule("drop", count=1, fault_id="f3")
    lane = Lane(*rules)
    datagram = packet(1)
    assert lane.send(datagram) == [Copy(datagram, 5.0)]  # of two delayed ones, the first was dropped
    assert lane.rules.remove("f2")[0].hit == 2
    assert lane.send(datagram) == [Copy(datagram)] * 2
    lane.rules.remove("f1")
    assert lane.send(datagram) is None
    lane.rules.remove("f3")
    assert lane.interceptor.rules == []
    with pytest.raises(KeyError):
        lane.rules.remove("f3")


def test_a_count_is_one_for_all_links() -> None:
    hits: list[MessageHit] = []
    interceptors = [Interceptor(ends, hits.append) for ends in (ENDS, BACK)]
    rules = ActiveRules()
    assert rules.add(rule("drop", count=3), interceptors).lanes == 2
    for seq in range(3):
        for each in interceptors:
            each.intercept(packet(seq), 0.0)
    assert [hit.sender for hit in hits] == ["a", "b", "a"]
    with pytest.raises(ValueError, match="active already"):
        rules.add(rule("drop"), interceptors)


def test_a_predicate_sees_the_packet_and_one_that_raises_lets_it_pass() -> None:
    lane = Lane(rule("drop", predicate='packet["SequenceNumNameComponent"].value % 2 == 1 and sender == "a"'))
    assert [lane.send(packet(seq)) for seq in (1, 2, 3)] == [[], None, []]
    broken = Lane(rule("drop", predicate='packet["FpUpdate"].seq == 1'))
    assert broken.send(packet(1)) is None
    report = broken.rules.report("f1")
    assert (report.matched, report.hit, report.errors) == (0, 0, 1)
    assert "IndexError" in report.last_error


def test_what_is_forged_has_right_lengths_and_what_fails_passes() -> None:
    lane = Lane(rule("forge", edit='packet["Content"].value = Raw(load=b"longer than before")', keep_original=True))
    datagram = packet(1)
    copies = lane.send(datagram)
    assert copies is not None
    original, forged = (copy.datagram for copy in copies)
    assert original == datagram
    assert (len(forged), forged[1]) == (len(datagram) + 11, datagram[1] + 11)  # the outermost length follows
    assert NdnPacket(forged)["Raw"].load == b"longer than before"
    broken = Lane(rule("forge", edit='packet["Nonce"].value = 1'))
    assert broken.send(datagram) is None
    report = broken.rules.report("f1")
    assert (report.matched, report.hit, report.errors) == (1, 0, 1)


def test_code_that_does_not_parse_is_refused() -> None:
    with pytest.raises(InputError, match=r"predicate: `packet\[` is no Python"):
        Lane(rule("drop", predicate="packet["))


def test_frames_are_put_together_again() -> None:
    hits: list[MessageHit] = []
    intercept = FrameInterceptor(ENDS, hits.append)
    rules = ActiveRules()
    rules.add(rule("replay", delay_ms=2.0), [intercept.interceptor])
    frame = ENDS.frame(packet(1))
    assert intercept(frame, 5_000_000_000) == [(frame, 0), (frame, 2_000_000)]
    assert hits[0].t_s == 5.0
    assert intercept(bytes(60), 0) is None  # no forwarder's
    rules.remove("f1")
    rules.add(rule("corrupt"), [intercept.interceptor])
    ((corrupted, _),) = intercept(frame, 0) or []
    assert datagram_in(corrupted) != packet(1)
    assert corrupted[:14] == frame[:14]
