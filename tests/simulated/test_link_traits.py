"""A conference over links that do everything they can do to packets; what the simulated links count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.driver.status import sent_messages
from testbed.links.model import DIRECTIONS, Impairment
from testbed.plan import NetworkPlan
from testbed.simulation.controlled import ControlledSimulation
from testbed.simulation.network import SimulatedNetwork
from tests.simulated.conference import Conference
from topologies.catalogue import build
from topologies.model import Topology

TIERS = build("tiers", {"csrs": 2, "ues_per_csr": 2, "cores": 3})


def with_links(tiers: set[str], *, back: dict[str, Any] | None = None, **properties: Any) -> Topology:
    """Return TIERS with *properties* of the links of these *tiers*, and *back* beside them of what their ends b send."""
    both = {link.name: replace(link.properties, **properties) for link in TIERS.links if link.tier in tiers}
    others = {name: replace(built, **back) for name, built in both.items()} if back else {}
    return TIERS.with_properties(both, others)


EVERYTHING: dict[str, Any] = {
    "jitter_ms": 3.0,
    "jitter_distribution": "normal",
    "jitter_keeps_order": False,
    "loss_ratio": 0.01,
    "good_to_bad_ratio": 0.01,
    "bad_to_good_ratio": 0.3,
    "rate_mbps": 20.0,
    "queue_bytes": 30_000,
    "duplicate_ratio": 0.05,
    "reorder_ratio": 0.05,
    "corrupt_ratio": 0.02,
}


def unaccounted(network: SimulatedNetwork) -> list[str]:
    """Return the directions in which entered + second copies is not carried + dropped + in flight."""
    return [
        f"{name} {direction}"
        for name, link in network.links.items()
        for direction in DIRECTIONS
        for traffic in (link.traffic[direction],)
        if link.channels[direction].frames_offered + traffic.altered["duplicate"]
        != traffic.packets + sum(traffic.dropped.values()) + traffic.in_flight
    ]


def test_a_conference_over_links_that_do_everything_loses_nothing_and_every_packet_is_accounted_for() -> None:
    conference = Conference(with_links({"core", "uplink", "access"}, **EVERYTHING))
    conference.join()
    network = conference.network
    wrong: list[str] = []
    for at_s in (0.5, 1.0, 1.5):
        conference.at(at_s, lambda: wrong.extend(unaccounted(network)))
    conference.at(0.603, lambda: network.set_carrier("core2-csr1", up=False))
    conference.at(0.75, lambda: network.set_carrier("core2-csr1", up=True))
    conference.at(0.8, lambda: network.block("core1-csr1", "a_to_b"))
    conference.at(1.2, lambda: network.unblock("core1-csr1"))
    conference.publish_everywhere(rounds=10, interval_s=0.2)
    assert wrong + unaccounted(network) == []
    conference.assert_invariants()
    dropped = {
        cause for link in network.links.values() for t in link.traffic.values() for cause, n in t.dropped.items() if n
    }
    altered = {
        kind for link in network.links.values() for t in link.traffic.values() for kind, n in t.altered.items() if n
    }
    assert dropped >= {"loss", "corrupt", "blocked", "carrier"}
    assert altered == {"duplicate", "reorder", "corrupt"}


def test_one_direction_alone_is_impaired() -> None:
    conference = Conference(with_links({"access"}, back={"loss_ratio": 0.2}))
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.2)
    for name, link in conference.network.links.items():
        down, up = (link.traffic[direction].dropped["loss"] for direction in DIRECTIONS)
        assert down == 0
        assert (up > 0) == (name in {"csr1-ue1", "csr1-ue2", "csr2-ue3", "csr2-ue4"})
    conference.assert_invariants()


def largest_packets(network: SimulatedNetwork) -> dict[str, int]:
    """Return, of each link, the size of the largest IP packet that has crossed it."""
    return {
        name: max(traffic.largest_bytes for traffic in link.traffic.values()) - 14
        for name, link in network.links.items()
    }


@pytest.mark.parametrize("mtu_bytes", [576, 9_000])
def test_no_packet_is_larger_than_the_mtu_and_smaller_links_take_more_of_them(
    mtu_bytes: int,
) -> None:
    conference = Conference(with_links({"core", "uplink", "access", "login"}, mtu_bytes=mtu_bytes))
    conference.join()
    conference.publish("ue1", count=3, size_bytes=6_000)
    conference.run_for(2.0)
    conference.assert_invariants()
    sizes = largest_packets(conference.network)
    assert max(sizes.values()) <= mtu_bytes
    assert (max(sizes.values()) > 6_000) == (mtu_bytes == 9_000)


def test_an_mtu_that_changes_holds_from_then_on_and_for_a_forwarder_that_starts_again() -> None:
    conference = Conference(with_links({"core", "uplink", "access", "login"}, mtu_bytes=9_000))
    network = conference.network
    conference.join()
    network.impair("csr1-ue1", Impairment(delay_ms=1.0, mtu_bytes=600))
    network.crash("csr1.forwarder")
    conference.run_for(0.2)
    network.restart("csr1.forwarder")
    conference.run_for(3.0)
    for link in network.links.values():
        for traffic in link.traffic.values():
            traffic.largest_bytes = 0
    conference.publish("ue1", count=3, size_bytes=6_000)
    conference.publish("ue3", count=3, size_bytes=6_000)
    conference.run_for(2.0)
    conference.assert_invariants()
    sizes = largest_packets(network)
    assert sizes["csr1-ue1"] <= 600
    assert sizes["csr2-ue3"] > 6_000


async def test_changes_and_black_holes_are_read_back() -> None:
    simulation = ControlledSimulation(NetworkPlan("read", TIERS, 7, Path("nowhere")), on_record=lambda *_: None)
    after = await simulation.change_link("core1-core2", direction="b_to_a", corrupt_ratio=0.5, queue_bytes=9_000)
    assert (after["b_to_a"].corrupt_ratio, after["b_to_a"].queue_bytes, after["a_to_b"].corrupt_ratio) == (
        0.5,
        9_000,
        0.0,
    )
    with pytest.raises(ValueError, match="corrupt_ratio"):
        await simulation.change_link("core1-core2", corrupt_ratio=1.5)
    await simulation.set_blocked("core1-core2", {"b_to_a"})
    assert await simulation.read_blocked("core1-core2") == {"b_to_a"}
    assert [row.blocked for row in await simulation.link_counters() if row.link == "core1-core2"] == [False, True]
    await simulation.set_blocked("core1-core2", {"a_to_b"})
    assert await simulation.read_blocked("core1-core2") == {"a_to_b"}


def test_acks_that_ride_on_nothing_are_no_repetitions() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.publish_everywhere(rounds=3, interval_s=0.5)
    conference.assert_invariants()
    sent: Counter[str] = Counter()
    for process in conference.network.processes.values():
        for count in sent_messages(process.core):
            sent[count.message] += count.packets
    assert sent["link-ack"] > 0
    assert sent["link-repetition"] == 0, "nothing was lost"
