"""Who only listens is not announced: known to its proxy alone, until it has something to say."""

from __future__ import annotations

from proxy.core.events import CloseRequested, JoinRequested
from proxy.records import Applied, Published, SessionChanged
from tests.simulated.conference import TIERS, Conference


def listeners_conference(**settings: object) -> Conference:
    return Conference(TIERS, announce="at-first-update", **settings)  # type: ignore[arg-type]


def published(conference: Conference, device: str) -> list[str]:
    return [
        record.event
        for record in conference.network.records
        if isinstance(record, Published) and record.publisher == device
    ]


def serving(conference: Conference, device: str) -> list[str]:
    """Return the proxies that have a session of a device."""
    return [
        proxy
        for proxy in conference.proxies
        for each in conference.network.proxy(proxy).conferences.values()
        if device in each.clients
    ]


def rosters(conference: Conference, *, but: str = "") -> set[tuple[tuple[str, str], ...]]:
    """Return every different view of how devices stand."""
    return {tuple(sorted(conference.network.client(ue).view.standings().items())) for ue in conference.ues if ue != but}


def test_joins_of_listeners_are_told_to_nobody_and_a_speaker_is_announced_by_what_it_says() -> None:
    conference = listeners_conference()
    conference.join()
    conference.run_for(0.3)  # proxies know of each other
    assert not [record for record in conference.network.records if isinstance(record, Applied | Published)]
    conference.publish("ue1", count=2)
    conference.run_for(1.0)
    conference.publish("ue1")
    conference.assert_invariants()
    assert published(conference, "ue1") == ["join", "message", "message", "message"]
    assert rosters(conference) == {(("ue1", "joined"),)}
    got = [record for record in conference.network.records if isinstance(record, Applied)]
    assert len(got) == 4 * (len(conference.ues) - 1)
    assert {record.via for record in got} <= {"armed", "push"}


def test_a_listener_leaves_as_quietly_as_it_came_and_may_come_back_to_speak() -> None:
    conference = listeners_conference()
    conference.join()
    assert serving(conference, "ue2")
    conference.close("ue2")
    conference.run_for(0.5)
    assert conference.network.client("ue2").state == "closed"
    assert serving(conference, "ue2") == []
    assert not [record for record in conference.network.records if isinstance(record, Published)]
    conference.publish("ue1")
    conference.assert_invariants()
    conference.members.add("ue2")
    conference.network.send("ue2", JoinRequested())
    conference.run_for(1.0)
    conference.publish("ue2")
    conference.assert_invariants()
    assert rosters(conference) == {(("ue1", "joined"), ("ue2", "joined"))}
    conference.close("ue2")  # now everybody has to be told
    conference.run_for(1.0)
    conference.assert_invariants()
    assert published(conference, "ue2") == ["join", "message", "leave"]
    assert rosters(conference, but="ue2") == {(("ue1", "joined"), ("ue2", "left"))}
    conference.members.add("ue2")
    conference.network.send("ue2", JoinRequested())
    conference.run_for(1.0)
    conference.close("ue2")  # it had come back, to listen
    conference.run_for(1.0)
    conference.assert_invariants()
    assert published(conference, "ue2") == ["join", "message", "leave"]
    assert conference.network.client("ue2").state == "closed"


def test_a_close_whose_reply_is_lost_is_asked_for_again() -> None:
    conference = listeners_conference()
    conference.join()
    (link,) = conference.topology.links_of("ue2")
    to_ue = "b_to_a" if link.a == "ue2" else "a_to_b"
    conference.network.block(link.name, to_ue)  # type: ignore[arg-type]
    conference.close("ue2")
    conference.run_for(0.3)
    conference.network.unblock(link.name)
    conference.run_for(5.0)
    conference.assert_invariants()
    assert conference.network.client("ue2").state == "closed"
    assert serving(conference, "ue2") == []


def test_listeners_tokens_are_renewed_at_their_proxy() -> None:
    conference = listeners_conference(login_settings={"token_lifetime_s": 3.0})
    conference.join()
    for _ in range(10):
        conference.publish("ue1")
        conference.run_for(1.0)
    conference.assert_invariants()
    states = [
        record.state
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == "ue2"
    ]
    assert "login" not in states[1:]
    assert not conference.network.counters("csr1.proxy").get("sessions_ended_token_expired")


def test_a_listener_that_is_away_moves_or_is_gone_for_good_is_no_news() -> None:
    conference = listeners_conference(proxy_settings={"leave_grace_s": 2.0})
    conference.join()
    (link,) = conference.topology.links_of("ue2")
    conference.network.block(link.name)
    conference.run_for(1.0)
    for proxy in conference.proxies:
        assert not conference.network.counters(f"{proxy}.proxy").get("roster_away")
    conference.network.unblock(link.name)
    conference.publish("ue1")
    conference.assert_invariants()
    conference.network.crash("ue2.forwarder")
    conference.members.discard("ue2")
    conference.run_for(5.0)
    assert serving(conference, "ue2") == []
    assert {
        name
        for proxy in conference.proxies
        for name in conference.network.counters(f"{proxy}.proxy")
        if "roster" in name
    } == set()


def test_a_speaker_that_goes_to_another_proxy_is_there_for_everybody() -> None:
    """Its new proxy may let it in before it has heard that the device was ever announced."""
    conference = listeners_conference(proxy_settings={"leave_grace_s": 2.0})
    conference.join()
    before = serving(conference, "ue1")
    conference.publish("ue1")
    conference.network.crash(f"{before[0]}.proxy")
    conference.publish("ue8")
    conference.run_for(3.0)
    assert serving(conference, "ue1") != before
    conference.network.restart(f"{before[0]}.proxy")
    conference.run_for(8.0)
    conference.publish("ue1")
    conference.assert_invariants()
    assert rosters(conference) == {(("ue1", "joined"), ("ue8", "joined"))}


def test_who_was_announced_cannot_leave_quietly() -> None:
    """Or everybody would see it there for ever."""
    conference = listeners_conference()
    conference.join()
    conference.publish("ue1")
    conference.run_for(0.5)
    client = conference.network.client("ue1")
    client._publisher.is_announced = False
    conference.network.send("ue1", CloseRequested())
    conference.run_for(0.1)
    assert sum(
        conference.network.counters(f"{proxy}.proxy").get("refused_close_out_of_order", 0)
        for proxy in conference.proxies
    )
