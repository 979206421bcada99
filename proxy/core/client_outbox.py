"""What the parts of a service client share: who it is, how its session stands, the event being handled, ways to ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from proxy.config import ClientConfig
from proxy.core.consumer import Consumer
from proxy.core.effects import Effects
from proxy.core.events import LOCAL_FACE, Effect, Log, Send
from proxy.core.seeded import SplitMix64
from proxy.core.session_key import KeyExchange, SessionKey, proven_heartbeat
from proxy.core.signing import Signer
from proxy.core.trust import Grant, Trust
from proxy.records import Record, SessionChanged, SessionState
from proxy.wire.message_names import PRESENCE, message_name, node_prefix
from proxy.wire.messages import ClientHeartbeat
from proxy.wire.packet import encode_interest
from proxy.wire.payload import encode

#: Interests that want no answer live in PITs only as long as copies of them may still meet.
NO_REPLY_LIFETIME_MS: Final = 250

ClientState = SessionState | Literal["idle"]
#: ("login", 0), ("join", 0), ("update", seq), ("recover", 0), ("close", 0), ("keys", 0), ("move", 0), ("segment", number), ("serve", 0)
RequestKey = tuple[str, int]


class ClientOutbox:
    """One per service client."""

    def __init__(self, config: ClientConfig, *, device: str, boot: int, seed: int) -> None:
        self.config, self.device, self.boot, self.conference = config, device, boot, config.conference
        self.signer = Signer(bytes.fromhex(config.key_seed_hex))
        self.exchange = KeyExchange(bytes.fromhex(config.key_seed_hex), boot=boot)
        self.session_key: SessionKey | None = None  #: shared with the proxy that we are joined at
        self.trust = Trust(login_public_key_hex=config.login_public_key_hex, proxy_keys_hex=config.proxy_keys)
        self.chance = SplitMix64(seed)
        self.consumer: Consumer[RequestKey] = Consumer(self.chance)
        self.counters: dict[str, int] = Counter()
        self.state: ClientState = "idle"
        self.proxy = ""  #: the one we are joined at, or joining
        self.grant: Grant | None = None
        self.heard_s = float("-inf")  #: when we last heard our proxy
        self.sent_s = float("-inf")  #: when we last sent something that tells the proxy that we are there
        self.effects = Effects()
        self.now_s = 0.0
        self._numbered = 0

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have every effect performed as it comes, in the same order, instead of returned."""
        self.effects.perform_at_once(perform)

    def begin(self, now_s: float) -> None:
        """A new event: no effects yet."""
        self.effects.take()
        self.now_s = now_s

    def next_number(self) -> int:
        """Return a number that no message of this boot has had."""
        self._numbered += 1
        return self._numbered

    def count_refusal(self, reason: str) -> None:
        """Something well-formed was not believed."""
        self.counters[f"refused_{reason}"] += 1

    def enter(self, state: SessionState, reason: str) -> None:
        """Change the session's state, and say so."""
        if state != self.state:
            self.state = state
            self.log_session(reason)

    def log_session(self, reason: str) -> None:
        """Write down how the session stands, and why."""
        assert self.state != "idle", "there was no session"
        self.log(SessionChanged(self.now_s, self.conference, self.device, self.proxy, self.state, reason))

    def stop_asking(self, *kinds: str) -> None:
        """Cancel requests of these kinds."""
        for kind in kinds:
            self.consumer.cancel((kind, 0))

    def log(self, record: Record) -> None:
        """Write a record down."""
        self.effects.append(Log(record))

    def name_at(self, proxy: str, kind: bytes, *, seq: int) -> bytes:
        """Return the name of a message of ours to a proxy."""
        return message_name(node_prefix(proxy), kind, self.conference, self.device, boot=self.boot, seq=seq)

    def ask_proxy(
        self,
        key: RequestKey,
        kind: bytes,
        parameters: bytes,
        *,
        seq: int,
        attempts_max: int | None = None,
        proxy: str | None = None,
    ) -> None:
        """Send our proxy, or another, a message and keep at it; attempts_max None: until cancelled."""
        proxy = proxy or self.proxy
        self.effects.extend(
            self.consumer.express(
                key,
                self.name_at(proxy, kind, seq=seq),
                now_s=self.now_s,
                peer=proxy,
                parameters=parameters,
                attempts_max=attempts_max,
            )
        )

    def beat(self, beat: ClientHeartbeat) -> None:
        """Send our proxy a heartbeat, to which no answer is expected."""
        name = self.name_at(self.proxy, PRESENCE, seq=self.next_number())
        _, packet = encode_interest(
            name,
            nonce=self.chance.nonce(),
            lifetime_ms=NO_REPLY_LIFETIME_MS,
            parameters=encode(proven_heartbeat(beat, name, self.session_key)),
        )
        self.effects.append(Send(LOCAL_FACE, packet))
