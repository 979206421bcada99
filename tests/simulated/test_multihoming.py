"""UEs with several access links: they move when their own link or CSR fails, and go back when it is whole again."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.records import SessionChanged
from tests.simulated.conference import Conference

TWO_HOMED = ("tiers", {"cores": 3, "csrs": 3, "ues_per_csr": 1, "ue_links": 2})
HOLD_DOWN_S = 1.0
#: Of a face: 0.095 s x 3, and what the last heartbeat was late.
FACE_DETECTION_S = 0.35
#: What an update may be late if nothing had to be noticed first: it went the long way round, or waited for a link to repeat it.
ROUND_ABOUT_MS = 80.0


def sessions(conference: Conference, ue: str) -> list[tuple[str, str]]:
    """Return (state, proxy) of each change of a device's session since it first joined."""
    changes: list[tuple[str, str]] = [
        (record.state, record.proxy)
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == ue
    ]
    return changes[changes.index(("joined", "csr1")) :]


def latest_ms(conference: Conference, since_s: float) -> float:
    """Return by how much the latest of the updates published from then on exceeded its path delay."""
    return max(each.latency_ms - each.path_delay_ms for each in conference.deliveries(since_s=since_s))


def test_ues_are_served_by_their_own_csr_as_long_as_they_can() -> None:
    conference = Conference(TWO_HOMED)
    conference.join()
    conference.publish_everywhere(rounds=30, interval_s=0.1)
    assert [conference.network.client(ue).proxy for ue in conference.ues] == ["csr1", "csr2", "csr3"]
    conference.assert_invariants()
    assert not any(conference.network.client(ue).counters.get("moves") for ue in conference.ues)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_carrier_of_the_own_link_lost_and_back(seed: int) -> None:
    """The session goes on over the other link, moves to the proxy that is nearer that way, and returns."""
    conference = Conference(TWO_HOMED, seed=seed, client_settings={"return_hold_down_s": HOLD_DOWN_S})
    conference.join()
    start_s = conference.now_s
    conference.at(1.0, lambda: conference.network.set_carrier("csr1-ue1", up=False))
    conference.at(3.0, lambda: conference.network.set_carrier("csr1-ue1", up=True))
    conference.publish_everywhere(rounds=160, interval_s=0.05)
    assert sessions(conference, "ue1") == [("joined", "csr1"), ("joined", "csr2"), ("joined", "csr1")]
    moved = [
        record.t_s - start_s
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == "ue1" and record.t_s > start_s
    ]
    assert moved[0] == pytest.approx(1.0, abs=0.02)
    assert 3.0 + HOLD_DOWN_S <= moved[1] <= 3.0 + 1.5 * HOLD_DOWN_S + 0.2
    assert latest_ms(conference, start_s) < ROUND_ABOUT_MS
    conference.assert_invariants()


def test_silent_link_of_a_ue_is_left_within_the_detection_time_of_its_face() -> None:
    conference = Conference(TWO_HOMED, client_settings={"return_hold_down_s": HOLD_DOWN_S})
    conference.join()
    start_s = conference.now_s
    conference.at(1.0, lambda: conference.network.block("csr1-ue1"))
    conference.publish_everywhere(rounds=60, interval_s=0.05)
    assert sessions(conference, "ue1") == [("joined", "csr1"), ("joined", "csr2")]
    assert latest_ms(conference, start_s) < FACE_DETECTION_S * 1e3 + ROUND_ABOUT_MS
    conference.network.unblock("csr1-ue1")
    conference.run_for(3.0)
    assert conference.network.client("ue1").proxy == "csr1"
    conference.assert_invariants()


def test_whole_csr_crashes_and_comes_back() -> None:
    conference = Conference(TWO_HOMED, client_settings={"return_hold_down_s": HOLD_DOWN_S})
    conference.join()
    start_s, network = conference.now_s, conference.network
    for process in ("csr1.forwarder", "csr1.proxy"):
        conference.at(1.0, partial(network.crash, process))
        conference.at(3.0, partial(network.restart, process))
    conference.publish_everywhere(rounds=160, interval_s=0.05)
    assert sessions(conference, "ue1") == [("joined", "csr1"), ("joined", "csr2"), ("joined", "csr1")]
    assert latest_ms(conference, start_s) < FACE_DETECTION_S * 1e3 + ROUND_ABOUT_MS
    conference.assert_invariants()


