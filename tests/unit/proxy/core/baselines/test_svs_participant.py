"""A participant of State Vector Sync: what it says and asks, and whom it believes."""

from __future__ import annotations

import pytest

from proxy.config import SvsConfig
from proxy.core.events import CloseRequested, NeighbourChanged, ObjectsScheduled, PublishRequested, ScheduleExtended
from proxy.core.publisher import PublishError
from proxy.core.signing import Signer
from proxy.records import Applied, Published, SessionChanged
from proxy.wire.lp import NackReason, encode_nack
from proxy.wire.message_names import SVS, node_prefix, sync_group
from proxy.wire.messages import SignedToken, SignedUpdate, Token
from proxy.wire.name import to_uri
from proxy.wire.packet import encode_data, encode_interest
from proxy.wire.payload import decode, encode
from proxy.wire.signed_data import decode_signed_data, encode_signed_data
from proxy.wire.svs import SVS_VERSION, decode_state_vector, encode_state_vector
from tests.unit.proxy.core.baselines.bench import SEEDS, Bench, data_of, interest_of, kinds

GROUP_NAME = sync_group(SVS, "main") + SVS_VERSION
UE1, UE2 = node_prefix("ue1"), node_prefix("ue2")


def two(**settings: float) -> Bench:
    """Two who have joined and know each other's updates."""
    bench = Bench(SvsConfig(**settings), "ue1", "ue2")  # type: ignore[arg-type]
    (hello,) = bench.join("ue1")
    (other,) = bench.join("ue2")
    bench.answered("ue2", "ue1", bench.take("ue2", hello))
    bench.answered("ue1", "ue2", bench.take("ue1", other))
    assert [bench.parties[ue].view.roster() for ue in ("ue1", "ue2")] == 2 * [["ue1", "ue2"]]
    for ue in ("ue1", "ue2"):  # who said hello did not know of the other: each has found that one to be behind
        assert len(bench.pass_time(ue, bench.now_s + 0.3)) <= 1
    return bench


def said(packet: bytes) -> dict[bytes, dict[int, int]]:
    interest = interest_of(packet)
    assert interest.parameters is not None
    return decode_state_vector(decode_signed_data(interest.parameters).content)


def sync_interest(signer: str, key_of: str, vector: dict[bytes, dict[int, int]], *, name: bytes = GROUP_NAME) -> bytes:
    key_name = node_prefix(key_of) + b"\x20\x0bcertificate" + b"\x08\x04main"
    sign = Signer(SEEDS[signer]).sign
    data = encode_signed_data(name, encode_state_vector(vector), key_name=key_name, sign=sign)
    return encode_interest(GROUP_NAME, nonce=1, parameters=data)[1]


def test_joining_is_the_first_publication() -> None:
    bench = Bench(SvsConfig(), "ue1")
    sent = bench.join("ue1")
    assert kinds(sent) == ["svs-sync-interest"]
    interest = interest_of(sent[0])
    assert to_uri(interest.name).startswith("/hconf/32=group/32=svs/main/v=3/params-sha256=")
    assert interest.lifetime_ms == 1_000
    assert said(sent[0]) == {UE1: {1: 1}}
    assert [record.event for record in bench.logged(Published)] == ["join"]
    assert [record.state for record in bench.logged(SessionChanged)] == ["login", "joined"]


def test_who_is_not_known_is_asked_for_its_certificate_before_its_word_counts() -> None:
    bench = Bench(SvsConfig(), "ue1", "ue2")
    bench.join("ue1")
    (hello,) = bench.join("ue2")
    asked = bench.take("ue1", hello)
    assert [to_uri(interest_of(packet).name) for packet in asked] == ["/hconf/ue2/32=certificate/main/v=0/seq=0"]
    assert bench.take("ue1", hello) == [], "asked already"
    rest = bench.answered("ue1", "ue2", asked)
    assert kinds(rest) == ["certificate-interest", "publication-interest"]
    assert [(record.receiver, record.publisher, record.via) for record in bench.logged(Applied)] == [
        ("ue1", "ue2", "fetch")
    ]


def test_a_publication_is_said_at_once_and_fetched_by_name() -> None:
    bench = two()
    (news,) = bench.handle("ue1", PublishRequested("message", b"hello"))
    assert said(news) == {UE1: {1: 2}, UE2: {1: 1}}
    (question,) = bench.take("ue2", news)
    assert to_uri(interest_of(question).name) == "/hconf/ue1/32=publication/main/v=1/seq=2"
    (answer,) = bench.take("ue1", question)
    assert data_of(answer).freshness_ms > 0, "content stores may keep it"
    assert bench.take("ue2", answer) == []
    assert bench.logged(Applied)[-1].seq == 2


