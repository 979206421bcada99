"""The service proxy and its clients, one situation at a time: join, updates, notifications, moves, close."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.events import TimerExpired
from proxy.core.session_key import KeyExchange, proven_heartbeat
from proxy.core.trust import join_statement
from proxy.wire.message_names import ALL_PROXIES, CLOSE, JOIN, NOTIFY, PRESENCE, MessageName, message_name
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    CloseRequest,
    Head,
    JoinReply,
    Notification,
    ProxyHeartbeat,
    RosterEvent,
    Sealed,
    SignedUpdate,
    Snapshot,
    UpdateAck,
)
from proxy.wire.payload import decode
from tests.unit.proxy.core.parties import (
    SOON_S,
    UE1,
    UE2,
    Party,
    Sent,
    join_request,
    of,
    proxy_party,
    signed_update,
    to,
    token,
)
from tests.unit.proxy.core.proxy_bench import (
    ME,
    REMOTE,
    acks,
    conference,
    core,
    hear,
    join,
    joined,
    keep_heard,
    publish,
    push,
    stream_of,
)

# ---------------------------------------------------------------------- join


def test_join_opens_the_conference_and_is_told_to_the_others_at_once() -> None:
    party = proxy_party()
    assert of("heartbeat", party.live(5.0)) == []  # of no conference there is nothing to say
    reply = join(party)
    assert (reply.granted, reply.current, reply.entries) == (True, (), ())
    assert reply.snapshot is not None
    (beat,) = [each for each in of("heartbeat", party.live(0.0)) if each.name.startswith(ALL_PROXIES)]
    assert decode(beat.read(Sealed).content, ProxyHeartbeat).conferences[0].conference == "main"


@pytest.mark.parametrize(
    ("of_token", "reason"),
    [
        ({"device": "ue2"}, "token_of_other_device"),
        ({"conference": "x"}, "token_of_other_conference"),
        ({"expires_s": 1.0}, "token_expired"),
    ],
)
def test_refused_join_is_told_why_and_leaves_no_trace(of_token: dict[str, Any], reason: str) -> None:
    party = proxy_party()
    reply = join(party, **of_token) if "device" not in of_token else None
    if reply is None:
        request = join_request(token(**of_token))
        (sent,) = party.ask(ME, JOIN, "main", "ue1", seq=1, payload=request)
        reply = sent.read(JoinReply)
    assert (reply.granted, reply.reason, reply.snapshot) == (False, reason, None)
    assert core(party).conferences == {}
    assert party.core.counters[f"refused_{reason}"] == 1


def test_joining_again_gets_the_suffix_and_keeps_the_session() -> None:
    party = joined("ue1", "ue2")
    for seq in (1, 2, 3):
        publish(party, seq)
    reply = join(party, "ue2", known=(("csr1", 1, 1),), seq=2)
    assert [entry.seq for entry in reply.entries] == [2, 3]
    assert reply.snapshot is None
    assert party.core.counters["joins"] == 2


def test_joining_again_from_behind_the_history_gets_a_snapshot() -> None:
    party = joined("ue1", "ue2", history_max_entries=2)
    for seq in range(1, 6):
        publish(party, seq)
    reply = join(party, "ue2", known=(("csr1", 1, 1),), seq=2)
    assert reply.entries == ()
    assert reply.snapshot is not None
    assert [(head.device, head.seq) for head in reply.snapshot.heads] == [("ue1", 5)]
    assert reply.current == (("csr1", 1, 5),)


def test_join_is_answered_however_many_devices_there_are() -> None:
    party = joined("ue1")
    heads = tuple(Head(f"ue{number}", 1, 5, bytes(16), joined=True) for number in range(1_000, 1_500))
    conference(party).log.view.install(Snapshot(heads, ()))
    assert join(party, "ue2").granted


# ---------------------------------------------------------------------- updates and acks


def test_update_is_acked_with_its_place_and_notified_to_the_others() -> None:
    party = joined("ue1", "ue2")
    sent = publish(party, 1)
    assert acks(sent) == [(1, "accepted", 1)]
    (notification,) = of("notification", sent)
    assert notification.name.startswith(to("ue2") + NOTIFY)
    told = notification.read(Notification)
    assert (told.last, told.current) == ((("csr1", 1, 0),), (("csr1", 1, 1),))
    assert [entry.seq for entry in told.entries] == [1]


def test_repeated_update_is_acked_as_before_and_accepted_once() -> None:
    party = joined()
    publish(party, 1)
    publish(party, 2)
    assert acks(publish(party, 1)) == [(1, "accepted", 1)]
    assert conference(party).own.seq == 2
    assert party.core.counters["updates_repeated"] == 1


def test_update_that_comes_early_waits_for_those_before_it() -> None:
    party = joined()
    assert acks(publish(party, 3)) == []
    assert acks(publish(party, 2)) == []
    assert acks(publish(party, 1)) == [(1, "accepted", 1), (2, "accepted", 2), (3, "accepted", 3)]


def test_client_that_comes_from_another_proxy_goes_on_where_it_was() -> None:
    party = proxy_party()
    request = join_request(token(), acked_seq=7, known=())  # seven of its updates were acked elsewhere
    party.ask(ME, JOIN, "main", "ue1", seq=1, payload=request)
    assert acks(publish(party, 9)) == []
    assert acks(publish(party, 8)) == [(8, "accepted", 1), (9, "accepted", 2)]


@pytest.mark.parametrize("device", ["ue1", "ue9"])
def test_update_of_somebody_who_has_not_joined(device: str) -> None:
    party = proxy_party()
    assert acks(publish(party, 1, device)) == [(1, "not_joined", 0)]
    assert core(party).conferences == {}


def test_forged_update_is_refused_and_changes_nothing() -> None:
    party = joined("ue1", "ue2")
    forged = SignedUpdate(signed_update(1).update, b"x" * 64)
    sent = publish(party, 1, update=forged)
    assert acks(sent) == [(1, "update_forged", 0)]
    assert of("notification", sent) == []
    assert conference(party).own.seq == 0
    assert acks(publish(party, 1)) == [(1, "accepted", 1)]


# ---------------------------------------------------------------------- notifications


def test_notification_is_repeated_until_it_is_acked() -> None:
    party = joined("ue1", "ue2")
    (notification,) = of("notification", publish(party, 1))
    repeated = of("notification", keep_heard(party, 0.5, "ue1", "ue2"))
    assert repeated
    assert {each.name for each in repeated} == {notification.name}
    party.answer(notification, b"")
    assert of("notification", keep_heard(party, 1.0, "ue1", "ue2")) == []


def test_notifications_in_flight_are_bounded_and_what_waits_is_collected() -> None:
    party = joined("ue1", "ue2")
    sent = [each for seq in range(1, 40) for each in of("notification", publish(party, seq))]
    assert len(sent) == 16
    (next_one,) = of("notification", party.answer(sent[0], b""))
    assert [entry.seq for entry in next_one.read(Notification).entries] == list(range(17, 40))


def test_what_comes_faster_than_we_look_at_it_goes_to_each_client_in_one_notification() -> None:
    party = joined("ue1", "ue2")
    hear(party)
    assert [of("notification", push(party, entry, more=True)) for entry in REMOTE[:2]] == [[], []]
    sent = of("notification", push(party, REMOTE[2]))
    assert [sorted(entry.seq for entry in each.read(Notification).entries) for each in sent] == [[1, 2, 3], [1, 2, 3]]
    push(party, REMOTE[3], more=True)
    later = party.handle(TimerExpired())  # whatever comes next
    assert [[entry.seq for entry in each.read(Notification).entries] for each in of("notification", later)] == [
        [4],
        [4],
    ]


def test_client_that_does_not_answer_is_given_up_and_is_not_there() -> None:
    """It is heard again when it speaks, not when we stop asking."""
    party = joined("ue1", "ue2")
    publish(party, 1)
    keep_heard(party, 10.0, "ue1")
    assert (
        party.core.counters["notifications_given_up"] == 2
    )  # and what told ue1, which never acks here, that ue2 is away
    assert not conference(party).clients["ue2"].present
    assert of("notification", publish(party, 2)) == []  # nothing more is sent to it but heartbeats
    keep_heard(party, 25.0, "ue1")
    assert "ue2" not in conference(party).clients
    assert "ue1" in conference(party).clients


def test_absent_client_hears_heartbeats_and_is_served_again_when_it_speaks() -> None:
    party = joined("ue1", "ue2")
    sent = keep_heard(party, 2.0, "ue1")
    assert not conference(party).clients["ue2"].present
    beats = [each for each in of("heartbeat", sent) if each.name.startswith(to("ue2"))]
    assert len(beats) >= 8
    keep_heard(party, 0.1, "ue2")
    assert conference(party).clients["ue2"].present
    assert of("notification", publish(party, 1))


def test_heartbeats_to_clients_say_where_we_are_and_are_spared_by_notifications() -> None:
    party = joined("ue1", "ue2")
    spared = []
    for seq in range(1, 11):
        publish(party, seq)
        sent = keep_heard(party, 0.1, "ue1", "ue2")
        for each in of("notification", sent):
            party.answer(each, b"")
        spared += [each for each in of("heartbeat", sent) if each.name.startswith(to("ue2"))]
    assert len(spared) <= 2
    beats = [each for each in of("heartbeat", keep_heard(party, 1.0, "ue1", "ue2")) if each.name.startswith(to("ue2"))]
    assert len(beats) >= 4
    assert decode(beats[-1].read(Sealed).content, ClientHeartbeat).current == (("csr1", 1, 10),)


def test_one_notification_says_to_each_client_what_it_may_know() -> None:
    """Who waits for an ack is not told of the place of its own update: it would believe to have missed something."""
    party = joined("ue1", "ue2", "ue3", ack_level="durable", log_path="log")
    publish(party, 1, "ue2", update=signed_update(1, "join", device="ue2", signer=UE2))
    party.live(SOON_S)
    publish(party, 1, update=signed_update(1, "join"))
    sent = of("notification", publish(party, 2))
    told = {each.name[: len(to("ue2"))]: each.read(Notification) for each in sent}
    assert told[to("ue2")].entries == told[to("ue3")].entries
    assert told[to("ue2")].current == (("csr1", 1, 0),)
    assert told[to("ue3")].current == (("csr1", 1, 3),)


# ---------------------------------------------------------------------- moving between proxies


def roster_of(party: Party, device: str) -> tuple[int, str] | None:
    event = conference(party).log.view.presence_of(device)
    return None if event is None else (event.join, event.state)


def claim(party: Party, number: int) -> None:
    """Let another proxy say that ue1 has joined there."""
    conference(party).log.view.note(RosterEvent("ue1", 1, number, 1, "present"))


def test_client_that_comes_back_from_another_proxy_is_told_of() -> None:
    """Even if it was not missed here: what the other one says of it must not stand."""
    party = joined()
    claim(party, 2)
    join(party, seq=3, known=())
    assert roster_of(party, "ue1") == (3, "present")
    assert party.core.counters["roster_present"] == 1


def test_client_that_never_went_anywhere_is_no_news() -> None:
    party = joined()
    join(party, seq=2, known=())
    assert roster_of(party, "ue1") is None


def test_speaker_that_comes_from_another_proxy_is_told_of_once_it_is_known_to_have_spoken() -> None:
    """It may be let in before we have heard of its join; the proxy that it was at would take it for gone."""
    party = proxy_party(announce="at-first-update")
    join(party, seq=2, known=())
    keep_heard(party, 0.5, "ue1")
    assert roster_of(party, "ue1") is None, "as far as we know, it only listens"
    push(party, stream_of("csr2", signed_update(1, "join"))[0])
    keep_heard(party, 0.5, "ue1")
    assert roster_of(party, "ue1") == (2, "present")
    assert party.core.counters["roster_present"] == 1


def test_client_that_has_moved_is_forgotten_once_it_is_silent() -> None:
    party = joined("ue1", "ue2")
    claim(party, 2)
    keep_heard(party, 1.0, "ue1", "ue2")
    assert "ue1" in conference(party).clients  # it is served here until its way there is clear
    keep_heard(party, 1.0, "ue2")
    assert set(conference(party).clients) == {"ue2"}
    assert party.core.counters["clients_moved"] == 1
    assert roster_of(party, "ue1") == (2, "present")
    assert not party.core.counters["roster_away"]


def test_heartbeat_of_a_client_is_heard_once_and_only_with_its_proof() -> None:
    party, device = proxy_party(), KeyExchange(bytes(32), boot=1)
    request = join_request(token())
    unsigned = msgspec.structs.replace(request, signature=b"", exchange_key=device.public_key)
    statement = join_statement(unsigned, MessageName(JOIN, ("main", "ue1"), 1, 1), "csr1")
    request = msgspec.structs.replace(unsigned, signature=UE1.sign(statement))
    (reply,) = of("join-reply", party.ask(ME, JOIN, "main", "ue1", seq=1, payload=request))
    key = device.session_key(reply.read(JoinReply).exchange_key, conference="main", device="ue1", proxy="csr1")
    party.now_s += 5.0
    name = message_name(ME, PRESENCE, "main", "ue1", boot=1, seq=7)
    beat = ClientHeartbeat(EMPTY_DIGEST, ())
    proven = proven_heartbeat(beat, name, key)
    for number, payload in ((7, beat), (8, proven), (7, proven), (7, proven), (6, proven)):
        party.ask(ME, PRESENCE, "main", "ue1", seq=number, payload=payload)
    assert conference(party).clients["ue1"].heard_s == party.now_s
    counters = party.core.counters
    assert (counters["refused_heartbeat_forged"], counters["refused_heartbeat_replayed"]) == (3, 1)


# ---------------------------------------------------------------------- close


def close(party: Party, seq: int, **properties: Any) -> list[Sent]:
    leave = signed_update(seq, "leave", **properties)
    return party.ask(ME, CLOSE, "main", "ue1", seq=seq, payload=CloseRequest(leave))


def test_close_is_answered_notified_and_ends_the_session() -> None:
    party = joined("ue1", "ue2")
    publish(party, 1, update=signed_update(1, "join"))
    assert conference(party).log.view.roster() == ["ue1"]
    sent = close(party, 2)
    (reply,) = of("close-reply", sent)
    assert reply.read(UpdateAck).level == "accepted"
    assert of("notification", sent) == []
    assert len(of("notification", party.live(SOON_S))) == 1
    assert conference(party).log.view.roster() == []
    assert set(conference(party).clients) == {"ue2"}


def test_repeated_close_is_answered_though_the_session_is_gone() -> None:
    party = joined()
    close(party, 1)
    (reply,) = close(party, 1)
    assert reply.read(UpdateAck).level == "accepted"
    assert conference(party).own.seq == 1


def test_close_waits_for_the_updates_before_it() -> None:
    party = joined()
    assert close(party, 2) == []
    assert party.core.counters["refused_close_out_of_order"] == 1
    publish(party, 1)
    assert of("close-reply", close(party, 2))


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (signed_update(1, "message"), "close_out_of_order"),
        (signed_update(1, "leave", signer=UE2), "fingerprint_of_other_key"),
    ],
)
def test_refused_close(leave: SignedUpdate, reason: str) -> None:
    party = joined()
    assert party.ask(ME, CLOSE, "main", "ue1", seq=1, payload=CloseRequest(leave)) == []
    assert party.core.counters[f"refused_{reason}"] == 1
    assert "ue1" in conference(party).clients


def test_the_conference_outlives_its_last_client_here() -> None:
    party = joined()
    close(party, 1)
    assert "main" in core(party).conferences
