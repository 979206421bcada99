"""Memory of a service proxy over many updates: it must not grow with them once the history is full.

    python -m tests.bench.proxy_memory [--updates 100000] [--history 1000]

A conference of one publisher at csr1 and a second proxy, csr2, over a simulated network. Prints the resident memory of this
process, which holds both proxies, and what the digest logs hold; exit status 1 where memory grew by more than 10 % between
10,000 updates and the end.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from proxy.core.events import JoinRequested, PublishRequested
from testbed.plan import NetworkPlan
from testbed.simulation.network import SimulatedNetwork
from topologies.model import Link, LinkProperties, Node, Topology

GROWTH_MAX_RATIO = 0.10
FIRST = 10_000
BATCH = 50

TOPOLOGY = Topology(
    "pair",
    (
        Node("csr1", "csr"), Node("csr2", "csr"), Node("ue1", "ue"), Node("ue2", "ue"), Node("login", "login"),
    ),
    (
        Link.between("csr1", "csr2", "core", LinkProperties(delay_ms=2.0)),
        Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=1.0)),
        Link.between("csr2", "ue2", "access", LinkProperties(delay_ms=1.0)),
        Link.between("csr1", "login", "login", LinkProperties(delay_ms=1.0)),
    ),
)  # fmt: skip


def resident_bytes() -> int:
    """Return what this process has in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(updates: int, history: int) -> int:
    """Run, print, and return the exit status."""
    plan = NetworkPlan(
        "bench", TOPOLOGY, 7, Path("nowhere"), proxy_settings={"history_max_entries": history},
        forwarder_settings={"cs_max_entries": 1_000},
    )  # fmt: skip
    network = SimulatedNetwork(plan)
    network.run_until(network.now_s + 1.0)
    for ue in TOPOLOGY.ues:
        network.send(ue, JoinRequested())
    network.run_until(network.now_s + 1.0)
    first_bytes = now_bytes = 0
    for published in range(BATCH, updates + 1, BATCH):
        for _ in range(BATCH):
            network.send("ue1", PublishRequested("message", bytes(100)))
        network.run_until(network.now_s + 0.1)
        network.records.clear()
        if published % FIRST == 0:
            gc.collect()
            now_bytes = resident_bytes()
            first_bytes = first_bytes or now_bytes
            logs = [network.proxy(csr).conferences["main"].log for csr in TOPOLOGY.csrs]
            held = ", ".join(f"{log.history_entries} entries in the history, {log.vector()[0][2]} seen" for log in logs)
            print(f"{published:7} updates: {now_bytes / 2**20:6.2f} MiB ({now_bytes / first_bytes - 1:+.1%}); {held}")
    return int(now_bytes > first_bytes * (1 + GROWTH_MAX_RATIO))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=1_000)
    arguments = parser.parse_args()
    return measure(arguments.updates, arguments.history)


if __name__ == "__main__":
    sys.exit(main())
