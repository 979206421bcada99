from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.spec import Experiment, parse_experiment
from topologies.errors import InputError

BASE = """\
[experiment]
name = "x"
duration_s = 5
[topology]
name = "tiers"
"""

Load = Callable[[str], Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda text: parse_experiment(BASE + text, tmp_path / "a.toml")


def test_a_pattern_is_for_all_links_whose_ends_match(load: Load) -> None:
    topology = load(
        '[links.access]\ndelay_ms = 9\n[links."csr1-ue*"]\ndelay_ms = 1.5\n[links."core?-csr2"]\nrate_mbps = 5\n'
    ).topology
    assert {link.name for link in topology.links if link.properties.delay_ms == 1.5} == {
        "csr1-ue1",
        "csr1-ue2",
        "csr1-ue3",
    }
    assert topology.link("csr2-ue4").properties.delay_ms == 9
    assert {link.name for link in topology.links if link.properties.rate_mbps == 5} == {"core2-csr2", "core3-csr2"}


def test_ends_stand_in_either_order(load: Load) -> None:
    topology = load('[links."ue*-csr1"]\ndelay_ms = 1\n').topology
    assert sum(link.properties.delay_ms == 1 for link in topology.links if link.tier == "access") == 3


def test_a_links_own_table_goes_before_patterns_and_a_later_pattern_before_an_earlier(load: Load) -> None:
    topology = load(
        '[links."ue1-csr1"]\ndelay_ms = 3\n'
        '[links."csr*-ue*"]\ndelay_ms = 1\nloss_ratio = 0.1\njitter_ms = 2\n'
        '[links."csr1-ue*"]\njitter_ms = 4\n'
    ).topology
    own = topology.link("csr1-ue1").properties
    assert (own.delay_ms, own.loss_ratio, own.jitter_ms) == (3, 0.1, 4)
    other = topology.link("csr2-ue4").properties
    assert (other.delay_ms, other.loss_ratio, other.jitter_ms) == (1, 0.1, 2)


def test_a_queue_is_bounded_as_the_table_before_says(load: Load) -> None:
    topology = load('[links."csr1-*"]\nqueue_packets = 9\n[links."csr1-ue1"]\nqueue_bytes = 5000\n').topology
    assert topology.link("csr1-ue1").properties.queue_bytes == 5000
    assert topology.link("csr1-ue2").properties.queue_packets == 9


def test_one_direction_of_a_pattern(load: Load) -> None:
    topology = load(
        '[links."csr1-ue*"]\nrate_mbps = 50\n[links."csr1-ue*".from.csr1]\nrate_mbps = 100\n'
        '[links."csr1-ue2".from.csr1]\ndelay_ms = 7\n'
    ).topology
    assert topology.link("csr1-ue1").properties_from("csr1").rate_mbps == 100
    assert topology.link("csr1-ue1").properties_from("ue1").rate_mbps == 50
    down = topology.link("csr1-ue2").properties_from("csr1")
    assert (down.rate_mbps, down.delay_ms) == (100, 7)


def test_a_pattern_that_means_no_link_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r'a\.toml:6: \[links\."csr9-\*"\]: no link of tiers matches it') as caught:
        load('[links."csr9-*"]\ndelay_ms = 1\n')
    assert '[links."' in caught.value.remedy
    with pytest.raises(InputError, match="no link of tiers matches it"):
        load('[links."csr*"]\ndelay_ms = 1\n')
