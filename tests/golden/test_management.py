"""The management protocol against python-ndn's encoder and decoder, and against packets written by hand from its definition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndn.app_support.nfd_mgmt import ControlParameters as TheirParameters
from ndn.app_support.nfd_mgmt import (
    ControlParametersValue,
    FaceStatusMsg,
    GeneralStatus,
    make_command,
    make_command_v2,
    parse_response,
)
from ndn.app_support.nfd_mgmt import Strategy as TheirStrategy
from ndn.encoding import InterestParam, Name, SignatureType, make_interest
from ndn.security import DigestSha256Signer, NullSigner
from ndn.security.signer import Ed25519Signer, HmacSha256Signer

from proxy.wire import management
from proxy.wire.management import (
    CommandError,
    ControlParameters,
    FaceStatus,
    PacketCounts,
    decode_command,
    decode_parameters,
    encode_faces,
    encode_general,
    encode_parameters,
    encode_response,
)
from proxy.wire.name import from_uri, split
from proxy.wire.packet import Interest, peek_interest
from proxy.wire.tlv import MalformedError, tlv

integers = st.none() | st.integers(0, 2**64 - 1)
names = st.none() | st.lists(st.text("abc", min_size=1, max_size=5), max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
PREFIX = "/demo/files"


def newer(signer: Any, verb: str = "register", **parameters: Any) -> Interest:
    """As python-ndn's ``appv2`` sends it: a signed Interest of packet format v0.3."""
    name = make_command_v2("rib", verb, **parameters)
    wire = make_interest(name, InterestParam(nonce=7, lifetime=1_000), b"", signer)
    return peek_interest(bytes(wire))


def older(**parameters: Any) -> Interest:
    """As python-ndn's ``app`` and ndn-cxx send it: timestamp, nonce and signature are components of the name."""
    name = make_command("rib", "register", **parameters)
    return peek_interest(bytes(make_interest(name, InterestParam(nonce=7, lifetime=1_000))))


@given(name=names, face_id=integers, cost=integers, flags=integers, origin=integers, strategy=names, expires=integers)
def test_parameters_are_what_python_ndn_makes_of_them(
    name: str | None,
    face_id: int | None,
    cost: int | None,
    flags: int | None,
    origin: int | None,
    strategy: str | None,
    expires: int | None,
) -> None:
    theirs = TheirParameters()
    theirs.cp = ControlParametersValue()
    theirs.cp.name, theirs.cp.face_id, theirs.cp.cost, theirs.cp.flags = name, face_id, cost, flags
    theirs.cp.origin, theirs.cp.expiration_period = origin, expires
    if strategy is not None:
        theirs.cp.strategy = TheirStrategy()
        theirs.cp.strategy.name = strategy
    wire = bytes(theirs.encode())
    ours = ControlParameters(
        name=None if name is None else from_uri(name),
        face_id=face_id,
        cost=cost,
        flags=flags,
        origin=origin,
        strategy=None if strategy is None else from_uri(strategy),
        expiration_period_ms=expires,
    )
    assert decode_parameters(wire) == ours
    assert encode_parameters(ours) == wire


def test_parameters_written_by_hand() -> None:
    """FaceId 0x69, Origin 0x6f, Cost 0x6a, Flags 0x6c, ExpirationPeriod 0x6d; Uri 0x72 is not ours to use, 0xfc unknown."""
    wire = bytes.fromhex("681b 0703080161 690105 7203616263 6f0100 6a010a 6c0103 6d0207d0".replace(" ", ""))
    wire = tlv(0x68, wire[2:] + b"\xfc\x00")
    assert decode_parameters(wire) == ControlParameters(
        name=from_uri("/a"), face_id=5, origin=0, cost=10, flags=3, expiration_period_ms=2_000
    )
    for wrong in (
        "6800ff",
        "69 01 00",
        "68 03 690300",
        "68 05 0703080161 00",
        "68 04 6b020801",
        "6802fb00",
        "68 06 690101690101",
    ):
        with pytest.raises(MalformedError):
            decode_parameters(bytes.fromhex(wrong.replace(" ", "")))


