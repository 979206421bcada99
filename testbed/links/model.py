"""What a `wire` link is made of and what it counts: plain data, shared by the supervisor and the emulator process."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
from msgspec import Struct

Direction = Literal["a_to_b", "b_to_a"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("a_to_b", "b_to_a")

#: Why a frame was not delivered. `loss`: the seeded loss that was asked for; `queue`: the queue in front of the rate
#: was full; `carrier`: the link was down, or the receiving interface was; `overrun`: this machine could not keep up, so
#: it was not the modelled network that dropped it and the run is not faithful; `corrupt`: bits were changed on the way, and
#: the receiver's UDP checksum did not match.
Cause = Literal["loss", "queue", "carrier", "overrun", "corrupt"]
CAUSES: Final[tuple[Cause, ...]] = ("loss", "queue", "carrier", "overrun", "corrupt")

MTU_BYTES: Final = 1500
MAX_DELAY_MS: Final = 60_000.0
MAX_QUEUE_PACKETS: Final = 100_000


class Impairment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one direction of a link does to the frames that enter it.

    A frame waits in the queue, takes its time on the line (`rate_mbps`), may then be lost, and else arrives after
    `delay_ms` plus a jitter drawn uniformly from 0 to `jitter_ms`. It never overtakes the frame before it.

    Raises: ValueError if a value is out of range (msgspec makes it a ValidationError when it decodes).
    """

    delay_ms: float = 0.0  #: one way, 0 to 60,000
    jitter_ms: float = 0.0  #: added to the delay, 0 to 60,000
    loss_ratio: float = 0.0  #: 0 to 1; each frame on its own (Bernoulli)
    rate_mbps: float | None = None  #: 10**6 bit/s, counted over whole Ethernet frames without FCS; None: no limit
    queue_packets: int = 1000  #: frames that wait or are being sent; one more is dropped (drop-tail); needs a rate
    #: The simulator alone does these three; the `wire` back end refuses them. 0 to 1, each frame on its own.
    duplicate_ratio: float = 0.0  #: arrives a second time, a little later
    reorder_ratio: float = 0.0  #: arrives a little later, so that frames sent after it overtake it
    corrupt_ratio: float = 0.0  #: arrives with changed bits, which the receiver's UDP checksum finds

    def __post_init__(self) -> None:
        for name, value in (("delay_ms", self.delay_ms), ("jitter_ms", self.jitter_ms)):
            if not 0.0 <= value <= MAX_DELAY_MS:
                raise ValueError(f"{name} = {value} is outside 0 to {MAX_DELAY_MS:.0f}")
        if not 0.0 <= self.loss_ratio <= 1.0:
            raise ValueError(f"loss_ratio = {self.loss_ratio} is outside 0.0 to 1.0; it is a fraction, not per cent")
        for name, ratio in (
            ("duplicate_ratio", self.duplicate_ratio),
            ("reorder_ratio", self.reorder_ratio),
            ("corrupt_ratio", self.corrupt_ratio),
        ):
            if not 0.0 <= ratio <= 1.0:
                raise ValueError(f"{name} = {ratio} is outside 0.0 to 1.0; it is a fraction, not per cent")
        if self.rate_mbps is not None and not (self.rate_mbps >= 0.001 and math.isfinite(self.rate_mbps)):
            raise ValueError(f"rate_mbps = {self.rate_mbps} is not a rate of at least 0.001 (leave it out: no limit)")
        if not 1 <= self.queue_packets <= MAX_QUEUE_PACKETS:
            raise ValueError(f"queue_packets = {self.queue_packets} is outside 1 to {MAX_QUEUE_PACKETS}")


class LinkEnd(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One end of a link: the TAP interface that the emulator makes in a host's namespace."""

    host: str  #: key into the `netns_fds` that `WireEmulator.start` is given
    intf: str  #: at most 15 characters, not taken in that namespace
    address: str  #: IPv4 with prefix length, for instance ``10.0.0.0/31``
    mac: str  #: ``02:00:00:00:00:01``
    peer_address: str  #: IPv4 of the other end; with `peer_mac` a permanent neighbour entry: no ARP on the link
    peer_mac: str


class LinkPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A link to be made: both ends, and what each direction does."""

    name: str
    a: LinkEnd
    b: LinkEnd
    a_to_b: Impairment = Impairment()
    b_to_a: Impairment = Impairment()


class LinkCounters(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one direction of a link did since the network was built; a line of ``raw/links.jsonl``."""

    link: str
    direction: Direction
    sender: str  #: host that the frames come from
    receiver: str
    configured: Impairment  #: as it is now; the loss expected over all changes is in `expected_lost_packets`
    carrier: bool  #: as it is now
    packets: int  #: carried: handed to the receiver's interface
    carried_bytes: int  #: whole Ethernet frames without FCS
    dropped_packets: dict[Cause, int]  #: every cause, zeros included
    in_flight_packets: int
    #: Departure minus the time it was due, of every carried frame. Departure is when the frame is handed to the
    #: receiver's kernel; due counts from when the emulator read the frame, some 10 us after it was sent on a machine
    #: with time to spare. Nothing is subtracted for that: a frame is never early, end to end it is a little late.
    delay_error_p50_ms: float | None
    delay_error_p99_ms: float | None
    delay_error_max_ms: float | None
    delay_error_histogram: list[tuple[float, int]]  #: (upper bound of the bin in ms, frames); empty bins left out
    measured_delay_mean_ms: float | None  #: time in the emulator: queue, line, delay and jitter included
    measured_loss_ratio: float | None  #: lost / (lost + carried)
    measured_rate_mbps: float | None  #: carried bits between the first and the last departure; None below 2 packets
    expected_lost_packets: float  #: sum of the loss_ratio in force over the frames that loss was drawn for
    expected_lost_variance: float  #: sum of loss_ratio x (1 - loss_ratio) over the same frames


class EmulatorStats(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the emulator process itself is doing: whether its figures can be trusted."""

    pid: int
    scheduler: str  #: ``fifo 2`` where it may, else ``other``
    memory_locked: bool
    cpus_held_awake: bool  #: deep idle states are forbidden (`linux.hold_cpus_awake`)
    cpu_s: float
    wakeups: int
    #: A frame that comes while the emulator is at work waits unread, and that wait is in no other figure of its own:
    #: how long the emulator was at work at a stretch, which bounds it.
    busy_p50_ms: float | None
    busy_p99_ms: float | None
    busy_max_ms: float | None
    ledger_records: int
    ledger_omitted: int  #: drops that are counted but not in the ledger, which is bounded


def decode_plans(raw: bytes) -> list[LinkPlan]:
    """Return the link plans in JSON *raw*. Raises: msgspec.ValidationError with the place of what is wrong."""
    return msgspec.json.decode(raw, type=list[LinkPlan])
