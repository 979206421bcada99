"""A network without a CSR: one of its UEs serves the others as sync proxy, hands over when it leaves, or vanishes."""

from __future__ import annotations

from functools import partial

import pytest

from proxy.core.events import CloseRequested, JoinRequested, RevokeRequested
from proxy.records import ServiceChanged, SessionChanged
from testbed.routing import path_delays_ms
from tests.simulated.conference import EDGE, Conference, impair_everywhere

NEIGHBOURS = ("ue5", "ue6", "ue7")
DETECTION_S = 0.6
#: Detection time of a session, its next ranked proxy a few round trips away, and what was queued meanwhile.
VANISHED_LIMIT_MS = 900.0


@pytest.fixture
def conference() -> Conference:
    conference = Conference(EDGE)
    conference.join()
    return conference


def sessions(conference: Conference, ue: str, *, since_s: float) -> list[tuple[str, str, str]]:
    return [
        (record.proxy, record.state, record.reason)
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == ue and record.t_s >= since_s
    ]


def services(conference: Conference) -> list[str]:
    return [record.state for record in conference.network.records if isinstance(record, ServiceChanged)]


def proxies_of(conference: Conference) -> dict[str, str]:
    return {ue: conference.network.client(ue).proxy for ue in NEIGHBOURS}


def keep_talking(conference: Conference, duration_s: float, *, interval_s: float = 0.05) -> None:
    """Let everybody publish for a while, as long as they are members."""

    def say(ue: str) -> None:
        if ue in conference.members:
            conference.publish(ue)

    for index, ue in enumerate(conference.ues):
        for round_ in range(round(duration_s / interval_s)):
            conference.at(round_ * interval_s + index * interval_s / len(conference.ues), partial(say, ue))


def worst_ms(conference: Conference, *, since_s: float) -> float:
    return max(delivery.latency_ms for delivery in conference.deliveries(since_s=since_s))


# ---------------------------------------------------------------------- it serves


def test_a_ue_serves_its_neighbours_and_itself(conference: Conference) -> None:
    assert proxies_of(conference) == dict.fromkeys(NEIGHBOURS, "ue5")
    since_s = conference.now_s
    conference.publish_everywhere(rounds=20, interval_s=0.2)
    conference.assert_invariants()
    proxy = conference.network.proxy("ue5")
    assert set(proxy.conferences["main"].clients) == set(NEIGHBOURS)
    assert set(proxy.conferences["main"].peers) == {"csr1", "csr2"}
    assert services(conference) == []
    # What goes by way of ue5 takes the way to it and back, and no more.
    delays_ms = path_delays_ms(conference.topology)
    by = (
        dict.fromkeys(("ue1", "ue2"), "csr1") | dict.fromkeys(("ue3", "ue4"), "csr2") | dict.fromkeys(NEIGHBOURS, "ue5")
    )
    deliveries = conference.deliveries(since_s=since_s + 0.5)
    assert {delivery.via for delivery in deliveries} <= {"armed", "push"}
    for delivery in deliveries:
        a, b = by[delivery.publisher], by[delivery.receiver]
        floor_ms = delays_ms[delivery.publisher][a] + delays_ms[a][b] + delays_ms[b][delivery.receiver]
        assert delivery.latency_ms == pytest.approx(floor_ms, abs=1e-6)


def test_client_and_proxy_of_one_ue_get_nothing_that_is_for_the_other(conference: Conference) -> None:
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    for process in ("ue5.forwarder", "ue5.proxy"):
        counters = conference.network.counters(process)
        assert not counters.get("malformed")
        assert not [name for name in counters if name.startswith("refused")], counters


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_other_modes(mode: str) -> None:
    conference = Conference(EDGE, mode=mode)  # type: ignore[arg-type]
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.close("ue5")
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]


# ---------------------------------------------------------------------- it leaves


