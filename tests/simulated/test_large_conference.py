"""Conferences whose snapshot is many packets long: late joiners and proxies get all of it, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

from proxy.core.conference import Conference as HeldConference
from proxy.core.events import JoinRequested
from proxy.core.signing import Signer, fingerprint
from proxy.core.snapshot_transfer import FROZEN_MAX
from proxy.core.view import View
from proxy.wire.message_names import SNAPSHOT
from proxy.wire.messages import EMPTY_DIGEST, SEGMENT_BYTES, FpUpdate, SignedToken, SignedUpdate, Token
from proxy.wire.payload import encode, encoded_size_bytes
from testbed.node_config import device_key_seed
from testbed.simulation.virtual_time import START_S
from tests.simulated.attacker import answer_first
from tests.simulated.conference import Conference, impair_everywhere

NETWORK = ("tiers", {"cores": 4, "csrs": 4, "ues_per_csr": 3})
#: One at each proxy is there from the start.
RESIDENTS = ("ue3", "ue6", "ue9", "ue12")
CROWD = 600
#: Less than the crowd has published, so that nothing but a snapshot tells of it.
HISTORY = 100


def member(number: int) -> str:
    return f"crowd{number:04}"


@cache
def published(number: int, seq: int) -> SignedUpdate:
    """Return an update of a member of the crowd; the first one is its ``join``, with its token."""
    device, login, key = member(number), Signer(device_key_seed(7, "login")), Signer(number.to_bytes(32, "big"))
    token = encode(Token(device, "main", "participant", key.public_key, START_S, START_S + 3_600.0))
    event, body = ("join", encode(SignedToken(token, login.sign(token)))) if seq == 1 else ("message", b"hello")
    update = encode(
        FpUpdate(
            "main", device, 1, seq, event, "", fingerprint(key.public_key), START_S, EMPTY_DIGEST, EMPTY_DIGEST, body
        )
    )  # fmt: skip
    return SignedUpdate(update, key.sign(update))


def held(conference: Conference, csr: str) -> HeldConference:
    return conference.network.proxy(csr).conferences["main"]


def let_publish(conference: Conference, seq: int, numbers: range, *, csr: str = "csr1") -> None:
    """Have a proxy accept one update of each of the crowd, as if they were its clients."""
    proxy = conference.network.proxy(csr)
    mine = held(conference, csr)
    for number in numbers:
        mine.log.view.offer(published(number, seq), "push")
        entry = mine.log.append_own(mine.own, (published(number, seq),), signer=proxy._out.signer)
        proxy._clients.notify(mine, entry)


def crowded(**forwarder_settings: int) -> Conference:
    """Return a conference that the residents and a crowd take part in; everybody agrees."""
    conference = Conference(
        NETWORK, proxy_settings={"history_max_entries": HISTORY}, forwarder_settings=forwarder_settings
    )
    conference.join(RESIDENTS)
    let_publish(conference, 1, range(CROWD))
    wait_until(lambda: agree(conference), conference)
    assert encoded_size_bytes(held(conference, "csr1").log.snapshot(complete=True)) > 10 * SEGMENT_BYTES
    return conference


def agree(conference: Conference, *late: str) -> bool:
    """Tell whether all proxies have the same log, and the residents and the *late* ones the same view."""
    proxies = [held(conference, csr).log for csr in conference.csrs]
    clients = [conference.network.client(ue) for ue in (*RESIDENTS, *late)]
    views: list[View] = [log.view for log in proxies] + [client.view for client in clients]
    return len({log.state_digest() for log in proxies}) == len({(v.digest(), tuple(v.roster())) for v in views}) == 1


def wait_until(
    holds: Callable[[], bool], conference: Conference, *, limit_s: float = 10.0, step_s: float = 0.02
) -> float:
    start_s = conference.now_s
    while not holds():
        assert conference.now_s - start_s < limit_s
        conference.run_for(step_s)
    return conference.now_s - start_s


def assert_complete(conference: Conference, *late: str) -> None:
    """Everybody sees the whole crowd, and goes on hearing it: the tokens have come too."""
    for ue in late:
        assert len(conference.network.client(ue).view.roster()) >= CROWD
    let_publish(conference, 2, range(100, 105))
    wait_until(lambda: agree(conference, *late), conference)
    for ue in (*RESIDENTS, *late):
        assert conference.network.client(ue).view.seq(member(102), 1) == 2
        assert not conference.network.counters(f"{ue}.forwarder").get("malformed")


def start(conference: Conference, *ues: str) -> None:
    for ue in ues:
        conference.network.send(ue, JoinRequested())


def fetching(conference: Conference, ue: str) -> bool:
    """Tell whether a client has some segments, and not yet all."""
    fetch = conference.network.client(ue)._receiver._fetch
    return bool(fetch._parts)


def test_late_joiner_gets_everything() -> None:
    conference = crowded()
    start(conference, "ue1")
    assert wait_until(lambda: agree(conference, "ue1"), conference) < 1.0
    assert_complete(conference, "ue1")
    assert conference.network.counters("csr1.proxy")["snapshots_frozen"] == 1
    assert not conference.network.counters("csr1.proxy").get("replies_too_large")


def test_flash_crowd_shares_one_snapshot_and_the_network_fans_it_out() -> None:
    conference = crowded()
    start(conference, "ue1", "ue2")  # both at csr1
    wait_until(lambda: agree(conference, "ue1", "ue2"), conference)
    counters = conference.network.counters("csr1.proxy")
    (frozen,) = held(conference, "csr1").frozen._by_digest.values()
    assert counters["snapshots_frozen"] == 1
    assert counters["snapshots_shared"] >= 2
    # The other proxies have fetched it too when the crowd came: each segment has left this proxy once.
    assert counters["segments_sent"] == frozen.manifest.segments
    assert_complete(conference, "ue1", "ue2")


def test_late_joiner_under_loss() -> None:
    conference = crowded()
    impair_everywhere(conference, loss_ratio=0.2)
    start(conference, "ue1", "ue4", "ue7")
    wait_until(lambda: agree(conference, "ue1", "ue4", "ue7"), conference, limit_s=30.0)
    assert_complete(conference, "ue1", "ue4", "ue7")


def test_router_that_forges_a_segment() -> None:
    """What it sends to the client is not installed; asked anew under names of its own, the client gets the true ones."""
    conference = crowded(cs_max_entries=0)  # so that the client's Interests reach the proxy
    answer_first(conference, "csr1.proxy", SNAPSHOT, "ue1", lambda _: bytes(SEGMENT_BYTES), count=1)
    start(conference, "ue1")
    wait_until(lambda: agree(conference, "ue1"), conference)
    assert conference.network.counters("ue1.forwarder")["refused_snapshot_forged"] == 1
    assert_complete(conference, "ue1")


@pytest.mark.parametrize("down_s", [0.1, 5.0])
def test_proxy_crashes_while_segments_are_fetched(down_s: float) -> None:
    """Before it is back, the client is at another proxy, or it finds that the old snapshot is gone."""
    conference = crowded()
    start(conference, "ue1")
    wait_until(lambda: fetching(conference, "ue1"), conference, step_s=0.001)
    conference.network.crash("csr1.proxy")
    conference.at(down_s, lambda: conference.network.restart("csr1.proxy"))
    conference.run_for(down_s + 0.5)
    wait_until(lambda: agree(conference, "ue1"), conference, limit_s=20.0)
    assert_complete(conference, "ue1")


def without_its_disk(csr: str, **forwarder_settings: int) -> Conference:
    """Return a crowded conference in which a proxy has just lost everything."""
    conference = crowded(**forwarder_settings)
    conference.network.crash(f"{csr}.proxy")
    conference.network.lose_disk(f"{csr}.proxy")
    conference.run_for(1.0)
    conference.network.restart(f"{csr}.proxy")
    wait_until(lambda: "main" in conference.network.proxy(csr).conferences, conference, step_s=0.001)
    return conference


def test_proxy_recovers_by_a_large_snapshot_after_it_has_lost_its_disk() -> None:
    conference = without_its_disk("csr2")
    wait_until(lambda: agree(conference), conference)
    assert conference.network.counters("csr2.proxy")["snapshots_installed"] >= 1
    assert_complete(conference)


@pytest.mark.parametrize("cs_max_entries", [0, 4_096])
def test_the_proxy_that_sends_a_snapshot_to_another_crashes(cs_max_entries: int) -> None:
    """Content stores may still have all of it; where there are none, another proxy is asked."""
    conference = without_its_disk("csr2", cs_max_entries=cs_max_entries)
    fetch = held(conference, "csr2").fetch
    wait_until(lambda: bool(fetch._parts), conference, step_s=0.001)
    source = fetch.source
    conference.network.crash(f"{source}.proxy")
    conference.run_for(2.0)
    assert len(held(conference, "csr2").log.view.roster()) >= CROWD
    given_up = conference.network.counters("csr2.proxy").get("snapshots_given_up", 0)
    assert given_up == (cs_max_entries == 0)
    conference.network.restart(f"{source}.proxy")
    wait_until(lambda: agree(conference), conference)
    assert_complete(conference)


def test_everybody_joins_while_the_crowd_goes_on() -> None:
    """The history is shorter than what comes meanwhile, so snapshots are superseded while they are fetched."""
    conference = crowded()
    others = [ue for ue in conference.ues if ue not in RESIDENTS]
    for step in range(20):
        numbers = range(200 + 20 * step, 220 + 20 * step)
        conference.at(0.1 * step, partial(let_publish, conference, 2, numbers))
    for index, ue in enumerate(others):
        conference.at(0.2 * index, partial(start, conference, ue))
    conference.run_for(2.0)
    wait_until(lambda: agree(conference, *others), conference)
    assert_complete(conference, *others)
    for csr in conference.csrs:
        assert len(held(conference, csr).frozen) <= FROZEN_MAX
