"""What a node program is told when it starts: the schema of its configuration file.

The testbed writes one JSON file per process and names it when it asks the zygote to spawn; the program reads and validates
it here. Nothing else reaches a node before it runs: no environment, no globals.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
#: An Ed25519 public key.
KeyHex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

#: When everybody is told that a device is there: as soon as it joins, or no sooner than it has something to say. Who only
#: listens is then known to its proxy alone: a conference of n devices is not told of n joins n times.
Announce = Literal["at-join", "at-first-update"]

#: The reserved first component of every name of the control plane.
ROOT = "hconf"


class LivenessConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Detection time = desired_min_tx_s x detect_mult (RFC 5880 section 6.8.4)."""

    desired_min_tx_s: Seconds = 0.095
    detect_mult: Annotated[int, Meta(ge=1, le=255)] = 3


class FaceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One UDP face, that is, this node's end of one link."""

    face_id: Annotated[int, Meta(ge=1)]
    link: str  #: name of the link, as in the topology
    intf: str  #: interface in this host's namespace; its carrier is watched
    local_address: str  #: IPv4, no prefix length
    remote_address: str
    peer: str  #: name of the node at the other end
    port: Annotated[int, Meta(ge=1, le=65535)] = 6363
    #: of the link; packets that do not fit are sent in fragments (IPv4: every host takes 576)
    mtu_bytes: Annotated[int, Meta(ge=576, le=65535)] = 1_500
    #: of the link, where it has one: Data of the data plane is paced below it and lets the control plane pass
    rate_mbps: Annotated[float, Meta(gt=0)] | None = None
    #: entries of the PIT that Interests from this face may hold, as a part of all of them
    pit_share_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.5


class NextHopConfig(Struct, frozen=True, forbid_unknown_fields=True):
    #: 0 is the local face: the client, login server or service proxy of this node; -1 the service proxy of a proxy UE
    face_id: int
    cost_ms: float  #: path delay to the prefix through this face; the ranking


class RouteConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A FIB entry: *prefix* is an NDN URI such as ``/hconf/csr1`` or ``/hconf/32=all``."""

    prefix: str
    next_hops: tuple[NextHopConfig, ...]
    also: tuple[str, ...] = ()  #: other prefixes with the same next hops, such as those of all UEs behind one CSR

    @property
    def prefixes(self) -> tuple[str, ...]:
        return (self.prefix, *self.also)


class StrategyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    prefix: str
    strategy: Literal["best-route", "multicast"]


class ForwarderConfig(Struct, frozen=True, forbid_unknown_fields=True):
    faces: tuple[FaceConfig, ...]
    routes: tuple[RouteConfig, ...]
    strategies: tuple[StrategyConfig, ...] = (
        StrategyConfig("/hconf/32=all", "multicast"),
        StrategyConfig("/hconf/32=group", "multicast"),
    )
    #: Where the service proxy of a CSR or proxy UE attaches; None where there is none.
    service_socket: str | None = None
    #: Where applications attach: a unix stream socket, and a port for TCP and UDP on the loopback interface.
    application_socket: str | None = None
    application_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    liveness: LivenessConfig = LivenessConfig()
    #: NDNLPv2 acks and repetitions on each link: always, never, or (auto) of the first packets, and where there is loss
    link_reliability: Literal["auto", "on", "off"] = "auto"
    unreliable_prefixes: tuple[str, ...] = ()  #: packets under these names are sent once on each link, come what may
    #: How long a face that has come back, gone, and come back again within seconds is only used where there is no other way;
    #: twice as long each time that its return did not last, up to the maximum.
    return_hold_down_s: Annotated[float, Meta(ge=0)] = 1.0
    return_hold_down_max_s: Annotated[float, Meta(ge=0)] = 30.0
    pit_max_entries: Count = 16_384
    cs_max_entries: Annotated[int, Meta(ge=0)] = 4_096
    cs_max_bytes: Annotated[int, Meta(ge=0)] = 16 * 1024 * 1024


class ProxyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The service proxy of a CSR or proxy UE."""

    forwarder_socket: str  #: the service_socket of this node's forwarder
    key_seed_hex: str  #: 32 bytes: the seed of the Ed25519 key that signs sync stream, heartbeats and snapshots
    #: central: this is the focus of a star (RFC 4353), the only proxy there is; it has nobody to synchronise with
    mode: Literal["hybrid", "push", "pull", "central"] = "hybrid"
    liveness: LivenessConfig = LivenessConfig(desired_min_tx_s=0.2)
    sync_interest_lifetime_s: Seconds = 4.0
    armed_max: Annotated[int, Meta(ge=1, le=256)] = 32  #: most consecutive sync interests kept armed per stream
    history_max_entries: Count = 1_000  #: per conference; older entries live on in the snapshot
    login_public_key_hex: str = ""  #: Ed25519 public key of the login server; without it nobody is admitted
    proxy_keys: dict[str, KeyHex] = {}  #: device ID -> Ed25519 public key of every service proxy, in hex
    #: When an update is acked: in memory, on this proxy's disk, or on the disk and held by another proxy too.
    ack_level: Literal["accepted", "durable", "replicated"] = "durable"
    log_path: str | None = None  #: SQLite database of the digest log; None: in memory only, then nothing is durable
    leave_grace_s: Seconds = 30.0  #: a client that is away for so long has left
    announce: Announce = "at-join"
    joins_per_s: Seconds = 4.0  #: of one device; more are dropped unread
    joins_burst: Count = 8


class ClientConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The service client of a UE."""

    key_seed_hex: str  #: 32 bytes: the device's Ed25519 private key seed
    login_server: str = "login"  #: device ID
    conference: str = "main"
    role: Literal["participant", "observer"] = "participant"
    login_public_key_hex: str = ""  #: Ed25519 public key of the login server; without it no update is believed
    proxy_keys: dict[str, KeyHex] = {}  #: device ID -> Ed25519 public key of every service proxy, in hex
    liveness: LivenessConfig = LivenessConfig(desired_min_tx_s=0.2)
    announce: Announce = "at-join"  #: as its proxies have it
    own_proxy: bool = False  #: a service proxy runs on this UE: have it hand over before we leave
    window_max: Count = 64  #: updates sent and not yet acked
    queue_max: Count = 10_000  #: updates accepted from the application and not yet sent
    #: How long it stays at a proxy that is not the best ranked before it asks a better one whether it is back; twice as long
    #: each time that none is, or that the return did not last, up to the maximum. Up to half as long again, at random.
    return_hold_down_s: Seconds = 5.0
    return_hold_down_max_s: Seconds = 60.0


class FetchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a participant that is told only of names fetches what they name, and keeps its own for the others."""

    fetch_window: Count = 64  #: publications of one participant that are asked for at the same time
    store_max: Count = 100_000  #: own publications kept; the oldest go first, and who comes later never gets them


class SvsConfig(FetchConfig, frozen=True, forbid_unknown_fields=True):
    """A participant of State Vector Sync; the defaults are those of its specification, version 3, section 4.1."""

    periodic_s: Seconds = 30.0  #: from one sync Interest to the next where nothing happens
    periodic_jitter_ratio: Annotated[float, Meta(ge=0, lt=1)] = (
        0.1  #: that is made so much longer or shorter, at random
    )
    suppression_s: Seconds = 0.2  #: longest wait before others are told that they are behind
    suppression_decay: Annotated[float, Meta(gt=0)] = 10.0  #: the greater, the nearer most waits are to the longest
    sync_interest_lifetime_s: Seconds = 1.0


class PsyncConfig(FetchConfig, frozen=True, forbid_unknown_fields=True):
    """A participant of PSync's full synchronisation; the defaults are those of its implementation, version 0.5, but for one.

    That has a freshness of 1 s. Content stores, each of which counts anew from when an answer came to it, then hand old answers
    back and forth: with 12 publishers of 1 update/s over Abilene, updates take three times as long as with this one.
    """

    sync_interest_lifetime_s: Seconds = 1.0  #: it is sent anew after half of that and the jitter
    jitter_min_s: Annotated[float, Meta(ge=0)] = 0.1
    jitter_max_s: Annotated[float, Meta(ge=0)] = 0.5
    sync_reply_freshness_s: Seconds = 0.010  #: so long, content stores answer in the place of who has answered
    expected_entries: Annotated[int, Meta(ge=1, le=400)] = 80  #: differences that the filter is made for


class LoginConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The login server."""

    key_seed_hex: str
    #: device ID -> proxies (device IDs of CSRs and proxy UEs), nearest first
    ranked_proxies: dict[str, tuple[str, ...]]
    #: device ID -> its registered Ed25519 public key, in hex
    devices: dict[str, str] = {}
    #: a JSON or TOML file with more of them, in a table ``devices``
    devices_path: str | None = None
    #: device ID -> when it was revoked (CLOCK_MONOTONIC); what this server is told meanwhile is kept beside devices_path
    revoked: dict[str, float] = {}
    token_lifetime_s: Seconds = 3_600.0
    announce_interval_s: Seconds = 0.2  #: revocations are repeated so often


class NodeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One process.

    ``forwarder`` runs on every host, with the client or login server in it on a UE or login host; ``proxy`` is the second
    process of a CSR, and of a UE that serves as sync proxy.
    """

    run_id: str
    node: str  #: host name, unique in the topology; also its device ID
    role: Literal["core", "csr", "ue", "login"]
    process: Literal["forwarder", "proxy"]
    boot: Count  #: grows at every start of this process
    seed: int  #: of this process; the testbed derives it from the run's seed and the names
    records_path: str  #: JSON lines, appended; see proxy/records.py
    #: Whether it writes down how long it takes for what it is given, which is a little more then: see proxy/processing.py.
    measures_processing: bool = False
    forwarder: ForwarderConfig | None = None
    proxy: ProxyConfig | None = None
    client: ClientConfig | None = None
    #: Of a UE: instead of the service client, a participant of this protocol, with identity and conference of ``client``.
    svs: SvsConfig | None = None
    psync: PsyncConfig | None = None  #: the same
    login: LoginConfig | None = None
