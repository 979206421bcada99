"""The state vector as the specification of State Vector Sync, version 3, lays it out; signed Data as python-ndn reads it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndn.encoding import Name, parse_data

from proxy.core.signing import Signer, Verifier
from proxy.wire.name import from_uri, to_uri
from proxy.wire.signed_data import decode_signed_data, encode_signed_data
from proxy.wire.svs import SVS_VERSION, StateVector, decode_state_vector, encode_state_vector
from proxy.wire.tlv import MalformedError, non_negative_integer, tlv

ALICE, BOB = from_uri("/hconf/alice"), from_uri("/hconf/bob")


def entry(name: bytes, *numbers: tuple[int, int]) -> bytes:
    """Return one entry, written down from section 3 of the specification."""
    inside = b"".join(
        tlv(210, tlv(212, non_negative_integer(boot)) + tlv(214, non_negative_integer(seq))) for boot, seq in numbers
    )
    return tlv(202, tlv(7, name) + inside)


def test_layout() -> None:
    vector = {BOB: {7: 300}, ALICE: {1_736_266_473: 1, 1_636_266_330: 10}}
    expected = tlv(201, entry(BOB, (7, 300)) + entry(ALICE, (1_636_266_330, 10), (1_736_266_473, 1)))
    assert encode_state_vector(vector) == expected
    assert decode_state_vector(expected) == vector
    assert to_uri(SVS_VERSION) == "/v=3"


names = st.sampled_from(["/hconf/alice", "/hconf/bob", "/hconf/carol", "/a/b/c", "/x"]).map(from_uri)
numbers = st.dictionaries(st.integers(0, 2**63), st.integers(1, 2**63), max_size=3)


@given(vector=st.dictionaries(names, numbers))
def test_survives_the_wire(vector: StateVector) -> None:
    assert decode_state_vector(encode_state_vector(vector)) == vector


def test_names_are_in_canonical_order() -> None:
    vector = {from_uri(uri): {1: 1} for uri in ("/b", "/aa", "/a/a", "/a", "/32=a")}
    order = list(decode_state_vector(encode_state_vector(vector)))
    assert [to_uri(name) for name in order] == ["/a", "/a/a", "/b", "/aa", "/32=a"]


def test_an_element_that_may_be_unknown_is_skipped() -> None:
    extended = tlv(
        201, tlv(240, b"?") + tlv(202, tlv(7, ALICE) + tlv(240, b"?") + tlv(210, b"\xd4\x01\x05\xd6\x01\x09"))
    )
    assert decode_state_vector(extended) == {ALICE: {5: 9}}


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (tlv(202, b""), "no state vector"),
        (tlv(201, b"")[:-1] + b"\x09", "ends behind"),
        (tlv(201, tlv(241, b"")), "critical element"),
        (tlv(201, tlv(202, b"")), "ends inside a number"),
        (tlv(201, tlv(202, tlv(7, b""))), "without a name"),
        (tlv(201, tlv(202, tlv(7, b"\x08\x09a"))), "behind the name"),
        (tlv(201, entry(ALICE, (1, 1)) + entry(ALICE, (2, 1))), "node is in a state vector twice"),
        (tlv(201, entry(ALICE, (1, 1), (1, 2))), "bootstrap time is in a state vector entry twice"),
        (tlv(201, entry(ALICE, (1, 0))), "missing, or 0"),
        (tlv(201, tlv(202, tlv(7, ALICE) + tlv(210, tlv(212, b"\x01")))), "missing, or 0"),
        (tlv(201, tlv(202, tlv(7, ALICE) + tlv(210, tlv(214, b"\x01") + tlv(212, b"\x01")))), "out of place"),
        (tlv(201, tlv(202, tlv(7, ALICE) + tlv(210, tlv(212, b"\x01\x02\x03") + tlv(214, b"\x01")))), "3 octets"),
    ],
)
def test_malformed(wire: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        decode_state_vector(wire)


def test_python_ndn_reads_signed_data() -> None:
    signer = Signer(bytes(32))
    name, key_name = from_uri("/hconf/32=group/32=svs/main/v=3"), from_uri("/hconf/alice/32=certificate/main")
    wire = encode_signed_data(name, b"vector", key_name=key_name, sign=signer.sign)
    theirs, _, content, signature = parse_data(wire)
    assert (Name.to_bytes(theirs), bytes(content)) == (tlv(7, name), b"vector")
    assert signature.signature_info.signature_type == 5
    assert Name.to_bytes(signature.signature_info.key_locator.name) == tlv(7, key_name)
    covered = b"".join(bytes(part) for part in signature.signature_covered_part)
    assert Verifier(signer.public_key).is_valid(bytes(signature.signature_value_buf), covered)
    ours = decode_signed_data(wire)
    assert (ours.name, ours.content, ours.key_name, ours.statement) == (name, b"vector", key_name, covered)
    assert Verifier(signer.public_key).is_valid(ours.signature, ours.statement)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda wire: wire[:-1], "ends behind|not one Data"),
        (lambda wire: b"\x05" + wire[1:], "not one Data"),
        (lambda wire: wire.replace(b"\x1b\x01\x05", b"\x1b\x01\x00"), "not Ed25519"),
        (lambda wire: wire.replace(b"\x1c", b"\x1e", 1), "not Ed25519"),
    ],
)
def test_data_that_is_not_signed_with_a_key(change: Callable[[bytes], bytes], problem: str) -> None:
    wire = encode_signed_data(ALICE, b"", key_name=BOB, sign=lambda _: bytes(64))
    with pytest.raises(MalformedError, match=problem):
        decode_signed_data(change(wire))
