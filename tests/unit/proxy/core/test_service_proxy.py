"""The service proxy, one situation at a time: clients, other proxies, recovery, silence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.armed_width import ARMED_MIN, NARROW_AFTER_S
from proxy.core.conference import Conference
from proxy.core.service_proxy import ServiceProxy
from proxy.core.session_key import KeyExchange, proven_heartbeat
from proxy.core.trust import join_statement, place_of, seal
from proxy.records import PeerChanged
from proxy.wire.messages import (
    ALL_PROXIES,
    CLOSE,
    EMPTY_DIGEST,
    HEARTBEAT,
    JOIN,
    NOTIFY,
    PRESENCE,
    PUSH,
    RECOVER,
    SYNC,
    UPDATE,
    ClientHeartbeat,
    CloseRequest,
    ConferenceState,
    Head,
    JoinReply,
    JoinRequest,
    MessageName,
    Notification,
    Position,
    ProxyHeartbeat,
    RecoveryReply,
    RecoveryRequest,
    RosterEvent,
    Sealed,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    SyncUpdate,
    UpdateAck,
    decode,
    encode,
    message_name,
)
from tests.unit.proxy.core.parties import (
    PROXIES,
    UE1,
    UE2,
    Party,
    Sent,
    join_request,
    of,
    proxy_party,
    signed_entry,
    signed_update,
    to,
    token,
)

KEYS = {"ue2": UE2}
ME = to("csr1")


def core(party: Party) -> ServiceProxy:
    assert isinstance(party.core, ServiceProxy)
    return party.core


def conference(party: Party) -> Conference:
    return core(party).conferences["main"]


def join(
    party: Party, device: str = "ue1", *, known: tuple[Position, ...] | None = None, seq: int = 1, **of_token: Any
) -> JoinReply:
    signer = {"signer": UE2} if device == "ue2" else {}
    signed = token(device, **signer, **of_token)
    request = join_request(signed, signer.get("signer", UE1), device=device, seq=seq, known=known)
    (reply,) = of("join-reply", party.ask(ME, JOIN, "main", device, seq=seq, payload=request))
    return reply.read(JoinReply)


def publish(party: Party, seq: int, device: str = "ue1", *, update: SignedUpdate | None = None) -> list[Sent]:
    signer = {"signer": UE2} if device == "ue2" else {}
    update = update or signed_update(seq, device=device, **signer)  # type: ignore[arg-type]
    return party.ask(ME, UPDATE, "main", device, seq=seq, payload=update)


def acks(sent: list[Sent]) -> list[tuple[int, str, int]]:
    """Return (seq of the update, level or reason, place in the stream)."""
    read = [(each.parsed.seq, each.read(UpdateAck)) for each in of("update-ack", sent)]
    return [(seq, ack.reason or ack.level, ack.stream_seq) for seq, ack in read]


def joined(*devices: str, **settings: Any) -> Party:
    party = proxy_party(**settings)
    for device in devices or ("ue1",):
        assert join(party, device).granted
    return party


def hear(party: Party, sender: str = "csr2", *positions: Position, boot: int = 1) -> list[Sent]:
    """Let the heartbeat of another proxy arrive."""
    beat, number = ProxyHeartbeat((ConferenceState("main", EMPTY_DIGEST, positions),)), next(party.numbers)
    sealed = seal(PROXIES[sender], beat, place_of(HEARTBEAT, sender, boot=boot, seq=number))
    return party.ask(ALL_PROXIES, HEARTBEAT, sender, seq=number, payload=sealed, boot=boot)


def keep_heard(party: Party, duration_s: float, *clients: str, proxies: tuple[str, ...] = ()) -> list[Sent]:
    """Let time pass while these are heard."""
    sent = []
    for _ in range(round(duration_s / 0.1)):
        for device in clients:
            sent += party.ask(
                ME, PRESENCE, "main", device, seq=int(party.now_s * 1e6), payload=ClientHeartbeat(EMPTY_DIGEST, ())
            )
        for proxy in proxies:
            sent += hear(party, proxy)
        sent += party.live(0.1)
    return sent


def stream_of(proxy: str, *updates: SignedUpdate) -> list[StreamEntry]:
    """Return the entries of another proxy's stream, one update in each."""
    entries, digest = [], EMPTY_DIGEST
    for seq, update in enumerate(updates, start=1):
        entries.append(signed_entry(proxy, seq, update, after=digest))
        digest = decode(entries[-1].content, SyncUpdate).chain_digest
    return entries


