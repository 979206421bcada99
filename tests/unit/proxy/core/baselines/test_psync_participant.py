"""A participant of PSync: one sync Interest outstanding, answers with names, and whom it believes."""

from __future__ import annotations

import itertools

import pytest

from proxy.config import PsyncConfig
from proxy.core.events import PublishRequested
from proxy.core.signing import Signer
from proxy.wire.lp import NackReason, encode_nack
from proxy.wire.message_names import PSYNC, node_prefix, sync_group
from proxy.wire.name import VERSION, boundaries, component, number, to_uri
from proxy.wire.packet import INTEREST, encode_interest, peek_interest
from proxy.wire.psync import decode_names, encode_names, numbered
from proxy.wire.signed_data import decode_signed_data, encode_signed_data
from tests.unit.proxy.core.baselines.bench import SEEDS, Bench, data_of, interest_of, kinds

PREFIX = sync_group(PSYNC, "main")
UE1, UE2, UE3 = (node_prefix(f"ue{index}") + number(1, VERSION) for index in (1, 2, 3))
ASK, TELL = "psync-sync-interest", "psync-sync-data"


def told(packet: bytes) -> dict[bytes, int]:
    return dict(decode_names(decode_signed_data(packet).content))


def of_kind(packets: list[bytes], kind: str) -> list[bytes]:
    return [packet for packet, its in zip(packets, kinds(packets), strict=True) if its == kind]


def two(**settings: float) -> tuple[Bench, bytes, bytes]:
    """Two who know of each other, and their sync Interests, which have the same name."""
    bench = Bench(PsyncConfig(**settings), "ue1", "ue2")  # type: ignore[arg-type]
    bench.join("ue1")
    bench.join("ue2")
    for _ in range(4):
        asks = {ue: of_kind(bench.pass_time(ue, bench.now_s + 1.1), ASK)[-1] for ue in ("ue1", "ue2")}
        for asker, answerer in (("ue1", "ue2"), ("ue2", "ue1")):
            bench.answered(asker, answerer, [asks[asker]])
    asks = {ue: of_kind(bench.pass_time(ue, bench.now_s + 1.1), ASK)[-1] for ue in ("ue1", "ue2")}
    names = {interest_of(ask).name for ask in asks.values()}
    assert len(names) == 1, "they have the same"
    assert [bench.parties[ue].view.roster() for ue in ("ue1", "ue2")] == 2 * [["ue1", "ue2"]]
    bench.take("ue1", asks["ue2"])
    bench.take("ue2", asks["ue1"])
    return bench, asks["ue1"], asks["ue2"]


def answer(
    name: bytes,
    names: list[bytes],
    *,
    signer: str = "ue2",
    key_of: str = "ue2",
    end: bytes = b"\x36\x01\x01\x32\x01\x00",
) -> bytes:
    key_name = node_prefix(key_of) + b"\x20\x0bcertificate" + b"\x08\x04main"
    return encode_signed_data(name + end, encode_names(names), key_name=key_name, sign=Signer(SEEDS[signer]).sign)


def test_joining_asks_for_what_there_is() -> None:
    bench = Bench(PsyncConfig(), "ue1")
    (ask,) = bench.join("ue1")
    assert kinds([ask]) == [ASK]
    interest = interest_of(ask)
    assert interest.can_be_prefix
    assert interest.must_be_fresh
    assert interest.lifetime_ms == 1_000
    assert to_uri(interest.name).startswith("/hconf/32=group/32=psync/main/")
    assert interest.name.endswith(component(b"\x00")), "no publications yet"


def test_an_outstanding_interest_is_sent_anew_after_half_its_lifetime_and_the_jitter() -> None:
    bench, _, _ = two()
    times_s: list[float] = []
    for _ in range(200):
        due_s = bench.parties["ue1"].deadline_s
        assert due_s is not None
        if of_kind(bench.pass_time("ue1", due_s), ASK):
            times_s.append(bench.now_s)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    assert all(0.6 <= gap_s <= 1.0 for gap_s in gaps_s)
    assert max(gaps_s) > 0.9
    assert min(gaps_s) < 0.7


