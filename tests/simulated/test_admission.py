"""Who may take part: tokens, their renewal and their end; rosters; several conferences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.events import JoinRequested, PublishRequested, RevokeRequested
from proxy.core.service_client import PublishError
from proxy.records import Applied, Granted, SessionChanged
from tests.simulated.conference import TIERS, Conference
from tests.simulated.interception import intercept

#: Of clients and proxies, by default: 0.2 s x 3.
DETECTION_S = 0.6
HEARTBEAT_S = 0.2


def sessions(conference: Conference, ue: str) -> list[tuple[str, str]]:
    return [
        (record.state, record.reason)
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == ue
    ]


def cut(conference: Conference, ue: str, *, up: bool = False) -> None:
    for link in conference.topology.links_of(ue):
        conference.network.set_carrier(link.name, up=up)


def rosters(conference: Conference, *, but: str = "") -> set[tuple[tuple[str, str], ...]]:
    """Return every different view of who is there, of clients and proxies."""
    views = [conference.network.client(ue).view for ue in conference.ues if ue != but]
    views += [each.log.view for csr in conference.csrs for each in conference.network.proxy(csr).conferences.values()]
    return {tuple(sorted(view.standings().items())) for view in views}


def test_tokens_are_renewed_and_the_conference_goes_on() -> None:
    conference = Conference(TIERS, login_settings={"token_lifetime_s": 3.0})
    conference.join()
    conference.publish_everywhere(rounds=20, interval_s=0.5)
    conference.assert_invariants()
    for ue in conference.ues:
        assert sessions(conference, ue) == [("login", ""), ("joining", "logged in"), ("joined", "")]
        assert sum(isinstance(record, Granted) and record.device == ue for record in conference.network.records) >= 5


def test_login_server_down_for_less_than_a_token_lasts_is_not_noticed() -> None:
    conference = Conference(TIERS, login_settings={"token_lifetime_s": 6.0})
    conference.join()
    conference.network.processes["login.forwarder"].running = False
    conference.publish_everywhere(rounds=10, interval_s=0.5)
    conference.network.processes["login.forwarder"].running = True
    conference.publish_everywhere(rounds=10, interval_s=0.5)
    conference.assert_invariants()
    assert all(sessions(conference, ue)[-1] == ("joined", "") for ue in conference.ues)


def test_login_server_down_for_longer_ends_sessions_until_it_is_back() -> None:
    conference = Conference(TIERS, login_settings={"token_lifetime_s": 3.0})
    conference.join()
    conference.network.processes["login.forwarder"].running = False
    conference.run_for(4.0)
    assert {conference.network.client(ue).state for ue in conference.ues} == {"login"}
    assert {standing for roster in rosters(conference) for _, standing in roster} <= {"left", "joined"}
    before = len([record for record in conference.network.records if isinstance(record, Applied)])
    conference.publish("ue1")  # waits
    conference.run_for(2.0)
    assert len([record for record in conference.network.records if isinstance(record, Applied)]) == before
    conference.network.processes["login.forwarder"].running = True
    conference.run_for(9.0)  # the longest backoff and a little
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_new_login_waits_for_the_login_server_and_backs_off() -> None:
    conference = Conference(TIERS)
    conference.join(["ue1", "ue3"])
    conference.network.processes["login.forwarder"].running = False
    conference.members.add("ue5")
    sent_before = conference.network.delivered_packets
    conference.network.send("ue5", JoinRequested())
    conference.run_for(60.0)
    assert conference.network.client("ue5").state == "login"
    assert conference.network.delivered_packets > sent_before
    conference.network.processes["login.forwarder"].running = True
    conference.run_for(9.0)
    conference.assert_invariants()


def test_observer_sees_everything_and_publishes_nothing() -> None:
    conference = Conference(TIERS, client_settings={"role": "observer"})
    conference.join()
    with pytest.raises(PublishError, match="observer"):
        conference.network.send("ue1", PublishRequested("message", b"hello"))
    conference.close("ue1")
    conference.run_for(1.0)
    conference.assert_invariants()


def test_events_of_the_client_itself_are_not_for_users() -> None:
    conference = Conference(TIERS)
    conference.join()
    with pytest.raises(PublishError, match="published by the client itself"):
        conference.network.send("ue1", PublishRequested("renew", b""))


def test_revoked_device_is_out_within_a_heartbeat_everywhere() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.network.send("login", RevokeRequested("ue3"))
    conference.members.discard("ue3")
    conference.run_for(HEARTBEAT_S)
    assert conference.network.client("ue3").state == "refused"
    assert sessions(conference, "ue3")[-1] == ("refused", "revoked")
    assert all(
        "ue3" not in each.clients
        for csr in conference.csrs
        for each in conference.network.proxy(csr).conferences.values()
    )
    conference.run_for(HEARTBEAT_S)
    assert all(("ue3", "left") in roster for roster in rosters(conference, but="ue3"))
    conference.network.send("ue3", JoinRequested())
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    assert sessions(conference, "ue3")[-1] == ("refused", "revoked")
    conference.assert_invariants()


def test_proxy_that_missed_a_revocation_hears_it_within_a_heartbeat() -> None:
    conference = Conference(TIERS)
    conference.join()
    (link,) = (each for each in conference.topology.links if each.tier == "login")
    conference.network.set_carrier(link.name, up=False)
    conference.network.send("login", RevokeRequested("ue3"))
    conference.members.discard("ue3")
    conference.run_for(1.0)
    assert conference.network.client("ue3").state == "joined"
    conference.network.set_carrier(link.name, up=True)
    conference.run_for(0.5)  # the face comes up, then one interval
    assert conference.network.client("ue3").state == "refused"
    conference.assert_invariants()


def test_login_server_that_was_restarted_still_knows_whom_it_has_revoked() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.network.send("login", RevokeRequested("ue1"))
    conference.members.discard("ue1")
    conference.run_for(0.5)
    conference.network.crash("login.forwarder")
    conference.run_for(0.5)
    conference.network.restart("login.forwarder")
    conference.run_for(0.5)
    conference.network.send("ue1", JoinRequested())
    conference.run_for(1.0)
    assert sessions(conference, "ue1")[-1] == ("refused", "revoked")


def test_vanished_client_is_away_and_then_has_left() -> None:
    conference = Conference(TIERS, proxy_settings={"leave_grace_s": 5.0})
    conference.join()
    cut(conference, "ue3")
    conference.run_for(DETECTION_S + HEARTBEAT_S + 0.2)
    (roster,) = rosters(conference, but="ue3")
    assert dict(roster) == dict.fromkeys(conference.ues, "joined") | {"ue3": "away"}
    conference.run_for(5.0)
    (roster,) = rosters(conference, but="ue3")
    assert dict(roster) == dict.fromkeys(conference.ues, "joined") | {"ue3": "left"}
    cut(conference, "ue3", up=True)
    conference.run_for(2.0)
    (roster,) = rosters(conference)
    assert dict(roster) == dict.fromkeys(conference.ues, "joined")
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_client_that_comes_back_before_the_grace_period_ends_is_joined_again() -> None:
    conference = Conference(TIERS)
    conference.join()
    cut(conference, "ue3")
    conference.run_for(3.0)
    cut(conference, "ue3", up=True)
    conference.run_for(2.0)
    (roster,) = rosters(conference)
    assert dict(roster) == dict.fromkeys(conference.ues, "joined")
    conference.assert_invariants()


def test_client_that_moves_is_not_marked_left_by_the_proxy_it_left() -> None:
    conference = Conference(TIERS, proxy_settings={"leave_grace_s": 2.0})
    conference.join()
    client = conference.network.client("ue1")
    assert client.proxy == "csr1"
    for link in ("core1-csr1",):
        assert link in conference.network.links
    # The proxy cannot be reached by its client any more, but is alive and goes on telling the others what it believes.
    deaf = []

    def half_deaf(handle: Callable[..., list[Any]], event: Any, now_s: float) -> list[Any]:
        if b"ue1" in getattr(event, "packet", b"") and b"csr1" in event.packet[:24]:
            deaf.append(event)
            return []
        return handle(event, now_s=now_s)

    intercept(conference.network.processes["csr1.proxy"], half_deaf)
    conference.run_for(8.0)
    assert deaf
    assert client.proxy != "csr1"
    (roster,) = rosters(conference)
    assert dict(roster) == dict.fromkeys(conference.ues, "joined")
    assert conference.network.counters("csr1.proxy")["roster_left"] == 1
    conference.assert_invariants()


def test_late_joiner_learns_who_is_away_and_all_keys() -> None:
    conference = Conference(TIERS, proxy_settings={"history_max_entries": 5})
    conference.join([ue for ue in conference.ues if ue != "ue8"])
    cut(conference, "ue3")
    conference.run_for(1.0)
    for _ in range(5):
        conference.publish("ue1", count=3)
        conference.run_for(0.2)
    conference.members.discard("ue3")
    conference.members.add("ue8")
    conference.network.send("ue8", JoinRequested())
    conference.run_for(1.0)
    (roster,) = rosters(conference, but="ue3")
    assert dict(roster) == dict.fromkeys(conference.ues, "joined") | {"ue3": "away"}
    assert not conference.network.client("ue8").view.keys_missing()
    for ue in sorted(conference.members):
        conference.publish(ue)
    conference.run_for(1.0)
    assert all(
        conference.network.client("ue8").view.seq(ue, 1) == conference.network.client(ue).published_seq
        for ue in conference.members
    )


def test_keys_that_a_snapshot_has_no_room_for_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.core.digest_log.TOKENS_IN_SNAPSHOT_BYTES", 300)
    conference = Conference(TIERS, proxy_settings={"history_max_entries": 5})
    conference.join([ue for ue in conference.ues if ue != "ue8"])
    for _ in range(5):
        conference.publish("ue1", count=3)
        conference.run_for(0.2)
    conference.join(["ue8"])
    conference.run_for(1.0)
    assert not conference.network.client("ue8").view.keys_missing()
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_conferences_on_the_same_proxies_are_isolated() -> None:
    other = {"ue2": "other", "ue4": "other", "ue5": "other", "ue8": "other"}
    conference = Conference(TIERS, conferences=other, proxy_settings={"history_max_entries": 10})
    for ue in conference.ues:
        if ue != "ue8":
            conference.network.send(ue, JoinRequested())
    conference.run_for(2.0)
    for _ in range(10):
        for ue in conference.ues:
            if ue != "ue8":
                conference.publish(ue)
        conference.run_for(0.2)
    conference.network.send("ue8", JoinRequested())  # a late joiner: its snapshot is of its own conference
    conference.run_for(1.0)
    for ue in conference.ues:
        client = conference.network.client(ue)
        assert client.state == "joined"
        name = other.get(ue, "main")
        mine = {each for each in conference.ues if other.get(each, "main") == name}
        assert set(client.view.roster()) == mine
        assert {head.device for head in client.view.heads()} == mine
        assert all(client.view.seq(each, 1) == conference.network.client(each).published_seq for each in mine)
    for record in conference.network.records:
        if isinstance(record, Applied):
            assert other.get(record.receiver, "main") == other.get(record.publisher, "main") == record.conference
