"""Segmentation there and back: whatever the snapshot, in whatever order its segments come, and however they are altered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.consumer import Consumer
from proxy.core.digest_log import DigestLog
from proxy.core.seeded import SplitMix64
from proxy.core.snapshot_transfer import FrozenSnapshots, SnapshotFetch
from proxy.core.trust import Refusal
from proxy.wire.messages import Head, RosterEvent, Snapshot
from proxy.wire.tlv import MalformedError

#: About 30 bytes of snapshot each: from one segment to some twenty.
device_counts = st.integers(0, 5_000)


def frozen(devices: int) -> tuple[DigestLog, FrozenSnapshots]:
    log = DigestLog(history_max_entries=10)
    heads = tuple(Head(f"ue{number}", 1, number + 1, bytes(16), joined=True) for number in range(devices))
    log.view.install(Snapshot(heads, (), presence=(RosterEvent("ue0", 1, 1, 1, "away"),)))
    return log, FrozenSnapshots()


@given(devices=device_counts, data=st.data())
def test_there_and_back(devices: int, data: st.DataObject) -> None:
    """Either what was frozen comes out, or, where a segment was altered, nothing does."""
    log, snapshots = frozen(devices)
    manifest = snapshots.freeze(log, boot=1, now_s=0.0)
    assert manifest is not None
    altered = data.draw(st.none() | st.integers(0, manifest.segments - 1), label="altered")
    consumer: Consumer[int] = Consumer(SplitMix64(1))
    fetch: SnapshotFetch[int] = SnapshotFetch(consumer, lambda number: number, conference="main", asker="ue1 1")
    fetch.start(manifest, "csr1", current=(), now_s=0.0)
    taken = None
    try:
        while fetch.is_under_way:
            pending = [number for number in range(manifest.segments) if number in consumer]
            number = data.draw(st.sampled_from(pending))
            consumer.cancel(number)
            content = snapshots.segment(manifest.digest.hex(), number, now_s=0.0)
            if number == altered:
                content = data.draw(st.binary(max_size=10) | st.just(bytes(len(content))), label="instead")
            _, taken = fetch.take(number, content, now_s=0.0)
    except (Refusal, MalformedError):
        assert altered is not None
        assert not fetch.is_under_way
    else:
        assert altered is None
        assert taken == log.snapshot(complete=True)
    assert len(consumer) == 0
