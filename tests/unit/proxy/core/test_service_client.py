"""The service client, one situation at a time; what it is told stands here, what it does is compared."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.events import CloseRequested, JoinRequested, PublishRequested, ScheduleExtended
from proxy.core.service_client import PublishError, ServiceClient
from proxy.core.trust import place_of, seal
from proxy.core.view import View
from proxy.records import Acked, Applied, Published, SessionChanged, SnapshotApplied
from proxy.wire.messages import (
    BODY_MAX_BYTES,
    EMPTY_DIGEST,
    HEARTBEAT,
    NOTIFY,
    ClientHeartbeat,
    CloseRequest,
    FpUpdate,
    JoinReply,
    JoinRequest,
    LoginReply,
    Notification,
    Position,
    RecoveryReply,
    RecoveryRequest,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    StreamHead,
    Token,
    UpdateAck,
    decode,
    encode,
)
from tests.unit.proxy.core.parties import PROXIES as PROXY_KEYS
from tests.unit.proxy.core.parties import (
    STRANGER,
    UE2,
    Party,
    Sent,
    client_party,
    of,
    signed_entry,
    signed_update,
    to,
    token,
)

PROXIES = ("csr1", "csr2", "csr3")


def core(party: Party) -> ServiceClient:
    assert isinstance(party.core, ServiceClient)
    return party.core


def states(party: Party) -> list[tuple[str, str]]:
    return [(record.state, record.reason) for record in party.records if isinstance(record, SessionChanged)]


def logged(party: Party, kind: type[Any]) -> list[Any]:
    return [record for record in party.records if isinstance(record, kind)]


def joining(**settings: Any) -> tuple[Party, Sent]:
    """Return a client that has logged in, and its question to join."""
    party = client_party(**settings)
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), PROXIES))
    return party, join


def welcome(**properties: Any) -> JoinReply:
    plain: dict[str, Any] = {"granted": True, "reason": "", "current": (), "snapshot": Snapshot((), ()), "entries": ()}
    return JoinReply(**(plain | properties))


def joined(**settings: Any) -> tuple[Party, Sent]:
    """Return a client that has joined at csr1, and its update that says so."""
    party, join = joining(**settings)
    (update,) = of("update", party.answer(join, welcome()))
    return party, update


def settled() -> Party:
    """Return a client whose join is acked."""
    party, update = joined()
    party.answer(update, ack(1))
    return party


def ack(stream_seq: int, proxy: str = "csr1") -> UpdateAck:
    return UpdateAck("accepted", "", proxy, 1, stream_seq)


def entry(seq: int, *updates: SignedUpdate, proxy: str = "csr1") -> StreamEntry:
    return signed_entry(proxy, seq, *updates)


def theirs(seq: int, event: str = "") -> SignedUpdate:
    """Return an update of another participant; its first says that it joins."""
    return signed_update(seq, event or ("join" if seq == 1 else "message"), device="ue2", signer=UE2)


def notify(
    party: Party, number: int, *entries: StreamEntry, current: tuple[Position, ...] = (), proxy: str = "csr1"
) -> list[Sent]:
    payload = Notification((), current, entries)
    return party.ask(to("ue1"), NOTIFY, "main", proxy, seq=number, payload=payload)


def beat(party: Party, *current: Position, proxy: str = "csr1", ended: str = "") -> list[Sent]:
    number = next(party.numbers)
    place = place_of(HEARTBEAT, "main", proxy, ended and "ue1", boot=1, seq=number)
    payload = seal(PROXY_KEYS[proxy], ClientHeartbeat(EMPTY_DIGEST, current, ended), place)
    return party.ask(to("ue1"), HEARTBEAT, "main", proxy, seq=number, payload=payload)


# ---------------------------------------------------------------------- login and join


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


# ---------------------------------------------------------------------- publishing


def test_publishing_and_ack() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b"hello", "/an/object"))
    told = decode(update.read(SignedUpdate).update, FpUpdate)
    assert (told.seq, told.event, told.body, told.object_name) == (2, "message", b"hello", "/an/object")
    assert told.last_digest != told.digest
    assert core(party).unacked == 1
    party.answer(update, ack(5))
    assert core(party).unacked == 0
    assert [(record.seq, record.level, record.proxy) for record in logged(party, Acked)] == [
        (1, "accepted", "csr1"), (2, "accepted", "csr1")
    ]  # fmt: skip


def test_digests_chain() -> None:
    party = settled()
    first, second = (party.handle(PublishRequested("message", b"x"))[0] for _ in range(2))
    digests = [decode(each.read(SignedUpdate).update, FpUpdate) for each in (first, second)]
    assert digests[0].digest == digests[1].last_digest


def test_update_is_repeated_until_it_is_acked() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    repeated = of("update", party.live(0.5))
    assert repeated
    assert all(each.payload == update.payload for each in repeated)
    party.answer(update, ack(2))
    assert of("update", party.live(0.5)) == []


@pytest.mark.parametrize(
    "forged",
    [ack(1), UpdateAck("refused", "revoked", "csr1", 1, 0), UpdateAck("refused", "token_expired", "csr1", 1, 0)],
)
def test_ack_without_proof_is_none(forged: UpdateAck) -> None:
    party, update = joined()
    party.answer(update, encode(forged))
    assert (core(party).unacked, core(party).state) == (1, "joined")
    assert party.core.counters["refused_ack_forged"] == 1
    assert of("update", party.live(0.3))  # it waits for the true one
    party.answer(update, ack(1))
    assert core(party).unacked == 0


def test_second_ack_is_none() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    party.answer(update, ack(2))
    party.answer(update, ack(2))
    assert len(logged(party, Acked)) == 2


def test_window() -> None:
    party, update = joined(window_max=3)
    sent = [each for _ in range(5) for each in of("update", party.handle(PublishRequested("message", b"")))]
    assert len(sent) == 2  # the join is the third
    assert core(party).queued == 3
    assert len(of("update", party.answer(update, ack(1)))) == 1
    assert (core(party).unacked, core(party).queued) == (3, 2)
    assert core(party).published_seq == 6


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (PublishRequested("message", bytes(BODY_MAX_BYTES + 1)), "body of 7001 bytes"),
        (PublishRequested("", b""), "event type of 0 octets"),
        (PublishRequested("é" * 33, b""), "event type of 66 octets"),
        (PublishRequested("object", b"", "/" + "x" * 512), "object name"),
        (PublishRequested("object", b"", "é" * 257), "object name"),
    ],
)
def test_what_cannot_be_published(event: PublishRequested, problem: str) -> None:
    party = settled()
    with pytest.raises(PublishError, match=problem):
        party.handle(event)
    assert core(party).published_seq == 1


def test_largest_update_fits_into_a_packet() -> None:
    party = settled()
    assert party.handle(PublishRequested("e" * 64, bytes(BODY_MAX_BYTES), "o" * 512))


def test_nobody_publishes_without_having_joined() -> None:
    party, _ = joining()
    with pytest.raises(PublishError, match=r"not joined \(joining\)"):
        party.handle(PublishRequested("message", b""))


def test_leaving_before_anybody_has_heard_of_us() -> None:
    party, join = joining()
    assert party.handle(CloseRequested()) == []
    assert states(party)[-1] == ("closed", "asked for")
    assert party.answer(join, welcome()) == []
    assert core(party).state == "closed"
    assert party.live(10.0) == []
    with pytest.raises(PublishError, match="not joined"):
        party.handle(CloseRequested())


def test_queue_is_bounded() -> None:
    party, _ = joined(window_max=1, queue_max=2)
    party.handle(PublishRequested("message", b""))
    party.handle(PublishRequested("message", b""))
    with pytest.raises(PublishError, match="2 updates waiting"):
        party.handle(PublishRequested("message", b""))


def test_schedule() -> None:
    party = settled()
    now_s = party.now_s
    updates = ((now_s + 0.30, "message", 10), (now_s + 0.10, "stroke", 5), (now_s + 0.2, "message", 8_000))
    party.handle(ScheduleExtended(updates))
    party.live(1.0)
    published = logged(party, Published)[1:]
    assert [(record.event, record.size_bytes) for record in published] == [("stroke", 5), ("message", 10)]
    assert [record.t_s for record in published] == pytest.approx([now_s + 0.1, now_s + 0.3])
    assert party.core.counters["publish_refused"] == 1


@pytest.mark.parametrize("reason", ["update_forged", "observer_publishes"])
def test_refused_update_is_counted(reason: str) -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    party.answer(update, UpdateAck("refused", reason, "csr1", 1, 0))
    assert party.core.counters[f"rejected_{reason}"] == 1
    assert core(party).state == "joined"


def test_forgotten_by_its_proxy_a_client_joins_again_and_repeats_what_is_unacked() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    (join,) = of("join", party.answer(update, UpdateAck("refused", "not_joined", "csr1", 1, 0)))
    assert states(party)[-1] == ("suspect", "refused")
    (repeated,) = of("update", party.answer(join, welcome(own_seq=1)))
    assert repeated.payload == update.payload
    assert states(party)[-1] == ("joined", "suspect no more")


# ---------------------------------------------------------------------- receiving


def test_notification() -> None:
    party = settled()
    sent = notify(party, 1, entry(2, theirs(1, "join")), entry(3, theirs(2)), current=(("csr1", 1, 3),))
    assert [each.message for each in sent] == ["notification-ack"]
    assert [(record.publisher, record.seq, record.via) for record in logged(party, Applied)] == [
        ("ue2", 1, "push"), ("ue2", 2, "push")
    ]  # fmt: skip
    assert core(party).view.roster() == ["ue1", "ue2"]


def test_repeated_notification_is_acked_and_changes_nothing() -> None:
    party = settled()
    for number in (1, 1, 2):
        assert [each.message for each in notify(party, number, entry(2, theirs(1)))] == ["notification-ack"]
    assert len(logged(party, Applied)) == 1
    assert party.core.counters["entries_repeated"] == 2


def test_updates_are_applied_in_order() -> None:
    party = settled()
    notify(party, 2, entry(3, theirs(2)))
    assert logged(party, Applied) == []
    notify(party, 1, entry(2, theirs(1)))
    assert [record.seq for record in logged(party, Applied)] == [1, 2]


def test_own_updates_are_not_deliveries() -> None:
    party = settled()
    own = signed_update(1, "join")
    notify(party, 1, entry(2, own))
    assert logged(party, Applied) == []


def test_gap_is_asked_for_once_at_a_time() -> None:
    party = settled()
    (ask,) = of("recovery-request", notify(party, 1, entry(3, theirs(2)), current=(("csr1", 1, 3),)))
    assert ask.read(RecoveryRequest).known == (("csr1", 1, 1),)
    assert of("recovery-request", beat(party, ("csr1", 1, 3))) == []
    party.answer(ask, RecoveryReply((("csr1", 1, 3),), None, (entry(2, theirs(1)), entry(3, theirs(2)))))
    assert [(record.seq, record.via) for record in logged(party, Applied)] == [(1, "recovery"), (2, "push")]


def test_recovery_goes_on_until_everything_is_there() -> None:
    party = settled()
    (ask,) = of("recovery-request", beat(party, ("csr1", 1, 4)))
    (again,) = of("recovery-request", party.answer(ask, RecoveryReply((("csr1", 1, 4),), None, (entry(2, theirs(1)),))))
    assert again.read(RecoveryRequest).known == (("csr1", 1, 2),)


def test_heartbeat_that_knows_no_more_than_we_do() -> None:
    party = settled()
    assert beat(party, ("csr1", 1, 1)) == []


def test_news_of_a_proxy_that_we_are_not_joined_at_are_not_taken() -> None:
    party = settled()
    assert notify(party, 1, entry(2, theirs(1)), proxy="csr2") == []
    assert logged(party, Applied) == []


def test_notification_before_the_join_reply_is_left_to_be_repeated() -> None:
    party, join = joining()
    assert notify(party, 1, entry(2, theirs(1))) == []
    party.answer(join, welcome())
    assert [each.message for each in notify(party, 1, entry(2, theirs(1)))] == ["notification-ack"]


@pytest.mark.parametrize("parts", [("other", "csr1"), ("main",), ("main", "csr1", "x")])
def test_news_of_another_conference_are_malformed(parts: tuple[str, ...]) -> None:
    party = settled()
    assert party.ask(to("ue1"), NOTIFY, *parts, seq=1, payload=Notification((), (), ())) == []
    assert party.core.counters["malformed"] == 1


# ---------------------------------------------------------------------- heartbeats and interruption


def test_heartbeats_carry_the_state_and_are_spared_by_other_packets() -> None:
    party = settled()
    for _ in range(20):
        beat(party, ("csr1", 1, 1))
        party.live(0.05)
    quiet = of("heartbeat", party.live(0.0))
    party.records.clear()
    busy = 0
    for number in range(20):
        notify(party, number, entry(2 + number, theirs(1 + number)))
        busy += len(of("heartbeat", party.live(0.05)))
    assert quiet == []
    assert busy == 0
    beats = []
    for _ in range(20):
        beat(party)
        beats += of("heartbeat", party.live(0.05))
    assert 4 <= len(beats) <= 7  # one per 0.15 to 0.2 s
    assert beats[-1].read(ClientHeartbeat).current == core(party).positions.vector()


def test_silent_proxy_makes_suspicious_and_a_word_of_it_restores() -> None:
    party = settled()
    sent = party.live(1.0)
    assert states(party)[-1] == ("suspect", "detection time")
    assert of("join", sent)
    assert 0.6 < logged(party, SessionChanged)[-1].t_s - 1_000.0 < 0.85  # 3 x 0.2 s, noticed at the next heartbeat
    party.answer(of("join", sent)[-1], welcome(snapshot=None))
    assert states(party)[-1] == ("joined", "suspect no more")


def test_updates_wait_while_the_session_is_suspect() -> None:
    party = settled()
    join = of("join", party.live(1.0))[-1]
    assert of("update", party.handle(PublishRequested("message", b""))) == []
    assert core(party).queued == 1
    assert len(of("update", party.answer(join, welcome(snapshot=None, own_seq=1)))) == 1


def test_proxy_that_lacks_acked_updates_is_sent_them_again() -> None:
    """They were acked by a proxy whose memory is gone; the join reply says how far this one has heard of us."""
    party = settled()
    for stream_seq in (2, 3):
        (update,) = party.handle(PublishRequested("message", b""))
        party.answer(update, ack(stream_seq))
    join = of("join", party.live(1.0))[-1]
    again = of("update", party.answer(join, welcome(snapshot=None, own_seq=1)))
    assert [decode(each.read(SignedUpdate).update, FpUpdate).seq for each in again] == [2, 3]
    party.answer(again[0], ack(1))
    assert len(logged(party, Acked)) == 3  # no news to the user


def test_updates_move_with_the_client_to_its_next_proxy() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    party.now_s += 0.7
    join = of("join", party.live(0.2))[-1]
    while b"csr2" not in join.name:
        join = of("join", party.live(0.5) or party.live(0.5))[-1]
    moved = of("update", party.answer(join, welcome(snapshot=None, own_seq=1)))
    assert [each.payload for each in moved] == [update.payload]
    assert b"csr2" in moved[0].name
    assert core(party).proxy == "csr2"


def test_client_that_is_out_repeats_nothing_not_even_what_was_acked_before() -> None:
    party = settled()
    party.now_s += 0.7
    (join,) = of("join", party.live(0.0))
    again = of("update", party.answer(join, welcome(snapshot=None, own_seq=0)))
    assert len(again) == 1  # the proxy has lost it
    beat(party, ended="revoked")
    assert core(party).state == "refused"
    assert party.live(10.0) == []


# ---------------------------------------------------------------------- close


def test_close() -> None:
    party = settled()
    (close,) = party.handle(CloseRequested())
    assert close.message == "close"
    assert decode(close.read(CloseRequest).leave.update, FpUpdate).event == "leave"
    assert party.answer(close, ack(2)) == []
    assert states(party)[-2:] == [("closing", "asked for"), ("closed", "close reply")]
    assert party.live(10.0) == []
    assert core(party).unacked == 0


def test_close_reply_acks_what_came_before() -> None:
    party = settled()
    party.handle(PublishRequested("message", b""))
    close = of("close", party.handle(CloseRequested()))[0]
    party.answer(close, ack(3))
    assert core(party).unacked == 0
    assert [record.seq for record in logged(party, Acked)] == [1, 2, 3]
    assert party.live(10.0) == []  # nothing is repeated any more


def test_close_sends_what_is_queued() -> None:
    party, _ = joined(window_max=1)
    party.handle(PublishRequested("message", b""))
    assert core(party).queued == 1
    sent = party.handle(CloseRequested())
    assert [each.message for each in sent] == ["update", "close"]
    assert core(party).queued == 0


def test_close_is_repeated_and_ends_without_an_answer() -> None:
    party = settled()
    party.handle(CloseRequested())
    assert len(of("close", party.live(20.0))) == 7
    assert states(party)[-1] == ("closed", "no close reply")
    assert party.live(20.0) == []


def test_close_while_the_session_is_suspect_waits_until_it_is_whole() -> None:
    """The proxy that we are about to join does not know us yet and could not take our leave."""
    party = settled()
    join = of("join", party.live(1.0))[-1]
    assert of("close", party.handle(CloseRequested())) == []
    with pytest.raises(PublishError):
        party.handle(PublishRequested("message", b""))
    (close,) = of("close", party.answer(join, welcome(snapshot=None, own_seq=1)))
    party.answer(close, ack(2))
    assert core(party).state == "closed"
    assert party.live(10.0) == []


def test_joining_again_after_a_close() -> None:
    party = settled()
    (close,) = party.handle(CloseRequested())
    party.answer(close, ack(2))
    with pytest.raises(PublishError):
        party.handle(PublishRequested("message", b""))
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), PROXIES))
    assert join.read(JoinRequest).known == (("csr1", 1, 2),)
    (update,) = of("update", party.answer(join, welcome(snapshot=None, own_seq=2)))
    told = decode(update.read(SignedUpdate).update, FpUpdate)
    assert (told.seq, told.event) == (3, "join")
    party.answer(update, ack(3))
    assert of("heartbeat", party.live(0.5))
