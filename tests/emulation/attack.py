"""Somebody on a UE's host, with a socket of his own, who knows keys and names and says what he likes."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from typing import Final

from msgspec import Struct

from proxy.core.signing import Signer, fingerprint
from proxy.wire.message_names import JOIN, UPDATE, message_name, node_prefix
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedToken, SignedUpdate
from proxy.wire.packet import encode_interest
from proxy.wire.payload import encode
from tests.simulated.attacker import signed_join, token

_CLONE_NEWNET: Final = 0x4000_0000
_NDN_PORT: Final = 6363


def socket_in_namespace(pid: int, local: str, remote: str) -> socket.socket:
    """Return a UDP socket in the network namespace of a process. A thread of its own goes there, and ends."""
    made: list[socket.socket] = []

    def go_there() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert libc.setns(namespace, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            sock.bind((local, _NDN_PORT))
            sock.connect((remote, _NDN_PORT))
            made.append(sock)
        finally:
            os.close(namespace)

    thread = threading.Thread(target=go_there)
    thread.start()
    thread.join()
    return made[0]


class Attacker:
    """Sends Interests over the link of his host; answers he does not read."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._nonce = 1_000_000

    def send(self, name: bytes, message: Struct | bytes | None, *, lifetime_ms: int = 1_000) -> None:
        """Send an Interest with a message in it."""
        self._nonce += 1
        parameters = message if message is None or isinstance(message, bytes) else encode(message)
        self._socket.send(encode_interest(name, nonce=self._nonce, lifetime_ms=lifetime_ms, parameters=parameters)[1])

    def send_update(self, proxy: str, device: str, key: Signer, *, seq: int, claimed_key: bytes = b"") -> None:
        """Send an update of a device, signed with *key*; it says to be of the owner of *claimed_key*."""
        encoded = encode(
            FpUpdate(
                "main", device, 1, seq, "message", "", fingerprint(claimed_key or key.public_key), time.monotonic(),
                EMPTY_DIGEST, EMPTY_DIGEST, b"forged",
            )
        )  # fmt: skip
        name = message_name(node_prefix(proxy), UPDATE, "main", device, boot=1, seq=seq)
        self.send(name, SignedUpdate(encoded, key.sign(encoded)))

    def send_join(self, proxy: str, device: str, token: SignedToken, key: Signer, *, number: int) -> None:
        """Send a join, its possession proven with *key*."""
        name = message_name(node_prefix(proxy), JOIN, "main", device, boot=1, seq=number)
        self.send(name, signed_join(name, proxy, token, key))


def grant(signer: Signer, device: str, key: Signer, *, conference: str = "main", for_s: float = 3_600.0) -> SignedToken:
    """Return a token as *signer* would grant it."""
    return token(signer, device, key, conference=conference, expires_s=time.monotonic() + for_s)
