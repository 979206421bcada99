"""A run read back from its folder: everything that the checker, the analysis and the report start from.

Works on any machine: nothing here needs root, and nothing of the run has to be alive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.history import (
    FAULTS_FILE,
    LINKS_FILE,
    NODES_FILE,
    TOPOLOGY_FILE,
    FaultRecord,
    History,
    LinkRecord,
    NodeExit,
    members_at_end,
    read_history,
    read_lines,
)
from experiments.run_folder import RunFolder
from proxy.records import SessionChanged
from testbed.faults.targets import CUTTING_KINDS, KILLING_KINDS, PROCESS_KINDS, links_of, processes_of
from testbed.routing import path_delays_ms
from topologies.errors import InputError
from topologies.model import Topology

LINK_DOWN: Final = "link-down"
LINK_UP: Final = "link-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    folder: RunFolder
    manifest: Mapping[str, Any]
    topology: Topology
    history: History
    faults: Sequence[FaultRecord]  #: in the order of application
    links: Sequence[LinkRecord]
    exits: Sequence[NodeExit]
    epoch_s: float  #: CLOCK_MONOTONIC at t = 0 of the run
    end_s: float  #: CLOCK_MONOTONIC at the end of what was observed

    @classmethod
    def load(cls, folder: RunFolder) -> RecordedRun:
        """Read a run folder, also that of a run which was killed.

        Raises: InputError if it holds no run, or one that cannot be understood.
        """
        manifest = folder.read_manifest()
        topology = read_topology(folder.raw / TOPOLOGY_FILE)
        fault_file = _read_optional(folder.raw / FAULTS_FILE, FaultRecord)
        link_file = _read_optional(folder.raw / LINKS_FILE, LinkRecord)
        exit_file = _read_optional(folder.raw / NODES_FILE, NodeExit)
        faults = _latest_of_each(fault_file[0])
        exits = {exit_.name: exit_ for exit_ in exit_file[0]}
        clock = manifest.get("clock") or {}
        history = read_history(
            folder.raw,
            crashed=_crashed(topology, exits.values()) | nodes_struck(topology, faults, KILLING_KINDS),
            disks_lost=nodes_struck(topology, faults, {"disk-loss"}),
            cut_off=_cut_off(topology, links_down(topology, faults, at_s=math.inf))
            | nodes_struck(topology, [fault for fault in faults if fault.healed_s is None], PROCESS_KINDS),
            proxy_only=proxy_only(topology, faults, exits.values()) if exits else frozenset(),
            epoch_s=clock.get("epoch_s") or clock.get("start_s") or math.inf,
            quiesced_s=clock.get("quiesced_s"),
            damage=[
                *fault_file[1],
                *link_file[1],
                *exit_file[1],
                *_missing_records(folder.raw, topology, exits, has_ended=clock.get("quiesced_s") is not None),
            ],
        )
        history = dataclasses.replace(history, sessions=_with_vanished(history.sessions, topology, faults))
        end_s = clock.get("quiesced_s") or last_time_s(history)
        return cls(
            folder=folder,
            manifest=manifest,
            topology=topology,
            history=history,
            faults=faults,
            links=list({(link.link, link.sender): link for link in link_file[0]}.values()),
            exits=list(exits.values()),
            epoch_s=clock.get("epoch_s") or clock.get("start_s") or end_s,
            end_s=end_s,
        )


def links_down(topology: Topology, faults: Iterable[FaultRecord], *, at_s: float) -> frozenset[str]:
    """Return the links that a fault kept down, or silent, just before *at_s* (CLOCK_MONOTONIC), if only now and then."""
    return frozenset(
        link.name
        for fault in faults
        if fault.kind in CUTTING_KINDS
        and fault.applied_s is not None
        and fault.applied_s < at_s
        and (fault.healed_s is None or fault.healed_s >= at_s)
        for link in links_of(topology, fault.kind, fault.target)
    )


def processes_struck(
    topology: Topology, faults: Iterable[FaultRecord], kinds: Collection[str] = PROCESS_KINDS
) -> frozenset[str]:
    """Return the processes that faults of these *kinds* have struck."""
    return frozenset(
        process
        for fault in faults
        if fault.kind in kinds and fault.applied_s is not None
        for process in processes_of(topology, fault.target)
    )


def nodes_struck(topology: Topology, faults: Iterable[FaultRecord], kinds: Collection[str]) -> frozenset[str]:
    """Return the nodes of `processes_struck`."""
    return frozenset(process.partition(".")[0] for process in processes_struck(topology, faults, kinds))


def write_topology(path: Path, topology: Topology) -> None:
    """Write the network that was built, so that a report needs neither its source nor the experiment file."""
    path.write_bytes(msgspec.json.encode(topology) + b"\n")


def read_topology(path: Path) -> Topology:
    """Read what `write_topology` wrote. Raises: InputError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Topology)
    except OSError as error:
        raise InputError(
            where=str(path), problem=f"cannot be read: {error.strerror}", remedy="give the folder of an hconf run"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            where=str(path), problem=f"is damaged: {error}", remedy="give the folder of another run"
        ) from error


