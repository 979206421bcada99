"""What a node writes down while it runs: the raw records, one JSON object a line, ``kind`` first.

All times are ``CLOCK_MONOTONIC`` seconds, which all network namespaces of a machine share; the analysis subtracts the
run's epoch. A record is written at the moment it happens and flushed at least once a second.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Via = Literal["armed", "push", "recovery", "snapshot", "fetch"]
SessionState = Literal["login", "joining", "joined", "suspect", "closing", "closed", "refused"]


class Published(Struct, frozen=True, tag_field="kind", tag="published"):
    """A client handed an FP update to the network for the first time."""

    t_s: float
    conference: str
    publisher: str
    boot: int
    seq: int
    event: str
    size_bytes: int  #: of the body
    object_name: str
    sha256: str  #: first 16 hex digits, over the signed bytes of the update


class Acked(Struct, frozen=True, tag_field="kind", tag="acked"):
    """The publisher received the ack of one of its updates."""

    t_s: float
    conference: str
    publisher: str
    boot: int
    seq: int
    level: Literal["accepted", "durable", "replicated"]
    proxy: str


class Applied(Struct, frozen=True, tag_field="kind", tag="applied"):
    """A client applied another participant's update to its view."""

    t_s: float
    conference: str
    receiver: str
    publisher: str
    boot: int
    seq: int
    via: Via
    sha256: str


class SnapshotApplied(Struct, frozen=True, tag_field="kind", tag="snapshot-applied"):
    """A client took over a snapshot: everything up to *heads* counts as delivered via ``snapshot``."""

    t_s: float
    conference: str
    receiver: str
    heads: list[tuple[str, int, int]]  #: (publisher, boot, seq)


class SessionChanged(Struct, frozen=True, tag_field="kind", tag="session"):
    """A client's session with its service proxy changed state."""

    t_s: float
    conference: str
    device: str
    proxy: str  #: empty where there is none
    state: SessionState
    reason: str = ""


class Granted(Struct, frozen=True, tag_field="kind", tag="granted"):
    """The login server granted a token."""

    t_s: float
    conference: str
    device: str
    role: Literal["participant", "observer"]
    issued_s: float
    expires_s: float


class Revoked(Struct, frozen=True, tag_field="kind", tag="revoked"):
    """The login server voided every token of a device that it had issued until then."""

    t_s: float
    device: str


class FaceChanged(Struct, frozen=True, tag_field="kind", tag="face"):
    t_s: float
    node: str
    link: str
    peer: str
    state: Literal["up", "down"]
    reason: str  #: "heard", "carrier", "detection-time", "peer-down"


class PrefixChanged(Struct, frozen=True, tag_field="kind", tag="prefix"):
    """The first application of a node registered a prefix, or the last one that had it is gone."""

    t_s: float
    node: str
    prefix: str  #: NDN URI
    state: Literal["registered", "unregistered"]


class PeerChanged(Struct, frozen=True, tag_field="kind", tag="peer"):
    """A service proxy heard of, or lost, another proxy of a conference."""

    t_s: float
    conference: str
    proxy: str
    peer: str
    state: Literal["up", "down"]


class ObjectPublished(Struct, frozen=True, tag_field="kind", tag="object-published"):
    """A client made an object, or began a live stream, and is about to announce it."""

    t_s: float
    conference: str
    publisher: str
    object_name: str
    size_bytes: int
    segments: int
    is_stream: bool


ObjectOutcome = Literal["complete", "given-up", "left"]


class ObjectFetched(Struct, frozen=True, tag_field="kind", tag="object-fetched"):
    """A client has come to the end of fetching an object, or of receiving a live stream."""

    t_s: float
    conference: str
    receiver: str
    object_name: str
    begun_s: float  #: when it asked for the first segment
    size_bytes: int  #: of the content that came
    segments: int  #: segments or frames that came
    segments_asked: int  #: all of an object; of a stream, the frames that were not past when it was announced
    retransmissions: int
    bytes_by_hops: list[tuple[int, int]]  #: (links from the store or producer to here, bytes of content); -1: not known
    outcome: ObjectOutcome
    deadline_misses: int | None  #: frames that came too late or not at all; None for an object


ServiceState = Literal["serving", "handing-over", "handed-over"]


class ServiceChanged(Struct, frozen=True, tag_field="kind", tag="service"):
    """A proxy UE hands over, has handed over, or serves again; it serves from its start on."""

    t_s: float
    proxy: str
    state: ServiceState


class StateReported(Struct, frozen=True, tag_field="kind", tag="state"):
    """View of a conference at a client or proxy, written when asked for over the control channel (op ``status``)."""

    t_s: float
    conference: str
    node: str
    component: Literal["client", "proxy"]
    state_digest: str  #: hex; equal digests = equal state. Proxies compare with proxies, clients with clients
    vector: list[tuple[str, int, int]]  #: sync streams: (proxy, boot, seq), sorted
    heads: list[tuple[str, int, int]]  #: publishers: (device, boot, last seq applied), sorted
    roster: list[str]  #: devices joined, sorted, those away included
    away: list[str] = []  #: those of them that their proxy has not heard for the detection time


class MessageCount(Struct, frozen=True, array_like=True):
    link: str
    peer: str
    message: str
    packets: int
    bytes: int


class CountersReported(Struct, frozen=True, tag_field="kind", tag="counters"):
    """Totals since the process started, but for timer lag; written once a second and at the end, the last one counts."""

    t_s: float
    node: str
    process: Literal["forwarder", "proxy"]
    cpu_s: float
    max_rss_bytes: int
    timer_lag_since_s: float  #: the two below are of what fired after: the report before this, or the start
    timer_lag_bins: list[tuple[int, int]]  #: (bin, count), as `proxy.lag.LagHistogram` counts
    timer_lag_max_ms: float
    sent: list[MessageCount]  #: per link and message type, packets this node sent (forwarder only)
    counters: dict[str, int]  #: cs_hits, cs_misses, cs_entries, cs_bytes, pit_entries, pit_max, malformed, nacks, ...
    bounds: dict[
        str, int
    ]  #: configured bound of each bounded counter, same keys: pit_entries, cs_entries, cs_bytes, ...


class HandlingCount(Struct, frozen=True, array_like=True):
    """How long a process took to handle events of one class."""

    size_bits: int  #: bit length of the packet's size in bytes; 0: no packet, but a timer or the like
    sent_bits: int  #: bit length of the number of packets that followed from it
    bins: list[tuple[int, int]]  #: (bin, count), as `proxy.lag.bin_of`


class ProcessingMeasured(Struct, frozen=True, tag_field="kind", tag="processing"):
    """How long a node program took for what it was given since *since_s*; written along with its counters."""

    t_s: float
    since_s: float
    node: str
    process: Literal["forwarder", "proxy"]
    handling: list[HandlingCount]
    wake_up_bins: list[tuple[int, int]]  #: from a packet's arrival in the kernel, while idle, until it was handled


Record = (
    Published
    | Acked
    | Applied
    | SnapshotApplied
    | SessionChanged
    | Granted
    | Revoked
    | FaceChanged
    | PrefixChanged
    | PeerChanged
    | ServiceChanged
    | ObjectPublished
    | ObjectFetched
    | StateReported
    | CountersReported
    | ProcessingMeasured
)
