"""Any network, any trouble for a while: once it is over everybody agrees and nothing was lost, doubled or altered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from testbed.plan import Mode
from tests.simulated.conference import Conference, impair_everywhere

EXAMPLES = 15


@dataclass(frozen=True)
class Trouble:
    """One fault: a link is down, silent in one or both directions, or bad, from *at_s* for *for_s*."""

    kind: str
    link: int  #: which link, counted round
    at_s: float
    for_s: float


troubles = st.builds(
    Trouble,
    st.sampled_from(["down", "black hole", "one way", "lossy", "slow"]),
    st.integers(0, 40),
    st.integers(0, 30).map(lambda tenths: tenths / 10),
    st.sampled_from([0.05, 0.2, 0.5, 1.0, 2.5]),
)
topologies = st.one_of(
    st.builds(
        lambda cores, csrs, ues, degree: (
            "tiers",
            {"cores": cores, "csrs": csrs, "ues_per_csr": ues, "core_degree": min(degree, cores - 1)},
        ),
        st.integers(3, 6),
        st.integers(1, 4),
        st.integers(1, 2),
        st.integers(2, 3),
    ),
    st.builds(
        lambda name, csrs: (name, {"csrs": csrs, "ues_per_csr": 1}),
        st.sampled_from(["topozoo/Abilene", "topozoo/Nsfnet", "sndlib/polska"]),
        st.integers(2, 4),
    ),
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(
    topology=topologies,
    mode=st.sampled_from(["hybrid", "push", "pull"]),
    seed=st.integers(0, 1_000),
    loss_ratio=st.sampled_from([0.0, 0.0, 0.02, 0.1]),
    jitter_ms=st.sampled_from([0.0, 5.0]),
    history=st.sampled_from([5, 1_000]),
    trouble=st.lists(troubles, max_size=6),
    updates=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 50), st.sampled_from([1, 1, 1, 12])), min_size=1, max_size=25
    ),
)
@example(
    topology=("topozoo/Abilene", {"csrs": 6, "ues_per_csr": 1}),
    mode="hybrid",
    seed=7,
    loss_ratio=0.0,
    jitter_ms=0.0,
    history=1_000,
    trouble=[Trouble("down", 5, 0.5, 2.5)],  # Denver-KansasCity: alternatives of one router wait for each other
    updates=[(ue, tenths, 1) for tenths in range(0, 40, 2) for ue in range(6)],
)
def test_nothing_is_lost_whatever_happens(
    topology: tuple[str, dict[str, int]],
    mode: Mode,
    seed: int,
    loss_ratio: float,
    jitter_ms: float,
    history: int,
    trouble: list[Trouble],
    updates: list[tuple[int, int, int]],
) -> None:
    conference = Conference(topology, mode=mode, seed=seed, proxy_settings={"history_max_entries": history})
    conference.join()
    impair_everywhere(conference, loss_ratio=loss_ratio, jitter_ms=jitter_ms)
    for each in trouble:
        schedule(conference, each)
    for ue, tenths, count in updates:
        conference.at(tenths / 10, partial(conference.publish, conference.ues[ue % len(conference.ues)], count=count))
    conference.run_for(6.0)
    impair_everywhere(conference, loss_ratio=0.0, jitter_ms=0.0)
    conference.assert_invariants()


def schedule(conference: Conference, trouble: Trouble) -> None:
    network = conference.network
    link = sorted(network.links)[trouble.link % len(network.links)]
    start_s, end_s = trouble.at_s, trouble.at_s + trouble.for_s
    healthy = network.links[link].channels["a_to_b"].impairment
    match trouble.kind:
        case "down":
            conference.at(start_s, partial(network.set_carrier, link, up=False))
            conference.at(end_s, partial(network.set_carrier, link, up=True))
        case "black hole":
            conference.at(start_s, partial(network.block, link))
            conference.at(end_s, partial(network.unblock, link))
        case "one way":
            conference.at(start_s, partial(network.block, link, "a_to_b"))
            conference.at(end_s, partial(network.unblock, link))
        case "lossy":
            conference.at(start_s, partial(network.impair, link, msgspec.structs.replace(healthy, loss_ratio=0.5)))
            conference.at(end_s, partial(network.impair, link, healthy))
        case "slow":
            slow = msgspec.structs.replace(healthy, delay_ms=200.0, rate_mbps=1.0, queue_packets=20)
            conference.at(start_s, partial(network.impair, link, slow))
            conference.at(end_s, partial(network.impair, link, healthy))
