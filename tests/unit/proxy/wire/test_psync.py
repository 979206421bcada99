"""PSync's filter and its answers, against published vectors and against plain sets."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.name import component, from_uri
from proxy.wire.psync import (
    BloomFilter,
    decode_filter,
    decode_names,
    encode_filter,
    encode_names,
    key_of,
    murmur_hash3,
    numbered,
)
from proxy.wire.tlv import MalformedError, tlv

ALICE = from_uri("/hconf/alice/v=1")
keys = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("content", "seed", "digest"),
    [  # of the author's verification values, as they are commonly quoted
        (b"", 0, 0),
        (b"", 1, 0x514E28B7),
        (b"", 0xFFFFFFFF, 0x81F16F39),
        (b"\xff\xff\xff\xff", 0, 0x76293B50),
        (b"\x21\x43\x65\x87", 0, 0xF55B516B),
        (b"\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE),
        (b"\x21\x43\x65", 0, 0x7E4A8634),
        (b"\x21\x43", 0, 0xA0F7B07A),
        (b"\x21", 0, 0x72661CF4),
        (b"\x00\x00\x00\x00", 0, 0x2362F9DE),
        (b"Hello, world!", 0x9747B28C, 0x24884CBA),
    ],
)
def test_murmur_hash3(content: bytes, seed: int, digest: int) -> None:
    assert murmur_hash3(content, seed) == digest


def filter_of(members: set[int], expected: int = 10) -> BloomFilter:
    bloom = BloomFilter(expected)
    for key in members:
        bloom.insert(key)
    return bloom


@pytest.mark.parametrize(("expected", "cells"), [(80, 120), (10, 15), (1, 3), (12, 18), (9, 15)])
def test_cells_are_half_as_many_again_and_divide_by_three(expected: int, cells: int) -> None:
    assert len(BloomFilter(expected).counts) == cells


@given(common=st.sets(keys, max_size=60), ours=st.sets(keys, max_size=2), theirs=st.sets(keys, max_size=2))
def test_a_few_differences_are_told_however_large_the_sets(common: set[int], ours: set[int], theirs: set[int]) -> None:
    """More than the cells hold may be common: it cancels out."""
    ours, theirs = ours - common - theirs, theirs - common
    positive, negative, is_all = filter_of(common | ours, 80).minus(filter_of(common | theirs, 80)).peeled()
    assert positive <= ours
    assert negative <= theirs
    assert is_all is (positive == ours and negative == theirs)


def test_two_differences_are_told_nearly_always() -> None:
    failed = 0
    for number in range(500):
        ours, theirs = key_of(b"%d" % number), key_of(b"%d!" % number)
        failed += not filter_of({ours}, 80).minus(filter_of({theirs}, 80)).peeled()[2]
    assert failed <= 1


def test_more_differences_than_it_is_made_for_are_not_taken_for_all() -> None:
    many = {key_of(b"%d" % number) for number in range(100)}
    _, _, is_all = filter_of(many).minus(filter_of(set())).peeled()
    assert not is_all


def test_a_filter_that_is_made_up_comes_to_an_end() -> None:
    bloom = BloomFilter(10)
    for cell in range(len(bloom.counts)):
        bloom.counts[cell], bloom.keys[cell], bloom.checks[cell] = 1, 7, murmur_hash3((7).to_bytes(4, "little"), 11)
    assert bloom.peeled()[2] is False


@given(members=st.sets(keys, max_size=30))
def test_filters_survive_the_wire(members: set[int]) -> None:
    bloom = filter_of(members)
    again = decode_filter(encode_filter(bloom), 10)
    assert (again.counts, again.keys, again.checks) == (bloom.counts, bloom.keys, bloom.checks)


def test_layout_of_a_filter() -> None:
    """Each cell is three little-endian numbers of 32 bits, all of them compressed with zlib."""
    key = key_of(numbered(ALICE, 3))
    encoded = encode_filter(filter_of({key}))
    assert encoded[0] == 8
    plain = zlib.decompress(encoded[2:])
    cells = list(struct.iter_unpack("<iII", plain))
    assert len(cells) == 15
    check = murmur_hash3(key.to_bytes(4, "little"), 11)
    where = [number * 5 + murmur_hash3(key.to_bytes(4, "little"), number) % 5 for number in range(3)]
    assert [cell for cell in cells if any(cell)] == 3 * [(1, key, check)]
    assert [index for index, cell in enumerate(cells) if any(cell)] == where


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (component(b"nothing"), "filter:"),
        (component(zlib.compress(bytes(179))), "other than 180 bytes"),
        (component(zlib.compress(bytes(181))), "other than 180 bytes"),
        (component(zlib.compress(bytes(100_000_000))), "other than 180 bytes"),
        (component(zlib.compress(bytes(180))[:-1]), "other than 180 bytes"),
        (component(zlib.compress(bytes(180)), 32), "one generic component"),
        (b"", "ends inside"),
        (component(b"a") + component(b"b"), "one generic component"),
    ],
)
def test_what_is_no_filter(encoded: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        decode_filter(encoded, 10)


@given(
    st.lists(
        st.tuples(st.sampled_from(["/a", "/b/c", "/hconf/ue1/v=1"]).map(from_uri), st.integers(0, 2**64 - 1)),
        max_size=5,
    )
)
def test_names_survive_the_wire(names: list[tuple[bytes, int]]) -> None:
    assert decode_names(encode_names([numbered(prefix, seq) for prefix, seq in names])) == names


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tlv(127, b""), "no answer of PSync"),
        (tlv(128, b"") + b"\x00", "no answer of PSync"),
        (tlv(128, tlv(8, b"a")), "holds names"),
        (tlv(128, tlv(7, b"")), "holds names"),
        (tlv(128, tlv(7, component(b"a") + component(b"abc"))), "integer of 3 octets"),
        (tlv(128, tlv(7, component(b"a") + component(b"a", 54))), "without a number"),
    ],
)
def test_what_is_no_answer(content: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        decode_names(content)
