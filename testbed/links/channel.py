"""One direction of one link as a state machine without I/O: a frame and the time go in, its departure time comes out.

The emulator process drives it with real frames and the real clock, the simulator with virtual ones. All times are
integer nanoseconds of one clock. What happens to a frame depends on what it is and never on timing: its draws are a hash of
(seed, link, direction, kind and name of its NDN packet, how often that has been offered), so a rerun treats the same message
the same way, however many others came before it. A frame without a name (an ack, a fragment, another protocol) is known by its
number instead. Bursts of loss strike frames that follow each other: the state of the link is drawn by number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from hashlib import blake2b
from statistics import NormalDist
from typing import Final

from testbed.links.model import Alteration, Cause, Direction, Impairment
from topologies.model import mean_loss_ratio

#: What `Channel.offer` returns for a frame that does not arrive; every other result is a time, and no time is negative.
LOST: Final = -1
QUEUE_FULL: Final = -2
BLOCKED: Final = -3

CAUSE_OF: Final[Mapping[int, Cause]] = {LOST: "loss", QUEUE_FULL: "queue", BLOCKED: "blocked"}

#: Bits of `Channel.altered`.
DUPLICATED: Final = 1
REORDERED: Final = 2
CORRUPTED: Final = 4

#: Names whose offers a channel counts; of more, it forgets those longest not seen, and counts them from the start.
NAMES_MAX: Final = 4_096

_NS_PER_MS: Final = 1_000_000
#: A draw is uniform over 0 to 2**48 - 1.
DRAW_BITS: Final = 48
_DRAW_LIMIT: Final = 1 << DRAW_BITS
_DRAW_BYTES: Final = DRAW_BITS // 8
#: Which draw of a frame decides what.
LOSS, JITTER, CORRUPT, CORRUPT_WHERE, REORDER, REORDER_BY, DUPLICATE, DUPLICATE_BY = range(8)
_JITTER_CUT_SIGMAS: Final = 4.0
_NORMAL: Final = NormalDist()


def alterations(bits: int) -> list[Alteration]:
    """Return what `Channel.altered` says in words."""
    found: list[Alteration] = []
    if bits & DUPLICATED:
        found.append("duplicate")
    if bits & REORDERED:
        found.append("reorder")
    if bits & CORRUPTED:
        found.append("corrupt")
    return found


def channel_key(*, seed: int, link: str, direction: Direction) -> bytes:
    """Return the key that makes the draws of one direction independent of those of every other."""
    return blake2b(f"{seed}|{link}|{direction}".encode(), digest_size=16).digest()


def draws(key: bytes, what: bytes) -> bytes:
    """Return the draws of a frame that *what* identifies, for `draw` to take one of.

    >>> 0 <= draw(draws(bytes(16), b"frame"), LOSS) < 1 << DRAW_BITS
    True
    """
    return blake2b(what, digest_size=8 * _DRAW_BYTES, key=key).digest()


def draw(drawn: bytes, index: int) -> int:
    """Return one draw: uniform over 0 to 2**48 - 1, independent of the others."""
    at = index * _DRAW_BYTES
    return int.from_bytes(drawn[at : at + _DRAW_BYTES], "little")


def numbered(frame_number: int) -> bytes:
    """Return what identifies a frame without a name."""
    return b"#" + frame_number.to_bytes(8, "little")


def named(name: bytes, attempt: int) -> bytes:
    """Return what identifies a frame that is offered for the *attempt*-th time, counted from 1."""
    return b"n" + attempt.to_bytes(4, "little") + name


class Channel:
    """What one direction of a link does to frames (`testbed.links.model.Impairment`), and the black hole that it may be.

    After `offer` has returned a time, the attributes from *attempt* on say what else was decided for that frame.
    """

    __slots__ = (
        "_attempts",
        "_bad",
        "_bad_loss_threshold",
        "_bad_threshold",
        "_chance_key",
        "_corrupt_threshold",
        "_delay_ns",
        "_duplicate_threshold",
        "_expected_altered",
        "_expected_lost",
        "_expected_variance",
        "_good_threshold",
        "_jitter_is_normal",
        "_jitter_ns",
        "_keeps_order",
        "_key",
        "_last_due_ns",
        "_late_max_ns",
        "_line",
        "_line_bytes",
        "_line_lengths",
        "_loss_threshold",
        "_ns_per_byte",
        "_queue_bytes",
        "_queue_packets",
        "_reorder_threshold",
        "_settled_drawn",
        "_settled_passed",
        "altered",
        "attempt",
        "blocked",
        "copy_due_ns",
        "corrupt_draw",
        "draws_frames",
        "frames_drawn",
        "frames_offered",
        "frames_passed",
        "impairment",
        "late_ns",
    )

    def __init__(self, impairment: Impairment, *, seed: int, link: str, direction: Direction) -> None:
        self._key = channel_key(seed=seed, link=link, direction=direction)
        self._chance_key = blake2b(b"state", digest_size=16, key=self._key).digest()
        self.frames_offered = 0  #: number of the next frame
        self.frames_drawn = 0  #: frames that got past the queue, so that loss was decided for them
        self.frames_passed = 0  #: of these, the ones that were not lost, so that the other draws were made
        self.blocked = False  #: a black hole: what enters is gone, and neither end sees it
        self.attempt = 0  #: how often this name has been offered, this time included; 0: the frame has none
        self.altered = 0  #: bits DUPLICATED, REORDERED, CORRUPTED
        self.late_ns = 0  #: if REORDERED: how much later than due it leaves
        self.copy_due_ns = 0  #: if DUPLICATED: when the second one leaves
        self.corrupt_draw = 0  #: if CORRUPTED: uniform over 0 to 2**48 - 1, says which bit is changed
        self._last_due_ns = 0
        self._line: deque[int] = deque()  # when each frame that waits or is being sent leaves the line
        self._line_lengths: deque[int] = deque()
        self._line_bytes = 0
        self._attempts: dict[bytes, int] = {}  # the longest not seen first
        self._bad = False
        self._settled_drawn, self._expected_lost, self._expected_variance = 0, 0.0, 0.0
        self._settled_passed, self._expected_altered = 0, dict[Alteration, float]()
        self._bad_threshold = 0
        self._apply(impairment)

    def _apply(self, impairment: Impairment) -> None:
        had_bursts = self._bad_threshold > 0
        self.impairment = impairment
        self._delay_ns = round(impairment.delay_ms * _NS_PER_MS)
        self._jitter_ns = round(impairment.jitter_ms * _NS_PER_MS)
        self._jitter_is_normal = impairment.jitter_distribution == "normal"
        self._keeps_order = impairment.jitter_keeps_order
        self._late_max_ns = round(impairment.late_max_ms * _NS_PER_MS)
        self._loss_threshold = int(impairment.loss_ratio * _DRAW_LIMIT)
        self._bad_threshold = int(impairment.good_to_bad_ratio * _DRAW_LIMIT)
        self._good_threshold = int(impairment.bad_to_good_ratio * _DRAW_LIMIT)
        self._bad_loss_threshold = int(impairment.bad_loss_ratio * _DRAW_LIMIT)
        self._duplicate_threshold = int(impairment.duplicate_ratio * _DRAW_LIMIT)
        self._reorder_threshold = int(impairment.reorder_ratio * _DRAW_LIMIT)
        self._corrupt_threshold = int(impairment.corrupt_ratio * _DRAW_LIMIT)
        self._ns_per_byte = 0.0 if impairment.rate_mbps is None else 8_000 / impairment.rate_mbps
        self._queue_packets = impairment.queue_packets
        self._queue_bytes = 0 if impairment.queue_bytes is None else impairment.queue_bytes
        if not self._bad_threshold:
            self._bad = False
        elif not had_bursts:  # as if it had always been so: in the bad state with that state's share of time
            share = self._bad_threshold / (self._bad_threshold + self._good_threshold)
            self._bad = self._state_draw(self.frames_offered) < share * _DRAW_LIMIT
        #: Whether a frame's name matters: whoever offers frames need not look for it otherwise.
        self.draws_frames = bool(
            self._loss_threshold
            or self._jitter_ns
            or self._bad_threshold
            or self._duplicate_threshold
            or self._reorder_threshold
            or self._corrupt_threshold
        )

    def change(self, impairment: Impairment) -> None:
        """Use *impairment* from the next frame on. Frames already in flight leave when they were going to.

        Order is kept, where it is to be: after the delay was lowered, a frame still leaves after those that entered before it.
        """
        self._expected_lost, self._expected_variance = self.expected_loss()
        self._expected_altered = self.expected_alterations()
        self._settled_drawn, self._settled_passed = self.frames_drawn, self.frames_passed
        self._apply(impairment)

    def expected_loss(self) -> tuple[float, float]:
        """Return mean and variance of the number of frames that the configured loss takes, over all changes.

        With bursts, those of a chain that has been running for long (its states' correlation falls with (1 - p - r)**n).
        """
        drawn, asked = self.frames_drawn - self._settled_drawn, self.impairment
        ratio, correlated = mean_loss_ratio(asked), 0.0
        if asked.good_to_bad_ratio > 0:
            bad = asked.good_to_bad_ratio / (asked.good_to_bad_ratio + asked.bad_to_good_ratio)
            kept = 1 - asked.good_to_bad_ratio - asked.bad_to_good_ratio
            pairs = kept / (1 - kept) * (drawn - (1 - kept**drawn) / (1 - kept))
            correlated = 2 * (asked.bad_loss_ratio - asked.loss_ratio) ** 2 * bad * (1 - bad) * pairs
        variance = drawn * ratio * (1 - ratio) + correlated
        return self._expected_lost + drawn * ratio, self._expected_variance + variance

    def expected_alterations(self) -> dict[Alteration, float]:
        """Return the mean number of frames that the configured ratios duplicate, reorder and corrupt, over all changes."""
        passed, asked = self.frames_passed - self._settled_passed, self.impairment
        ratios: dict[Alteration, float] = {
            "duplicate": asked.duplicate_ratio,
            "reorder": asked.reorder_ratio,
            "corrupt": asked.corrupt_ratio,
        }
        return {kind: self._expected_altered.get(kind, 0.0) + passed * ratio for kind, ratio in ratios.items()}

    def cut(self) -> None:
        """The link lost its carrier: forget what waits and what is in flight. Frame numbers go on."""
        self._line.clear()
        self._line_lengths.clear()
        self._line_bytes = 0
        self._last_due_ns = 0

    def refuse(self) -> int:
        """Count a frame that came while the link was down, and return its number."""
        number = self.frames_offered
        self.frames_offered = number + 1
        self.attempt = 0
        self._step(number)
        return number

    def offer(self, length_bytes: int, *, now_ns: int, name: bytes = b"") -> int:
        """Return when the frame that enters now leaves, in ns, or LOST, QUEUE_FULL or BLOCKED.

        *now_ns* never goes back. *name* says which packet it carries (`testbed.links.frame_names`), empty: none that has a
        name; it matters only while `draws_frames`. A frame's time on the line is rounded to whole nanoseconds. A lost frame
        was sent: it has taken its place in the queue and its time on the line.
        """
        number = self.frames_offered
        self.frames_offered = number + 1
        self.altered = 0
        self.attempt = 0
        if self.draws_frames:
            self._step(number)
            if name:
                self.attempt = self._count(name)
        if self.blocked:
            return BLOCKED
        sent_ns = now_ns
        if self._ns_per_byte:
            sent_ns = self._send(length_bytes, now_ns)
            if sent_ns < 0:
                return QUEUE_FULL
        self.frames_drawn += 1
        due_ns = sent_ns + self._delay_ns
        if not self.draws_frames:
            if due_ns >= self._last_due_ns:
                self._last_due_ns = due_ns
            elif self._keeps_order:  # the delay was lowered, or the line was
                due_ns = self._last_due_ns
            return due_ns
        return self._decide(number, name, due_ns)

    def _send(self, length_bytes: int, now_ns: int) -> int:
        """Return when a frame that enters the queue now has left the line; -1 if it finds the queue full."""
        line, lengths = self._line, self._line_lengths
        while line and line[0] <= now_ns:
            line.popleft()
            self._line_bytes -= lengths.popleft()
        if self._queue_bytes:
            if line and self._line_bytes + length_bytes > self._queue_bytes:
                return -1
        elif len(line) >= self._queue_packets:
            return -1
        sent_ns = (line[-1] if line else now_ns) + int(length_bytes * self._ns_per_byte + 0.5)
        line.append(sent_ns)
        lengths.append(length_bytes)
        self._line_bytes += length_bytes
        return sent_ns

    def _decide(self, number: int, name: bytes, due_ns: int) -> int:
        """Draw for a frame that has been sent; return when it leaves, or LOST."""
        drawn = draws(self._key, named(name, self.attempt) if name else numbered(number))
        loss_threshold = self._bad_loss_threshold if self._bad else self._loss_threshold
        if loss_threshold and draw(drawn, LOSS) < loss_threshold:
            return LOST
        self.frames_passed += 1
        if self._jitter_ns:
            due_ns += self._jitter(draw(drawn, JITTER))
        if due_ns < self._last_due_ns:  # a slower frame is ahead, or the delay was lowered
            if self._keeps_order:
                due_ns = self._last_due_ns
        else:
            self._last_due_ns = due_ns
        if self._corrupt_threshold and draw(drawn, CORRUPT) < self._corrupt_threshold:
            self.altered |= CORRUPTED
            self.corrupt_draw = draw(drawn, CORRUPT_WHERE)
        if self._reorder_threshold and draw(drawn, REORDER) < self._reorder_threshold:
            self.altered |= REORDERED
            self.late_ns = draw(drawn, REORDER_BY) * self._late_max_ns >> DRAW_BITS
            due_ns += self.late_ns
        if self._duplicate_threshold and draw(drawn, DUPLICATE) < self._duplicate_threshold:
            self.altered |= DUPLICATED
            self.copy_due_ns = due_ns + (draw(drawn, DUPLICATE_BY) * self._late_max_ns >> DRAW_BITS)
        return due_ns

    def _jitter(self, drawn: int) -> int:
        """Return by how much a frame is later than the configured delay, in ns."""
        if not self._jitter_is_normal:
            return drawn * self._jitter_ns >> DRAW_BITS
        sigmas = _NORMAL.inv_cdf((drawn + 0.5) / _DRAW_LIMIT)
        sigmas = max(-_JITTER_CUT_SIGMAS, min(_JITTER_CUT_SIGMAS, sigmas))
        return max(-self._delay_ns, round(sigmas * self._jitter_ns))

    def _step(self, number: int) -> None:
        """Go on to the state, good or bad, that the link is in for a frame."""
        if self._bad_threshold:
            threshold = self._good_threshold if self._bad else self._bad_threshold
            if self._state_draw(number) < threshold:
                self._bad = not self._bad

    def _state_draw(self, number: int) -> int:
        return draw(draws(self._chance_key, numbered(number)), 0)

    def _count(self, name: bytes) -> int:
        """Return how often *name* has been offered, this time included."""
        attempts = self._attempts
        attempt: int = attempts.pop(name, 0) + 1
        attempts[name] = attempt
        if len(attempts) > NAMES_MAX:
            del attempts[next(iter(attempts))]
        return attempt
