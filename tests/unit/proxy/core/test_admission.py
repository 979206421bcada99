"""Admission: every check of a token and of an update on its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.admission import Admission, Refusal
from proxy.core.client_session import ClientSession
from proxy.core.trust import Trust
from proxy.wire.message_names import JOIN, MessageName
from proxy.wire.message_names import UPDATE as KIND
from proxy.wire.messages import FpUpdate, JoinRequest, Revocation, SignedToken, SignedUpdate
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.parties import LOGIN, NOW_S, STRANGER, UE1, UE2, join_request, signed_update, token

TRUST = Trust(login_public_key_hex=LOGIN.public_key.hex(), proxy_keys_hex={})


def admission(trust: Trust = TRUST) -> Admission:
    return Admission(trust, proxy="csr1", joins_per_s=4.0, joins_burst=8)


def session(**properties: Any) -> ClientSession:
    grant = TRUST.grant(token(**properties), device="ue1", conference="main")
    return ClientSession(grant, 1, 1, heard_s=NOW_S, sent_s=NOW_S)


def check(signed: SignedUpdate, *, now_s: float = NOW_S, name: MessageName | None = None, **of_token: Any) -> None:
    update = decode(signed.update, FpUpdate)
    name = name or MessageName(KIND, (update.conference, update.device), update.boot, update.seq)
    admission().check_update(signed, update, session(**of_token), name, now_s=now_s)


def test_token_as_granted() -> None:
    assert admission().check_token(token(), "ue1", "main", now_s=NOW_S).token.device == "ue1"


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (token(device="ue2"), "token_of_other_device"),
        (token(conference="other"), "token_of_other_conference"),
        (token(expires_s=NOW_S), "token_expired"),
        (token(expires_s=NOW_S - 1.0), "token_expired"),
        (SignedToken(token().token, token(device="ue2").signature), "token_forged"),
        (SignedToken(token().token, STRANGER.sign(token().token)), "token_forged"),
        (SignedToken(token().token, b""), "token_forged"),
        (SignedToken(b"\xc1", b""), "token_forged"),
    ],
)
def test_refused_tokens(signed: SignedToken, reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        admission().check_token(signed, "ue1", "main", now_s=NOW_S)
    assert refusal.value.reason == reason


def test_without_a_login_server_nobody_is_admitted() -> None:
    with pytest.raises(Refusal, match="token_forged"):
        admission(Trust(login_public_key_hex="", proxy_keys_hex={})).check_token(token(), "ue1", "main", now_s=NOW_S)


def test_update_of_its_publisher() -> None:
    check(signed_update(1))


@pytest.mark.parametrize("event", ["leave"])
def test_observers_may_come_and_go(event: str) -> None:
    check(signed_update(1, event), role="observer")


NAME = MessageName(KIND, ("main", "ue1"), 1, 1)


@pytest.mark.parametrize(
    ("signed", "circumstances", "reason"),
    [
        (signed_update(2), {"name": NAME}, "update_under_other_name"),
        (signed_update(1, boot=2), {"name": NAME}, "update_under_other_name"),
        (signed_update(1, device="ue2", signer=UE2), {"name": NAME}, "update_under_other_name"),
        (signed_update(1, conference="other"), {"name": NAME}, "update_under_other_name"),
        (signed_update(20_000), {}, "sequence_jump"),
        (signed_update(1, published_s=float("nan")), {}, "token_expired"),
        (signed_update(1, published_s=NOW_S + 4_000.0), {}, "token_expired"),
        (signed_update(1, "join", body=encode(token(device="ue2"))), {}, "token_of_other_device"),
        (signed_update(1, "renew", body=encode(token(expires_s=NOW_S - 1.0))), {}, "token_expired"),
        (signed_update(1), {"role": "observer"}, "observer_publishes"),
        (signed_update(1), {"expires_s": NOW_S - 1.0}, "token_expired"),
        (signed_update(1, fingerprint=b"x" * 16), {}, "fingerprint_of_other_key"),
        (signed_update(1, signer=STRANGER), {}, "fingerprint_of_other_key"),
        (msgspec.structs.replace(signed_update(1), signature=UE1.sign(b"something else")), {}, "update_forged"),
        (msgspec.structs.replace(signed_update(1), signature=b""), {}, "update_forged"),
    ],
)
def test_refused_updates(signed: SignedUpdate, circumstances: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check(signed, **circumstances)
    assert refusal.value.reason == reason


JOIN_NAME = MessageName(JOIN, ("main", "ue1"), 1, 5)


def refused_join(gate: Admission, request: JoinRequest, name: MessageName = JOIN_NAME, now_s: float = NOW_S) -> str:
    try:
        gate.check_join(request, name, now_s=now_s)
    except Refusal as refusal:
        return refusal.reason
    return ""


def test_join_proves_possession_for_this_very_join() -> None:
    good = join_request(token(), seq=5)
    assert refused_join(admission(), good) == ""
    assert refused_join(admission(), join_request(token(), STRANGER, seq=5)) == "join_without_key"
    assert refused_join(admission(), join_request(token(), seq=6)) == "join_without_key"
    assert refused_join(admission(), msgspec.structs.replace(good, acked_seq=9)) == "join_without_key"
    assert refused_join(admission(), msgspec.structs.replace(good, is_partial=True)) == "join_without_key"
    assert refused_join(admission(), msgspec.structs.replace(good, exchange_key=bytes(32))) == "join_without_key"
    assert refused_join(admission(), msgspec.structs.replace(good, boot=2)) == "join_without_key"
    elsewhere = Admission(TRUST, proxy="csr2", joins_per_s=4.0, joins_burst=8)
    assert refused_join(elsewhere, good) == "join_without_key"


def test_join_may_be_repeated_for_a_while_and_only_the_last_one() -> None:
    gate = admission()
    good = join_request(token(), seq=5)
    assert [refused_join(gate, good, now_s=NOW_S + after_s) for after_s in (0.0, 9.0, 11.0)] == [
        "",
        "",
        "join_replayed",
    ]
    earlier = MessageName(JOIN, ("main", "ue1"), 1, 4)
    assert refused_join(gate, join_request(token(), seq=4), earlier) == "join_replayed"
    gate = admission()
    assert refused_join(gate, good) == ""
    gate.end_join("main", "ue1")
    assert refused_join(gate, good) == "join_replayed"


def test_revocation_voids_what_was_issued_before() -> None:
    gate = admission()
    assert gate.revoke([Revocation("ue1", NOW_S + 1.0)]) == ["ue1"]
    assert gate.revoke([Revocation("ue1", NOW_S + 1.0)]) == []
    assert refused_join(gate, join_request(token(), seq=5)) == "revoked"
    assert refused_join(gate, join_request(token(issued_s=NOW_S + 2.0), seq=5)) == ""


def test_joins_under_one_name_are_bounded_and_so_are_those_that_come_to_nothing() -> None:
    gate = admission()
    for _ in range(8):
        gate.check_rate("ue1", now_s=NOW_S)
    with pytest.raises(Refusal, match="join_flood"):
        gate.check_rate("ue1", now_s=NOW_S)
    gate.check_rate("ue2", now_s=NOW_S)
    for _ in range(100):
        gate.note_failure(now_s=NOW_S)
    with pytest.raises(Refusal, match="join_flood"):
        gate.check_rate("ue2", now_s=NOW_S)
    gate.check_rate("ue2", now_s=NOW_S + 1.0)
