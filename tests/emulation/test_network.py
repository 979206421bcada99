"""The network as a whole, with a stand-in for the node program."""

import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from testbed.emulation.children import HelperError
from testbed.emulation.control import NodeError, NodeGoneError, NodeRefusedError
from testbed.emulation.network import EmulatedNetwork, emulated_network
from testbed.emulation.node_processes import NodeEvent
from testbed.emulation.ownership import ProcessId
from testbed.faults.injector import FaultInjector
from testbed.faults.model import Fault
from testbed.plan import NetworkPlan
from tests.emulation.machine import (
    STAND_IN,
    TREE,
    TREE_PROCESSES,
    namespace_of,
    namespaces_in_use,
    owned_processes,
    wait_until_gone,
)
from topologies.errors import InputError

NoResidue = Callable[[], None]


async def next_event(network: EmulatedNetwork, kind: str) -> NodeEvent:
    with trio.fail_after(10):
        async for event in network.events:
            if event.event == kind:
                return event
    raise AssertionError(f"the events ended without a {kind}")


async def test_up_and_down_without_a_trace(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        assert set(network.processes) == TREE_PROCESSES
        for name in TREE_PROCESSES:
            assert (await network.request(name, "ping"))["node"] == name.partition(".")[0]
        owned = owned_processes(plan)
        namespaces = {namespace_of(network.host_pid(node.name)) for node in TREE.nodes}
        assert len(namespaces) == len(TREE.nodes)
        assert namespaces <= namespaces_in_use()
    assert not any(who.is_alive() for who in owned.values())
    assert not namespaces & namespaces_in_use()
    assert_no_residue()

    exits = network.exits()
    assert {name: exits[name].status for name in exits} == dict.fromkeys(TREE_PROCESSES, 0)
    timings = network.timings
    for phase_s in (timings.hosts_s, timings.links_s, timings.nodes_s, timings.up_s, timings.down_s):
        assert phase_s is not None
        assert 0 < phase_s < 10
    with pytest.raises(NodeGoneError):
        await network.request("ue1.forwarder", "ping")


async def test_a_node_sees_its_own_links_and_nothing_else(plan: NetworkPlan) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        seen = (await network.request("csr1.forwarder", "intfs"))["intfs"]
        assert seen == ["lo", "csr1-eth0", "csr1-eth1", "csr1-eth2"]
        assert (await network.request("csr1.proxy", "intfs"))["intfs"] == seen


@pytest.fixture
def nothing() -> Iterator[io.TextIOWrapper]:
    with Path("/dev/null").open(encoding="utf-8") as file:
        yield file


async def test_mininets_api_and_cli_work_on_it(plan: NetworkPlan, nothing: io.TextIOWrapper) -> None:
    from mininet.cli import CLI  # noqa: PLC0415  only through testbed.emulation elsewhere
    from mininet.log import lg  # noqa: PLC0415

    async with emulated_network(plan, node_program=STAND_IN) as network:
        net, run = network.net, network.in_mininet
        assert [host.name for host in net.hosts] == [node.name for node in TREE.nodes]
        assert all(host.shell is None for host in net.hosts)
        assert "inet 10.0.0.3/31" in await run(net.get("ue1").cmd, "ip addr show dev ue1-eth0")
        assert net.get("ue1").shell is not None
        assert net.get("ue2").shell is None
        assert net.get("ue1").IP() == "10.0.0.3"
        assert await run(net.get("ue1").cmd, "ls /sys/class/net") == "lo  ue1-eth0\r\n"
        assert await run(net.get("ue2").pexec, "hostname -I") == ("10.0.0.5 \n", "", 0)
        assert "1 received" in await run(net.get("csr1").cmd, "ping -c 1 -W 5 10.0.0.0")
        assert net.linksBetween(net.get("csr1"), net.get("ue1"))[0].intf2.name == "ue1-eth0"

        shown = io.StringIO()
        script = plan.run_dir / "typed"
        script.write_text("nodes\nnet\nue1 ping -c 1 -W 5 csr1\ncsr1 ping -c 1 -W 5 ue2\nue1 sleep 1000 &\nlinks\n")
        log = lg.handlers[0].setStream(shown)
        try:
            await run(CLI, net, script=str(script), stdin=nothing)
        finally:
            lg.handlers[0].setStream(log)
        text = shown.getvalue()
        assert "core1 csr1 login ue1 ue2" in text
        assert "csr1 csr1-eth0:core1-eth0 csr1-eth1:ue1-eth0 csr1-eth2:ue2-eth0" in text
        assert text.count("1 received") == 2
        assert "csr1-eth1<->ue1-eth0 (OK OK)" in text


async def test_mininet_changes_no_setting_of_the_machine(plan: NetworkPlan) -> None:
    settings = [Path("/proc/sys/net/core/wmem_max"), Path("/proc/sys/fs/file-max"), Path("/proc/sys/kernel/pty/max")]
    before = [setting.read_text() for setting in settings if setting.exists()]
    async with emulated_network(plan, node_program=STAND_IN):
        assert [setting.read_text() for setting in settings if setting.exists()] == before


async def test_a_shell_that_hangs_does_not_hold_up_the_end(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    typed = trio.Event()

    async def type_at_ue1(network: EmulatedNetwork) -> None:
        typed.set()
        with pytest.raises(OSError, match="Input/output error"):  # its terminal is gone
            await network.in_mininet(network.net.get("ue1").cmd, "sleep 1000; cat")

    # The nursery is the outer one: what is typed goes on while the network is taken down.
    async with trio.open_nursery() as nursery, emulated_network(plan, node_program=STAND_IN) as network:
        nursery.start_soon(type_at_ue1, network)  # noqa: ASYNC111
        await typed.wait()
        await network.request("ue1.forwarder", "ping")
    assert_no_residue()


async def test_links_delay_by_what_was_asked(plan: NetworkPlan) -> None:
    def round_trip_ms(output: str) -> float:
        return float(output.partition("min/avg/max/mdev = ")[2].partition("/")[0])

    async with emulated_network(plan, node_program=STAND_IN) as network:
        ping = network.net.get("ue1").cmd
        assert round_trip_ms(await network.in_mininet(ping, "ping -c 3 -i 0.1 10.0.0.2")) >= 4.0
        changed = await network.change_link("ue1-csr1", delay_ms=20.0)
        assert [direction.delay_ms for direction in changed.values()] == [20.0, 20.0]
        assert round_trip_ms(await network.in_mininet(ping, "ping -c 3 -i 0.1 10.0.0.2")) >= 40.0
        counters = {(each.link, each.direction): each for each in await network.link_counters()}
        assert counters["csr1-ue1", "a_to_b"].packets == 6
        assert counters["csr1-ue1", "a_to_b"].sender == "csr1"


async def test_the_carrier_is_gone_at_both_ends(plan: NetworkPlan) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        assert await network.read_carrier("csr1-core1") == (True, True)
        await network.set_carrier("csr1-core1", up=False)
        assert await network.read_carrier("core1-csr1") == (False, False)
        assert await network.read_carrier("csr1-ue1") == (True, True)
        await network.set_carrier("core1-csr1", up=True)
        assert await network.read_carrier("core1-csr1") == (True, True)
        with pytest.raises(InputError, match="there is no link `core1-ue1`"):
            await network.set_carrier("core1-ue1", up=False)


async def test_faults_are_applied_verified_and_healed(plan: NetworkPlan, tmp_path: Path) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        injector = FaultInjector(network, TREE, tmp_path / "faults.jsonl")
        await injector.apply(Fault("cut", "link-down", "core1-csr1"))
        await injector.apply(Fault("cut too", "link-down", "csr1-core1"))
        await injector.apply(Fault("slow", "impair", "csr1-ue1", parameters={"delay_ms": 50.0, "loss_ratio": 0.1}))
        assert await network.read_carrier("core1-csr1") == (False, False)
        await injector.heal("cut")
        assert await network.read_carrier("core1-csr1") == (False, False)
        await injector.heal("cut too")
        assert await network.read_carrier("core1-csr1") == (True, True)
        await injector.heal("slow")
        assert all(row.verified for row in injector.rows.values())
        by_link = {each.link: each.configured for each in await network.link_counters()}
        assert (by_link["csr1-ue1"].delay_ms, by_link["csr1-ue1"].loss_ratio) == (2.0, 0.0)


async def test_what_nodes_say_arrives(plan: NetworkPlan) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        await network.request("ue2.forwarder", "say", event="session", word="joined")
        event = await next_event(network, "session")
        assert (event.process, event.fields) == ("ue2.forwarder", {"word": "joined"})
        with pytest.raises(NodeRefusedError, match=r"ue2.forwarder refused `dance`: told to refuse"):
            await network.request("ue2.forwarder", "dance")


async def test_a_node_that_crashes_is_noticed_and_the_others_go_on(
    plan: NetworkPlan, assert_no_residue: NoResidue
) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        with pytest.raises(NodeGoneError):
            await network.request("csr1.proxy", "crash")
        event = await next_event(network, "exited")
        assert (event.process, event.fields) == ("csr1.proxy", {"status": 3, "asked": False})
        assert network.exits()["csr1.proxy"].status == 3
        assert (await network.request("csr1.forwarder", "ping"))["ok"]
    assert_no_residue()
    assert network.exits()["csr1.forwarder"].status == 0


async def test_a_node_that_will_not_stop_is_killed(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    async with emulated_network(plan, node_program=STAND_IN) as network:
        await network.request("ue1.forwarder", "deaf")
    assert network.exits()["ue1.forwarder"].status == -9
    assert network.exits()["ue2.forwarder"].status == 0
    assert_no_residue()


async def test_a_node_that_cannot_start_ends_the_start(
    plan: NetworkPlan, assert_no_residue: NoResidue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "csr1.proxy")
    with pytest.raises(NodeError, match=r"(?s)csr1.proxy ended with status 4 before it was ready.*told to fail"):
        async with emulated_network(plan, node_program=STAND_IN):
            pytest.fail("it is not up")
    assert_no_residue()


async def test_a_zygote_that_cannot_start_ends_the_start(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    with pytest.raises(HelperError, match="the zygote did not start"):
        async with emulated_network(plan, node_program=(sys.executable, "-c", "exit(1)")):
            pytest.fail("it is not up")
    assert_no_residue()


async def test_links_that_cannot_be_made_end_the_start(
    plan: NetworkPlan, assert_no_residue: NoResidue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError(where="link", problem="cannot be", remedy="none")

    monkeypatch.setattr("testbed.links.wire.WireEmulator.build", refuse)
    with pytest.raises(InputError, match="cannot be"):
        async with emulated_network(plan, node_program=STAND_IN):
            pytest.fail("it is not up")
    assert_no_residue()


@pytest.mark.parametrize("helper", ["holders", "zygote", "link emulator"])
async def test_a_helper_that_is_killed_ends_the_network(
    plan: NetworkPlan, assert_no_residue: NoResidue, helper: str
) -> None:
    owned: dict[str, ProcessId] = {}

    async def stay_up() -> None:
        async with emulated_network(plan, node_program=STAND_IN):
            owned.update(owned_processes(plan))
            os.kill(owned[helper].pid, signal.SIGKILL)
            await trio.sleep_forever()

    with pytest.raises(HelperError, match="ended while the network was up"):
        await stay_up()
    assert wait_until_gone(owned.values(), limit_s=5) == []
    assert_no_residue()


async def test_the_blocks_own_exception_comes_out_as_it_is(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with emulated_network(plan, node_program=STAND_IN):
            raise mine
    assert caught.value is mine
    assert_no_residue()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.2, math.inf])
async def test_cancelled_at_any_time_it_is_taken_down(
    plan: NetworkPlan, assert_no_residue: NoResidue, after_s: float
) -> None:
    with trio.move_on_after(after_s) as scope:
        async with emulated_network(plan, node_program=STAND_IN):
            scope.cancel()
            await trio.sleep_forever()
    assert_no_residue()


async def test_two_runs_side_by_side(plan: NetworkPlan, assert_no_residue: NoResidue, tmp_path: Path) -> None:
    other = NetworkPlan(plan.run_id + "b", TREE, 7, tmp_path / "other")
    async with emulated_network(plan, node_program=STAND_IN) as first:
        with pytest.raises(FileExistsError):
            async with emulated_network(plan, node_program=STAND_IN):
                pytest.fail("the ID is taken")
        async with emulated_network(other, node_program=STAND_IN) as second:
            await second.set_carrier("core1-csr1", up=False)
            assert await first.read_carrier("core1-csr1") == (True, True)
        assert (await first.request("ue1.forwarder", "ping"))["ok"]
        assert isinstance(ProcessId.of(first.host_pid("ue1")), ProcessId)
    assert_no_residue()


async def test_a_link_is_captured_until_the_end_of_the_network(
    plan: NetworkPlan, assert_no_residue: NoResidue, tmp_path: Path
) -> None:
    stopped, to_the_end = tmp_path / "stopped.pcapng", tmp_path / "to-the-end.pcapng"
    async with emulated_network(plan, node_program=STAND_IN) as network:
        await network.start_capture("ue1-csr1", stopped)
        await network.start_capture("csr1-ue2", to_the_end)
        for neighbour in ("ue1", "ue2"):
            await network.in_mininet(network.net.get(neighbour).cmd, "ping -c 1 -W 5 172.16.0.2")
        await network.stop_capture("csr1-ue1")
    for path in (stopped, to_the_end):
        assert path.read_bytes().count(bytes.fromhex("ac100002")) >= 2  # 172.16.0.2, in the request and the reply
    assert_no_residue()