REMOTE = stream_of(
    "csr2",
    *[signed_update(seq, "message" if seq > 1 else "join", device="ue2", signer=UE2) for seq in range(1, 31)],
)


def push(party: Party, entry: StreamEntry) -> list[Sent]:
    return party.ask(ALL_PROXIES, PUSH, "main", entry.proxy, seq=entry.seq, payload=entry)


def asked_for(sent: list[Sent]) -> list[int]:
    """Return the sequence numbers of sync interests."""
    return [each.parsed.seq for each in of("sync-interest", sent)]


# ---------------------------------------------------------------------- clients: join


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


# ---------------------------------------------------------------------- clients: updates and acks


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


# ---------------------------------------------------------------------- clients: notifications


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


# ---------------------------------------------------------------------- clients: moving between proxies


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


# ---------------------------------------------------------------------- clients: close


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
    assert len(of("notification", sent)) == 1
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


# ---------------------------------------------------------------------- other proxies: sending


@pytest.mark.parametrize(
    ("mode", "armed", "how"),
    [
        ("hybrid", True, ["sync-update"]),
        ("hybrid", False, ["push"]),
        ("push", True, ["push"]),
        ("push", False, ["push"]),
        ("pull", True, ["sync-update"]),
        ("pull", False, []),
    ],
)
def test_how_an_update_goes_to_the_other_proxies(mode: str, armed: bool, how: list[str]) -> None:  # noqa: FBT001
    party = joined(mode=mode)
    hear(party)
    if armed:
        assert party.ask(ME, SYNC, "main", seq=1) == []
    sent = [each for each in publish(party, 1) if each.message in ("sync-update", "push")]
    assert [each.message for each in sent] == how
    carried = [each.payload if each.message == "sync-update" else each.read(StreamEntry).content for each in sent]
    assert [decode(content, SyncUpdate).updates for content in carried] == [(signed_update(1),)] * len(how)


def test_armed_interest_expires() -> None:
    party = joined()
    hear(party)
    party.ask(ME, SYNC, "main", seq=1)
    keep_heard(party, 4.2, "ue1", proxies=("csr2",))
    assert of("push", publish(party, 1))


def test_alone_nobody_is_pushed_to() -> None:
    assert of("push", publish(joined(), 1)) == []


def test_sync_interest_of_what_exists_is_answered_and_may_be_kept() -> None:
    party = joined()
    publish(party, 1)
    (update,) = party.ask(ME, SYNC, "main", seq=1)
    assert update.read(SyncUpdate).updates == (signed_update(1),)


def test_sync_interest_of_what_is_only_in_the_snapshot() -> None:
    party = joined(history_max_entries=1)
    publish(party, 1)
    publish(party, 2)
    (update,) = party.ask(ME, SYNC, "main", seq=1)
    assert update.read(SyncUpdate).truncated


@pytest.mark.parametrize(("parts", "boot"), [(("other",), 1), (("main",), 2), ((), 1), (("main", "x"), 1)])
def test_sync_interest_of_what_is_not_ours(parts: tuple[str, ...], boot: int) -> None:
    party = joined()
    assert party.ask(ME, SYNC, *parts, seq=1, boot=boot) == []
    assert party.core.counters["sync_interests_unknown"] == 1


def test_armed_interests_are_bounded() -> None:
    party = joined()
    for seq in range(1, 2_000):
        party.ask(ME, SYNC, "main", seq=seq)
    assert len(conference(party).armed) == 512


def test_heartbeat_to_all_proxies_carries_the_vector() -> None:
    party = joined()
    publish(party, 1)
    beats = [each for each in of("heartbeat", keep_heard(party, 1.0, "ue1")) if each.name.startswith(ALL_PROXIES)]
    assert 4 <= len(beats) <= 7
    (state,) = decode(beats[-1].read(Sealed).content, ProxyHeartbeat).conferences
    assert (state.conference, state.current) == ("main", (("csr1", 1, 1),))
    assert state.state_digest == conference(party).log.state_digest()


# ---------------------------------------------------------------------- other proxies: receiving


def test_heard_for_the_first_time_a_proxy_is_followed() -> None:
    party = joined()
    assert asked_for(hear(party)) == list(range(1, ARMED_MIN + 1))
    assert hear(party) == []
    assert [(record.peer, record.state) for record in party.records if isinstance(record, PeerChanged)] == [
        ("csr2", "up")
    ]


def test_in_push_mode_nothing_is_armed() -> None:
    assert asked_for(hear(joined(mode="push"))) == []


