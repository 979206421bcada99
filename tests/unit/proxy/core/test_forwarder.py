"""The forwarder's pipelines one by one, named as in the NFD developer guide, section 4."""

from __future__ import annotations

import hashlib

import pytest

from proxy.core.strategy import NACK_HOLD_S
from proxy.core.table.fib import Fib, NextHop
from proxy.core.table.pit import EXPIRY_GRAIN_S
from proxy.wire.lp import NackReason, decode_link_packet
from proxy.wire.name import from_uri, to_uri
from proxy.wire.packet import decode_data, encode_data
from proxy.wire.tlv import tlv
from tests.unit.proxy.core.bench import Bench, interest_wire

#: Faces 1, 2, 3 lead to the producer, best first; who asks sits on face 4 or 0.
PRODUCER = {"/p": [(1, 10.0), (2, 20.0), (3, 30.0)]}


# ---------------------------------------------------------------------- FIB


@pytest.mark.parametrize(
    ("uri", "face"),
    [
        ("/hconf/csr1/a", 1),
        ("/hconf/csr1", 1),
        ("/hconf/csr2", 2),
        ("/hconf", 3),
        ("/hconf/csr11", 3),
        ("/hconf/csr1/b/c", 4),
    ],
)
def test_longest_prefix_match(uri: str, face: int) -> None:
    bench = Bench(
        {"/hconf/csr1": [(1, 1.0)], "/hconf/csr2": [(2, 1.0)], "/hconf": [(3, 1.0)], "/hconf/csr1/b": [(4, 1.0)]}
    )
    assert bench.interest(0, uri, 1) == [(face, "interest", uri)]


def test_next_hops_are_ranked_by_cost_then_face() -> None:
    fib = Fib()
    fib.insert(from_uri("/a"), [NextHop(3, 5.0), NextHop(1, 9.0), NextHop(2, 5.0)])
    assert [hop.face_id for hop in fib.lookup(from_uri("/a/b"))[0]] == [2, 3, 1]


def test_no_route() -> None:
    bench = Bench(PRODUCER)
    assert bench.interest(4, "/elsewhere", 1) == [(4, "nack-NO_ROUTE", "/elsewhere")]
    assert bench.counters["pit_entries"] == 0


def test_route_only_back_to_who_asks() -> None:
    bench = Bench({"/p": [(4, 1.0)]})
    assert bench.interest(4, "/p/1", 1) == [(4, "nack-NO_ROUTE", "/p/1")]


# ---------------------------------------------------------------------- incoming Interest: aggregation


def test_second_asker_is_aggregated_and_both_are_answered() -> None:
    bench = Bench(PRODUCER)
    assert bench.interest(4, "/p/1", 1) == [(1, "interest", "/p/1")]
    assert bench.interest(0, "/p/1", 2) == []
    assert bench.counters["aggregated"] == 1
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1"), (0, "data", "/p/1")]
    assert bench.counters["pit_entries"] == 0


def test_interests_with_other_selectors_are_not_aggregated() -> None:
    bench = Bench(PRODUCER)
    assert len(bench.interest(4, "/p/1", 1)) == 1
    assert len(bench.interest(4, "/p/1", 2, must_be_fresh=True)) == 1
    assert len(bench.interest(4, "/p/1", 3, can_be_prefix=True)) == 1
    assert bench.counters["pit_entries"] == 3
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]  # one copy satisfies them all
    assert bench.counters["pit_entries"] == 0


def test_prefix_interest_is_answered_by_a_longer_name() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p", 1, can_be_prefix=True)
    bench.interest(0, "/p", 2)
    assert bench.data(1, "/p/1/2") == [(4, "data", "/p/1/2")]
    assert bench.counters["pit_entries"] == 1


def test_packets_are_forwarded_as_the_bytes_that_came() -> None:
    bench = Bench(PRODUCER)
    wire = interest_wire("/p/1", 77, lifetime_ms=1_234)
    bench.packet(4, wire)
    assert bench.sent_fragments()[-1] == (1, wire)
    answer = encode_data(from_uri("/p/1"), b"content", freshness_ms=5)
    bench.packet(1, answer)
    assert bench.sent_fragments()[-1] == (4, answer)


