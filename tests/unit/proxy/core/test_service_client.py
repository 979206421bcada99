"""The service client, joined: what it takes in, heartbeats, interruptions, close."""

from __future__ import annotations

import pytest

from proxy.core.events import CloseRequested, JoinRequested, PublishRequested
from proxy.core.service_client import PublishError
from proxy.records import Acked, Applied, SessionChanged
from proxy.wire.message_names import NOTIFY
from proxy.wire.messages import (
    ClientHeartbeat,
    CloseRequest,
    FpUpdate,
    JoinRequest,
    LoginReply,
    Notification,
    RecoveryReply,
    RecoveryRequest,
    SignedUpdate,
    UpdateAck,
)
from proxy.wire.payload import decode
from tests.unit.proxy.core.client_bench import (
    PROXIES,
    ack,
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
from tests.unit.proxy.core.parties import (
    of,
    signed_update,
    to,
    token,
)

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
    """As the window admits: first what was published, then the leave."""
    party, announcement = joined(window_max=1)
    party.handle(PublishRequested("message", b""))
    assert core(party).queued == 1
    assert of("update", party.handle(CloseRequested())) == []
    (update,) = of("update", party.answer(announcement, ack(1)))
    assert (core(party).unacked, core(party).queued) == (1, 1)
    (close,) = of("close", party.answer(update, ack(2)))
    assert (core(party).unacked, core(party).queued) == (1, 0)
    party.answer(close, ack(3))
    assert states(party)[-1] == ("closed", "close reply")


def test_close_with_updates_still_queued_survives_its_proxy() -> None:
    """Silent, or without memory of us: first a session, at whichever proxy, then the rest and the leave."""
    party, _ = joined(window_max=1)
    party.handle(CloseRequested())
    assert of("join", party.live(2.0))
    assert core(party).state == "suspect"
    party, announcement = joined(window_max=1)
    party.handle(CloseRequested())
    refusal = UpdateAck("refused", "not_joined", "csr1", 1, 0)
    assert of("join", party.answer(announcement, refusal))


def test_a_close_that_ends_early_leaves_no_leave_behind() -> None:
    party, _ = joined(window_max=1)
    party.handle(CloseRequested())
    assert core(party).queued == 1
    core(party)._leave("token expired")  # as the end of the token does
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
