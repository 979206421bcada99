"""The service proxy and the other proxies, one situation at a time: streams sent and followed, recovery, silence."""

from __future__ import annotations

from itertools import pairwise

import pytest

from proxy.core.armed_width import ARMED_MIN, NARROW_AFTER_S
from proxy.core.publishing_pace import BUSY_PER_S, COUNTED_S, NEW_S
from proxy.core.service_proxy import QUIET_STRETCH
from proxy.core.stream_sync import LOSSY_HOLD_S
from proxy.records import PeerChanged
from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, PUSH, RECOVER, SYNC
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    Notification,
    ProxyHeartbeat,
    RecoveryReply,
    RecoveryRequest,
    Sealed,
    StreamEntry,
    SyncUpdate,
)
from proxy.wire.payload import decode
from tests.unit.proxy.core.parties import (
    SOON_S,
    Party,
    Sent,
    of,
    proxy_party,
    signed_update,
    to,
)
from tests.unit.proxy.core.proxy_bench import (
    ME,
    REMOTE,
    asked_for,
    conference,
    core,
    hear,
    joined,
    keep_heard,
    publish,
    push,
    stream_of,
)

# ---------------------------------------------------------------------- sending


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


@pytest.mark.parametrize(
    ("mode", "after_s", "how"),
    [
        ("hybrid", 0.5 * LOSSY_HOLD_S, ["sync-update", "push"]),
        ("hybrid", 1.5 * LOSSY_HOLD_S, ["sync-update"]),
        ("pull", 0.5 * LOSSY_HOLD_S, ["sync-update"]),
        ("push", 0.5 * LOSSY_HOLD_S, ["push"]),
    ],
)
def test_where_links_are_lossy_what_is_asked_for_is_pushed_too(mode: str, after_s: float, how: list[str]) -> None:
    party = joined(mode=mode)
    hear(party, lossy_path=True)
    keep_heard(party, after_s, "ue1", proxies=("csr2",))
    party.ask(ME, SYNC, "main", seq=1)
    assert [each.message for each in publish(party, 1) if each.message in ("sync-update", "push")] == how


def until_quiet(party: Party) -> None:
    """Let so much time pass that a new stream is known to be quiet."""
    keep_heard(party, NEW_S + 0.3, "ue1", proxies=("csr2",))


def told(sent: list[Sent]) -> list[bool]:
    """Return, of the heartbeats to all proxies, whether sync interests are to be armed."""
    beats = [each for each in of("heartbeat", sent) if each.name.startswith(ALL_PROXIES)]
    return [decode(each.read(Sealed).content, ProxyHeartbeat).conferences[0].is_armed for each in beats]


def beats_s(party: Party, duration_s: float, *, is_armed: bool) -> list[float]:
    """Return when there was a heartbeat to all proxies, while *is_armed* says whether another's stream is busy."""
    found, end_s = [], party.now_s + duration_s
    while party.now_s < end_s:
        hear(party, is_armed=is_armed)
        found += [party.now_s] * len(told(party.live(0.01)))
    return found


@pytest.mark.parametrize(("mode", "is_armed"), [("hybrid", False), ("push", False), ("pull", True)])
def test_a_quiet_stream_is_pushed_and_the_others_are_told(mode: str, is_armed: bool) -> None:  # noqa: FBT001
    party = joined(mode=mode)
    hear(party)
    until_quiet(party)
    party.ask(ME, SYNC, "main", seq=1)
    way = "sync-update" if is_armed else "push"
    assert [each.message for each in publish(party, 1) if each.message in ("sync-update", "push")] == [way]
    assert set(told(keep_heard(party, 1.0, "ue1", proxies=("csr2",)))) == {is_armed}


def test_who_becomes_busy_says_so_at_once_and_pushes_until_that_is_known() -> None:
    party = joined()
    hear(party)
    until_quiet(party)
    needed = round(BUSY_PER_S * COUNTED_S)
    for seq in range(1, needed):
        assert not told(publish(party, seq))
    publish(party, needed)
    assert told(party.live(0.0)) == [True]
    for seq, after_s, how in ((1, 0.0, ["sync-update", "push"]), (2, 0.7, ["sync-update"])):
        party.ask(ME, SYNC, "main", seq=needed + seq)
        keep_heard(party, after_s, "ue1", proxies=("csr2",))
        sent = publish(party, needed + seq)
        assert [each.message for each in sent if each.message in ("sync-update", "push")] == how