def test_a_command_of_either_format_is_believed() -> None:
    for interest in (newer(DigestSha256Signer(for_interest=True), name=PREFIX, cost=5), older(name=PREFIX, cost=5)):
        command = decode_command(interest)
        assert (command.module, command.verb) == (b"rib", b"register")
        assert command.parameters == ControlParameters(name=from_uri(PREFIX), cost=5)
        assert command.time_ms is not None
        assert command.time_ms > 1_600_000_000_000
        assert len(command.signature) == 32


@pytest.mark.parametrize("signature_type", [SignatureType.HMAC_WITH_SHA256, SignatureType.ED25519])
def test_a_command_signed_with_a_key_is_believed(signature_type: int) -> None:
    signers = {
        SignatureType.HMAC_WITH_SHA256: lambda: HmacSha256Signer("/key", b"secret"),
        SignatureType.ED25519: lambda: Ed25519Signer("/key", ED25519_KEY),
    }
    signer = Dated(signers[signature_type]())
    assert decode_command(newer(signer, name=PREFIX)).parameters.name == from_uri(PREFIX)


#: PKCS #8 of an Ed25519 key (RFC 8410), as python-ndn wants it.
ED25519_KEY = bytes.fromhex("302e020100300506032b657004220420") + bytes(32)


class Dated:
    """A signer of python-ndn that says when, as commands have to."""

    def __init__(self, signer: Any) -> None:
        self._signer = signer

    def write_signature_info(self, info: Any) -> None:
        self._signer.write_signature_info(info)
        info.signature_time = 1_700_000_000_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signer, name)


def refusal(interest: Interest) -> str:
    with pytest.raises(CommandError) as refused:
        decode_command(interest)
    assert refused.value.code in (400, 401, 403)
    return refused.value.reason


def test_unsigned_commands_are_refused() -> None:
    name = make_command_v2("rib", "register", name=PREFIX)
    param = InterestParam(nonce=7, lifetime=1_000)
    assert refusal(peek_interest(bytes(make_interest(name, param)))) == "unsigned"
    assert refusal(peek_interest(bytes(make_interest(name, param, b"parameters")))) == "unsigned"
    assert refusal(newer(NullSigner(), name=PREFIX)) == "unsigned"
    assert refusal(newer(DigestSha256Signer(), name=PREFIX)) == "unsigned"  # it could be replayed
    assert refusal(newer(HmacSha256Signer("/key", b"secret"), name=PREFIX)) == "unsigned"


@pytest.mark.parametrize(
    ("info", "value"),
    [
        pytest.param(b"\x1b\x01\x01", b"v", id="no key locator"),
        pytest.param(b"\x1b\x01\x01\x1c\x00", b"v", id="empty key locator"),
        pytest.param(b"\x1b\x01\x01\x1c\x03\x07\x01\x08", b"", id="no value"),
        pytest.param(b"\x1b\x01\x02\x1c\x03\x07\x01\x08", b"v", id="unknown type"),
        pytest.param(b"\x1c\x03\x07\x01\x08", b"v", id="no type"),
    ],
)
def test_a_signature_that_is_not_whole_is_none(info: bytes, value: bytes) -> None:
    name = b"".join(map(bytes, make_command_v2("rib", "register", name=PREFIX)))
    tail = b"\x24\x00" + tlv(0x2C, info + b"\x28\x01\x07") + tlv(0x2E, value)
    name += tlv(2, hashlib.sha256(tail).digest())
    assert refusal(peek_interest(tlv(5, tlv(7, name) + b"\x0a\x04abcd" + tail))) == "unsigned"


def test_forged_commands_are_refused() -> None:
    command = newer(DigestSha256Signer(for_interest=True), name=PREFIX)
    good, info_at = command.wire, command.parameters_at + 2  # after the empty parameters
    assert good[info_at] == 0x2C
    for at in (good.index(b"demo"), len(good) - 1, info_at + 8):
        assert refusal(peek_interest(flipped(good, at))) == "forged"
    other = older(name=PREFIX).wire
    assert refusal(peek_interest(flipped(other, other.index(b"demo")))) == "forged"


def test_a_digest_that_fits_the_name_but_not_the_signature_is_refused() -> None:
    """Whoever changes a signed Interest can repair its parameters digest, but not the signature."""
    interest = newer(Dated(DigestSha256Signer()), name=PREFIX)
    wire = interest.wire.replace(b"files", b"filet")
    assert refusal(peek_interest(wire)) == "forged"
    name = interest.name.replace(b"files", b"filet")
    tail = interest.wire[interest.parameters_at :]
    assert name.endswith(hashlib.sha256(tail).digest())