def test_a_question_that_is_lost_is_repeated() -> None:
    bench = two()
    (news,) = bench.handle("ue1", PublishRequested("message", b""))
    (question,) = bench.take("ue2", news)
    repeated = bench.pass_time("ue2", bench.now_s + 0.6)
    assert {interest_of(packet).name for packet in repeated} == {interest_of(question).name}
    assert interest_of(repeated[0]).nonce != interest_of(question).nonce
    assert bench.take("ue2", encode_nack(repeated[-1], NackReason.NO_ROUTE)) == []
    assert bench.pass_time("ue2", bench.now_s + 0.1), "after a Nack, too"


def test_no_more_than_the_window_is_asked_for_at_a_time() -> None:
    bench = two(fetch_window=3)
    (news,) = [bench.handle("ue1", PublishRequested("message", b"")) for _ in range(5)][-1]
    first = bench.take("ue2", news)
    assert kinds(first) == 3 * ["publication-interest"]
    asked = bench.answered("ue2", "ue1", first)
    assert len(asked) == 5
    assert bench.parties["ue2"].view.seq("ue1", 1) == 6


def test_who_is_behind_is_told_by_one_who_waits_a_little() -> None:
    bench = two()
    bench.now_s += 5.0
    behind = sync_interest("ue2", "ue2", {UE2: {1: 1}})
    assert bench.take("ue1", behind) == []
    (told,) = bench.pass_time("ue1", bench.now_s + 0.2)
    assert said(told) == {UE1: {1: 1}, UE2: {1: 1}}


def test_periodic_sync_interest() -> None:
    bench = two(periodic_s=2.0)
    assert kinds(bench.pass_time("ue1", bench.now_s + 4.5)) == 2 * ["svs-sync-interest"]


def test_a_face_that_comes_up_is_a_reason_to_say_it_again() -> None:
    bench = two()
    assert bench.handle("ue1", NeighbourChanged("csr1", up=False)) == []
    assert bench.handle("ue1", NeighbourChanged("csr1", up=True)) == []
    assert kinds(bench.pass_time("ue1", bench.now_s + 0.11)) == ["svs-sync-interest"]


@pytest.mark.parametrize(
    ("packet", "counted"),
    [
        (sync_interest("stranger", "ue2", {UE2: {1: 9}}), "refused_vector_forged"),
        (sync_interest("ue2", "ue2", {b"\x08\x01x": {1: 9}}), "malformed"),
        (sync_interest("ue2", "ue2", {UE2: {1: 9}}, name=GROUP_NAME[:-1] + b"\x02"), "malformed"),
        (encode_interest(GROUP_NAME, nonce=1)[1], "malformed"),
        (encode_interest(GROUP_NAME, nonce=1, parameters=b"nothing")[1], "malformed"),
        (encode_interest(sync_group(SVS, "other") + SVS_VERSION, nonce=1, parameters=b"")[1], "malformed"),
        (encode_interest(UE1 + b"\x20\x04join", nonce=1)[1], "malformed"),
        (encode_data(UE1 + b"\x08\x01a", b""), "unsolicited"),
    ],
)
def test_what_is_not_believed_is_counted_and_changes_nothing(packet: bytes, counted: str) -> None:
    bench = two()
    before = dict(bench.parties["ue1"].counters)
    assert bench.take("ue1", packet) == []
    after = bench.parties["ue1"].counters
    assert {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)} == {
        counted: 1
    }
    (news,) = bench.handle("ue1", PublishRequested("message", b""))
    assert said(news) == {UE1: {1: 2}, UE2: {1: 1}}


def test_a_stranger_without_a_token_is_not_believed() -> None:
    bench = two()
    (question,) = bench.take("ue1", sync_interest("stranger", "stranger", {node_prefix("stranger"): {1: 9}}))
    name = interest_of(question).name
    forged = encode(Token("stranger", "main", "participant", Signer(SEEDS["stranger"]).public_key, 0.0, 9e9))
    answer = encode(SignedToken(forged, Signer(SEEDS["stranger"]).sign(forged)))
    assert bench.take("ue1", encode_data(name, answer)) == []
    assert bench.parties["ue1"].counters["refused_token_forged"] == 1
    asked_again = bench.pass_time("ue1", bench.now_s + 10.0)
    assert kinds(asked_again) == 5 * ["certificate-interest"], "and given up"


