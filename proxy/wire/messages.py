"""The payloads of the messages of the conference protocol (design.md section 5); their names are in ``proxy.wire.message_names``.

They are ApplicationParameters of an Interest, Content of a Data, in MessagePack, each message an array.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from proxy.wire.message_names import IDENTIFIER_MAX_OCTETS, NUMBER_MAX

Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_MAX_OCTETS)]
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Digest = Annotated[bytes, Meta(min_length=16, max_length=16)]
#: (proxy, boot, seq): a position in a sync stream; everything up to it is known
Position = tuple[Identifier, Number, Number]
Via = Literal["armed", "push", "recovery", "snapshot", "fetch"]

EMPTY_DIGEST: Final = bytes(16)
#: What one packet may carry of updates, so that it stays below PACKET_MAX_BYTES with its name and signature.
PAYLOAD_MAX_BYTES: Final = 8_000
#: The longest content of a sealed reply that still fits with the longest name and the signature of the seal.
REPLY_MAX_BYTES: Final = 8_400
#: Of a frozen snapshot all segments but the last are of this size.
SEGMENT_BYTES: Final = 8_000
#: Longest snapshot that is sent or taken over: more than 100,000 devices with their tokens.
SNAPSHOT_MAX_BYTES: Final = 32 * 1024 * 1024
OBJECT_NAME_MAX_OCTETS: Final = 512
#: Number of the first join of a boot; a later one may be a move from another proxy.
FIRST_JOIN: Final = 1
#: Why a proxy that hands over ends sessions and refuses joins; the next ranked proxy serves instead.
HANDING_OVER: Final = "handing_over"
#: Longest body of one FP update.
BODY_MAX_BYTES: Final = 7_000
#: Of an object, all segments but the last are of this size: three frames of a common link. Larger ones would hold up the
#: control plane for longer, smaller ones be mostly names and signatures.
OBJECT_SEGMENT_BYTES: Final = 4_000
DIGEST_BYTES: Final = 32
#: Digests in one segment of a manifest.
DIGESTS_PER_SEGMENT: Final = OBJECT_SEGMENT_BYTES // DIGEST_BYTES
#: Largest object that is published or fetched; its manifest has 135 segments.
OBJECT_MAX_BYTES: Final = 64 * 1024 * 1024
#: A day of a thousand frames a second, and then some.
FRAMES_MAX: Final = 100_000_000
#: Longest frame of a live stream.
FRAME_MAX_BYTES: Final = OBJECT_SEGMENT_BYTES


class FpUpdate(Struct, frozen=True, array_like=True):
    """One conference event of one participant. Identity: (conference, device, boot, seq)."""

    conference: Identifier
    device: Identifier
    boot: Number
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    event: Identifier
    object_name: Annotated[str, Meta(max_length=OBJECT_NAME_MAX_OCTETS)]
    fingerprint: Annotated[bytes, Meta(max_length=32)]  #: of the publisher's public key
    published_s: float
    last_digest: Digest  #: the publisher's state before this update
    digest: Digest  #: and after it
    body: Annotated[bytes, Meta(max_length=BODY_MAX_BYTES)]


class SignedUpdate(Struct, frozen=True, array_like=True):
    """An FP update as it travels: the bytes that were signed, untouched from publisher to receiver."""

    update: Annotated[bytes, Meta(max_length=PAYLOAD_MAX_BYTES)]
    signature: Annotated[bytes, Meta(max_length=64)]


class RosterEvent(Struct, frozen=True, array_like=True):
    """What a proxy says of the presence of one of its clients; of two, the one with the greater ``order`` holds.

    Joins of a device are numbered and each goes to one proxy, which numbers what it says; so everybody who knows the same
    events sees the same roster, in whatever order they came, and who has moved is not marked left by the proxy it left.
    """

    device: Identifier
    boot: Number
    join: Number  #: number of the join with which the device came to this proxy
    version: Number  #: grows with everything that the proxy says of that device
    state: Literal["present", "away", "left"]

    @property
    def order(self) -> tuple[int, int, int]:
        return (self.boot, self.join, self.version)


class SyncUpdate(Struct, frozen=True, array_like=True):
    """Entry *seq* of a sync stream: what was accepted, chained to all entries before it, signed by the proxy."""

    chain_digest: Digest  #: of the stream up to and including this entry
    updates: Annotated[tuple[SignedUpdate, ...], Meta(max_length=256)]
    truncated: bool = False  #: the entry lies behind the snapshot; ask for recovery instead
    roster: Annotated[tuple[RosterEvent, ...], Meta(max_length=64)] = ()
    #: Ed25519, over conference, proxy, boot, seq, the chain digest and what the entry holds
    signature: Annotated[bytes, Meta(max_length=64)] = b""


class StreamEntry(Struct, frozen=True, array_like=True):
    """A sync update together with its place."""

    proxy: Identifier
    boot: Number
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    via: Via  #: how it came to the sender of this message
    content: bytes  #: an encoded SyncUpdate


class Head(Struct, frozen=True, array_like=True):
    """What is known of one publisher."""

    device: Identifier
    boot: Number
    seq: Number
    content_digest: Digest  #: chained over its updates, so equal heads mean equal content
    joined: bool


class StreamHead(Struct, frozen=True, array_like=True):
    """How far a sync stream is known."""

    proxy: Identifier
    boot: Number
    seq: Number
    chain_digest: Digest


class Token(Struct, frozen=True, array_like=True):
    """What the login server grants."""

    device: Identifier
    conference: Identifier
    role: Literal["participant", "observer"]
    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    issued_s: float
    expires_s: float


class SignedToken(Struct, frozen=True, array_like=True):
    token: Annotated[bytes, Meta(max_length=1_024)]
    signature: Annotated[bytes, Meta(max_length=64)]


class Snapshot(Struct, frozen=True, array_like=True):
    """The view of a conference at a state, without history."""

    heads: tuple[Head, ...]
    streams: tuple[StreamHead, ...]
    #: of entries that the streams count: updates that wait for an earlier one of their publisher, or for its token
    held: tuple[SignedUpdate, ...] = ()
    presence: tuple[RosterEvent, ...] = ()
    #: of devices that are joined, as many as fit; the others are asked for (``KeysRequest``)
    tokens: tuple[SignedToken, ...] = ()


class SnapshotManifest(Struct, frozen=True, array_like=True):
    """What a snapshot that is larger than a packet is fetched by, segment by segment, from the proxy that says this."""

    boot: Number  #: of that proxy
    size_bytes: Annotated[int, Meta(ge=1, le=SNAPSHOT_MAX_BYTES)]
    #: SHA-256 of the encoded snapshot. It is in the names of the segments, so they never change, and only who was told can
    #: ask for them.
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]

    @property
    def segments(self) -> int:
        """Return how many there are, numbered from 0."""
        return -(-self.size_bytes // SEGMENT_BYTES)


class LoginRequest(Struct, frozen=True, array_like=True):
    device: Identifier
    conference: Identifier
    role: Literal["participant", "observer"]
    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    #: over the request's name, so that it proves possession of the key for this very login
    signature: Annotated[bytes, Meta(max_length=64)]


class LoginReply(Struct, frozen=True, array_like=True):
    """Sealed by the login server, for the place of the request: neither a refusal nor the proxies can be made up."""

    granted: bool
    reason: str
    token: SignedToken | None
    proxies: tuple[Identifier, ...]  #: nearest first


class JoinRequest(Struct, frozen=True, array_like=True):
    token: SignedToken
    boot: Number
    acked_seq: Number  #: the client's own updates up to this one are acked, and it cannot send them again
    known: tuple[Position, ...] | None  #: last known state; None on the first join
    #: by the device's key over the join's name and all of the above: proves possession, for this very join
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    is_partial: bool = False  #: as in ``RecoveryRequest``
    exchange_key: Annotated[bytes, Meta(max_length=32)] = b""  #: X25519, of the device's boot


class JoinReply(Struct, frozen=True, array_like=True):
    """Sealed by the proxy, for the place of the join."""

    granted: bool
    reason: str
    current: tuple[Position, ...]  #: as in ``RecoveryReply``, and so are the next two
    snapshot: Snapshot | None
    entries: tuple[StreamEntry, ...]
    own_seq: Number | None = None  #: the client's own updates up to this one are known here
    manifest: SnapshotManifest | None = None  #: as in ``RecoveryReply``
    exchange_key: Annotated[bytes, Meta(max_length=32)] = b""  #: X25519, of the proxy's boot


class UpdateAck(Struct, frozen=True, array_like=True):
    level: Literal["accepted", "durable", "replicated", "refused"]
    reason: str
    proxy: Identifier
    boot: Number
    stream_seq: Number  #: where in the proxy's stream it went; 0 where that is not known any more
    #: over the Interest's name and the above: a code of the session's key, or the proxy's signature where there is none
    proof: Annotated[bytes, Meta(max_length=64)] = b""


class Notification(Struct, frozen=True, array_like=True):
    last: tuple[Position, ...]  #: positions of the streams below, before
    current: tuple[Position, ...]  #: and after
    entries: tuple[StreamEntry, ...]


class ClientHeartbeat(Struct, frozen=True, array_like=True):
    """Client to proxy, with a proof, and proxy to client, sealed."""

    state_digest: Digest  #: of the sender's vector
    current: tuple[Position, ...]
    ended: Annotated[str, Meta(max_length=IDENTIFIER_MAX_OCTETS)] = (
        ""  #: proxy to client: why it is not served any more
    )
    #: client to proxy: a code of the session's key over the name and the above
    proof: Annotated[bytes, Meta(max_length=16)] = b""


class ServeRequest(Struct, frozen=True, array_like=True):
    """What a device wants of its own service proxy, sealed with the key that they share."""

    serves: bool  #: False: hand over, and tell when asked again whether that is done


class ServeReply(Struct, frozen=True, array_like=True):
    done: bool


class Sealed(Struct, frozen=True, array_like=True):
    """An encoded message with its sender's signature over the message and the place it is meant for."""

    content: Annotated[bytes, Meta(max_length=REPLY_MAX_BYTES)]
    signature: Annotated[bytes, Meta(max_length=64)]


