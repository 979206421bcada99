"""How fast a network is up and gone again, against stock Mininet, and what a node costs. Takes root; some five minutes.

    python -m tests.bench.network_speed                       # everything
    python -m tests.bench.network_speed --only stock          # or nodes, or large

stock: a ring of 200 hosts and 200 links with delay and rate, up and down again, by stock Mininet (`TCLink`) and by hconf, one
    after the other in turns. Ours is the network that an experiment gets, Mininet's API on top, without node programs: stock
    Mininet has none. Imports are in neither figure, all else is. Where the kernel has no netem, Mininet's links are made
    *without* the delay that was asked for; how often it said so is printed.
nodes: `hconf run` of 200 hosts with a node process each (and a service proxy on each CSR), from the first step until all UEs
    have joined and everybody agrees; then the private memory of each node process (smaps_rollup).
large: a ring of 1,000 hosts and 1,000 links, up and down again.

The stock network runs in a process of its own, and is removed by what Mininet itself has for that (`net.stop()`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from testbed.emulation.network import emulated_network
from testbed.emulation.ownership import OWNER_FILE
from testbed.plan import RUNTIME_ROOT, NetworkPlan
from topologies.model import Link, LinkProperties, Node, Topology

STOCK_LIMIT_S = 300.0
RUN_LIMIT_S = 300.0
FASTER_MIN = 10.0
LARGE_MAX_S = 60.0
IN_SYNC_MAX_S = 15.0
PRIVATE_MAX_MB = 12.0
DELAY_MS, RATE_MBPS = 5.0, 100.0

#: What stock Mininet starts some twenty times a host and link -> the Debian package that has it.
STOCK_PROGRAMS = {"mnexec": "mininet", "ifconfig": "net-tools", "tc": "iproute2", "ip": "iproute2"}

#: 200 hosts: 14 core routers, 5 CSRs, 180 UEs and the login server; 205 links; 205 node processes.
CONFERENCE = """
[experiment]
name = "network-speed"
duration_s = {duration_s}
seed = 7

[topology]
name = "tiers"
cores = {cores}
csrs = {csrs}
ues_per_csr = {ues_per_csr}

[conference]
heartbeat_s = {heartbeat_s}
face_heartbeat_s = {face_heartbeat_s}

[[workload]]
kind = "poisson"
rate_per_s = 0.01
size_bytes = 120
"""
SAMPLING_S = 10.0


def ring(hosts: int) -> Topology:
    """Return *hosts* routers, each linked to the next."""
    names = [f"h{number}" for number in range(hosts)]
    properties = LinkProperties(delay_ms=DELAY_MS, rate_mbps=RATE_MBPS)
    links = [Link.between(name, names[(at + 1) % hosts], "core", properties) for at, name in enumerate(names)]
    return Topology("ring", tuple(Node(name, "core") for name in names), tuple(links))


def time_ours(topology: Topology) -> tuple[float, float]:
    """Return how long the network took up, and down again, in seconds."""

    async def run(plan: NetworkPlan) -> tuple[float, float]:
        begin_s = time.monotonic()
        async with emulated_network(plan, node_program=None) as network:
            up_s = time.monotonic() - begin_s
            first, last = network.net.hosts[0].name, network.net.hosts[-1].name
            assert "inet 10." in await network.in_mininet(network.net.get(last).cmd, f"ip addr show dev {last}-eth0")
            assert network.net.linksBetween(network.net.get(first), network.net.get(last))
            begin_s = time.monotonic()
        return up_s, time.monotonic() - begin_s

    with tempfile.TemporaryDirectory() as directory:
        return trio.run(run, NetworkPlan(f"speed-{os.getpid()}", topology, 7, Path(directory) / "run"))


def build_with_stock_mininet(hosts: int) -> None:
    """Make the ring with stock Mininet in this process and remove it; print the two times as JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distutils
        from mininet.link import TCLink  # noqa: PLC0415  in its own process only
        from mininet.log import setLogLevel  # noqa: PLC0415
        from mininet.net import Mininet  # noqa: PLC0415
    setLogLevel("error")
    Mininet.inited = True  # or it would raise limits of the whole machine and leave them so
    begin_s = time.monotonic()
    net = Mininet(controller=None, switch=None, link=TCLink, build=False)
    try:
        names = [net.addHost(f"h{number}") for number in range(hosts)]
        for at, host in enumerate(names):
            net.addLink(host, names[(at + 1) % hosts], bw=RATE_MBPS, delay=f"{DELAY_MS:g}ms")
        net.build()
        net.start()
        up_s = time.monotonic() - begin_s
    finally:
        begin_s = time.monotonic()
        net.stop()
    print(json.dumps([up_s, time.monotonic() - begin_s]))


