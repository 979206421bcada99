"""How long the analysis of a run takes and how much memory, by the number of deliveries. Raw records are made up for it.

``python tests/bench/analysis_speed.py [DELIVERIES ...] [--keep DIR]``; prints seconds of wall clock and CPU, and peak memory.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from experiments.history import NODES_FILE, TOPOLOGY_FILE, NodeExit
from experiments.recorded_run import write_topology
from experiments.run_folder import SCHEMA_VERSION, RunFolder
from proxy.records import Acked, CountersReported, Granted, Published, SessionChanged, StateReported
from topologies.catalogue import build

CSRS, UES_PER_CSR = 10, 10
SECONDS = 1_000.0
EPOCH_S = 100.0


def write_run(path: Path, deliveries: int) -> RunFolder:
    """Write the raw records of a run with about so many deliveries, all of them on time, into the new folder *path*."""
    topology = build("tiers", {"csrs": CSRS, "ues_per_csr": UES_PER_CSR})
    ues, chance = topology.ues, random.Random(1)
    updates = deliveries // (len(ues) - 1)
    end_s = EPOCH_S + SECONDS + 5
    folder = RunFolder(path)
    folder.raw.mkdir(parents=True)
    clock = {"start_s": EPOCH_S - 3, "epoch_s": EPOCH_S, "quiesced_s": end_s}
    experiment = {"experiment": {"name": "made-up", "duration_s": SECONDS}}
    folder.write_manifest(
        {
            "schema_version": SCHEMA_VERSION, "experiment": experiment, "verdict": "running", "clock": clock, "phases": {},
            "mode": "emulated", "seed": 1, "cpu_busy_ratio": 0.1,
        }
    )  # fmt: skip
    write_topology(folder.raw / TOPOLOGY_FILE, topology)
    encoder = msgspec.json.Encoder()
    exits = [NodeExit(f"{node.name}.forwarder", 0, 1.0, 10_000_000, EPOCH_S) for node in topology.nodes]
    (folder.raw / NODES_FILE).write_bytes(encoder.encode_lines(exits))
    times = sorted(EPOCH_S + chance.random() * SECONDS for _ in range(updates))
    seqs = dict.fromkeys(ues, 0)
    published: list[tuple[float, str, int]] = []
    for t_s in times:
        publisher = chance.choice(ues)
        seqs[publisher] += 1
        published.append((t_s, publisher, seqs[publisher]))
    for ue in ues:
        with (folder.raw / f"{ue}.forwarder.jsonl").open("wb") as file:
            file.write(encoder.encode_lines([SessionChanged(EPOCH_S - 1, "main", ue, topology.csr_of(ue), "joined")]))
            lines: list[bytes] = []
            for t_s, publisher, seq in published:
                if publisher == ue:
                    own = Published(t_s, "main", ue, 1, seq, "message", 120, "", f"{seq:016x}")
                    ack = Acked(t_s + 0.005, "main", ue, 1, seq, "durable", topology.csr_of(ue))
                    lines += [encoder.encode(own), encoder.encode(ack)]
                else:
                    at_s = t_s + 0.03  # always as late, or they would not be in order
                    lines.append(
                        b'{"kind":"applied","t_s":%.9f,"conference":"main","receiver":"%s","publisher":"%s","boot":1,"seq":%d,'
                        b'"via":"armed","sha256":"%016x"}' % (at_s, ue.encode(), publisher.encode(), seq, seq)
                    )
            file.write(b"\n".join(lines) + b"\n")
            state = StateReported(end_s + 0.1, "main", ue, "client", "d", [], [], sorted(ues))
            counters = CountersReported(end_s, ue, "forwarder", 1.0, 10_000_000, end_s - 1, [(1, 9)], 1.0, [], {}, {})
            file.write(encoder.encode_lines([state, counters]))
    grants = [Granted(EPOCH_S - 2, "main", ue, "participant", EPOCH_S - 2, EPOCH_S + 1e6) for ue in ues]
    (folder.raw / "login.forwarder.jsonl").write_bytes(encoder.encode_lines(grants))
    for csr in topology.csrs:
        state = StateReported(end_s + 0.1, "main", csr, "proxy", "p", [], [], sorted(ues))
        (folder.raw / f"{csr}.proxy.jsonl").write_bytes(encoder.encode_lines([state]))
    return folder


def measure(path: Path, *, page: bool) -> None:
    """Analyse the run in *path* and print what that took; for a process of its own."""
    from experiments.analysis import analyse  # noqa: PLC0415  # its loading is part of what is measured
    from experiments.report.run_page import write_page  # noqa: PLC0415

    begun_s = time.monotonic()
    folder = RunFolder.open(path)
    analysis = analyse(folder)
    analysed_s, analysed_mib = time.monotonic() - begun_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if page:
        write_page(folder, analysis, folder.read_manifest())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    failed = [check.name for check in analysis.failed if check.name.startswith("invariant")]
    print(
        f"{analysis.values['deliveries.delivered']:>12,.0f} deliveries: analysis {analysed_s:6.1f} s, peak memory {analysed_mib:5.0f} MiB; "
        f"with report.html {time.monotonic() - begun_s:6.1f} s; CPU {usage.ru_utime + usage.ru_stime:6.1f} s; "
        f"peak memory {usage.ru_maxrss / 1024:7.0f} MiB; failed invariants: {', '.join(failed) or 'none'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deliveries", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help="internal: the run to analyse")
    parser.add_argument("--keep", type=Path, help="where the made-up runs are kept, and found the next time")
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure, page=True)
        return
    with tempfile.TemporaryDirectory() as made:
        for deliveries in options.deliveries:
            path = (options.keep or Path(made)) / f"run-{deliveries}"
            if not path.exists():
                write_run(path, deliveries)
            subprocess.run([sys.executable, __file__, "--measure", str(path)], check=True)


if __name__ == "__main__":
    main()
