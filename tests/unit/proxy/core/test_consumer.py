"""The asking side: timeouts of RFC 6298, Karn, refresh of what is armed, giving up, backing off from Nacks."""

from __future__ import annotations

import pytest

from proxy.core.consumer import (
    REFRESH_RATIO,
    RTO_INITIAL_S,
    RTO_MAX_S,
    RTO_MIN_S,
    Consumer,
    GivenUp,
    RoundTripEstimator,
)
from proxy.core.events import LOCAL_FACE, Effect, Send
from proxy.core.seeded import SplitMix64
from proxy.wire.name import from_uri
from proxy.wire.packet import Interest, decode_data, decode_interest, encode_data
from proxy.wire.tlv import PACKET_MAX_BYTES

NAME = from_uri("/hconf/csr1/32=sync/main/v=1/seq=1")
PEER = "csr1"


def consumer() -> Consumer[str]:
    return Consumer(SplitMix64(1))


def interests(effects: list[Effect]) -> list[Interest]:
    sent = []
    for effect in effects:
        assert isinstance(effect, Send)
        assert effect.face_id == LOCAL_FACE
        sent.append(decode_interest(effect.packet))
    return sent


def fire(asking: Consumer[str], until_s: float) -> tuple[list[float], list[GivenUp[str]]]:
    """Let time pass; return when Interests were sent, and what was given up."""
    sent_s, given_up = [], []
    while (at_s := asking.next_s) is not None and at_s <= until_s:
        effects, gone = asking.on_timer(at_s)
        sent_s += [at_s for _ in effects]
        given_up += gone
    return sent_s, given_up


# ---------------------------------------------------------------------- RFC 6298


def test_before_any_sample() -> None:
    assert RoundTripEstimator().rto_s == RTO_INITIAL_S  # (2.1)


def test_first_sample() -> None:
    estimator = RoundTripEstimator()
    estimator.sample(0.1)
    assert estimator.srtt_s == 0.1
    assert estimator.rto_s == pytest.approx(0.1 + 4 * 0.05)  # (2.2) RTTVAR = R/2, K = 4


def test_second_sample() -> None:
    estimator = RoundTripEstimator()
    estimator.sample(0.1)
    estimator.sample(0.2)
    # (2.3) RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R'|, then SRTT = 7/8 SRTT + 1/8 R'
    assert estimator.srtt_s == pytest.approx(0.1 * 7 / 8 + 0.2 / 8)
    assert estimator.rto_s == pytest.approx(0.1125 + 4 * (0.05 * 3 / 4 + 0.1 / 4))


def test_timeout_never_closes_in_on_a_steady_round_trip() -> None:
    estimator = RoundTripEstimator()
    for _ in range(1_000):
        estimator.sample(0.05)
    assert estimator.rto_s == pytest.approx(0.05 + RTO_MIN_S)


def test_timeout_has_a_maximum() -> None:
    estimator = RoundTripEstimator()
    estimator.sample(30.0)
    assert estimator.rto_s == RTO_MAX_S


# ---------------------------------------------------------------------- asking


def test_interest_is_repeated_with_doubling_pauses_and_new_nonces() -> None:
    asking = consumer()
    (first,) = interests(asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=1.0))
    assert (first.name, first.lifetime_ms) == (NAME, 1_000)
    sent_s, _ = fire(asking, 3.0)
    assert sent_s == pytest.approx([0.25, 0.75, 1.75, 2.75])  # 0.25, 0.5, then RTO_MAX_S
    nonces = {first.nonce} | {interests(asking.on_timer(at_s)[0])[0].nonce for at_s in (4.0, 6.0)}
    assert len(nonces) == 3


def test_parameters_are_part_of_the_name() -> None:
    asking = consumer()
    (interest,) = interests(asking.express("a", NAME, now_s=0.0, peer=PEER, parameters=b"hello"))
    assert interest.parameters == b"hello"
    assert interest.name != NAME
    assert asking.on_data(decode_data(encode_data(NAME, b"")), now_s=0.1) is None
    pending = asking.on_data(decode_data(encode_data(interest.name, b"")), now_s=0.1)
    assert pending is not None
    assert pending.key == "a"
    assert "a" not in asking
    assert asking.next_s is None


def test_giving_up() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, attempts_max=3)
    sent_s, given_up = fire(asking, 100.0)
    assert len(sent_s) == 2  # beside the first
    assert given_up == [GivenUp("a", "no answer")]
    assert len(asking) == 0


def test_answer_gives_the_round_trip_of_its_peer() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=10.0, peer=PEER)
    asking.on_data(decode_data(encode_data(NAME, b"")), now_s=10.1)
    assert asking.estimator(PEER).srtt_s == pytest.approx(0.1)
    assert asking.estimator("csr2").srtt_s is None


def test_repeated_interest_gives_no_sample() -> None:
    """Karn: its answer may be to any of the copies."""
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER)
    asking.on_timer(0.3)
    asking.on_data(decode_data(encode_data(NAME, b"")), now_s=0.31)
    assert asking.estimator(PEER).srtt_s is None


