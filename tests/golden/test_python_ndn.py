"""An independent implementation as the judge: python-ndn's packets decode here, ours decode there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndn.encoding import (
    InterestParam,
    MetaInfo,
    Name,
    make_data,
    make_interest,
    make_network_nack,
    parse_data,
    parse_interest,
    parse_lp_packet_v2,
)
from ndn.security import DigestSha256Signer

from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.name import from_uri, split
from proxy.wire.packet import decode_data, decode_interest, encode_data, encode_interest
from proxy.wire.tlv import tlv

components = st.builds(tlv, st.sampled_from([8, 32, 54, 58, 50, 56]), st.binary(max_size=300))
names = st.lists(components, min_size=1, max_size=8)
lifetimes_ms = st.one_of(st.integers(0, 70_000), st.integers(0, 2**64 - 1))
nonces = st.integers(0, 2**32 - 1)


@given(
    name=names,
    can_be_prefix=st.booleans(),
    must_be_fresh=st.booleans(),
    nonce=nonces,
    lifetime_ms=lifetimes_ms,
    hop_limit=st.none() | st.integers(0, 255),
    parameters=st.none() | st.binary(max_size=400),
    hint=st.lists(st.just("/isp/region"), max_size=2),
)
def test_their_interest_decodes_here(
    name: list[bytes],
    can_be_prefix: bool,  # noqa: FBT001
    must_be_fresh: bool,  # noqa: FBT001
    nonce: int,
    lifetime_ms: int,
    hop_limit: int | None,
    parameters: bytes | None,
    hint: list[str],
) -> None:
    param = InterestParam()
    param.can_be_prefix, param.must_be_fresh = can_be_prefix, must_be_fresh
    param.nonce, param.lifetime, param.hop_limit, param.forwarding_hint = nonce, lifetime_ms, hop_limit, hint
    wire, final_name = make_interest(name, param, parameters, need_final_name=True)
    interest = decode_interest(bytes(wire))
    assert interest.name == b"".join(map(bytes, final_name))
    assert (interest.can_be_prefix, interest.must_be_fresh) == (can_be_prefix, must_be_fresh)
    assert (interest.nonce, interest.lifetime_ms) == (nonce, lifetime_ms)
    assert (interest.wire[interest.hop_limit_at] if interest.hop_limit_at else None) == hop_limit
    assert interest.parameters == parameters


@given(name=names, content=st.binary(max_size=400), freshness_ms=st.integers(1, 2**32))
def test_their_data_decodes_here(name: list[bytes], content: bytes, freshness_ms: int) -> None:
    wire = make_data(
        name, MetaInfo(freshness_period=freshness_ms, final_block_id=name[-1]), content, DigestSha256Signer()
    )
    data = decode_data(bytes(wire))
    assert (data.name, data.freshness_ms, data.content) == (b"".join(name), freshness_ms, content)


@given(name=names, nonce=nonces, lifetime_ms=lifetimes_ms, parameters=st.none() | st.binary(max_size=400))
def test_our_interest_decodes_there(name: list[bytes], nonce: int, lifetime_ms: int, parameters: bytes | None) -> None:
    our_name, wire = encode_interest(b"".join(name), nonce=nonce, lifetime_ms=lifetime_ms, parameters=parameters)
    their_name, param, their_parameters, pointers = parse_interest(wire)
    assert b"".join(map(bytes, their_name)) == our_name
    assert (param.nonce, param.lifetime) == (nonce, lifetime_ms)
    assert (param.can_be_prefix, param.must_be_fresh, param.hop_limit) == (False, False, None)
    assert (None if their_parameters is None else bytes(their_parameters)) == parameters
    if parameters is not None:
        assert bytes(pointers.digest_value_buf) == our_name[-32:]


@given(name=names, content=st.binary(max_size=400), freshness_ms=st.integers(0, 2**32))
def test_our_data_decodes_there(name: list[bytes], content: bytes, freshness_ms: int) -> None:
    their_name, meta, their_content, pointers = parse_data(
        encode_data(b"".join(name), content, freshness_ms=freshness_ms)
    )
    assert b"".join(map(bytes, their_name)) == b"".join(name)
    assert (meta.freshness_period or 0) == freshness_ms
    assert bytes(their_content or b"") == content
    assert their_signature_is_valid(pointers)


def their_signature_is_valid(pointers: Any) -> bool:
    signer = DigestSha256Signer()
    value = bytearray(32)
    signer.write_signature_value(value, pointers.signature_covered_part)
    return bytes(pointers.signature_value_buf) == bytes(value)


@given(name=names)
def test_names_split_alike(name: list[bytes]) -> None:
    joined = b"".join(name)
    assert [tlv(kind, value) for kind, value in split(joined)] == [bytes(part) for part in Name.normalize(name)]


@pytest.mark.parametrize("reason", NackReason)
def test_nacks_go_both_ways(reason: NackReason) -> None:
    _, interest = encode_interest(from_uri("/a/b"), nonce=5)
    theirs = decode_link_packet(bytes(make_network_nack(interest, int(reason))))
    assert (theirs.fragment, theirs.nack_reason) == (interest, reason)
    parsed = parse_lp_packet_v2(encode_nack(interest, reason))
    assert (bytes(parsed.fragment), parsed.nack.nack_reason) == (interest, reason)


def test_they_ignore_our_own_header_fields() -> None:
    _, interest = encode_interest(from_uri("/a/b"), nonce=5)
    ours = LinkPacket(interest, session_state=3, is_detour=True, gaps_seen=7, sent_count=2**40, is_poll=True)
    assert bytes(parse_lp_packet_v2(encode_link_packet(ours)).fragment) == interest
    assert parse_lp_packet_v2(encode_link_packet(LinkPacket(b"", session_state=1, is_poll=True))).fragment is None


def test_link_reliability_fields_do_not_hide_the_fragment() -> None:
    _, interest = encode_interest(from_uri("/a/b"), nonce=5)
    packet = LinkPacket(interest, sequence=258, tx_sequence=2**63, acks=(1, 2))
    assert bytes(parse_lp_packet_v2(encode_link_packet(packet)).fragment) == interest
