"""The conference when processes fail: service proxies crash, with their disk and without, freeze, and come back."""

import pytest

from proxy.records import Acked, PeerChanged
from testbed.plan import Mode
from testbed.simulation.disk import FSYNC_S
from tests.simulated.conference import ABILENE, TIERS, Conference, impair_everywhere

modes = pytest.mark.parametrize("mode", ["hybrid", "push", "pull"])


def acks(conference: Conference) -> list[Acked]:
    return [record for record in conference.network.records if isinstance(record, Acked)]


def assert_clean(conference: Conference) -> None:
    conference.assert_invariants()
    assert not any(
        conference.network.counters(f"{csr}.proxy").get("log_entries_dropped") for csr in conference.topology.csrs
    )


@modes
@pytest.mark.parametrize("down_s", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_proxy_crashes_and_restarts_with_its_disk(mode: Mode, down_s: float, seed: int) -> None:
    conference = Conference(TIERS, mode=mode, seed=seed)
    conference.join()
    conference.at(0.75, lambda: conference.network.crash("csr1.proxy"))
    conference.at(0.75 + down_s, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=20, interval_s=0.2)
    assert_clean(conference)
    restarted = conference.network.proxy("csr1").conferences["main"]
    assert restarted.own.boot == 2
    assert ("csr1", 1) in restarted.log.streams


@pytest.mark.parametrize("history_max_entries", [1, 10])
def test_proxy_restarts_behind_a_compacted_log(history_max_entries: int) -> None:
    conference = Conference(TIERS, proxy_settings={"history_max_entries": history_max_entries})
    conference.join()
    conference.publish_everywhere(rounds=10, interval_s=0.2)
    conference.network.crash("csr1.proxy")
    conference.publish_everywhere(rounds=10, interval_s=0.2)
    conference.network.restart("csr1.proxy")
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    assert_clean(conference)


@modes
@pytest.mark.parametrize("history_max_entries", [5, 1_000])
def test_proxy_loses_its_disk_and_gets_everything_from_the_others(mode: Mode, history_max_entries: int) -> None:
    conference = Conference(TIERS, mode=mode, proxy_settings={"history_max_entries": history_max_entries})
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.wait_for_agreement()
    before = conference.network.proxy("csr1").conferences["main"].log.vector()
    conference.network.crash("csr1.proxy")
    conference.network.lose_disk("csr1.proxy")
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.network.restart("csr1.proxy")
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    assert_clean(conference)
    after = {
        (proxy, boot): seq for proxy, boot, seq in conference.network.proxy("csr1").conferences["main"].log.vector()
    }
    assert all(after[proxy, boot] >= seq for proxy, boot, seq in before)


def test_every_proxy_crashes_at_once_and_nothing_that_was_acked_is_lost() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    conference.publish("ue1", count=20)
    conference.run_for(0.02)
    for csr in conference.csrs:
        conference.network.crash(f"{csr}.proxy")
    conference.run_for(2.0)
    for csr in conference.csrs:
        conference.network.restart(f"{csr}.proxy")
    conference.run_for(3.0)
    assert_clean(conference)


@pytest.mark.parametrize("crashes", range(8))
def test_a_proxy_that_crashes_again_and_again_under_load(crashes: int) -> None:
    """Restarted each time after a while that falls differently to its commits."""
    conference = Conference(TIERS, seed=crashes)
    conference.join()
    network = conference.network
    for number in range(5):
        at_s = 0.3 + 0.7 * number + FSYNC_S * crashes / 8
        conference.at(at_s, lambda: network.crash("csr1.proxy"))
        conference.at(at_s + 0.1, lambda: network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=80, interval_s=0.05)
    assert_clean(conference)
    assert network.proxy("csr1").conferences["main"].own.boot == 6


def test_a_crash_under_loss() -> None:
    conference = Conference(TIERS)
    impair_everywhere(conference, loss_ratio=0.05)
    conference.join()
    conference.at(0.75, lambda: conference.network.crash("csr1.proxy"))
    conference.at(2.0, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=20, interval_s=0.2)
    conference.assert_invariants()


@pytest.mark.parametrize("frozen_s", [0.3, 2.0])
def test_proxy_freezes_and_thaws(frozen_s: float) -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.at(0.75, lambda: conference.network.freeze("csr1.proxy"))
    conference.at(0.75 + frozen_s, lambda: conference.network.thaw("csr1.proxy"))
    conference.publish_everywhere(rounds=20, interval_s=0.2)
    assert_clean(conference)


def test_forwarder_of_a_csr_crashes() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.at(0.75, lambda: conference.network.crash("csr1.forwarder"))
    conference.at(2.75, lambda: conference.network.restart("csr1.forwarder"))
    conference.publish_everywhere(rounds=25, interval_s=0.2)
    assert_clean(conference)


def test_whole_network_restart() -> None:
    """All routers and proxies at once; the devices stay."""
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=3, interval_s=0.2)
    network = conference.network
    names = [name for name in network.processes if not name.startswith("ue")]
    for name in names:
        network.crash(name)
    conference.run_for(2.0)
    for name in names:
        network.restart(name)
    conference.publish_everywhere(rounds=10, interval_s=0.2)
    assert_clean(conference)


