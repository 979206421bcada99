"""What `conference.mode` makes of an experiment: who runs a service proxy, settings of the mode, what cannot be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from experiments.flow import plan_of
from experiments.spec import Experiment, parse_experiment
from experiments.spec_schema import ExperimentFile, PsyncSection, SvsSection
from proxy.config import NodeConfig, PsyncConfig, SvsConfig
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from topologies.catalogue import build
from topologies.errors import InputError

FILE = """
[experiment]
name = "modes"
duration_s = 5
[topology]
name = "tiers"
csrs = 4
ues_per_csr = 2
[[workload]]
kind = "poisson"
rate_per_s = 1
"""


def load(*overrides: str, text: str = FILE) -> Experiment:
    return parse_experiment(text, Path("modes.toml"), overrides)


def configs(experiment: Experiment) -> dict[str, NodeConfig]:
    plan = plan_of(experiment, run_id="r", run_dir=Path("r"))
    return {name: msgspec.convert(config, NodeConfig) for name, config in build_node_configs(plan)}


@pytest.mark.parametrize("mode", ["hybrid", "push", "pull"])
def test_with_proxies(mode: str) -> None:
    experiment = load(f"conference.mode={mode}")
    assert experiment.topology.proxies == experiment.topology.csrs
    assert {name for name, config in configs(experiment).items() if config.proxy is not None} == {
        f"{csr}.proxy" for csr in experiment.topology.csrs
    }


def test_svs_is_without_proxies_and_has_its_own_section() -> None:
    experiment = load("conference.mode=svs", "svs.periodic_s=2.5")
    assert experiment.topology.proxies == ()
    found = configs(experiment)
    assert not [config for config in found.values() if config.proxy is not None]
    for name, config in found.items():
        is_ue = name.startswith("ue")
        assert (config.svs is not None) is is_ue
        assert config.svs == (SvsConfig(periodic_s=2.5) if is_ue else None)
        assert config.forwarder is not None
        assert config.forwarder.service_socket is None
    assert experiment.resolved["svs"]["periodic_s"] == 2.5


def test_the_defaults_of_the_section_are_those_of_the_node() -> None:
    assert msgspec.convert(msgspec.structs.asdict(SvsSection()), SvsConfig) == SvsConfig()
    assert msgspec.convert(msgspec.structs.asdict(PsyncSection()), PsyncConfig) == PsyncConfig()


def test_the_sync_group_is_reached_from_every_router_and_by_its_members_alone() -> None:
    experiment = load("conference.mode=svs", 'conference.others={side = ["ue1", "ue2"]}')
    found = configs(experiment)
    for name, config in found.items():
        assert config.forwarder is not None
        groups = {
            route.prefix: {hop.face_id for hop in route.next_hops}
            for route in config.forwarder.routes
            if route.prefix.startswith("/hconf/32=group")
        }
        peers = {face.face_id: face.peer for face in config.forwarder.faces}
        routers = {face for face, peer in peers.items() if not peer.startswith(("ue", "login"))}
        main = "/hconf/32=group/32=svs/main"
        if name.startswith("ue"):
            of = "side" if config.node in ("ue1", "ue2") else "main"
            assert groups == {f"/hconf/32=group/32=svs/{of}": {0, *routers}}
        elif name.startswith("login"):
            assert groups == {}
        else:
            assert set(groups) == {main, "/hconf/32=group/32=svs/side"}
            members = {face for face, peer in peers.items() if peer.startswith("ue") and peer not in ("ue1", "ue2")}
            assert groups[main] == routers | members


def test_the_focus_is_the_nearest_on_average() -> None:
    delays = [f"links.core{n}-csr{n}.delay_ms=9" for n in (1, 2, 4)]
    experiment = load("conference.mode=central", *delays)
    assert experiment.topology.proxies == ("csr3",)
    login = configs(experiment)["login.forwarder"].login
    assert login is not None
    assert set(login.ranked_proxies.values()) == {("csr3",)}


def test_the_focus_can_be_chosen() -> None:
    experiment = load("conference.mode=central", "central.focus=csr2")
    found = configs(experiment)
    assert [name for name, config in found.items() if config.proxy is not None] == ["csr2.proxy"]
    proxy, forwarder = found["csr2.proxy"].proxy, found["csr1.forwarder"].forwarder
    assert proxy is not None
    assert forwarder is not None
    assert proxy.mode == "central"
    assert "/hconf/csr1" not in {route.prefix for route in forwarder.routes}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["conference.mode=central", "central.focus=csr9"], r"central.focus=csr9: tiers has no CSR `csr9`"),
        (["conference.mode=central", "conference.ack_level=replicated"], "none that could hold a replica"),
        (
            ["conference.mode=svs", "topology.ues_per_csr=90"],
            "in mode svs the state of the 360 UEs in `main` does not fit",
        ),
        (["conference.mode=psync", "topology.ues_per_csr=100"], "in mode psync the state of the 400 UEs"),
        (["conference.mode=psync", "psync.jitter_max_s=0.05"], "jitter_max_s = 0.05 is less than jitter_min_s"),
        (["psync.expected_entries=1000"], "expected_entries"),
        (["conference.mode=stars"], "stars"),
        (["svs.periodic_s=0"], "periodic_s"),
        (["svs.period_s=1"], "period_s"),
    ],
)
def test_what_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(*overrides)


@pytest.mark.parametrize(("kind", "problem"), [("crash", "no node or process"), ("disk-loss", "has no disk")])
def test_faults_of_service_proxies_need_one(kind: str, problem: str) -> None:
    target = "csr1.proxy" if kind == "crash" else "csr1"
    text = f'{FILE}[[fault]]\nkind = "{kind}"\nat_s = 1\ntarget = "{target}"\n'
    with pytest.raises(InputError, match=problem):
        load("conference.mode=svs", text=text)


@pytest.mark.parametrize("mode", ["svs", "central"])
def test_a_plan_with_the_proxies_of_another_mode_is_a_bug(mode: str) -> None:
    with pytest.raises(ValueError, match="served_by"):
        NetworkPlan("r", build("tiers", {}), 1, Path("r"), mode=mode)  # type: ignore[arg-type]


def test_edge_networks_need_no_proxy_ue_in_svs() -> None:
    text = FILE.replace("ues_per_csr = 2", "ues_per_csr = 2\nedge_networks = 1\nues_per_edge_network = 2")
    experiment = load("conference.mode=svs", text=text)
    assert experiment.topology.proxy_ues == ()
    assert not any(node.is_proxy for node in experiment.topology.nodes)


def test_every_section_of_a_mode_is_in_the_file() -> None:
    assert {"svs", "psync", "central"} <= set(ExperimentFile.__struct_fields__)
