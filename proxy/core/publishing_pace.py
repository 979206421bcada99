"""Whether our stream is worth sync interests: how fast we publish decides it, and heartbeats tell the other proxies.

A sync interest kept armed costs a packet a link for every entry, and more where nothing comes: it has to be sent anew before
it expires. With the answer, that is two packets on each link between the proxies; a push is one, but on every link there is. On
Abilene with four proxies (`tests.bench.control_packets`) a push is the cheaper one below some ten entries a second, and costs
little more above; as long as a stream is not busy it is pushed, which is as fast, and needs no way that works: whatever link
fails, and be it silently, another carries the copy. What is asked for goes by one way only, and where that dies silently, nobody
notices before the faces beside it are suspected.
"""

from __future__ import annotations

from collections import deque

#: From so many entries a second on a stream is busy ...
BUSY_PER_S = 50
#: ... until they are fewer than so many.
QUIET_PER_S = 25
#: Over so long they are counted.
COUNTED_S = 2.0
#: A stream that is new is taken for busy for so long.
NEW_S = 1.5
#: Who has become busy pushes what is armed, too, until all others must have heard that they are to arm.
HEARTBEATS_UNTIL_KNOWN = 3


class PublishingPace:
    """Of our own stream in one conference, opened at *now_s*."""

    def __init__(self, now_s: float) -> None:
        self.is_busy = True
        self.since_s = float("-inf")  #: when it became busy; a new stream has been from the beginning
        self._quiet_from_s = now_s + NEW_S
        self._published_s: deque[float] = deque(maxlen=round(BUSY_PER_S * COUNTED_S))

    def published(self, now_s: float) -> bool:
        """Take in that an entry was published; tell whether that has made the stream busy."""
        published_s = self._published_s
        published_s.append(now_s)
        if self.is_busy or len(published_s) < BUSY_PER_S * COUNTED_S or published_s[0] < now_s - COUNTED_S:
            return False
        self.is_busy, self.since_s = True, now_s
        return True

    def look(self, now_s: float) -> None:
        """Notice that it has become quiet."""
        counted = sum(published_s > now_s - COUNTED_S for published_s in self._published_s)
        if self.is_busy and counted < QUIET_PER_S * COUNTED_S and now_s >= self._quiet_from_s:
            self.is_busy = False
