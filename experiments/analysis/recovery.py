"""Recovery: for every fault and affected node, how soon it noticed, how long it was short of updates, and what it lost.

The idea, for a client: a fault on a link makes late what came over that link. What follows the fault from one CSR is late
until the first update that is on time again; the outage lasts until everything published up to then has been applied. So
a late update long after the fault, such as one that random loss or a busy machine delayed, is not taken for the fault's
doing. But a client may relapse: where no link loses packets at random, an update that comes much too late while the fault
is still in force has no other cause, and the outage lasts until that one has been applied, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from experiments.analysis.deliveries import PART_ROWS, Deliveries, Flags, Floats, Ints, delay_matrix_ms
from experiments.columns import RECOVERY
from experiments.history import FaultRecord
from experiments.recorded_run import LINK_UP, RecordedRun, links_down
from testbed.faults.targets import CUTTING_KINDS, MESSAGE_KINDS, PROCESS_KINDS, links_of, processes_of
from testbed.plan import PROXYLESS_MODES
from testbed.routing import path_delays_ms
from topologies.errors import InputError
from topologies.model import Link, Topology, mean_loss_ratio

#: An update is late if its latency exceeds LATE_RATIO x floor + LATE_MS, the floor times FETCH_CROSSINGS where receivers fetch.
LATE_RATIO: Final = 1.15
LATE_MS: Final = 10.0
#: In modes without service proxies an update crosses the path three times: that there is one, the question, the answer.
FETCH_CROSSINGS: Final = 3

#: An update this much later than that, in a network without random loss, is a relapse; a busy machine delays less.
RELAPSE_MS: Final = 100.0

#: A node may notice before the injector has read back that the fault took.
_EARLY_S: Final = 0.1
_ROUNDS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a fault does to paths between devices, by code."""

    affected: Flags  #: pairs whose shortest path crosses the link
    floor_ms: Floats  #: path delay while the fault is in force; infinite where it leaves no path
    limit_ms: Floats  #: a latency above is late


@dataclass(frozen=True, slots=True)
class _Late:
    """Of one fault's deliveries, those that happened or were expected and that it may have made late; times since the start."""

    receiver: Ints
    group: Ints  #: pairs of the publisher's CSR and the receiver
    published_s: Floats
    delivered_s: Floats  #: NaN: never
    relapse: Flags  #: so late, and published so, that the fault is the reason whatever came before
    first_on_time_s: Floats  #: by group, when the first update was published after the fault that was on time
    touched: Flags  #: by receiver, whether it was to get anything at all that the fault could have touched


def measure_recovery(run: RecordedRun, deliveries: Deliveries) -> pd.DataFrame:
    """Return the rows of recovery.csv."""
    groups = _groups(run.topology, deliveries.devices)
    rows: list[dict[str, Any]] = []
    for fault in run.faults:
        if fault.applied_s is None:
            continue
        if fault.kind == "thaw":
            continue  # what it ends has its own rows
        if fault.kind in PROCESS_KINDS or fault.kind == "restart":
            rows += _client_rows(run, fault, (), _reach_of_proxies(run, fault, deliveries), groups, deliveries)
            continue
        try:
            links = links_of(run.topology, fault.kind, fault.target)
        except InputError:
            continue  # of a kind that this version does not know
        reach = _reach(run, fault, links, deliveries.devices)
        rows += _client_rows(run, fault, links, reach, groups, deliveries)
        if fault.kind not in MESSAGE_KINDS:
            rows += _router_rows(run, fault, links)
    return pd.DataFrame(rows, columns=RECOVERY.names)


def _groups(topology: Topology, devices: Sequence[str]) -> Ints:
    """Return the number of the group of each publisher and receiver, by their codes."""
    ues = set(topology.ues)
    names = [topology.proxy_of(device) if device in ues else device for device in devices]
    servers = np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
    return np.add.outer(servers * len(devices), np.arange(len(devices)))


def _expected(deliveries: Deliveries) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
    """Yield publisher, receiver, published_s and delivered_s (NaN: never) of all that happened or was expected, in parts."""
    for rows in deliveries.parts():
        mine = deliveries.was_joined[rows]
        yield (
            deliveries.publisher(rows)[mine],
            deliveries.receiver[rows][mine].astype(np.int64),
            deliveries.published_s(rows)[mine],
            deliveries.delivered_s[rows][mine],
        )
    published_s = deliveries.updates["published_s"].to_numpy(dtype=np.float64)
    publisher = deliveries.updates["publisher_code"].to_numpy(dtype=np.int64)
    for begin in range(0, len(deliveries.lost_update), PART_ROWS):
        update = deliveries.lost_update[begin : begin + PART_ROWS]
        receiver = deliveries.lost_receiver[begin : begin + PART_ROWS].astype(np.int64)
        yield publisher[update], receiver, published_s[update], np.full(len(update), np.nan)