def test_impatient_asker_is_suppressed_then_tried_another_way() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.now_s += 0.005
    assert bench.interest(4, "/p/1", 2) == []  # sooner than any answer
    bench.now_s += 0.1
    assert bench.interest(4, "/p/1", 3) == [(2, "detour", "/p/1")]
    bench.now_s += 0.1
    assert bench.interest(4, "/p/1", 4) == [(3, "detour", "/p/1")]
    bench.now_s += 0.1
    assert bench.interest(4, "/p/1", 5) == [(1, "interest", "/p/1")]  # all asked: the one asked longest ago
    assert bench.data(2, "/p/1") == [(4, "data", "/p/1")]
    assert bench.data(1, "/p/1") == []


# ---------------------------------------------------------------------- Interests that are kept pending


def test_interest_pending_upstream_is_renewed_before_it_expires_there() -> None:
    """A consumer repeats an outstanding Interest after half its lifetime; the copy upstream must not lapse meanwhile."""
    bench = Bench(PRODUCER)
    for number in range(6):
        assert bench.interest(4, "/p/1", 10 + number, lifetime_ms=4_000) == [(1, "interest", "/p/1")]
        bench.live(2.1)
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]


def test_second_asker_renews_what_expires_upstream_long_before_it_does() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1, lifetime_ms=4_000)
    bench.live(1.0)
    assert bench.interest(0, "/p/1", 2, lifetime_ms=4_000) == []
    bench.live(1.0)
    assert bench.interest(0, "/p/1", 3, lifetime_ms=4_000) == [(1, "interest", "/p/1")]


def test_renewal_returns_to_the_best_way() -> None:
    bench = Bench(PRODUCER, up=[2, 3, 4])
    assert bench.interest(4, "/p/1", 1) == [(2, "detour", "/p/1")]
    bench.bring_up(1)
    bench.live(2.1)
    assert bench.interest(4, "/p/1", 2) == [(1, "interest", "/p/1")]


def test_interest_finalize() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1, lifetime_ms=500)
    bench.live(0.49)
    assert bench.counters["pit_entries"] == 1
    bench.live(0.02 + EXPIRY_GRAIN_S)
    assert bench.counters["pit_entries"] == 0
    assert bench.counters["unsatisfied"] == 1
    assert bench.data(1, "/p/1") == []


def test_expired_asker_gets_nothing_though_the_entry_lives_on() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1, lifetime_ms=500)
    bench.interest(0, "/p/1", 2, lifetime_ms=4_000)
    bench.live(1.0)
    assert bench.data(1, "/p/1") == [(0, "data", "/p/1")]


def test_no_interest_stays_pending_for_ever() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1, lifetime_ms=2**32 - 1)
    bench.live(59.0)
    assert bench.counters["pit_entries"] == 1
    bench.live(2.0)
    assert bench.counters["pit_entries"] == 0


# ---------------------------------------------------------------------- content store hit and miss


def test_content_store_hit() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.data(1, "/p/1", freshness_ms=10_000)
    assert bench.interest(3, "/p/1", 2) == [(3, "data", "/p/1")]
    assert bench.counters["cs_hits"] == 1
    assert bench.counters["pit_entries"] == 0


def test_data_without_a_freshness_period_is_not_kept() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.data(1, "/p/1")
    assert bench.interest(3, "/p/1", 2) == [(1, "interest", "/p/1")]


def test_stale_data_satisfies_only_who_does_not_mind() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.data(1, "/p/1", freshness_ms=1_000)
    bench.live(0.9)
    assert bench.interest(3, "/p/1", 2, must_be_fresh=True) == [(3, "data", "/p/1")]
    bench.live(0.2)
    assert bench.interest(3, "/p/1", 3) == [(3, "data", "/p/1")]
    assert bench.interest(3, "/p/1", 4, must_be_fresh=True) == [(1, "interest", "/p/1")]


@pytest.mark.parametrize("prefix", ["/p", "/p/1", "/p/1/2"])
def test_content_store_answers_a_prefix(prefix: str) -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1/2", 1)
    bench.data(1, "/p/1/2", freshness_ms=1_000)
    assert bench.interest(3, prefix, 2, can_be_prefix=True) == [(3, "data", "/p/1/2")]
    assert bench.interest(3, "/p/1/1", 3, can_be_prefix=True) == [(1, "interest", "/p/1/1")]
    bench.live(1.5)
    assert bench.interest(3, prefix, 4, can_be_prefix=True) == [(3, "data", "/p/1/2")]
    assert bench.interest(3, prefix, 5, can_be_prefix=True, must_be_fresh=True) == [(1, "interest", prefix)]


