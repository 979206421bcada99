"""Control before media: on a link with a rate, Data of the data plane waits at the sending face, never in the link's queue.

Whatever is on the link's own queue delays all that comes after it, so no more is put there than the link carries at once:
control packets go at once and are accounted for, the others go when all before them has left, a little below the link's rate.
A control packet waits for one packet of the data plane at most.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.wire.lp import LinkPacket

#: Types of message that wait; Interests of the data plane are small, and there is one for each of these.
PACED: Final = frozenset({"object-segment"})
#: Part of the link's rate that is used, so that its own queue drains.
SHARE: Final = 0.95
#: Ethernet, IPv4 and UDP headers of each datagram.
FRAMING_BYTES: Final = 14 + 20 + 8
#: A driver that wakes up late may catch up on so much.
CATCH_UP_S: Final = 0.002
#: What waits, in bytes of network packets; what comes then is dropped, as by any full queue.
WAITING_MAX_BYTES: Final = 256 * 1024


class Pacer:
    """Of one face. ``put`` what may wait, ``pop`` what may go, ``note`` every datagram that went."""

    def __init__(self, *, rate_mbps: float) -> None:
        self._bytes_per_s = rate_mbps * 1e6 / 8 * SHARE
        self._waiting: deque[tuple[str, LinkPacket, bool]] = deque()
        self._waiting_bytes = 0
        self._free_s = 0.0  #: when the link has carried what it was given
        self.dropped = 0

    @property
    def next_s(self) -> float | None:
        """When ``pop`` has something."""
        return self._free_s if self._waiting else None

    def put(self, message: str, packet: LinkPacket, *, acked: bool = True) -> None:
        """Have a packet wait for its turn; *message* is the type it counts as, *acked* what link reliability is told."""
        size_bytes = len(packet.fragment)
        if self._waiting_bytes + size_bytes > WAITING_MAX_BYTES:
            self.dropped += 1
            return
        self._waiting_bytes += size_bytes
        self._waiting.append((message, packet, acked))

    def pop(self, now_s: float) -> tuple[str, LinkPacket, bool] | None:
        """Return the next one if it may go now."""
        if not self._waiting or now_s < self._free_s:
            return None
        waiting = self._waiting.popleft()
        self._waiting_bytes -= len(waiting[1].fragment)
        return waiting

    def note(self, size_bytes: int, now_s: float) -> None:
        """A datagram of this size has been given to the link."""
        self._free_s = max(self._free_s, now_s - CATCH_UP_S) + (size_bytes + FRAMING_BYTES) / self._bytes_per_s

    def clear(self) -> None:
        """The link is down: nothing waits any more."""
        self._waiting.clear()
        self._waiting_bytes = 0