def _late(run: RecordedRun, fault: FaultRecord, reach: _Reach, groups: Ints, deliveries: Deliveries) -> _Late:
    applied_s = (fault.applied_s or 0.0) - run.epoch_s
    healed_s = math.inf if fault.healed_s is None else fault.healed_s - run.epoch_s
    is_lossy = _is_lossy(run)
    first_s = np.full(groups.size, np.inf)
    touched = np.zeros(len(deliveries.devices), dtype=np.bool_)
    kept: list[tuple[Ints, Ints, Floats, Floats, Flags]] = [
        (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.bool_))
    ]
    for publisher, receiver, published_s, delivered_s in _expected(deliveries):
        limit_s = reach.limit_ms[publisher, receiver] / 1e3
        ends_s = np.where(np.isnan(delivered_s), published_s + limit_s, delivered_s)
        # Published after the fault, or on its way when it struck.
        mine = reach.affected[publisher, receiver] & (ends_s >= applied_s)
        touched[receiver[mine]] = True
        group = groups[publisher, receiver]
        late = ~(delivered_s - published_s <= limit_s)  # NaN is late
        on_time_after = mine & ~late & (published_s >= applied_s)
        np.minimum.at(first_s, group[on_time_after], published_s[on_time_after])
        relapse = ~(delivered_s - published_s <= limit_s + RELAPSE_MS / 1e3) & (published_s < healed_s) & (not is_lossy)
        late &= mine
        kept.append((receiver[late], group[late], published_s[late], delivered_s[late], relapse[late]))
    receiver, group, published_s, delivered_s, relapse = map(np.concatenate, zip(*kept, strict=True))
    return _Late(receiver, group, published_s, delivered_s, relapse, first_s, touched)


def _reach(run: RecordedRun, fault: FaultRecord, links: Sequence[Link], devices: Sequence[str]) -> _Reach:
    struck = {link.name for link in links}
    others = links_down(run.topology, run.faults, at_s=fault.applied_s or 0.0) - struck
    delays = path_delays_ms(run.topology, without=others)
    whole = delay_matrix_ms(delays, devices)
    affected = np.zeros_like(whole, dtype=np.bool_)
    for link in links:
        (to_a, from_a), (to_b, from_b) = (
            (
                np.array([delays.get(device, {}).get(end, math.inf) for device in devices]),
                np.array([delays.get(end, {}).get(device, math.inf) for device in devices]),
            )
            for end in (link.a, link.b)
        )
        ab_ms, ba_ms = (link.properties_from(end).delay_ms for end in (link.a, link.b))
        across = np.minimum(ab_ms + np.add.outer(to_a, from_b), ba_ms + np.add.outer(to_b, from_a))
        affected |= np.isfinite(whole) & (across <= whole + 1e-6)  # delays are exact to 1 ns
    np.fill_diagonal(affected, val=False)
    if fault.kind in CUTTING_KINDS or fault.kind == LINK_UP:
        floor = delay_matrix_ms(path_delays_ms(run.topology, without=others | struck), devices)
        # Without another path the update has to wait for the link; what it then may take is the path over the link.
        reachable = np.where(np.isfinite(floor), floor, whole)
    else:
        built_ms = [link.properties_from(end).delay_ms for link in links for end in (link.a, link.b)]
        more_ms = max(0.0, _parameter(fault, "delay_ms") - min(built_ms, default=0.0))
        if fault.kind in MESSAGE_KINDS:
            more_ms = _parameter(fault, "delay_ms")
        floor = whole + more_ms + _parameter(fault, "jitter_ms")
        reachable = floor
    detour = _detour_ms(run, path_delays_ms(run.topology), devices)
    return _Reach(affected, floor, LATE_RATIO * (_crossings(run) * reachable + detour) + LATE_MS)


def _crossings(run: RecordedRun) -> int:
    """Return how often an update has to cross the path to a receiver in the mode of the run."""
    conference = run.manifest.get("experiment", {}).get("conference", {})
    return FETCH_CROSSINGS if conference.get("mode") in PROXYLESS_MODES else 1


