"""Faults of processes in real namespaces: with a stand-in that they take, with real nodes that a conference survives."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from experiments.progress import choose_progress
from experiments.runner import run_experiment
from experiments.spec import load_experiment
from testbed.emulation.control import NodeError, NodeGoneError
from testbed.emulation.network import emulated_network
from testbed.faults.injector import FaultInjector
from testbed.faults.model import Fault, FaultKind
from testbed.plan import NetworkPlan
from tests.emulation.machine import STAND_IN

NoResidue = Callable[[], None]


async def test_a_process_is_killed_and_started_again_under_its_next_boot(
    plan: NetworkPlan, assert_no_residue: NoResidue
) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        injector = FaultInjector(network, plan.topology, plan.run_dir / "faults.jsonl")
        before = network.processes["csr1.proxy"].pid
        plan.state_dir.mkdir(exist_ok=True)
        disk = plan.state_dir / "csr1.sqlite3"
        disk.write_bytes(b"something")

        assert (await injector.apply(Fault("1", "crash", "csr1.proxy"))).verified
        assert network.process_state("csr1.proxy") == "dead"
        with pytest.raises(NodeGoneError):
            await network.request("csr1.proxy", "ping")
        assert (await injector.heal("1")).verified
        assert disk.exists()
        assert network.processes["csr1.proxy"].pid != before
        assert (await network.request("csr1.proxy", "ping"))["node"] == "csr1"

        assert (await injector.apply(Fault("2", "disk-loss", "csr1.proxy"))).verified
        assert not disk.exists()
        assert (await injector.heal("2")).verified
        assert b'"boot": 3' in (plan.config_dir / "csr1.proxy.json").read_bytes()

        assert (await injector.apply(Fault("3", "crash", "csr1"))).verified
        assert network.process_state("csr1.forwarder") == "dead"
        assert (await injector.heal("3")).verified
    assert_no_residue()
    assert network.exits()["csr1.proxy"].status == 0


async def test_a_frozen_process_says_nothing_and_goes_on_afterwards(plan: NetworkPlan) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        injector = FaultInjector(network, plan.topology, plan.run_dir / "faults.jsonl")
        assert (await injector.apply(Fault("1", "freeze", "core1"))).verified
        with pytest.raises(NodeError, match="did not answer"):
            await network.request("core1.forwarder", "ping", limit_s=0.2)
        assert (await injector.heal("1")).verified
        assert (await network.request("core1.forwarder", "ping"))["node"] == "core1"


async def test_what_is_frozen_or_dead_does_not_hold_up_the_end(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        await network.freeze_process("core1.forwarder")
        await network.kill_process("csr1.proxy")
    assert_no_residue()
    assert network.exits()["core1.forwarder"].status == 0
    assert network.exits()["csr1.proxy"].status == -9


async def test_a_process_that_cannot_be_started_again(plan: NetworkPlan) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        injector = FaultInjector(network, plan.topology, plan.run_dir / "faults.jsonl")
        await injector.apply(Fault("1", "crash", "ue1"))
        (plan.config_dir / "ue1.forwarder.json").unlink()
        assert not (await injector.heal("1")).verified


_EXPERIMENT = """
[experiment]
name = "strike"
duration_s = 4
[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 2
[[workload]]
kind = "constant"
rate_per_s = 5.0
stop_s = 3.8
[[fault]]
at_s = 0.8
for_s = 1.6
kind = "{kind}"
target = "{target}"
"""


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("crash", "csr1.proxy"),
        ("disk-loss", "csr1.proxy"),
        ("freeze", "csr1.proxy"),
        ("crash", "csr1.forwarder"),
        ("crash", "csr1"),
        ("crash", "login"),
    ],
)
def test_a_conference_survives_it(kind: FaultKind, target: str, tmp_path: Path) -> None:
    path = tmp_path / "strike.toml"
    path.write_text(_EXPERIMENT.format(kind=kind, target=target))
    outcome = run_experiment(load_experiment(path, []), out=tmp_path / "run", progress=choose_progress("strike"))
    assert outcome.analysis is not None
    failed = [
        check
        for check in outcome.analysis.checks
        if check.verdict != "pass" and check.name.startswith(("invariant.", "fidelity.nodes", "fidelity.faults"))
    ]
    assert failed == []
    rows = [msgspec.json.decode(line) for line in (tmp_path / "run" / "raw" / "faults.jsonl").read_bytes().splitlines()]
    assert [row["verified"] for row in rows] == [True, True]
    assert not list((tmp_path / "run" / "state").glob("*.broken-*"))