def flipped(wire: bytes, at: int) -> bytes:
    return wire[:at] + bytes((wire[at] ^ 1,)) + wire[at + 1 :]


def test_a_response_is_what_python_ndn_reads() -> None:
    body = ControlParameters(name=from_uri("/a"), face_id=1_000, origin=0, cost=0, flags=1)
    read = parse_response(encode_response(200, "OK", body))
    assert (read["status_code"], read["status_text"], read["face_id"]) == (200, "OK", 1_000)
    assert Name.to_str(read["name"]) == "/a"
    assert parse_response(encode_response(403, "no", ControlParameters()))["status_code"] == 403
    assert encode_response(200, "OK", ControlParameters()).hex() == "6509" + "6601c8" + "67024f4b" + "6800"


COUNTED = ("in_interests", "in_data", "in_nacks", "out_interests", "out_data", "out_nacks", "in_bytes", "out_bytes")


def packet_counts(values: Sequence[int]) -> PacketCounts:
    counts = PacketCounts()
    for field, value in zip(COUNTED, values, strict=False):
        setattr(counts, field, value)
    return counts


@given(counts=st.builds(packet_counts, st.tuples(*[st.integers(0, 2**64 - 1)] * 8)), is_local=st.booleans())
def test_face_status_is_what_python_ndn_reads(counts: PacketCounts, *, is_local: bool) -> None:
    face = FaceStatus(260, "udp4://10.0.0.1:6363", "udp4://10.0.0.0:6363", is_local, is_local, counts)
    first, second = FaceStatusMsg.parse(encode_faces([face, face])).face_status
    assert first.asdict() == second.asdict()
    assert (first.face_id, first.uri, first.local_uri) == (260, face.remote_uri, face.local_uri)
    assert (first.face_scope.value, first.face_persistency.value, first.link_type.value) == (is_local, is_local, 0)
    for field in COUNTED:
        assert getattr(first, f"n_{field}") == getattr(counts, field)


def test_general_status_is_what_python_ndn_reads() -> None:
    counts = packet_counts((1, 2, 3, 4, 5, 6))
    ours = management.GeneralStatus("hconf", 1_000, 2_000, 7, 8, 9, counts, 10, 11)
    read = GeneralStatus.parse(encode_general(ours))
    assert (read.nfd_version, read.start_timestamp, read.current_timestamp) == ("hconf", 1_000, 2_000)
    assert (read.n_fib_entries, read.n_pit_entries, read.n_cs_entries) == (7, 8, 9)
    found = [
        read.n_in_interests,
        read.n_in_data,
        read.n_in_nacks,
        read.n_out_interests,
        read.n_out_data,
        read.n_out_nacks,
    ]
    assert found == [1, 2, 3, 4, 5, 6]
    assert (read.n_satisfied_interests, read.n_unsatisfied_interests) == (10, 11)


def test_the_older_format_by_hand() -> None:
    """Redmine wiki of NFD, "CommandInterest": <timestamp>/<random>/<SignatureInfo>/<SignatureValue>."""
    start = from_uri("/localhost/nfd/rib/unregister")
    start += tlv(8, encode_parameters(ControlParameters(name=from_uri("/a"))))
    start += tlv(8, (1_700_000_000_000).to_bytes(8, "big")) + tlv(8, bytes(8)) + tlv(8, bytes.fromhex("16031b0100"))
    name = start + tlv(8, tlv(0x17, hashlib.sha256(start).digest()))
    command = decode_command(peek_interest(tlv(5, tlv(7, name) + bytes.fromhex("0a0400000001"))))
    assert (command.verb, command.time_ms) == (b"unregister", 1_700_000_000_000)
    for at in (5, 6, 7, 8):  # each of its last four components must be what it is said to be
        parts = [tlv(kind, value) for kind, value in split(name)]
        parts[at] = tlv(8, b"\x16\x05ab")
        broken = peek_interest(tlv(5, tlv(7, b"".join(parts)) + bytes.fromhex("0a0400000001")))
        assert refusal(broken) in ("malformed", "forged")
