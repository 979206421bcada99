"""Signatures: Ed25519 (RFC 8032) over the bytes of a token or an FP update. Pure functions."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    """A private key, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, content: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(content)


class Verifier:
    """A public key of 32 bytes. Raises: ValueError where it is none."""

    def __init__(self, public_key: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    def is_valid(self, signature: bytes, content: bytes) -> bool:
        """Tell whether *signature* is this key's over *content*."""
        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def fingerprint(public_key: bytes) -> bytes:
    """Return the fingerprint of a key: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:16]