def test_login_server_is_down_for_a_while() -> None:
    conference = Conference(TIERS)
    conference.join(["ue1", "ue3"])
    conference.network.crash("login.forwarder")
    conference.publish("ue1", count=3)
    conference.run_for(1.0)
    conference.wait_for_agreement()
    conference.at(3.0, lambda: conference.network.restart("login.forwarder"))
    conference.join(["ue5"])
    assert_clean(conference)


def test_the_others_hear_that_a_proxy_has_come_back() -> None:
    conference = Conference(ABILENE)
    conference.join()
    crashed, other = conference.csrs[:2]
    conference.network.crash(f"{crashed}.proxy")
    conference.run_for(2.0)
    conference.network.restart(f"{crashed}.proxy")
    conference.run_for(1.0)
    changes = [
        record.state
        for record in conference.network.records
        if isinstance(record, PeerChanged) and (record.peer, record.proxy) == (crashed, other)
    ]
    assert changes[-2:] == ["down", "up"]


@pytest.mark.parametrize("level", ["accepted", "durable", "replicated"])
def test_ack_levels(level: str) -> None:
    conference = Conference(TIERS, proxy_settings={"ack_level": level})
    conference.join()
    conference.publish_everywhere(rounds=3, interval_s=0.3)
    assert_clean(conference)
    assert {ack.level for ack in acks(conference)} == {level}


def test_an_ack_waits_for_the_disk_and_nothing_else_does() -> None:
    acked_s, delivered_s = {}, {}
    for level in ("accepted", "durable"):
        conference = Conference(TIERS, proxy_settings={"ack_level": level})
        conference.join()
        conference.publish("ue1")
        published_s = conference.now_s
        conference.run_for(1.0)
        acked_s[level] = acks(conference)[-1].t_s - published_s
        delivered_s[level] = [round(each.latency_ms, 6) for each in conference.deliveries(since_s=published_s)]
    assert acked_s["durable"] == pytest.approx(acked_s["accepted"] + FSYNC_S)
    assert delivered_s["durable"] == delivered_s["accepted"]


@pytest.mark.parametrize("seed", range(6))
def test_updates_that_only_a_lost_disk_had_are_sent_again(seed: int) -> None:
    """They are acked, and pushes that get lost have not reached anybody else; later ones of their publisher must not wait."""
    conference = Conference(TIERS, seed=seed)
    conference.join()
    for link in conference.topology.links_of("csr1"):
        if link.tier == "uplink":
            conference.network.block(link.name, "a_to_b" if link.a == "csr1" else "b_to_a")
    conference.publish("ue1", count=3)
    conference.run_for(0.05)
    assert conference.network.client("ue1").unacked == 0
    conference.network.crash("csr1.proxy")
    conference.network.lose_disk("csr1.proxy")
    conference.network.crash("csr1.forwarder")  # and with it what its content store had
    conference.run_for(1.0)
    conference.network.restart("csr1.forwarder")
    for link in conference.topology.links:
        conference.network.unblock(link.name)
    conference.publish("ue1", count=2)
    conference.at(3.0, lambda: conference.network.restart("csr1.proxy"))
    conference.run_for(5.0)
    assert_clean(conference)


def test_replicated_updates_survive_the_loss_of_the_disk() -> None:
    conference = Conference(TIERS, proxy_settings={"ack_level": "replicated"})
    impair_everywhere(conference, loss_ratio=0.1)
    conference.join(limit_s=60.0)
    conference.at(0.75, lambda: conference.network.crash("csr1.proxy"))
    conference.at(0.8, lambda: conference.network.lose_disk("csr1.proxy"))
    conference.at(2.0, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=20, interval_s=0.2)
    impair_everywhere(conference, loss_ratio=0.0)
    conference.assert_invariants()
