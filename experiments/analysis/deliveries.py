"""Updates and deliveries: who published what when, who applied it when, and how that compares with the floor.

Updates are a frame. Of deliveries there may be millions: they are four columns, some 19 octets each, and all else that
deliveries.csv says of them follows from these, a part of the rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.applied import VIAS, AppliedUpdates, UpdateId
from experiments.history import Device, History, Membership, memberships
from experiments.recorded_run import RecordedRun
from proxy.records import SnapshotApplied
from testbed.faults.targets import EVENT_KINDS
from testbed.routing import path_delays_ms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int32]

#: Deliveries that are worked on, or written, at a time.
PART_ROWS: Final = 100_000

_LEVELS: Final = {"accepted": 1, "durable": 2, "replicated": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """What was published and delivered; times in seconds since the run's start.

    updates: the columns of updates.csv, one row an update, in the order of publishing.
    update, receiver, delivered_s, via, was_joined, during_fault: of each delivery, in the order of publishing and delivery: the row
        in *updates*, the device's code, when, how (an index into `VIAS`), and the flags of deliveries.csv.
    lost_update, lost_receiver: of every delivery that was expected and never happened.
    devices: what the codes stand for.
    publishers: codes of those that published, ascending.
    path_delays_ms: from each of *publishers* to each device, by code.
    """

    updates: pd.DataFrame
    update: Codes
    receiver: Codes
    delivered_s: Floats
    via: NDArray[np.int8]
    was_joined: Flags
    during_fault: Flags
    lost_update: Codes
    lost_receiver: Codes
    devices: tuple[str, ...]
    publishers: Ints
    path_delays_ms: Floats

    def __len__(self) -> int:
        return len(self.update)

    def published_s(self, rows: Any = slice(None)) -> Floats:  # noqa: ANN401 - what numpy takes as an index
        """Return when the updates of these deliveries were published."""
        published_s: Floats = _column(self.updates, "published_s")[self.update[rows]]
        return published_s

    def publisher(self, rows: Any = slice(None)) -> Ints:  # noqa: ANN401 - as above
        """Return the code of the publisher of each of these deliveries."""
        publisher: Ints = self.updates["publisher_code"].to_numpy(dtype=np.int64)[self.update[rows]]
        return publisher

    def latency_ms(self, rows: Any = slice(None)) -> Floats:  # noqa: ANN401 - as above
        latency_ms: Floats = (self.delivered_s[rows] - self.published_s(rows)) * 1e3
        return latency_ms

    def path_delay_ms(self, rows: Any = slice(None)) -> Floats:  # noqa: ANN401 - as above
        delays_ms: Floats = self.path_delays_ms[
            np.searchsorted(self.publishers, self.publisher(rows)), self.receiver[rows]
        ]
        return delays_ms

    def parts(self) -> Iterator[slice]:
        """Yield slices that are all rows together, each as many as are worked on at a time."""
        return (slice(begin, begin + PART_ROWS) for begin in range(0, len(self), PART_ROWS))

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows of deliveries.csv, a part at a time; one empty frame if there are none."""
        names, update_ids = pd.Index(self.devices), self.updates["update_id"].to_numpy()
        for rows in list(self.parts()) or [slice(0, 0)]:
            latency_ms, path_delay_ms = self.latency_ms(rows), self.path_delay_ms(rows)
            yield pd.DataFrame(
                {
                    "update_id": update_ids[self.update[rows]],
                    "publisher": pd.Categorical.from_codes(self.publisher(rows), categories=names),
                    "receiver": pd.Categorical.from_codes(self.receiver[rows], categories=names),
                    "published_s": self.published_s(rows),
                    "delivered_s": self.delivered_s[rows],
                    "latency_ms": latency_ms,
                    "path_delay_ms": path_delay_ms,
                    "ratio": ratio_of(latency_ms, path_delay_ms),
                    "via": pd.Categorical.from_codes(self.via[rows], categories=pd.Index(VIAS)),
                    "during_fault": self.during_fault[rows],
                    "was_joined": self.was_joined[rows],
                }
            )