def test_leaving_is_a_hand_over_without_an_outage(conference: Conference) -> None:
    since_s = conference.now_s
    usual_ms = 24.0 + 2 * 4.0  # the longest path, and to ue5 and back
    keep_talking(conference, 1.5, interval_s=0.02)
    conference.at(0.75, partial(conference.close, "ue5"))
    conference.run_for(3.0)
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]
    assert proxies_of(conference) == {"ue5": "csr2", "ue6": "csr2", "ue7": "csr2"}
    for ue in ("ue6", "ue7"):
        assert sessions(conference, ue, since_s=since_s) == [
            ("ue5", "suspect", "handing_over"),
            ("csr2", "joined", "suspect no more"),
        ]
    assert sessions(conference, "ue5", since_s=since_s)[-2:] == [
        ("csr2", "closing", "asked for"),
        ("csr2", "closed", "close reply"),
    ]
    assert "roster_left" not in conference.network.counters("ue5.proxy"), "it has seen where they have gone"
    join_ms = 2 * 19.0 + 2 * 2.0  # a round trip to csr2
    assert worst_ms(conference, since_s=since_s) <= usual_ms + join_ms


def test_all_it_ever_accepted_is_with_the_others_before_it_is_silent(conference: Conference) -> None:
    keep_talking(conference, 2.0)
    conference.at(1.0, partial(conference.close, "ue5"))
    own = conference.network.proxy("ue5").conferences["main"].own
    while services(conference) != ["handing-over", "handed-over"]:
        conference.run_for(0.001)
    for csr in conference.csrs:
        assert conference.network.proxy(csr).conferences["main"].log.stream(*own.key).seq == own.seq > 0
    silent_since = {csr: len(conference.network.proxy(csr).conferences["main"].peers) for csr in conference.csrs}
    conference.run_for(2.0)
    peers = conference.network.proxy("csr1").conferences["main"].peers
    assert not peers["ue5"].up
    assert silent_since["csr1"] == len(peers)
    counters = dict(conference.network.counters("ue5.proxy"))
    conference.run_for(2.0)
    assert conference.network.counters("ue5.proxy").get("entries_armed") == counters.get("entries_armed")


def test_a_slow_peer_is_waited_for(conference: Conference) -> None:
    """csr1 hears nothing for a second: what it lacks may be nowhere else by the time that it does."""
    uplinks = [link.name for link in conference.topology.links_of("csr1") if link.tier == "uplink"]
    for link in uplinks:
        conference.at(0.99, partial(conference.network.block, link))
        conference.at(1.4, partial(conference.network.unblock, link))
    keep_talking(conference, 1.3)
    conference.at(1.0, partial(conference.close, "ue5"))
    conference.run_for(1.39)
    assert services(conference) == ["handing-over"]
    conference.run_for(1.0)
    assert services(conference) == ["handing-over", "handed-over"]
    conference.assert_invariants()


def test_leaving_while_cut_off_waits_for_the_network(conference: Conference) -> None:
    uplinks = [link.name for link in conference.topology.links_of("edge1") if link.tier == "uplink"]
    for link in uplinks:
        conference.network.set_carrier(link, up=False)
    conference.publish("ue6", count=3)
    conference.run_for(1.0)
    conference.close("ue5")
    conference.run_for(3.0)
    assert services(conference) == ["handing-over"]
    assert conference.network.client("ue5").state == "suspect"
    assert "left" not in conference.network.client("ue6").view.standings().values()
    joins = conference.network.counters("ue5.proxy")["joins_sent_on"]
    assert 3 < joins <= 3 * 3.0 / 0.2 + 10, "they ask at the pace of heartbeats"
    for link in uplinks:
        conference.network.set_carrier(link, up=True)
    conference.assert_invariants()
    assert conference.network.client("ue5").state == "closed"
    assert services(conference)[-1] == "handed-over"


def test_leaving_though_its_proxy_is_dead(conference: Conference) -> None:
    conference.network.crash("ue5.proxy")
    conference.close("ue5")
    conference.run_for(3.0)
    assert conference.network.client("ue5").state == "closed"
    conference.network.restart("ue5.proxy")
    conference.assert_invariants()


def test_leaving_though_its_proxy_is_frozen(conference: Conference) -> None:
    conference.publish("ue5")
    conference.run_for(0.5)
    conference.network.freeze("ue5.proxy")
    conference.close("ue5")
    conference.run_for(6.0)
    assert conference.network.client("ue5").state == "closed"
    conference.network.thaw("ue5.proxy")
    conference.assert_invariants()


