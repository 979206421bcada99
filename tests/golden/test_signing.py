"""Ed25519 against the test vectors of RFC 8032 section 7.1, and what a signature must not survive."""

from __future__ import annotations

import pytest

from proxy.core.signing import Signer, Verifier

VECTORS = [  # seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public_key", "message", "signature"), VECTORS)
def test_vectors(seed: str, public_key: str, message: str, signature: str) -> None:
    signer = Signer(bytes.fromhex(seed))
    assert signer.public_key.hex() == public_key
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    assert Verifier(signer.public_key).is_valid(bytes.fromhex(signature), bytes.fromhex(message))


@pytest.mark.parametrize("changed", [*range(0, 64, 7), 63])
def test_a_changed_signature_is_not_valid(changed: int) -> None:
    signer = Signer(bytes(32))
    signature = bytearray(signer.sign(b"message"))
    signature[changed] ^= 1
    assert not Verifier(signer.public_key).is_valid(bytes(signature), b"message")
    assert not Verifier(signer.public_key).is_valid(signer.sign(b"message"), b"messagf")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_signature_is_not_valid(signature: bytes) -> None:
    assert not Verifier(Signer(bytes(32)).public_key).is_valid(signature, b"message")


def test_a_key_of_small_order_signs_nothing() -> None:
    """Under the neutral element every message would have the same signature; libsodium refuses such keys."""
    neutral = (1).to_bytes(32, "little")
    assert not Verifier(neutral).is_valid(neutral + bytes(32), b"message")


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33)])
def test_a_public_key_has_32_bytes(public_key: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        Verifier(public_key)
