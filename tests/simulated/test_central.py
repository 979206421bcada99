"""Mode ``central``: one service proxy is the focus of a star (RFC 4353) and notifies everybody (RFC 4575)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from proxy.core.events import Effect, Event, PacketReceived
from proxy.records import Acked, Applied, SessionChanged, SnapshotApplied
from proxy.wire.message_names import ALL_PROXIES, NOTIFY, parse_message_name
from proxy.wire.messages import Notification
from proxy.wire.packet import INTEREST, peek_interest
from proxy.wire.payload import decode
from testbed.routing import path_delays_ms
from tests.simulated.conference import ABILENE, TIERS, Conference, impair_everywhere
from tests.simulated.interception import intercept


@pytest.mark.parametrize(("topology", "focus"), [(ABILENE, "Denver"), (TIERS, "csr2")], ids=["abilene", "tiers"])
def test_every_update_takes_the_way_by_the_focus(topology: tuple[str, dict[str, int]], focus: str) -> None:
    conference = Conference(topology, mode="central", focus=focus)
    assert conference.proxies == (focus,)
    conference.join()
    conference.run_for(1.0)
    start_s = conference.now_s
    conference.publish_everywhere(rounds=4, interval_s=0.5)
    conference.assert_invariants()
    delays_ms = path_delays_ms(conference.topology)
    deliveries = conference.deliveries(since_s=start_s)
    assert len(deliveries) == 4 * len(conference.ues) * (len(conference.ues) - 1)
    for each in deliveries:
        by_focus_ms = delays_ms[each.publisher][focus] + delays_ms[focus][each.receiver]
        assert each.latency_ms == pytest.approx(by_focus_ms, abs=0.01)


def test_notifications_are_versioned_and_partial() -> None:
    """RFC 4575, section 4.4: the version grows by one from each notification to the next, and a partial one builds on it."""
    conference = Conference(TIERS, mode="central")
    versions: list[tuple[int, int]] = []

    def note(handle: Callable[..., list[Effect]], event: Event, now_s: float) -> list[Effect]:
        if isinstance(event, PacketReceived) and event.packet[0] == INTEREST:
            interest = peek_interest(event.packet)
            if parse_message_name(interest.name).kind == NOTIFY:
                notification = decode(interest.parameters, Notification)
                both = zip(notification.last, notification.current, strict=True)
                versions.extend((last[2], current[2]) for last, current in both)
        return handle(event, now_s=now_s)

    conference.join()
    intercept(conference.network.processes["ue8.forwarder"], note, application=True)
    for number in range(10):
        conference.at(0.1 * number, partial(conference.publish, "ue1"))
    conference.run_for(2.0)
    assert len(versions) == 10
    assert all(current == last + 1 for last, current in versions)
    assert [last for last, _ in versions[1:]] == [current for _, current in versions[:-1]]


def test_a_gap_is_seen_and_what_is_missing_asked_for() -> None:
    conference = Conference(TIERS, mode="central", forwarder_settings={"link_reliability": "off"})
    conference.join()
    impair_everywhere(conference, loss_ratio=0.1)
    conference.publish_everywhere(rounds=8, interval_s=0.2)
    impair_everywhere(conference, loss_ratio=0.0)
    conference.assert_invariants()
    assert sum(conference.network.client(ue).counters["recovery_requests"] for ue in conference.ues) > 0


def test_who_joins_gets_the_full_state() -> None:
    conference = Conference(TIERS, mode="central")
    conference.join(["ue1", "ue3"])
    conference.publish("ue1", count=5)
    conference.run_for(1.0)
    conference.join(["ue7"])
    snapshots = [record for record in conference.network.records if isinstance(record, SnapshotApplied)]
    assert {record.receiver for record in snapshots} >= {"ue7"}
    conference.assert_invariants()


def test_the_focus_acks_from_its_disk() -> None:
    conference = Conference(TIERS, mode="central")
    conference.join()
    acks = [record for record in conference.network.records if isinstance(record, Acked)]
    assert {(ack.level, ack.proxy) for ack in acks} == {("durable", "csr1")}


def test_nobody_is_served_while_the_focus_is_down() -> None:
    conference = Conference(TIERS, mode="central")
    conference.join()
    conference.network.crash("csr1.proxy")
    conference.publish("ue3")
    conference.run_for(2.0)
    applied = [record for record in conference.network.records if isinstance(record, Applied)]
    assert not [record for record in applied if record.publisher == "ue3" and record.seq == 2]
    sessions = [record for record in conference.network.records if isinstance(record, SessionChanged)]
    assert {record.device for record in sessions if record.state == "suspect"} == set(conference.ues)
    conference.network.restart("csr1.proxy")
    conference.assert_invariants()


def test_nothing_is_sent_to_proxies_that_there_are_not() -> None:
    """A heartbeat to all proxies would cross every link between routers for nothing."""
    conference = Conference(TIERS, mode="central")
    heard: list[bytes] = []

    def note(handle: Callable[..., list[Effect]], event: Event, now_s: float) -> list[Effect]:
        if isinstance(event, PacketReceived) and ALL_PROXIES in event.packet:
            heard.append(event.packet)
        return handle(event, now_s=now_s)

    for core in conference.topology.cores:
        intercept(conference.network.processes[f"{core}.forwarder"], note)
    conference.join()
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()
    assert not heard