def test_leaving_before_it_has_joined() -> None:
    conference = Conference(EDGE)
    conference.join([ue for ue in conference.ues if ue != "ue5"])
    assert proxies_of(conference)["ue6"] == "ue5"
    conference.network.send("ue5", JoinRequested())
    conference.network.send("ue5", CloseRequested())
    conference.run_for(3.0)
    conference.assert_invariants()
    assert conference.network.client("ue5").state == "closed"
    assert services(conference) == ["handing-over", "handed-over"]
    assert proxies_of(conference)["ue6"] == "csr2"


def test_the_others_have_never_heard_of_the_conference() -> None:
    """It is held in the edge network alone; where its members go on, nothing is known of it yet."""
    conference = Conference(EDGE)
    conference.join(NEIGHBOURS)
    assert not conference.network.proxy("csr2").conferences
    keep_talking(conference, 2.0)
    conference.at(1.0, partial(conference.close, "ue5"))
    conference.run_for(4.0)
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]
    conference.join(["ue1"])
    conference.assert_invariants()


def test_the_last_one_leaves() -> None:
    conference = Conference(EDGE)
    conference.join(["ue5"])
    conference.publish("ue5", count=3)
    conference.close("ue5")
    conference.run_for(2.0)
    assert conference.network.client("ue5").state == "closed"
    assert services(conference) == ["handing-over", "handed-over"]
    conference.join(["ue1"])
    conference.run_for(1.0)
    conference.assert_invariants()


def test_a_conference_of_the_past_holds_nobody_up() -> None:
    """ue6 and ue7 have held one of their own, and left it."""
    conference = Conference(EDGE, conferences={"ue6": "side", "ue7": "side"})
    for ue in ("ue6", "ue7"):
        conference.network.send(ue, JoinRequested())
    conference.join(["ue1", "ue5"])
    for ue in ("ue6", "ue7"):
        conference.publish(ue)
    conference.run_for(1.0)
    for ue in ("ue6", "ue7"):
        conference.network.send(ue, CloseRequested())
    conference.run_for(1.0)
    assert set(conference.network.proxy("ue5").conferences) == {"main", "side"}
    conference.close("ue5")
    conference.run_for(2.0)
    assert conference.network.client("ue5").state == "closed"
    assert services(conference) == ["handing-over", "handed-over"]


def test_a_restored_log_waits_for_somebody_to_have_it(conference: Conference) -> None:
    """The proxy comes back with what it had on its disk, and has not heard of anybody yet."""
    uplinks = [link.name for link in conference.topology.links_of("edge1") if link.tier == "uplink"]
    conference.publish("ue6", count=3)
    conference.run_for(0.5)
    conference.network.crash("ue5.proxy")
    conference.run_for(2.0)
    for link in uplinks:
        conference.network.set_carrier(link, up=False)
    conference.network.restart("ue5.proxy")
    conference.close("ue5")
    conference.run_for(1.0)
    assert services(conference) == ["handing-over"]
    for link in uplinks:
        conference.network.set_carrier(link, up=True)
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]


def test_coming_back_it_serves_again(conference: Conference) -> None:
    keep_talking(conference, 1.0)
    conference.close("ue5")
    conference.run_for(3.0)
    assert services(conference) == ["handing-over", "handed-over"]
    conference.publish("ue6")
    conference.join(["ue5"])
    assert services(conference) == ["handing-over", "handed-over", "serving"]
    assert conference.network.client("ue5").proxy == "ue5"
    conference.close("ue7")
    conference.run_for(1.0)
    conference.join(["ue7"])
    assert proxies_of(conference) == {"ue5": "ue5", "ue6": "csr2", "ue7": "ue5"}
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.assert_invariants()
    conference.close("ue5")
    conference.assert_invariants()
    assert services(conference)[-2:] == ["handing-over", "handed-over"]


def test_coming_back_while_it_hands_over(conference: Conference) -> None:
    uplinks = [link.name for link in conference.topology.links_of("edge1") if link.tier == "uplink"]
    conference.close("ue5")
    for link in uplinks:
        conference.network.block(link)
    conference.run_for(0.4)
    conference.network.crash("ue5.forwarder")
    conference.network.restart("ue5.forwarder")
    for link in uplinks:
        conference.network.unblock(link)
    conference.join(["ue5"])
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.assert_invariants()
    assert services(conference)[-1] == "serving"


