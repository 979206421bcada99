"""What a service proxy knows of one conference: its digest log, its clients, the other proxies."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.core.client_session import ClientSession
from proxy.core.digest_log import DigestLog, Stream
from proxy.core.outbox import RequestKey
from proxy.core.snapshot_transfer import FrozenSnapshots, SnapshotFetch

#: Sync interests kept armed per stream while all is quiet. One allows one entry a round trip; the others cost one
#: packet a link per lifetime and save a push when publishers burst.
ARMED_MIN = 4
#: A remote that has published without a push for so long is followed with half as many.
NARROW_AFTER_S = 5.0


@dataclass(slots=True)
class Peer:
    """Another proxy of a conference."""

    boot: int
    heard_s: float
    up: bool = True


@dataclass(slots=True)
class Conference:
    """One conference at this proxy."""

    name: str
    log: DigestLog
    own: Stream
    fetch: SnapshotFetch[RequestKey]
    frozen: FrozenSnapshots = field(default_factory=FrozenSnapshots)
    clients: dict[str, ClientSession] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    #: sequence number of our own stream -> until when a sync interest is pending for it
    armed: dict[int, float] = field(default_factory=dict)
    #: boot of ours -> how far another proxy has our stream of it
    replicated: dict[int, int] = field(default_factory=dict)
    #: per remote proxy: how many sync interests we keep armed, and when that was last too few
    widths: dict[str, tuple[int, float]] = field(default_factory=dict)

    def width(self, proxy: str) -> int:
        """Return how many sync interests to keep armed for a remote's next entries."""
        return self.widths.get(proxy, (ARMED_MIN, 0.0))[0]

    def widen(self, proxy: str, armed_max: int, *, now_s: float) -> None:
        """Double the number of armed sync interests of a remote."""
        self.widths[proxy] = (min(2 * self.width(proxy), armed_max), now_s)

    def narrow(self, *, now_s: float) -> list[str]:
        """Halve the numbers that have been enough for a while; return the remotes concerned."""
        narrowed = [
            proxy
            for proxy, (width, since_s) in self.widths.items()
            if width > ARMED_MIN and now_s - since_s > NARROW_AFTER_S
        ]
        for proxy in narrowed:
            self.widths[proxy] = (max(ARMED_MIN, self.width(proxy) // 2), now_s)
        return narrowed