def test_a_publication_answers_who_waits_and_ourselves() -> None:
    bench, mine, theirs = two()
    sent = bench.handle("ue1", PublishRequested("message", b"hello"))
    assert kinds(sent) == [TELL, ASK], "our own sync Interest is answered as well: we ask anew"
    assert told(sent[0]) == {UE1: 2}
    name = decode_signed_data(sent[0]).name
    assert name.startswith(interest_of(theirs).name)
    assert len(boundaries(name)) == len(boundaries(interest_of(theirs).name)) + 2
    assert data_of(sent[0]).freshness_ms == 10
    assert interest_of(sent[1]).name != interest_of(mine).name
    (question,) = bench.take("ue2", sent[0])
    assert to_uri(interest_of(question).name) == "/hconf/ue1/32=publication/main/v=1/seq=2"


def test_who_was_told_something_new_asks_again_after_the_jitter() -> None:
    bench, _, _ = two()
    (news, _) = bench.handle("ue1", PublishRequested("message", b""))
    at_s = bench.now_s
    bench.answered("ue2", "ue1", bench.take("ue2", news))
    assert of_kind(bench.pass_time("ue2", at_s + 0.099), ASK) == []
    assert len(of_kind(bench.pass_time("ue2", at_s + 0.5), ASK)) == 1


def test_an_answer_without_news_is_waited_out() -> None:
    bench, mine, _ = two(sync_reply_freshness_s=1.0)
    at_s = bench.now_s
    bench.take("ue1", answer(interest_of(mine).name, [numbered(UE2, 1)]))
    assert of_kind(bench.pass_time("ue1", at_s + 1.099), ASK) == []
    assert len(of_kind(bench.pass_time("ue1", at_s + 1.5), ASK)) == 1


def test_who_publishes_meanwhile_does_not_wait_any_more() -> None:
    bench, mine, theirs = two(sync_reply_freshness_s=1.0)
    bench.take("ue1", answer(interest_of(mine).name, [numbered(UE2, 1)]))
    bench.take("ue1", theirs)
    assert TELL in kinds(bench.handle("ue1", PublishRequested("message", b"")))


def test_who_is_behind_is_answered_at_once_and_again_from_what_was_answered() -> None:
    bench, _, behind = two()
    bench.handle("ue1", PublishRequested("message", b""))
    bench.now_s += 0.02
    first = bench.take("ue1", behind)
    assert kinds(first) == [TELL]
    assert told(first[0]) == {UE1: 2}
    assert bench.take("ue1", behind) == first
    bench.pass_time("ue1", bench.now_s + 0.011)
    assert bench.take("ue1", behind) != first


def test_who_is_ahead_is_looked_at_again_and_answered_when_we_have_more() -> None:
    """ue2 has heard of ue3, of which ue1 has not; then ue1 hears of it, and of somebody else."""
    bench, _, theirs = two()
    bench.take("ue2", answer(interest_of(theirs).name, [numbered(UE3, 4)], signer="ue1", key_of="ue1"))
    ahead = of_kind(bench.pass_time("ue2", bench.now_s + 0.5), ASK)[-1]
    mine = of_kind(bench.pass_time("ue1", bench.now_s + 1.0), ASK)[-1]
    assert bench.take("ue1", ahead) == []
    other = node_prefix("ue4") + number(1, VERSION)
    sent = bench.take("ue1", answer(interest_of(mine).name, [numbered(UE3, 4), numbered(other, 1)]))
    (reply,) = of_kind(sent, TELL)
    assert told(reply) == {other: 1}
    assert decode_signed_data(reply).name.startswith(interest_of(ahead).name)


def test_who_stays_ahead_is_forgotten_after_two_looks() -> None:
    bench, _, theirs = two()
    bench.take("ue2", answer(interest_of(theirs).name, [numbered(UE3, 4)], signer="ue1", key_of="ue1"))
    ahead = of_kind(bench.pass_time("ue2", bench.now_s + 0.5), ASK)[-1]
    bench.pass_time("ue1", bench.now_s + 1.0)
    assert bench.take("ue1", ahead) == []
    bench.pass_time("ue1", bench.now_s + 1.1)
    mine = of_kind(bench.pass_time("ue1", bench.now_s + 1.0), ASK)[-1]
    other = node_prefix("ue4") + number(1, VERSION)
    sent = bench.take("ue1", answer(interest_of(mine).name, [numbered(UE3, 4), numbered(other, 1)]))
    assert of_kind(sent, TELL) == []