def test_sync_update_is_notified_and_the_next_is_armed() -> None:
    party = joined()
    asked = of("sync-interest", hear(party))
    sent = party.answer(asked[0], REMOTE[0].content)
    (notification,) = of("notification", sent)
    (entry,) = notification.read(Notification).entries
    assert (entry.proxy, entry.seq, entry.via, entry.content) == ("csr2", 1, "armed", REMOTE[0].content)
    assert asked_for(sent) == [ARMED_MIN + 1]


def test_gap_in_a_stream_is_asked_for_at_once() -> None:
    party = joined()
    asked = of("sync-interest", hear(party))
    sent = party.answer(asked[2], REMOTE[2].content)
    assert sorted(asked_for(sent)) == [1, 2, 5, 6, 7]
    assert conference(party).log.vector() == ()
    party.answer(asked[0], REMOTE[0].content)
    party.answer(asked[1], REMOTE[1].content)
    assert conference(party).log.vector() == (("csr2", 1, 3),)


def test_push_is_taken_and_widens_the_following() -> None:
    party = joined()
    hear(party)
    sent = push(party, REMOTE[0])
    (entry,) = of("notification", sent)[0].read(Notification).entries
    assert entry.via == "push"
    assert conference(party).widths["csr2"].width == 2 * ARMED_MIN
    assert asked_for(sent) == list(range(5, 2 + 2 * ARMED_MIN))
    assert of("notification", push(party, REMOTE[0])) == []
    assert party.core.counters["entries_repeated"] == 1


def test_width_is_bounded_and_narrows_again() -> None:
    party = joined(armed_max=16)
    hear(party)
    for entry in REMOTE[:5]:
        push(party, entry)
    assert conference(party).widths["csr2"].width == 16
    keep_heard(party, NARROW_AFTER_S + 1.0, "ue1", proxies=("csr2",))
    assert conference(party).widths["csr2"].width == 8
    keep_heard(party, NARROW_AFTER_S + 1.0, "ue1", proxies=("csr2",))
    assert conference(party).widths["csr2"].width == ARMED_MIN


def test_push_under_another_entrys_name_is_malformed() -> None:
    party = joined()
    hear(party)
    assert party.ask(ALL_PROXIES, PUSH, "main", "csr2", seq=2, payload=REMOTE[0]) == []
    assert party.core.counters["malformed"] == 1


def test_own_push_coming_back_is_ignored() -> None:
    party = joined()
    own = stream_of("csr1", signed_update(1))[0]
    assert push(party, own) == []
    assert conference(party).own.seq == 0


def test_push_of_a_conference_that_is_not_held_here() -> None:
    assert push(proxy_party(), REMOTE[0]) == []


def test_heartbeat_shows_what_is_missing() -> None:
    party = joined()
    sent = hear(party, "csr2", ("csr2", 1, 2))
    assert sorted(set(asked_for(sent))) == [1, 2, 3, 4, 5, 6]


def test_missing_entries_of_a_third_proxy_are_seen_too() -> None:
    party = joined()
    hear(party, "csr3")
    sent = [each for each in of("sync-interest", hear(party, "csr2", ("csr3", 1, 1))) if b"csr3" in each.name]
    assert asked_for(sent) == [1, ARMED_MIN + 1]


def test_missing_entries_of_a_proxy_that_is_not_there_are_asked_for_where_they_are() -> None:
    party = joined()
    (recovery,) = of("recovery-request", hear(party, "csr2", ("csr3", 1, 1)))
    assert recovery.name.startswith(to("csr2"))


def test_much_missing_is_asked_for_together() -> None:
    party = joined()
    sent = hear(party, "csr2", ("csr2", 1, 20))
    (recovery,) = of("recovery-request", sent)
    assert recovery.read(RecoveryRequest).known == ()
    reply = RecoveryReply((("csr2", 1, 20),), None, tuple(REMOTE[:20]))
    sent = party.answer(recovery, reply)
    assert conference(party).log.vector() == (("csr2", 1, 20),)
    entries = [entry for each in of("notification", sent) for entry in each.read(Notification).entries]
    assert [entry.via for entry in entries] == ["recovery"] * len(entries)


def test_entry_that_its_origin_does_not_give_is_asked_for_elsewhere() -> None:
    party = joined()
    sent = hear(party, "csr2", ("csr3", 1, 1)) + keep_heard(party, 8.0, "ue1", proxies=("csr2",))
    recoveries = of("recovery-request", sent)
    assert recoveries
    assert recoveries[0].name.startswith(to("csr2"))