class Revocation(Struct, frozen=True, array_like=True):
    """Every token of *device* that was issued until then is void."""

    device: Identifier
    revoked_s: float


class Revocations(Struct, frozen=True, array_like=True):
    """Login server to all proxies, sealed; repeated as long as tokens that it voids have not expired by themselves."""

    revocations: Annotated[tuple[Revocation, ...], Meta(max_length=128)]


class KeysRequest(Struct, frozen=True, array_like=True):
    """Client or proxy to proxy: whose token is wanted."""

    devices: Annotated[tuple[Identifier, ...], Meta(max_length=64)]


class KeysReply(Struct, frozen=True, array_like=True):
    tokens: Annotated[tuple[SignedToken, ...], Meta(max_length=64)]


class ConferenceState(Struct, frozen=True, array_like=True):
    conference: Identifier
    state_digest: Digest
    current: tuple[Position, ...]
    is_armed: bool = True  #: sync interests are to be kept armed for the sender's stream; else it pushes


class ProxyHeartbeat(Struct, frozen=True, array_like=True):
    """Proxy to all proxies."""

    conferences: tuple[ConferenceState, ...]


class RecoveryRequest(Struct, frozen=True, array_like=True):
    known: tuple[Position, ...]
    is_partial: bool = False  #: of streams that ``known`` does not name, nothing is asked for


