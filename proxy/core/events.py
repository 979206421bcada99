"""What happens to a core (events) and what it wants done (effects).

Every core is a machine ``handle(event, now_s=...) -> list of effects`` plus ``deadline_s``, the time at which it wants
``TimerExpired`` at the latest. It does nothing by itself: no I/O, no clock, no randomness. Times are float seconds of one
monotonic clock.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from proxy.records import Record

#: The face between a forwarder and its own application (client, login server) or service proxy.
LOCAL_FACE = 0


class PacketReceived(Struct, frozen=True):
    """A datagram arrived on a face; for an application, a packet from its forwarder."""

    face_id: int
    packet: bytes


class CarrierChanged(Struct, frozen=True):
    """The interface of a face gained or lost its carrier; for the local face, the service proxy came or went."""

    face_id: int
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
    """More of the workload: (time, event, size of the body in bytes), in any order."""

    updates: tuple[tuple[float, str, int], ...]


class CloseRequested(Struct, frozen=True):
    """The user leaves."""


Event = (
    PacketReceived
    | CarrierChanged
    | TimerExpired
    | JoinRequested
    | PublishRequested
    | ScheduleExtended
    | CloseRequested
)


class Send(Struct, frozen=True):
    """Send *packet* on *face_id*; it may get lost."""

    face_id: int
    packet: bytes


class Log(Struct, frozen=True):
    """Write *record* down; session and face changes also go to the supervisor."""

    record: Record


Effect = Send | Log


class Core(Protocol):
    """What both drivers run."""

    counters: dict[str, int]

    @property
    def deadline_s(self) -> float | None: ...

    def handle(self, event: Event, *, now_s: float) -> list[Effect]: ...
