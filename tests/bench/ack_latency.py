"""How long a publishing client waits for the ack of one update at level `durable`, one update at a time.

    sudo python -m tests.bench.ack_latency [--updates 200] [--delay-ms 4]

An emulated network of two CSRs; ue1 publishes, waits for the ack, publishes the next. Beside it, the time of one fsync after
a small append on the same disk, measured before. Required: p50 at most access round trip + 1 fsync + 2 ms; exit status 1
where that does not hold.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import trio

from proxy.records import Acked, Published, Record
from testbed.emulation.network import EmulatedNetwork, emulated_network
from testbed.plan import NetworkPlan
from topologies.model import Link, LinkProperties, Node, Topology

ALLOWANCE_MS = 2.0
FSYNCS = 200
#: About what one entry adds to SQLite's write-ahead log: two pages with their headers.
APPEND_BYTES = 2 * (4_096 + 24)
INTERVAL_S = 0.05


def topology(delay_ms: float) -> Topology:
    """Two CSRs with a UE each."""
    return Topology(
        "pair",
        (Node("csr1", "csr"), Node("csr2", "csr"), Node("ue1", "ue"), Node("ue2", "ue"), Node("login", "login")),
        (
            Link.between("csr1", "csr2", "core", LinkProperties(delay_ms=delay_ms)),
            Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=delay_ms)),
            Link.between("csr2", "ue2", "access", LinkProperties(delay_ms=delay_ms)),
            Link.between("csr2", "login", "login", LinkProperties(delay_ms=delay_ms)),
        ),
    )


def fsync_ms(directory: Path) -> float:
    """Return the median time of an fsync after a small append, in milliseconds."""
    path = directory / "fsync"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    taken_ms = []
    try:
        for _ in range(FSYNCS):
            os.write(descriptor, bytes(APPEND_BYTES))
            begun_s = time.perf_counter()
            os.fsync(descriptor)
            taken_ms.append((time.perf_counter() - begun_s) * 1e3)
            time.sleep(INTERVAL_S / 10)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(taken_ms)


async def publish_one_by_one(network: EmulatedNetwork, updates: int) -> None:
    """Let ue1 and ue2 join, then ue1 publish; the pace leaves every ack its time."""
    for ue in ("ue1", "ue2"):
        await network.request(f"{ue}.forwarder", "join")
    await trio.sleep(1.0)
    begin_s = time.monotonic() + 0.2
    schedule = [(begin_s + number * INTERVAL_S, "message", 100) for number in range(updates)]
    await network.request("ue1.forwarder", "schedule", updates=schedule)
    await trio.sleep(0.2 + updates * INTERVAL_S + 0.5)


def ack_latencies_ms(records: Path) -> list[float]:
    """Return the time from publishing to ack of each update."""
    decoder = msgspec.json.Decoder(Record)
    published_s: dict[int, float] = {}
    latencies_ms = []
    for line in records.read_bytes().splitlines():
        record = decoder.decode(line)
        if isinstance(record, Published) and record.event == "message":
            published_s[record.seq] = record.t_s
        elif isinstance(record, Acked) and record.seq in published_s:
            assert record.level == "durable"
            latencies_ms.append((record.t_s - published_s[record.seq]) * 1e3)
    return latencies_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--delay-ms", type=float, default=4.0)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the run, and so the disk, is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        disk_ms = fsync_ms(Path(directory))
        plan = NetworkPlan(f"ack-{os.getpid()}", topology(arguments.delay_ms), 7, Path(directory) / "run")

        async def run() -> None:
            async with emulated_network(plan) as network:
                await publish_one_by_one(network, arguments.updates)

        trio.run(run)
        latencies_ms = sorted(ack_latencies_ms(plan.raw_dir / "ue1.forwarder.jsonl"))
    p50_ms, p99_ms = statistics.median(latencies_ms), latencies_ms[int(len(latencies_ms) * 0.99)]
    limit_ms = 2 * arguments.delay_ms + disk_ms + ALLOWANCE_MS
    print(f"fsync of this disk: p50 {disk_ms:.2f} ms")
    print(
        f"ack at durable: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms of {len(latencies_ms)}; p50 required {limit_ms:.2f} ms"
    )
    return int(p50_ms > limit_ms)


if __name__ == "__main__":
    sys.exit(main())