class RecoveryReply(Struct, frozen=True, array_like=True):
    """What comes after the state asked from: the suffix, or a snapshot where the history does not reach back so far.

    Sealed by the proxy, for the place of the request.
    """

    current: tuple[Position, ...]  #: state of the proxy, what the asker lacks first, as much as fits
    snapshot: Snapshot | None
    entries: tuple[StreamEntry, ...]  #: the suffix, as much as fits
    manifest: SnapshotManifest | None = None  #: instead of a snapshot that does not fit


class CloseRequest(Struct, frozen=True, array_like=True):
    leave: SignedUpdate  #: the FP update with event ``leave``


class ObjectDescription(Struct, frozen=True, array_like=True):
    """Body of an FP update that announces an object, or a live stream where there is an interval."""

    size_bytes: Annotated[int, Meta(ge=1, le=FRAMES_MAX * FRAME_MAX_BYTES)]  #: of a stream: of all its frames
    segment_bytes: Annotated[int, Meta(ge=1, le=OBJECT_SEGMENT_BYTES)]  #: of a stream: of a frame
    #: SHA-256 of each segment of the manifest, which is that of each segment of the object
    manifest_digests: Annotated[tuple[Annotated[bytes, Meta(min_length=32, max_length=32)], ...], Meta(max_length=140)]
    interval_s: Annotated[float, Meta(ge=0, le=60)] = 0.0  #: from one frame to the next
    deadline_s: Annotated[float, Meta(ge=0, le=60)] = 0.0  #: a frame is of no use so long after it was due

    @property
    def segments(self) -> int:
        """Return how many segments or frames there are."""
        return -(-self.size_bytes // self.segment_bytes)

    @property
    def is_stream(self) -> bool:
        return self.interval_s > 0

    def segment_size_bytes(self, index: int) -> int:
        """Return how long a segment is."""
        return min(self.segment_bytes, self.size_bytes - index * self.segment_bytes)


class StreamFrame(Struct, frozen=True, array_like=True):
    """Content of one frame of a live stream."""

    frame: Annotated[bytes, Meta(max_length=FRAME_MAX_BYTES)]
    signature: Annotated[bytes, Meta(max_length=64)]  #: by the publisher, over the name and the frame
