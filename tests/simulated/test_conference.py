"""The conference when nothing goes wrong: everything once, in order, at one path delay; in every mode."""

from __future__ import annotations

import pytest

from proxy.core.events import JoinRequested
from proxy.records import SnapshotApplied
from testbed.plan import Mode
from tests.simulated.conference import ABILENE, TIERS, Conference

topologies = pytest.mark.parametrize("topology", [ABILENE, TIERS], ids=["abilene", "tiers"])
modes = pytest.mark.parametrize("mode", ["hybrid", "push", "pull"])


@topologies
def test_everything_arrives_at_one_path_delay(topology: tuple[str, dict[str, int]]) -> None:
    conference = Conference(topology)
    conference.join()
    conference.run_for(1.0)
    start_s = conference.now_s
    conference.publish_everywhere(rounds=10, interval_s=0.5)
    conference.assert_invariants()
    deliveries = conference.deliveries(since_s=start_s)
    assert len(deliveries) == 10 * len(conference.ues) * (len(conference.ues) - 1)
    late = [each for each in deliveries if each.latency_ms > each.path_delay_ms + 0.01]
    assert not late
    ways = {each.via for each in deliveries if each.path_delay_ms > 10.0}
    assert ways <= {"armed", "push"}
    assert "push" in ways, "the streams are quiet"


def test_busy_streams_are_asked_for_quiet_ones_are_pushed() -> None:
    conference = Conference(ABILENE)
    conference.join()
    conference.run_for(6.0)  # those of the beginning have expired
    armed = {csr: conference.network.proxy(csr).armed_interests().get("main", 0) for csr in conference.csrs}
    assert set(armed.values()) == {0}
    start_s = conference.now_s
    conference.publish_everywhere(rounds=120, interval_s=0.05)
    conference.assert_invariants()
    assert not [each for each in conference.deliveries(since_s=start_s) if each.latency_ms > each.path_delay_ms + 0.01]
    busy = [each for each in conference.deliveries(since_s=start_s + 5.0) if each.path_delay_ms > 10.0]
    assert {each.via for each in busy} == {"armed"}
    counters = [conference.network.counters(f"{csr}.proxy") for csr in conference.csrs]
    assert all(each.get("published_twice", 0) > 0 for each in counters), "until all have heard that they are to arm"


@modes
@topologies
def test_invariants_hold_in_every_mode(topology: tuple[str, dict[str, int]], mode: Mode) -> None:
    conference = Conference(topology, mode=mode)
    conference.join()
    conference.publish_everywhere(rounds=6, interval_s=0.5)
    conference.assert_invariants()
    ways = {each.via for each in conference.deliveries()}
    assert (
        ways
        <= {
            "hybrid": {"armed", "push", "recovery"},
            "push": {"push", "recovery"},
            "pull": {"armed", "push", "recovery"},
        }[mode]
    )


def test_all_publish_at_the_same_instant() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.2, jitter=False)
    conference.assert_invariants()


def test_all_join_at_the_same_instant_as_the_network_comes_up() -> None:
    conference = Conference(TIERS)
    conference.join(warm_up_s=0.0)
    conference.publish_everywhere(rounds=2, interval_s=0.5)
    conference.assert_invariants()


@modes
def test_burst(mode: Mode) -> None:
    """200 updates at once: more than the window, more than are armed, more than a reply carries."""
    conference = Conference(TIERS, mode=mode)
    conference.join()
    conference.publish("ue1", count=200, size_bytes=300)
    conference.publish("ue8", count=200, size_bytes=300)
    conference.assert_invariants()


def test_largest_updates() -> None:
    conference = Conference(TIERS)
    conference.join()
    for _ in range(3):
        conference.publish("ue1", count=3, size_bytes=7_000)
        conference.run_for(0.2)
    conference.assert_invariants()


def test_late_joiner_gets_a_snapshot() -> None:
    conference = Conference(TIERS)
    conference.join(["ue1", "ue3", "ue5"])
    for ue in ("ue1", "ue3", "ue5"):
        conference.publish(ue, count=5)
    conference.run_for(1.0)
    before = len(conference.network.records)
    conference.join(["ue7"])  # at a proxy that has had no client
    conference.join(["ue2"])  # at one that has
    snapshots = [record for record in conference.network.records[before:] if isinstance(record, SnapshotApplied)]
    assert {record.receiver for record in snapshots} >= {"ue2"}
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_late_joiner_long_after_the_history_was_truncated() -> None:
    conference = Conference(TIERS, proxy_settings={"history_max_entries": 20})
    conference.join(["ue1", "ue3"])
    for _ in range(10):
        conference.publish("ue1", count=5)
        conference.publish("ue3", count=5)
        conference.run_for(0.3)
    conference.join(["ue7", "ue4"])
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()
    for csr in conference.csrs:
        assert conference.network.counters(f"{csr}.proxy").get("updates_accepted", 0) >= 0
        for each in conference.network.proxy(csr).conferences.values():
            assert each.log.history_entries <= 20


def test_close_updates_every_roster() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=1, interval_s=0.3)
    conference.close("ue3")
    conference.run_for(1.0)
    assert conference.network.client("ue3").state == "closed"
    conference.assert_invariants()  # rosters without ue3 included
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_close_and_join_again() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.close("ue3")
    conference.run_for(1.0)
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.join(["ue3"])
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()
    conference.run_for(5.0)
    assert conference.network.client("ue3").state == "joined"


def test_same_seed_same_bytes() -> None:
    def run(seed: int) -> bytes:
        conference = Conference(TIERS, seed=seed)
        conference.join()
        conference.network.set_carrier("core1-core2", up=False)
        conference.publish_everywhere(rounds=3, interval_s=0.2)
        conference.network.set_carrier("core1-core2", up=True)
        conference.assert_invariants()
        return conference.encoded_records()

    first = run(11)
    assert run(11) == first
    assert run(12) != first


def test_second_join_request_changes_nothing() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.network.send("ue1", JoinRequested())
    conference.run_for(1.0)
    conference.assert_invariants()
