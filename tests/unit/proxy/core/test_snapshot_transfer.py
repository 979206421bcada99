"""Frozen snapshots and their fetching: sharing, forgetting, and everything that can be wrong with a segment."""

from __future__ import annotations

import pytest

from proxy.core.consumer import Consumer, GivenUp
from proxy.core.digest_log import DigestLog
from proxy.core.events import Effect, Send
from proxy.core.seeded import SplitMix64
from proxy.core.snapshot_transfer import (
    FREEZE_INTERVAL_S,
    FROZEN_IDLE_S,
    FROZEN_MAX,
    IN_FLIGHT_MAX,
    SEGMENT_ATTEMPTS,
    FrozenSnapshots,
    SnapshotFetch,
)
from proxy.core.trust import Refusal
from proxy.wire.message_names import SNAPSHOT, parse_message_name
from proxy.wire.messages import SEGMENT_BYTES, Head, Snapshot, SnapshotManifest
from proxy.wire.packet import Interest, decode_interest
from proxy.wire.payload import encode
from tests.unit.proxy.core.parties import signed_update

DEVICES = 1_500


def log_of(devices: int = DEVICES, *, history_max_entries: int = 100) -> DigestLog:
    log = DigestLog(history_max_entries=history_max_entries)
    heads = tuple(Head(f"ue{number}", 1, 5, bytes(16), joined=True) for number in range(devices))
    log.view.install(Snapshot(heads, ()))
    return log


def append(log: DigestLog, count: int) -> None:
    for _ in range(count):
        log.append_own(log.stream("csr1", 1), (signed_update(1),))


class Frozen:
    """A log, what was frozen of it, and somebody who fetches that."""

    def __init__(self) -> None:
        self.log, self.frozen = log_of(), FrozenSnapshots()
        manifest = self.frozen.freeze(self.log, boot=1, now_s=0.0)
        assert manifest is not None
        self.manifest = manifest
        self.consumer: Consumer[int] = Consumer(SplitMix64(1))
        self.fetch: SnapshotFetch[int] = SnapshotFetch(
            self.consumer, lambda number: number, conference="main", asker="ue1 1"
        )

    def start(self, manifest: SnapshotManifest | None = None, source: str = "csr1") -> list[Interest]:
        return sent(self.fetch.start(manifest or self.manifest, source, current=(), now_s=0.0))

    def segment(self, number: int) -> bytes:
        return self.frozen.segment(self.manifest.digest.hex(), number, now_s=0.0)

    def take(self, number: int, content: bytes | None = None) -> tuple[list[Interest], Snapshot | None]:
        self.consumer.cancel(number)
        effects, snapshot = self.fetch.take(number, self.segment(number) if content is None else content, now_s=0.0)
        return sent(effects), snapshot


def sent(effects: list[Effect]) -> list[Interest]:
    return [decode_interest(effect.packet) for effect in effects if isinstance(effect, Send)]


def numbers(interests: list[Interest]) -> list[int]:
    return [parse_message_name(each.name).seq for each in interests]


# ---------------------------------------------------------------------- fetching


def test_whole_is_put_together_from_segments_a_few_at_a_time() -> None:
    party = Frozen()
    asked = party.start()
    assert parse_message_name(asked[0].name).kind == SNAPSHOT
    assert parse_message_name(asked[0].name).parts == ("main", party.manifest.digest.hex())
    assert [each.parameters for each in asked] == [None] * len(asked)
    first = numbers(asked)
    assert first == list(range(min(IN_FLIGHT_MAX, party.manifest.segments)))
    pending, snapshot = list(reversed(first)), None
    while pending:
        assert len(party.consumer) <= IN_FLIGHT_MAX
        more, snapshot = party.take(pending.pop())
        pending += numbers(more)
    assert snapshot == party.log.snapshot(complete=True)
    assert not party.fetch.is_under_way
    assert len(party.consumer) == 0


def test_more_segments_are_asked_for_as_others_arrive() -> None:
    party = Frozen()
    manifest = SnapshotManifest(1, 20 * SEGMENT_BYTES, bytes(32))
    assert len(party.start(manifest)) == IN_FLIGHT_MAX
    more, _ = party.take(3, bytes(SEGMENT_BYTES))
    assert numbers(more) == [IN_FLIGHT_MAX]


def test_altered_segment_ruins_the_whole_and_the_next_time_the_names_are_our_own() -> None:
    party = Frozen()
    asked = party.start()
    altered = bytes(1) + party.segment(0)[1:]
    party.take(0, altered)
    for number in numbers(asked)[1:-1]:
        party.take(number)
    with pytest.raises(Refusal, match="snapshot_forged"):
        party.take(numbers(asked)[-1])
    assert not party.fetch.is_under_way
    again = party.start()
    assert {each.parameters for each in again} == {b"ue1 1 1"}
    assert not {each.name for each in again} & {each.name for each in asked}
    results = [party.take(number)[1] for number in numbers(again)]
    assert results[-1] == party.log.snapshot(complete=True)
    assert {each.parameters for each in party.start()} == {None}  # stores are trusted again


