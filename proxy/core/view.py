"""What a participant sees of a conference: per publisher how far, in order, each update once; and who is there.

An update is applied only if its publisher's token and signature allow it, and that is decided at its turn: the token comes
in an update of the publisher itself (``join``, ``renew``), so everybody decides alike whatever came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec import Struct

from proxy.core.signing import Verifier
from proxy.core.trust import KEY_EVENTS, Grant, Refusal, Trust, check_update
from proxy.wire.messages import (
    EMPTY_DIGEST,
    FpUpdate,
    Head,
    RosterEvent,
    SignedToken,
    SignedUpdate,
    Snapshot,
    Token,
    Via,
)
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: How a device that ever joined stands.
Standing = Literal["joined", "away", "left"]
#: Updates of one publisher kept while an earlier one is missing; beyond that the newest are dropped and recovered later.
HELD_MAX: Final = 1_024


def chained(digest: bytes, *contents: bytes) -> bytes:
    """Return the digest of a chain after one more link.

    >>> chained(bytes(16), b"a", b"b") != chained(bytes(16), b"ab")
    True
    """
    state = hashlib.sha256(digest)
    for content in contents:
        state.update(len(content).to_bytes(4, "big"))
        state.update(content)
    return state.digest()[:16]


class AppliedUpdate(Struct, frozen=True):
    """One update that has just become visible."""

    update: FpUpdate
    signed: SignedUpdate
    via: Via


@dataclass
class _Publisher:
    seq: int = 0
    content_digest: bytes = EMPTY_DIGEST
    joined: bool = False
    held: dict[int, AppliedUpdate] = field(default_factory=dict)
    grant: Grant | None = None  #: that of its last ``join`` or ``renew``; None where only a snapshot told of it
    token: SignedToken | None = None  #: what a snapshot said of it; checked when it is needed, which may be never
    is_refused: bool = False  #: its next update was not allowed: nothing after it is applied


class View:
    """Keyed by (device, boot): a publisher that starts again is a new sequence.

    Without *trust* everything is believed. *on_refusal* is told why an update was not applied.
    """

    def __init__(
        self, *, conference: str = "", trust: Trust | None = None, on_refusal: Callable[[str], None] | None = None
    ) -> None:
        self._conference, self._trust, self._on_refusal = conference, trust, on_refusal
        self._publishers: dict[tuple[str, int], _Publisher] = {}
        self._presence: dict[str, RosterEvent] = {}  #: by device, what holds now
        self._digest: bytes | None = None  #: as last worked out, until something is applied
        self._standings: dict[str, Standing] | None = None  #: the same, until something is noted
        self._lacks_no_keys = False  #: `keys_missing` has looked, and nothing has come since

    def seq(self, device: str, boot: int) -> int:
        """Return the last sequence number applied of a publisher, 0 for none."""
        publisher = self._publishers.get((device, boot))
        return publisher.seq if publisher is not None else 0

    def is_joined(self, device: str, boot: int) -> bool:
        """Tell whether a publisher has said that it joined, and not that it left."""
        publisher = self._publishers.get((device, boot))
        return publisher is not None and publisher.joined

    def verifier(self, device: str, boot: int) -> Verifier | None:
        """Return the key that a publisher signs with now, None where that is not known."""
        publisher = self._publishers.get((device, boot))
        grant = None if publisher is None else self._grant_of(device, publisher)
        return None if grant is None else grant.verifier

    def offer(self, signed: SignedUpdate, via: Via, *, grant: Grant | None = None) -> list[AppliedUpdate]:
        """Take in an update; return what can be applied now, in order (none where it is known or comes too early).

        *grant*: the update was checked against it already.
        Raises: MalformedError.
        """
        update = decode(signed.update, FpUpdate)
        if self._trust is not None and update.conference != self._conference:
            self._refuse("update_of_other_conference")
            return []
        publisher = self._publishers.setdefault((update.device, update.boot), _Publisher())
        if update.seq <= publisher.seq or update.seq in publisher.held:
            return []
        self._lacks_no_keys = False
        if publisher.is_refused and grant is None and update.seq > publisher.seq + 1:
            return []
        if update.seq > publisher.seq + 1:
            if len(publisher.held) < HELD_MAX:
                publisher.held[update.seq] = AppliedUpdate(update, signed, via)
            return []
        if grant is not None:
            publisher.grant, publisher.is_refused = grant, False
            return [self._apply(publisher, AppliedUpdate(update, signed, via)), *self._release(publisher)]
        publisher.held[update.seq] = AppliedUpdate(update, signed, via)
        return self._release(publisher)

    def _refuse(self, reason: str) -> None:
        if self._on_refusal is not None:
            self._on_refusal(reason)

    def _may_apply(self, publisher: _Publisher, item: AppliedUpdate) -> bool:
        """Tell whether an update may be applied now; one that never may is counted and forgotten."""
        update = item.update
        if self._trust is None:
            return True
        try:
            if update.event in KEY_EVENTS:
                grant: Grant | None = self._trust.grant(
                    decode(update.body, SignedToken), device=update.device, conference=self._conference
                )
            else:
                grant = self._grant_of(update.device, publisher)
            if grant is None:
                return False  # its key is asked for
            check_update(update, item.signed, grant)
        except (Refusal, MalformedError) as error:
            publisher.is_refused = True
            publisher.held.clear()
            self._refuse(error.reason if isinstance(error, Refusal) else "update_without_token")
            return False
        publisher.grant, publisher.is_refused = grant, False
        return True

    def _apply(self, publisher: _Publisher, applied: AppliedUpdate) -> AppliedUpdate:
        self._digest = self._standings = None
        publisher.seq = applied.update.seq
        publisher.content_digest = chained(publisher.content_digest, applied.signed.update)
        if applied.update.event in ("join", "leave"):
            publisher.joined = applied.update.event == "join"
        return applied

    def _release(self, publisher: _Publisher) -> list[AppliedUpdate]:
        released = []
        while (held := publisher.held.get(publisher.seq + 1)) is not None and self._may_apply(publisher, held):
            del publisher.held[publisher.seq + 1]
            released.append(self._apply(publisher, held))
        return released

    # ------------------------------------------------------------------ keys

    def learn(self, tokens: Iterable[SignedToken]) -> list[AppliedUpdate]:
        """Take in tokens of devices that only a snapshot told of; return what can be applied now."""
        released: list[AppliedUpdate] = []
        for device, signed, publishers in self._unknown_of(tokens):
            grant = self._checked(device, signed)
            if grant is not None:
                for publisher in publishers:
                    publisher.grant = grant
                    released += self._release(publisher)
        return released

    def _note_tokens(self, tokens: Iterable[SignedToken]) -> list[AppliedUpdate]:
        """Take in tokens from a snapshot, whose proxy has vouched for them: each is checked when it is first needed."""
        released: list[AppliedUpdate] = []
        for _, signed, publishers in self._unknown_of(tokens):
            for publisher in publishers:
                publisher.token = signed
                released += self._release(publisher)
        return released

    def _unknown_of(self, tokens: Iterable[SignedToken]) -> Iterator[tuple[str, SignedToken, list[_Publisher]]]:
        """Yield each token with its device and those of that which have none yet."""
        unknown: dict[str, list[_Publisher]] = {}
        for (device, _), publisher in self._publishers.items():
            if publisher.grant is None:
                unknown.setdefault(device, []).append(publisher)
        for signed in tokens if self._trust is not None and unknown else ():
            try:
                device = decode(signed.token, Token).device
            except MalformedError:
                self._refuse("token_malformed")
                continue
            if device in unknown:
                yield device, signed, unknown[device]

    def _checked(self, device: str, signed: SignedToken) -> Grant | None:
        """Return what a token grants, None where it is not believed."""
        try:
            return (
                None if self._trust is None else self._trust.grant(signed, device=device, conference=self._conference)
            )
        except (Refusal, MalformedError) as error:
            self._refuse(error.reason if isinstance(error, Refusal) else "token_malformed")
            return None

    def _grant_of(self, device: str, publisher: _Publisher) -> Grant | None:
        """Return what a publisher is granted; None where that is not known here."""
        if publisher.grant is None and publisher.token is not None:
            signed, publisher.token = publisher.token, None
            publisher.grant = self._checked(device, signed)
        return publisher.grant

    def keys_missing(self, *, count_max: int = 32) -> tuple[str, ...]:
        """Return devices whose updates wait, or will, for a token that is not known here."""
        if self._trust is None or self._lacks_no_keys:
            return ()
        missing = {
            device
            for (device, _), publisher in self._publishers.items()
            if publisher.grant is None
            and publisher.token is None
            and publisher.seq
            and (publisher.joined or publisher.held)
        }
        self._lacks_no_keys = not missing
        return tuple(sorted(missing)[:count_max])

    def tokens_of(self, devices: Iterable[str]) -> tuple[SignedToken, ...]:
        """Return the latest tokens of devices, as far as they are known."""
        latest: dict[str, SignedToken] = {}
        for (device, _), publisher in sorted(self._publishers.items()):
            signed = publisher.token if publisher.grant is None else publisher.grant.signed
            if signed is not None:
                latest[device] = signed
        return tuple(latest[device] for device in devices if device in latest)

    def tokens(self, *, max_bytes: int) -> tuple[SignedToken, ...]:
        """Return the tokens of those who are joined, as many as fit."""
        found: list[SignedToken] = []
        for token in self.tokens_of(self.roster()):
            max_bytes -= len(encode(token))
            if max_bytes < 0:
                break
            found.append(token)
        return tuple(found)

    # ------------------------------------------------------------------ presence

    def note(self, event: RosterEvent) -> bool:
        """Take in what a proxy says of the presence of a client; tell whether it is news."""
        known = self._presence.get(event.device)
        if known is not None and known.order >= event.order:
            return False
        self._presence[event.device] = event
        self._standings = None
        return True

    def presence(self) -> tuple[RosterEvent, ...]:
        """Return what holds of each device that was ever away or has moved, sorted."""
        return tuple(event for _, event in sorted(self._presence.items()))

    def presence_of(self, device: str) -> RosterEvent | None:
        """Return what proxies last said of a device."""
        return self._presence.get(device)

    # ------------------------------------------------------------------ snapshots

    def install(self, snapshot: Snapshot) -> tuple[list[Head], list[AppliedUpdate]]:
        """Take over a snapshot; return the heads that brought something new and what could be applied behind them."""
        news: list[Head] = []
        released: list[AppliedUpdate] = []
        self._digest = self._standings = None
        self._lacks_no_keys = False
        for event in snapshot.presence:
            self.note(event)
        for head in snapshot.heads:
            publisher = self._publishers.setdefault((head.device, head.boot), _Publisher())
            if head.seq <= publisher.seq:
                continue
            news.append(head)
            publisher.seq, publisher.content_digest, publisher.joined = head.seq, head.content_digest, head.joined
            publisher.held = {seq: held for seq, held in publisher.held.items() if seq > head.seq}
            released += self._release(publisher)
        return news, released + self._note_tokens(snapshot.tokens)

    def heads(self) -> tuple[Head, ...]:
        """Return what is known of every publisher, sorted."""
        return tuple(
            Head(device, boot, publisher.seq, publisher.content_digest, publisher.joined)
            for (device, boot), publisher in sorted(self._publishers.items())
            if publisher.seq
        )

    def held(self) -> tuple[SignedUpdate, ...]:
        """Return the updates that cannot be applied yet because an earlier one is missing, sorted."""
        return tuple(
            publisher.held[seq].signed
            for _, publisher in sorted(self._publishers.items())
            for seq in sorted(publisher.held)
        )

    def roster(self) -> list[str]:
        """Return the devices that are joined, sorted, those away included; the latest boot of a device decides."""
        return sorted(device for device, standing in self.standings().items() if standing != "left")

    def away(self) -> list[str]:
        """Return the devices that are joined and not heard by their proxy for a while, sorted."""
        return sorted(device for device, standing in self.standings().items() if standing == "away")

    def standings(self) -> dict[str, Standing]:
        """Return how each device that ever joined stands."""
        if self._standings is None:
            self._standings = self._work_out_standings()
        return dict(self._standings)

    def _work_out_standings(self) -> dict[str, Standing]:
        latest = {head.device: head for head in self.heads()}  # sorted by boot, so the last one wins
        found: dict[str, Standing] = {}
        for device, head in latest.items():
            event = self._presence.get(device)
            state = "present" if event is None or event.boot < head.boot else event.state
            if not head.joined or state == "left":
                found[device] = "left"
            else:
                found[device] = "away" if state == "away" else "joined"
        return found

    def digest(self) -> bytes:
        """Return 16 bytes that are equal where two views are equal."""
        if self._digest is None:
            told = (
                f"{head.device} {head.boot} {head.seq} {head.content_digest.hex()}".encode() for head in self.heads()
            )
            self._digest = chained(EMPTY_DIGEST, *told)
        return self._digest
