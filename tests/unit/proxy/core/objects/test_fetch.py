"""An object from one shelf to one fetch: complete, forged, or inconsistent."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

from proxy.core.objects.fetch import ObjectFetch, is_consistent
from proxy.core.objects.shelf import Shelf
from proxy.core.trust import Refusal
from proxy.wire.messages import DIGESTS_PER_SEGMENT, OBJECT_MAX_BYTES, OBJECT_SEGMENT_BYTES, ObjectDescription
from proxy.wire.objects import ObjectName, manifest_name, object_name, parse_object_name, segment_name
from proxy.wire.packet import decode_data
from proxy.wire.payload import encoded_size_bytes
from proxy.wire.tlv import MalformedError

NAME = object_name("ue1", "main", boot=1, seq=1)


def contents(shelf: Shelf, name: bytes) -> bytes:
    wire = shelf.data(parse_object_name(name), name)
    assert wire is not None
    data = decode_data(wire)
    assert data.name == name
    assert data.freshness_ms
    return data.content


@pytest.mark.parametrize(
    "size_bytes",
    [1, OBJECT_SEGMENT_BYTES, OBJECT_SEGMENT_BYTES + 1, DIGESTS_PER_SEGMENT * OBJECT_SEGMENT_BYTES, 1_000_001],
)
def test_an_object_of_any_size_comes_whole(size_bytes: int) -> None:
    shelf, content = Shelf(), hashlib.shake_128(b"any").digest(size_bytes)
    description = shelf.put(NAME, content)
    assert is_consistent(description)
    fetch = ObjectFetch(NAME, description, now_s=0.0)
    came, now_s = {}, 0.0
    while not fetch.is_complete:
        names = fetch.due(now_s)
        assert names
        now_s += 0.01
        for name in names:
            asked = parse_object_name(name)
            segment = contents(shelf, name)
            fetch.on_data(asked.segment, segment, 3, now_s, is_manifest=asked.is_manifest)
            if not asked.is_manifest:
                came[asked.segment] = segment
    assert b"".join(came[index] for index in range(description.segments)) == content
    assert fetch.bytes_by_hops == {3: size_bytes}
    assert (fetch.size_bytes, fetch.segments, fetch.retransmissions) == (size_bytes, len(came), 0)


def fetch_under_way() -> tuple[Shelf, ObjectFetch]:
    shelf = Shelf()
    fetch = ObjectFetch(NAME, shelf.put(NAME, bytes(50_000)), now_s=0.0)
    assert fetch.due(0.0) == [segment_name(manifest_name(NAME), 0)]
    return shelf, fetch


def test_a_forged_manifest_or_segment_is_refused_and_asked_for_again() -> None:
    shelf, fetch = fetch_under_way()
    with pytest.raises(Refusal, match="object_forged"):
        fetch.on_data(0, bytes(32 * 13), 1, 0.1, is_manifest=True)
    assert fetch.due(0.1) == []
    assert fetch.next_s is not None
    assert fetch.due(fetch.next_s) == [segment_name(manifest_name(NAME), 0)]
    fetch.on_data(0, contents(shelf, segment_name(manifest_name(NAME), 0)), 1, 0.2, is_manifest=True)
    assert fetch.due(0.2) == [segment_name(NAME, 0), segment_name(NAME, 1)]
    with pytest.raises(Refusal, match="object_forged"):
        fetch.on_data(1, bytes(OBJECT_SEGMENT_BYTES - 1) + b"x", 1, 0.3, is_manifest=False)
    assert fetch.size_bytes == 0


@pytest.mark.parametrize(("index", "is_manifest"), [(0, False), (1, True), (12, False)])
def test_what_was_not_asked_for_is_refused(index: int, is_manifest: bool) -> None:  # noqa: FBT001
    _, fetch = fetch_under_way()
    with pytest.raises(Refusal, match="object_unasked"):
        fetch.on_data(index, b"", None, 0.1, is_manifest=is_manifest)


def test_a_manifest_that_its_publisher_has_made_too_short_is_malformed() -> None:
    short = hashlib.sha256(bytes(32)).digest()
    fetch = ObjectFetch(NAME, ObjectDescription(50_000, OBJECT_SEGMENT_BYTES, (short,)), now_s=0.0)
    fetch.due(0.0)
    with pytest.raises(MalformedError, match="too few"):
        fetch.on_data(0, bytes(32), 1, 0.1, is_manifest=True)


def test_descriptions_that_contradict_themselves_are_not_consistent() -> None:
    description = Shelf().put(NAME, bytes(50_000))
    assert is_consistent(description)
    assert not is_consistent(replace(description, manifest_digests=()))
    assert not is_consistent(replace(description, size_bytes=OBJECT_MAX_BYTES))
    digests = (bytes(32),) * (-(-OBJECT_MAX_BYTES // OBJECT_SEGMENT_BYTES) // DIGESTS_PER_SEGMENT + 1)
    largest = ObjectDescription(OBJECT_MAX_BYTES, OBJECT_SEGMENT_BYTES, digests)
    assert is_consistent(largest)
    assert not is_consistent(replace(largest, size_bytes=OBJECT_MAX_BYTES + 1)), "nobody may make us fetch for ever"
    assert not is_consistent(replace(description, interval_s=0.02, deadline_s=0.1)), "frames have no digests beforehand"
    stream = ObjectDescription(1_000, 100, (), interval_s=0.02, deadline_s=0.1)
    assert is_consistent(stream)
    assert not is_consistent(replace(stream, deadline_s=0.0))


def test_the_announcement_of_the_largest_object_fits_an_update() -> None:
    segments = -(-OBJECT_MAX_BYTES // OBJECT_SEGMENT_BYTES)
    digests = (bytes(32),) * -(-segments // DIGESTS_PER_SEGMENT)
    description = ObjectDescription(OBJECT_MAX_BYTES, OBJECT_SEGMENT_BYTES, digests)
    assert is_consistent(description)
    assert encoded_size_bytes(description) < 7_000


def test_a_shelf_answers_for_what_it_has_only_and_drops_the_oldest_when_it_is_full() -> None:
    shelf = Shelf(max_bytes=100_000)
    names = [object_name("ue1", "main", boot=1, seq=seq) for seq in (1, 2, 3)]
    for name in names:
        shelf.put(name, bytes(40_000))
    has = [shelf.data(ObjectName(name, is_manifest=False, segment=0), segment_name(name, 0)) for name in names]
    assert [wire is not None for wire in has] == [False, True, True]
    for asked in (
        ObjectName(names[1], is_manifest=False, segment=10),
        ObjectName(names[1], is_manifest=True, segment=1),
    ):
        assert shelf.data(asked, b"") is None
    shelf.put(names[0], bytes(1_000_000))  # larger than the shelf: it is there alone
    assert shelf.data(ObjectName(names[0], is_manifest=False, segment=0), names[0]) is not None
    assert shelf.data(ObjectName(names[2], is_manifest=False, segment=0), names[2]) is None
