"""Signatures: Ed25519 (RFC 8032) over the bytes of a token or an FP update. Pure functions, done by libsodium.

Through the bindings of PyNaCl and not its classes: those look at every argument first, which takes longer than it seems where
caches are cold.
"""

from __future__ import annotations

import hashlib
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

#: What was found of (key, signature, content) where several nodes share a process: the answer is the same for all of them.
_shared: dict[tuple[bytes, bytes, bytes], bool] | None = None
SHARED_MAX: Final = 50_000


def share_verifications() -> None:
    """From now on, verify each signature once per process. For a simulator: of 1,000 nodes all verify the same ones."""
    global _shared  # noqa: PLW0603  a node's process never calls this
    if _shared is None:
        _shared = {}


class Signer:
    """A private key, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self.public_key = bytes(SigningKey(seed).verify_key)
        self._secret_key = seed + self.public_key  #: as libsodium keeps it

    def sign(self, content: bytes) -> bytes:
        """Return the 64-byte signature."""
        return crypto_sign(content, self._secret_key)[:crypto_sign_BYTES]


class Verifier:
    """A public key of 32 bytes. Raises: ValueError where it is none."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = bytes(VerifyKey(public_key))

    def is_valid(self, signature: bytes, content: bytes) -> bool:
        """Tell whether *signature* is this key's over *content*."""
        if _shared is None:
            return self._verify(signature, content)
        place = (self._public_key, signature, content)
        found = _shared.get(place)
        if found is None:
            if len(_shared) >= SHARED_MAX:
                _shared.clear()
            found = _shared[place] = self._verify(signature, content)
        return found

    def _verify(self, signature: bytes, content: bytes) -> bool:
        if len(signature) != crypto_sign_BYTES:
            return False
        try:
            crypto_sign_open(signature + content, self._public_key)
        except BadSignatureError:
            return False
        return True


def fingerprint(public_key: bytes) -> bytes:
    """Return the fingerprint of a key: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:16]
