"""The data plane: names of conference objects, and what an FP update with event ``object`` says of one.

Names are outside of ``/hconf``, so that they can be routed, counted and queued apart from the control plane:

    /hconf-data/<device>/<conference>/seq=<number>/v=<boot>[/32=manifest]/seg=<number>

This is NDN-0022's convention for versioned, segmented objects, so that other NDN software can fetch them, too. An object's
digests stand in its manifest and the manifest's in the FP update, so the publisher's signature over the update is one over
all of it; frames of a live stream, which nobody can know before, are signed one by one.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from proxy.wire.message_names import OBJECT_ROOT
from proxy.wire.name import KEYWORD, SEGMENT, SEQUENCE, VERSION, boundaries, component, keyword, number, read_number
from proxy.wire.tlv import MalformedError

MANIFEST: Final = keyword("manifest")


class ObjectName(Struct, frozen=True):
    """A name of the data plane taken apart."""

    object_name: bytes  #: up to the version
    is_manifest: bool
    segment: int


def data_prefix(device: str) -> bytes:
    """Return the prefix under which a device publishes objects."""
    return OBJECT_ROOT + component(device)


def object_name(device: str, conference: str, *, boot: int, seq: int) -> bytes:
    """Return the name of an object; *seq* is that of no other object of this boot."""
    return data_prefix(device) + component(conference) + number(seq, SEQUENCE) + number(boot, VERSION)


def segment_name(name: bytes, index: int) -> bytes:
    """Return the name of a segment of an object or manifest."""
    return name + number(index, SEGMENT)


def manifest_name(name: bytes) -> bytes:
    """Return the name of an object's manifest."""
    return name + MANIFEST


def parse_object_name(name: bytes) -> ObjectName:
    """Take the name of a segment apart. Raises: MalformedError where it is none."""
    ends = boundaries(name)
    if len(ends) not in (6, 7) or not name.startswith(OBJECT_ROOT):
        raise MalformedError("no name of an object's segment")
    last = name[ends[-2] :]
    if last[0] != SEGMENT or name[ends[2]] != SEQUENCE or name[ends[3]] != VERSION:
        raise MalformedError("no name of an object's segment")
    is_manifest = len(ends) == 7
    if is_manifest and (name[ends[4]] != KEYWORD or name[ends[4] : ends[5]] != MANIFEST):
        raise MalformedError("unknown part of an object")
    return ObjectName(name[: ends[4]], is_manifest, read_number(last[2:]))