def time_stock(hosts: int) -> tuple[float, float, int]:
    """Return how long stock Mininet took up and down, in seconds, and how many of its delays the kernel refused."""
    command = [sys.executable, "-m", "tests.bench.network_speed", "--build-stock", str(hosts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=STOCK_LIMIT_S)
    if done.returncode:
        sys.exit(f"stock Mininet failed:\n{done.stderr[-2_000:]}")
    up_s, down_s = json.loads(done.stdout.splitlines()[-1])
    return up_s, down_s, done.stderr.count("qdisc kind is unknown")


def spell(figures: Sequence[float], unit: str = "s") -> str:
    """Return median and spread.

    >>> spell([1.0, 3.0, 2.0])
    '2.00 s (1.00 to 3.00)'
    """
    return f"{statistics.median(figures):.2f} {unit} ({min(figures):.2f} to {max(figures):.2f})"


def verdict(holds: bool) -> str:  # noqa: FBT001  it is what is spelt
    return "holds" if holds else "DOES NOT HOLD"


def compare_with_stock(hosts: int, rounds: int) -> bool:
    """Print both, in turns; return whether ours is fast enough."""
    missing = sorted({package for program, package in STOCK_PROGRAMS.items() if shutil.which(program) is None})
    if missing or importlib.util.find_spec("mininet") is None:
        sys.exit(f"stock Mininet needs: apt-get install --no-install-recommends {' '.join(missing or ['mininet'])}")
    topology, stock, ours, refused = ring(hosts), list[tuple[float, float]](), list[tuple[float, float]](), 0
    for number in range(rounds):
        *times, refused = time_stock(hosts)
        stock.append((times[0], times[1]))
        ours.append(time_ours(topology))
        print(
            f"  round {number + 1}: stock Mininet up {stock[-1][0]:.2f} s, down {stock[-1][1]:.2f} s; "
            f"hconf up {ours[-1][0]:.2f} s, down {ours[-1][1]:.2f} s"
        )
    for name, times_s in (("stock Mininet", stock), ("hconf", ours)):
        print(
            f"{hosts} hosts, {hosts} links, {name}: up {spell([up for up, _ in times_s])}, "
            f"down {spell([down for _, down in times_s])}, both {spell([sum(pair) for pair in times_s])}"
        )
    if refused:
        print(f"  (this kernel has no netem: {refused} link ends of stock Mininet are without the delay asked for)")
    ratios = [sum(one) / sum(other) for one, other in zip(stock, ours, strict=True)]
    holds = statistics.median(ratios) >= FASTER_MIN
    print(f"ratio {spell(ratios, '')}; required at least {FASTER_MIN:g}: {verdict(holds)}")
    return holds


def time_large(hosts: int) -> bool:
    """Print how long the large ring takes; return whether that is short enough."""
    up_s, down_s = time_ours(ring(hosts))
    holds = up_s + down_s <= LARGE_MAX_S
    print(
        f"{hosts} hosts, {hosts} links, hconf: up {up_s:.2f} s, down {down_s:.2f} s; "
        f"required at most {LARGE_MAX_S:g} s together: {verdict(holds)}"
    )
    return holds


def private_mb(pid: int) -> float:
    """Return the memory that this process shares with no other, in MB of 10^6 bytes. Raises: OSError if it is gone."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:])
    return sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:")) * 1_024 / 1e6


def sample_memory(folder: Path) -> dict[str, float]:
    """Return process -> private memory of the run in *folder*, in MB."""
    run_id = json.loads((folder / "manifest.json").read_bytes())["run_id"]
    owned: dict[str, Any] = json.loads((RUNTIME_ROOT / run_id / OWNER_FILE).read_bytes())["processes"]
    found = {}
    for name, (pid, _) in owned.items():
        if name.startswith("node "):
            with contextlib.suppress(OSError):
                found[name.removeprefix("node ")] = private_mb(pid)
    return found


def measure_nodes(arguments: argparse.Namespace) -> bool:
    """Run the conference; print when all were in sync and what memory nodes take; return whether both hold."""
    cores, csrs, ues_per_csr = arguments.cores, arguments.csrs, arguments.ues_per_csr
    with tempfile.TemporaryDirectory() as directory:
        experiment, folder = Path(directory, "network-speed.toml"), Path(directory, "run")
        text = CONFERENCE.format(duration_s=SAMPLING_S, **vars(arguments))
        experiment.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "experiments.cli", "run", str(experiment), "--out", str(folder)]
        with Path(directory, "output").open("w+b") as output:
            run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            memory_mb: dict[str, float] = {}
            until_s = time.monotonic() + RUN_LIMIT_S
            while run.poll() is None and time.monotonic() < until_s:
                time.sleep(0.5)
                with contextlib.suppress(OSError, ValueError):  # not there yet, or gone already
                    clock = json.loads((folder / "manifest.json").read_bytes())["clock"]
                    if not memory_mb and "epoch_s" in clock and time.monotonic() > clock["epoch_s"] + SAMPLING_S / 2:
                        memory_mb = sample_memory(folder)
            if run.poll() is None:
                run.terminate()
            run.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        if run.returncode or not memory_mb:
            print(f"{text}\nthe run ended with {run.returncode}: not in sync: {verdict(holds=False)}")
            return False
        phases = json.loads((folder / "manifest.json").read_bytes())["phases"]
    in_sync, small = phases["up_s"] <= IN_SYNC_MAX_S, max(memory_mb.values()) <= PRIVATE_MAX_MB
    hosts = cores + csrs * (1 + ues_per_csr) + 1
    print(
        f"{hosts} hosts, {len(memory_mb)} node processes, {csrs * ues_per_csr} UEs joined and in sync after "
        f"{phases['up_s']:.2f} s (node processes {phases['nodes_s']:.2f} s, joining {phases['join_s']:.2f} s; "
        f"down {phases['down_s']:.2f} s); required at most {IN_SYNC_MAX_S:g} s: {verdict(in_sync)}"
    )
    print(
        f"private memory a node process: {spell(list(memory_mb.values()), 'MB')}, most {max(memory_mb, key=memory_mb.__getitem__)}; "
        f"required at most {PRIVATE_MAX_MB:g} MB: {verdict(small)}"
    )
    return in_sync and small


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--only", choices=("stock", "nodes", "large"), help="default: all")
    parser.add_argument("--hosts", type=int, default=200, help="of the comparison with stock Mininet")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with stock Mininet")
    parser.add_argument("--large", type=int, default=1_000, help="hosts of the large ring")
    parser.add_argument("--cores", type=int, default=14, help="of the network with node processes")
    parser.add_argument("--csrs", type=int, default=5)
    parser.add_argument("--ues-per-csr", type=int, default=36)
    parser.add_argument("--heartbeat-s", type=float, default=0.2, help="of proxies and clients; as shipped by default")
    parser.add_argument("--face-heartbeat-s", type=float, default=0.095, help="of faces; as shipped by default")
    parser.add_argument("--build-stock", type=int, metavar="HOSTS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build_stock:
        build_with_stock_mininet(arguments.build_stock)
        return 0
    held = []
    if arguments.only in (None, "stock"):
        held.append(compare_with_stock(arguments.hosts, arguments.rounds))
    if arguments.only in (None, "large"):
        held.append(time_large(arguments.large))
    if arguments.only in (None, "nodes"):
        held.append(measure_nodes(arguments))
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
