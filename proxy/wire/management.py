"""What applications and a forwarder say to each other under ``/localhost/nfd``: the NFD Management protocol's formats.

Sources: the wiki of the protocol (ControlCommand, FaceMgmt, ForwarderStatus), ndn-cxx' table of type numbers, NDN Packet
Format v0.3 ("Signed Interest") and the older command format with timestamp and nonce in the name, which python-ndn's
``NDNApp`` and ndn-cxx still send.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from proxy.wire.name import GENERIC, PARAMETERS_SHA256, boundaries, from_uri, split
from proxy.wire.packet import DATA, INTEREST, NAME, Interest, decode_interest
from proxy.wire.tlv import (
    MalformedError,
    elements,
    is_critical,
    non_negative_integer,
    read_element,
    read_non_negative_integer,
    tlv,
)

LOCALHOST: Final = from_uri("/localhost")
PREFIX: Final = from_uri("/localhost/nfd")

_CONTROL_RESPONSE, _STATUS_CODE, _STATUS_TEXT = 0x65, 0x66, 0x67
_CONTROL_PARAMETERS, _FACE_ID, _COST, _STRATEGY, _FLAGS, _EXPIRATION = 0x68, 0x69, 0x6A, 0x6B, 0x6C, 0x6D
_ORIGIN, _MASK = 0x6F, 0x70
_INTEGERS: Final = {
    _FACE_ID: "face_id",
    _ORIGIN: "origin",
    _COST: "cost",
    _FLAGS: "flags",
    _MASK: "mask",
    _EXPIRATION: "expiration_period_ms",
}
#: Uri, LocalUri, Capacity, Count, BaseCongestionMarkingInterval, DefaultCongestionThreshold, Mtu, FacePersistency: theirs
#: is the management of faces and the content store, which is not an application's here.
_UNUSED: Final = frozenset((114, 129, 131, 132, 133, 135, 136, 137))

_SIGNATURE_INFO, _SIGNATURE_VALUE = 0x16, 0x17  #: as name components of the older format
_INTEREST_SIGNATURE_INFO, _INTEREST_SIGNATURE_VALUE = 0x2C, 0x2E
_SIGNATURE_TYPE, _KEY_LOCATOR = 0x1B, 0x1C
_SIGNATURE_NONCE, _SIGNATURE_TIME, _SIGNATURE_SEQ_NUM = 0x26, 0x28, 0x2A
_DIGEST_SHA256 = 0
_KEYED: Final = frozenset((1, 3, 4, 5))  #: RSA, ECDSA, HMAC, Ed25519


class ControlParameters(Struct, frozen=True):
    """Arguments of a command, and what it came to; a field that is None is not there."""

    name: bytes | None = None
    face_id: int | None = None
    origin: int | None = None
    cost: int | None = None
    flags: int | None = None
    mask: int | None = None
    strategy: bytes | None = None  #: its name
    expiration_period_ms: int | None = None


class Command(Struct, frozen=True):
    """A command that was signed; whether it is new is for the receiver to judge."""

    module: bytes
    verb: bytes
    parameters: ControlParameters
    signature: bytes
    time_ms: int | None  #: since the epoch, as the signer says


class CommandError(ValueError):
    """A command that is not carried out. *reason* is for counters, the rest for whoever sent it."""

    def __init__(self, reason: str, code: int, text: str) -> None:
        super().__init__(text)
        self.reason, self.code, self.text = reason, code, text


# ---------------------------------------------------------------------- commands


def decode_parameters(block: bytes) -> ControlParameters:
    """Decode a ControlParameters element.

    Raises: MalformedError.
    """
    kind, at, end = read_element(block, 0, len(block))
    if kind != _CONTROL_PARAMETERS or end != len(block):
        raise MalformedError("not one ControlParameters")
    names: dict[str, bytes] = {}
    numbers: dict[str, int] = {}
    seen: set[int] = set()
    for kind, start, stop in elements(block, at, end):
        if kind in seen:
            raise MalformedError(f"element of type {kind} twice in ControlParameters")
        seen.add(kind)
        if kind == NAME:
            names["name"] = _checked_name(block[start:stop])
        elif kind == _STRATEGY:
            inner, name_at, name_end = read_element(block, start, stop)
            if inner != NAME or name_end != stop:
                raise MalformedError("strategy is no name")
            names["strategy"] = _checked_name(block[name_at:name_end])
        elif (field := _INTEGERS.get(kind)) is not None:
            numbers[field] = read_non_negative_integer(block, start, stop)
        elif kind not in _UNUSED and is_critical(kind):
            raise MalformedError(f"critical element of unknown type {kind} in ControlParameters")
    return ControlParameters(**names, **numbers)  # type: ignore[arg-type]  # by field: names and numbers


def encode_parameters(parameters: ControlParameters) -> bytes:
    """Encode a ControlParameters element, in the order of its definition."""
    inner = b"" if parameters.name is None else tlv(NAME, parameters.name)
    for kind, field in _INTEGERS.items():
        if kind == _EXPIRATION and parameters.strategy is not None:
            inner += tlv(_STRATEGY, tlv(NAME, parameters.strategy))
        value: int | None = getattr(parameters, field)
        if value is not None:
            inner += tlv(kind, non_negative_integer(value))
    return tlv(_CONTROL_PARAMETERS, inner)


def decode_command(interest: Interest) -> Command:
    """Decode a command ``/localhost/nfd/<module>/<verb>/<parameters>``, signed one way or the other.

    A digest is verified. Other signatures need only be whole: keys are not known here, and NFD, too, believes every local
    application unless it is told otherwise (nfd.conf, ``localhost_security``: any).

    Raises: CommandError where it is not signed, signed wrongly, or not to be understood.
    """
    try:
        if interest.parameters is not None:
            decode_interest(interest.wire)
    except MalformedError as error:
        raise CommandError("forged", 403, str(error)) from error
    try:
        parts = split(interest.name)[2:]  # /localhost/nfd
        if len(parts) < 2 or any(kind != GENERIC for kind, _ in parts[:2]):
            raise CommandError("malformed", 400, "not /localhost/nfd/<module>/<verb>/<parameters>")
        if len(parts) == 4 and parts[3][0] == PARAMETERS_SHA256:
            signature, time_ms = _verify_signed_interest(interest)
        elif len(parts) == 7:
            signature, time_ms = _verify_command_name(interest.name, parts[3:])
        else:
            raise CommandError("unsigned", 401, "signature required")
        parameters = decode_parameters(parts[2][1])
    except MalformedError as error:
        raise CommandError("malformed", 400, str(error)) from error
    return Command(parts[0][1], parts[1][1], parameters, signature, time_ms)


def _verify_signed_interest(interest: Interest) -> tuple[bytes, int | None]:
    """NDN Packet Format v0.3: what is signed is the name without its digest, and the elements up to the signature info."""
    wire, info, value, value_at = interest.wire, None, None, 0
    element_at = interest.parameters_at
    for kind, start, end in elements(wire, interest.parameters_at, len(wire)):
        if kind == _INTEREST_SIGNATURE_INFO:
            info = wire[start:end]
        elif kind == _INTEREST_SIGNATURE_VALUE:
            value, value_at = wire[start:end], element_at
        element_at = end
    if info is None or value is None:
        raise CommandError("unsigned", 401, "signature required")
    name = interest.name[: boundaries(interest.name)[-2]]
    time_ms, is_single = _verify(info, value, name + wire[interest.parameters_at : value_at])
    if not is_single:
        raise CommandError("unsigned", 403, "neither SignatureTime nor SignatureNonce: it could be replayed")
    return value, time_ms


def _verify_command_name(name: bytes, parts: list[tuple[int, bytes]]) -> tuple[bytes, int]:
    """Verify the older format: timestamp, nonce, signature info and value are the last components; all before is signed."""
    (_, timestamp), (_, _), (_, info_block), (_, value_block) = parts
    time_ms = read_non_negative_integer(timestamp, 0, len(timestamp))
    info, value = (
        _only(_SIGNATURE_INFO, info_block, "signature info"),
        _only(_SIGNATURE_VALUE, value_block, "signature value"),
    )
    _verify(info, value, name[: boundaries(name)[-2]])
    return value, time_ms


def _only(kind: int, block: bytes, what: str) -> bytes:
    found, start, end = read_element(block, 0, len(block))
    if found != kind or end != len(block):
        raise MalformedError(f"component is no {what}")
    return block[start:end]


def _verify(info: bytes, value: bytes, signed: bytes) -> tuple[int | None, bool]:
    """Return the time of the signature, and whether something in it sets it apart from all others."""
    signature_type: int | None = None
    time_ms: int | None = None
    has_locator = is_single = False
    for kind, start, end in elements(info, 0, len(info)):
        if kind == _SIGNATURE_TYPE:
            signature_type = read_non_negative_integer(info, start, end)
        elif kind == _KEY_LOCATOR:
            has_locator = end > start
        elif kind == _SIGNATURE_TIME:
            time_ms, is_single = read_non_negative_integer(info, start, end), True
        elif kind in (_SIGNATURE_NONCE, _SIGNATURE_SEQ_NUM):
            is_single |= end > start
        elif is_critical(kind) and kind != 0xFD:  # 0xFD: validity period, of certificates
            raise MalformedError(f"critical element of unknown type {kind} in a signature info")
    if signature_type == _DIGEST_SHA256:
        if value != hashlib.sha256(signed).digest():
            raise CommandError("forged", 403, "the digest is not that of the command")
    elif signature_type not in _KEYED or not has_locator or not value:
        raise CommandError("unsigned", 403, "no signature that could be verified")
    return time_ms, is_single


def _checked_name(name: bytes) -> bytes:
    boundaries(name)
    return name


def encode_response(code: int, text: str, body: ControlParameters) -> bytes:
    """Encode a ControlResponse; its body is always there, since python-ndn reads it whatever the code says."""
    inner = tlv(_STATUS_CODE, non_negative_integer(code)) + tlv(_STATUS_TEXT, text.encode())
    return tlv(_CONTROL_RESPONSE, inner + encode_parameters(body))


# ---------------------------------------------------------------------- datasets


class PacketCounts:
    """Packets and bytes of a face, or of all, each way. (No Struct: every packet counts, see `proxy.wire.value`.)."""

    def __init__(self) -> None:
        self.in_interests = self.in_data = self.in_nacks = 0
        self.out_interests = self.out_data = self.out_nacks = 0
        self.in_bytes = self.out_bytes = 0

    def add(self, other: PacketCounts) -> None:
        """Count what *other* has counted, too."""
        self.in_interests += other.in_interests
        self.in_data += other.in_data
        self.in_nacks += other.in_nacks
        self.out_interests += other.out_interests
        self.out_data += other.out_data
        self.out_nacks += other.out_nacks
        self.in_bytes += other.in_bytes
        self.out_bytes += other.out_bytes

    def count_out(self, kind: int) -> None:
        """Count a packet that is sent: an Interest, a Data, else a Nack."""
        if kind == INTEREST:
            self.out_interests += 1
        elif kind == DATA:
            self.out_data += 1
        else:
            self.out_nacks += 1


class FaceStatus(Struct, frozen=True):
    """One entry of ``faces/list``."""

    face_id: int
    remote_uri: str
    local_uri: str
    is_local: bool
    is_on_demand: bool
    counts: PacketCounts


class GeneralStatus(Struct, frozen=True):
    """``status/general``; times in ms since the epoch."""

    version: str
    start_ms: int
    current_ms: int
    fib_entries: int
    pit_entries: int
    cs_entries: int
    counts: PacketCounts
    satisfied: int
    unsatisfied: int


def encode_faces(faces: Iterable[FaceStatus]) -> bytes:
    """Encode the FaceStatus elements of a dataset, in the given order."""
    return b"".join(
        tlv(
            0x80,
            _integers((_FACE_ID, face.face_id))
            + tlv(0x72, face.remote_uri.encode())
            + tlv(0x81, face.local_uri.encode())
            + _integers((0x84, int(face.is_local)), (0x85, int(face.is_on_demand)), (0x86, 0), *_counts(face.counts))
            + _integers((0x94, face.counts.in_bytes), (0x95, face.counts.out_bytes), (_FLAGS, 0)),
        )
        for face in faces
    )


def encode_general(status: GeneralStatus) -> bytes:
    """Encode the elements of the general status."""
    return tlv(0x80, status.version.encode()) + _integers(
        (0x81, status.start_ms),
        (0x82, status.current_ms),
        (0x83, status.fib_entries + status.pit_entries),  # name tree: what a tree would hold; ours are dictionaries
        (0x84, status.fib_entries),
        (0x85, status.pit_entries),
        (0x86, 0),  # measurements
        (0x87, status.cs_entries),
        *_counts(status.counts),
        (0x99, status.satisfied),
        (0x9A, status.unsatisfied),
    )


def _counts(counts: PacketCounts) -> Iterator[tuple[int, int]]:
    yield 0x90, counts.in_interests
    yield 0x91, counts.in_data
    yield 0x97, counts.in_nacks
    yield 0x92, counts.out_interests
    yield 0x93, counts.out_data
    yield 0x98, counts.out_nacks


def _integers(*pairs: tuple[int, int]) -> bytes:
    return b"".join(tlv(kind, non_negative_integer(value)) for kind, value in pairs)
