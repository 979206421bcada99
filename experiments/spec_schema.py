"""The schema of an experiment file: one struct per table, one field per key, with unit, range and default.

This is the only place where a key of the file is defined. What depends on more than one key, or on the topology, is
checked in `experiments.spec_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from experiments.spec_types import Devices, Law, Moment, Ratio, Seconds, Word
from experiments.spec_workloads import Workload
from proxy.config import Announce
from testbed.plan import Mode
from topologies.model import (
    MTU_MAX_BYTES,
    MTU_MIN_BYTES,
    QUEUE_MAX_BYTES,
    QUEUE_MAX_PACKETS,
    JitterDistribution,
    LinkBackend,
)

SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]
DelayMs = Annotated[float, Meta(ge=0, le=60_000, description="one way")]
OpenRatio = Annotated[float, Meta(gt=0, lt=1, description="a fraction, not a percentage")]
PositiveMs = Annotated[float, Meta(gt=0, le=60_000)]
RateMbps = Annotated[float, Meta(ge=0.001, le=1_000_000)]
QueuePackets = Annotated[int, Meta(ge=1, le=QUEUE_MAX_PACKETS)]
QueueBytes = Annotated[int, Meta(ge=1, le=QUEUE_MAX_BYTES)]
MtuBytes = Annotated[int, Meta(ge=MTU_MIN_BYTES, le=MTU_MAX_BYTES, description="of IP, without the Ethernet header")]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
CountOrNone = Annotated[int, Meta(ge=0, le=10_000_000)]
DetectMult = Annotated[int, Meta(ge=1, le=255)]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="1 to 64 ASCII letters, digits, `.`, `_` and `-`, a letter or digit first",
    ),
]

Code = Annotated[str, Meta(min_length=1, max_length=4_000)]

AckLevel = Literal["accepted", "durable", "replicated"]


class ExperimentSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[experiment]``: how long, with which seed."""

    name: Name  #: part of the run folder's name
    duration_s: Seconds  #: from the first update to the last; joining and settling take their own time
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = (
        1  #: of the workload and of all that is lost, delayed or drawn; the same seed gives the same run
    )
    settle_s: Annotated[float, Meta(ge=0, le=3_600)] = 10.0  #: most time after duration_s until everybody agrees
    link_backend: LinkBackend = "auto"  #: of links whose own table, or their tier's, says no other


