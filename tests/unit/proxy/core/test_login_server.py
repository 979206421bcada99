"""The login server: who gets a token, and every reason for not getting one."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.events import JoinRequested, PacketReceived, RevokeRequested
from proxy.core.signing import Verifier
from proxy.core.trust import Trust, place_of
from proxy.wire.message_names import ALL_PROXIES, JOIN, LOGIN, REVOKE
from proxy.wire.messages import LoginReply, LoginRequest, Revocation, Revocations, Sealed, Token
from proxy.wire.payload import decode
from tests.unit.proxy.core.parties import LOGIN as SERVER
from tests.unit.proxy.core.parties import NOW_S, STRANGER, UE1, UE2, login_party, login_request, of, to


def reply_to(request: LoginRequest) -> LoginReply:
    (sent,) = login_party().ask(to("login"), LOGIN, "ue1", seq=1, payload=request)
    return sent.read(LoginReply)


def test_registered_device_gets_a_token_and_its_proxies() -> None:
    reply = reply_to(login_request())
    assert (reply.granted, reply.reason, reply.proxies) == (True, "", ("csr1", "csr2"))
    assert reply.token is not None
    assert Verifier(SERVER.public_key).is_valid(reply.token.signature, reply.token.token)
    assert decode(reply.token.token, Token) == Token(
        "ue1", "main", "participant", UE1.public_key, NOW_S, NOW_S + 3_600.0
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "ue7"}, "device is not registered"),
        ({"public_key": UE2.public_key}, "key is not the registered one"),
        ({"public_key": STRANGER.public_key}, "key is not the registered one"),
        (
            {"signature": STRANGER.sign(b"hconf login\0ue1\0main\0participant\x001\x001")},
            "signature does not match the key",
        ),
        ({"signature": b""}, "signature does not match the key"),
        ({"conference": "other"}, "signature does not match the key"),  # what was signed is another login
        ({"role": "observer"}, "signature does not match the key"),
    ],
)
def test_refusals(change: dict[str, Any], reason: str) -> None:
    reply = reply_to(login_request(**change))
    assert (reply.granted, reply.reason, reply.token, reply.proxies) == (False, reason, None, ())


def test_device_that_no_proxy_serves() -> None:
    proof = UE2.sign(b"hconf login\0ue2\0main\0participant\x001\x001")
    reply = reply_to(login_request(device="ue2", public_key=UE2.public_key, signature=proof))
    assert reply.reason == "no proxy serves this device"


def test_login_of_another_time_is_refused() -> None:
    (sent,) = login_party().ask(to("login"), LOGIN, "ue1", seq=2, payload=login_request())
    assert sent.read(LoginReply).reason == "signature does not match the key"


def test_revoked_device_is_announced_until_its_last_token_has_expired_and_stays_out() -> None:
    party = login_party(token_lifetime_s=10.0)
    (first,) = of("revocation", party.handle(RevokeRequested("ue1")))
    assert first.name.startswith(ALL_PROXIES)
    sealed = first.read(Sealed)
    trust = Trust(login_public_key_hex=SERVER.public_key.hex(), proxy_keys_hex={})
    told = trust.open_from_login(sealed, Revocations, place_of(REVOKE, "login", boot=1, seq=0))
    assert told == Revocations((Revocation("ue1", NOW_S),))
    assert 49 <= len(of("revocation", party.live(10.0))) <= 51  # every 0.2 s
    assert of("revocation", party.live(10.0)) == []
    (sent,) = party.ask(to("login"), LOGIN, "ue1", seq=1, payload=login_request())
    assert sent.read(LoginReply).reason == "revoked"


def test_more_revocations_than_fit_into_a_packet_take_turns() -> None:
    party = login_party(revoked={f"ue{number}": NOW_S for number in range(150)})
    sent = of("revocation", party.live(1.0))
    told = [decode(each.read(Sealed).content, Revocations).revocations for each in sent]
    assert {revocation.device for each in told for revocation in each} == {f"ue{number}" for number in range(150)}


def test_what_is_no_login_is_counted() -> None:
    party = login_party()
    assert party.ask(to("login"), JOIN, "main", "ue1", seq=1, payload=b"") == []
    assert party.ask(to("login"), LOGIN, "ue1", seq=1, payload=b"\xc1") == []
    assert party.handle(PacketReceived(0, b"")) == []
    assert party.core.counters == {"malformed": 3}
    assert party.live(1_000.0) == []


def test_event_of_another_core_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="not for a login server"):
        login_party().handle(JoinRequested())
