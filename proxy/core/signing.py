"""Signatures: Ed25519 (RFC 8032) over the bytes of a token or an FP update. Pure functions, done by libsodium."""

from __future__ import annotations

import hashlib

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey


class Signer:
    """A private key, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)

    def sign(self, content: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(content).signature


class Verifier:
    """A public key of 32 bytes. Raises: ValueError where it is none."""

    def __init__(self, public_key: bytes) -> None:
        self._key = VerifyKey(public_key)

    def is_valid(self, signature: bytes, content: bytes) -> bool:
        """Tell whether *signature* is this key's over *content*."""
        try:
            self._key.verify(content, signature)
        except (BadSignatureError, ValueError):  # ValueError: it is not 64 bytes long
            return False
        return True


def fingerprint(public_key: bytes) -> bytes:
    """Return the fingerprint of a key: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:16]