class OneWaySection(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[links.<tier>.from.<role>]`` or ``[links."<a>-<b>".from.<a>]``: what one end sends; all else is as in the table above."""

    delay_ms: DelayMs | None = None
    jitter_ms: DelayMs | None = None
    jitter_distribution: JitterDistribution | None = None
    jitter_keeps_order: bool | None = None
    loss_ratio: Ratio | None = None  #: with bursts: in the good state (1-k)
    good_to_bad_ratio: Ratio | None = None  #: Gilbert-Elliott's p, per packet; these three are for bursts of loss
    bad_to_good_ratio: Ratio | None = None  #: r, per packet
    bad_loss_ratio: Ratio | None = None  #: 1-h; 1 unless given
    rate_mbps: RateMbps | None = None
    queue_packets: QueuePackets | None = None
    queue_bytes: QueueBytes | None = None  #: instead of queue_packets
    duplicate_ratio: Ratio | None = None
    reorder_ratio: Ratio | None = None
    corrupt_ratio: Ratio | None = None
    late_max_ms: DelayMs | None = None  #: most by which duplicates and what is reordered come later
    mtu_bytes: MtuBytes | None = None


class LinkSection(OneWaySection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[links.<tier>]`` or ``[links."<a>-<b>"]``: what is not given stays as the topology has it."""

    #: By sender, for one direction only: of a link, the name of an end; of a tier, the role of the sending nodes.
    from_: dict[Word, OneWaySection] = field(name="from", default_factory=dict)
    backend: LinkBackend | None = None  #: instead of experiment.link_backend


class ClocksSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[clocks]``: with --mode simulated only; really, all nodes of a machine share one clock."""

    #: By node: how much faster than true its clock runs, in parts per million.
    skew_ppm: dict[str, Annotated[float, Meta(ge=-10_000, le=10_000)]] = {}


class AttendanceSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[[attendance]]``: devices that are not there all the time. Those that none names are, from before t = 0 on.

    With session_s there is churn: each device comes and goes, on its own, between join_at_s and leave_at_s.
    """

    devices: Devices | None = None  #: UEs, or routers for the UEs behind them; None: all UEs
    join_at_s: Moment | None = None  #: None: before t = 0, as the others
    #: each at a random moment from join_at_s to so much later
    join_within_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    leave_at_s: Moment | None = None  #: closes then, for good; None: stays to the end
    session_s: Annotated[float, Meta(ge=0.5, le=86_400)] | None = (
        None  #: mean length of a session; None: it does not end by itself
    )
    away_s: Annotated[float, Meta(ge=0.5, le=86_400)] | None = (
        None  #: mean time until the next session; None: there is none
    )
    law: Law = "exponential"  #: of session_s and away_s; a session or absence is 0.25 s long at least


#: In larger networks, by default, who only listens is not announced.
ANNOUNCED_AT_JOIN_MAX: Final = 500


class ConferenceSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[conference]``: the defaults are those of proxy/config.py; a test compares them."""

    name: Name = "main"  #: part of the names of its updates
    mode: Mode = "hybrid"  #: how updates reach the proxies: the hybrid, its two halves alone, or one to compare it with
    #: What a proxy acks: an update in its memory, in its log on disk, or held by another proxy too.
    ack_level: AckLevel = "durable"
    others: dict[Name, tuple[Word, ...]] = {}  #: conference -> UEs that are in it instead
    heartbeat_s: Seconds = 0.2  #: of proxies and clients; their detection time is this x detect_mult
    detect_mult: DetectMult = 3  #: heartbeats that may stay out before the other side is taken for dead
    face_heartbeat_s: Seconds = 0.095  #: of faces; their detection time is this x face_detect_mult, below 0.3 s
    face_detect_mult: DetectMult = 3  #: heartbeats that may stay out on a link before it is taken for dead
    sync_interest_lifetime_s: Seconds = 4.0  #: so long a sync interest stays pending before it is sent anew
    armed_max: Annotated[int, Meta(ge=1, le=256)] = 32  #: sync interests kept armed per stream
    history_max_entries: Count = 1_000  #: at a proxy; older ones live on in its snapshot
    pit_max_entries: Count = 16_384  #: Interests that a forwarder keeps pending at the same time
    cs_max_entries: CountOrNone = 4_096  #: Data packets in a forwarder's content store; 0: it keeps none
    cs_max_bytes: Annotated[int, Meta(ge=0, le=2**40)] = 16 * 1024 * 1024  #: all Data in a forwarder's content store
    window_max: Count = 64  #: a client's updates sent and not yet acked
    queue_max: Count = 10_000  #: a client's updates accepted and not yet sent
    leave_grace_s: Seconds = 30.0  #: a client that is away for so long has left
    #: a client not at its best ranked proxy asks after so long whether that is back; twice as long each time, up to the max
    return_hold_down_s: Seconds = 5.0
    return_hold_down_max_s: Seconds = 60.0  #: the longest that return_hold_down_s becomes
    #: When everybody is told of a device: ``at-join``; ``at-first-update``, while who only listens is known to its proxy alone;
    #: ``auto``: the former in networks of up to 500 UEs. With n devices, the former are n joins told n times.
    announce: Literal["auto", "at-join", "at-first-update"] = "auto"
    token_lifetime_s: Seconds = 3_600.0  #: so long a login is good; clients renew theirs in time

    def announced(self, ues: int) -> Announce:
        """Return what *announce* comes to in a network of so many UEs."""
        if self.announce != "auto":
            return self.announce
        return "at-join" if ues <= ANNOUNCED_AT_JOIN_MAX else "at-first-update"

    def node_sections(self) -> dict[str, dict[str, Any]]:
        """Return the settings for the sections of a node's configuration (proxy/config.py), by section name.

        Mode and name are not among them: they are parameters of the network plan themselves.
        """
        liveness = {"desired_min_tx_s": self.heartbeat_s, "detect_mult": self.detect_mult}
        face_liveness = {"desired_min_tx_s": self.face_heartbeat_s, "detect_mult": self.face_detect_mult}
        return {
            "forwarder": {
                "liveness": face_liveness,
                "pit_max_entries": self.pit_max_entries,
                "cs_max_entries": self.cs_max_entries,
                "cs_max_bytes": self.cs_max_bytes,
            },
            "proxy": {
                "liveness": liveness,
                "sync_interest_lifetime_s": self.sync_interest_lifetime_s,
                "armed_max": self.armed_max,
                "history_max_entries": self.history_max_entries,
                "leave_grace_s": self.leave_grace_s,
                "ack_level": self.ack_level,
            },
            "client": {
                "liveness": liveness,
                "window_max": self.window_max,
                "queue_max": self.queue_max,
                "return_hold_down_s": self.return_hold_down_s,
                "return_hold_down_max_s": self.return_hold_down_max_s,
            },
            "login": {"token_lifetime_s": self.token_lifetime_s},
        }


class SvsSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[svs]``: State Vector Sync, for mode ``svs``; the defaults are those of its specification, version 3."""

    periodic_s: Seconds = 30.0  #: from one sync Interest to the next where nothing happens
    periodic_jitter_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.1  #: so much longer or shorter, at random
    suppression_s: Seconds = 0.2  #: longest wait before others are told that they are behind
    suppression_decay: Annotated[float, Meta(gt=0, le=1_000)] = 10.0  #: the greater, the nearer most waits are to it
    sync_interest_lifetime_s: Seconds = 1.0  #: so long a sync Interest stays in the network's PITs
    fetch_window: Count = 64  #: publications of one participant that are asked for at the same time
    store_max: Count = 100_000  #: own publications that a participant keeps for the others


class PsyncSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[psync]``: PSync's full synchronisation, for mode ``psync``; defaults as of proxy/config.py."""

    sync_interest_lifetime_s: Seconds = 1.0  #: it is sent anew after half of that and the jitter
    jitter_min_s: Annotated[float, Meta(ge=0, le=3_600)] = (
        0.1  #: least random time that is added to when it is sent anew
    )
    jitter_max_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.5  #: greatest of these times
    sync_reply_freshness_s: Seconds = (
        0.010  #: so long, content stores answer instead; PSync has 1 s, which is worse here
    )
    expected_entries: Annotated[int, Meta(ge=1, le=400)] = 80  #: differences that the filter in a name is made for
    fetch_window: Count = 64  #: publications of one participant that are asked for at the same time
    store_max: Count = 100_000  #: own publications that a participant keeps for the others


class CentralSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[central]``: the star of mode ``central``."""

    focus: Word | None = None  #: the CSR that serves all; None: that with the least path delay to the UEs, on average


class ForwardingSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[forwarding]``: what routers do with packets; the defaults are those of proxy/config.py."""

    #: Acks and repetitions on each link: always, never, or (auto) of the first packets, and where there is loss.
    link_reliability: Literal["auto", "on", "off"] = "auto"
    unreliable: tuple[str, ...] = ()  #: name prefixes whose packets are sent once on each link, come what may
    strategies: dict[str, Literal["best-route", "multicast"]] = {}  #: by name prefix
    #: so long a link that flaps is only used where there is no other way; twice as long each time that it goes again
    return_hold_down_s: SecondsOrNone = 1.0
    return_hold_down_max_s: SecondsOrNone = 30.0  #: the longest that return_hold_down_s becomes

    def node_section(self) -> dict[str, Any]:
        """Return the settings for the section of a forwarder in a node's configuration (proxy/config.py)."""
        chosen = {"/hconf/32=all": "multicast", "/hconf/32=group": "multicast"} | self.strategies
        return {
            "link_reliability": self.link_reliability,
            "unreliable_prefixes": self.unreliable,
            "strategies": [{"prefix": prefix, "strategy": strategy} for prefix, strategy in chosen.items()],
            "return_hold_down_s": self.return_hold_down_s,
            "return_hold_down_max_s": self.return_hold_down_max_s,
        }


class _Fault(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """``[[fault]]``: what every kind has."""

    at_s: Moment
    target: Word  #: name of a link, its ends in either order; of a process, or of a node for all its processes


class LinkDown(_Fault, frozen=True, forbid_unknown_fields=True, tag="link-down", kw_only=True):
    """Both ends lose their carrier, for *for_s* or until a ``link-up``, else to the end of the run."""

    for_s: Seconds | None = None


class LinkUp(_Fault, frozen=True, forbid_unknown_fields=True, tag="link-up", kw_only=True):
    """Ends a ``link-down`` that has no *for_s*."""


class Flap(_Fault, frozen=True, forbid_unknown_fields=True, tag="flap", kw_only=True):
    """The link goes down and comes back, again and again, *count* times or for *for_s*; both ends see it."""

    period_s: Seconds  #: from one time that it goes down to the next
    down_ratio: OpenRatio = 0.5  #: part of each period in which it is down, at its beginning
    count: Annotated[int, Meta(ge=1, le=100_000)] | None = (
        None  #: times that it goes down; None: for_s says how long it flaps
    )
    for_s: Seconds | None = None


class Impair(_Fault, frozen=True, forbid_unknown_fields=True, tag="impair", kw_only=True):
    """The link's properties change, at once or over *ramp_s*, for *for_s*, else to the end of the run; what is not given stays."""

    for_s: Seconds | None = None
    delay_ms: DelayMs | None = None
    jitter_ms: DelayMs | None = None
    loss_ratio: Ratio | None = None
    good_to_bad_ratio: Ratio | None = None  #: this and the next two: bursts of loss, as in `LinkSection`
    bad_to_good_ratio: Ratio | None = None
    bad_loss_ratio: Ratio | None = None
    rate_mbps: RateMbps | None = None
    queue_packets: QueuePackets | None = None
    queue_bytes: QueueBytes | None = None
    duplicate_ratio: Ratio | None = None
    reorder_ratio: Ratio | None = None
    corrupt_ratio: Ratio | None = None
    late_max_ms: DelayMs | None = None
    mtu_bytes: MtuBytes | None = None
    jitter_distribution: JitterDistribution | None = None
    jitter_keeps_order: bool | None = None
    sender: Word | None = None  #: only what this end of the link sends; None: both directions
    #: Changes little by little, in steps of 0.1 s at most, and is there after so long; for properties that are numbers.
    ramp_s: Seconds | None = None
    #: Only IPv4 frames that fit: ``[icmp|tcp|udp] [src NETWORK] [dst NETWORK] [src-port N] [dst-port N]``; netem links only.
    match: Word | None = None

    def changes(self) -> dict[str, float | str | bool]:
        """Return the properties that are given, by name."""
        return {name: value for name in _IMPAIRED if (value := getattr(self, name)) is not None}


#: What `impair` can change, by name.
_IMPAIRED: Final = (
    *("delay_ms", "jitter_ms", "loss_ratio", "good_to_bad_ratio", "bad_to_good_ratio", "bad_loss_ratio"),
    *("rate_mbps", "queue_packets", "queue_bytes", "duplicate_ratio", "reorder_ratio", "corrupt_ratio", "late_max_ms"),
    *("mtu_bytes", "jitter_distribution", "jitter_keeps_order"),
)


class BlackHole(_Fault, frozen=True, forbid_unknown_fields=True, tag="black-hole", kw_only=True):
    """The link swallows everything, and neither end is told, for *for_s*, else to the end of the run."""

    for_s: Seconds | None = None
    sender: Word | None = None  #: only what this end of the link sends; None: both directions


class _Cut(_Fault, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """Several links are cut at once."""

    for_s: Seconds | None = None
    silent: bool = False  #: they swallow everything; else their ends lose their carrier


class Partition(_Cut, frozen=True, forbid_unknown_fields=True, tag="partition", kw_only=True):
    """All links between groups of nodes are cut, for *for_s*, else to the end of the run.

    A UE or login server in no group goes with the router that it is attached to; the other nodes in no group are one more group.
    """

    target: Word = ""  #: groups with ``/`` between them: ``csr1,core1/csr2,core2``; or, as lists,
    #: groups of nodes, each a list of names; instead of target
    groups: Annotated[tuple[Annotated[tuple[Word, ...], Meta(min_length=1)], ...], Meta(min_length=1)] | None = None


class Isolate(_Cut, frozen=True, forbid_unknown_fields=True, tag="isolate", kw_only=True):
    """All links of a node are cut, for *for_s*, else to the end of the run."""


class Crash(_Fault, frozen=True, forbid_unknown_fields=True, tag="crash", kw_only=True):
    """A process is killed, and started again after *for_s* or by a ``restart``, else not at all."""

    for_s: Seconds | None = None


class Restart(_Fault, frozen=True, forbid_unknown_fields=True, tag="restart", kw_only=True):
    """A process is killed and started again at once; one that does not run, because of a fault without *for_s*, is started."""


class DiskLoss(_Fault, frozen=True, forbid_unknown_fields=True, tag="disk-loss", kw_only=True):
    """A service proxy is killed and its digest log removed; it is started again after *for_s*, else not at all."""

    for_s: Seconds | None = None


class Freeze(_Fault, frozen=True, forbid_unknown_fields=True, tag="freeze", kw_only=True):
    """A process is stopped for *for_s* or until a ``thaw``, else to the end of the run; it loses nothing."""

    for_s: Seconds | None = None


class Thaw(_Fault, frozen=True, forbid_unknown_fields=True, tag="thaw", kw_only=True):
    """Ends a ``freeze`` that has no *for_s*."""


class Starve(_Fault, frozen=True, forbid_unknown_fields=True, tag="starve", kw_only=True):
    """A process gets a processor for a part of each period only, for *for_s*, else to the end of the run."""

    cpu_ratio: OpenRatio  #: that part
    period_ms: Annotated[float, Meta(ge=5, le=1_000)] = 20.0  #: the processor is given and taken once in each
    for_s: Seconds | None = None


class LoginOutage(_Fault, frozen=True, forbid_unknown_fields=True, tag="login-outage", kw_only=True):
    """The login server does not answer, for *for_s*, else to the end of the run: it is killed, or frozen."""

    target: Word = ""  #: login server; not given: the one there is
    how: Literal["crash", "freeze"] = "crash"  #: killed, or alive and silent
    for_s: Seconds | None = None


class _MessageFault(_Fault, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """Packets that cross a link are changed one by one; what those below have in common.

    *target* is a link, a node for all its links, or ``*`` for all links. A packet is meant where *message*, *name* and *predicate*
    agree to it, as far as they are given. What a link repeats is another packet.
    """

    for_s: Seconds | None = None  #: None: to the end of the run, or until *count* is reached
    sender: Word | None = None  #: only what this node sends
    receiver: Word | None = None  #: only what is sent to this node
    message: Word | None = None  #: message type as in messages.csv, or several: ``"push,sync-update"``
    name: Word | None = None  #: pattern for its name: ``/hconf/csr1/32=sync/*``
    predicate: Code | None = None  #: Python over ``packet``, which has the layers of a capture
    count: Count | None = None  #: the first so many; None: no limit
    ratio: Annotated[float, Meta(gt=0, le=1, description="a fraction, not a percentage")] = 1.0  #: each on its own


class Drop(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="drop", kw_only=True):
    """They do not arrive."""


class Delay(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="delay", kw_only=True):
    """They arrive *delay_ms* later; others overtake them."""

    delay_ms: PositiveMs  #: so much later


class Duplicate(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="duplicate", kw_only=True):
    """They arrive *times* times more, right behind."""

    times: Annotated[int, Meta(ge=1, le=100)] = 1  #: copies that arrive besides the original


class Corrupt(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="corrupt", kw_only=True):
    """They arrive with *bits* of the datagram flipped."""

    bits: Annotated[int, Meta(ge=1, le=10_000)] = 1  #: flipped at random places of the datagram
    #: of UDP, over what arrives: right, so that the node's decoder and signatures meet it, or wrong, so that its kernel does
    checksum: Literal["right", "wrong"] = "right"


class Replay(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="replay", kw_only=True):
    """They arrive once more, *after_ms* later, and so on *times* times, *every_ms* apart."""

    after_ms: PositiveMs  #: from the original to the first copy
    times: Annotated[int, Meta(ge=1, le=100)] = 1  #: copies
    every_ms: PositiveMs | None = None  #: None: after_ms


class Forge(_MessageFault, frozen=True, forbid_unknown_fields=True, tag="forge", kw_only=True):
    """They arrive as *edit* makes them; lengths, checksums and digests are right then, signatures are as they were."""

    edit: Code  #: Python statements over ``packet``: ``packet["FpUpdate"].seq += 1``
    keep_original: bool = False  #: what was sent arrives, too, before it


class Inject(_Fault, frozen=True, forbid_unknown_fields=True, tag="inject", kw_only=True):
    """Packets made by hand are sent over a link, as if its end *sender* had; one of *file*, *hex* and *packet* says which."""

    sender: Word  #: end of the link that they seem to come from
    file: Word | None = None  #: capture, Python file that sets ``packets``, or .hex; as seen from the experiment file
    #: datagrams in hexadecimal digits
    hex: Annotated[tuple[Annotated[str, Meta(min_length=2, max_length=20_000)], ...], Meta(min_length=1)] | None = None
    packet: Code | None = None  #: Python expression that makes a packet or several: ``Interest(value=[...])``
    message: Word | None = None  #: of a capture: packets of these message types
    name: Word | None = None  #: of a capture: packets whose name matches
    times: Annotated[int, Meta(ge=1, le=100_000)] = 1  #: all of them, so many times
    every_ms: PositiveMs | None = None  #: from one time to the next; needed if *times* is more than 1


class Expectation(Struct, frozen=True, forbid_unknown_fields=True):
    """``[[expect]]``: a metric of summary.csv and at least one bound, in the metric's unit."""

    metric: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$",
            description="a metric as in summary.csv, such as `deliveries.ratio.p50`",
        ),
    ]
    at_most: float | None = None  #: greatest value that passes
    at_least: float | None = None  #: least value that passes
    equals: float | None = None  #: the only value that passes


class CaptureSection(Struct, frozen=True, forbid_unknown_fields=True):
    """``[capture]``: what to record as pcapng."""

    links: tuple[Word, ...] = ()  #: names of links, ends in either order


LinkFault = LinkDown | LinkUp | Flap | Impair | BlackHole | Partition | Isolate
ProcessFault = Crash | Restart | DiskLoss | Freeze | Thaw | Starve | LoginOutage
MessageFault = Drop | Delay | Duplicate | Corrupt | Replay | Forge
Fault = LinkFault | ProcessFault | MessageFault | Inject


class ExperimentFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. *topology* is read with the parameters that its name asks for (`topologies.catalogue`)."""

    experiment: ExperimentSection
    topology: dict[str, Any]
    links: dict[str, LinkSection] = {}
    conference: ConferenceSection = ConferenceSection()
    forwarding: ForwardingSection = ForwardingSection()
    central: CentralSection = CentralSection()
    svs: SvsSection = SvsSection()
    psync: PsyncSection = PsyncSection()
    attendance: tuple[AttendanceSection, ...] = ()
    clocks: ClocksSection = ClocksSection()
    workload: tuple[Workload, ...] = ()
    fault: tuple[Fault, ...] = ()
    expect: tuple[Expectation, ...] = ()
    capture: CaptureSection = CaptureSection()


def kind_of(fault: Fault) -> str:
    """Return the `kind` as the file says it.

    >>> kind_of(LinkUp(at_s=1.0, target="a-b"))
    'link-up'
    """
    return str(fault.__struct_config__.tag)


def fault_ids(faults: Sequence[Fault]) -> list[str]:
    """Return the identities that scheduled faults get: ``f1``, ``f2``, … in the order of the file."""
    return [f"f{number}" for number in range(1, len(faults) + 1)]
