"""A run of four devices, written down by hand: three updates before, during and after a core link was down."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.history import FAULTS_FILE, LINKS_FILE, NODES_FILE, TOPOLOGY_FILE
from experiments.recorded_run import write_topology
from experiments.run_folder import SCHEMA_VERSION, RunFolder
from proxy.lag import LagHistogram
from proxy.records import (
    Acked,
    Applied,
    CountersReported,
    FaceChanged,
    Granted,
    MessageCount,
    Published,
    SessionChanged,
    StateReported,
)
from topologies.model import Link, LinkProperties, Node, Topology

EPOCH_S = 100.0
QUIESCED_S = 112.0

#: ue1 and ue2 are 9 ms from ue3 over csr1-csr2, else 19 ms over core1; ue1 and ue2 are 4 ms apart.
TOPOLOGY = Topology(
    "triangle",
    nodes=(
        Node("core1", "core"),
        Node("csr1", "csr"),
        Node("csr2", "csr"),
        Node("ue1", "ue"),
        Node("ue2", "ue"),
        Node("ue3", "ue"),
        Node("login", "login"),
    ),
    links=(
        Link.between("csr1", "csr2", "core", LinkProperties(delay_ms=5)),
        Link.between("csr1", "core1", "core", LinkProperties(delay_ms=5)),
        Link.between("core1", "csr2", "core", LinkProperties(delay_ms=10)),
        Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=2)),
        Link.between("csr1", "ue2", "access", LinkProperties(delay_ms=2)),
        Link.between("csr2", "ue3", "access", LinkProperties(delay_ms=2)),
        Link.between("core1", "login", "login", LinkProperties(delay_ms=1)),
    ),
)
SERVED_BY = {"ue1": "csr1", "ue2": "csr1", "ue3": "csr2"}

#: publisher, seq, at_s, {receiver: latency_ms}
Traffic = Sequence[tuple[str, int, float, dict[str, float]]]
TRAFFIC: Traffic = (
    ("ue1", 1, 1.0, {"ue2": 4.4, "ue3": 9.9}),
    ("ue3", 1, 4.995, {"ue1": 405.0, "ue2": 415.0}),  # in flight when the link went down
    ("ue1", 2, 5.1, {"ue2": 4.4, "ue3": 350.0}),  # published while nobody had noticed yet
    ("ue3", 2, 5.5, {"ue1": 20.0, "ue2": 20.0}),  # the long way round
    ("ue1", 3, 6.0, {"ue2": 4.4, "ue3": 20.0}),
    ("ue2", 1, 9.0, {"ue1": 4.4, "ue3": 200.0}),  # after the link was back: random loss, not the fault's doing
)

FAULT = {
    "fault_id": "f1", "kind": "link-down", "target": "csr1-csr2", "parameters": {"for_s": 3.0}, "intended_s": 105.0,
    "applied_s": 105.0, "verified": True, "healed_s": 108.0, "source": "schedule",
}  # fmt: skip

WriteRun = Callable[..., RunFolder]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Return a function that writes a run folder; every part can be replaced."""
    number = itertools.count(1)

    def write(
        *,
        traffic: Traffic = TRAFFIC,
        faults: Sequence[dict[str, Any]] = (FAULT,),
        expect: Sequence[dict[str, Any]] = (),
        extra: Sequence[Any] = (),
        quiesced_s: float | None = QUIESCED_S,
        manifest: dict[str, Any] | None = None,
        links: Sequence[dict[str, Any]] | None = None,
    ) -> RunFolder:
        folder = RunFolder(tmp_path / f"run{next(number)}")
        folder.raw.mkdir(parents=True)
        folder.write_manifest(
            {
                "schema_version": SCHEMA_VERSION,
                "experiment": {"expect": list(expect), "fault": [{}] * len(faults)},
                "verdict": "running",
                "clock": {"start_s": 97.0, "epoch_s": EPOCH_S} | ({"quiesced_s": quiesced_s} if quiesced_s else {}),
                "phases": {"up_s": 2.5},
                "cpu_busy_ratio": 0.3,
                **(manifest or {}),
            }
        )
        write_topology(folder.raw / TOPOLOGY_FILE, TOPOLOGY)
        _write_lines(folder.raw / FAULTS_FILE, faults)
        _write_lines(folder.raw / LINKS_FILE, [_link(0), _link(1)] if links is None else links)
        _write_lines(folder.raw / NODES_FILE, [_exit(node.name) for node in TOPOLOGY.nodes])
        by_node: dict[str, list[Any]] = {"core1.forwarder": [_counters("core1", sent=())]}
        for device, csr in SERVED_BY.items():
            by_node[f"{device}.forwarder"] = [SessionChanged(99.0, "main", device, csr, "joined")]
        for publisher, seq, at_s, latencies_ms in traffic:
            t_s, digest = EPOCH_S + at_s, f"{publisher}{seq}"
            by_node[f"{publisher}.forwarder"] += [
                Published(t_s, "main", publisher, 1, seq, "message", 120, "", digest),
                Acked(t_s + 0.0041, "main", publisher, 1, seq, "accepted", SERVED_BY[publisher]),
            ]
            for receiver, latency_ms in latencies_ms.items():
                by_node[f"{receiver}.forwarder"].append(
                    Applied(t_s + latency_ms / 1e3, "main", receiver, publisher, 1, seq, "armed", digest)
                )
        by_node["csr1.forwarder"] = [*_faces("csr1", "csr2", 105.002, 108.05), _counters("csr1")]
        by_node["csr2.forwarder"] = [*_faces("csr2", "csr1", 105.003, 108.06), _counters("csr2")]
        if quiesced_s:
            for device in SERVED_BY:
                by_node[f"{device}.forwarder"].append(_state(device, "client"))
            for csr in ("csr1", "csr2"):
                by_node[f"{csr}.proxy"] = [_state(csr, "proxy")]
        by_node["login.forwarder"] = [
            Granted(98.5, "main", device, "participant", 98.5, 3_698.5) for device in SERVED_BY
        ]
        by_node["ue1.forwarder"] += extra
        for name, records in by_node.items():
            _write_lines(folder.raw / f"{name}.jsonl", records)
        return folder

    return write


