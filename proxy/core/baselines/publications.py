"""Publications by name: own ones given out to whoever asks, those of others asked for as soon as they are known to exist."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from proxy.config import FetchConfig
from proxy.core.baselines.key_ring import FetchKey
from proxy.core.client_outbox import ClientOutbox
from proxy.core.consumer import Consumer, Pending
from proxy.core.events import LOCAL_FACE, Send
from proxy.core.receiver import log_applied
from proxy.core.timers import Timers
from proxy.core.trust import Refusal
from proxy.core.view import View
from proxy.wire.message_names import PUBLICATION, message_name, node_prefix
from proxy.wire.messages import FpUpdate, SignedUpdate
from proxy.wire.packet import Data, Interest, encode_data
from proxy.wire.payload import decode, encode

#: A publication never changes; content stores keep it as long as there is room.
FRESHNESS_MS: Final = 10_000
#: What was not believed, or is out of order for good, is asked for again after so long.
RETRY_S: Final = 1.0


def publication_name(device: str, conference: str, *, boot: int, seq: int) -> bytes:
    """Return the name under which a device gives out one of its updates."""
    return message_name(node_prefix(device), PUBLICATION, conference, boot=boot, seq=seq)


class PublicationStore:
    """What we have published, ready to be sent; bounded, the oldest goes first."""

    def __init__(self, out: ClientOutbox, config: FetchConfig) -> None:
        self._out, self._max = out, config.store_max
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, signed: SignedUpdate, seq: int) -> None:
        """Keep our update number *seq*."""
        out = self._out
        name = publication_name(out.device, out.conference, boot=out.boot, seq=seq)
        self._kept[name] = encode_data(name, encode(signed), freshness_ms=FRESHNESS_MS)
        if len(self._kept) > self._max:
            self._kept.popitem(last=False)

    def on_interest(self, interest: Interest) -> None:
        """Somebody asks for one."""
        data = self._kept.get(interest.name)
        if data is None:
            self._out.counters["publications_not_here"] += 1
        else:
            self._out.counters["publications_sent"] += 1
            self._out.effects.append(Send(LOCAL_FACE, data))


class PublicationFetch:
    """Feeds *view*; several publications of each participant are under way at the same time.

    An Interest that is not answered is repeated after the retransmission timeout of RFC 6298, for as long as we take part.
    """

    def __init__(
        self,
        out: ClientOutbox,
        consumer: Consumer[FetchKey],
        config: FetchConfig,
        *,
        view: View,
        on_update: Callable[[FpUpdate], None],
    ) -> None:
        self._out, self._consumer, self._view, self._on_update = out, consumer, view, on_update
        self._window = config.fetch_window
        self._latest: dict[tuple[str, int], int] = {}  #: (device, boot) -> last publication that there is
        self._asked: dict[tuple[str, int], dict[int, None]] = {}  #: numbers that are under way
        self._next: dict[tuple[str, int], int] = {}  #: the first that was not asked for yet
        self._retry: Timers[tuple[str, int]] = Timers()
        self.is_running = False

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        return self._retry.next_s

    def start(self) -> None:
        """Ask for everything that there is and we have not."""
        self.is_running = True
        for key in self._latest:
            self._pump(key)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self.is_running = False
        for key, asked in self._asked.items():
            for seq in asked:
                self._consumer.cancel(("publication", key[0], key[1], seq))
            self._retry.cancel(key)
            asked.clear()
            self._next[key] = 0

    def note(self, device: str, boot: int, seq: int) -> None:
        """There are publications of a device up to *seq*."""
        key = (device, boot)
        if device == self._out.device or seq <= self._latest.get(key, 0):
            return  # what we have published before we forgot it, nobody but us could give out
        self._latest[key] = seq
        self._pump(key)

    def _pump(self, key: tuple[str, int]) -> None:
        if not self.is_running:
            return
        device, boot = key
        asked = self._asked.setdefault(key, {})
        seq = max(self._next.get(key, 0), self._view.seq(device, boot) + 1)
        while seq <= self._latest[key] and len(asked) < self._window:
            if seq not in asked:
                asked[seq] = None
                self._out.effects.extend(
                    self._consumer.express(
                        ("publication", device, boot, seq),
                        publication_name(device, self._out.conference, boot=boot, seq=seq),
                        now_s=self._out.now_s,
                        peer=device,
                    )
                )
            seq += 1
        self._next[key] = seq

    def check_answer(self, pending: Pending[FetchKey], data: Data) -> SignedUpdate:
        """Return the update in an answer. Raises: Refusal, MalformedError; it is then still asked for."""
        _, device, boot, seq = pending.key
        signed = decode(data.content, SignedUpdate)
        update = decode(signed.update, FpUpdate)
        if (update.conference, update.device, update.boot, update.seq) != (self._out.conference, device, boot, seq):
            raise Refusal("publication_of_other_name")
        return signed

    def take(self, pending: Pending[FetchKey], signed: SignedUpdate) -> None:
        """Apply what was asked for as soon as its turn comes. Raises: MalformedError."""
        _, device, boot, seq = pending.key
        key = (device, boot)
        self._asked[key].pop(seq, None)
        before = self._view.seq(device, boot)
        log_applied(self._out, self._view.offer(signed, "fetch"), self._on_update)
        if seq == before + 1 and self._view.seq(device, boot) == before:
            self._retry.set(key, self._out.now_s + RETRY_S)
        self._pump(key)

    def on_timer(self) -> None:
        """Ask again for what was not believed."""
        for key in self._retry.pop_due(self._out.now_s):
            self._next[key] = 0
            self._pump(key)
