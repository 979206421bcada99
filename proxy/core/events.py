"""What happens to a core (events) and what it wants done (effects).

Every core is a machine ``handle(event, now_s=...) -> list of effects`` plus ``deadline_s``, the time at which it wants
``TimerExpired`` at the latest. It does nothing by itself: no I/O, no clock, no randomness. Times are float seconds of one
monotonic clock.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Protocol

from msgspec import Struct

from proxy.records import Record
from proxy.wire.messages import Snapshot, StreamEntry
from proxy.wire.value import Value

#: The face between a forwarder and its own application (client, login server) or service proxy.
LOCAL_FACE: Final = 0
#: A UE's forwarder has its client at LOCAL_FACE; here it has the service proxy of the UE, if that is one.
SERVICE_FACE: Final = -1


class PacketReceived(Value):
    """A datagram arrived on a face; for an application, a packet from its forwarder."""

    __match_args__: ClassVar[tuple[Literal["face_id"], Literal["packet"], Literal["more"]]] = (
        "face_id",
        "packet",
        "more",
    )

    def __init__(self, face_id: int, packet: bytes, *, more: bool = False) -> None:
        self.face_id: Final = face_id
        self.packet: Final = packet
        self.more: Final = (
            more  #: another one has come already, and will be told of next: what can be done for both may wait for it
        )

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.face_id, self.packet, self.more)


class CarrierChanged(Struct, frozen=True):
    """The interface of a face gained or lost its carrier; for the local face, the service proxy came or went."""

    face_id: int
    up: bool


class MtuChanged(Struct, frozen=True):
    """The interface of a link's face has another MTU: packets that do not fit go in fragments from now on."""

    face_id: int
    mtu_bytes: int


class ApplicationLeft(Struct, frozen=True):
    """An application has closed the face that ``Forwarder.add_local_face`` made for it; the face is no more."""

    face_id: int


class NeighbourChanged(Struct, frozen=True):
    """The face to a neighbour came up or went down; for the client of a UE that has more than one."""

    node: str
    up: bool


class TimerExpired(Struct, frozen=True):
    """The deadline has passed; a stale one does no harm."""


class JoinRequested(Struct, frozen=True):
    """The user wants to take part: log in, then join."""


class PublishRequested(Struct, frozen=True):
    """The user did something that everybody should see."""

    event: str
    body: bytes
    object_name: str = ""


class ScheduleExtended(Struct, frozen=True):
    """More of the workload: (time, event, the body or its size in bytes), in any order."""

    updates: tuple[tuple[float, str, int | bytes], ...]


class ObjectsScheduled(Struct, frozen=True):
    """More of the workload on the data plane, in any order."""

    objects: tuple[tuple[float, int], ...] = ()  #: (time, size in bytes)
    #: (time, frames, bytes of each, seconds from one to the next, seconds until one is of no use)
    streams: tuple[tuple[float, int, int, float, float], ...] = ()


class ScheduleEnded(Struct, frozen=True):
    """Nothing more of the workload is begun."""


class CloseRequested(Struct, frozen=True):
    """The user leaves."""


class StoredConference(Struct, frozen=True):
    """What a digest log on disk holds of one conference."""

    name: str
    snapshot: Snapshot | None
    entries: tuple[StreamEntry, ...]  #: in the order in which they were logged; some may lie behind the snapshot


class Restored(Struct, frozen=True):
    """What the log on disk held when this process started; the first event, if it comes at all."""

    conferences: tuple[StoredConference, ...]


class Persisted(Struct, frozen=True):
    """Everything up to and including the `Persist` with this token is on disk."""

    token: int


class PersistFailed(Struct, frozen=True):
    """The disk did not take the `Persist` with this token, nor will it take a later one until one has ``resets``."""

    token: int


class RevokeRequested(Struct, frozen=True):
    """The operator of the login server takes a device's right to take part away."""

    device: str


Event = (
    PacketReceived
    | CarrierChanged
    | MtuChanged
    | ApplicationLeft
    | NeighbourChanged
    | TimerExpired
    | JoinRequested
    | PublishRequested
    | ScheduleExtended
    | ScheduleEnded
    | ObjectsScheduled
    | CloseRequested
    | Restored
    | Persisted
    | PersistFailed
    | RevokeRequested
)


class Send(Value):
    """Send *packet* on *face_id*; it may get lost."""

    __match_args__: ClassVar[tuple[Literal["face_id"], Literal["packet"]]] = ("face_id", "packet")

    def __init__(self, face_id: int, packet: bytes) -> None:
        self.face_id: Final = face_id
        self.packet: Final = packet

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.face_id, self.packet)


class Log(Value):
    """Write *record* down; session and face changes also go to the supervisor."""

    __match_args__: ClassVar[tuple[Literal["record"]]] = ("record",)

    def __init__(self, record: Record) -> None:
        self.record: Final = record

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.record,)


class EntryLogged(Struct, frozen=True):
    """One more entry of a digest log."""

    conference: str
    entry: StreamEntry


class LogCompacted(Struct, frozen=True):
    """*snapshot* holds everything logged so far; of the entries, only the newest *keep* are still wanted."""

    conference: str
    snapshot: Snapshot
    keep: int


class LogReplaced(Struct, frozen=True):
    """The log of a conference is now this, whatever it was."""

    conference: str
    snapshot: Snapshot
    entries: tuple[StreamEntry, ...]


LogChange = EntryLogged | LogCompacted | LogReplaced


class Persist(Struct, frozen=True):
    """Make *changes* durable, all or none, after those before; then say `Persisted` (or `PersistFailed`)."""

    token: int  #: grows
    changes: tuple[LogChange, ...]
    resets: bool = False  #: does not build on earlier changes; the first one after a failure


Effect = Send | Log | Persist


class Core(Protocol):
    """What both drivers run."""

    @property
    def counters(self) -> dict[str, int]: ...

    @property
    def deadline_s(self) -> float | None: ...

    def handle(self, event: Event, *, now_s: float) -> list[Effect]: ...
