"""The sequence of one device's own FP updates: numbered, chained and signed; whatever carries them to the others."""

from __future__ import annotations

import hashlib

from proxy.core.client_outbox import ClientOutbox
from proxy.core.trust import KEY_EVENTS, QUIET_LEAVE
from proxy.core.view import View, chained
from proxy.records import Published
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedUpdate
from proxy.wire.payload import decode, encode


class OwnUpdates:
    """What it makes is part of what we see: it is offered to *view*."""

    def __init__(self, out: ClientOutbox, view: View) -> None:
        self._out, self._view = out, view
        self.seq = 0  #: of the last one made
        self._digest = EMPTY_DIGEST  #: chained over all of them

    def make(self, event: str, body: bytes, object_name: str) -> SignedUpdate:
        """Make the FP update with our next sequence number. We must hold a token.

        It is to be told to the others, and then to be taken in here: see `take_in`.
        """
        out = self._out
        assert out.grant is not None, "published without a token"
        self.seq += 1
        content = encode(out.grant.signed) if event in KEY_EVENTS else body
        last_digest = self._digest
        self._digest = chained(last_digest, event.encode(), object_name.encode(), content)
        return self._sign(self.seq, event, object_name, last_digest, content)

    def take_in(self, signed: SignedUpdate) -> None:
        """Let our view see what was made last, and write down that it was."""
        out, update = self._out, decode(signed.update, FpUpdate)
        self._view.offer(signed, "push", grant=out.grant)
        out.log(
            Published(
                out.now_s, out.conference, out.device, out.boot, update.seq, update.event, len(update.body),
                update.object_name, short_digest(signed.update),
            )
        )  # fmt: skip

    def make_quiet_leave(self) -> SignedUpdate:
        """Make what tells our proxy alone that we leave; nobody else knows that we came, so it takes no number."""
        return self._sign(self.seq + 1, QUIET_LEAVE, "", self._digest, b"")

    def _sign(self, seq: int, event: str, object_name: str, last_digest: bytes, content: bytes) -> SignedUpdate:
        out = self._out
        assert out.grant is not None, "published without a token"
        update = encode(
            FpUpdate(
                out.conference, out.device, out.boot, seq, event, object_name,
                out.grant.fingerprint, out.now_s, last_digest, self._digest, content,
            )
        )  # fmt: skip
        return SignedUpdate(update, out.signer.sign(update))


def short_digest(update: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of an update's signed bytes, as records carry it."""
    return hashlib.sha256(update).hexdigest()[:16]
