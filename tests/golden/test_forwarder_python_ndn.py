"""Packets made by python-ndn's encoder through our forwarder, and what it hands on read by python-ndn's decoder."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from ndn.encoding import (
    InterestParam,
    MetaInfo,
    Name,
    make_data,
    make_interest,
    parse_data,
    parse_interest,
    parse_lp_packet_v2,
)
from ndn.security import DigestSha256Signer

from proxy.wire.lp import NackReason
from tests.unit.proxy.core.bench import Bench

ROUTES = {"/p": [(1, 10.0)]}


def their_interest(uri: str, *, nonce: int = 1, parameters: bytes | None = None, **properties: Any) -> bytes:
    param = InterestParam()
    param.nonce = nonce
    for name, value in properties.items():
        setattr(param, name, value)
    signer = None if parameters is None else DigestSha256Signer(for_interest=True)
    return bytes(make_interest(Name.from_str(uri), param, parameters, signer))


def their_data(uri: str, content: bytes = b"", *, freshness_ms: int | None = None) -> bytes:
    name = Name.from_str(uri)
    meta = MetaInfo(freshness_period=freshness_ms, final_block_id=name[-1])
    return bytes(make_data(name, meta, content, DigestSha256Signer()))


def full_uri(data: bytes) -> str:
    return f"{Name.to_str(parse_data(data)[0])}/sha256digest={sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("properties", "answered"),
    [
        ({}, False),
        ({"can_be_prefix": True}, True),
        ({"can_be_prefix": True, "must_be_fresh": True}, True),
        ({"can_be_prefix": True, "forwarding_hint": ["/isp/a", "/isp/b"]}, True),
        ({"can_be_prefix": True, "hop_limit": 9, "lifetime": 2_000}, True),
    ],
)
def test_prefix_interest_and_longer_data(properties: dict[str, Any], answered: bool) -> None:  # noqa: FBT001
    bench = Bench(ROUTES)
    asked = their_interest("/p/1", **properties)
    assert bench.packet(4, asked) == [(1, "interest", "/p/1")]
    name, param, _, _ = parse_interest(bench.last_interest(1))
    assert Name.to_str(name) == "/p/1"
    assert param.hop_limit == (properties["hop_limit"] - 1 if "hop_limit" in properties else None)
    assert [Name.to_str(hint) for hint in param.forwarding_hint] == properties.get("forwarding_hint", [])
    answer = their_data("/p/1/v=7/seg=0", b"content", freshness_ms=1_000)
    assert bench.packet(1, answer) == ([(4, "data", "/p/1/v=7/seg=0")] if answered else [])
    if answered:
        assert bench.sent_fragments()[-1] == (4, answer)
        assert bench.packet(3, their_interest("/p", nonce=2, can_be_prefix=True)) == [(3, "data", "/p/1/v=7/seg=0")]


def test_their_full_name_is_our_full_name() -> None:
    bench = Bench(ROUTES)
    answer, other = their_data("/p/1", b"one", freshness_ms=1_000), their_data("/p/1", b"two", freshness_ms=1_000)
    bench.packet(4, their_interest(full_uri(answer)))
    assert bench.packet(1, other) == []
    assert bench.packet(1, answer) == [(4, "data", "/p/1")]
    assert bench.packet(3, their_interest(full_uri(answer), nonce=2)) == [(3, "data", "/p/1")]


def test_their_signed_interest_is_handed_on_octet_by_octet() -> None:
    bench = Bench(ROUTES)
    asked = their_interest("/p/1", parameters=b"parameters")
    bench.packet(4, asked)
    assert bench.last_interest(1) == asked


def test_they_read_our_nack() -> None:
    bench = Bench(ROUTES)
    asked = their_interest("/elsewhere")
    bench.packet(0, asked)
    packet = parse_lp_packet_v2(bench.sent_packets[-1][1])
    assert packet.nack.nack_reason == NackReason.NO_ROUTE
    assert bytes(packet.fragment) == asked
