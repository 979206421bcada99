"""A service client on the bench: on its way into the conference, joined, settled; what its proxy says."""

from __future__ import annotations

from typing import Any

from proxy.core.events import JoinRequested
from proxy.core.service_client import ServiceClient
from proxy.core.trust import place_of, seal
from proxy.records import SessionChanged
from proxy.wire.message_names import HEARTBEAT, NOTIFY
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    JoinReply,
    LoginReply,
    Notification,
    Position,
    SignedUpdate,
    Snapshot,
    StreamEntry,
    UpdateAck,
)
from tests.unit.proxy.core.parties import PROXIES as PROXY_KEYS
from tests.unit.proxy.core.parties import (
    UE2,
    Party,
    Sent,
    client_party,
    of,
    signed_entry,
    signed_update,
    to,
    token,
)

PROXIES = ("csr1", "csr2", "csr3")


def core(party: Party) -> ServiceClient:
    assert isinstance(party.core, ServiceClient)
    return party.core


def states(party: Party) -> list[tuple[str, str]]:
    return [(record.state, record.reason) for record in party.records if isinstance(record, SessionChanged)]


def logged(party: Party, kind: type[Any]) -> list[Any]:
    return [record for record in party.records if isinstance(record, kind)]


def joining(**settings: Any) -> tuple[Party, Sent]:
    """Return a client that has logged in, and its question to join."""
    party = client_party(**settings)
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), PROXIES))
    return party, join


def welcome(**properties: Any) -> JoinReply:
    plain: dict[str, Any] = {"granted": True, "reason": "", "current": (), "snapshot": Snapshot((), ()), "entries": ()}
    return JoinReply(**(plain | properties))


def joined(**settings: Any) -> tuple[Party, Sent]:
    """Return a client that has joined at csr1, and its update that says so."""
    party, join = joining(**settings)
    (update,) = of("update", party.answer(join, welcome()))
    return party, update


def settled() -> Party:
    """Return a client whose join is acked."""
    party, update = joined()
    party.answer(update, ack(1))
    return party


def ack(stream_seq: int, proxy: str = "csr1") -> UpdateAck:
    return UpdateAck("accepted", "", proxy, 1, stream_seq)


def entry(seq: int, *updates: SignedUpdate, proxy: str = "csr1") -> StreamEntry:
    return signed_entry(proxy, seq, *updates)


def theirs(seq: int, event: str = "") -> SignedUpdate:
    """Return an update of another participant; its first says that it joins."""
    return signed_update(seq, event or ("join" if seq == 1 else "message"), device="ue2", signer=UE2)


def notify(
    party: Party, number: int, *entries: StreamEntry, current: tuple[Position, ...] = (), proxy: str = "csr1"
) -> list[Sent]:
    payload = Notification((), current, entries)
    return party.ask(to("ue1"), NOTIFY, "main", proxy, seq=number, payload=payload)


def beat(party: Party, *current: Position, proxy: str = "csr1", ended: str = "") -> list[Sent]:
    number = next(party.numbers)
    place = place_of(HEARTBEAT, "main", proxy, ended and "ue1", boot=1, seq=number)
    payload = seal(PROXY_KEYS[proxy], ClientHeartbeat(EMPTY_DIGEST, current, ended), place)
    return party.ask(to("ue1"), HEARTBEAT, "main", proxy, seq=number, payload=payload)
