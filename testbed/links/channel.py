"""One direction of one link as a state machine without I/O: a frame and the time go in, its departure time comes out.

The emulator process drives it with real frames and the real clock, the simulator with virtual ones. All times are
integer nanoseconds of one clock. What happens to a frame depends on its number alone and never on timing: the draws of
frame *n* are a hash of (seed, link, direction, n), so a rerun treats the *n*-th frame the same way.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import Final

from testbed.links.model import Direction, Impairment

#: What `Channel.offer` returns for a frame that does not arrive; every other result is a time, and no time is negative.
LOST: Final = -1
QUEUE_FULL: Final = -2

_NS_PER_MS: Final = 1_000_000
_DRAW_LIMIT: Final = 1 << 64


def channel_key(*, seed: int, link: str, direction: Direction) -> bytes:
    """Return the key that makes the draws of one direction independent of those of every other."""
    return blake2b(f"{seed}|{link}|{direction}".encode(), digest_size=16).digest()


def draws(key: bytes, frame_number: int) -> tuple[int, int]:
    """Return the draws of a frame, for loss and for jitter: each uniform over 0 to 2**64 - 1."""
    digest = blake2b(frame_number.to_bytes(8, "little"), digest_size=16, key=key).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Channel:
    """Delay, jitter, rate with a drop-tail queue, and loss, in one direction of a link."""

    __slots__ = (
        "_delay_ns",
        "_expected_lost",
        "_expected_variance",
        "_jitter_ns",
        "_key",
        "_last_due_ns",
        "_line",
        "_loss_threshold",
        "_ns_per_byte",
        "_settled_drawn",
        "frames_drawn",
        "frames_offered",
        "impairment",
    )

    def __init__(self, impairment: Impairment, *, seed: int, link: str, direction: Direction) -> None:
        self._key = channel_key(seed=seed, link=link, direction=direction)
        self.frames_offered = 0  #: number of the next frame
        self.frames_drawn = 0  #: frames that got past the queue, so that loss was decided for them
        self._last_due_ns = 0
        self._line: deque[int] = deque()  # when each frame that waits or is being sent leaves the line
        self._settled_drawn, self._expected_lost, self._expected_variance = 0, 0.0, 0.0
        self._apply(impairment)

    def _apply(self, impairment: Impairment) -> None:
        self.impairment = impairment
        self._delay_ns = round(impairment.delay_ms * _NS_PER_MS)
        self._jitter_ns = round(impairment.jitter_ms * _NS_PER_MS)
        self._loss_threshold = int(impairment.loss_ratio * _DRAW_LIMIT)
        self._ns_per_byte = 0.0 if impairment.rate_mbps is None else 8_000 / impairment.rate_mbps

    def change(self, impairment: Impairment) -> None:
        """Use *impairment* from the next frame on. Frames already in flight leave when they were going to.

        Order is kept: after the delay was lowered, a frame still leaves after those that entered before it.
        """
        self._expected_lost, self._expected_variance = self.expected_loss()
        self._settled_drawn = self.frames_drawn
        self._apply(impairment)

    def expected_loss(self) -> tuple[float, float]:
        """Return mean and variance of the number of frames that the configured loss takes, over all changes."""
        drawn, ratio = self.frames_drawn - self._settled_drawn, self.impairment.loss_ratio
        return self._expected_lost + drawn * ratio, self._expected_variance + drawn * ratio * (1 - ratio)

    def cut(self) -> None:
        """The link lost its carrier: forget what waits and what is in flight. Frame numbers go on."""
        self._line.clear()
        self._last_due_ns = 0

    def refuse(self) -> int:
        """Count a frame that came while the link was down, and return its number."""
        self.frames_offered += 1
        return self.frames_offered - 1

    def offer(self, length_bytes: int, *, now_ns: int) -> int:
        """Return when the frame that enters now leaves, in ns, or LOST or QUEUE_FULL.

        *now_ns* never goes back. A frame's time on the line is rounded to whole nanoseconds. A lost frame was sent:
        it has taken its place in the queue and its time on the line.
        """
        number = self.frames_offered
        self.frames_offered = number + 1
        sent_ns = now_ns
        if self._ns_per_byte:
            line = self._line
            while line and line[0] <= now_ns:
                line.popleft()
            if len(line) >= self.impairment.queue_packets:
                return QUEUE_FULL
            sent_ns = (line[-1] if line else now_ns) + int(length_bytes * self._ns_per_byte + 0.5)
            line.append(sent_ns)
        self.frames_drawn += 1
        due_ns = sent_ns + self._delay_ns
        if self._loss_threshold or self._jitter_ns:
            loss_draw, jitter_draw = draws(self._key, number)
            if loss_draw < self._loss_threshold:
                return LOST
            due_ns += jitter_draw * self._jitter_ns >> 64
        if due_ns < self._last_due_ns:  # a slower frame is ahead, or the delay was lowered: order is kept
            due_ns = self._last_due_ns
        self._last_due_ns = due_ns
        return due_ns
