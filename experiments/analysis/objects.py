"""Objects and live streams as a frame: who fetched what, how fast, and from how far."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from experiments.columns import OBJECTS
from experiments.history import Membership, memberships
from experiments.recorded_run import RecordedRun
from proxy.records import ObjectFetched, ObjectPublished
from testbed.routing import path_hops


def measure_objects(run: RecordedRun) -> pd.DataFrame:
    """Return the rows of objects.csv, in the order of publishing and of names."""
    fetched = {(fetch.object_name, fetch.receiver): fetch for fetch in run.history.fetches}
    hops = path_hops(run.topology, sources={each.publisher for each in run.history.objects})
    spans = memberships(run.history.sessions)
    rows = []
    for published in run.history.objects:
        had_joined = {
            device
            for (conference, device), there in spans.items()
            if conference == published.conference and _was_there(there, published.t_s)
        }
        came = {receiver for name, receiver in fetched if name == published.object_name}
        for receiver in sorted((had_joined | came) - {published.publisher}):
            fetch = fetched.get((published.object_name, receiver))
            rows.append(_row(run, published, receiver, fetch, hops[published.publisher].get(receiver)))
    return pd.DataFrame(rows, columns=OBJECTS.names)


def _was_there(spans: list[Membership], at_s: float) -> bool:
    """Tell whether a device was a member at a time, and still is at the end."""
    return any(span.start_s <= at_s and span.end_s is None for span in spans)


def _row(
    run: RecordedRun, published: ObjectPublished, receiver: str, fetch: ObjectFetched | None, hops: int | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(OBJECTS.names)
    row |= {
        "object_name": published.object_name,
        "conference": published.conference,
        "publisher": published.publisher,
        "receiver": receiver,
        "kind": "stream" if published.is_stream else "object",
        "size_bytes": published.size_bytes,
        "published_s": published.t_s - run.epoch_s,
        "outcome": "missing",
        "path_hops": hops,
    }
    if fetch is None:
        return row
    row |= {
        "begun_s": fetch.begun_s - run.epoch_s,
        "ended_s": fetch.t_s - run.epoch_s,
        "outcome": fetch.outcome,
        "received_bytes": fetch.size_bytes,
        "segments": fetch.segments,
        "segments_asked": fetch.segments_asked,
        "retransmissions": fetch.retransmissions,
        "bytes_by_hops": "; ".join(f"{links}: {size}" for links, size in fetch.bytes_by_hops),
        "deadline_misses": fetch.deadline_misses,
    }
    if fetch.outcome == "complete" and not published.is_stream:
        took_s = fetch.t_s - fetch.begun_s
        row["fetch_ms"] = took_s * 1e3
        row["goodput_bps"] = fetch.size_bytes * 8 / took_s if took_s > 0 else math.nan
    return row