def ratio_of(latency_ms: Floats, path_delay_ms: Floats) -> Floats:
    """Return latency over path delay; NaN where the path has no delay."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(path_delay_ms > 0, latency_ms / path_delay_ms, np.nan)


def measure_deliveries(run: RecordedRun) -> Deliveries:
    """Join publications, acks and applications of one run."""
    history = run.history
    applied = AppliedUpdates.of(history.applied)
    members = memberships(history.sessions)
    devices = tuple(
        sorted(
            {device for _, device in members}
            | {update.publisher for update in history.published}
            | {receiver for _, receiver in applied.readers}
        )
    )
    code_of = {device: code for code, device in enumerate(devices)}
    updates, row_of = _updates(run, code_of)
    update, receiver, at_s, via = _applications(history, applied, members, row_of, code_of)
    delivered_s = at_s - run.epoch_s
    del at_s
    published_s = _column(updates, "published_s")
    order = np.lexsort((delivered_s, published_s[update]))
    delivered_s = delivered_s[order]
    update, receiver, via = update[order], receiver[order], via[order]
    del order
    lost_update, lost_receiver = _count_receivers(updates, update, receiver, members, code_of, epoch_s=run.epoch_s)
    was_joined, during_fault = np.empty(len(update), dtype=np.bool_), np.empty(len(update), dtype=np.bool_)
    publishers: Ints = np.unique(updates["publisher_code"].to_numpy(dtype=np.int64))
    delays_ms = path_delays_ms(run.topology, sources=[devices[code] for code in publishers])
    deliveries = Deliveries(
        updates=updates, update=update, receiver=receiver, delivered_s=delivered_s, via=via, was_joined=was_joined,
        during_fault=during_fault, lost_update=lost_update, lost_receiver=lost_receiver, devices=devices,
        publishers=publishers,
        path_delays_ms=delay_matrix_ms(delays_ms, [devices[code] for code in publishers], devices),
    )  # fmt: skip
    for rows in deliveries.parts():
        was_joined[rows] = _belonged(run, deliveries, members, rows)
        during_fault[rows] = _overlaps_fault(run, deliveries.published_s(rows), delivered_s[rows])
    return deliveries


def delay_matrix_ms(
    delays_ms: Mapping[str, Mapping[str, float]], sources: Sequence[str], destinations: Sequence[str] | None = None
) -> Floats:
    """Return path delays from *sources* to *destinations* (None: the same), by place; NaN for what is not in the topology."""
    goals = sources if destinations is None else destinations
    empty: Mapping[str, float] = {}
    return np.array(
        [[delays_ms.get(a, empty).get(b, np.nan) for b in goals] for a in sources], dtype=np.float64
    ).reshape(len(sources), len(goals))


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


def _applications(
    history: History,
    applied: AppliedUpdates,
    members: Mapping[Device, Sequence[Membership]],
    row_of: Mapping[UpdateId, int],
    code_of: Mapping[str, int],
) -> tuple[Codes, Codes, Floats, NDArray[np.int8]]:
    """Return of each update that came to a receiver: row, receiver, time, way; what nobody published is the checker's business."""
    row_by_code = np.array([row_of.get(update, -1) for update in applied.updates], dtype=np.int32)
    code_by_reader = np.array([code_of[receiver] for _, receiver in applied.readers], dtype=np.int32)
    update, receiver = row_by_code[applied.update_codes()], code_by_reader[applied.reader]
    at_s, via = applied.at_s, applied.via
    if len(row_by_code) and row_by_code.min() < 0:
        known = update >= 0
        update, receiver, at_s, via = update[known], receiver[known], at_s[known], via[known]
    snapshots = _snapshot_deliveries(history, members, row_of, code_of, (update, receiver))
    if snapshots:
        rows, receivers, times_s = zip(*snapshots, strict=True)
        update, receiver = (
            np.append(update, np.array(rows, np.int32)),
            np.append(receiver, np.array(receivers, np.int32)),
        )
        at_s = np.append(at_s, times_s)
        via = np.append(via, np.full(len(rows), VIAS.index("snapshot"), dtype=np.int8))
    return update, receiver, at_s, via


