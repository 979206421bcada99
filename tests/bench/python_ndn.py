"""What python-ndn, unchanged, sees of the network: a producer on one UE, a consumer on another, four links away.

    sudo python -m tests.bench.python_ndn [--interests 1000] [--delay-ms 5]

Both are started by `hconf exec` and know nothing of the testbed; the producer registers its prefix by the management
protocol. Required: every Interest answered, and a round-trip time of at most the path's + 3 ms at p50; exit status 1 where
that does not hold. The same two programs on one host, of which the path is 0 ms, say how much of that is their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from testbed.emulation.network import emulated_network
from testbed.plan import NetworkPlan
from topologies.model import Link, LinkProperties, Node, Topology

ALLOWANCE_MS = 3.0
ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests/emulation"
HOPS = 4


def topology(delay_ms: float) -> Topology:
    """ue1 - csr1 - core1 - csr2 - ue2."""
    properties = LinkProperties(delay_ms=delay_ms)
    return Topology(
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
            Link.between("core1", "csr1", "core", properties),
            Link.between("core1", "csr2", "core", properties),
            Link.between("csr1", "ue1", "access", properties),
            Link.between("csr2", "ue2", "access", properties),
            Link.between("core1", "login", "login", properties),
        ),
    )


@dataclass(frozen=True, slots=True)
class Applications:
    """Two programs: one says ``True`` when it is registered and serves a prefix; the other asks, and prints what it found."""

    name: str
    producer: tuple[str, ...]  #: a prefix is added
    consumer: tuple[str, ...]  #: a prefix and a number of Interests are added


PYTHON_NDN = Applications(
    "python-ndn",
    (sys.executable, str(PROGRAMS / "ndn_producer.py")),
    (sys.executable, str(PROGRAMS / "ndn_consumer.py")),
)


def in_host(plan: NetworkPlan, host: str, *command: str) -> list[str]:
    """Return what runs a command in a host."""
    return [sys.executable, "-m", "experiments.cli", "exec", "--run", plan.run_id, host, "--", *command]


async def measure(
    plan: NetworkPlan, applications: Applications, *, producer: str, consumer: str, interests: int
) -> dict[str, Any]:
    """Return what the consumer found."""
    prefix = f"/bench/{applications.name}/{producer}/{consumer}"
    async with trio.open_nursery() as nursery:
        command = in_host(plan, producer, *applications.producer, prefix)
        serving = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, cwd=ROOT))
        if (await serving.stdout.receive_some()).strip() != b"True":
            raise RuntimeError("the producer was not registered")
        done = await trio.run_process(
            in_host(plan, consumer, *applications.consumer, prefix, str(interests)), capture_stdout=True, cwd=ROOT
        )
        serving.terminate()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def run(applications: Applications, interests: int, delay_ms: float) -> bool:
    """Measure, print, and return whether what is required holds."""
    with tempfile.TemporaryDirectory() as folder:
        plan = NetworkPlan(f"bench-{applications.name}", topology(delay_ms), 7, Path(folder) / "run")
        async with emulated_network(plan):
            alone = await measure(plan, applications, producer="ue1", consumer="ue1", interests=interests)
            found = await measure(plan, applications, producer="ue2", consumer="ue1", interests=interests)
    path_ms = 2 * HOPS * delay_ms
    rtts_ms: list[float] = sorted(found["rtts_ms"])
    own_ms, p50_ms = statistics.median(alone["rtts_ms"]), statistics.median(rtts_ms)
    p99_ms = rtts_ms[int(0.99 * (len(rtts_ms) - 1))]
    print(f"{applications.name}: answered {len(rtts_ms)} of {found['asked']}")
    print(f"round trip of the path: {path_ms:.1f} ms")
    print(f"round trip seen: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms; beyond the path: p50 {p50_ms - path_ms:.2f} ms")
    print(f"both programs on one host: p50 {own_ms:.2f} ms")
    return len(rtts_ms) == interests and p50_ms <= path_ms + ALLOWANCE_MS


def main() -> int:
    """Parse arguments, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interests", type=int, default=1_000)
    parser.add_argument("--delay-ms", type=float, default=5.0, help="of each of the four links, one way")
    arguments = parser.parse_args()
    return 0 if trio.run(run, PYTHON_NDN, arguments.interests, arguments.delay_ms) else 1


if __name__ == "__main__":
    sys.exit(main())
