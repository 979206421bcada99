"""A forwarder and the application that shares its process (a UE's client, the login server), joined by the local face."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from proxy.core.baselines.participant import Participant
from proxy.core.events import (
    LOCAL_FACE,
    ApplicationLeft,
    CarrierChanged,
    CloseRequested,
    Effect,
    Event,
    JoinRequested,
    Log,
    MtuChanged,
    NeighbourChanged,
    ObjectsScheduled,
    PacketReceived,
    PublishRequested,
    RevokeRequested,
    ScheduleEnded,
    ScheduleExtended,
    Send,
)
from proxy.core.forwarder import Forwarder
from proxy.core.login_server import LoginServer
from proxy.core.service_client import ServiceClient
from proxy.records import FaceChanged


class Host:
    """Events of the user go to the application, all others to the forwarder; packets between the two stay inside.

    The client of a UE with several links is told which of its neighbours are in reach.
    """

    def __init__(self, forwarder: Forwarder, application: ServiceClient | Participant | LoginServer) -> None:
        self.forwarder, self.application = forwarder, application
        links = sum(not face.is_local for face in forwarder.faces.values())
        # A service client with one link has its session, which tells it more.
        self._tells_neighbours = isinstance(application, ServiceClient) and links > 1
        self._tells_neighbours |= isinstance(application, Participant)
        self._perform: Callable[[Effect], None] | None = None
        self._inside: deque[bytes | NeighbourChanged] = (
            deque()
        )  #: for the application, once it is done with what it has
        self._now_s = 0.0

    @property
    def counters(self) -> dict[str, int]:
        return self.forwarder.counters

    @property
    def deadline_s(self) -> float | None:
        """The earlier of the two."""
        return min(
            (at for at in (self.forwarder.deadline_s, self.application.deadline_s) if at is not None), default=None
        )

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have what leaves this process performed as it comes, instead of returned by `handle`.

        An update is on its way before the client's own view has taken it in, an ack before what it acks is looked into.
        """
        self._perform = perform
        self.forwarder.perform_at_once(self._perform_forwarders)
        if not isinstance(self.application, LoginServer):
            self.application.perform_at_once(self._perform_applications)

    def _perform_forwarders(self, effect: Effect) -> None:
        assert self._perform is not None, "set before this is called"
        if isinstance(effect, Send) and effect.face_id == LOCAL_FACE:
            self._inside.append(effect.packet)
            return
        self._perform(effect)
        if self._tells_neighbours and isinstance(effect, Log) and isinstance(effect.record, FaceChanged):
            self._inside.append(NeighbourChanged(effect.record.peer, effect.record.state == "up"))

    def _perform_applications(self, effect: Effect) -> None:
        assert self._perform is not None, "set before this is called"
        if isinstance(effect, Send) and effect.face_id == LOCAL_FACE:  # the forwarder is idle: it hears the rest later
            self.forwarder.handle(PacketReceived(LOCAL_FACE, effect.packet), now_s=self._now_s)
        else:
            self._perform(effect)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what leaves this process, in order, as far as it was not performed."""
        self._now_s = now_s
        effects: list[Effect] = []
        inside: deque[tuple[bool, bytes | NeighbourChanged]] = deque()
        if not isinstance(
            event,
            JoinRequested
            | PublishRequested
            | ScheduleExtended
            | ObjectsScheduled
            | ScheduleEnded
            | CloseRequested
            | RevokeRequested,
        ):
            inside += self._inward(self.forwarder.handle(event, now_s=now_s), effects)
        if not isinstance(event, PacketReceived | CarrierChanged | MtuChanged | ApplicationLeft):
            inside += self._outward(self.application.handle(event, now_s=now_s), effects)
        self._pass_on(inside, effects, now_s)
        # Where the processor is short, a wake-up less counts more than that all who are told of an update answer with a
        # heartbeat just while others are still to be told. The application's heartbeat spares the forwarder's.
        if isinstance(event, PacketReceived) and self.forwarder.is_starved:
            if isinstance(self.application, ServiceClient):
                inside += self._outward(self.application.beat_in_step(now_s=now_s), effects)
                self._pass_on(inside, effects, now_s)
            effects += self.forwarder.beat_in_step(now_s=now_s)
        return effects

    def _pass_on(
        self, inside: deque[tuple[bool, bytes | NeighbourChanged]], effects: list[Effect], now_s: float
    ) -> None:
        """Hand what the two have for each other back and forth until there is nothing more."""
        while inside or self._inside:
            to_application, what = inside.popleft() if inside else (True, self._inside.popleft())
            received = what if isinstance(what, NeighbourChanged) else PacketReceived(LOCAL_FACE, what)
            if to_application:
                inside += self._outward(self.application.handle(received, now_s=now_s), effects)
            else:
                inside += self._inward(self.forwarder.handle(received, now_s=now_s), effects)

    def _inward(self, produced: list[Effect], effects: list[Effect]) -> list[tuple[bool, bytes | NeighbourChanged]]:
        """Split the forwarder's effects: what goes to the application is returned, the rest leaves."""
        return self._split(produced, effects, to_application=True)

    def _outward(self, produced: list[Effect], effects: list[Effect]) -> list[tuple[bool, bytes | NeighbourChanged]]:
        """Split the application's effects: packets go to the forwarder, the rest leaves."""
        return self._split(produced, effects, to_application=False)

    def _split(
        self, produced: list[Effect], effects: list[Effect], *, to_application: bool
    ) -> list[tuple[bool, bytes | NeighbourChanged]]:
        inside: list[tuple[bool, bytes | NeighbourChanged]] = []
        for effect in produced:
            if isinstance(effect, Send) and effect.face_id == LOCAL_FACE:
                inside.append((to_application, effect.packet))
                continue
            effects.append(effect)
            if self._tells_neighbours and isinstance(effect, Log) and isinstance(effect.record, FaceChanged):
                inside.append((True, NeighbourChanged(effect.record.peer, effect.record.state == "up")))
        return inside
