"""The service proxy and whatever else comes."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.wire.message_names import CLOSE, HEARTBEAT, JOIN, NOTIFY, PRESENCE, PUSH, RECOVER, UPDATE
from proxy.wire.messages import EMPTY_DIGEST, ClientHeartbeat, CloseRequest, JoinRequest, RecoveryRequest, UpdateAck
from proxy.wire.payload import encode
from tests.unit.proxy.core.parties import (
    signed_update,
    token,
)
from tests.unit.proxy.core.proxy_bench import ME, joined


@pytest.mark.parametrize("payload", [b"", b"\xc1", encode(UpdateAck("accepted", "", "csr1", 1, 1))])
@pytest.mark.parametrize("kind", [UPDATE, JOIN, CLOSE, RECOVER, HEARTBEAT, PRESENCE, PUSH, NOTIFY])
def test_broken_payload_is_counted(kind: bytes, payload: bytes) -> None:
    party = joined()
    assert party.ask(ME, kind, "main", "ue1", seq=5, payload=payload) == []
    assert party.core.counters["malformed"] == 1


@pytest.mark.parametrize("parts", [(), ("main",), ("main", "ue1", "x")])
@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (UPDATE, signed_update(1)),
        (JOIN, JoinRequest(token(), 1, 0, None)),
        (RECOVER, RecoveryRequest(())),
        (CLOSE, CloseRequest(signed_update(1, "leave"))),
        (PRESENCE, ClientHeartbeat(EMPTY_DIGEST, ())),
    ],
)
def test_name_with_other_than_two_identifiers_is_malformed(kind: bytes, payload: Any, parts: tuple[str, ...]) -> None:
    party = joined()
    assert party.ask(ME, kind, *parts, seq=1, payload=payload) == []
    assert party.core.counters["malformed"] == 1
