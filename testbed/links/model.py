"""What a `wire` link is made of and what it counts: plain data, shared by the supervisor and the emulator process."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from topologies.model import JitterDistribution, Link, LinkProperties, verify_link_values

Direction = Literal["a_to_b", "b_to_a"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("a_to_b", "b_to_a")

#: Why a frame was not delivered. `loss`: the seeded loss that was asked for; `queue`: the queue in front of the rate
#: was full; `carrier`: the link was down, or the receiving interface was; `blocked`: the link was a black hole in that
#: direction; `overrun`: this machine could not keep up, so it was not the modelled network that dropped it and the run is
#: not faithful; `corrupt`: bits were changed on the way, and the receiver's UDP checksum did not match (of a simulated network:
#: an emulated one delivers the frame, and the receiver's kernel drops it); `fault`: a message fault.
Cause = Literal["loss", "queue", "carrier", "overrun", "corrupt", "blocked", "fault"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

#: What else happens to a frame: it arrives twice; late, so that others overtake it; with a bit changed.
Alteration = Literal["duplicate", "reorder", "corrupt"]
ALTERATIONS: Final[tuple[Alteration, ...]] = get_args(Alteration)


class Impairment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one direction of a link does to the frames that enter it: the properties of `LinkProperties`, decoded and checked.

    In this order: a black hole takes the frame; it waits in the queue, takes its time on the line (`rate_mbps`), and
    may then be lost, by itself or in a burst; else it arrives after `delay_ms` and a jitter, behind the frame before it
    unless `jitter_keeps_order` is false. What is reordered comes later than that, alone; what is duplicated comes a second
    time; what is corrupted, once or twice, has one bit changed behind its Ethernet header.

    Bursts are those of Gilbert and Elliott: a link has a good and a bad state; before each frame it goes from good to bad
    with probability p (`good_to_bad_ratio`), from bad to good with r (`bad_to_good_ratio`); a frame is lost with 1-k
    (`loss_ratio`) in the good state and with 1-h (`bad_loss_ratio`) in the bad one. tc-netem's ``loss gemodel p r 1-h 1-k``
    has the same four. With p = 0 it is Bernoulli's loss. Sources: E. N. Gilbert, "Capacity of a burst-noise channel",
    Bell Syst. Tech. J. 39 (1960); E. O. Elliott, "Estimates of error rates for codes on burst-noise channels", ibid. 42 (1963).

    Raises: ValueError if a value is out of range (msgspec makes it a ValidationError when it decodes).
    """

    delay_ms: float = 0.0  #: one way, 0 to 60,000
    jitter_ms: float = 0.0  #: 0 to 60,000
    #: `uniform` adds 0 to jitter_ms; `normal` makes delay_ms the mean and jitter_ms the standard deviation, cut at four of them
    #: and at 0
    jitter_distribution: JitterDistribution = "uniform"
    jitter_keeps_order: bool = True
    loss_ratio: float = 0.0  #: this and the next three: 0 to 1, for each frame
    good_to_bad_ratio: float = 0.0
    bad_to_good_ratio: float = 0.0
    bad_loss_ratio: float = 1.0
    rate_mbps: float | None = None  #: 10**6 bit/s, counted over whole Ethernet frames without FCS; None: no limit
    queue_packets: int = 1000  #: frames that wait or are being sent; one more is dropped (drop-tail); needs a rate
    queue_bytes: int | None = None  #: bounds them by their bytes instead; an idle line takes a frame of any length
    duplicate_ratio: float = 0.0  #: this and the next two: 0 to 1, for each frame
    reorder_ratio: float = 0.0
    corrupt_ratio: float = 0.0
    late_max_ms: float = 10.0  #: of a duplicate, and of a frame that is reordered; drawn uniformly from 0
    mtu_bytes: int = 1500  #: of the interface that sends into this direction

    def __post_init__(self) -> None:
        verify_link_values(self)


def impairment_of(properties: LinkProperties) -> Impairment:
    """Return what a direction of a topology's link does to frames."""
    return Impairment(**{name: getattr(properties, name) for name in Impairment.__struct_fields__})


def impairments_of(link: Link) -> tuple[Impairment, Impairment]:
    """Return what a topology's link does to frames from `a` to `b`, and from `b` to `a`."""
    return impairment_of(link.properties_from(link.a)), impairment_of(link.properties_from(link.b))


class LinkEnd(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One end of a link: the TAP interface that the emulator makes in a host's namespace."""

    host: str  #: key into the `netns_fds` that `WireEmulator.build` is given
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
    blocked: bool  #: a black hole in this direction, now
    packets: int  #: carried: handed to the receiver's interface; a duplicate counts again
    carried_bytes: int  #: whole Ethernet frames without FCS
    dropped_packets: dict[Cause, int]  #: every cause, zeros included
    altered_packets: dict[Alteration, int]  #: every kind, zeros included; a frame may be in several
    #: of these, as many as the ratios in force come to in the mean; a kind left out: the back end does not tell
    expected_altered_packets: dict[Alteration, float] = {}
    passed_packets: int | None = (
        None  #: frames that `altered_packets` were drawn from; None: the back end does not tell
    )
    in_flight_packets: int
    drawn_packets: int  #: frames that got past the queue, so that loss was decided for them
    #: Departure minus the time it was due, of every carried frame. Departure is when the frame is handed to the
    #: receiver's kernel; due counts from when the emulator read the frame, some 10 us after it was sent on a machine
    #: with time to spare. Nothing is subtracted for that: a frame is never early, end to end it is a little late.
    delay_error_p50_ms: float | None
    delay_error_p99_ms: float | None
    delay_error_max_ms: float | None
    delay_error_histogram: list[tuple[float, int]]  #: (upper bound of the bin in ms, frames); empty bins left out
    measured_delay_mean_ms: float | None  #: time in the emulator: queue, line, delay and jitter included
    measured_loss_ratio: float | None  #: lost / drawn_packets
    measured_rate_mbps: float | None  #: carried bits between the first and the last departure; None below 2 packets
    expected_lost_packets: float  #: sum of the mean loss ratio in force over the frames that loss was drawn for
    expected_lost_variance: (
        float  #: of that number; of Bernoulli's loss the sum of ratio x (1 - ratio), with bursts more
    )


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