# ---------------------------------------------------------------------- implicit digests


def digest_uri(wire: bytes) -> str:
    return f"{to_uri(decode_data(wire).name)}/sha256digest={hashlib.sha256(wire).hexdigest()}"


def test_digest_picks_the_one_data_among_those_of_the_same_name() -> None:
    bench = Bench(PRODUCER)
    wanted, other = (encode_data(from_uri("/p/1"), content, freshness_ms=1_000) for content in (b"wanted", b"other"))
    uri = digest_uri(wanted)
    assert bench.interest(4, uri, 1) == [(1, "interest", uri)]
    assert bench.packet(1, other) == []
    assert bench.counters["unsolicited"] == 1
    assert bench.packet(1, wanted) == [(4, "data", "/p/1")]
    assert bench.interest(3, uri, 2) == [(3, "data", "/p/1")]  # from the content store
    assert bench.interest(3, digest_uri(other), 3) == [(1, "interest", digest_uri(other))]


def test_one_data_satisfies_those_who_asked_by_name_by_prefix_and_by_digest() -> None:
    bench = Bench(PRODUCER)
    wire = encode_data(from_uri("/p/1"), b"")
    bench.interest(2, digest_uri(wire), 1)
    bench.interest(3, "/p", 2, can_be_prefix=True)
    bench.interest(4, "/p/1", 3)
    bench.interest(0, digest_uri(wire), 4, can_be_prefix=True, must_be_fresh=True)
    assert sorted(bench.packet(1, wire)) == [(face, "data", "/p/1") for face in (0, 2, 3, 4)]
    assert bench.counters["pit_entries"] == 0


def test_digests_are_computed_only_while_somebody_waits_for_one() -> None:
    bench = Bench(PRODUCER)
    wire = encode_data(from_uri("/p/1"), b"")
    bench.interest(4, digest_uri(wire), 1)
    assert bench.forwarder.pit._digest_entries == 1
    bench.packet(1, wire)
    assert bench.forwarder.pit._digest_entries == 0
    bench.interest(4, "/p/" + "%01%20" + 32 * "a", 2)  # a generic component that looks like one
    assert bench.forwarder.pit._digest_entries == 0


# ---------------------------------------------------------------------- Interest loop


def test_same_nonce_from_another_face_is_a_loop() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.interest(3, "/p/1", 1) == [(3, "nack-DUPLICATE", "/p/1")]
    assert bench.counters["loops"] == 1
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]


def test_own_question_coming_back_is_a_loop() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.interest(1, "/p/1", 1) == [(1, "nack-DUPLICATE", "/p/1")]


def test_same_nonce_from_the_same_face_is_only_a_repetition() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.interest(4, "/p/1", 1) == []
    assert bench.counters.get("loops", 0) == 0


@pytest.mark.parametrize("end", ["satisfied", "expired", "refused"])
def test_late_copy_is_a_loop_after_its_entry_is_gone(end: str) -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    bench.interest(4, "/p/1", 1, lifetime_ms=200)
    if end == "satisfied":
        bench.data(1, "/p/1")
    elif end == "expired":
        bench.live(0.21 + EXPIRY_GRAIN_S)
    else:
        bench.nack(1, NackReason.NO_ROUTE)
    assert bench.counters["pit_entries"] == 0
    assert bench.interest(3, "/p/1", 1) == [(3, "nack-DUPLICATE", "/p/1")]
    assert bench.interest(3, "/p/1", 2) == [(1, "interest", "/p/1")]


# ---------------------------------------------------------------------- incoming Nack


def test_nack_moves_to_the_next_hop_and_then_to_who_asked() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.nack(1, NackReason.NO_ROUTE) == [(2, "detour", "/p/1")]
    assert bench.nack(2, NackReason.DUPLICATE) == [(3, "detour", "/p/1")]
    assert bench.nack(3, NackReason.CONGESTION) == [(4, "nack-CONGESTION", "/p/1")]
    assert bench.counters["pit_entries"] == 0


