"""Who may do what at a service proxy: tokens of the login server, signatures of publishers."""

from __future__ import annotations

from proxy.core.client_session import ClientSession
from proxy.core.signing import Verifier, fingerprint
from proxy.wire.messages import FpUpdate, MessageName, SignedToken, SignedUpdate, Token, decode


class Refusal(Exception):
    """A well-formed message that is not allowed; *reason* is counted and, where there is a reply, told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Admission:
    """Checks against the login server's public key (hex; empty: no join is admitted)."""

    def __init__(self, login_public_key_hex: str) -> None:
        self._login = Verifier(bytes.fromhex(login_public_key_hex)) if login_public_key_hex else None

    def check_token(self, signed: SignedToken, device: str, conference: str, *, now_s: float) -> Token:
        """Return the token of a join. Raises: Refusal."""
        if self._login is None or not self._login.is_valid(signed.signature, signed.token):
            raise Refusal("token_forged")
        token = decode(signed.token, Token)
        if token.device != device:
            raise Refusal("token_of_other_device")
        if token.conference != conference:
            raise Refusal("token_of_other_conference")
        if token.expires_s <= now_s:
            raise Refusal("token_expired")
        return token

    def verifier(self, token: Token) -> Verifier:
        """Return the verifier of a device's updates."""
        return Verifier(token.public_key)

    def check_update(
        self, signed: SignedUpdate, update: FpUpdate, session: ClientSession, name: MessageName, *, now_s: float
    ) -> None:
        """Check an FP update against its name, its publisher's token and its signature. Raises: Refusal."""
        token = session.token
        if (update.conference, update.device, update.boot, update.seq) != (*name.parts, name.boot, name.seq):
            raise Refusal("update_under_other_name")
        if token.role == "observer" and update.event not in ("join", "leave"):
            raise Refusal("observer_publishes")
        if token.expires_s <= now_s:
            raise Refusal("token_expired")
        if update.fingerprint != fingerprint(token.public_key):
            raise Refusal("fingerprint_of_other_key")
        if not session.verifier.is_valid(signed.signature, signed.update):
            raise Refusal("update_forged")