def test_expedited_interest_gives_no_sample() -> None:
    """It was sent when it was armed, too."""
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    asking.expedite("a", attempts_max=4, now_s=1.0)
    asking.on_data(decode_data(encode_data(NAME, b"")), now_s=1.001)
    assert asking.estimator(PEER).srtt_s is None


def test_asking_again_under_the_same_key_replaces() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER)
    other = from_uri("/hconf/csr1/32=sync/main/v=1/seq=2")
    asking.express("a", other, now_s=0.1, peer=PEER)
    assert len(asking) == 1
    assert asking.on_data(decode_data(encode_data(NAME, b"")), now_s=0.2) is None
    assert asking.on_data(decode_data(encode_data(other, b"")), now_s=0.2) is not None


def test_cancelling() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER)
    asking.cancel("a")
    asking.cancel("b")
    assert asking.next_s is None
    assert asking.get("a") is None
    assert asking.on_data(decode_data(encode_data(NAME, b"")), now_s=0.1) is None


def test_question_too_large_for_a_packet_is_our_own_mistake_and_leaves_nothing_behind() -> None:
    asking = consumer()
    with pytest.raises(ValueError, match="limit"):
        asking.express("a", NAME, now_s=0.0, peer=PEER, parameters=bytes(PACKET_MAX_BYTES))
    assert "a" not in asking
    assert fire(asking, 10.0) == ([], [])


# ---------------------------------------------------------------------- armed


def test_armed_interest_is_refreshed_before_it_expires_for_ever() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    asking.express("b", NAME + b"\x08\x01x", now_s=0.0, peer=PEER, attempts_max=1)
    assert asking.armed_keys() == ["a"]
    asking.cancel("b")
    sent_s, given_up = fire(asking, 100.0)
    assert given_up == []
    gaps_s = [later - earlier for earlier, later in zip([0.0, *sent_s], sent_s, strict=False)]
    assert max(gaps_s) <= REFRESH_RATIO * 4.0
    assert min(gaps_s) >= (REFRESH_RATIO - 0.1) * 4.0


def test_armed_interest_gives_no_sample() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    pending = asking.on_data(decode_data(encode_data(NAME, b"")), now_s=1.0)
    assert pending is not None
    assert pending.armed
    assert asking.estimator(PEER).srtt_s is None


def test_expedited_interest_is_treated_as_lost() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    assert len(asking.expedite("a", attempts_max=2, now_s=1.0)) == 1
    assert asking.expedite("a", attempts_max=2, now_s=1.0) == []  # once is enough
    assert asking.expedite("b", attempts_max=2, now_s=1.0) == []
    sent_s, given_up = fire(asking, 10.0)
    assert len(sent_s) == 1
    assert given_up == [GivenUp("a", "no answer")]


def test_interest_that_is_let_expire_still_takes_its_answer() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    asking.let_expire("a")
    assert fire(asking, 3.9) == ([], [])
    assert "a" in asking
    assert fire(asking, 4.1) == ([], [])
    assert "a" not in asking


def test_interest_that_is_kept_after_all_is_refreshed_in_time() -> None:
    asking = consumer()
    asking.express("a", NAME, now_s=0.0, peer=PEER, lifetime_s=4.0, armed=True)
    asking.let_expire("a")
    asking.keep("a", now_s=1.0)
    sent_s, _ = fire(asking, 4.0)
    assert sent_s
    assert sent_s[0] <= REFRESH_RATIO * 4.0


def test_keeping_and_letting_expire_what_is_not_there() -> None:
    asking = consumer()
    asking.let_expire("a")
    asking.keep("a", now_s=0.0)
    assert len(asking) == 0


# ---------------------------------------------------------------------- Nacks


def test_nacks_back_off() -> None:
    asking = consumer()
    now_s, pauses_s = 0.0, []
    (interest,) = interests(asking.express("a", NAME, now_s=now_s, peer=PEER))
    for _ in range(8):
        pending = asking.on_nack(interest, now_s=now_s)
        assert pending is not None
        at_s = asking.next_s
        assert at_s is not None
        pauses_s.append(at_s - now_s)
        now_s = at_s
        (interest,) = interests(asking.on_timer(now_s)[0])
    assert pauses_s == pytest.approx([0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0])


def test_giving_up_after_nacks_says_so() -> None:
    asking = consumer()
    (interest,) = interests(asking.express("a", NAME, now_s=0.0, peer=PEER, attempts_max=1))
    asking.on_nack(interest, now_s=0.0)
    assert fire(asking, 10.0) == ([], [GivenUp("a", "network")])


def test_nack_of_something_else() -> None:
    asking = consumer()
    (interest,) = interests(asking.express("a", NAME, now_s=0.0, peer=PEER))
    asking.cancel("a")
    assert asking.on_nack(interest, now_s=0.0) is None
