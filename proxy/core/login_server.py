"""The login server: authenticates devices, grants join tokens, assigns proxies, revokes."""

from __future__ import annotations

from collections import Counter
from typing import Final

from proxy.config import LoginConfig
from proxy.core.events import LOCAL_FACE, Effect, Event, Log, PacketReceived, RevokeRequested, Send, TimerExpired
from proxy.core.outbox import NO_REPLY_LIFETIME_MS
from proxy.core.seeded import SplitMix64
from proxy.core.signing import Signer, Verifier
from proxy.core.trust import place_of, place_of_message, seal
from proxy.records import Granted, Revoked
from proxy.wire.lp import decode_link_packet
from proxy.wire.message_names import ALL_PROXIES, LOGIN, REVOKE, MessageName, message_name, parse_message_name
from proxy.wire.messages import LoginReply, LoginRequest, Revocation, Revocations, SignedToken, Token
from proxy.wire.packet import INTEREST, decode_interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: Revocations in one announcement, so that it fits into a packet; more of them take turns.
ANNOUNCED_MAX: Final = 64


class LoginServer:
    """Answers every request from the register of devices; remembers whom it has revoked, and says so until all know.

    No proxy acks a revocation: it is repeated at the pace of heartbeats until the last token that it voids would have
    expired, so that a proxy which missed it, or has just started, hears it within one interval.
    """

    def __init__(self, config: LoginConfig, *, device: str, boot: int, seed: int) -> None:
        self.counters: dict[str, int] = Counter()
        self.deadline_s: float | None = None
        self.revoked = dict(config.revoked)  #: device -> when
        self._config, self._device, self._boot = config, device, boot
        self._chance = SplitMix64(seed)
        self._signer = Signer(bytes.fromhex(config.key_seed_hex))
        self._devices = {device: bytes.fromhex(key) for device, key in config.devices.items()}
        self._announced = 0
        self._effects: list[Effect] = []
        if self.revoked:
            self.deadline_s = 0.0

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Answer a login Interest, revoke, announce; every other packet is counted."""
        self._effects = []
        match event:
            case PacketReceived(_, packet):
                try:
                    self._on_packet(packet, now_s)
                except MalformedError:
                    self.counters["malformed"] += 1
            case RevokeRequested(device):
                self.counters["revocations"] += 1
                self.revoked[device] = now_s
                self._effects.append(Log(Revoked(now_s, device)))
                self._announce(now_s)
            case TimerExpired():
                if self.deadline_s is not None and self.deadline_s <= now_s:
                    self._announce(now_s)
            case _:
                raise TypeError(f"not for a login server: {event!r}")
        return self._effects

    def is_registered(self, device: str) -> bool:
        """Tell whether a device may log in at all."""
        return device in self._devices

    # ------------------------------------------------------------------ logins

    def _on_packet(self, packet: bytes, now_s: float) -> None:
        link_packet = decode_link_packet(packet)
        if link_packet.nack_reason is not None or link_packet.fragment[:1] != bytes((INTEREST,)):
            self.counters["unsolicited"] += 1
            return
        interest = decode_interest(link_packet.fragment)
        name = parse_message_name(interest.name)
        if name.kind != LOGIN:
            raise MalformedError("not a login")
        reply = self._decide(decode(interest.parameters, LoginRequest), name, now_s)
        self.counters["logins_granted" if reply.granted else "logins_refused"] += 1
        sealed = seal(self._signer, reply, place_of_message(name))
        self._effects.append(Send(LOCAL_FACE, encode_data(interest.name, encode(sealed))))

    def _decide(self, request: LoginRequest, name: MessageName, now_s: float) -> LoginReply:
        registered = self._devices.get(request.device)
        if registered is None:
            return self._refusal("device is not registered")
        if request.device in self.revoked:
            return self._refusal("revoked")
        if registered != request.public_key:
            return self._refusal("key is not the registered one")
        proof = login_proof(request, name)
        if not Verifier(request.public_key).is_valid(request.signature, proof):
            return self._refusal("signature does not match the key")
        proxies = self._config.ranked_proxies.get(request.device)
        if proxies is None:  # there may be none at all, in modes without
            return self._refusal("no proxy serves this device")
        expires_s = now_s + self._config.token_lifetime_s
        token = Token(request.device, request.conference, request.role, request.public_key, now_s, expires_s)
        self._effects.append(
            Log(Granted(now_s, token.conference, token.device, token.role, token.issued_s, token.expires_s))
        )
        encoded = encode(token)
        return LoginReply(True, "", SignedToken(encoded, self._signer.sign(encoded)), proxies)

    def _refusal(self, reason: str) -> LoginReply:
        self.counters[f"refused_{reason.replace(' ', '_')}"] += 1
        return LoginReply(False, reason, None, ())

    # ------------------------------------------------------------------ revocations

    def _announce(self, now_s: float) -> None:
        """Tell all proxies whose tokens are void, those that might still pass for valid."""
        current = sorted(
            (device, at_s) for device, at_s in self.revoked.items() if at_s + self._config.token_lifetime_s > now_s
        )
        if not current:
            self.deadline_s = None
            return
        self.deadline_s = now_s + self._config.announce_interval_s
        first = (self._announced * ANNOUNCED_MAX) % len(current) if len(current) > ANNOUNCED_MAX else 0
        self._announced += 1
        revocations = Revocations(tuple(Revocation(*each) for each in current[first : first + ANNOUNCED_MAX]))
        sealed = seal(self._signer, revocations, place_of(REVOKE, self._device, boot=self._boot, seq=0))
        _, packet = encode_interest(
            message_name(ALL_PROXIES, REVOKE, self._device, boot=self._boot, seq=self._announced),
            nonce=self._chance.nonce(),
            lifetime_ms=NO_REPLY_LIFETIME_MS,
            parameters=encode(sealed),
        )
        self._effects.append(Send(LOCAL_FACE, packet))


def login_proof(request: LoginRequest, name: MessageName) -> bytes:
    """Return what a device signs to log in: what it asks for, in this very request."""
    parts = (request.device, request.conference, request.role, str(name.boot), str(name.seq))
    return b"hconf login\0" + "\0".join(parts).encode()
