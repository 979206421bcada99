"""Proofs of acks and client heartbeats: who can make them, and what nobody else can."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from proxy.core.session_key import (
    CODE_BYTES,
    KeyExchange,
    SessionKey,
    check_ack,
    check_heartbeat,
    proven_ack,
    proven_heartbeat,
)
from proxy.core.trust import Refusal
from proxy.wire.messages import EMPTY_DIGEST, ClientHeartbeat, UpdateAck
from tests.unit.proxy.core.parties import PROXIES, PROXY_TRUST, STRANGER

DEVICE, PROXY, OTHER = (KeyExchange(bytes([number]) * 32, boot=1) for number in (1, 2, 3))
PLACE = {"conference": "main", "device": "ue1", "proxy": "csr1"}
ACK = UpdateAck("durable", "", "csr1", 1, 7)
NAME = b"name of an update"
BEAT = ClientHeartbeat(EMPTY_DIGEST, (("csr1", 1, 7),))


def key_between(one: KeyExchange, other: KeyExchange, **place: str) -> SessionKey:
    key = one.session_key(other.public_key, **(PLACE | place))
    assert key is not None
    return key


KEY = key_between(DEVICE, PROXY)


def refused(ack: UpdateAck, name: bytes = NAME, key: SessionKey | None = KEY, proxy: str = "csr1") -> str:
    try:
        check_ack(ack, name, key, PROXY_TRUST, proxy)
    except Refusal as refusal:
        return refusal.reason
    return ""


def test_both_sides_have_the_same_key_and_nobody_else_has() -> None:
    code = KEY.code(NAME, b"content")
    assert len(code) == CODE_BYTES
    assert key_between(PROXY, DEVICE).code(NAME, b"content") == code
    others = [
        key_between(DEVICE, OTHER),
        key_between(OTHER, PROXY),
        key_between(KeyExchange(bytes([1]) * 32, boot=2), PROXY),
        key_between(DEVICE, PROXY, device="ue2"),
        key_between(DEVICE, PROXY, conference="other"),
        key_between(DEVICE, PROXY, proxy="csr2"),
    ]
    assert code not in [key.code(NAME, b"content") for key in others]


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(32)])
def test_what_is_no_public_key_makes_no_session_key(public_key: bytes) -> None:
    assert DEVICE.session_key(public_key, **PLACE) is None


def test_ack_with_a_code() -> None:
    proven = proven_ack(ACK, NAME, KEY, STRANGER)
    assert len(proven.proof) == CODE_BYTES
    assert refused(proven) == ""
    assert refused(proven, b"name of another") == "ack_forged"
    assert refused(proven, key=key_between(DEVICE, OTHER)) == "ack_forged"
    assert refused(proven, key=None) == "ack_forged"
    assert refused(replace(proven, stream_seq=8)) == "ack_forged"
    assert refused(replace(proven, level="replicated")) == "ack_forged"


@pytest.mark.parametrize("proof", [b"", bytes(CODE_BYTES), bytes(64), b"x"])
def test_ack_without_proof(proof: bytes) -> None:
    assert refused(replace(ACK, proof=proof)) == "ack_forged"
    assert refused(replace(ACK, proof=proof), key=None) == "ack_forged"
    assert refused(UpdateAck("refused", "revoked", "csr1", 1, 0, proof)) == "ack_forged"


def test_ack_of_a_proxy_that_has_no_session_is_signed() -> None:
    signed = proven_ack(ACK, NAME, None, PROXIES["csr1"])
    assert refused(signed) == refused(signed, key=None) == ""
    assert refused(signed, proxy="csr2") == "ack_forged"
    assert refused(signed, proxy="unknown") == "ack_forged"
    assert refused(proven_ack(ACK, NAME, None, STRANGER)) == "ack_forged"


def test_anybody_may_say_that_we_are_not_joined() -> None:
    assert refused(UpdateAck("refused", "not_joined", "csr1", 1, 0)) == ""
    assert refused(UpdateAck("durable", "not_joined", "csr1", 1, 0)) == "ack_forged"


def test_heartbeat() -> None:
    proven = proven_heartbeat(BEAT, NAME, KEY)
    check_heartbeat(proven, NAME, KEY)
    check_heartbeat(BEAT, NAME, None)  # of a device that has offered no key
    for beat, name in ((BEAT, NAME), (proven, b"other"), (replace(proven, current=()), NAME)):
        with pytest.raises(Refusal, match="heartbeat_forged"):
            check_heartbeat(beat, name, KEY)


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little")])
def test_what_is_no_key_or_one_that_shares_nothing_secret_is_refused(public_key: bytes) -> None:
    exchange = KeyExchange(bytes(32), boot=1)
    assert exchange.session_key(public_key, conference="main", device="ue1", proxy="csr1") is None


def test_the_shared_secret_is_that_of_rfc_7748() -> None:
    """Section 6.1, what Bob computes."""
    private = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    theirs = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert crypto_scalarmult_base(private).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert crypto_scalarmult(private, theirs).hex() == (
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )
