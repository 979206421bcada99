"""Which back end makes each link, by the experiment file."""

import json
from pathlib import Path

import pytest

from experiments.run_mode import check_mode
from experiments.spec import Experiment, parse_experiment
from topologies.errors import InputError

HEAD = '[experiment]\nname = "x"\nduration_s = 5\n{experiment}\n[topology]\nname = "tiers"\n'
WORKLOAD = '\n[[workload]]\nkind = "poisson"\nrate_per_s = 1.0\n'


def parsed(links: str = "", *, experiment: str = "") -> Experiment:
    return parse_experiment(HEAD.format(experiment=experiment) + links + WORKLOAD, Path("x.toml"))


def backends(experiment: Experiment) -> dict[str, str]:
    """Return tier, or link where its own differs from its tier's first one, -> back end."""
    found: dict[str, str] = {}
    for link in experiment.topology.links:
        if found.setdefault(link.tier, link.backend) != link.backend:
            found[link.name] = link.backend
    return found


def test_automatic_unless_said_otherwise() -> None:
    assert set(backends(parsed()).values()) == {"auto"}
    assert set(backends(parsed(experiment='link_backend = "netem"')).values()) == {"netem"}


def test_a_link_before_its_tier_before_the_whole() -> None:
    experiment = parsed(
        '[links.access]\nbackend = "wire"\n[links."ue2-csr1"]\nbackend = "auto"\n[links.core]\ndelay_ms = 3\n',
        experiment='link_backend = "netem"',
    )
    found = backends(experiment)
    assert (found["access"], found["core"]) == ("wire", "netem")
    assert found["csr1-ue2"] == "auto"
    assert experiment.resolved["experiment"]["link_backend"] == "netem"
    assert experiment.resolved["links"]["access"]["backend"] == "wire"


@pytest.mark.parametrize(
    ("links", "place", "problem"),
    [
        ("[links.access]\nduplicate_ratio = 0.1\n", "[links.access]", "duplicates that come later"),
        (
            "[links.access.from.ue]\nreorder_ratio = 0.1\njitter_ms = 3\n",
            "[links.access]",
            "reordering on top of a jitter",
        ),
        ("[links.access.from.ue]\nmtu_bytes = 1400\n", "[links.access]", "an MTU that differs by direction"),
        (
            '[[fault]]\nkind = "impair"\nat_s = 1\ntarget = "csr1-ue1"\nduplicate_ratio = 0.1\n',
            "[[fault]] 1",
            "duplicates",
        ),
        (
            '[[fault]]\nkind = "impair"\nat_s = 1\ntarget = "csr1-ue1"\nmtu_bytes = 1400\nsender = "ue1"\n',
            "[[fault]] 1",
            "an MTU that differs by direction",
        ),
    ],
)
def test_what_netem_cannot_do_is_refused_with_its_place(links: str, place: str, problem: str) -> None:
    parsed(links)  # the other back end can
    with pytest.raises(InputError) as caught:
        parsed(links, experiment='link_backend = "netem"')
    assert place in caught.value.where
    assert problem in caught.value.problem
    assert 'backend = "wire"' in caught.value.remedy
    parsed(links + '\n[links."ue1-csr1"]\nbackend = "wire"\n' if "fault" in links else links)


def test_an_unknown_back_end() -> None:
    with pytest.raises(InputError, match="backend"):
        parsed('[links.core]\nbackend = "tc"\n')


def impair(**keys: object) -> str:
    values = {"kind": "impair", "at_s": 1, "target": "csr1-ue1", **keys}
    lines = (f"{key} = {json.dumps(value)}" for key, value in values.items())
    return "\n".join(("[[fault]]", *lines, ""))


@pytest.mark.parametrize("backend", ["wire", "auto"])
def test_only_netem_links_choose_frames(backend: str) -> None:
    with pytest.raises(InputError, match=r"only netem links choose .* or use message faults") as caught:
        parsed(impair(match="udp", delay_ms=9), experiment=f'link_backend = "{backend}"')
    assert "[[fault]] 1: match" in caught.value.where
    mixed = '[links.access]\nbackend = "netem"\n' + impair(match="udp", delay_ms=9)
    assert parsed(mixed, experiment=f'link_backend = "{backend}"').resolved["fault"][0]["match"] == "udp"


@pytest.mark.parametrize(
    ("keys", "where", "problem"),
    [
        ({"match": "udp"}, "[[fault]] 1", "it changes nothing"),
        ({"match": "udp dst-port", "delay_ms": 1}, "[[fault]] 1: match", "says not what to match"),
        ({"match": "udp", "mtu_bytes": 1400}, "[[fault]] 1: mtu_bytes", "all frames of a link"),
        ({"match": "udp", "delay_ms": 1, "ramp_s": 1}, "[[fault]] 1: ramp_s", "all frames of a link"),
        ({"match": "udp", "duplicate_ratio": 0.1}, "[[fault]] 1", "duplicates that come later"),
    ],
)
def test_what_cannot_be_done_to_chosen_frames(keys: dict[str, object], where: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(impair(**keys), experiment='link_backend = "netem"')
    assert where in caught.value.where
    assert problem in caught.value.problem


def test_one_property_of_the_same_frames_is_set_by_one_at_a_time() -> None:
    of_some = impair(match="udp dst-port 6363", delay_ms=9)
    parsed(of_some + impair(delay_ms=5) + impair(match="udp", delay_ms=1), experiment='link_backend = "netem"')
    with pytest.raises(InputError, match=r"\[\[fault\]\] 1 also sets delay_ms"):
        parsed(of_some + impair(match="udp  dst-port 6363", delay_ms=5), experiment='link_backend = "netem"')


def test_what_overlapping_impairments_come_to_is_checked_before_the_run() -> None:
    rate, twice = impair(match="udp", rate_mbps=1), impair(match="udp dst-port 9", duplicate_ratio=0.1, late_max_ms=0)
    parsed(twice, experiment='link_backend = "netem"')
    with pytest.raises(InputError, match="duplicates together with a rate"):
        parsed(rate + twice, experiment='link_backend = "netem"')
    three = "".join(impair(match=f"src 10.0.0.0/{length}", delay_ms=length) for length in (8, 16, 24))
    two = impair(match="udp dst-port 1", loss_ratio=0.1) + impair(match="icmp", loss_ratio=0.1)
    with pytest.raises(InputError, match="more than 7 kinds of frames") as caught:
        parsed(three + two, experiment='link_backend = "netem"')  # 3 and 1, and 3 of both; then the fifth
    assert "[[fault]] 5" in caught.value.where
    one_after_the_other = three.replace("[[fault]]", "[[fault]]\nfor_s = 1") + two.replace("at_s = 1", "at_s = 2.5")
    parsed(one_after_the_other, experiment='link_backend = "netem"')


def test_a_simulated_network_has_no_frames_to_choose() -> None:
    experiment = parsed(impair(match="udp", delay_ms=9), experiment='link_backend = "netem"')
    check_mode(experiment, "emulated")
    with pytest.raises(InputError, match=r"\[\[fault\]\] 1: match: a simulated network has no frames"):
        check_mode(experiment, "simulated")
