"""The asking side of an application: Interests that are repeated until they are answered, given up or cancelled."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from msgspec import Struct

from proxy.core.events import LOCAL_FACE, Effect, Send
from proxy.core.seeded import SplitMix64
from proxy.core.timers import Timers
from proxy.wire.packet import Data, Interest, encode_interest

RTO_INITIAL_S: Final = 0.25
RTO_MIN_S: Final = 0.02
RTO_MAX_S: Final = 1.0
#: An armed Interest is refreshed after at most this part of its lifetime, before routers that aggregated it forget it.
REFRESH_RATIO: Final = 0.6

K = TypeVar("K", bound=Hashable)


class RoundTripEstimator:
    """Retransmission timeout of one peer. Source: RFC 6298 section 2, with a lower minimum (we are not on the Internet)."""

    def __init__(self, *, rto_min_s: float = RTO_MIN_S, rto_max_s: float = RTO_MAX_S) -> None:
        self.srtt_s: float | None = None
        self._rttvar_s, self._rto_min_s, self._rto_max_s = 0.0, rto_min_s, rto_max_s

    def sample(self, rtt_s: float) -> None:
        """Take in a measured round trip."""
        if self.srtt_s is None:
            self.srtt_s, self._rttvar_s = rtt_s, rtt_s / 2
            return
        self._rttvar_s += 0.25 * (abs(self.srtt_s - rtt_s) - self._rttvar_s)
        self.srtt_s += 0.125 * (rtt_s - self.srtt_s)

    @property
    def rto_s(self) -> float:
        """How long to wait for an answer, in seconds."""
        if self.srtt_s is None:
            return RTO_INITIAL_S
        return min(self._rto_max_s, max(self.srtt_s + 4 * self._rttvar_s, self.srtt_s + self._rto_min_s))


class Pending(Generic[K]):
    """One Interest that waits for its Data."""

    def __init__(
        self,
        key: K,
        name: bytes,
        parameters: bytes | None,
        lifetime_s: float,
        peer: str,
        attempts_max: int | None,
        *,
        armed: bool,
        now_s: float,
    ) -> None:
        self.key, self.base_name, self.name, self.parameters = key, name, name, parameters
        self.lifetime_s, self.peer, self.attempts_max = lifetime_s, peer, attempts_max
        self.armed = armed  #: sent before there is an answer: refreshed before it expires, not repeated as lost
        self.was_armed = False  #: sent before there was an answer, too
        self.sent_s, self.first_sent_s = 0.0, now_s
        self.attempts = self.nacks = 0
        self.expiring = False


class GivenUp(Struct, Generic[K], frozen=True):
    """The last attempt has expired or was refused by the network."""

    key: K
    reason: str


class Consumer(Generic[K]):
    """Keeps pending Interests by key and by name. Names are unique among the pending."""

    def __init__(self, chance: SplitMix64) -> None:
        self._chance = chance
        self._by_key: dict[K, Pending[K]] = {}
        self._by_name: dict[bytes, K] = {}
        self._timers: Timers[K] = Timers()
        self._estimators: dict[str, RoundTripEstimator] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        return self._timers.next_s

    def get(self, key: K) -> Pending[K] | None:
        """Return what is pending under *key*."""
        return self._by_key.get(key)

    def armed_keys(self) -> list[K]:
        """Return the keys of what was asked for before there is an answer."""
        return [key for key, pending in self._by_key.items() if pending.armed]

    def estimator(self, peer: str) -> RoundTripEstimator:
        """Return the round-trip estimator of a peer."""
        return self._estimators.setdefault(peer, RoundTripEstimator())

    def express(
        self,
        key: K,
        name: bytes,
        *,
        now_s: float,
        peer: str,
        parameters: bytes | None = None,
        lifetime_s: float = 1.0,
        attempts_max: int | None = None,
        armed: bool = False,
    ) -> list[Effect]:
        """Send an Interest and keep at it; what was pending under *key* is replaced.

        attempts_max None: until cancelled. Raises: ValueError where the packet would be too large.
        """
        self.cancel(key)
        pending = Pending(key, name, parameters, lifetime_s, peer, attempts_max, armed=armed, now_s=now_s)
        effects = self._send(pending, now_s)
        self._by_key[key] = pending
        self._by_name[pending.name] = key
        return effects

    def cancel(self, key: K) -> None:
        """Stop asking; *key* need not be pending."""
        pending = self._by_key.pop(key, None)
        if pending is not None:
            self._by_name.pop(pending.name, None)
            self._timers.cancel(key)

    def cancel_all(self) -> None:
        """Stop asking for anything."""
        for key in list(self._by_key):
            self.cancel(key)

    def let_expire(self, key: K) -> None:
        """Do not refresh an armed Interest any more; an answer that comes before it expires is still taken."""
        pending = self._by_key.get(key)
        if pending is not None and pending.armed:
            pending.expiring = True
            self._timers.set(key, pending.sent_s + pending.lifetime_s)

    def keep(self, key: K, *, now_s: float) -> None:
        """Refresh an armed Interest after all. (Sending it anew would look like a loss to routers on the way.)."""
        pending = self._by_key.get(key)
        if pending is not None and pending.expiring:
            pending.expiring = False
            self._timers.set(key, max(now_s, pending.sent_s + pending.lifetime_s * (REFRESH_RATIO - 0.1)))

    def expedite(self, key: K, *, attempts_max: int, now_s: float) -> list[Effect]:
        """The answer of an armed Interest is known to exist: from now on treat it as lost and repeat it."""
        pending = self._by_key.get(key)
        if pending is None or not pending.armed:
            return []
        pending.armed = pending.expiring = False
        pending.was_armed = True
        pending.attempts, pending.attempts_max = 0, attempts_max
        return self._send(pending, now_s)

    def asked(self, data: Data) -> Pending[K] | None:
        """Return what *data* answers; it stays pending, and is repeated in time if the answer is not believed."""
        key = self._by_name.get(data.name)
        return None if key is None else self._by_key[key]

    def on_data(self, data: Data, *, now_s: float) -> Pending[K] | None:
        """Return, and forget, what *data* answers."""
        key = self._by_name.get(data.name)
        if key is None:
            return None
        pending = self._by_key[key]
        self.cancel(key)
        # Karn: what was sent more than once tells nothing about the round trip.
        if pending.attempts == 1 and not pending.armed and not pending.was_armed:
            self.estimator(pending.peer).sample(now_s - pending.sent_s)
        return pending

    def on_nack(self, interest: Interest, *, now_s: float) -> Pending[K] | None:
        """The network cannot deliver: repeat after a pause that doubles; return what the Nack is about."""
        key = self._by_name.get(interest.name)
        if key is None:
            return None
        pending = self._by_key[key]
        pending.nacks += 1
        self._timers.set(key, now_s + min(RTO_MAX_S, RTO_MIN_S * 2 ** min(pending.nacks, 8)))
        return pending

    def on_timer(self, now_s: float) -> tuple[list[Effect], list[GivenUp[K]]]:
        """Repeat what is due; return the sends and what is given up."""
        effects: list[Effect] = []
        given_up: list[GivenUp[K]] = []
        for key in self._timers.pop_due(now_s):
            pending = self._by_key[key]
            if pending.expiring:
                self.cancel(key)
            elif pending.attempts_max is not None and pending.attempts >= pending.attempts_max:
                self.cancel(key)
                given_up.append(GivenUp(key, "network" if pending.nacks else "no answer"))
            else:
                effects += self._send(pending, now_s)
        return effects, given_up

    def _send(self, pending: Pending[K], now_s: float) -> list[Effect]:
        pending.name, packet = encode_interest(
            pending.base_name,
            nonce=self._chance.nonce(),
            lifetime_ms=round(pending.lifetime_s * 1e3),
            parameters=pending.parameters,
        )
        pending.sent_s = now_s
        pending.attempts += 1
        if pending.armed:
            wait_s = pending.lifetime_s * (REFRESH_RATIO - 0.1 * self._chance.uniform())
        else:
            backoff = 2 ** min(pending.attempts - 1, 6)
            wait_s = min(RTO_MAX_S, self.estimator(pending.peer).rto_s * backoff)
        self._timers.set(pending.key, now_s + wait_s)
        return [Send(LOCAL_FACE, packet)]
