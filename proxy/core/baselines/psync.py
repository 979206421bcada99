"""PSync, full synchronisation: the packets. What is in the set is `FullSync`'s business.

Everybody keeps one sync Interest outstanding, ``/hconf/32=group/32=psync/<conference>/<filter>/<publications>``: whoever has
something that is not in the filter answers it with names, ``…/<publications>/v=<number>/seg=0``. All who have the same asks
with the same name, so one answer serves them all. Who is told something new asks again after 0.1 to 0.5 s, so that the others
have been told it, too; who is behind waits as long before it looks again at the Interests of those ahead.

Answers are signed with the key of who gives them, and are one packet each: experiments with more participants than fit into one
are refused. Source: as of `FullSync`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.config import PsyncConfig
from proxy.core.baselines.full_sync import FullSync
from proxy.core.baselines.key_ring import KeyRing
from proxy.core.baselines.signed_inbox import SignedInbox
from proxy.core.client_outbox import ClientOutbox
from proxy.core.events import LOCAL_FACE, Send
from proxy.core.timers import Timers
from proxy.wire.message_names import IDENTIFIER_MAX_OCTETS, PSYNC, component_text, node_prefix, sync_group
from proxy.wire.name import GENERIC, SEGMENT, VERSION, boundaries, component, number, read_number
from proxy.wire.packet import Data, Interest, encode_interest
from proxy.wire.psync import BloomFilter, decode_filter, decode_names, encode_names, numbered
from proxy.wire.signed_data import SignedData, decode_signed_data, encode_signed_data
from proxy.wire.tlv import PACKET_MAX_BYTES, MalformedError, non_negative_integer

#: Interests of others that are kept, for each of two reasons; their names change with every publication.
KEPT_MAX: Final = 1_024
#: Answers given out again while they are fresh.
STORED_MAX: Final = 256
#: All that there is may be long: it is not to stay in content stores.
EVERYTHING_FRESHNESS_S: Final = 0.010
#: So often an Interest of somebody who is ahead is looked at again.
TRIES_MAX: Final = 2


class PsyncGroup:
    """*on_news* is told of (device, boot, seq): there are publications of it up to that one."""

    def __init__(
        self, out: ClientOutbox, config: PsyncConfig, key_ring: KeyRing, *, on_news: Callable[[str, int, int], None]
    ) -> None:
        self._out, self._config, self._key_ring, self._on_news = out, config, key_ring, on_news
        self._prefix = sync_group(PSYNC, out.conference)
        self._own_prefix = node_prefix(out.device) + number(out.boot, VERSION)
        self._set = FullSync(config.expected_entries)
        self._outstanding = b""  #: name of our last sync Interest
        self._is_asking = False  #: it has not been answered yet
        self._asked_s = float("-inf")
        self._waits_out = (
            False  #: an answer had nothing new: asking at once would only bring it again, from a content store
        )
        self._ask_s: float | None = None  #: when to ask again; None: we have not joined yet
        self._pending: dict[bytes, BloomFilter] = {}  #: name -> filter of those who ask and have what we have
        self._forget: Timers[bytes] = Timers()  #: the above
        self._ahead: dict[
            bytes, int
        ] = {}  #: names of those who have what we have not -> how often we have looked again
        self._look_s: float | None = None  #: when to look again
        self._stored: dict[bytes, bytes] = {}  #: name of the Interest -> the answer that we gave
        self._stale: Timers[bytes] = Timers()  #: the above
        self._inbox = SignedInbox(out, key_ring, what="answer")
        self._versions = 0

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        wishes = (self._ask_s, self._look_s, self._forget.next_s, self._stale.next_s)
        return min((at for at in wishes if at is not None), default=None)

    def begin(self) -> None:
        """Ask for what there is."""
        if self._ask_s is None:
            self._ask()

    def _jitter_s(self) -> float:
        config = self._config
        return config.jitter_min_s + (config.jitter_max_s - config.jitter_min_s) * self._out.chance.uniform()

    # ------------------------------------------------------------------ asking

    def _ask(self) -> None:
        """Send the sync Interest that says what we have, in the place of the one that is outstanding."""
        out, config = self._out, self._config
        if self._waits_out:
            return  # the timer that ends it is set
        name = self._prefix + self._set.component() + component(non_negative_integer(self._set.elements))
        if name == self._outstanding and out.now_s - self._asked_s < config.jitter_min_s:
            return  # so is the one that asks again
        self._ask_s = out.now_s + config.sync_interest_lifetime_s / 2 + self._jitter_s()
        self._outstanding, self._asked_s, self._is_asking = name, out.now_s, True
        try:
            _, packet = encode_interest(
                name,
                nonce=out.chance.nonce(),
                lifetime_ms=round(config.sync_interest_lifetime_s * 1e3),
                can_be_prefix=True,
                must_be_fresh=True,
            )
        except ValueError:  # the filter is configured too large
            out.counters["filters_too_large"] += 1
            return
        out.counters["sync_interests_sent"] += 1
        out.effects.append(Send(LOCAL_FACE, packet))

    def on_data(self, data: Data) -> bool:
        """Take what we lack; False: that is no answer to a sync Interest of ours. Raises: Refusal, MalformedError."""
        if not self._is_asking or not data.name.startswith(self._outstanding):
            return False
        said = decode_signed_data(data.wire)
        if len(boundaries(said.name[len(self._outstanding) :])) != 2:
            raise MalformedError("an answer of PSync has a version and a segment number")
        if (verified := self._inbox.receive(said)) is not None:
            self._take(verified)
        return True

    def on_key(self, device: str) -> None:
        """Look at what a device has answered. Raises: Refusal, MalformedError."""
        if (said := self._inbox.on_key(device)) is not None:
            self._take(said)

    def _take(self, said: SignedData) -> None:
        participants = [(_participant(prefix), prefix, seq) for prefix, seq in decode_names(said.content)]
        asked = said.name[: boundaries(said.name)[-3]]
        if asked == self._outstanding:
            self._is_asking = False
        self._pending.pop(asked, None)
        self._forget.cancel(asked)
        is_news = False
        for (device, boot), prefix, seq in participants:
            if self._set.update(prefix, seq):
                is_news = True
                self._on_news(device, boot, seq)
        self._waits_out = not is_news
        wait_s = self._jitter_s()
        if is_news:
            self._ask_s = self._out.now_s + wait_s  # the others shall have it, too, before we say that we have
            self._look_again()
        else:
            self._ask_s = self._out.now_s + wait_s + self._config.sync_reply_freshness_s

    def on_nack(self, interest: Interest) -> None:
        """Ask again soon: sooner than if there were just nothing new."""
        if interest.name == self._outstanding and not self._waits_out:
            self._ask_s = self._out.now_s + self._jitter_s()

    def on_face_up(self) -> None:
        """The sync Interest is sent anew soon, whatever happens."""

    # ------------------------------------------------------------------ answering

    def publish(self, seq: int) -> None:
        """Answer everybody who had all that we had."""
        self._set.update(self._own_prefix, seq)
        self._waits_out = False
        published = numbered(self._own_prefix, seq)
        waiting, self._pending = self._pending, {}
        for name, theirs in waiting.items():
            self._forget.cancel(name)
            self._answer(name, self._set.news_for(theirs, published), self._config.sync_reply_freshness_s)

    def on_interest(self, interest: Interest) -> None:
        """Somebody says what it has. Raises: MalformedError."""
        if self._ask_s is None:
            return  # we have not joined yet
        stored = self._stored.get(interest.name)
        if stored is not None:
            self._out.effects.append(Send(LOCAL_FACE, stored))
            return
        if self._consider(interest.name, interest.lifetime_ms / 1e3) == "wait" and interest.name not in self._ahead:
            if len(self._ahead) < KEPT_MAX:
                self._ahead[interest.name] = 0
            if self._look_s is None:
                self._look_s = self._out.now_s + self._jitter_s()

    def _consider(self, name: bytes, lifetime_s: float) -> str:
        """Do what there is to do about the sync Interest of this name; return what that is. Raises: MalformedError."""
        filter_component, elements = self._parsed(name)
        theirs = decode_filter(filter_component, self._config.expected_entries)
        decision, names = self._set.decide(theirs, elements)
        if decision == "pend" and (name in self._pending or len(self._pending) < KEPT_MAX):
            self._pending[name] = theirs
            self._forget.set(name, self._out.now_s + lifetime_s)
        elif names:
            is_all = decision == "everything"
            self._answer(name, names, EVERYTHING_FRESHNESS_S if is_all else self._config.sync_reply_freshness_s)
            if is_all:
                self._pending.pop(name, None)
                self._forget.cancel(name)
        return decision

    def _parsed(self, name: bytes) -> tuple[bytes, int]:
        """Return the filter, and how many publications there are, in the name of a sync Interest. Raises: MalformedError."""
        said = name[len(self._prefix) :]
        ends = boundaries(said)
        if not name.startswith(self._prefix) or len(ends) != 2 or said[ends[0]] != GENERIC:
            raise MalformedError("no sync Interest of PSync in this conference")
        return said[: ends[0]], read_number(said[ends[0] + 2 :])

    def _look_again(self) -> None:
        """Look again at those who were ahead of us: we may have more now than they had."""
        for name in list(self._ahead):
            self._ahead[name] += 1
            if self._consider(name, self._config.sync_interest_lifetime_s) != "wait" or self._ahead[name] >= TRIES_MAX:
                del self._ahead[name]

    def _answer(self, name: bytes, names: list[bytes], freshness_s: float) -> None:
        """Tell all who have asked under a name; we may be one of them."""
        out = self._out
        self._versions += 1
        data = encode_signed_data(
            name + number(self._versions, VERSION) + number(0, SEGMENT),
            encode_names(names),
            key_name=self._key_ring.own_key_name,
            sign=out.signer.sign,
            freshness_ms=round(freshness_s * 1e3),
            final_block=number(0, SEGMENT),
        )
        if len(data) > PACKET_MAX_BYTES:
            out.counters["answers_too_large"] += 1
            return
        out.counters["sync_answers_sent"] += 1
        if len(self._stored) < STORED_MAX:
            self._stored[name] = data
            self._stale.set(name, out.now_s + freshness_s)
        out.effects.append(Send(LOCAL_FACE, data))
        if name == self._outstanding and self._is_asking:
            self._is_asking = False  # the network takes ours for answered, too
            self._outstanding = b""
            self._ask()

    def on_timer(self) -> None:
        """Forget who does not wait any more, look again at who was ahead, and ask again."""
        now_s = self._out.now_s
        for name in self._forget.pop_due(now_s):
            del self._pending[name]
        for name in self._stale.pop_due(now_s):
            del self._stored[name]
        if self._look_s is not None and self._look_s <= now_s:
            self._look_s = None
            self._look_again()
            if self._ahead:
                self._look_s = now_s + self._jitter_s()
        if self._ask_s is not None and self._ask_s <= now_s:
            self._waits_out = False
            self._ask_s = now_s + self._jitter_s()  # unless asking sets it
            self._ask()


def _participant(prefix: bytes) -> tuple[str, int]:
    """Return the device and boot that a prefix in the set says. Raises: MalformedError."""
    device, ends = component_text(prefix, 1), boundaries(prefix)
    if len(ends) != 3 or prefix[: ends[1]] != node_prefix(device) or prefix[ends[1]] != VERSION:
        raise MalformedError("PSync names what is no participant")
    if not 1 <= len(device.encode()) <= IDENTIFIER_MAX_OCTETS:
        raise MalformedError("PSync names a device whose name is empty or too long")
    return device, read_number(prefix[ends[1] + 2 :])