def last_time_s(history: History) -> float:
    """Return the time of the last record of all; 0.0 if there are none."""
    kinds: tuple[Sequence[Any], ...] = (
        history.published, history.acked, history.applied, history.sessions, history.faces, history.states, history.counters
    )  # fmt: skip
    return max((float(records[-1].t_s) for records in kinds if records), default=0.0)


def _read_optional(path: Path, type_: type) -> tuple[list[Any], list[str]]:
    if not path.exists():
        return [], []
    raw = read_lines(path, type_)
    return raw.records, raw.damage


def _missing_records(raw_dir: Path, topology: Topology, exits: Collection[str], *, has_ended: bool) -> list[str]:
    """Return what to say of each process that has run and has no records: those that ended, and of a whole run every node's."""
    processes = {*exits, *(f"{node.name}.forwarder" for node in topology.nodes if has_ended)}
    paths = [raw_dir / f"{name}.jsonl" for name in sorted(processes)]
    return [
        f"{path.name}: is {'empty' if path.exists() else 'missing'}"
        for path in paths
        if not (path.exists() and path.stat().st_size)
    ]


def _latest_of_each(records: Iterable[FaultRecord]) -> list[FaultRecord]:
    """Return one record a fault, the last written, which knows most; a `link-up` heals what it ends."""
    latest = {record.fault_id: record for record in records}
    faults = sorted(latest.values(), key=lambda fault: math.inf if fault.applied_s is None else fault.applied_s)
    for up in faults:
        if up.kind != LINK_UP or up.applied_s is None:
            continue
        for index, down in enumerate(faults):
            if (
                down.kind == LINK_DOWN
                and down.target == up.target
                and down.healed_s is None
                and down.applied_s is not None
                and down.applied_s <= up.applied_s
            ):
                faults[index] = msgspec.structs.replace(down, healed_s=up.applied_s)
    return faults


def _crashed(topology: Topology, exits: Collection[NodeExit]) -> frozenset[str]:
    """Return the nodes that are not known to have ended in an orderly way: all, if nobody saw how they did."""
    if not exits:
        return frozenset(node.name for node in topology.nodes)
    return frozenset(exit_.node for exit_ in exits if exit_.status != 0)


def _with_vanished(
    sessions: Sequence[SessionChanged], topology: Topology, faults: Sequence[FaultRecord]
) -> list[SessionChanged]:
    """Return the sessions, those of devices that crashed for good closed at that time: they could not say so themselves."""
    gone_s: dict[str, float] = {}
    for fault in faults:
        if fault.kind != "crash" or fault.healed_s is not None or fault.applied_s is None:
            continue
        for process in processes_of(topology, fault.target):
            node, _, part = process.rpartition(".")
            if part == "forwarder" and topology.node(node).role == "ue":
                gone_s[node] = fault.applied_s
    ends = [
        SessionChanged(gone_s[device], conference, device, "", "closed", "crashed")
        for conference, device in members_at_end(sessions)
        if device in gone_s
    ]
    return sorted([*sessions, *ends], key=lambda session: session.t_s)


def proxy_only(topology: Topology, faults: Sequence[FaultRecord], exits: Collection[NodeExit] = ()) -> frozenset[str]:
    """Return the proxy UEs of which only the service proxy was struck or ended badly, and whose links are up at the end."""
    struck = processes_struck(topology, faults) | {exit_.name for exit_ in exits if exit_.status != 0}
    apart = _cut_off(topology, links_down(topology, faults, at_s=math.inf))
    return frozenset(ue for ue in topology.proxy_ues if f"{ue}.forwarder" not in struck and ue not in apart)


def _cut_off(topology: Topology, down: frozenset[str]) -> frozenset[str]:
    """Return the nodes outside the largest part of the network that links *down* leave connected."""
    if not down:
        return frozenset()
    delays_ms = path_delays_ms(topology, without=down)
    parts = [frozenset(to for to, delay in row.items() if delay < math.inf) for row in delays_ms.values()]
    return frozenset(node.name for node in topology.nodes) - max(parts, key=len)
