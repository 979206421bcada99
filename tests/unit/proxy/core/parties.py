"""A device, a login server and a service proxy on the bench, with keys; packets to and from one core at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from proxy.config import ClientConfig, LoginConfig, ProxyConfig
from proxy.core.digest_log import chain_of
from proxy.core.events import LOCAL_FACE, Core, Effect, Event, Log, PacketReceived, Send, TimerExpired
from proxy.core.login_server import LoginServer, login_proof
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy
from proxy.core.session_key import KeyExchange, proven_ack
from proxy.core.signing import Signer, fingerprint
from proxy.core.trust import KEY_EVENTS, Trust, entry_statement, join_statement, place_of_message, seal
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.message_names import (
    JOIN,
    MessageName,
    component_text,
    message_name,
    message_type,
    node_prefix,
    parse_message_name,
)
from proxy.wire.messages import (
    EMPTY_DIGEST,
    FpUpdate,
    JoinReply,
    JoinRequest,
    LoginReply,
    LoginRequest,
    Position,
    RecoveryReply,
    Sealed,
    SignedToken,
    SignedUpdate,
    StreamEntry,
    SyncUpdate,
    Token,
    UpdateAck,
)
from proxy.wire.packet import INTEREST, Interest, decode_data, decode_interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode

LOGIN = Signer(bytes(32))
UE1, UE2, STRANGER = (Signer(bytes([number]) * 32) for number in (1, 2, 9))
#: The keys of the proxies csr1 to csr3.
PROXIES = {name: Signer(bytes([101 + index]) * 32) for index, name in enumerate(("csr1", "csr2", "csr3", "ue1"))}
TRUSTED: dict[str, Any] = {
    "login_public_key_hex": LOGIN.public_key.hex(),
    "proxy_keys": {name: signer.public_key.hex() for name, signer in PROXIES.items()},
}
NOW_S = 1_000.0
SOON_S = 0.02  #: what waits for nothing but its turn has come by then
EXCHANGE = KeyExchange(bytes(32), boot=1)
SEALED_REPLIES = (JoinReply, RecoveryReply)
PROXY_TRUST = Trust(**{key + "_hex" if key == "proxy_keys" else key: value for key, value in TRUSTED.items()})

M = TypeVar("M", bound=msgspec.Struct)


def token(device: str = "ue1", signer: Signer = UE1, **properties: Any) -> SignedToken:
    """Return a token that the login server grants; *properties* change what it says."""
    plain = Token(device, "main", "participant", signer.public_key, NOW_S, NOW_S + 3_600.0)
    content = encode(msgspec.structs.replace(plain, **properties))
    return SignedToken(content, LOGIN.sign(content))


def signed_update(
    seq: int, event: str = "message", *, device: str = "ue1", signer: Signer = UE1, boot: int = 1, **properties: Any
) -> SignedUpdate:
    body = encode(token(device, signer)) if event in KEY_EVENTS else b"body"
    plain = FpUpdate(
        "main", device, boot, seq, event, "", fingerprint(signer.public_key), NOW_S, EMPTY_DIGEST, EMPTY_DIGEST, body
    )
    content = encode(msgspec.structs.replace(plain, **properties))
    return SignedUpdate(content, signer.sign(content))


def login_request(signer: Signer = UE1, **properties: Any) -> LoginRequest:
    """Return what a device asks of the login server in its first message; *properties* are what it has not signed."""
    plain = LoginRequest("ue1", "main", "participant", signer.public_key, b"")
    signature = signer.sign(login_proof(plain, MessageName(b"", ("ue1",), 1, 1)))
    return msgspec.structs.replace(plain, **({"signature": signature} | properties))


def join_request(
    signed: SignedToken, signer: Signer = UE1, *, device: str = "ue1", seq: int = 1, acked_seq: int = 0,
    known: tuple[Position, ...] | None = None,
) -> JoinRequest:  # fmt: skip
    """Return a join at csr1, its number *seq*."""
    plain = JoinRequest(signed, 1, acked_seq, known)
    name = MessageName(JOIN, ("main", device), 1, seq)
    return msgspec.structs.replace(plain, signature=signer.sign(join_statement(plain, name, "csr1")))


def signed_entry(proxy: str, seq: int, *updates: SignedUpdate, after: bytes | None = None) -> StreamEntry:
    """Return an entry of a proxy's stream; *after*: the chain digest before it, where that matters."""
    plain = SyncUpdate(EMPTY_DIGEST, updates)
    sync_update = plain if after is None else msgspec.structs.replace(plain, chain_digest=chain_of(after, plain))
    entry = StreamEntry(proxy, 1, seq, "push", b"")
    signature = PROXIES[proxy].sign(entry_statement("main", entry, sync_update))
    return msgspec.structs.replace(entry, content=encode(msgspec.structs.replace(sync_update, signature=signature)))