def test_of_many_differences_everything_is_told_for_a_moment() -> None:
    bench = Bench(PsyncConfig(expected_entries=3, sync_reply_freshness_s=1.0), "ue1", "ue2")
    bench.join("ue1")
    (empty,) = bench.join("ue2")
    mine = of_kind(bench.pass_time("ue1", bench.now_s + 1.1), ASK)[-1]
    crowd = [numbered(node_prefix(f"ue{index}") + number(1, VERSION), 1) for index in range(10, 40)]
    certificate = of_kind(bench.take("ue1", answer(interest_of(mine).name, crowd)), "certificate-interest")
    bench.answered("ue1", "ue2", certificate)
    (everything,) = of_kind(bench.take("ue1", empty), TELL)
    assert len(told(everything)) == 31
    assert data_of(everything).freshness_ms == 10


def test_a_nack_is_a_reason_to_ask_again_soon() -> None:
    bench, mine, _ = two()
    at_s = bench.now_s
    assert bench.take("ue1", encode_nack(mine, NackReason.NO_ROUTE)) == []
    assert len(of_kind(bench.pass_time("ue1", at_s + 0.5), ASK)) == 1


@pytest.mark.parametrize(
    ("packet", "counted"),
    [
        (encode_interest(PREFIX + component(b"x"), nonce=1)[1], "malformed"),
        (encode_interest(PREFIX + component(b"x") + component(b"\x01"), nonce=1)[1], "malformed"),
        (encode_interest(PREFIX + component(b"x") + component(b"abc"), nonce=1)[1], "malformed"),
        (encode_interest(sync_group(PSYNC, "other") + component(b"x") + component(b"\x01"), nonce=1)[1], "malformed"),
        (answer(PREFIX + component(b"x"), []), "unsolicited"),
    ],
)
def test_what_is_not_understood_is_counted(packet: bytes, counted: str) -> None:
    bench, _, _ = two()
    before = bench.parties["ue1"].counters.get(counted, 0)
    assert bench.take("ue1", packet) == []
    assert bench.parties["ue1"].counters[counted] == before + 1


@pytest.mark.parametrize(
    ("names", "options", "counted"),
    [
        ([numbered(UE2, 9)], {"signer": "stranger"}, "refused_answer_forged"),
        ([numbered(node_prefix("ue2"), 9)], {}, "malformed"),
        ([numbered(component(b"x") + component(b"y") + number(1, VERSION), 9)], {}, "malformed"),
        ([numbered(UE2, 9)], {"end": b"\x32\x01\x00"}, "malformed"),
    ],
)
def test_answers_that_are_not_believed(names: list[bytes], options: dict[str, str], counted: str) -> None:
    bench, mine, _ = two()
    assert bench.take("ue1", answer(interest_of(mine).name, names, **options)) == []  # type: ignore[arg-type]
    assert bench.parties["ue1"].counters[counted] == 1
    again = of_kind(bench.pass_time("ue1", bench.now_s + 1.0), ASK)[-1]
    assert interest_of(again).name == interest_of(mine).name, "nothing has changed"


def test_an_answer_by_whom_nobody_knows_counts_when_its_certificate_is_there() -> None:
    bench = Bench(PsyncConfig(), "ue1", "ue2")
    bench.join("ue1")
    bench.join("ue2")
    (ask,) = of_kind(bench.pass_time("ue1", bench.now_s + 1.0), ASK)[-1:]
    (told_by_ue2,) = of_kind(bench.take("ue2", ask), TELL)
    (question,) = bench.take("ue1", told_by_ue2)
    assert to_uri(interest_of(question).name) == "/hconf/ue2/32=certificate/main/v=0/seq=0"
    asked = bench.answered("ue1", "ue2", [question])
    assert kinds(asked)[:2] == ["certificate-interest", "publication-interest"]
    assert bench.parties["ue1"].view.roster() == ["ue1", "ue2"]


def test_before_it_has_joined_it_answers_nobody() -> None:
    bench = Bench(PsyncConfig(), "ue1", "ue2")
    (ask,) = bench.join("ue2")
    assert bench.take("ue1", ask) == []
    assert peek_interest(ask).wire[0] == INTEREST