@pytest.mark.parametrize("loss_ratio", [0.05, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_hand_over_under_loss(loss_ratio: float, seed: int) -> None:
    conference = Conference(EDGE, seed=seed)
    conference.join()
    impair_everywhere(conference, loss_ratio=loss_ratio)
    keep_talking(conference, 3.0, interval_s=0.1)
    conference.at(1.0, partial(conference.close, "ue5"))
    conference.run_for(8.0)
    impair_everywhere(conference, loss_ratio=0.0)
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]
    assert conference.network.client("ue5").state == "closed"


@pytest.mark.parametrize("at_s", [0.9, 1.0, 1.01, 1.1, 1.3])
def test_another_proxy_crashes_meanwhile(conference: Conference, at_s: float) -> None:
    keep_talking(conference, 3.0)
    conference.at(1.0, partial(conference.close, "ue5"))
    conference.at(at_s, partial(conference.network.crash, "csr2.proxy"))
    conference.at(2.5, partial(conference.network.restart, "csr2.proxy"))
    conference.run_for(6.0)
    conference.assert_invariants()
    assert services(conference) == ["handing-over", "handed-over"]


def test_two_networks_hand_over_to_each_other_and_away() -> None:
    conference = Conference(
        ("tiers", {"cores": 3, "csrs": 1, "ues_per_csr": 1, "edge_networks": 2, "ues_per_edge_network": 2})
    )
    conference.join()
    assert conference.topology.proxy_ues == ("ue2", "ue4")
    keep_talking(conference, 3.0)
    conference.at(1.0, partial(conference.close, "ue2"))
    conference.at(1.0, partial(conference.close, "ue4"))
    conference.run_for(6.0)
    conference.assert_invariants()
    assert sorted(services(conference)) == ["handed-over", "handed-over", "handing-over", "handing-over"]
    assert {conference.network.client(ue).proxy for ue in ("ue3", "ue5")} == {"csr1"}


def test_a_revoked_device_serves_nobody(conference: Conference) -> None:
    keep_talking(conference, 2.0)
    conference.run_for(0.5)
    conference.members.discard("ue5")
    conference.network.send("login", RevokeRequested("ue5"))
    conference.run_for(3.0)
    assert conference.network.client("ue5").state == "refused"
    assert services(conference) == ["handing-over", "handed-over"]
    assert {conference.network.client(ue).proxy for ue in ("ue6", "ue7")} == {"csr2"}
    conference.assert_invariants()
    conference.network.send("ue5", JoinRequested())
    conference.run_for(1.0)
    assert services(conference) == ["handing-over", "handed-over"]


# ---------------------------------------------------------------------- it breaks


def test_its_proxy_crashes_and_comes_back(conference: Conference) -> None:
    since_s = conference.now_s
    keep_talking(conference, 4.0)
    conference.at(1.0, partial(conference.network.crash, "ue5.proxy"))
    conference.at(2.5, partial(conference.network.restart, "ue5.proxy"))
    conference.run_for(5.0)
    conference.assert_invariants()
    assert proxies_of(conference) == dict.fromkeys(NEIGHBOURS, "csr2")
    assert worst_ms(conference, since_s=since_s) <= VANISHED_LIMIT_MS
    assert services(conference) == []


def test_it_vanishes(conference: Conference) -> None:
    """Its neighbours go on elsewhere after the detection time, and everybody knows that it is away."""
    since_s = conference.now_s
    keep_talking(conference, 4.0)

    def vanish() -> None:
        conference.members.discard("ue5")
        conference.network.crash("ue5.proxy")
        conference.network.crash("ue5.forwarder")

    conference.at(1.0, vanish)
    conference.run_for(5.0)
    assert {conference.network.client(ue).proxy for ue in ("ue6", "ue7")} == {"csr2"}
    views = {conference.network.client(ue).view.digest() for ue in conference.members}
    assert len(views) == 1
    assert worst_ms(conference, since_s=since_s) <= VANISHED_LIMIT_MS


def test_its_link_fails_and_comes_back(conference: Conference) -> None:
    keep_talking(conference, 4.0)
    conference.at(1.0, partial(conference.network.set_carrier, "edge1-ue5", up=False))
    conference.at(3.0, partial(conference.network.set_carrier, "edge1-ue5", up=True))
    conference.run_for(5.0)
    conference.assert_invariants()
    assert proxies_of(conference)["ue5"] == "ue5", "it has served itself all the time"
