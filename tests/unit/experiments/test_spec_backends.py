"""Which back end makes each link, by the experiment file."""

from pathlib import Path

import pytest

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
