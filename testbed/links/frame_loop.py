"""The frame loop: reads frames from TAPs, keeps each until it is due, writes it to the other end.

Only plain Python and few objects a frame here: this is the path of every packet of a run. Times are CLOCK_MONOTONIC ns.
"""

from __future__ import annotations

import heapq
import os
import select
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from testbed.links.channel import CAUSE_OF, CORRUPTED, DRAW_BITS, DUPLICATED, REORDERED, Channel, alterations
from testbed.links.frame_names import ETHERNET_BYTES, name_in_frame, spell
from testbed.links.histogram import BOUNDS_NS, new_bins
from testbed.links.ledger import FrameAltered, FrameDropped, Ledger
from testbed.links.linux import Timer
from testbed.links.model import ALTERATIONS, CAUSES, Alteration, Cause, Direction

#: Frames read from one TAP before the others get their turn.
READ_BATCH: Final = 64
#: Larger than any frame of an interface: the largest MTU, Ethernet and VLAN headers.
READ_BYTES: Final = 9_216
#: Frames that may be in flight in all links together (below 200 MB of memory); more are dropped as `overrun`.
MAX_IN_FLIGHT: Final = 100_000
#: The timer is set ahead of the time a frame is due, and we poll without sleeping for what remains. How far ahead follows
#: how late it wakes us: the two steps balance where it is late less often than once in 17 times.
WAKE_AHEAD_MIN_NS: Final = 10_000
WAKE_AHEAD_MAX_NS: Final = 150_000
WAKE_AHEAD_BUSY_MAX_NS: Final = 20_000
WAKE_AHEAD_UP_NS: Final = 4_000
WAKE_AHEAD_DOWN_NS: Final = 250
#: The ledger is written half a second after its oldest pending record, or up to 0.3 s later than that while frames are
#: due all the time: a write to a busy disk may take a while.
LEDGER_FLUSH_NS: Final = 500_000_000
LEDGER_POSTPONE_NS: Final = 300_000_000
LEDGER_QUIET_NS: Final = 1_000_000


class Lane:
    """One direction of a link while it runs: where frames come from, what happens to them, where they go."""

    __slots__ = (
        "altered",
        "bins",
        "carried_bytes",
        "channel",
        "direction",
        "dropped",
        "error_max_ns",
        "first_ns",
        "from_fd",
        "held_ns",
        "intercept",
        "last_ns",
        "link",
        "packets",
        "to_fd",
        "up",
    )

    def __init__(self, *, link: str, direction: Direction, channel: Channel, from_fd: int, to_fd: int) -> None:
        self.link, self.direction, self.channel = link, direction, channel
        self.from_fd, self.to_fd = from_fd, to_fd
        self.up = True
        #: Message faults: frame, time in ns -> (frame, how many ns later) of each that goes on instead; None: as it is.
        self.intercept: Callable[[bytes, int], list[tuple[bytes, int]] | None] | None = None
        self.packets = 0
        self.carried_bytes = 0
        self.dropped: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        self.altered: dict[Alteration, int] = dict.fromkeys(ALTERATIONS, 0)
        self.bins = new_bins()
        self.error_max_ns = 0
        self.held_ns = 0  #: sum over the carried frames of departure - arrival
        self.first_ns, self.last_ns = 0, 0  #: first and last departure

    @property
    def in_flight_packets(self) -> int:
        entered = self.channel.frames_offered + self.altered["duplicate"]
        return entered - self.packets - sum(self.dropped.values())


#: (due, tie-breaker in order of arrival, lane, frame, arrival, frame number)
_Flight = tuple[int, int, Lane, bytes, int, int]


