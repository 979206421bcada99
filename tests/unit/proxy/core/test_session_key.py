"""Proofs of acks and client heartbeats: who can make them, and what nobody else can."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

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
