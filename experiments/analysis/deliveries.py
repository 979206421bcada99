"""Updates and deliveries as frames: who published what when, who applied it when, and how that compares with the floor.

Rows of both frames meet by position (`update` in the deliveries is the row of the update), devices by their code, so that a
million deliveries are a few arrays and not a million Python objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.history import Device, History, Membership, UpdateId, memberships
from experiments.recorded_run import RecordedRun
from proxy.records import SnapshotApplied
from testbed.faults.targets import EVENT_KINDS
from testbed.routing import path_delays_ms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_LEVELS: Final = {"accepted": 1, "durable": 2, "replicated": 3}


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What was published and delivered; times in seconds since the run's start.

    updates: the columns of updates.csv, one row an update, in the order of publishing.
    deliveries: the columns of deliveries.csv and, for joining: update (row in *updates*), publisher_code, receiver_code.
    lost: update, publisher_code, receiver_code of every delivery that was expected and never happened.
    devices: what the codes stand for.
    """

    updates: pd.DataFrame
    deliveries: pd.DataFrame
    lost: pd.DataFrame
    devices: tuple[str, ...]


def measure_deliveries(run: RecordedRun) -> Deliveries:
    """Join publications, acks and applications of one run."""
    history = run.history
    members = memberships(history.sessions)
    devices = tuple(
        sorted(
            {device for _, device in members}
            | {update.publisher for update in history.published}
            | {applied.receiver for applied in history.applied}
        )
    )
    code_of = {device: code for code, device in enumerate(devices)}
    updates, row_of = _updates(run, code_of)
    deliveries = _applications(history, row_of, code_of)
    snapshots = _snapshot_deliveries(history, members, row_of, code_of, deliveries)
    if len(snapshots):
        deliveries = pd.concat([deliveries, snapshots], ignore_index=True)
    deliveries = _measured(run, updates, deliveries, devices, members)
    lost = _count_receivers(updates, deliveries, members, code_of, epoch_s=run.epoch_s)
    return Deliveries(updates, deliveries, lost, devices)


def delay_matrix_ms(delays_ms: Mapping[str, Mapping[str, float]], devices: Sequence[str]) -> Floats:
    """Return path delays between *devices*, by code; NaN for a device that the topology does not have."""
    empty: Mapping[str, float] = {}
    return np.array(
        [[delays_ms.get(a, empty).get(b, np.nan) for b in devices] for a in devices], dtype=np.float64
    ).reshape(len(devices), len(devices))


def _updates(run: RecordedRun, code_of: Mapping[str, int]) -> tuple[pd.DataFrame, dict[UpdateId, int]]:
    published = run.history.published
    row_of: dict[UpdateId, int] = {}
    for update in published:  # an identity that was used twice is the checker's business; the first counts here
        row_of.setdefault((update.conference, update.publisher, update.boot, update.seq), len(row_of))
    unique = published if len(row_of) == len(published) else _first_of_each(published, row_of)

    acked_s = np.full(len(unique), np.nan)
    level = np.zeros(len(unique), dtype=np.int64)
    proxy = np.full(len(unique), "", dtype=object)
    for ack in run.history.acked:  # in the order of time, so the first ack is met first
        row = row_of.get((ack.conference, ack.publisher, ack.boot, ack.seq), -1)
        if row < 0:
            continue
        if np.isnan(acked_s[row]):
            acked_s[row] = ack.t_s
            proxy[row] = ack.proxy
        level[row] = max(level[row], _LEVELS[ack.level])
    session_proxy = _session_proxies(run.history)
    for row in np.flatnonzero(np.isnan(acked_s)).tolist():
        proxy[row] = session_proxy((unique[row].conference, unique[row].publisher), unique[row].t_s)

    names = ["", *_LEVELS]
    frame = pd.DataFrame(
        {
            "update_id": ["/".join(map(str, identity)) for identity in row_of],
            "conference": _labels(unique, "conference"),
            "publisher": _labels(unique, "publisher"),
            "proxy": proxy,
            "boot": _array(unique, "boot", np.int64),
            "seq": _array(unique, "seq", np.int64),
            "event": _labels(unique, "event"),
            "size_bytes": _array(unique, "size_bytes", np.int64),
            "object_name": _labels(unique, "object_name"),
            "published_s": _array(unique, "t_s", np.float64) - run.epoch_s,
            "acked_s": acked_s - run.epoch_s,
            "ack_level": [names[value] for value in level],
            "publisher_code": np.array([code_of[update.publisher] for update in unique], dtype=np.int64),
        }
    )
    return frame, row_of


