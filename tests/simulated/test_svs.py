"""Mode ``svs``: State Vector Sync among the UEs over the same forwarders, under the same checker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.core.events import CloseRequested, Effect, Event, JoinRequested, PacketReceived, PublishRequested
from proxy.core.service_client import PublishError
from proxy.records import Acked, SessionChanged
from proxy.wire.message_names import GROUP
from proxy.wire.packet import INTEREST, peek_interest
from testbed.faults.targets import processes_of
from tests.simulated.conference import ABILENE, EDGE, TIERS, Conference, impair_everywhere
from tests.simulated.interception import intercept


@pytest.mark.parametrize("topology", [ABILENE, TIERS, EDGE], ids=["abilene", "tiers", "edge"])
def test_an_update_crosses_the_path_three_times_at_most(topology: tuple[str, dict[str, int]]) -> None:
    conference = Conference(topology, mode="svs")
    conference.join()
    conference.run_for(1.0)
    start_s = conference.now_s
    conference.publish_everywhere(rounds=5, interval_s=0.5)
    conference.assert_invariants()
    deliveries = conference.deliveries(since_s=start_s)
    assert len(deliveries) == 5 * len(conference.ues) * (len(conference.ues) - 1)
    assert {each.via for each in deliveries} == {"fetch"}
    ratios = sorted(each.latency_ms / each.path_delay_ms for each in deliveries)
    assert ratios[-1] <= 3.001
    assert ratios[len(ratios) // 2] > 2.0, "told, asked, answered"


def test_no_service_proxy_runs() -> None:
    conference = Conference(TIERS, mode="svs")
    assert not conference.proxies
    assert all(name.endswith(".forwarder") for name in conference.network.processes)
    assert processes_of(conference.topology, "csr1") == ("csr1.forwarder",)


def test_burst() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join()
    conference.publish("ue1", count=80, size_bytes=300)
    conference.publish("ue8", count=80, size_bytes=300)
    conference.assert_invariants()


def test_loss_on_every_link_without_link_reliability() -> None:
    """What is lost is asked for again; what nobody was told, the next sync Interest tells."""
    conference = Conference(
        TIERS, mode="svs", forwarder_settings={"link_reliability": "off"}, sync_settings={"periodic_s": 2.0}
    )
    conference.join()
    impair_everywhere(conference, loss_ratio=0.1)
    conference.publish_everywhere(rounds=5, interval_s=0.3)
    conference.assert_invariants()


def test_last_word_lost_waits_for_the_periodic_sync_interest() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join()
    conference.run_for(1.0)
    conference.cut(["ue1"])
    conference.publish("ue1")
    conference.run_for(0.001)  # it is still unknown to ue1 that nobody can hear it
    conference.cut(["ue1"], up=True)
    assert conference.wait_for_agreement() < 1.0, "a face that comes up is a reason to say it again"


def test_partition_and_merge() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join()
    conference.cut(["csr1", "ue1", "ue2"])
    conference.publish_everywhere(rounds=3, interval_s=0.4)
    conference.cut(["csr1", "ue1", "ue2"], up=True)
    conference.publish_everywhere(rounds=3, interval_s=0.4)
    conference.assert_invariants()


def test_late_joiner_fetches_everything() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join(["ue1", "ue3", "ue5"])
    for ue in ("ue1", "ue3", "ue5"):
        conference.publish(ue, count=70)
    conference.run_for(1.0)
    conference.join(["ue7"])
    conference.assert_invariants()


def test_close_and_join_again() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join()
    conference.close("ue3")
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()  # rosters without ue3 included
    assert conference.network.participant("ue3").state == "closed"
    with pytest.raises(PublishError, match="ue3 is not joined"):
        conference.publish("ue3")
    with pytest.raises(PublishError, match="ue3 is not joined"):
        conference.network.send("ue3", CloseRequested())
    conference.join(["ue3"])
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def test_conferences_do_not_hear_each_other() -> None:
    conference = Conference(TIERS, mode="svs", conferences={"ue2": "other", "ue4": "other"})
    heard: list[str] = []
    process = conference.network.processes["ue1.forwarder"]

    def note(handle: Callable[..., list[Effect]], event: Event, now_s: float) -> list[Effect]:
        if isinstance(event, PacketReceived) and event.packet[0] == INTEREST:
            name = peek_interest(event.packet).name
            if name.startswith(GROUP):
                heard.append(name.decode("latin-1"))
        return handle(event, now_s=now_s)

    intercept(process, note, application=True)
    for ue in conference.ues:
        conference.network.send(ue, JoinRequested())
    conference.run_for(2.0)
    assert heard
    assert not [name for name in heard if "other" in name]
    assert conference.network.participant("ue1").view.roster() == ["ue1", "ue3", "ue5", "ue6", "ue7", "ue8"]
    assert conference.network.participant("ue2").view.roster() == ["ue2", "ue4"]


def test_tokens_are_renewed_and_one_that_runs_out_stops_reading_and_publishing() -> None:
    conference = Conference(TIERS, mode="svs", login_settings={"token_lifetime_s": 3.0})
    conference.join()
    conference.publish_everywhere(rounds=8, interval_s=0.5)
    conference.assert_invariants()
    conference.cut(["login"])
    conference.run_for(4.0)
    assert {conference.network.participant(ue).state for ue in conference.ues} == {"login"}
    conference.publish("ue1")
    assert conference.network.participant("ue1").queued == 1
    conference.cut(["login"], up=True)
    conference.run_for(10.0)
    conference.assert_invariants()
    reasons = [record.reason for record in conference.network.records if isinstance(record, SessionChanged)]
    assert "token expired" in reasons


def test_an_update_is_accepted_by_the_store_of_its_publisher() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join()
    acks = [record for record in conference.network.records if isinstance(record, Acked)]
    assert {ack.publisher for ack in acks} == set(conference.ues)
    assert all((ack.level, ack.proxy) == ("accepted", ack.publisher) for ack in acks)


def test_store_is_bounded() -> None:
    conference = Conference(TIERS, mode="svs", sync_settings={"store_max": 50})
    conference.join()
    for _ in range(4):
        conference.publish("ue1", count=20)
        conference.run_for(0.5)
    conference.wait_for_agreement()
    assert conference.network.participant("ue1").counters["publications_kept"] == 50


def test_same_seed_same_bytes() -> None:
    def run(seed: int) -> bytes:
        conference = Conference(TIERS, mode="svs", seed=seed)
        impair_everywhere(conference, loss_ratio=0.05)
        conference.join(["ue1", "ue4", "ue8"])
        conference.publish_everywhere(rounds=2, interval_s=0.3)
        return conference.encoded_records()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_reserved_events_are_refused() -> None:
    conference = Conference(TIERS, mode="svs")
    conference.join(["ue1"])
    with pytest.raises(PublishError, match="'leave' is published by the client itself"):
        conference.network.send("ue1", PublishRequested("leave", b""))
