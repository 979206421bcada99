"""Names of the data plane."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.message_names import message_type
from proxy.wire.messages import ObjectDescription
from proxy.wire.name import from_uri, to_uri
from proxy.wire.objects import ObjectName, data_prefix, manifest_name, object_name, parse_object_name, segment_name
from proxy.wire.packet import decode_data, encode_data
from proxy.wire.tlv import MalformedError

NUMBERS = st.integers(0, 2**63 - 1)
WORDS = st.text(min_size=1, max_size=20)


@given(WORDS, WORDS, NUMBERS, NUMBERS, NUMBERS, st.booleans())
def test_a_name_is_taken_apart_as_it_was_made(
    device: str, conference: str, boot: int, seq: int, segment: int, is_manifest: bool  # noqa: FBT001
) -> None:  # fmt: skip
    name = object_name(device, conference, boot=boot, seq=seq)
    assert name.startswith(data_prefix(device))
    assert from_uri(to_uri(name)) == name, "as FP updates carry it"
    of_segment = segment_name(manifest_name(name) if is_manifest else name, segment)
    assert parse_object_name(of_segment) == ObjectName(name, is_manifest, segment)
    assert message_type(of_segment, data=True) == "object-segment"
    assert message_type(of_segment, data=False) == "object-interest"


def test_names_follow_the_convention_of_segmented_objects() -> None:
    """NDN-0022: what ndncatchunks fetches is a versioned name with segments; the last one's number is in all of them."""
    name = segment_name(object_name("ue1", "main", boot=2, seq=3), 4)
    assert to_uri(name) == "/hconf-data/ue1/main/seq=3/v=2/seg=4"
    wire = encode_data(name, b"x", freshness_ms=10, final_block=from_uri("/seg=9"))
    assert decode_data(wire).content == b"x"
    assert bytes.fromhex("1408 19010a 1a03320109") in wire


@pytest.mark.parametrize(
    "uri",
    [
        "/hconf-data",
        "/hconf-data/ue1/main/seq=1/v=1",
        "/hconf-data/ue1/main/seq=1/v=1/seq=1",
        "/hconf-data/ue1/main/v=1/seq=1/seg=1",
        "/hconf-data/ue1/main/seq=1/v=1/32=other/seg=1",
        "/hconf-data/ue1/main/seq=1/v=1/32=manifest/seg=1/x",
        "/hconf/ue1/main/seq=1/v=1/seg=1",
    ],
)
def test_other_names_are_malformed(uri: str) -> None:
    with pytest.raises(MalformedError):
        parse_object_name(from_uri(uri))


@given(st.binary(max_size=60))
def test_any_octets_are_a_name_or_malformed(tail: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse_object_name(data_prefix("ue1") + tail)


def test_the_last_segment_is_as_long_as_what_is_left() -> None:
    description = ObjectDescription(10_001, 4_000, ())
    assert description.segments == 3
    assert [description.segment_size_bytes(index) for index in range(3)] == [4_000, 4_000, 2_001]
