"""Live streams: frames at a fixed rate, each asked for a little before it is made, of no use after its deadline.

Frame *n* is made at the time of the announcement + START_DELAY_S + n intervals, which both sides know. What is asked for
early waits at the publisher, so that a frame takes one path delay; what is lost is asked for again while it is of use.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final

from proxy.core.consumer import RoundTripEstimator
from proxy.core.timers import Timers
from proxy.wire.messages import ObjectDescription

#: From the announcement to the first frame: by then the receivers know.
START_DELAY_S: Final = 0.5
#: A frame is asked for so long before it is made.
ASK_AHEAD_S: Final = 0.2
#: A frame is given out up to so long after its deadline, to whoever still asks.
GRACE_S: Final = 1.0
FRAME_FRESHNESS_MS: Final = 10_000


def frame_due_s(announced_s: float, description: ObjectDescription, index: int) -> float:
    """Return when a frame is made."""
    return announced_s + START_DELAY_S + index * description.interval_s


def frame_content(name: bytes, description: ObjectDescription, index: int) -> bytes:
    """Return what is in a frame: the testbed has no microphone, but no two frames are the same."""
    return hashlib.shake_128(name + index.to_bytes(8, "big")).digest(description.segment_size_bytes(index))


class StreamSource:
    """The publisher's side of one stream."""

    def __init__(self, description: ObjectDescription, *, announced_s: float) -> None:
        self.description, self.announced_s = description, announced_s
        self._asked: Timers[int] = Timers()  #: frames that somebody waits for, and when they are made

    @property
    def end_s(self) -> float:
        """From then on nobody has a use for any frame."""
        last_s = frame_due_s(self.announced_s, self.description, self.description.segments - 1)
        return last_s + self.description.deadline_s + GRACE_S

    @property
    def next_s(self) -> float | None:
        return self._asked.next_s

    def ask(self, index: int, now_s: float) -> None:
        """Somebody asks for a frame; what is too far off, or past, is not answered."""
        if index >= self.description.segments:
            return
        due_s = frame_due_s(self.announced_s, self.description, index)
        if now_s - self.description.deadline_s - GRACE_S <= due_s <= now_s + 5 * ASK_AHEAD_S:
            self._asked.set(index, due_s)

    def made(self, now_s: float) -> list[int]:
        """Return the frames to give out now."""
        return list(self._asked.pop_due(now_s))


class StreamFetch:
    """The receiver's side of one stream."""

    def __init__(self, name: bytes, description: ObjectDescription, *, announced_s: float, now_s: float) -> None:
        self.name, self.description, self.begun_s = name, description, now_s
        self.bytes_by_hops: Counter[int] = Counter()  #: as of an object
        self.segments = self.misses = self.retransmissions = 0  #: a segment is a frame that came
        self._announced_s = announced_s
        #: Who hears of it late has missed nothing that came before.
        behind = int((now_s - announced_s - START_DELAY_S) / description.interval_s) + 1
        self._next = self._first = max(0, behind)
        self._waiting: Timers[int] = Timers()  #: frames asked for, and when to ask again or to give up
        self._delays = RoundTripEstimator()  #: from when a frame was made until it was there

    @property
    def is_complete(self) -> bool:
        return self._next >= self.description.segments and self._waiting.next_s is None

    @property
    def segments_asked(self) -> int:
        return self._next - self._first

    @property
    def size_bytes(self) -> int:
        return sum(self.bytes_by_hops.values())

    @property
    def next_s(self) -> float | None:
        """When `due` has something to say."""
        wishes = [] if self._next >= self.description.segments else [self._due_s(self._next) - ASK_AHEAD_S]
        if (waiting_s := self._waiting.next_s) is not None:
            wishes.append(waiting_s)
        return min(wishes, default=None)

    def is_asked(self, index: int) -> bool:
        """Tell whether this frame is of use."""
        return index in self._waiting

    def due(self, now_s: float) -> list[int]:
        """Return the frames to ask for now; those past their deadline are counted as missed."""
        ask: list[int] = []
        deadline_s = self.description.deadline_s
        for index in list(self._waiting.pop_due(now_s)):
            if now_s >= self._due_s(index) + deadline_s:
                self.misses += 1
            else:
                self.retransmissions += 1
                self._waiting.set(index, min(now_s + self._patience_s, self._due_s(index) + deadline_s))
                ask.append(index)
        while self._next < self.description.segments and self._due_s(self._next) - ASK_AHEAD_S <= now_s:
            due_s = self._due_s(self._next)
            self._waiting.set(self._next, max(now_s, due_s) + self._patience_s)
            ask.append(self._next)
            self._next += 1
        return ask

    def on_frame(self, index: int, size_bytes: int, hop_count: int | None, now_s: float) -> None:
        """A frame that was asked for is there."""
        self._waiting.cancel(index)
        self.segments += 1
        delay_s = max(0.0, now_s - self._due_s(index))
        self._delays.sample(delay_s)
        self.misses += delay_s > self.description.deadline_s
        self.bytes_by_hops[-1 if hop_count is None else hop_count] += size_bytes

    def on_refused(self, index: int, now_s: float) -> None:
        """The network cannot deliver a frame now: ask again shortly."""
        if index in self._waiting:
            again_s = max(now_s, self._due_s(index)) + 0.02
            self._waiting.set(index, min(again_s, self._due_s(index) + self.description.deadline_s))

    @property
    def _patience_s(self) -> float:
        """How long to wait for a frame that is made before it is asked for again: so that it still can come in time."""
        return min(self._delays.rto_s, self.description.deadline_s / 2)

    def _due_s(self, index: int) -> float:
        return frame_due_s(self._announced_s, self.description, index)