def test_nack_to_who_asked_carries_the_nonce_that_was_asked_with() -> None:
    bench = Bench({"/p": [(1, 1.0), (2, 2.0)]})
    wire = interest_wire("/p/1", 4711)
    bench.packet(4, wire)
    bench.nack(1, NackReason.NO_ROUTE)
    assert (
        bench.last_interest(2) != wire
    )  # another way, another nonce: routers that saw the first do not call it a loop
    bench.nack(2, NackReason.NO_ROUTE)
    assert bench.sent_fragments()[-1] == (4, wire)


def test_all_askers_learn_that_there_is_no_way() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    bench.interest(4, "/p/1", 1)
    bench.interest(0, "/p/1", 2)
    assert bench.nack(1, NackReason.NO_ROUTE) == [(4, "nack-NO_ROUTE", "/p/1"), (0, "nack-NO_ROUTE", "/p/1")]


@pytest.mark.parametrize(
    "nack",
    [
        pytest.param((1, interest_wire("/p/1", 99)), id="of a nonce that we did not send"),
        pytest.param((2, interest_wire("/p/1", 1)), id="from a face that we did not ask"),
        pytest.param((1, interest_wire("/p/2", 1)), id="of a name that we did not ask for"),
    ],
)
def test_nack_of_something_else_is_ignored(nack: tuple[int, bytes]) -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    assert bench.nack(nack[0], NackReason.NO_ROUTE, of=nack[1]) == []
    assert bench.counters["nacks_unmatched"] == 1
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]


def test_nack_with_an_unknown_reason_counts_as_one_without() -> None:
    bench = Bench({"/p": [(1, 1.0)]})
    wire = interest_wire("/p/1", 1)
    bench.packet(4, wire)
    unknown = tlv(0x64, tlv(0x0320, tlv(0x0321, b"\xc8")) + tlv(0x50, wire))
    assert bench.packet(1, unknown) == [(4, "nack-NONE", "/p/1")]


def test_one_nack_of_two_pending_is_no_reason_to_move() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.now_s += 0.1
    bench.interest(4, "/p/1", 2)  # asks face 2 as well
    assert bench.nack(2, NackReason.NO_ROUTE) == []
    assert bench.nack(1, NackReason.NO_ROUTE) == [(3, "detour", "/p/1")]


def test_a_copy_that_comes_round_is_known_though_its_sender_has_asked_anew() -> None:
    """Two copies in one circle would else take each other's place in the records, and go round at the speed of the links."""
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.live(0.05)
    bench.interest(4, "/p/1", 2)
    assert bench.interest(3, "/p/1", 1) == [(3, "nack-DUPLICATE", "/p/1")]
    assert bench.interest(3, "/p/1", 2) == [(3, "nack-DUPLICATE", "/p/1")]
    assert bench.counters["loops"] == 2


def test_an_interest_under_its_old_nonce_is_not_passed_on_again() -> None:
    bench = Bench(PRODUCER)
    assert bench.interest(4, "/p/1", 1) == [(1, "interest", "/p/1")]
    bench.live(0.05)
    assert bench.interest(4, "/p/1", 1) == []
    assert bench.counters["repeated_nonces"] == 1
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]


def test_refused_next_hop_is_asked_again_after_a_while() -> None:
    """However long the Interest is kept pending: the way may be there again."""
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1, lifetime_ms=4_000)
    bench.nack(1, NackReason.NO_ROUTE)
    bench.live(NACK_HOLD_S / 2)
    assert all(face != 1 for face, *_ in bench.interest(4, "/p/1", 2, lifetime_ms=4_000))
    bench.live(NACK_HOLD_S / 2 + 0.001)
    assert bench.interest(4, "/p/1", 3, lifetime_ms=4_000)[0][0] == 1
    assert bench.counters["pit_entries"] == 1


# ---------------------------------------------------------------------- link reliability


