"""The login server: authenticates devices, grants join tokens, assigns proxies."""

from __future__ import annotations

from collections import Counter

from proxy.config import LoginConfig
from proxy.core.events import LOCAL_FACE, Effect, Event, PacketReceived, Send, TimerExpired
from proxy.core.signing import Signer, Verifier
from proxy.wire.lp import decode_link_packet
from proxy.wire.messages import (
    LOGIN,
    LoginReply,
    LoginRequest,
    SignedToken,
    Token,
    decode,
    encode,
    parse_message_name,
)
from proxy.wire.packet import INTEREST, decode_interest, encode_data
from proxy.wire.tlv import MalformedError


class LoginServer:
    """Stateless: every request is answered from the register of devices."""

    deadline_s: float | None = None

    def __init__(self, config: LoginConfig) -> None:
        self._signer = Signer(bytes.fromhex(config.key_seed_hex))
        self._devices = {device: bytes.fromhex(key) for device, key in config.devices.items()}
        self._ranked_proxies = config.ranked_proxies
        self._token_lifetime_s = config.token_lifetime_s
        self.counters: dict[str, int] = Counter()

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Answer a login Interest; everything else is counted."""
        match event:
            case PacketReceived(_, packet):
                try:
                    return self._on_packet(packet, now_s)
                except MalformedError:
                    self.counters["malformed"] += 1
                    return []
            case TimerExpired():
                return []
            case _:
                raise TypeError(f"not for a login server: {event!r}")

    def _on_packet(self, packet: bytes, now_s: float) -> list[Effect]:
        link_packet = decode_link_packet(packet)
        if link_packet.nack_reason is not None or link_packet.fragment[:1] != bytes((INTEREST,)):
            self.counters["unsolicited"] += 1
            return []
        interest = decode_interest(link_packet.fragment)
        if parse_message_name(interest.name).kind != LOGIN:
            raise MalformedError("not a login")
        reply = self._decide(decode(interest.parameters, LoginRequest), now_s)
        self.counters["logins_granted" if reply.granted else "logins_refused"] += 1
        return [Send(LOCAL_FACE, encode_data(interest.name, encode(reply)))]

    def _decide(self, request: LoginRequest, now_s: float) -> LoginReply:
        registered = self._devices.get(request.device)
        if registered is None:
            return _refusal("device is not registered")
        if registered != request.public_key:
            return _refusal("key is not the registered one")
        proof = login_proof(request.device, request.conference, request.role)
        if not Verifier(request.public_key).is_valid(request.signature, proof):
            return _refusal("signature does not match the key")
        proxies = self._ranked_proxies.get(request.device, ())
        if not proxies:
            return _refusal("no proxy serves this device")
        token = encode(
            Token(request.device, request.conference, request.role, request.public_key, now_s + self._token_lifetime_s)
        )
        return LoginReply(True, "", SignedToken(token, self._signer.sign(token)), proxies)


def login_proof(device: str, conference: str, role: str) -> bytes:
    """Return what a device signs to log in."""
    return b"hconf login\0" + f"{device}\x00{conference}\x00{role}".encode()


def _refusal(reason: str) -> LoginReply:
    return LoginReply(False, reason, None, ())