def _detour_ms(run: RecordedRun, delays: Mapping[str, Mapping[str, float]], devices: Sequence[str]) -> Floats:
    """Return how much longer than the shortest path between two devices the one by way of their proxies is.

    That is 0 behind a CSR, and in a network that a UE serves the way to that UE and back. Of several proxies that have
    served a device, the farthest counts.
    """
    served_by: dict[str, set[str]] = {}
    for session in run.history.sessions:
        if session.state == "joined" and session.proxy in delays:
            served_by.setdefault(session.device, set()).add(session.proxy)
    via: list[str] = []
    to_proxy_ms: list[float] = []
    for device in devices:
        of_device = delays.get(device, {})  # a device that the topology does not have has no path
        farthest = max(sorted(served_by.get(device, {device})), key=lambda proxy: of_device.get(proxy, 0.0))
        via.append(farthest)
        to_proxy_ms.append(of_device.get(farthest, 0.0))
    longer = np.add.outer(to_proxy_ms, to_proxy_ms) + delay_matrix_ms(delays, via) - delay_matrix_ms(delays, devices)
    return np.maximum(np.nan_to_num(longer, nan=0.0, posinf=0.0), 0.0)


def _reach_of_proxies(run: RecordedRun, fault: FaultRecord, deliveries: Deliveries) -> _Reach:
    """Affected is what the proxies struck serve or have accepted; those they serve move to the nearest of the others."""
    topology, devices = run.topology, deliveries.devices
    struck = {name.removesuffix(".proxy") for name in processes_of(topology, fault.target) if name.endswith(".proxy")}
    delays = path_delays_ms(topology, without=links_down(run.topology, run.faults, at_s=fault.applied_s or 0.0))
    served_by = {
        session.device: session.proxy
        for session in run.history.sessions
        if session.t_s < (fault.applied_s or 0.0) and session.state == "joined"
    }
    left = [proxy for proxy in topology.proxies if proxy not in struck]
    moved = np.array([served_by.get(device) in struck for device in devices], dtype=np.bool_)
    if not topology.proxies:  # then whoever is behind a router that is struck
        routers = {name.partition(".")[0] for name in processes_of(topology, fault.target)}
        moved = np.array(
            [device in topology.ues and topology.csr_of(device) in routers for device in devices], dtype=np.bool_
        )
    floor = np.full((len(devices), len(devices)), math.inf)
    if left:
        via = {
            device: min(left, key=lambda proxy: delays[device][proxy]) if is_moved else served_by.get(device, left[0])
            for device, is_moved in zip(devices, moved, strict=True)
            if device in delays
        }
        known = [(code, device) for code, device in enumerate(devices) if device in via]
        for a, publisher in known:
            for b, receiver in known:
                over = delays[via[publisher]][via[receiver]]
                floor[a, b] = delays[publisher][via[publisher]] + over + delays[via[receiver]][receiver]
    affected = np.logical_or.outer(moved, moved)
    np.fill_diagonal(affected, val=False)
    whole = delay_matrix_ms(delays, devices)
    reachable = np.where(np.isfinite(floor), floor, whole)
    return _Reach(affected, floor, LATE_RATIO * _crossings(run) * reachable + LATE_MS)


def _client_rows(
    run: RecordedRun,
    fault: FaultRecord,
    links: Sequence[Link],
    reach: _Reach,
    groups: Ints,
    deliveries: Deliveries,
) -> Iterator[dict[str, Any]]:
    applied_s = (fault.applied_s or 0.0) - run.epoch_s
    publishers = _publishers(deliveries)
    late = _late(run, fault, reach, groups, deliveries)
    episode = _episode(late)

    for code in np.flatnonzero(reach.affected[publishers].any(axis=0)).tolist():
        sources = publishers[reach.affected[publishers, code]]
        floors = reach.floor_ms[sources, code]
        missed = episode & (late.receiver == code)
        lost = int(np.isnan(late.delivered_s[missed]).sum())
        recovered_s: float | None = None
        outage_ms: float | None = None
        if lost:
            outage_ms = (run.end_s - (fault.applied_s or 0.0)) * 1e3
        elif late.touched[code]:
            recovered_s = max(applied_s, float(late.delivered_s[missed].max(initial=-math.inf)))
            outage_ms = (recovered_s - applied_s) * 1e3
        name = deliveries.devices[code]
        yield _row(run, fault, links, name) | {
            "recovered_s": recovered_s,
            "outage_ms": outage_ms,
            "updates_missed": int(missed.sum()),
            "updates_recovered": int(missed.sum()) - lost,
            "updates_lost": lost,
            "floor_ms": float(floors.max()) if np.isfinite(floors).all() else None,
        }


