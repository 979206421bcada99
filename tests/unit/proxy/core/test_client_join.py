"""The service client on its way into the conference, one situation at a time: login, join, re-join."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.events import JoinRequested, PublishRequested
from proxy.core.trust import place_of, seal
from proxy.core.view import View
from proxy.records import Applied, Published, SnapshotApplied
from proxy.wire.message_names import HEARTBEAT
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    FpUpdate,
    JoinRequest,
    LoginReply,
    SignedUpdate,
    Snapshot,
    StreamHead,
    Token,
)
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.client_bench import (
    PROXIES,
    beat,
    core,
    entry,
    joined,
    joining,
    logged,
    notify,
    settled,
    states,
    theirs,
    welcome,
)
from tests.unit.proxy.core.parties import PROXIES as PROXY_KEYS
from tests.unit.proxy.core.parties import (
    STRANGER,
    UE2,
    Sent,
    client_party,
    of,
    signed_update,
    to,
    token,
)


def test_way_into_the_conference() -> None:
    party, update = joined()
    assert states(party) == [("login", ""), ("joining", "logged in"), ("joined", "")]
    assert decode(update.read(SignedUpdate).update, FpUpdate).event == "join"
    assert core(party).view.roster() == ["ue1"]
    assert [record.seq for record in logged(party, Published)] == [1]


def test_login_is_repeated_until_it_is_answered() -> None:
    party = client_party()
    party.handle(JoinRequested())
    assert 5 <= len(of("login", party.live(10.0))) <= 12  # in fours, with longer and longer pauses
    assert 3 <= len(of("login", party.live(60.0))) <= 60
    assert states(party) == [("login", "")]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (LoginReply(False, "device is not registered", None, ()), "device is not registered"),
        (LoginReply(True, "", token(), ()), "no proxy assigned"),
        (LoginReply(True, "", None, ("csr1",)), "no proxy assigned"),
    ],
)
def test_login_refused(reply: LoginReply, reason: str) -> None:
    party = client_party()
    (login,) = party.handle(JoinRequested())
    assert party.answer(login, reply) == []
    assert states(party)[-1] == ("refused", reason)
    assert party.live(10.0) == []
    assert of("login", party.handle(JoinRequested()))  # the user may try again


def test_join_refused() -> None:
    party, join = joining()
    assert party.answer(join, welcome(granted=False, reason="revoked")) == []
    assert states(party) == [("login", ""), ("joining", "logged in"), ("refused", "revoked")]
    assert party.live(10_000.0) == []


def test_token_that_has_expired_is_renewed() -> None:
    party, join = joining()
    (login,) = party.answer(join, welcome(granted=False, reason="token_expired"))
    assert states(party)[-1] == ("login", "token expired")
    (join,) = party.answer(login, LoginReply(True, "", token(issued_s=1_001.0), PROXIES))
    assert decode(join.read(JoinRequest).token.token, Token).issued_s == 1_001.0


@pytest.mark.parametrize("reason", ["revoked", "token_expired"])
def test_end_of_the_session(reason: str) -> None:
    party = settled()
    sent = beat(party, ended=reason)
    assert core(party).state == ("refused" if reason == "revoked" else "login")
    assert [each.message for each in sent] == ([] if reason == "revoked" else ["login"])


def test_token_is_renewed_in_time_and_everybody_told() -> None:
    party = settled()
    party.core.handle(PublishRequested("message", b""), now_s=party.now_s)
    sent: list[Sent] = []
    while not (logins := of("login", sent)):
        sent = party.live(0.1)
        beat(party)
        assert party.now_s < 1_000.0 + 3_600.0
    assert party.now_s == pytest.approx(1_000.0 + 2_400.0, abs=0.2)
    renewed = token(issued_s=party.now_s, expires_s=party.now_s + 3_600.0)
    (update,) = of("update", party.answer(logins[0], LoginReply(True, "", renewed, PROXIES)))
    told = decode(update.read(SignedUpdate).update, FpUpdate)
    assert (told.event, told.body) == ("renew", encode(renewed))
    assert core(party).state == "joined"


def test_heartbeat_said_again_or_by_somebody_else_is_not_heard() -> None:
    party = settled()
    beat(party)
    number = next(party.numbers) - 1
    place = place_of(HEARTBEAT, "main", "csr1", "", boot=1, seq=number)
    payload = seal(PROXY_KEYS["csr1"], ClientHeartbeat(EMPTY_DIGEST, ()), place)
    party.ask(to("ue1"), HEARTBEAT, "main", "csr1", seq=number, payload=payload)
    assert party.core.counters["refused_heartbeat_replayed"] == 1
    party.ask(to("ue1"), HEARTBEAT, "main", "csr1", seq=10**6, payload=payload)
    assert party.core.counters["refused_seal_forged"] == 1


def test_entry_and_update_that_are_forged_change_nothing() -> None:
    party = settled()
    genuine = entry(2, theirs(1))
    forged = msgspec.structs.replace(genuine, seq=3)
    notify(party, 1, forged)
    assert party.core.counters["refused_sync_update_forged"] == 1
    stranger = signed_update(1, "join", device="ue2", signer=STRANGER, body=encode(token("ue2", UE2)))
    notify(party, 2, entry(4, stranger))
    assert party.core.counters["refused_fingerprint_of_other_key"] == 1
    assert logged(party, Applied) == []
    notify(party, 3, genuine, current=(("csr1", 1, 2),))
    assert [record.seq for record in logged(party, Applied)] == [1]


def test_first_join_has_no_last_known_state() -> None:
    _, join = joining()
    assert join.read(JoinRequest).known is None


def test_silent_proxy_is_passed_over_after_three_attempts() -> None:
    party, _ = joining()
    asked = [each.name.split(b"csr")[1][:1] for each in of("join", party.live(7.0))]
    assert b"".join(asked).startswith(b"11222333111")  # and the first attempt at csr1, made before


def test_unreachable_proxies_are_passed_over_at_once_but_only_once_round() -> None:
    """With no way to anybody each Nack comes at once: a client that answers each with a question would never end."""
    party, join = joining()
    asked = [join]
    for _ in range(10):
        answers = party.refuse(asked[-1])
        if not answers:
            break
        asked += answers
    # The last question waits at the nearest: whichever way comes back, that one is to be had again.
    assert [each.name.split(b"csr")[1][:1] for each in asked] == [b"1", b"2", b"3", b"1"]
    sent = 0
    for _ in range(200):  # from then on at a pace
        questions = of("join", party.live(0.05))
        sent += len(questions)
        for question in questions:
            sent += len(party.refuse(question))
    assert 10 < sent < 150


def test_snapshot_on_joining() -> None:
    party, join = joining()
    ahead = View()
    for seq, event in ((1, "join"), (2, "message")):
        ahead.offer(theirs(seq, event), "push")
    snapshot = Snapshot(ahead.heads(), (StreamHead("csr2", 1, 2, EMPTY_DIGEST),), tokens=(token("ue2", UE2),))
    assert of("keys-request", party.answer(join, welcome(snapshot=snapshot))) == []
    assert core(party).positions.vector() == (("csr2", 1, 2),)
    assert core(party).view.roster() == ["ue1", "ue2"]
    assert logged(party, SnapshotApplied)[0].heads == [("ue2", 1, 2)]
    assert logged(party, Applied) == []


def test_updates_held_back_in_a_snapshot() -> None:
    party, join = joining()
    party.answer(join, welcome(snapshot=Snapshot((), (StreamHead("csr2", 1, 1, EMPTY_DIGEST),), (theirs(2),))))
    notify(party, 1, entry(1, theirs(1, "join")))
    assert [(record.seq, record.via) for record in logged(party, Applied)] == [(1, "push"), (2, "snapshot")]


def test_suffix_on_joining_again() -> None:
    party = settled()
    join = of("join", party.live(1.0))[-1]
    assert join.read(JoinRequest).known == (("csr1", 1, 1),)
    party.answer(join, welcome(snapshot=None, entries=(entry(2, theirs(1)),), current=(("csr1", 1, 2),)))
    assert [(record.seq, record.via) for record in logged(party, Applied)] == [(1, "recovery")]
