"""What participants say, signed: it is looked at once its sender's key is known, which may be a while later."""

from __future__ import annotations

from typing import Final

from proxy.core.baselines.key_ring import KeyRing
from proxy.core.client_outbox import ClientOutbox
from proxy.core.trust import Refusal
from proxy.wire.signed_data import SignedData

#: Devices whose keys have been asked for and of which something waits.
WAITING_MAX: Final = 1_024


class SignedInbox:
    """Of a device whose key is not known yet, the last that it said waits; *what* it says names the counters."""

    def __init__(self, out: ClientOutbox, key_ring: KeyRing, *, what: str) -> None:
        self._out, self._key_ring, self._what = out, key_ring, what
        self._waiting: dict[str, SignedData] = {}

    def receive(self, said: SignedData) -> SignedData | None:
        """Return what somebody says, None as long as it has to wait. Raises: Refusal, MalformedError."""
        device, verifier = self._key_ring.verifier(said.key_name)
        if verifier is None:
            self._out.counters[f"{self._what}s_unverified"] += 1
            if device in self._waiting or len(self._waiting) < WAITING_MAX:
                self._waiting[device] = said
            return None
        if not verifier.is_valid(said.signature, said.statement):
            raise Refusal(f"{self._what}_forged")
        return said

    def on_key(self, device: str) -> SignedData | None:
        """Return what a device has said, now that its key is there; None: nothing. Raises: Refusal, MalformedError."""
        said = self._waiting.pop(device, None)
        return None if said is None else self.receive(said)