def _applications(history: History, row_of: Mapping[UpdateId, int], code_of: Mapping[str, int]) -> pd.DataFrame:
    """Return one row an applied update; what nobody published is the checker's business and left out."""
    applied = history.applied
    frame = pd.DataFrame(
        {
            "update": np.fromiter(
                (row_of.get((one.conference, one.publisher, one.boot, one.seq), -1) for one in applied),
                dtype=np.int64,
                count=len(applied),
            ),
            "receiver_code": np.fromiter((code_of[one.receiver] for one in applied), np.int64, count=len(applied)),
            "t_s": _array(applied, "t_s", np.float64),
            "via": _labels(applied, "via"),
        }
    )
    return frame[frame["update"] >= 0].reset_index(drop=True)


def _snapshot_deliveries(
    history: History,
    members: Mapping[Device, Sequence[Membership]],
    row_of: Mapping[UpdateId, int],
    code_of: Mapping[str, int],
    applications: pd.DataFrame,
) -> pd.DataFrame:
    """Return one row for every update that a receiver got in a snapshot, having joined before it was published."""
    rows: list[tuple[int, int, float, str]] = []
    known: dict[str, set[int]] = {}
    for snapshot in history.snapshots:
        receiver = snapshot.receiver
        if (snapshot.conference, receiver) not in members:
            continue
        if receiver not in known:
            mine = applications["receiver_code"].to_numpy() == code_of[receiver]
            known[receiver] = set(applications["update"].to_numpy()[mine].tolist())
        since_s = members[snapshot.conference, receiver][0].start_s
        for update in _covered_by(snapshot, history, since_s):
            row = row_of[update]
            if row not in known[receiver]:
                known[receiver].add(row)
                rows.append((row, code_of[receiver], snapshot.t_s, "snapshot"))
    return pd.DataFrame(rows, columns=["update", "receiver_code", "t_s", "via"])


def _covered_by(snapshot: SnapshotApplied, history: History, since_s: float) -> list[UpdateId]:
    heads = {publisher: (boot, seq) for publisher, boot, seq in snapshot.heads}
    return [
        (update.conference, update.publisher, update.boot, update.seq)
        for update in history.published
        if update.conference == snapshot.conference
        and update.publisher != snapshot.receiver
        and since_s <= update.t_s <= snapshot.t_s
        and (update.boot, update.seq) <= heads.get(update.publisher, (-1, -1))
    ]


