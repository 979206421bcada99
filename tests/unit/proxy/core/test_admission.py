"""Admission: every check of a token and of an update on its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.core.admission import Admission, Refusal
from proxy.core.client_session import ClientSession
from proxy.wire.messages import UPDATE as KIND
from proxy.wire.messages import FpUpdate, MessageName, SignedToken, SignedUpdate, Token, decode
from tests.unit.proxy.core.parties import LOGIN, NOW_S, STRANGER, UE1, UE2, signed_update, token


def admission() -> Admission:
    return Admission(LOGIN.public_key.hex())


def session(**properties: Any) -> ClientSession:
    plain = decode(token(**properties).token, Token)
    return ClientSession(plain, 1, admission().verifier(plain), heard_s=NOW_S, sent_s=NOW_S)


def check(signed: SignedUpdate, *, now_s: float = NOW_S, name: MessageName | None = None, **of_token: Any) -> None:
    update = decode(signed.update, FpUpdate)
    name = name or MessageName(KIND, (update.conference, update.device), update.boot, update.seq)
    admission().check_update(signed, update, session(**of_token), name, now_s=now_s)


def test_token_as_granted() -> None:
    assert admission().check_token(token(), "ue1", "main", now_s=NOW_S).device == "ue1"


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
        Admission("").check_token(token(), "ue1", "main", now_s=NOW_S)


def test_update_of_its_publisher() -> None:
    check(signed_update(1))


@pytest.mark.parametrize("event", ["join", "leave"])
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
