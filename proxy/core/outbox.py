"""What the halves of a service proxy share while one event is handled: the time, the effects so far, ways to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from proxy.config import ProxyConfig
from proxy.core.consumer import Consumer
from proxy.core.effects import Effects
from proxy.core.events import LOCAL_FACE, Effect, Send
from proxy.core.seeded import SplitMix64
from proxy.core.session_key import KeyExchange, SessionKey, proven_ack
from proxy.core.signing import Signer
from proxy.core.trust import Trust, place_of_message, seal
from proxy.wire.message_names import ALL_PROXIES, message_name, parse_message_name
from proxy.wire.messages import JoinReply, KeysReply, RecoveryReply, ServeReply, UpdateAck
from proxy.wire.packet import Interest, encode_data, encode_interest
from proxy.wire.payload import encode
from proxy.wire.tlv import MalformedError

#: Interests that want no answer live in PITs only as long as copies of them may still meet.
NO_REPLY_LIFETIME_MS: Final = 250

#: What the consumer's Interests are for: ("sync", conference, proxy, boot, seq), ("notify", conference, device, n, boot)
#: or ("recover", conference, peer, 0, 0), ("keys", conference, peer, 0, 0), ("segment", conference, "", number, 0).
RequestKey = tuple[str, str, str, int, int]


class Outbox:
    """One per service proxy."""

    def __init__(self, config: ProxyConfig, *, device: str, boot: int, seed: int) -> None:
        self.config, self.device, self.boot = config, device, boot
        self.signer = Signer(bytes.fromhex(config.key_seed_hex))
        self.exchange = KeyExchange(bytes.fromhex(config.key_seed_hex), boot=boot)
        self.trust = Trust(login_public_key_hex=config.login_public_key_hex, proxy_keys_hex=config.proxy_keys)
        self.chance = SplitMix64(seed)
        self.consumer: Consumer[RequestKey] = Consumer(self.chance)
        self.counters: dict[str, int] = Counter()
        self.effects = Effects()
        self.now_s = 0.0
        self._numbered = 0

    def begin(self, now_s: float) -> None:
        """A new event: no effects yet."""
        self.effects.take()
        self.now_s = now_s

    def left_to_do(self) -> list[Effect]:
        """Return the effects of the event that have not been performed."""
        return self.effects.take()

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have every effect performed as it comes instead of returning it."""
        self.effects.perform_at_once(perform)

    def next_number(self) -> int:
        """Return a number that no message of this boot has had."""
        self._numbered += 1
        return self._numbered

    def count_refusal(self, reason: str) -> None:
        """Something well-formed was not allowed."""
        self.counters[f"refused_{reason}"] += 1

    def send_data(self, name: bytes, content: bytes, *, freshness_ms: int = 0) -> None:
        """Answer an Interest; an answer that is too large for a packet is counted and not sent."""
        try:
            packet = encode_data(name, content, freshness_ms=freshness_ms)
        except ValueError:
            self.counters["replies_too_large"] += 1
            return
        self.effects.append(Send(LOCAL_FACE, packet))

    def reply(self, interest: Interest, message: KeysReply | ServeReply) -> None:
        """Answer an Interest with a message."""
        self.send_data(interest.name, encode(message))

    def ack(self, name: bytes, ack: UpdateAck, key: SessionKey | None) -> None:
        """Answer the Interest *name* with an ack, proven with the session's key, if there is one."""
        self.send_data(name, encode(proven_ack(ack, name, key, self.signer)))

    def reply_sealed(self, interest: Interest, message: JoinReply | RecoveryReply) -> None:
        """Answer an Interest with a message that is believed because we have signed it."""
        place = place_of_message(parse_message_name(interest.name))
        self.send_data(interest.name, encode(seal(self.signer, message, place)))

    def send_unanswered(self, name: bytes, parameters: bytes) -> None:
        """Send an Interest to which no Data is expected: a heartbeat or a push."""
        _, packet = encode_interest(
            name, nonce=self.chance.nonce(), lifetime_ms=NO_REPLY_LIFETIME_MS, parameters=parameters
        )
        self.effects.append(Send(LOCAL_FACE, packet))

    def send_to_all(self, kind: bytes, parameters: bytes, *parts: str, seq: int) -> None:
        """Send to every service proxy; the forwarders fan it out."""
        self.send_unanswered(message_name(ALL_PROXIES, kind, *parts, boot=self.boot, seq=seq), parameters)


def conference_and_device(parts: tuple[str, ...]) -> tuple[str, str]:
    """Return the two identifiers of a name. Raises: MalformedError where there are not two."""
    if len(parts) != 2:
        raise MalformedError(f"name with {len(parts)} identifiers where 2 belong")
    return parts[0], parts[1]