def _measured(
    run: RecordedRun,
    updates: pd.DataFrame,
    deliveries: pd.DataFrame,
    devices: Sequence[str],
    members: Mapping[Device, Sequence[Membership]],
) -> pd.DataFrame:
    """Return the deliveries with every column that deliveries.csv has."""
    rows = deliveries["update"].to_numpy(dtype=np.int64)
    receiver = deliveries["receiver_code"].to_numpy(dtype=np.int64)
    publisher = updates["publisher_code"].to_numpy(dtype=np.int64)[rows]
    published_s = updates["published_s"].to_numpy(dtype=np.float64)[rows]
    delivered_s = deliveries["t_s"].to_numpy(dtype=np.float64) - run.epoch_s
    latency_ms = (delivered_s - published_s) * 1e3
    path_delay_ms = delay_matrix_ms(path_delays_ms(run.topology), devices)[publisher, receiver]
    conferences = updates["conference"].cat
    codes = conferences.codes.to_numpy()[rows]
    was_joined = np.zeros(len(rows), dtype=np.bool_)
    for code, conference in enumerate(conferences.categories):
        mine = codes == code
        was_joined[mine] = _belonged(members, conference, devices, receiver[mine], published_s[mine] + run.epoch_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(path_delay_ms > 0, latency_ms / path_delay_ms, np.nan)
    names = pd.Index(devices)
    return pd.DataFrame(
        {
            "update_id": pd.Categorical.from_codes(rows, categories=pd.Index(updates["update_id"])),
            "publisher": pd.Categorical.from_codes(publisher, categories=names),
            "receiver": pd.Categorical.from_codes(receiver, categories=names),
            "published_s": published_s,
            "delivered_s": delivered_s,
            "latency_ms": latency_ms,
            "path_delay_ms": path_delay_ms,
            "ratio": ratio,
            "via": deliveries["via"].astype("category"),
            "during_fault": _overlaps_fault(run, published_s, delivered_s),
            "was_joined": was_joined,
            "update": rows,
            "publisher_code": publisher,
            "receiver_code": receiver,
        }
    ).sort_values(["published_s", "delivered_s"], kind="stable", ignore_index=True)


def _count_receivers(
    updates: pd.DataFrame,
    deliveries: pd.DataFrame,
    members: Mapping[Device, Sequence[Membership]],
    code_of: Mapping[str, int],
    *,
    epoch_s: float,
) -> pd.DataFrame:
    """Add expected_receivers and delivered_receivers to *updates*; return the deliveries that are missing."""
    published_s = updates["published_s"].to_numpy(dtype=np.float64) + epoch_s
    expected = np.zeros(len(updates), dtype=np.int64)
    since_s: dict[str, Floats] = {}  # per conference, by device code, since when a device that stays to the end belongs
    conferences = updates["conference"].cat
    for code, conference in enumerate(conferences.categories):
        since = np.full(len(code_of), np.inf)
        for (of, device), spans in members.items():
            if of == conference and spans[-1].end_s is None:
                since[code_of[device]] = spans[-1].start_s
        since_s[conference] = since
        rows = np.flatnonzero(conferences.codes.to_numpy() == code)
        publisher = updates["publisher_code"].to_numpy(dtype=np.int64)[rows]
        joined = np.searchsorted(np.sort(since), published_s[rows], side="right")
        expected[rows] = joined - (since[publisher] <= published_s[rows])

    row = deliveries["update"].to_numpy(dtype=np.int64)
    receiver = deliveries["receiver_code"].to_numpy(dtype=np.int64)
    stacked = np.array([since_s[conference] for conference in conferences.categories]).reshape(
        len(since_s), len(code_of)
    )
    wanted = stacked[conferences.codes.to_numpy()[row], receiver] <= published_s[row]
    wanted &= receiver != deliveries["publisher_code"].to_numpy(dtype=np.int64)
    pairs = np.unique(row[wanted] * len(code_of) + receiver[wanted])  # what was applied twice counts once
    delivered = np.bincount(pairs // max(1, len(code_of)), minlength=len(updates))
    updates["expected_receivers"] = expected
    updates["delivered_receivers"] = delivered

    lost: list[tuple[int, int, int]] = []
    arrived = set(pairs.tolist()) if bool((delivered < expected).any()) else set()
    for short in np.flatnonzero(delivered < expected).tolist():
        sender = int(updates["publisher_code"].iloc[short])
        since = since_s[str(updates["conference"].iloc[short])]
        lost += [
            (short, sender, device)
            for device in np.flatnonzero(since <= published_s[short]).tolist()
            if device != sender and short * len(code_of) + device not in arrived
        ]
    return pd.DataFrame(lost, columns=["update", "publisher_code", "receiver_code"], dtype=np.int64)


def _belonged(
    members: Mapping[Device, Sequence[Membership]],
    conference: str,
    devices: Sequence[str],
    receiver: Ints,
    at_s: Floats,
) -> Flags:
    """Return for each pair of a receiver's code and a moment whether it belonged to the conference then."""
    result = np.zeros(len(receiver), dtype=np.bool_)
    spans_of = [members.get((conference, device), ()) for device in devices]
    for nth in range(max(map(len, spans_of), default=0)):  # nearly always one span each: no churn
        start = np.array([spans[nth].start_s if nth < len(spans) else np.inf for spans in spans_of])
        ends = [spans[nth].end_s if nth < len(spans) else -np.inf for spans in spans_of]
        end = np.array([np.inf if end_s is None else end_s for end_s in ends])
        result |= (start[receiver] <= at_s) & (at_s < end[receiver])
    return result


def _overlaps_fault(run: RecordedRun, start_s: Floats, end_s: Floats) -> Flags:
    """Return for each interval whether any fault was in force in it; times since the run's start."""
    merged: list[list[float]] = []
    for fault in run.faults:  # in the order of application
        if fault.applied_s is None or fault.kind in EVENT_KINDS:
            continue
        begin = fault.applied_s - run.epoch_s
        end = np.inf if fault.healed_s is None else fault.healed_s - run.epoch_s
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    if not merged:
        return np.zeros(len(start_s), dtype=np.bool_)
    begins, ends = np.array(merged).T
    first = np.searchsorted(ends, start_s, side="left")  # the first fault that is not over before the interval begins
    result: Flags = np.append(begins, np.inf)[first] <= end_s
    return result


def _session_proxies(history: History) -> Any:  # noqa: ANN401 - a closure, used once
    """Return a function (device, time) -> the proxy that the device last had a session with."""
    changes: dict[Device, list[tuple[float, str]]] = {}
    for session in history.sessions:
        if session.proxy:
            changes.setdefault((session.conference, session.device), []).append((session.t_s, session.proxy))

    def proxy_at(device: Device, at_s: float) -> str:
        return next((proxy for t_s, proxy in reversed(changes.get(device, [])) if t_s <= at_s), "")

    return proxy_at


def _first_of_each(published: Sequence[Any], row_of: Mapping[UpdateId, int]) -> Sequence[Any]:
    first: dict[UpdateId, Any] = dict.fromkeys(row_of)
    for update in reversed(published):
        first[update.conference, update.publisher, update.boot, update.seq] = update
    return list(first.values())


def _array(records: Sequence[Any], field: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(field), records), dtype=dtype, count=len(records))


def _labels(records: Sequence[Any], field: str) -> pd.Categorical:
    return pd.Categorical(list(map(attrgetter(field), records)))
