"""Whose word counts: the keys that a node starts with, the tokens it has verified, and what every signature covers.

A verification costs about 0.05 ms, so each is made once per node: what is known already is recognised before (a stream
entry by its place, an update by its sequence number, a token by its bytes).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from proxy.core.signing import Signer, Verifier, fingerprint
from proxy.wire.message_names import MessageName
from proxy.wire.messages import FpUpdate, JoinRequest, Sealed, SignedToken, SignedUpdate, StreamEntry, SyncUpdate, Token
from proxy.wire.payload import decode, encode

#: Tokens remembered as verified; the least recently used goes first.
TOKENS_MAX: Final = 8_192
#: Events whose body is the publisher's signed token; everybody learns the key from them, in the publisher's order.
KEY_EVENTS: Final = frozenset({"join", "renew"})
#: What a device tells its proxy when it leaves and was never announced; it is in no stream.
QUIET_LEAVE: Final = "leave-quietly"
#: Who comes and goes.
PRESENCE_EVENTS: Final = frozenset({"join", "renew", "leave"})
#: What an observer may publish.
OBSERVER_EVENTS: Final = PRESENCE_EVENTS | {QUIET_LEAVE}

M = TypeVar("M", bound=Struct)


class Refusal(Exception):
    """A well-formed message that is not allowed; *reason* is counted and, where there is a reply, told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Grant(Struct, frozen=True):
    """A verified token with what is needed to check its holder's signatures."""

    signed: SignedToken
    token: Token
    verifier: Verifier
    fingerprint: bytes


class Trust:
    """Keys in hex; an unknown proxy is not believed, and without the login server's key no token is."""

    def __init__(self, *, login_public_key_hex: str, proxy_keys_hex: Mapping[str, str]) -> None:
        self._login = Verifier(bytes.fromhex(login_public_key_hex)) if login_public_key_hex else None
        self._proxy_keys_hex = proxy_keys_hex
        self._proxies: dict[str, Verifier] = {}  #: of those that were heard
        self._grants: OrderedDict[bytes, Grant] = OrderedDict()

    def grant(self, signed: SignedToken, *, device: str, conference: str) -> Grant:
        """Return what a token grants to a device in a conference, whether it has expired or not. Raises: Refusal."""
        key = signed.token + signed.signature
        grant = self._grants.get(key)
        if grant is None:
            grant = self._grants[key] = self._verified(signed)
            if len(self._grants) > TOKENS_MAX:
                self._grants.popitem(last=False)
        else:
            self._grants.move_to_end(key)
        if grant.token.device != device:
            raise Refusal("token_of_other_device")
        if grant.token.conference != conference:
            raise Refusal("token_of_other_conference")
        return grant

    def _verified(self, signed: SignedToken) -> Grant:
        if self._login is None or not self._login.is_valid(signed.signature, signed.token):
            raise Refusal("token_forged")
        token = decode(signed.token, Token)
        try:
            verifier = Verifier(token.public_key)
        except ValueError:
            raise Refusal("token_without_key") from None
        return Grant(signed, token, verifier, fingerprint(token.public_key))

    def check_entry(self, conference: str, entry: StreamEntry, sync_update: SyncUpdate) -> None:
        """Check that a proxy has put this into its stream at this place. Raises: Refusal."""
        verifier = self._proxy(entry.proxy)
        if verifier is None:
            raise Refusal("sync_update_of_unknown_proxy")
        if not verifier.is_valid(sync_update.signature, entry_statement(conference, entry, sync_update)):
            raise Refusal("sync_update_forged")

    def _proxy(self, device: str) -> Verifier | None:
        """Return the key of a proxy, None where that is not known."""
        verifier = self._proxies.get(device)
        if verifier is None and (key := self._proxy_keys_hex.get(device)) is not None:
            verifier = self._proxies[device] = Verifier(bytes.fromhex(key))
        return verifier

    def is_of_proxy(self, proxy: str, signature: bytes, statement: bytes) -> bool:
        """Tell whether a proxy has signed this."""
        verifier = self._proxy(proxy)
        return verifier is not None and verifier.is_valid(signature, statement)

    def open_from_proxy(self, sealed: Sealed, kind: type[M], place: bytes, proxy: str) -> M:
        """Return what a proxy has sealed for a place. Raises: Refusal, MalformedError."""
        return _opened(self._proxy(proxy), sealed, kind, place)

    def open_from_login(self, sealed: Sealed, kind: type[M], place: bytes) -> M:
        """Return what the login server has sealed for a place. Raises: Refusal, MalformedError."""
        return _opened(self._login, sealed, kind, place)


def _opened(verifier: Verifier | None, sealed: Sealed, kind: type[M], place: bytes) -> M:
    if verifier is None or not verifier.is_valid(sealed.signature, _sealed_statement(place, sealed.content)):
        raise Refusal("seal_forged")
    return decode(sealed.content, kind)


def seal(signer: Signer, message: Struct, place: bytes) -> Sealed:
    """Sign a message for one place, such as the name it travels under; nobody can use it for another."""
    content = encode(message)
    return Sealed(content, signer.sign(_sealed_statement(place, content)))


def _sealed_statement(place: bytes, content: bytes) -> bytes:
    return b"hconf seal\0" + hashlib.sha256(place).digest() + content


def place_of_message(name: MessageName) -> bytes:
    """Return the place of the answer to a message that is told from all others by its name."""
    return place_of(name.kind, *name.parts, boot=name.boot, seq=name.seq)


def place_of(kind: bytes, *parts: str, boot: int, seq: int) -> bytes:
    """Return the place of a message of its kind, whoever it is addressed to."""
    return kind + "\0".join((*parts, str(boot), str(seq))).encode()


def check_update(update: FpUpdate, signed: SignedUpdate, grant: Grant) -> None:
    """Check an FP update against its publisher's grant, in a way that has the same result everywhere. Raises: Refusal."""
    token = grant.token
    if token.role == "observer" and update.event not in OBSERVER_EVENTS:
        raise Refusal("observer_publishes")
    if not update.published_s <= token.expires_s:  # true for NaN as well
        raise Refusal("token_expired")
    if update.fingerprint != grant.fingerprint:
        raise Refusal("fingerprint_of_other_key")
    if not grant.verifier.is_valid(signed.signature, signed.update):
        raise Refusal("update_forged")


def join_statement(request: JoinRequest, name: MessageName, proxy: str) -> bytes:
    """Return what a device signs to join: the name, hence proxy, conference, device, boot and number; and the rest."""
    unsigned = encode(replace(request, signature=b""))
    return b"hconf join\0" + "\0".join((proxy, *name.parts, str(name.boot), str(name.seq), "")).encode() + unsigned


def entry_contents(sync_update: SyncUpdate) -> list[bytes]:
    """Return what an entry holds, as the links of its chain."""
    parts = [part for signed in sync_update.updates for part in (signed.update, signed.signature)]
    return parts + [encode(event) for event in sync_update.roster]


def entry_statement(conference: str, entry: StreamEntry, sync_update: SyncUpdate) -> bytes:
    """Return what a proxy signs of an entry of its stream.

    The chain digest covers all before it; the contents stand beside it, since it cannot be checked while entries in front
    are missing.
    """
    contents = hashlib.sha256()
    for part in entry_contents(sync_update):
        contents.update(len(part).to_bytes(4, "big"))
        contents.update(part)
    place = "\0".join((conference, entry.proxy, str(entry.boot), str(entry.seq))).encode()
    return b"hconf entry\0" + place + b"\0" + sync_update.chain_digest + contents.digest()
