"""State Vector Sync, version 3: the packets. What they mean is `StateVectorSync`'s business.

A sync Interest ``/hconf/32=group/32=svs/<conference>/v=3/<digest of the parameters>`` carries a Data of the name up to the
version, with the state vector, signed by whoever sends it. It goes to all participants, and nobody answers it.

Source: State Vector Sync specification, version 3 (2025-01-14), sections 2 and 4; that the vector is sent again when the
network is in reach again is what ndnd does (github.com/named-data/ndnd, std/sync/svs.go).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.config import SvsConfig
from proxy.core.baselines.key_ring import KeyRing
from proxy.core.baselines.signed_inbox import SignedInbox
from proxy.core.baselines.state_vector import StateVectorSync
from proxy.core.client_outbox import ClientOutbox
from proxy.core.events import LOCAL_FACE, Send
from proxy.wire.message_names import SVS, component_text, node_prefix, sync_group
from proxy.wire.packet import Data, Interest, encode_interest
from proxy.wire.signed_data import SignedData, decode_signed_data, encode_signed_data
from proxy.wire.svs import SVS_VERSION, decode_state_vector, encode_state_vector
from proxy.wire.tlv import MalformedError

#: After a face has come up, others' faces need a moment, too.
FACE_UP_S: Final = 0.1


class SvsGroup:
    """*on_news* is told of (device, boot, seq): there are publications of it up to that one."""

    def __init__(
        self, out: ClientOutbox, config: SvsConfig, key_ring: KeyRing, *, on_news: Callable[[str, int, int], None]
    ) -> None:
        self._out, self._key_ring, self._on_news = out, key_ring, on_news
        self._lifetime_ms = round(config.sync_interest_lifetime_s * 1e3)
        self._name = sync_group(SVS, out.conference) + SVS_VERSION
        self._sync = StateVectorSync(config, out.chance)
        self._inbox = SignedInbox(out, key_ring, what="vector")
        self._again_s: float | None = None  #: when to say where we stand since a face has come up

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        if self._again_s is None or self._sync.next_s is None:
            return self._sync.next_s
        return min(self._again_s, self._sync.next_s)

    def begin(self) -> None:
        """The timer runs from now on; our update ``join``, which comes next, tells everybody that we are there."""
        if self._sync.next_s is None:
            self._sync.enter_steady_state(self._out.now_s)

    def publish(self, seq: int) -> None:
        """Tell everybody at once (section 4.2)."""
        self._sync.publish(node_prefix(self._out.device), self._out.boot, seq)
        self._send()

    def on_interest(self, interest: Interest) -> None:
        """Somebody says what there is. Raises: Refusal, MalformedError."""
        if self._sync.next_s is None:
            return  # we have not joined yet
        if interest.parameters is None or not interest.name.startswith(self._name):
            raise MalformedError("no sync Interest of State Vector Sync, version 3")
        said = decode_signed_data(interest.parameters)
        if said.name != self._name:
            raise MalformedError("state vector of another group")
        if (verified := self._inbox.receive(said)) is not None:
            self._take(verified)

    def on_key(self, device: str) -> None:
        """Look at what a device has said. Raises: Refusal, MalformedError."""
        if (said := self._inbox.on_key(device)) is not None:
            self._take(said)

    def _take(self, said: SignedData) -> None:
        vector = decode_state_vector(said.content)
        devices = {name: component_text(name, 1) for name in vector}
        if any(name != node_prefix(device) for name, device in devices.items()):
            raise MalformedError("a state vector names what is no device")
        for name, boot, seq in self._sync.on_vector(vector, self._out.now_s):
            self._on_news(devices[name], boot, seq)

    def on_data(self, data: Data) -> bool:  # noqa: ARG002 - sync Interests are not answered (section 4.3)
        """Return False: no Data is for us."""
        return False

    def on_nack(self, interest: Interest) -> None:
        """It is said again sooner or later anyway."""

    def on_face_up(self) -> None:
        """Say where we stand, when the others can hear it."""
        if self._sync.next_s is not None:
            self._again_s = self._out.now_s + FACE_UP_S

    def on_timer(self) -> None:
        """Say where we stand, if it is time for that."""
        now_s = self._out.now_s
        is_again = self._again_s is not None and self._again_s <= now_s
        if is_again:
            self._again_s = None
        if self._sync.on_timer(now_s) or is_again:
            self._send()

    def _send(self) -> None:
        out = self._out
        content = encode_state_vector(self._sync.vector)
        parameters = encode_signed_data(self._name, content, key_name=self._key_ring.own_key_name, sign=out.signer.sign)
        self._sync.enter_steady_state(out.now_s)
        try:
            _, packet = encode_interest(
                self._name, nonce=out.chance.nonce(), lifetime_ms=self._lifetime_ms, parameters=parameters
            )
        except ValueError:  # too many participants, or too many boots of some
            out.counters["vectors_too_large"] += 1
            return
        out.counters["vectors_sent"] += 1
        out.effects.append(Send(LOCAL_FACE, packet))
