"""What a service proxy knows of one conference: its digest log, its clients, the other proxies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from proxy.core.armed_width import ArmedWidth
from proxy.core.client_session import ClientSession
from proxy.core.digest_log import DigestLog, Stream
from proxy.core.outbox import RequestKey
from proxy.core.publishing_pace import PublishingPace
from proxy.core.snapshot_transfer import FrozenSnapshots, SnapshotFetch


@dataclass
class Peer:
    """Another proxy of a conference."""

    boot: int
    heard_s: float
    up: bool = True
    is_armed: bool = True  #: its stream is followed with sync interests; else it is pushed


@dataclass
class Conference:
    """One conference at this proxy."""

    name: str
    log: DigestLog
    own: Stream
    fetch: SnapshotFetch[RequestKey]
    pace: PublishingPace  #: of our own stream
    frozen: FrozenSnapshots = field(default_factory=FrozenSnapshots)
    clients: dict[str, ClientSession] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    #: sequence number of our own stream -> until when a sync interest is pending for it
    armed: dict[int, float] = field(default_factory=dict)
    #: until then some proxy is taken to be behind lossy links
    lossy_until_s: float = float("-inf")
    #: boot of ours -> how far another proxy has our stream of it
    replicated: dict[int, int] = field(default_factory=dict)
    #: per remote proxy: how many sync interests we keep armed
    widths: dict[str, ArmedWidth] = field(default_factory=lambda: defaultdict(ArmedWidth))
