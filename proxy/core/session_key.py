"""The key that a client and a proxy share: it authenticates what is too frequent to be signed, acks and client heartbeats.

Each side has one X25519 key (RFC 7748) per boot and says its public half in what it signs of a join. A code costs a few
microseconds, a signature some 20 and its verification 50.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from msgspec.structs import replace
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from proxy.core.signing import Signer
from proxy.core.trust import Refusal, Trust
from proxy.wire.messages import ClientHeartbeat, UpdateAck
from proxy.wire.payload import encode

#: Of HMAC-SHA-256, truncated as RFC 2104 section 5 allows.
CODE_BYTES: Final = 16
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


class SessionKey:
    """A shared key; its codes stand for a message under a name."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def code(self, name: bytes, content: bytes) -> bytes:
        """Return what proves that one of the two has said *content* under *name*."""
        return hmac.digest(self._key, _statement(name, content), "sha256")[:CODE_BYTES]


class KeyExchange:
    """One node's half, of one boot."""

    def __init__(self, key_seed: bytes, *, boot: int) -> None:
        self._key = hashlib.sha256(b"hconf exchange\0" + str(boot).encode() + b"\0" + key_seed).digest()
        self.public_key = crypto_scalarmult_base(self._key)

    def session_key(self, public_key: bytes, *, conference: str, device: str, proxy: str) -> SessionKey | None:
        """Return the key that is shared with the holder of *public_key*; None where that is no key."""
        if len(public_key) != PUBLIC_KEY_BYTES:
            return None
        try:
            shared = crypto_scalarmult(self._key, public_key)
        except CryptoError:  # of small order: everybody would know what is shared
            return None
        both = b"".join(sorted((self.public_key, public_key)))
        place = f"{conference}\0{device}\0{proxy}".encode()
        return SessionKey(hashlib.sha256(b"hconf session\0" + shared + both + place).digest())


def proven_ack(ack: UpdateAck, name: bytes, key: SessionKey | None, signer: Signer) -> UpdateAck:
    """Return an ack of the message *name* with its proof: a code, or a signature where no key is shared (any more)."""
    content = encode(ack)
    return replace(ack, proof=signer.sign(_statement(name, content)) if key is None else key.code(name, content))


def check_ack(ack: UpdateAck, name: bytes, key: SessionKey | None, trust: Trust, proxy: str) -> None:
    """Check that the proxy has said this of the message *name*. Raises: Refusal.

    That we are not joined may be said by anybody who has never heard of us: all that follows is that we join again.
    """
    if ack.level == "refused" and ack.reason == "not_joined":
        return
    content = encode(replace(ack, proof=b""))
    if len(ack.proof) == SIGNATURE_BYTES:
        is_proven = trust.is_of_proxy(proxy, ack.proof, _statement(name, content))
    else:
        is_proven = key is not None and hmac.compare_digest(ack.proof, key.code(name, content))
    if not is_proven:
        raise Refusal("ack_forged")


def proven_heartbeat(beat: ClientHeartbeat, name: bytes, key: SessionKey | None) -> ClientHeartbeat:
    """Return a client's heartbeat under *name* with its proof, where a key is shared."""
    return beat if key is None else replace(beat, proof=key.code(name, encode(beat)))


def check_heartbeat(beat: ClientHeartbeat, name: bytes, key: SessionKey | None) -> None:
    """Check a client's heartbeat; a device that has not offered a key is not protected. Raises: Refusal."""
    if key is not None and not hmac.compare_digest(beat.proof, key.code(name, encode(replace(beat, proof=b"")))):
        raise Refusal("heartbeat_forged")


def _statement(name: bytes, content: bytes) -> bytes:
    return b"hconf proof\0" + len(name).to_bytes(4, "big") + name + content
