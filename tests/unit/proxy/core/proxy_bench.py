"""A service proxy on the bench: clients that join and publish, other proxies that are heard, what it sends."""

from __future__ import annotations

from typing import Any

from proxy.core.conference import Conference
from proxy.core.service_proxy import ServiceProxy
from proxy.core.trust import place_of, seal
from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, JOIN, PRESENCE, PUSH, UPDATE
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    ConferenceState,
    JoinReply,
    Position,
    ProxyHeartbeat,
    SignedUpdate,
    StreamEntry,
    SyncUpdate,
    UpdateAck,
)
from proxy.wire.payload import decode
from tests.unit.proxy.core.parties import (
    PROXIES,
    UE1,
    UE2,
    Party,
    Sent,
    join_request,
    of,
    proxy_party,
    signed_entry,
    signed_update,
    to,
    token,
)

KEYS = {"ue2": UE2}
ME = to("csr1")


def core(party: Party) -> ServiceProxy:
    assert isinstance(party.core, ServiceProxy)
    return party.core


def conference(party: Party) -> Conference:
    return core(party).conferences["main"]


def join(
    party: Party, device: str = "ue1", *, known: tuple[Position, ...] | None = None, seq: int = 1, **of_token: Any
) -> JoinReply:
    signer = {"signer": UE2} if device == "ue2" else {}
    signed = token(device, **signer, **of_token)
    request = join_request(signed, signer.get("signer", UE1), device=device, seq=seq, known=known)
    (reply,) = of("join-reply", party.ask(ME, JOIN, "main", device, seq=seq, payload=request))
    return reply.read(JoinReply)


def publish(party: Party, seq: int, device: str = "ue1", *, update: SignedUpdate | None = None) -> list[Sent]:
    signer = {"signer": UE2} if device == "ue2" else {}
    update = update or signed_update(seq, device=device, **signer)  # type: ignore[arg-type]
    return party.ask(ME, UPDATE, "main", device, seq=seq, payload=update)


def acks(sent: list[Sent]) -> list[tuple[int, str, int]]:
    """Return (seq of the update, level or reason, place in the stream)."""
    read = [(each.parsed.seq, each.read(UpdateAck)) for each in of("update-ack", sent)]
    return [(seq, ack.reason or ack.level, ack.stream_seq) for seq, ack in read]


def joined(*devices: str, **settings: Any) -> Party:
    party = proxy_party(**settings)
    for device in devices or ("ue1",):
        assert join(party, device).granted
    return party


def hear(
    party: Party,
    sender: str = "csr2",
    *positions: Position,
    boot: int = 1,
    lossy_path: bool = False,
    is_armed: bool = True,
) -> list[Sent]:
    """Let the heartbeat of another proxy arrive, perhaps over a lossy link; *is_armed*: its stream is to be asked for."""
    beat = ProxyHeartbeat((ConferenceState("main", EMPTY_DIGEST, positions, is_armed=is_armed),))
    number = next(party.numbers)
    sealed = seal(PROXIES[sender], beat, place_of(HEARTBEAT, sender, boot=boot, seq=number))
    return party.ask(ALL_PROXIES, HEARTBEAT, sender, seq=number, payload=sealed, boot=boot, lossy_path=lossy_path)


def keep_heard(party: Party, duration_s: float, *clients: str, proxies: tuple[str, ...] = ()) -> list[Sent]:
    """Let time pass while these are heard."""
    sent = []
    for _ in range(round(duration_s / 0.1)):
        for device in clients:
            sent += party.ask(
                ME, PRESENCE, "main", device, seq=int(party.now_s * 1e6), payload=ClientHeartbeat(EMPTY_DIGEST, ())
            )
        for proxy in proxies:
            sent += hear(party, proxy)
        sent += party.live(0.1)
    return sent


def stream_of(proxy: str, *updates: SignedUpdate) -> list[StreamEntry]:
    """Return the entries of another proxy's stream, one update in each."""
    entries, digest = [], EMPTY_DIGEST
    for seq, update in enumerate(updates, start=1):
        entries.append(signed_entry(proxy, seq, update, after=digest))
        digest = decode(entries[-1].content, SyncUpdate).chain_digest
    return entries


REMOTE = stream_of(
    "csr2",
    *[signed_update(seq, "message" if seq > 1 else "join", device="ue2", signer=UE2) for seq in range(1, 31)],
)


def push(party: Party, entry: StreamEntry, *, more: bool = False) -> list[Sent]:
    return party.ask(ALL_PROXIES, PUSH, "main", entry.proxy, seq=entry.seq, payload=entry, more=more)


def asked_for(sent: list[Sent]) -> list[int]:
    """Return the sequence numbers of sync interests."""
    return [each.parsed.seq for each in of("sync-interest", sent)]