def test_heartbeats_are_rarer_where_all_is_quiet() -> None:
    party = joined()
    beats_s(party, 2.0 * NEW_S, is_armed=False)
    for is_armed, interval_s in ((False, QUIET_STRETCH * 0.2), (True, 0.2)):
        beats_s(party, 0.5, is_armed=is_armed)
        at_s = beats_s(party, 5.0, is_armed=is_armed)
        gaps_s = [after_s - before_s for before_s, after_s in pairwise(at_s)]
        assert 0.75 * interval_s - 0.011 <= min(gaps_s)
        assert 0.9 * interval_s < max(gaps_s) <= interval_s + 0.011
    assert 2 * QUIET_STRETCH * 0.2 < 3 * 0.2, "one may get lost within the detection time"


def test_what_is_new_here_is_told_within_an_interval() -> None:
    party = joined()
    beats_s(party, 2.0 * NEW_S, is_armed=False)
    for entry in REMOTE[:20]:
        while not beats_s(party, 0.01, is_armed=False):
            pass
        push(party, entry)
        assert beats_s(party, 0.21, is_armed=False)


def test_a_push_is_as_good_as_a_heartbeat_but_for_so_long_only() -> None:
    party = joined()
    beats_s(party, 2.0 * NEW_S, is_armed=False)
    pushed_s, beaten_s = list[float](), list[float]()
    for seq in range(1, 101):
        assert of("push", publish(party, seq))
        pushed_s.append(party.now_s)
        beaten_s += beats_s(party, 0.1, is_armed=False)
    assert len(beaten_s) < 0.7 * 10.0 / 0.2
    assert max(after_s - before_s for before_s, after_s in pairwise(beaten_s)) <= 2 * 0.2 + 0.011
    assert beats_s(party, 0.21, is_armed=False), "within an interval of the last push"


def test_only_heartbeats_that_are_believed_tell_of_lossy_links() -> None:
    party = joined()
    hear(party)
    party.ask(ALL_PROXIES, HEARTBEAT, "csr2", seq=99, payload=b"forged", lossy_path=True)
    party.ask(ME, SYNC, "main", seq=1, lossy_path=True)
    assert not of("push", publish(party, 1))


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


# ---------------------------------------------------------------------- receiving


def test_heard_for_the_first_time_a_proxy_is_followed() -> None:
    party = joined()
    assert asked_for(hear(party)) == list(range(1, ARMED_MIN + 1))
    assert hear(party) == []
    assert [(record.peer, record.state) for record in party.records if isinstance(record, PeerChanged)] == [
        ("csr2", "up")
    ]


def test_in_push_mode_nothing_is_armed() -> None:
    assert asked_for(hear(joined(mode="push"))) == []


def test_a_stream_is_followed_while_it_is_busy() -> None:
    party = joined()
    assert asked_for(hear(party, is_armed=False)) == []
    assert asked_for(push(party, REMOTE[0])) == []
    assert asked_for(hear(party, is_armed=True)) == list(range(2, 2 + ARMED_MIN))
    hear(party, is_armed=False)
    for _ in range(50):
        hear(party, is_armed=False)
        assert asked_for(party.live(0.1)) == [], "none is renewed"
    assert not core(party).armed_interests()
    assert conference(party).widths["csr2"].width == ARMED_MIN, "that a quiet stream is pushed widens nothing"


def test_a_push_shows_that_its_proxy_is_there() -> None:
    party = joined()
    hear(party, is_armed=False)
    for entry in REMOTE[:10]:
        keep_heard(party, 0.4, "ue1")
        push(party, entry)
    assert conference(party).peers["csr2"].up
    keep_heard(party, 1.0, "ue1")
    assert not conference(party).peers["csr2"].up


def test_sync_update_is_notified_and_the_next_is_armed() -> None:
    party = joined()
    asked = of("sync-interest", hear(party))
    sent = party.answer(asked[0], REMOTE[0].content)
    (notification,) = of("notification", party.live(SOON_S))
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
    (entry,) = of("notification", party.live(SOON_S))[0].read(Notification).entries
    assert entry.via == "push"
    assert conference(party).widths["csr2"].width == 2 * ARMED_MIN
    assert asked_for(sent) == list(range(5, 2 + 2 * ARMED_MIN))
    assert of("notification", push(party, REMOTE[0])) == []
    assert party.core.counters["entries_repeated"] == 1


def test_copy_that_was_faster_than_the_answer_does_not_widen() -> None:
    """Where links are lossy an entry comes both ways; that the push was first does not mean that nobody had asked."""
    party = joined()
    hear(party)
    conference(party).widths["csr2"].answered(0.05, 32, now_s=party.now_s)
    keep_heard(party, 0.5, "ue1", proxies=("csr2",))
    push(party, REMOTE[0])
    assert conference(party).widths["csr2"].width == ARMED_MIN
    push(party, REMOTE[0])  # once more, as it comes round
    assert conference(party).widths["csr2"].width == ARMED_MIN


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