def test_a_publication_of_another_name_is_not_taken() -> None:
    bench = two()
    (news,) = bench.handle("ue1", PublishRequested("message", b""))
    (question,) = bench.take("ue2", news)
    (answer,) = bench.take("ue1", question)
    other = bench.take("ue1", encode_interest(interest_of(question).name[:-1] + b"\x01", nonce=1)[1])
    wrong = encode_data(interest_of(question).name, data_of(other[0]).content)
    assert bench.take("ue2", wrong) == []
    assert bench.parties["ue2"].counters["refused_publication_of_other_name"] == 1
    bench.take("ue2", answer)
    assert bench.parties["ue2"].view.seq("ue1", 1) == 2


def test_a_forged_publication_is_asked_for_again() -> None:
    bench = two()
    (news,) = bench.handle("ue1", PublishRequested("message", b""))
    (question,) = bench.take("ue2", news)
    (answer,) = bench.take("ue1", question)
    update = decode(data_of(answer).content, SignedUpdate).update
    forged = SignedUpdate(update, Signer(SEEDS["stranger"]).sign(update))
    assert bench.take("ue2", encode_data(interest_of(question).name, encode(forged))) == []
    assert bench.parties["ue2"].counters["refused_update_forged"] == 1
    assert bench.pass_time("ue2", bench.now_s + 0.9) == []
    again = bench.pass_time("ue2", bench.now_s + 0.15)
    assert {interest_of(packet).name for packet in again} == {interest_of(question).name}
    bench.take("ue2", answer)
    assert bench.parties["ue2"].view.seq("ue1", 1) == 2


def test_what_is_not_here_is_not_answered() -> None:
    bench = two()
    assert (
        bench.take("ue1", encode_interest(UE1 + b"\x20\x0bpublication\x08\x04main\x36\x01\x01\x3a\x01\x63", nonce=1)[1])
        == []
    )
    assert bench.parties["ue1"].counters["publications_not_here"] == 1


def test_leaving_is_the_last_publication_and_still_given_out() -> None:
    bench = two()
    (news,) = bench.handle("ue1", CloseRequested())
    assert bench.parties["ue1"].state == "closed"
    bench.answered("ue2", "ue1", bench.take("ue2", news))
    assert bench.parties["ue2"].view.roster() == ["ue2"]
    (more,) = bench.handle("ue2", PublishRequested("message", b""))
    assert bench.take("ue1", more) == [], "who has left fetches nothing"
    assert bench.join("ue1")
    assert bench.parties["ue1"].view.seq("ue2", 1) == 1


def test_before_it_has_joined_it_takes_nothing_and_publishes_nothing() -> None:
    bench = Bench(SvsConfig(), "ue1", "ue2")
    (hello,) = bench.join("ue2")
    assert bench.take("ue1", hello) == []
    with pytest.raises(PublishError, match="not joined"):
        bench.handle("ue1", PublishRequested("message", b""))
    with pytest.raises(PublishError, match="not joined"):
        bench.handle("ue1", CloseRequested())
    bench.handle("ue1", ScheduleExtended(((bench.now_s, "message", 5),)))
    bench.handle("ue1", ObjectsScheduled(((bench.now_s, 5),), ()))
    bench.pass_time("ue1", bench.now_s)
    assert bench.parties["ue1"].counters["publish_refused"] == 2


def test_who_is_not_registered_is_refused() -> None:
    bench = Bench(SvsConfig(), "stranger")
    assert bench.join("stranger") == []
    assert bench.parties["stranger"].state == "refused"
    assert bench.logged(SessionChanged)[-1].reason == "device is not registered"


def test_an_observer_publishes_nothing_but_itself() -> None:
    bench = Bench(SvsConfig(), "ue1", role="observer")
    assert kinds(bench.join("ue1")) == ["svs-sync-interest"]
    with pytest.raises(PublishError, match="observer"):
        bench.handle("ue1", PublishRequested("message", b""))


def test_a_vector_that_does_not_fit_is_counted_and_not_sent() -> None:
    bench = two()
    crowd = {node_prefix(f"device-with-quite-a-long-name-{number}"): {1: 1} for number in range(150)}
    bench.take("ue1", sync_interest("ue2", "ue2", crowd))
    assert bench.handle("ue1", PublishRequested("message", b"")) != []
    more = {node_prefix(f"another-with-quite-a-long-name-{number}"): {1: 1} for number in range(100)}
    bench.take("ue1", sync_interest("ue2", "ue2", more))
    assert bench.handle("ue1", PublishRequested("message", b"")) == []
    assert bench.parties["ue1"].counters["vectors_too_large"] == 1