def _is_lossy(run: RecordedRun) -> bool:
    built_so = any(
        properties is not None and (mean_loss_ratio(properties) > 0 or properties.corrupt_ratio > 0)
        for link in run.topology.links
        for properties in (link.properties, link.back)
    )
    losses = ("loss_ratio", "good_to_bad_ratio", "corrupt_ratio")
    return built_so or any(
        fault.kind in MESSAGE_KINDS or any(_parameter(fault, name) > 0 for name in losses) for fault in run.faults
    )


def _parameter(fault: FaultRecord, name: str) -> float:
    value = fault.parameters.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _publishers(deliveries: Deliveries) -> Ints:
    """Return the codes of all that published what somebody who belonged got or should have got."""
    known = np.zeros(len(deliveries.devices), dtype=np.bool_)
    for publisher, _, _, _ in _expected(deliveries):
        known[publisher] = True
    return np.flatnonzero(known)


def _episode(late: _Late) -> Flags:
    """Return which late updates belong to the outage of their receiver."""
    # A group's outage is over with the first update published after the fault that is on time.
    episode: Flags = (late.published_s < late.first_on_time_s[late.group]) | late.relapse
    # Whole again means that everything published meanwhile is there: what was late in another group before that counts too.
    for _ in range(_ROUNDS_MAX):
        end_s = np.full(len(late.touched), -np.inf)
        np.maximum.at(end_s, late.receiver[episode], np.nan_to_num(late.delivered_s[episode], nan=np.inf))
        more = late.published_s <= end_s[late.receiver]
        if not (more & ~episode).any():
            break
        episode = episode | more
    return episode


def _router_rows(run: RecordedRun, fault: FaultRecord, links: Sequence[Link]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys(end for link in links for end in (link.a, link.b)):
        if run.topology.node(name).role in ("core", "csr"):
            row = _row(run, fault, links, name)
            if fault.kind in CUTTING_KINDS and fault.healed_s is not None:
                its_own = [link for link in links if name in (link.a, link.b)]
                ups_s = [_face_change_s(run, name, link, "up", fault.healed_s - _EARLY_S, math.inf) for link in its_own]
                known_s = [up_s for up_s in ups_s if up_s is not None]
                row["recovered_s"] = max(known_s) - run.epoch_s if len(known_s) == len(ups_s) else None
            yield row


def _row(run: RecordedRun, fault: FaultRecord, links: Sequence[Link], node: str) -> dict[str, Any]:
    """Return the columns that all rows have, and what the node noticed."""
    applied_s = fault.applied_s or 0.0
    row: dict[str, Any] = dict.fromkeys(RECOVERY.names)
    row |= {"fault_id": fault.fault_id, "node": node, "role": run.topology.node(node).role}
    detected_s = _detected_s(run, fault, links, node)
    if detected_s is not None:
        row["detected_s"] = detected_s - run.epoch_s
        row["detection_ms"] = max(0.0, detected_s - applied_s) * 1e3
    return row


def _detected_s(run: RecordedRun, fault: FaultRecord, links: Sequence[Link], node: str) -> float | None:
    applied_s = fault.applied_s or 0.0
    if not links:
        return _suspected_s(run, node, applied_s, math.inf)
    if fault.kind == LINK_UP:
        return _face_change_s(run, node, links[0], "up", applied_s - _EARLY_S, math.inf)
    until_s = math.inf if fault.healed_s is None else fault.healed_s
    noticed = [
        *(_face_change_s(run, node, link, "down", applied_s - _EARLY_S, until_s) for link in links),
        _suspected_s(run, node, applied_s, until_s),
    ]
    return min((t_s for t_s in noticed if t_s is not None), default=None)


def _suspected_s(run: RecordedRun, node: str, from_s: float, until_s: float) -> float | None:
    """Return when the client *node* first missed its service proxy, or left it, in an interval of CLOCK_MONOTONIC."""
    return next(
        (
            session.t_s
            for session in run.history.sessions
            if session.device == node
            and (session.state == "suspect" or session.reason == "moved")
            and from_s <= session.t_s <= until_s
        ),
        None,
    )


def _face_change_s(run: RecordedRun, node: str, link: Link, state: str, from_s: float, until_s: float) -> float | None:
    """Return when the face of *node* on *link* first changed to *state* in an interval of CLOCK_MONOTONIC."""
    return next(
        (
            change.t_s
            for change in run.history.faces
            if change.node == node
            and change.link == link.name
            and change.state == state
            and from_s <= change.t_s <= until_s
        ),
        None,
    )
