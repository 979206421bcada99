"""Mode ``psync``: PSync's full synchronisation among the UEs over the same forwarders, under the same checker."""

from __future__ import annotations

from functools import partial

from tests.simulated.conference import TIERS, Conference, impair_everywhere


def test_what_is_published_rarely_crosses_the_path_three_times() -> None:
    """Everybody waits for it: told, asked, answered; or a little less, where somebody nearer has asked before."""
    conference = Conference(TIERS, mode="psync")
    conference.join()
    conference.run_for(3.0)
    start_s = conference.now_s
    for index, ue in enumerate(conference.ues):
        conference.at(2.0 * index, partial(conference.publish, ue))
    conference.run_for(2.0 * len(conference.ues))
    conference.assert_invariants()
    deliveries = conference.deliveries(since_s=start_s)
    assert len(deliveries) == len(conference.ues) * (len(conference.ues) - 1)
    assert {each.via for each in deliveries} == {"fetch"}
    ratios = sorted(each.latency_ms / each.path_delay_ms for each in deliveries)
    assert 2.0 < ratios[len(ratios) // 2] <= 3.001


def test_what_is_published_often_arrives_in_the_end() -> None:
    conference = Conference(TIERS, mode="psync")
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.4)
    conference.assert_invariants()


def test_burst() -> None:
    conference = Conference(TIERS, mode="psync")
    conference.join()
    conference.publish("ue1", count=80, size_bytes=300)
    conference.publish("ue8", count=80, size_bytes=300)
    conference.assert_invariants()


def test_loss_on_every_link_without_link_reliability() -> None:
    conference = Conference(TIERS, mode="psync", forwarder_settings={"link_reliability": "off"})
    conference.join()
    impair_everywhere(conference, loss_ratio=0.1)
    conference.publish_everywhere(rounds=2, interval_s=1.0)
    conference.assert_invariants()


def test_partition_and_merge() -> None:
    conference = Conference(TIERS, mode="psync")
    conference.join()
    conference.cut(["csr1", "ue1", "ue2"])
    conference.publish_everywhere(rounds=2, interval_s=1.0)
    conference.cut(["csr1", "ue1", "ue2"], up=True)
    conference.assert_invariants()


def test_late_joiner_fetches_everything() -> None:
    conference = Conference(TIERS, mode="psync")
    conference.join(["ue1", "ue3", "ue5"])
    for ue in ("ue1", "ue3", "ue5"):
        conference.publish(ue, count=30)
    conference.run_for(3.0)
    conference.join(["ue7"])
    conference.assert_invariants()


def test_more_participants_than_the_filter_is_made_for() -> None:
    """All at once are new to each other: nobody can tell what the others lack, until everything is told."""
    conference = Conference(TIERS, mode="psync", sync_settings={"expected_entries": 4})
    conference.join()
    conference.publish_everywhere(rounds=2, interval_s=2.0)
    conference.assert_invariants()


def test_close_and_join_again() -> None:
    conference = Conference(TIERS, mode="psync")
    conference.join()
    conference.close("ue3")
    conference.publish_everywhere(rounds=1, interval_s=2.0)
    conference.assert_invariants()
    conference.join(["ue3"])
    conference.publish_everywhere(rounds=1, interval_s=2.0)
    conference.assert_invariants()


def test_same_seed_same_bytes() -> None:
    def run(seed: int) -> bytes:
        conference = Conference(TIERS, mode="psync", seed=seed)
        impair_everywhere(conference, loss_ratio=0.05)
        conference.join(["ue1", "ue4", "ue8"])
        conference.publish_everywhere(rounds=1, interval_s=1.0)
        return conference.encoded_records()

    assert run(1) == run(1)
    assert run(1) != run(2)