def test_crashed_proxy_is_left_when_its_forwarder_refuses_for_it() -> None:
    """When the client next says something, not at the detection time of its session; also with one link."""
    conference = Conference(("tiers", {"cores": 3, "csrs": 3, "ues_per_csr": 1}))
    conference.join()
    start_s = conference.now_s
    conference.at(1.0, lambda: conference.network.crash("csr1.proxy"))
    conference.publish_everywhere(rounds=40, interval_s=0.05)
    assert sessions(conference, "ue1") == [("joined", "csr1"), ("joined", "csr2")]
    assert latest_ms(conference, start_s) < 1.7 * 0.2 * 1e3 + ROUND_ABOUT_MS
    conference.network.restart("csr1.proxy")
    conference.assert_invariants()


def test_both_links_lost() -> None:
    conference = Conference(TWO_HOMED, client_settings={"return_hold_down_s": HOLD_DOWN_S})
    conference.join()
    for link in ("csr1-ue1", "csr2-ue1"):
        conference.at(0.5, partial(conference.network.set_carrier, link, up=False))
    conference.at(2.5, lambda: conference.network.set_carrier("csr2-ue1", up=True))
    conference.at(5.5, lambda: conference.network.set_carrier("csr1-ue1", up=True))
    conference.publish_everywhere(rounds=60, interval_s=0.1)
    conference.run_for(4.0)
    assert conference.network.client("ue1").proxy == "csr1"
    conference.assert_invariants()


faults = st.tuples(
    st.sampled_from(["crash proxy", "crash csr", "freeze proxy", "freeze csr", "carrier", "black hole", "lose disk"]),
    st.integers(0, 2),  # which CSR, or which UE's link to its own
    st.integers(0, 40).map(lambda tenths: tenths / 10),
    st.sampled_from([0.05, 0.2, 0.5, 1.0, 2.0]),
)


@pytest.mark.timeout(300)  # as long as it takes for so many conferences, on a busy machine, too
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(
    ue_links=st.integers(1, 3),
    mode=st.sampled_from(["hybrid", "push", "pull"]),
    seed=st.integers(0, 1_000),
    hold_down_s=st.sampled_from([0.05, 0.5, 2.0]),
    trouble=st.lists(faults, min_size=1, max_size=5),
)
@example(ue_links=3, mode="hybrid", seed=0, hold_down_s=0.05, trouble=[("crash proxy", 2, 0.0, 0.5)])
def test_clients_that_move_and_return_lose_nothing(
    ue_links: int, mode: str, seed: int, hold_down_s: float, trouble: list[tuple[str, int, float, float]]
) -> None:
    conference = Conference(
        ("tiers", {"cores": 3, "csrs": 3, "ues_per_csr": 1, "ue_links": ue_links}),
        mode=mode,  # type: ignore[arg-type]
        seed=seed,
        client_settings={"return_hold_down_s": hold_down_s, "return_hold_down_max_s": 4.0},
        proxy_settings={"ack_level": "replicated"} if any(kind == "lose disk" for kind, *_ in trouble) else None,
    )
    conference.join()
    busy: set[int] = set()
    for kind, index, at_s, for_s in trouble:
        if index in busy and kind not in ("carrier", "black hole"):
            continue  # one fault of a CSR's processes
        busy.add(index)
        strike(conference, kind, f"csr{index + 1}", at_s, for_s)
    for number in range(30):
        conference.at(number / 5, partial(conference.publish, conference.ues[number % 3]))
    conference.run_for(8.0)
    conference.wait_for_agreement()
    conference.run_for(10.0)
    assert [conference.network.client(ue).proxy for ue in conference.ues] == ["csr1", "csr2", "csr3"]
    conference.assert_invariants()


def strike(conference: Conference, kind: str, csr: str, at_s: float, for_s: float) -> None:
    network = conference.network
    link = next(link.name for link in conference.topology.links if link.a == csr and link.tier == "access")
    processes = [f"{csr}.proxy"] if "csr" not in kind else [f"{csr}.forwarder", f"{csr}.proxy"]
    match kind:
        case "carrier":
            conference.at(at_s, partial(network.set_carrier, link, up=False))
            conference.at(at_s + for_s, partial(network.set_carrier, link, up=True))
        case "black hole":
            conference.at(at_s, partial(network.block, link))
            conference.at(at_s + for_s, partial(network.unblock, link))
        case _:
            for process in processes:
                conference.at(at_s, partial(network.freeze if "freeze" in kind else network.crash, process))
                if kind == "lose disk":
                    conference.at(at_s, partial(network.lose_disk, process))
                conference.at(at_s + for_s, partial(network.thaw if "freeze" in kind else network.restart, process))