@pytest.mark.parametrize("size_bytes", [1, SEGMENT_BYTES - 1, SEGMENT_BYTES + 1])
def test_segment_of_another_size_is_forged(size_bytes: int) -> None:
    party = Frozen()
    party.start()
    with pytest.raises(Refusal, match="snapshot_forged"):
        party.take(0, bytes(size_bytes))
    assert len(party.consumer) == 0


def test_empty_segment_says_that_the_snapshot_is_gone() -> None:
    party = Frozen()
    party.start()
    with pytest.raises(Refusal, match="snapshot_gone"):
        party.take(1, b"")
    assert not party.fetch.is_under_way
    assert {each.parameters for each in party.start()} == {None}  # that is no sign of an attack


def test_segment_of_what_is_not_being_fetched_is_ignored() -> None:
    party = Frozen()
    assert party.take(0) == ([], None)


def test_same_snapshot_announced_again_goes_on_and_another_replaces_it() -> None:
    party = Frozen()
    party.start()
    party.take(0)
    assert party.start() == []
    other = SnapshotManifest(2, 3 * SEGMENT_BYTES, bytes(32))
    assert numbers(party.start(other)) == [0, 1, 2]
    assert len(party.consumer) == 3
    assert len(party.start(source="csr2")) == party.manifest.segments
    party.fetch.cancel()
    assert (party.fetch.source, len(party.consumer)) == ("", 0)


def test_segment_that_does_not_come_is_given_up() -> None:
    party = Frozen()
    party.start()
    given_up: list[GivenUp[int]] = []
    attempts, now_s = 1, 0.0
    while not given_up and (due_s := party.consumer.next_s) is not None:
        now_s = due_s
        effects, given_up = party.consumer.on_timer(now_s)
        attempts += 0 in numbers(sent(effects))
    assert attempts == SEGMENT_ATTEMPTS
    assert now_s < 10.0


# ---------------------------------------------------------------------- freezing


def test_frozen_snapshot_is_reused_while_little_has_come_since() -> None:
    log, frozen = log_of(), FrozenSnapshots()
    assert frozen.reusable(log, now_s=0.0) is None
    manifest = frozen.freeze(log, boot=1, now_s=0.0)
    append(log, 10)
    assert frozen.reusable(log, now_s=100.0) == manifest
    append(log, 20)
    assert frozen.reusable(log, now_s=FREEZE_INTERVAL_S / 2) == manifest  # too much, but too soon after the last
    assert frozen.reusable(log, now_s=FREEZE_INTERVAL_S) is None


def test_frozen_snapshot_is_not_reused_where_the_history_does_not_lead_on_from_it() -> None:
    log, frozen = log_of(history_max_entries=4), FrozenSnapshots()
    manifest = frozen.freeze(log, boot=1, now_s=0.0)
    append(log, 4)
    assert frozen.reusable(log, now_s=0.0) == manifest
    append(log, 1)
    assert frozen.reusable(log, now_s=0.0) is None


def test_few_versions_are_kept_those_that_are_fetched_first() -> None:
    log, frozen = log_of(), FrozenSnapshots()
    first = frozen.freeze(log, boot=1, now_s=0.0)
    assert first is not None
    last = first
    for now_s in range(1, FROZEN_MAX + 1):
        append(log, 1)
        assert frozen.segment(first.digest.hex(), 0, now_s=float(now_s))
        last = frozen.freeze(log, boot=1, now_s=float(now_s)) or first
        assert len(frozen) <= FROZEN_MAX
    assert last != first
    assert frozen.segment(first.digest.hex(), 0, now_s=9.0)
    assert frozen.segment(last.digest.hex(), 0, now_s=9.0)


def test_what_nobody_asks_for_is_forgotten() -> None:
    log, frozen = log_of(), FrozenSnapshots()
    manifest = frozen.freeze(log, boot=1, now_s=0.0)
    assert manifest is not None
    frozen.forget_idle(now_s=FROZEN_IDLE_S)
    assert len(frozen) == 1
    frozen.forget_idle(now_s=FROZEN_IDLE_S + 0.1)
    assert len(frozen) == 0
    assert frozen.segment(manifest.digest.hex(), 0, now_s=40.0) == b""
    assert frozen.reusable(log, now_s=40.0) is None


def test_snapshot_larger_than_anybody_takes_is_not_frozen() -> None:
    frozen = FrozenSnapshots(max_bytes=10_000)
    assert frozen.freeze(log_of(), boot=1, now_s=0.0) is None
    assert len(frozen) == 0


def test_segments_beyond_the_last() -> None:
    party = Frozen()
    sizes = [len(party.segment(number)) for number in range(party.manifest.segments + 1)]
    assert sizes[-1] == 0
    assert sum(sizes) == party.manifest.size_bytes == len(encode(party.log.snapshot(complete=True)))
    assert max(sizes) == SEGMENT_BYTES
