"""PSync's two formats: the invertible Bloom filter (IBF) in the name of a sync Interest, and the names in its answer.

Source: M. Zhang, V. Lehman, L. Wang, "Scalable Name-based Data Synchronization for Named Data Networking" (IEEE INFOCOM 2017),
and what its implementation puts on the wire (github.com/named-data/PSync, version 0.5: detail/iblt.cpp, detail/util.cpp,
detail/state.cpp); the filter is that of D. Eppstein, M. Goodrich et al., "What's the Difference?" (SIGCOMM 2011).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from proxy.wire.name import GENERIC, boundaries, component, read_number
from proxy.wire.packet import NAME
from proxy.wire.tlv import MalformedError, non_negative_integer, read_element, tlv

#: Hash functions that choose a cell each, and the seed of the hash that tells whether a cell holds one key alone.
HASHES: Final = 3
CHECK_SEED: Final = 11
_CELL: Final = struct.Struct("<iII")  # count, sum of the keys, sum of their checks
_CONTENT: Final = 128
_MASK: Final = 0xFFFF_FFFF


def murmur_hash3(content: bytes, seed: int) -> int:
    """Return 32 bits. Source: A. Appleby, MurmurHash3_x86_32 (github.com/aappleby/smhasher).

    >>> hex(murmur_hash3(b"", 1)), hex(murmur_hash3(b"aaaa", 0x9747B28C))
    ('0x514e28b7', '0x5a97808a')
    """
    state = seed
    whole = len(content) & ~3
    for at in range(0, whole, 4):
        state ^= _scrambled(int.from_bytes(content[at : at + 4], "little"))
        state = ((state << 13) | (state >> 19)) & _MASK
        state = (state * 5 + 0xE6546B64) & _MASK
    if whole < len(content):
        state ^= _scrambled(int.from_bytes(content[whole:], "little"))
    state ^= len(content)
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & _MASK
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & _MASK
    return state ^ (state >> 16)


def _scrambled(block: int) -> int:
    block = (block * 0xCC9E2D51) & _MASK
    block = ((block << 15) | (block >> 17)) & _MASK
    return (block * 0x1B873593) & _MASK


def key_of(name: bytes) -> int:
    """Return the key under which a name is in the filter."""
    return murmur_hash3(name, CHECK_SEED)


def _hashed(key: int, seed: int) -> int:
    return murmur_hash3(key.to_bytes(4, "little"), seed)


class BloomFilter:
    """An IBF for about so many *expected* differences; of two that differ by no more, those can be told."""

    def __init__(self, expected: int) -> None:
        cells = expected + expected // 2
        cells += -cells % HASHES
        self.counts = [0] * cells
        self.keys = [0] * cells
        self.checks = [0] * cells

    def _change(self, key: int, by: int) -> None:
        check, part = _hashed(key, CHECK_SEED), len(self.counts) // HASHES
        for number in range(HASHES):
            cell = number * part + _hashed(key, number) % part
            self.counts[cell] += by
            self.keys[cell] ^= key
            self.checks[cell] ^= check

    def insert(self, key: int) -> None:
        """Add a key that is not in it."""
        self._change(key, 1)

    def erase(self, key: int) -> None:
        """Take a key away that is in it."""
        self._change(key, -1)

    def minus(self, other: BloomFilter) -> BloomFilter:
        """Return the difference; both have the same size."""
        result = BloomFilter(0)
        result.counts = [ours - theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        result.keys = [ours ^ theirs for ours, theirs in zip(self.keys, other.keys, strict=True)]
        result.checks = [ours ^ theirs for ours, theirs in zip(self.checks, other.checks, strict=True)]
        return result

    def peeled(self) -> tuple[set[int], set[int], bool]:
        """Return, of a difference, the keys that only the one has, those that only the other has, and whether these are all.

        The filter is used up.
        """
        ours: set[int] = set()
        theirs: set[int] = set()
        found = len(self.counts)  # each round finds at least one, so there are no more rounds than keys that fit
        while found:
            found = 0
            for cell, count in enumerate(self.counts):
                key = self.keys[cell]
                if count in (1, -1) and self.checks[cell] == _hashed(key, CHECK_SEED):
                    if key in ours or key in theirs:
                        return ours, theirs, False  # made up: no difference of two filters has one twice
                    (ours if count == 1 else theirs).add(key)
                    self._change(key, -count)
                    found += 1
        return ours, theirs, not (any(self.counts) or any(self.keys) or any(self.checks))


def encode_filter(bloom: BloomFilter) -> bytes:
    """Return the name component that says which keys are in a filter."""
    cells = zip(bloom.counts, bloom.keys, bloom.checks, strict=True)
    return component(zlib.compress(b"".join(_CELL.pack(*cell) for cell in cells), 9))


def decode_filter(encoded: bytes, expected: int) -> BloomFilter:
    """Return the filter that a name component says. Raises: MalformedError, also where it is for another number of keys."""
    kind, start, end = read_element(encoded, 0, len(encoded))
    if kind != GENERIC or end != len(encoded):
        raise MalformedError("a filter is one generic component")
    bloom = BloomFilter(expected)
    size_bytes = len(bloom.counts) * _CELL.size
    inflater = zlib.decompressobj()
    try:
        cells = inflater.decompress(encoded[start:end], size_bytes + 1)
    except zlib.error as error:
        raise MalformedError(f"filter: {error}") from None
    if len(cells) != size_bytes or not inflater.eof:
        raise MalformedError(f"filter of other than {size_bytes} bytes")
    for cell in range(len(bloom.counts)):
        count, key, check = _CELL.unpack_from(cells, cell * _CELL.size)
        bloom.counts[cell], bloom.keys[cell], bloom.checks[cell] = count, key, check
    return bloom


def numbered(prefix: bytes, seq: int) -> bytes:
    """Return the name of publication *seq* of a participant, as it is in the filter and in answers."""
    return prefix + component(non_negative_integer(seq))


def encode_names(names: list[bytes]) -> bytes:
    """Return the content of an answer: the last publication of each whose news are told."""
    return tlv(_CONTENT, b"".join(tlv(NAME, name) for name in names))


def decode_names(content: bytes) -> list[tuple[bytes, int]]:
    """Return (prefix of a participant, number of its last publication). Raises: MalformedError."""
    kind, at, end = read_element(content, 0, len(content))
    if kind != _CONTENT or end != len(content):
        raise MalformedError(f"element of type {kind} is no answer of PSync")
    found: list[tuple[bytes, int]] = []
    while at < end:
        kind, start, at = read_element(content, at, end)
        if kind != NAME or start == at:
            raise MalformedError(f"element of type {kind} in an answer of PSync, which holds names")
        name = content[start:at]
        ends = [0, *boundaries(name)]
        last = name[ends[-2] :]
        if last[0] != GENERIC:
            raise MalformedError("name without a number in an answer of PSync")
        found.append((name[: ends[-2]], read_number(last[2:])))
    return found