class FrameLoop:
    """Carries frames for its lanes, and calls back when a watched descriptor is readable."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self.max_in_flight = MAX_IN_FLIGHT
        self.lanes: dict[int, Lane] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.wakeups = 0
        self.busy_bins = new_bins()
        self.busy_max_ns = 0
        self._heap: list[_Flight] = []
        self._arrivals = 0
        self._timer = Timer()
        self._armed_ns = 0
        self._ahead_ns = self._ahead_max_ns = WAKE_AHEAD_MAX_NS
        self._ledger_due_ns = 0  # next attempt to write the ledger, 0: nothing is pending
        self._ledger_limit_ns = 0
        self.take_turns: Callable[[int], int] | None = None  #: asked now and then, says when to be asked again
        self._turns_due_ns = 0
        self._epoll = select.epoll()
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Have `turn` call *callback* when *fd* is readable."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def add_lane(self, lane: Lane) -> None:
        self.lanes[lane.from_fd] = lane
        self._epoll.register(lane.from_fd, select.EPOLLIN)

    def turn(self) -> None:
        """Sleep until something is to be done, and do it. What a callback raises ends the turn."""
        began_ns = time.monotonic_ns()
        heap = self._heap
        next_ns = heap[0][0] if heap else 0
        if next_ns and next_ns - began_ns <= self._ahead_ns:
            events = self._epoll.poll(0)
        else:
            self._arm(next_ns - self._ahead_ns if next_ns else 0)
            events = self._epoll.poll()
            self.wakeups += 1
            began_ns = time.monotonic_ns()
        self.send_due()
        lanes, timer_fd = self.lanes, self._timer.fd
        for fd, _ in events:
            lane = lanes.get(fd)
            if lane is not None:
                self._read(lane)
            elif fd == timer_fd:
                self._learn_lateness(began_ns - self._armed_ns)
                self._armed_ns = 0
            else:
                self._callbacks[fd]()
        ended_ns = self.send_due()
        if self._ledger_due_ns and ended_ns >= self._ledger_due_ns:
            self._flush_ledger(ended_ns)
        if ended_ns >= self._turns_due_ns and self.take_turns is not None:
            self._turns_due_ns = self.take_turns(ended_ns)
        if events:
            busy_ns = ended_ns - began_ns
            self.busy_bins[bisect_left(BOUNDS_NS, busy_ns)] += 1
            if busy_ns > self.busy_max_ns:
                self.busy_max_ns = busy_ns

    def _arm(self, at_ns: int) -> None:
        if self._ledger_due_ns and (not at_ns or self._ledger_due_ns < at_ns):
            at_ns = self._ledger_due_ns
        if at_ns != self._armed_ns:
            self._armed_ns = at_ns
            self._timer.set(at_ns)

    def _learn_lateness(self, late_ns: int) -> None:
        if late_ns > self._ahead_ns:
            self._ahead_ns = min(self._ahead_ns + WAKE_AHEAD_UP_NS, self._ahead_max_ns)
        else:
            self._ahead_ns = max(self._ahead_ns - WAKE_AHEAD_DOWN_NS, WAKE_AHEAD_MIN_NS)

    def poll_less(self, *, is_busy: bool) -> None:
        """Set the timer ahead of the time by less (*is_busy*), or by as much as it takes to be on time."""
        self._ahead_max_ns = WAKE_AHEAD_BUSY_MAX_NS if is_busy else WAKE_AHEAD_MAX_NS
        self._ahead_ns = min(self._ahead_ns, self._ahead_max_ns)

    def _read(self, lane: Lane) -> None:
        """Read a batch of frames that a host sent into *lane*, and schedule or drop each."""
        heap, channel, fd = self._heap, lane.channel, lane.from_fd
        read, clock, push = os.read, time.monotonic_ns, heapq.heappush
        try:
            for _ in range(READ_BATCH):
                now_ns = clock()
                frame = read(fd, READ_BYTES)
                if not lane.up:
                    self._drop(lane, "carrier", channel.refuse(), frame)
                    continue
                if lane.intercept is not None:
                    self._intercept(lane, frame, now_ns)
                    continue
                name = name_in_frame(frame) if channel.draws_frames else b""
                due_ns = channel.offer(len(frame), now_ns=now_ns, name=name)
                number = channel.frames_offered - 1
                if due_ns < 0:
                    self._drop(lane, CAUSE_OF[due_ns], number, frame, attempt=channel.attempt)
                elif len(heap) >= self.max_in_flight:
                    self._drop(lane, "overrun", number, frame, attempt=channel.attempt)
                else:
                    if channel.altered:
                        frame = self._alter(lane, frame, due_ns=due_ns, now_ns=now_ns)
                    self._arrivals += 1
                    push(heap, (due_ns, self._arrivals, lane, frame, now_ns, number))
                if heap and heap[0][0] <= now_ns:
                    self.send_due()
        except BlockingIOError:
            return  # that was all
        except OSError:
            # the interface is gone from under us (someone deleted it): the link is dead, the others live
            self._epoll.unregister(fd)

    def _alter(self, lane: Lane, frame: bytes, *, due_ns: int, now_ns: int) -> bytes:
        """Do to a frame what its channel has decided besides its time, and write it down; return it as it goes on."""
        channel, number = lane.channel, lane.channel.frames_offered - 1
        bits, name, bit = channel.altered, spell(name_in_frame(frame)), None
        if bits & CORRUPTED:
            bit = _bit_to_change(frame, channel.corrupt_draw)
            changed = bytearray(frame)
            changed[bit >> 3] ^= 0x80 >> (bit & 7)
            frame = bytes(changed)
        done = alterations(bits)
        for alteration in done:
            lane.altered[alteration] += 1
        if self.ledger is not None:
            record = FrameAltered(
                now_ns / 1e9,
                lane.link,
                lane.direction,
                done,
                number,
                len(frame),
                name,
                channel.attempt,
                channel.late_ns / 1e6 if bits & REORDERED else 0.0,
                (channel.copy_due_ns - due_ns) / 1e6 if bits & DUPLICATED else 0.0,
                bit,
            )
            self.ledger.add(record)
            self.plan_flush(now_ns)
        if bits & DUPLICATED:
            if len(self._heap) + 1 >= self.max_in_flight:  # the first one has its place
                self._drop(lane, "overrun", number, frame, attempt=channel.attempt)
            else:
                self._arrivals += 1
                heapq.heappush(self._heap, (channel.copy_due_ns, self._arrivals, lane, frame, now_ns, number))
        return frame

    def _intercept(self, lane: Lane, frame: bytes, now_ns: int) -> None:
        """Let message faults change a frame, and take in what they make of it."""
        changed = None if lane.intercept is None else lane.intercept(frame, now_ns)
        if changed is None:
            self.admit(lane, frame, now_ns=now_ns, later_ns=0)
        elif not changed:
            self._drop(lane, "fault", lane.channel.refuse(), frame)
        else:
            for other, later_ns in changed:
                self.admit(lane, other, now_ns=now_ns, later_ns=later_ns)
        self.send_due()

    def admit(self, lane: Lane, frame: bytes, *, now_ns: int, later_ns: int) -> None:
        """Schedule or drop a frame that enters *lane*; *later_ns* after the channel would have it, others overtaking it."""
        channel = lane.channel
        name = name_in_frame(frame) if channel.draws_frames else b""
        due_ns = channel.offer(len(frame), now_ns=now_ns, name=name)
        number = channel.frames_offered - 1
        if due_ns < 0:
            self._drop(lane, CAUSE_OF[due_ns], number, frame, attempt=channel.attempt)
        elif len(self._heap) >= self.max_in_flight:
            self._drop(lane, "overrun", number, frame, attempt=channel.attempt)
        else:
            if channel.altered:
                frame = self._alter(lane, frame, due_ns=due_ns, now_ns=now_ns)
            self._arrivals += 1
            heapq.heappush(self._heap, (due_ns + later_ns, self._arrivals, lane, frame, now_ns, number))

    def send_due(self) -> int:
        """Hand every frame that is due to its receiver; return the time at the end."""
        heap, clock, write, pop = self._heap, time.monotonic_ns, os.write, heapq.heappop
        now_ns = clock()
        while heap and heap[0][0] <= now_ns:
            due_ns, _, lane, frame, arrival_ns, number = pop(heap)
            try:
                write(lane.to_fd, frame)
            except OSError as error:
                cause: Cause = "overrun" if isinstance(error, BlockingIOError) else "carrier"
                self._drop(lane, cause, number, frame)
            else:
                lane.packets += 1
                lane.carried_bytes += len(frame)
                error_ns = now_ns - due_ns
                lane.bins[bisect_left(BOUNDS_NS, error_ns)] += 1
                if error_ns > lane.error_max_ns:
                    lane.error_max_ns = error_ns
                lane.held_ns += now_ns - arrival_ns
                lane.last_ns = now_ns
                if not lane.first_ns:
                    lane.first_ns = now_ns
            now_ns = clock()
        return now_ns

    def cut(self, lane: Lane) -> None:
        """The lane lost its carrier: drop its frames in flight, and what comes until it is `up` again."""
        lane.up = False
        lane.channel.cut()
        heap = self._heap
        for _, _, owner, frame, _, number in heap:
            if owner is lane:
                self._drop(lane, "carrier", number, frame)
        heap[:] = [flight for flight in heap if flight[2] is not lane]
        heapq.heapify(heap)

    def _drop(self, lane: Lane, cause: Cause, number: int, frame: bytes, *, attempt: int = 0) -> None:
        lane.dropped[cause] += 1
        if self.ledger is not None:
            now_ns, name = time.monotonic_ns(), spell(name_in_frame(frame))
            self.ledger.add(
                FrameDropped(now_ns / 1e9, lane.link, lane.direction, cause, number, len(frame), name, attempt)
            )
            self.plan_flush(now_ns)

    def plan_flush(self, now_ns: int) -> None:
        """The ledger has records that are not written yet."""
        if not self._ledger_due_ns:
            self._ledger_due_ns = now_ns + LEDGER_FLUSH_NS
            self._ledger_limit_ns = self._ledger_due_ns + LEDGER_POSTPONE_NS

    def _flush_ledger(self, now_ns: int) -> None:
        heap = self._heap
        if heap and heap[0][0] - now_ns < LEDGER_QUIET_NS and now_ns < self._ledger_limit_ns:
            self._ledger_due_ns = min(now_ns + LEDGER_QUIET_NS, self._ledger_limit_ns)
            return
        self._ledger_due_ns = 0
        if self.ledger is not None:
            self.ledger.flush()

    def close(self) -> None:
        """Close what the loop opened; the TAPs are their owner's."""
        self._epoll.close()
        self._timer.close()


def _bit_to_change(frame: bytes, drawn: int) -> int:
    """Return one of the bits behind the Ethernet header, which finds the way; of what has no such header any."""
    first = ETHERNET_BYTES * 8 if len(frame) > ETHERNET_BYTES else 0
    return first + (drawn * (len(frame) * 8 - first) >> DRAW_BITS)
