"""How a service client comes to its token and keeps it: asks, waits, asks again, renews."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from proxy.core.client_outbox import ClientOutbox
from proxy.core.login_server import login_proof
from proxy.core.timers import Timers
from proxy.core.trust import Refusal
from proxy.wire.message_names import LOGIN, message_name, node_prefix, parse_message_name
from proxy.wire.messages import LoginReply, LoginRequest
from proxy.wire.payload import encode

#: A login is tried so often before it waits: LOGIN_WAIT_S, and twice as long each time, up to LOGIN_WAIT_MAX_S.
LOGIN_ATTEMPTS: Final = 4
LOGIN_WAIT_S: Final = 0.5
LOGIN_WAIT_MAX_S: Final = 8.0
#: A token is renewed when this part of its lifetime is over, so that a login server may be down for the rest of it.
RENEW_AT_RATIO: Final = 2 / 3


class LoginRefusedError(Exception):
    """The login server does not let us in; asking again does not help."""


class ClientLogin:
    """Sets the timers ``login`` (ask again) and ``expiry`` (of the token) among *timers*, and the grant of *out*."""

    def __init__(self, out: ClientOutbox, timers: Timers[str], *, needs_proxy: bool = True) -> None:
        self._out, self._timers, self._needs_proxy = out, timers, needs_proxy
        self._in_vain = 0  #: logins since the last token

    @property
    def is_asking(self) -> bool:
        return ("login", 0) in self._out.consumer

    def request(self) -> None:
        """Ask for a token, the first one or the next."""
        out = self._out
        server = out.config.login_server
        name = message_name(node_prefix(server), LOGIN, out.device, boot=out.boot, seq=out.next_number())
        request = LoginRequest(out.device, out.conference, out.config.role, out.signer.public_key, b"")
        proof = login_proof(request, parse_message_name(name))
        out.effects.extend(
            out.consumer.express(
                ("login", 0),
                name,
                now_s=out.now_s,
                peer=server,
                parameters=encode(replace(request, signature=out.signer.sign(proof))),
                attempts_max=LOGIN_ATTEMPTS,
            )
        )

    def wait(self) -> None:
        """The login server does not answer: joined or not, try again later, and later still."""
        wait_s = min(LOGIN_WAIT_S * 2.0**self._in_vain, LOGIN_WAIT_MAX_S)
        self._in_vain = min(self._in_vain + 1, 16)
        self._timers.set("login", self._out.now_s + wait_s * (1.0 - 0.5 * self._out.chance.uniform()))

    def on_reply(self, reply: LoginReply) -> tuple[str, ...]:
        """Take the token; return the proxies that we are assigned, best first.

        Raises: LoginRefusedError, Refusal (the reply is not from our login server).
        """
        if not reply.granted or reply.token is None or (self._needs_proxy and not reply.proxies):
            raise LoginRefusedError(reply.reason or "no proxy assigned")
        out = self._out
        try:
            grant = out.trust.grant(reply.token, device=out.device, conference=out.conference)
        except Refusal:
            self.wait()
            raise
        out.grant, self._in_vain = grant, 0
        lifetime_s = grant.token.expires_s - out.now_s
        self._timers.set("login", out.now_s + lifetime_s * RENEW_AT_RATIO)
        self._timers.set("expiry", grant.token.expires_s)
        return reply.proxies

    def stop(self) -> None:
        """Neither ask nor renew any more."""
        self._out.consumer.cancel(("login", 0))
        self._timers.cancel("login")
        self._timers.cancel("expiry")
