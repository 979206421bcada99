"""A forwarder and the application that shares its process (a UE's client, the login server), joined by the local face."""

from __future__ import annotations

from collections import deque

from proxy.core.events import (
    LOCAL_FACE,
    CarrierChanged,
    CloseRequested,
    Effect,
    Event,
    JoinRequested,
    PacketReceived,
    PublishRequested,
    RevokeRequested,
    ScheduleExtended,
    Send,
)
from proxy.core.forwarder import Forwarder
from proxy.core.login_server import LoginServer
from proxy.core.service_client import ServiceClient


class Host:
    """Events of the user go to the application, all others to the forwarder; packets between the two stay inside."""

    def __init__(self, forwarder: Forwarder, application: ServiceClient | LoginServer) -> None:
        self.forwarder, self.application = forwarder, application

    @property
    def counters(self) -> dict[str, int]:
        return self.forwarder.counters

    @property
    def deadline_s(self) -> float | None:
        """The earlier of the two."""
        return min(
            (at for at in (self.forwarder.deadline_s, self.application.deadline_s) if at is not None), default=None
        )

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what leaves this process, in order."""
        effects: list[Effect] = []
        inside: deque[tuple[bool, bytes]] = deque()
        if not isinstance(
            event, JoinRequested | PublishRequested | ScheduleExtended | CloseRequested | RevokeRequested
        ):
            inside += self._inward(self.forwarder.handle(event, now_s=now_s), effects)
        if not isinstance(event, PacketReceived | CarrierChanged):
            inside += self._outward(self.application.handle(event, now_s=now_s), effects)
        while inside:
            to_application, packet = inside.popleft()
            received = PacketReceived(LOCAL_FACE, packet)
            if to_application:
                inside += self._outward(self.application.handle(received, now_s=now_s), effects)
            else:
                inside += self._inward(self.forwarder.handle(received, now_s=now_s), effects)
        return effects

    def _inward(self, produced: list[Effect], effects: list[Effect]) -> list[tuple[bool, bytes]]:
        """Split the forwarder's effects: what goes to the application is returned, the rest leaves."""
        return self._split(produced, effects, to_application=True)

    def _outward(self, produced: list[Effect], effects: list[Effect]) -> list[tuple[bool, bytes]]:
        """Split the application's effects: packets go to the forwarder, the rest leaves."""
        return self._split(produced, effects, to_application=False)

    def _split(
        self, produced: list[Effect], effects: list[Effect], *, to_application: bool
    ) -> list[tuple[bool, bytes]]:
        inside: list[tuple[bool, bytes]] = []
        for effect in produced:
            if isinstance(effect, Send) and effect.face_id == LOCAL_FACE:
                inside.append((to_application, effect.packet))
            else:
                effects.append(effect)
        return inside
