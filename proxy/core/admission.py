"""Who may do what at a service proxy: joins and updates of its own clients, checked against time and revocations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from proxy.core.client_session import ClientSession
from proxy.core.rate_limit import RateLimit
from proxy.core.trust import KEY_EVENTS, Grant, Refusal, Trust, check_update, join_statement
from proxy.wire.message_names import MessageName
from proxy.wire.messages import FpUpdate, JoinRequest, Revocation, SignedToken, SignedUpdate
from proxy.wire.payload import decode

__all__ = ["Admission", "Refusal"]

#: An update further ahead of its predecessors than any window reaches is no update of an honest client.
SEQUENCE_JUMP_MAX: Final = 10_000
#: A join is answered again under the same name so long after the first time: its reply may have been lost.
JOIN_REPEAT_S: Final = 10.0
#: Joins refused at one proxy, whoever they are from.
FAILURES_PER_S: Final = 50.0
FAILURES_BURST: Final = 100
#: Devices whose last join is remembered; they hold tokens, so there are no more of them than are registered.
JOINS_MAX: Final = 65_536


class _LastJoin(Struct, frozen=True):
    boot: int
    number: int
    first_s: float


class Admission:
    """What this proxy knows of devices beyond their tokens: their last joins, how often they come, who is revoked."""

    def __init__(self, trust: Trust, *, proxy: str, joins_per_s: float, joins_burst: int) -> None:
        self._trust, self._proxy = trust, proxy
        self._joins: dict[tuple[str, str], _LastJoin] = {}
        self._rate = RateLimit(per_s=joins_per_s, burst=joins_burst)
        self._failures = RateLimit(per_s=FAILURES_PER_S, burst=FAILURES_BURST)
        self._revoked: dict[str, float] = {}

    def check_rate(self, device: str, *, now_s: float) -> None:
        """Bound the work that joins make, those under one name and those that come to nothing. Raises: Refusal."""
        if not self._rate.admits(device, now_s=now_s) or not self._failures.has_room("", now_s=now_s):
            raise Refusal("join_flood")

    def note_failure(self, *, now_s: float) -> None:
        """A join was refused; too many of these, and joins are dropped unread until there is room again."""
        self._failures.admits("", now_s=now_s)

    def check_join(self, request: JoinRequest, name: MessageName, *, now_s: float) -> Grant:
        """Return what the device is granted: its token stands, it holds the key, and it has not said this before.

        Raises: Refusal.
        """
        conference, device = name.parts
        grant = self.check_token(request.token, device, conference, now_s=now_s)
        last = self._joins.get((conference, device))
        is_repeated = last is not None and (name.boot, name.seq) == (last.boot, last.number)
        if last is not None and (name.boot, name.seq) <= (last.boot, last.number):
            is_late = now_s - last.first_s > JOIN_REPEAT_S
            if is_late or not is_repeated:
                raise Refusal("join_replayed")
        if name.boot != request.boot or not grant.verifier.is_valid(
            request.signature, join_statement(request, name, self._proxy)
        ):
            raise Refusal("join_without_key")
        if not is_repeated and (last is not None or len(self._joins) < JOINS_MAX):
            self._joins[conference, device] = _LastJoin(name.boot, name.seq, now_s)
        return grant

    def end_join(self, conference: str, device: str) -> None:
        """The session that the last join of a device began has ended: from now on that join is a replay."""
        last = self._joins.get((conference, device))
        if last is not None:
            self._joins[conference, device] = _LastJoin(last.boot, last.number, float("-inf"))

    def check_token(self, signed: SignedToken, device: str, conference: str, *, now_s: float) -> Grant:
        """Return what a token grants now. Raises: Refusal."""
        grant = self._trust.grant(signed, device=device, conference=conference)
        self.check_grant(grant, now_s=now_s)
        return grant

    def check_grant(self, grant: Grant, *, now_s: float) -> None:
        """Check that a grant stands at this moment. Raises: Refusal."""
        if self.is_revoked(grant):
            raise Refusal("revoked")
        if not now_s < grant.token.expires_s:
            raise Refusal("token_expired")

    def check_update(
        self, signed: SignedUpdate, update: FpUpdate, session: ClientSession, name: MessageName, *, now_s: float
    ) -> Grant:
        """Check an FP update against its name, its publisher's token and its signature; return the grant it falls under.

        Raises: Refusal.
        """
        if (update.conference, update.device, update.boot, update.seq) != (*name.parts, name.boot, name.seq):
            raise Refusal("update_under_other_name")
        if update.seq > session.accepted_seq + SEQUENCE_JUMP_MAX:
            raise Refusal("sequence_jump")
        self.check_grant(session.grant, now_s=now_s)
        grant = session.grant
        if (
            update.event in KEY_EVENTS
        ):  # sent again after a renewal, it may carry an earlier token, which was valid then
            token = decode(update.body, SignedToken)
            grant = self._trust.grant(token, device=session.device, conference=update.conference)
        check_update(update, signed, grant)
        return grant

    # ------------------------------------------------------------------ revocations

    def revoke(self, revocations: Iterable[Revocation]) -> list[str]:
        """Take in what the login server says; return the devices for which that is news."""
        news = [each for each in revocations if each.revoked_s > self._revoked.get(each.device, float("-inf"))]
        self._revoked |= {each.device: each.revoked_s for each in news}
        return [each.device for each in news]

    def is_revoked(self, grant: Grant) -> bool:
        """Tell whether a token was issued before its device was revoked."""
        return grant.token.issued_s <= self._revoked.get(grant.token.device, float("-inf"))
