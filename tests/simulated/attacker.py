"""Somebody on a UE's host who speaks the protocol, knows whatever went over the wire, and holds keys of his own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from proxy.core.events import LOCAL_FACE, PacketReceived
from proxy.core.signing import Signer, fingerprint
from proxy.core.trust import join_statement
from proxy.wire.message_names import JOIN, UPDATE, message_name, node_prefix, parse_message_name
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, JoinRequest, SignedToken, SignedUpdate, Token
from proxy.wire.packet import INTEREST, Interest, decode_interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode
from testbed.node_config import device_key_seed
from tests.simulated.conference import Conference
from tests.simulated.interception import intercept

OWN_KEY = Signer(b"attacker".ljust(32))


class Attacker:
    """Sends from the host of *ue*, whose forwarder takes him for an application."""

    def __init__(self, conference: Conference, ue: str = "ue8") -> None:
        self.conference, self.network, self.ue = conference, conference.network, ue
        self.nonce = 1_000_000

    def send(self, name: bytes, message: Struct | bytes, *, lifetime_ms: int = 1_000) -> None:
        """Send an Interest with a message in it, and let it arrive."""
        self.throw(name, message, lifetime_ms=lifetime_ms)
        self.conference.run_for(0.2)

    def throw(self, name: bytes, message: Struct | bytes, *, lifetime_ms: int = 1_000) -> None:
        """Send an Interest with a message in it."""
        self.nonce += 1
        parameters = message if isinstance(message, bytes) else encode(message)
        _, packet = encode_interest(name, nonce=self.nonce, lifetime_ms=lifetime_ms, parameters=parameters)
        self.network.send(self.ue, PacketReceived(LOCAL_FACE, packet))

    def replay(self, interest: Interest) -> None:
        """Send an Interest that was overheard, under a nonce of his own."""
        name = interest.name[: -2 - 32] if interest.parameters is not None else interest.name  # without the digest
        self.send(name, interest.parameters or b"")

    def key_of(self, device: str) -> Signer:
        """Return the key of a device; for what its own user does wrong."""
        return Signer(device_key_seed(7, device))

    def token_of(self, device: str) -> SignedToken:
        """Return the token that went over the wire in a device's update `join`."""
        core: Any = self.network.proxy(self.conference.csrs[0])
        (token,) = next(iter(core.conferences.values())).log.view.tokens_of([device])
        return token  # type: ignore[no-any-return]

    def update(self, device: str, key: Signer, **changes: Any) -> SignedUpdate:
        """Return an update that a device's proxy would accept next, but for *changes*, signed with *key*."""
        client = self.network.client(device)
        seq = client.view.seq(device, client.boot) + 1
        update = FpUpdate(
            client.conference, device, client.boot, seq, "message", "", fingerprint(key.public_key), self.network.now_s,
            EMPTY_DIGEST, EMPTY_DIGEST, b"forged",
        )  # fmt: skip
        encoded = encode(replace(update, **changes))
        return SignedUpdate(encoded, key.sign(encoded))

    def send_update(self, proxy: str, signed: SignedUpdate) -> None:
        """Send an update to a proxy under the name that belongs to it."""
        update = decode(signed.update, FpUpdate)
        name = message_name(
            node_prefix(proxy), UPDATE, update.conference, update.device, boot=update.boot, seq=update.seq
        )
        self.send(name, signed)

    def send_join(
        self, proxy: str, device: str, token: SignedToken, key: Signer, *, number: int, conference: str = "main"
    ) -> None:
        """Send a join, its possession proven with *key*."""
        name = message_name(node_prefix(proxy), JOIN, conference, device, boot=1, seq=number)
        self.throw(name, signed_join(name, proxy, token, key))


def signed_join(name: bytes, proxy: str, token: SignedToken, key: Signer) -> JoinRequest:
    """Return what is said under *name* to join, its possession proven with *key*."""
    request = JoinRequest(token, 1, 0, None)
    return replace(request, signature=key.sign(join_statement(request, parse_message_name(name), proxy)))


def token(signer: Signer, device: str, key: Signer, *, conference: str = "main", expires_s: float = 1e9) -> SignedToken:
    """Return a token as *signer* would grant it."""
    encoded = encode(Token(device, conference, "participant", key.public_key, 0.0, expires_s))
    return SignedToken(encoded, signer.sign(encoded))


def answer_first(
    conference: Conference,
    process: str,
    kind: bytes,
    victim: str,
    forge: Callable[[Interest], bytes],
    *,
    count: int = 10**6,
) -> None:
    """Have a router that lies answer whatever of a kind is on its way to a process, sooner than that can.

    *forge* gives the content of the answer; it comes to the forwarder of *victim*, once for each Interest, *count* times in all.
    """
    network = conference.network
    lied: set[bytes] = set()

    def listen(handle: Callable[..., list[Any]], event: Any, now_s: float) -> list[Any]:
        if isinstance(event, PacketReceived) and event.packet[:1] == bytes((INTEREST,)):
            interest = decode_interest(event.packet)
            if parse_message_name(interest.name).kind == kind and interest.name not in lied and len(lied) < count:
                lied.add(interest.name)
                data = encode_data(interest.name, forge(interest))
                conference.at(0.0, lambda: network.send(victim, PacketReceived(1, data)))
                return []  # what it has to say comes too late, as if it were lost
        return handle(event, now_s=now_s)

    intercept(network.processes[process], listen)


def overhear(conference: Conference, process: str, kind: bytes) -> list[Interest]:
    """Return a list that every Interest of a kind which reaches a process is added to."""
    heard: list[Interest] = []

    def listen(handle: Callable[..., list[Any]], event: Any, now_s: float) -> list[Any]:
        if isinstance(event, PacketReceived) and event.packet[:1] == bytes((INTEREST,)):
            interest = decode_interest(event.packet)
            if parse_message_name(interest.name).kind == kind:
                heard.append(interest)
        return handle(event, now_s=now_s)

    intercept(conference.network.processes[process], listen)
    return heard