def _write_lines(path: Path, records: Sequence[Any]) -> None:
    path.write_bytes(msgspec.json.Encoder().encode_lines(records))


def _faces(node: str, peer: str, down_s: float, up_s: float) -> list[FaceChanged]:
    return [
        FaceChanged(98.0, node, "csr1-csr2", peer, "up", "heard"),
        FaceChanged(down_s, node, "csr1-csr2", peer, "down", "carrier"),
        FaceChanged(up_s, node, "csr1-csr2", peer, "up", "heard"),
    ]


def _state(node: str, component: Any) -> StateReported:
    return StateReported(QUIESCED_S + 0.1, "main", node, component, "d" + component, [], [], sorted(SERVED_BY))


def _counters(node: str, sent: Sequence[MessageCount] | None = None) -> CountersReported:
    if sent is None:
        sent = [MessageCount("csr1-csr2", "csr2" if node == "csr1" else "csr1", "sync-update", 5, 900)]
    lag = LagHistogram()
    lag.add(1.5e-3)
    return CountersReported(
        QUIESCED_S,
        node,
        "forwarder",
        0.7,
        30_000_000,
        QUIESCED_S - 1,
        *lag.take(),
        list(sent),
        {
            "malformed": 2,
            "cs_hits": 3,
            "cs_misses": 9,
            "pit": 3,
            "refused_update_forged": 2,
            "refused_join_replayed": 1,
        },
        {"pit": 10},
    )


def _link(direction: int) -> dict[str, Any]:
    ends = ("csr1", "csr2")
    return {
        "link": "csr1-csr2", "direction": "a_to_b", "sender": ends[direction], "receiver": ends[1 - direction],
        "configured": {"delay_ms": 5.0, "jitter_ms": 0.0, "loss_ratio": 0.02, "rate_mbps": 10.0, "queue_packets": 1000},
        "carrier": True, "packets": 980, "carried_bytes": 98_000, "in_flight_packets": 0,
        "dropped_packets": {"loss": 20, "queue": 1, "carrier": 2, "overrun": 0},
        "delay_error_p50_ms": 0.1, "delay_error_p99_ms": 0.5, "delay_error_max_ms": 0.9,
        "delay_error_histogram": [[0.1, 900], [0.5, 78], [0.9, 2]],
        "measured_delay_mean_ms": 5.1, "measured_loss_ratio": 0.02, "measured_rate_mbps": 0.5,
        "expected_lost_packets": 20.0, "expected_lost_variance": 19.6,
    }  # fmt: skip


def _exit(node: str) -> dict[str, Any]:
    return {"name": f"{node}.forwarder", "status": 0, "cpu_s": 0.5, "max_rss_bytes": 20_000_000, "ready_s": 98.5}