def _snapshot_deliveries(
    history: History,
    members: Mapping[Device, Sequence[Membership]],
    row_of: Mapping[UpdateId, int],
    code_of: Mapping[str, int],
    came: tuple[Codes, Codes],
) -> list[tuple[int, int, float]]:
    """Return (row, receiver, time) of every update that a receiver got in a snapshot, having joined before it was published.

    *came*: row and receiver of what came by itself.
    """
    found: list[tuple[int, int, float]] = []
    known: dict[str, set[int]] = {}
    for snapshot in history.snapshots:
        receiver = snapshot.receiver
        if (snapshot.conference, receiver) not in members:
            continue
        if receiver not in known:
            known[receiver] = set(came[0][came[1] == code_of[receiver]].tolist())
        since_s = members[snapshot.conference, receiver][0].start_s
        for update in _covered_by(snapshot, history, since_s):
            row = row_of[update]
            if row not in known[receiver]:
                known[receiver].add(row)
                found.append((row, code_of[receiver], snapshot.t_s))
    return found


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


def _count_receivers(
    updates: pd.DataFrame,
    update: Codes,
    receiver: Codes,
    members: Mapping[Device, Sequence[Membership]],
    code_of: Mapping[str, int],
    *,
    epoch_s: float,
) -> tuple[Codes, Codes]:
    """Add expected_receivers and delivered_receivers to *updates*; return update and receiver of what is missing."""
    published_s = _column(updates, "published_s") + epoch_s
    publisher = updates["publisher_code"].to_numpy(dtype=np.int64)
    conferences = updates["conference"].cat
    names, codes = list(conferences.categories), conferences.codes.to_numpy()
    since_s = np.full((len(names), len(code_of)), np.inf)  # since when a device that stays to the end belongs
    for (conference, device), spans in members.items():
        if conference in names and spans[-1].end_s is None:
            since_s[names.index(conference), code_of[device]] = spans[-1].start_s
    expected, delivered = np.zeros(len(updates), dtype=np.int64), np.zeros(len(updates), dtype=np.int64)
    lost: list[tuple[Codes, Codes]] = []
    of_receiver = np.argsort(receiver.astype(np.int16) if len(code_of) < 1 << 15 else receiver, kind="stable")
    ends = np.bincount(receiver, minlength=len(code_of)).cumsum()
    for code in range(len(code_of)):
        came = np.zeros(len(updates), dtype=np.bool_)  # what was applied twice counts once
        came[update[of_receiver[ends[code - 1] if code else 0 : ends[code]]]] = True
        wanted = (since_s[codes, code] <= published_s) & (publisher != code)
        expected += wanted
        delivered += wanted & came
        missing = np.flatnonzero(wanted & ~came).astype(np.int32)
        lost.append((missing, np.full(len(missing), code, dtype=np.int32)))
    updates["expected_receivers"] = expected
    updates["delivered_receivers"] = delivered
    nothing = np.empty(0, dtype=np.int32)
    return np.concatenate([nothing, *(rows for rows, _ in lost)]), np.concatenate([nothing, *(of for _, of in lost)])


def _belonged(
    run: RecordedRun, deliveries: Deliveries, members: Mapping[Device, Sequence[Membership]], rows: slice
) -> Flags:
    """Return for each of these deliveries whether its receiver belonged to the conference when it was published."""
    at_s = deliveries.published_s(rows) + run.epoch_s
    receiver = deliveries.receiver[rows]
    conferences = deliveries.updates["conference"].cat
    conference_of = conferences.codes.to_numpy()[deliveries.update[rows]]
    result = np.zeros(len(at_s), dtype=np.bool_)
    for code, conference in enumerate(conferences.categories):
        mine = conference_of == code
        spans_of = [members.get((conference, device), ()) for device in deliveries.devices]
        for nth in range(max(map(len, spans_of), default=0)):  # nearly always one span each: no churn
            start = np.array([spans[nth].start_s if nth < len(spans) else np.inf for spans in spans_of])
            ends = [spans[nth].end_s if nth < len(spans) else -np.inf for spans in spans_of]
            end = np.array([np.inf if end_s is None else end_s for end_s in ends])
            result |= mine & (start[receiver] <= at_s) & (at_s < end[receiver])
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


def _column(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(dtype=np.float64)


def _array(records: Sequence[Any], field: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(field), records), dtype=dtype, count=len(records))


def _labels(records: Sequence[Any], field: str) -> pd.Categorical:
    return pd.Categorical(list(map(attrgetter(field), records)))
