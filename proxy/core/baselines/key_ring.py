"""The keys of the other participants, each asked for by name when it is first met and kept from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.client_outbox import ClientOutbox
from proxy.core.consumer import Consumer
from proxy.core.events import LOCAL_FACE, Send
from proxy.core.signing import Verifier
from proxy.wire.message_names import CERTIFICATE, IDENTIFIER_MAX_OCTETS, component_text, message_name, node_prefix
from proxy.wire.messages import SignedToken
from proxy.wire.name import component
from proxy.wire.packet import Data, Interest, encode_data
from proxy.wire.payload import decode
from proxy.wire.payload import encode as encode_message
from proxy.wire.tlv import MalformedError

#: (what: "publication" or "certificate", device, boot, seq)
FetchKey = tuple[str, str, int, int]

#: Devices that are asked for their token at the same time; who is met beyond that is met again.
ASKED_MAX: Final = 256
ATTEMPTS: Final = 6
#: Content stores hand a token to all who meet its device at about the same time.
FRESHNESS_MS: Final = 10_000


class KeyRing:
    """A device's certificate is its token, signed by the login server; whoever holds one for our conference belongs to it."""

    def __init__(self, out: ClientOutbox, consumer: Consumer[FetchKey], *, on_key: Callable[[str], None]) -> None:
        self._out, self._consumer, self._on_key = out, consumer, on_key
        self._verifiers: dict[str, Verifier] = {}
        self._asking = 0
        self.own_key_name = node_prefix(out.device) + CERTIFICATE + component(out.conference)

    def verifier(self, key_name: bytes) -> tuple[str, Verifier | None]:
        """Return the device that a key's name is of, and the key; where that is not known yet, it is asked for.

        Raises: MalformedError where it is no name of a participant's key.
        """
        device = component_text(key_name, 1)
        if not 1 <= len(device.encode()) <= IDENTIFIER_MAX_OCTETS:
            raise MalformedError("key of a device whose name is empty or too long")
        if key_name != node_prefix(device) + CERTIFICATE + component(self._out.conference):
            raise MalformedError("no key of a participant in this conference")
        verifier = self._verifiers.get(device)
        if verifier is None:
            self._ask(device)
        return device, verifier

    def meet(self, device: str) -> None:
        """Ask for the key of a device that is said to be there, before it is needed."""
        if device not in self._verifiers and device != self._out.device:
            self._ask(device)

    def _ask(self, device: str) -> None:
        key = ("certificate", device, 0, 0)
        if key in self._consumer or self._asking >= ASKED_MAX:
            return
        self._asking += 1
        name = message_name(node_prefix(device), CERTIFICATE, self._out.conference, boot=0, seq=0)
        self._out.effects.extend(
            self._consumer.express(key, name, now_s=self._out.now_s, peer=device, attempts_max=ATTEMPTS)
        )

    def on_interest(self, interest: Interest) -> None:
        """Somebody has met us."""
        grant = self._out.grant
        if grant is None:
            self._out.counters["certificates_not_here"] += 1
            return
        data = encode_data(interest.name, encode_message(grant.signed), freshness_ms=FRESHNESS_MS)
        self._out.effects.append(Send(LOCAL_FACE, data))

    def check_answer(self, device: str, data: Data) -> Verifier:
        """Return the key in what a device answers. Raises: Refusal, MalformedError; it is then still asked for."""
        signed = decode(data.content, SignedToken)
        return self._out.trust.grant(signed, device=device, conference=self._out.conference).verifier

    def take(self, device: str, verifier: Verifier) -> None:
        """Keep a key that was asked for."""
        self._asking -= 1
        self._verifiers[device] = verifier
        self._on_key(device)

    def on_given_up(self) -> None:
        """A device does not answer; when it is met again, it is asked again."""
        self._asking -= 1