class Sent(msgspec.Struct):
    """One packet that a core sent, read back."""

    message: str  #: its type, as in messages.csv
    name: bytes
    payload: bytes | None
    interest: Interest | None

    @property
    def parsed(self) -> MessageName:
        return parse_message_name(self.name)

    def read(self, kind: type[M]) -> M:
        """Return what it says, out of its seal where it has one."""
        if kind in SEALED_REPLIES:
            return PROXY_TRUST.open_from_proxy(
                decode(self.payload, Sealed), kind, place_of_message(self.parsed), "csr1"
            )
        if kind is LoginReply:
            return PROXY_TRUST.open_from_login(decode(self.payload, Sealed), kind, place_of_message(self.parsed))
        return decode(self.payload, kind)


class Party:
    """A core behind its local face, and what it sent."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.now_s = NOW_S
        self.records: list[Any] = []
        self.numbers = itertools.count(1)  #: for messages that must not repeat one

    def handle(self, event: Event) -> list[Sent]:
        return self._read(self.core.handle(event, now_s=self.now_s))

    def ask(
        self, to: bytes, kind: bytes, *parts: str, seq: int, payload: Any = None, boot: int = 1, more: bool = False,
        lossy_path: bool = False,
    ) -> list[Sent]:  # fmt: skip
        """Let somebody send it an Interest; *more*: another packet has come already; *lossy_path*: over a lossy link."""
        parameters = encode(payload) if isinstance(payload, msgspec.Struct) else payload
        _, packet = encode_interest(
            message_name(to, kind, *parts, boot=boot, seq=seq), nonce=7, lifetime_ms=4_000, parameters=parameters
        )
        if lossy_path:
            packet = encode_link_packet(LinkPacket(packet, is_lossy_path=True))
        return self.handle(PacketReceived(LOCAL_FACE, packet, more=more))

    def answer(self, question: Sent, payload: msgspec.Struct | bytes) -> list[Sent]:
        """Answer an Interest that it sent; a reply of a proxy or of the login server, as that one seals it."""
        if isinstance(payload, JoinReply) and payload.granted:
            payload = msgspec.structs.replace(payload, exchange_key=EXCHANGE.public_key)
        if isinstance(payload, UpdateAck):
            assert isinstance(self.core, ServiceClient)
            payload = proven_ack(payload, question.name, self.core._out.session_key, STRANGER)
        if isinstance(payload, SEALED_REPLIES):
            payload = seal(PROXIES[component_text(question.name, 1)], payload, place_of_message(question.parsed))
        if isinstance(payload, LoginReply):
            payload = seal(LOGIN, payload, place_of_message(question.parsed))
        content = payload if isinstance(payload, bytes) else encode(payload)
        return self.handle(PacketReceived(LOCAL_FACE, encode_data(question.name, content)))

    def refuse(self, question: Sent) -> list[Sent]:
        """Answer an Interest that it sent with a Nack."""
        assert question.interest is not None
        return self.handle(PacketReceived(LOCAL_FACE, encode_nack(question.interest.wire, NackReason.NO_ROUTE)))

    def live(self, duration_s: float) -> list[Sent]:
        """Let time pass; return what it sent."""
        end_s, sent = self.now_s + duration_s, []
        while (at_s := self.core.deadline_s) is not None and at_s <= end_s:
            self.now_s = max(self.now_s, at_s)
            sent += self.handle(TimerExpired())
        self.now_s = end_s
        return sent

    def _read(self, effects: Sequence[Effect]) -> list[Sent]:
        sent = []
        for effect in effects:
            match effect:
                case Log(record):
                    self.records.append(record)
                case Send(face, packet):
                    assert face == LOCAL_FACE
                    fragment = decode_link_packet(packet).fragment
                    if fragment[0] == INTEREST:
                        interest = decode_interest(fragment)
                        kind = message_type(interest.name, data=False)
                        sent.append(Sent(kind, interest.name, interest.parameters, interest))
                    else:
                        data = decode_data(fragment)
                        sent.append(Sent(message_type(data.name, data=True), data.name, data.content, None))
        return sent


def of(message: str, sent: Sequence[Sent]) -> list[Sent]:
    """Return the packets of one message type."""
    return [each for each in sent if each.message == message]


def client_party(**settings: Any) -> Party:
    core = ServiceClient(
        ClientConfig(key_seed_hex=(bytes([1]) * 32).hex(), **(TRUSTED | settings)), device="ue1", boot=1, seed=1
    )
    return Party(core)


def proxy_party(**settings: Any) -> Party:
    settings = TRUSTED | {"ack_level": "accepted"} | settings  # nothing is stored here, so nothing can be durable
    config = ProxyConfig(forwarder_socket="", key_seed_hex=(bytes([101]) * 32).hex(), **settings)
    party = Party(ServiceProxy(config, device="csr1", boot=1, seed=1))
    party.handle(TimerExpired())
    return party


def login_party(**settings: Any) -> Party:
    config = LoginConfig(
        key_seed_hex=bytes(32).hex(),
        devices={"ue1": UE1.public_key.hex(), "ue2": UE2.public_key.hex()},
        ranked_proxies={"ue1": ("csr1", "csr2")},
        **settings,
    )
    return Party(LoginServer(config, device="login", boot=1, seed=1))


def to(device: str) -> bytes:
    return node_prefix(device)