def test_packets_under_unreliable_prefixes_ask_for_no_acks() -> None:
    bench = Bench({"/p": [(1, 1.0)]}, link_reliability="on", unreliable_prefixes=("/p/media", "/p/other"))
    for nonce, (uri, acked) in enumerate(
        [("/p/media/1", False), ("/p/media", False), ("/p/medial", True), ("/p/1", True)]
    ):
        bench.sent_packets.clear()
        bench.interest(4, uri, nonce)
        bench.data(1, uri)
        sent = [decode_link_packet(packet) for _, packet in bench.sent_packets]
        assert [(packet.tx_sequence is not None, packet.sequence is not None) for packet in sent] == 2 * [(acked, True)]


# ---------------------------------------------------------------------- hop limit


@pytest.mark.parametrize(("face", "given", "passed_on"), [(4, 255, 254), (4, 2, 1), (0, 255, 255), (0, 2, 2)])
def test_hop_limit_is_counted_down_on_arrival_from_other_nodes(face: int, given: int, passed_on: int) -> None:
    bench = Bench(PRODUCER)
    bench.interest(face, "/p/1", 1, hop_limit=given)
    assert bench.last_interest(1) == interest_wire("/p/1", 1, hop_limit=passed_on)


@pytest.mark.parametrize("face", [0, 4])
def test_hop_limit_of_none_is_dropped(face: int) -> None:
    bench = Bench(PRODUCER)
    assert bench.interest(face, "/p/1", 1, hop_limit=0) == []
    assert bench.counters["hop_limit"] == 1


def test_last_hop_reaches_the_local_application() -> None:
    bench = Bench({"/p": [(0, 0.0)]})
    assert bench.interest(4, "/p/1", 1, hop_limit=1) == [(0, "interest", "/p/1")]


def test_last_hop_goes_no_further() -> None:
    bench = Bench(PRODUCER)
    assert bench.interest(4, "/p/1", 1, hop_limit=1) == [(4, "nack-NO_ROUTE", "/p/1")]
    assert bench.counters["pit_entries"] == 0
    bench = Bench({"/all": [(0, 0.0), (1, 1.0), (2, 1.0)]})
    assert bench.interest(4, "/all/1", 1, hop_limit=1) == [(0, "interest", "/all/1")]


# ---------------------------------------------------------------------- incoming Data


def test_unsolicited_data_is_dropped_and_not_kept() -> None:
    bench = Bench(PRODUCER)
    assert bench.data(1, "/p/1", freshness_ms=1_000) == []
    assert bench.counters["unsolicited"] == 1
    assert bench.counters["cs_entries"] == 0


def test_data_does_not_go_back_to_where_it_came_from() -> None:
    bench = Bench(PRODUCER)
    bench.interest(4, "/p/1", 1)
    bench.interest(1, "/p/1", 2)
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]


def test_data_for_a_dead_face_is_counted() -> None:
    bench = Bench(PRODUCER, up=[1, 2, 3])
    bench.interest(4, "/p/1", 1)  # heard, though its session is not up
    assert bench.data(1, "/p/1") == []
    assert bench.counters["data_to_dead_face"] == 1


# ---------------------------------------------------------------------- bounds


def test_full_pit_refuses_new_interests_and_serves_pending_ones() -> None:
    bench = Bench(PRODUCER, pit_max_entries=3)
    for number in range(3):
        bench.interest(4, f"/p/{number}", number)
    assert bench.interest(4, "/p/3", 3) == [(4, "nack-CONGESTION", "/p/3")]
    assert bench.interest(0, "/p/1", 4) == []
    assert bench.counters["pit_full"] == 1
    assert bench.counters["pit_entries"] == bench.counters["pit_peak"] == 3
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1"), (0, "data", "/p/1")]
    assert bench.interest(4, "/p/3", 5) == [(1, "interest", "/p/3")]


def test_face_fills_no_more_than_its_share_of_the_pit() -> None:
    bench = Bench(PRODUCER, pit_max_entries=10, pit_share_ratio=0.2)
    for number in range(2):
        assert bench.interest(4, f"/p/{number}", number) == [(1, "interest", f"/p/{number}")]
    assert bench.interest(4, "/p/2", 2) == [(4, "nack-CONGESTION", "/p/2")]
    assert bench.counters["refused_pit_share"] == 1
    assert bench.interest(3, "/p/2", 3) == [(1, "interest", "/p/2")]  # another face finds room
    bench.data(1, "/p/0")
    assert bench.interest(4, "/p/3", 4) == [(1, "interest", "/p/3")]