def test_recovery_that_its_origin_does_not_give_is_asked_for_elsewhere() -> None:
    party = joined()
    hear(party, "csr3")
    sent = hear(party, "csr2", ("csr3", 1, 20)) + keep_heard(party, 8.0, "ue1", proxies=("csr2",))
    assert {each.name.split(b"csr")[1][:1] for each in of("recovery-request", sent)} == {b"2", b"3"}


def test_snapshot_of_another_proxy_is_taken_over_and_clients_are_told() -> None:
    party = joined()
    (recovery,) = of("recovery-request", hear(party, "csr2", ("csr2", 1, 20)))
    ahead = joined("ue2")
    for entry in REMOTE[:20]:
        conference(ahead).log.add(entry)
    snapshot = conference(ahead).log.snapshot()
    sent = party.answer(recovery, RecoveryReply((("csr2", 1, 20),), snapshot, ()))
    assert conference(party).log.vector() == (("csr2", 1, 20),)
    (beat,) = [each for each in of("heartbeat", sent) if each.name.startswith(to("ue1"))]
    assert decode(beat.read(Sealed).content, ClientHeartbeat).current == (("csr2", 1, 20),)


def test_truncated_entry_leads_to_recovery() -> None:
    party = joined()
    asked = of("sync-interest", hear(party, "csr2", ("csr2", 1, 2)))
    sent = party.answer(asked[0], SyncUpdate(EMPTY_DIGEST, (), truncated=True))
    assert len(of("recovery-request", sent)) == 1


def test_recovery_request_is_answered_with_the_suffix_or_a_snapshot() -> None:
    party = joined("ue1", "ue2", history_max_entries=5)
    for seq in range(1, 11):
        publish(party, seq)
    for known, entries, has_snapshot in (((("csr1", 1, 7),), [8, 9, 10], False), ((), [], True)):
        payload = RecoveryRequest(known)
        (sent,) = of("recovery-reply", party.ask(ME, RECOVER, "main", "ue2", seq=len(entries) + 1, payload=payload))
        reply = sent.read(RecoveryReply)
        assert [entry.seq for entry in reply.entries] == entries
        assert (reply.snapshot is not None) is has_snapshot
        assert reply.current == (("csr1", 1, 10),)


def test_who_has_not_joined_reads_nothing() -> None:
    party = joined()
    publish(party, 1)
    assert party.ask(ME, RECOVER, "main", "ue2", seq=1, payload=RecoveryRequest(())) == []
    assert party.core.counters["refused_not_joined"] == 1


def test_silent_proxy_is_down_and_up_again() -> None:
    party = joined()
    hear(party)
    keep_heard(party, 1.0, "ue1")
    hear(party)
    changes = [(record.peer, record.state) for record in party.records if isinstance(record, PeerChanged)]
    assert changes == [("csr2", "up"), ("csr2", "down"), ("csr2", "up")]


def test_proxy_that_has_started_again_is_followed_under_its_new_boot() -> None:
    party = joined()
    hear(party)
    sent = of("sync-interest", hear(party, boot=2))
    assert {each.parsed.boot for each in sent} == {2}
    assert hear(party, boot=1) == []  # a late copy from before
    assert conference(party).peers["csr2"].boot == 2


def test_own_heartbeat_coming_back_is_ignored() -> None:
    party = joined()
    assert hear(party, "csr1") == []
    assert conference(party).peers == {}


# ---------------------------------------------------------------------- whatever else comes


@pytest.mark.parametrize("payload", [b"", b"\xc1", encode(UpdateAck("accepted", "", "csr1", 1, 1))])
@pytest.mark.parametrize("kind", [UPDATE, JOIN, CLOSE, RECOVER, HEARTBEAT, PRESENCE, PUSH, NOTIFY])
def test_broken_payload_is_counted(kind: bytes, payload: bytes) -> None:
    party = joined()
    assert party.ask(ME, kind, "main", "ue1", seq=5, payload=payload) == []
    assert party.core.counters["malformed"] == 1


@pytest.mark.parametrize("parts", [(), ("main",), ("main", "ue1", "x")])
@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (UPDATE, signed_update(1)),
        (JOIN, JoinRequest(token(), 1, 0, None)),
        (RECOVER, RecoveryRequest(())),
        (CLOSE, CloseRequest(signed_update(1, "leave"))),
        (PRESENCE, ClientHeartbeat(EMPTY_DIGEST, ())),
    ],
)
def test_name_with_other_than_two_identifiers_is_malformed(kind: bytes, payload: Any, parts: tuple[str, ...]) -> None:
    party = joined()
    assert party.ask(ME, kind, *parts, seq=1, payload=payload) == []
    assert party.core.counters["malformed"] == 1
