"""NDN programs of others on emulated hosts: unchanged, started by `hconf exec`, registered by the management protocol."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from testbed.emulation.network import EmulatedNetwork, emulated_network
from testbed.plan import NetworkPlan
from tests.emulation.machine import namespace_of
from topologies.model import Link, LinkProperties, Node, Topology

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PRODUCER, CONSUMER = str(HERE / "ndn_producer.py"), str(HERE / "ndn_consumer.py")
DELAY_MS = 2.0

#: ue1 and ue2 are four links apart.
LINE = Topology(
    "line",
    (
        Node("core1", "core"),
        Node("csr1", "csr"),
        Node("csr2", "csr"),
        Node("ue1", "ue"),
        Node("ue2", "ue"),
        Node("login", "login"),
    ),
    (
        Link.between("core1", "csr1", "core", LinkProperties(delay_ms=DELAY_MS)),
        Link.between("core1", "csr2", "core", LinkProperties(delay_ms=DELAY_MS)),
        Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=DELAY_MS)),
        Link.between("csr2", "ue2", "access", LinkProperties(delay_ms=DELAY_MS)),
        Link.between("core1", "login", "login", LinkProperties(delay_ms=DELAY_MS)),
    ),
)


@pytest.fixture
def line(plan: NetworkPlan) -> NetworkPlan:
    return NetworkPlan(plan.run_id, LINE, 7, plan.run_dir)


def in_host(plan: NetworkPlan, host: str, *program: str) -> list[str]:
    return [sys.executable, "-m", "experiments.cli", "exec", "--run", plan.run_id, host, "--", *program]


async def start_producer(nursery: trio.Nursery, plan: NetworkPlan, host: str, prefix: str) -> trio.Process:
    command = in_host(plan, host, sys.executable, PRODUCER, prefix)
    producer: trio.Process = await nursery.start(
        partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, cwd=ROOT)
    )
    assert producer.stdout is not None
    assert (await producer.stdout.receive_some()).strip() == b"True"
    return producer


async def consume(plan: NetworkPlan, host: str, prefix: str, interests: int, wait_s: float = 5.0) -> dict[str, Any]:
    command = in_host(plan, host, sys.executable, CONSUMER, prefix, str(interests), str(wait_s))
    done = await trio.run_process(command, capture_stdout=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("prefix", ["/demo/files", "/hconf/ue2/files"])
async def test_a_producer_on_one_ue_serves_a_consumer_four_hops_away(line: NetworkPlan, prefix: str) -> None:
    async with emulated_network(line), trio.open_nursery() as nursery:
        producer = await start_producer(nursery, line, "ue2", prefix)
        found = await consume(line, "ue1", prefix, 100)
        assert len(found["rtts_ms"]) == found["asked"] == 100
        assert min(found["rtts_ms"]) >= 2 * 4 * DELAY_MS
        producer.terminate()
        await producer.wait()
        if prefix.startswith("/demo"):  # of the other the node itself does not say that there is nothing any more
            assert (await consume(line, "ue1", f"{prefix}/new", 1, 0.0))["rtts_ms"] == []


async def test_the_nearest_of_two_producers_answers_and_the_other_one_takes_over(line: NetworkPlan) -> None:
    async with emulated_network(line) as network, trio.open_nursery() as nursery:
        near = await start_producer(nursery, line, "csr1", "/shared")
        far = await start_producer(nursery, line, "ue2", "/shared")
        found = await consume(line, "ue1", "/shared/1", 20)
        assert min(found["rtts_ms"]) < 2 * 2 * DELAY_MS
        near.terminate()
        await near.wait()
        assert len((await consume(line, "ue1", "/shared/2", 20))["rtts_ms"]) == 20
        await network.kill_process("core1.forwarder")
        await network.restart_process("core1.forwarder")
        found = await consume(line, "ue1", "/shared/3", 20)
        assert min(found["rtts_ms"]) >= 2 * 4 * DELAY_MS
        far.terminate()


@pytest.mark.parametrize("scheme", ["tcp4", "udp4"])
async def test_applications_reach_their_forwarder_over_the_loopback_interface_as_well(
    line: NetworkPlan, scheme: str
) -> None:
    async with emulated_network(line), trio.open_nursery() as nursery:
        producer = await start_producer(nursery, line, "ue2", "/demo")
        transport = f"NDN_CLIENT_TRANSPORT={scheme}://127.0.0.1:6363"
        command = in_host(line, "ue1", "env", transport, sys.executable, CONSUMER, "/demo", "20")
        done = await trio.run_process(command, capture_stdout=True, cwd=ROOT)
        assert len(json.loads(done.stdout)["rtts_ms"]) == 20
        producer.terminate()


async def test_exec_passes_through_what_the_program_says_and_how_it_ends(line: NetworkPlan) -> None:
    async def run(*command: str, stdin: bytes = b"") -> tuple[int, str, str]:
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, stdin=stdin, check=False, cwd=ROOT
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def cli(*arguments: str) -> Sequence[str]:
        return [sys.executable, "-m", "experiments.cli", "exec", *arguments]

    async with emulated_network(line):
        script = "cat; ls /sys/class/net; pwd; echo $NDN_CLIENT_TRANSPORT; echo wrong >&2; exit 7"
        code, out, err = await run(*in_host(line, "ue1", "sh", "-c", script), stdin=b"typed\n")
        socket = f"unix:///run/hconf/{line.run_id}/ue1/nfd.sock"
        assert (code, out, err) == (7, f"typed\nlo\nue1-eth0\n{ROOT}\n{socket}\n", "wrong\n")
        code, out, _ = await run(*in_host(line, "csr1", "ping", "-c", "1", "-W", "5", "127.0.0.1"))
        assert (code, "1 received" in out) == (0, True)

        code, _, err = await run(*cli("--run", line.run_id, "ue3", "--", "true"))
        assert (code, "no node `ue3`" in err, "`ue" in err) == (2, True, True)
        code, _, err = await run(*cli("--run", line.run_id, "ue1"))
        assert (code, "no program is given" in err) == (2, True)
        code, _, err = await run(*cli("--run", line.run_id[:-1] + "X", "ue1", "--", "true"))
        assert (code, "is alive" in err, line.run_id in err) == (2, True, True)
        code, _, err = await run(*in_host(line, "ue1", "no-such-program"))
        assert (code, "no such program" in err) == (127, True)
        code, _, err = await run(*in_host(line, "ue1", str(HERE)))
        assert code == 126
        by_folder = cli("--run", str(line.run_dir), "ue1", "--", "true")
        code, _, err = await run(*by_folder)
        assert (code, "manifest.json" in err) == (2, True)  # this run is a test's and has none


async def start_sleeping(nursery: trio.Nursery, network: EmulatedNetwork, host: str) -> trio.Process:
    """Return a process that has become `sleep` in *host*."""
    command = in_host(network.plan, host, "sleep", "1000")
    sleeping: trio.Process = await nursery.start(partial(trio.run_process, command, check=False, cwd=ROOT))
    with trio.fail_after(20):
        while command_of(sleeping.pid) != "sleep":  # noqa: ASYNC110  nobody tells
            await trio.sleep(0.01)
    assert namespace_of(sleeping.pid) == namespace_of(network.host_pid(host))
    return sleeping


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


async def test_signals_reach_the_program_that_exec_has_become(line: NetworkPlan) -> None:
    async with emulated_network(line) as network, trio.open_nursery() as nursery:
        sleeping = await start_sleeping(nursery, network, "ue1")
        sleeping.terminate()
        assert await sleeping.wait() == -signal.SIGTERM


async def test_what_exec_started_ends_with_the_run(line: NetworkPlan, assert_no_residue: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        async with emulated_network(line) as network:
            sleeping = await start_sleeping(nursery, network, "ue1")
            await start_producer(nursery, line, "ue2", "/demo")
        with trio.fail_after(5):
            assert await sleeping.wait() == -signal.SIGKILL
    assert_no_residue()


async def test_applications_and_refusals_are_counted_in_the_records(line: NetworkPlan) -> None:
    async with emulated_network(line) as network, trio.open_nursery() as nursery:
        producer = await start_producer(nursery, line, "ue2", "/demo")
        counters = (await network.request("ue2.forwarder", "counters"))["counters"]["counters"]
        assert (counters["applications"], counters["commands"]) == (1, 1)
        producer.terminate()
    lines = (line.raw_dir / "ue2.forwarder.jsonl").read_bytes().splitlines()
    prefixes = [record for record in map(msgspec.json.decode, lines) if record["kind"] == "prefix"]
    assert [(record["prefix"], record["state"]) for record in prefixes][:1] == [("/demo", "registered")]
