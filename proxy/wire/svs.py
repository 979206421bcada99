"""The state vector of State Vector Sync version 3 in TLV.

Source: State Vector Sync specification, version 3 (2025-01-14), section 3, "State Vector Specification"
(named-data.github.io/StateVectorSync/Specification.html).
"""

from __future__ import annotations

from typing import Final

from proxy.wire.name import VERSION, boundaries, number
from proxy.wire.packet import NAME
from proxy.wire.tlv import (
    MalformedError,
    is_critical,
    non_negative_integer,
    read_element,
    read_non_negative_integer,
    tlv,
)

_STATE_VECTOR: Final = 201
_STATE_VECTOR_ENTRY: Final = 202
_SEQ_NO_ENTRY: Final = 210
_BOOTSTRAP_TIME: Final = 212
_SEQ_NO: Final = 214

#: Last component of the name of a sync Interest, before the digest of its parameters.
SVS_VERSION: Final = number(3, VERSION)

#: name of a node -> bootstrap time -> sequence number of its last publication, from 1; what is missing is 0
StateVector = dict[bytes, dict[int, int]]


def encode_state_vector(vector: StateVector) -> bytes:
    r"""Return the vector as TLV: names in NDN canonical order (that of their bytes), bootstrap times ascending.

    >>> encode_state_vector({b"\x08\x01a": {1: 5}}).hex()
    'c90fca0d0703080161d206d40101d60105'
    """
    entries = b""
    for name in sorted(vector):
        numbers = b"".join(
            tlv(
                _SEQ_NO_ENTRY,
                tlv(_BOOTSTRAP_TIME, non_negative_integer(boot)) + tlv(_SEQ_NO, non_negative_integer(seq)),
            )
            for boot, seq in sorted(vector[name].items())
        )
        entries += tlv(_STATE_VECTOR_ENTRY, tlv(NAME, name) + numbers)
    return tlv(_STATE_VECTOR, entries)


def decode_state_vector(wire: bytes) -> StateVector:
    """Read a vector; it may be empty, and what follows it is ignored.

    Raises: MalformedError, also for a name or bootstrap time that is there twice, or a sequence number of 0.
    """
    kind, at, end = read_element(wire, 0, len(wire))
    if kind != _STATE_VECTOR:
        raise MalformedError(f"element of type {kind} is no state vector")
    vector: StateVector = {}
    while at < end:
        kind, start, at = read_element(wire, at, end)
        if kind == _STATE_VECTOR_ENTRY:
            name, numbers = _entry(wire, start, at)
            if name in vector:
                raise MalformedError("a node is in a state vector twice")
            vector[name] = numbers
        elif is_critical(kind):
            raise MalformedError(f"critical element of type {kind} in a state vector")
    return vector


def _entry(wire: bytes, at: int, end: int) -> tuple[bytes, dict[int, int]]:
    kind, start, at = read_element(wire, at, end)
    if kind != NAME or start == at:
        raise MalformedError("state vector entry without a name")
    name = wire[start:at]
    boundaries(name)
    numbers: dict[int, int] = {}
    while at < end:
        kind, start, at = read_element(wire, at, end)
        if kind == _SEQ_NO_ENTRY:
            boot, seq = _seq_no_entry(wire, start, at)
            if boot in numbers:
                raise MalformedError("a bootstrap time is in a state vector entry twice")
            numbers[boot] = seq
        elif is_critical(kind):
            raise MalformedError(f"critical element of type {kind} in a state vector entry")
    return name, numbers


def _seq_no_entry(wire: bytes, at: int, end: int) -> tuple[int, int]:
    boot, seq = -1, 0
    while at < end:
        kind, start, at = read_element(wire, at, end)
        if kind == _BOOTSTRAP_TIME and boot < 0:
            boot = read_non_negative_integer(wire, start, at)
        elif kind == _SEQ_NO and boot >= 0 and not seq:
            seq = read_non_negative_integer(wire, start, at)
        elif is_critical(kind) or kind in (_BOOTSTRAP_TIME, _SEQ_NO):
            raise MalformedError(f"element of type {kind} out of place in a sequence number entry")
    if boot < 0 or not seq:
        raise MalformedError("bootstrap time or sequence number is missing, or 0")
    return boot, seq
