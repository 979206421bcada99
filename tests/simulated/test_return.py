"""Clients that had to leave their nearest proxy go back to it, and nobody notices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.records import SessionChanged
from testbed.plan import Mode
from tests.simulated.conference import Conference, impair_everywhere

SMALL = ("tiers", {"cores": 3, "csrs": 3, "ues_per_csr": 1})
#: Longer than the crashes here, so that no client asks in vain.
HOLD_DOWN_S = 2.0
SETTINGS: Mapping[str, Any] = {"return_hold_down_s": HOLD_DOWN_S}


def moves(conference: Conference, ue: str) -> list[tuple[str, str]]:
    """Return (proxy, reason) of each time that a device came to be joined."""
    return [
        (record.proxy, record.reason)
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == ue and record.state == "joined"
    ]


def returned_s(conference: Conference) -> list[float]:
    return [
        record.t_s
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.reason == "returned"
    ]


def clients_of(conference: Conference, csr: str) -> set[str]:
    return set(conference.network.proxy(csr).conferences["main"].clients)


@pytest.mark.parametrize("mode", ["hybrid", "push", "pull"])
@pytest.mark.parametrize("seed", [1, 2])
def test_return_after_a_crash_delays_nothing(mode: Mode, seed: int) -> None:
    conference = Conference(SMALL, mode=mode, seed=seed, client_settings=SETTINGS)
    conference.join()
    conference.at(0.5, lambda: conference.network.crash("csr1.proxy"))
    conference.at(1.5, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=120, interval_s=0.05)
    assert [proxy for proxy, _ in moves(conference, "ue1")] == ["csr1", "csr2", "csr1"]
    assert moves(conference, "ue1")[-1] == ("csr1", "returned")
    first_s, last_s = min(returned_s(conference)), max(returned_s(conference))
    around = [each for each in conference.deliveries(since_s=first_s - 0.2) if each.published_s < last_s + 0.2]
    assert {each.receiver for each in around} == set(conference.ues)
    # Neither the proxy that was left nor the one returned to lets anything wait: the sessions overlap.
    assert max(each.latency_ms - each.path_delay_ms for each in around) < 30.0
    conference.assert_invariants()
    assert clients_of(conference, "csr1") == {"ue1"}
    assert clients_of(conference, "csr2") == {"ue2"}
    counters = conference.network.counters("csr2.proxy")
    assert counters["clients_moved"] == 1
    assert not counters.get("roster_away")
    assert not counters.get("roster_left")


def test_return_under_loss_keeps_every_invariant() -> None:
    conference = Conference(SMALL, client_settings=SETTINGS)
    conference.join()
    impair_everywhere(conference, loss_ratio=0.15, jitter_ms=10.0)
    conference.at(0.5, lambda: conference.network.crash("csr1.proxy"))
    conference.at(1.5, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=100, interval_s=0.1)
    impair_everywhere(conference, loss_ratio=0.0)
    conference.run_for(30.0)
    assert conference.network.client("ue1").proxy == "csr1"
    conference.assert_invariants()


def test_a_proxy_that_comes_and_goes_is_asked_less_and_less_often() -> None:
    conference = Conference(SMALL, client_settings={**SETTINGS, "return_hold_down_max_s": 30.0})
    conference.join()
    network = conference.network
    for number in range(12):
        conference.at(2.0 * number, lambda: network.crash("csr1.proxy"))
        conference.at(2.0 * number + 1.0, lambda: network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=24, interval_s=1.0)
    # Without a hold-down that grows it would be some ten times.
    assert 1 <= len([proxy for proxy, _ in moves(conference, "ue1") if proxy == "csr1"]) <= 5
    conference.run_for(45.0)
    assert network.client("ue1").proxy == "csr1"
    conference.assert_invariants()


def test_moving_there_and_back_at_once_leaves_nobody_away() -> None:
    """The proxy in between says of a device that has left it again that it is away; everybody knows better."""
    conference = Conference(SMALL, client_settings={"return_hold_down_s": 0.05})
    conference.join()
    conference.at(0.5, lambda: conference.network.freeze("csr1.proxy"))
    conference.at(1.4, lambda: conference.network.thaw("csr1.proxy"))
    conference.publish_everywhere(rounds=100, interval_s=0.05)
    assert conference.network.client("ue1").proxy == "csr1"
    conference.run_for(5.0)
    conference.assert_invariants()


def test_a_proxy_that_lost_its_disk_is_no_step_back() -> None:
    """What the returning client knows and the proxy does not yet comes from the one that it has left."""
    conference = Conference(SMALL, client_settings={"return_hold_down_s": 1.0})
    conference.join()
    conference.publish_everywhere(rounds=5, interval_s=0.1)
    conference.network.crash("csr1.proxy")
    conference.network.lose_disk("csr1.proxy")
    conference.at(1.5, lambda: conference.network.restart("csr1.proxy"))
    conference.publish_everywhere(rounds=100, interval_s=0.05)
    assert conference.network.client("ue1").proxy == "csr1"
    conference.assert_invariants()
