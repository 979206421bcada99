"""A node program in virtual time: its core, its clock, and what may keep it from running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.config import NodeConfig
from proxy.core.build import NodeCore
from proxy.core.events import Effect, Event, Log, PacketReceived, Persist, Persisted, Send, TimerExpired
from proxy.records import Record
from testbed.simulation.disk import SimulatedDisk
from testbed.simulation.line import Line
from testbed.simulation.processing import Server
from testbed.simulation.virtual_time import VirtualTime

#: What the buffers of a frozen process' sockets hold.
FROZEN_EVENTS_MAX: Final = 1_000


@dataclass
class NodeClock:
    """The clock of a node, which may run fast or slow; at *start_s* it is right."""

    start_s: float
    rate: float  #: seconds of its own per true second

    def local_s(self, true_s: float) -> float:
        """Return what it says at a time."""
        return true_s if self.rate == 1.0 else self.start_s + (true_s - self.start_s) * self.rate

    def true_s(self, local_s: float) -> float:
        """Return when it will say *local_s*, or a nanosecond later: it must not be early for a deadline."""
        return local_s if self.rate == 1.0 else self.start_s + (local_s - self.start_s) / self.rate + 1e-9


@dataclass
class Starvation:
    """A process is stopped for a part of each period."""

    cpu_ratio: float  #: of the time it may run
    period_s: float
    begun_s: float
    stopped_s: float = 0.0  #: altogether, up to the last time it was let go on
    stopped_at_s: float | None = None  #: None: it may run


class SimulatedProcess:
    """One node program. A stopped one takes in nothing.

    Args:
        name: such as ``csr1.proxy``.
        on_record: is given what it writes down.
    """

    def __init__(
        self,
        name: str,
        config: NodeConfig,
        core: NodeCore,
        clock: NodeClock,
        time: VirtualTime,
        *,
        disk: SimulatedDisk | None,
        on_record: Callable[[str, Record], None],
    ) -> None:
        self.name, self.config, self.core, self.clock = name, config, core, clock
        self.disk = disk
        self.running = True
        self.wakes_at_s: float | None = None
        self.frozen: list[Event] | None = None  #: what has arrived since it was frozen; None while it is not
        self.starvation: Starvation | None = None
        self.server: Server | None = None  #: None: computing takes no time
        self.lines: dict[int, Line] = {}  #: by face, what it sends on
        self.other_half: SimulatedProcess | None = None  #: the forwarder or service proxy of the same node
        self.other_face = 0  #: by which these two are joined, as this one calls it
        self._time, self._on_record = time, on_record

    def take(self, event: Event) -> None:
        """Let an event come about here."""
        if not self.running:
            return
        if self.frozen is not None:
            is_lost = isinstance(event, PacketReceived) and len(self.frozen) >= FROZEN_EVENTS_MAX
            if not is_lost and not isinstance(event, TimerExpired):
                self.frozen.append(event)
            return
        if self.server is not None and isinstance(event, PacketReceived | TimerExpired | Persisted):
            self.server.take(event)
            return
        for effect in self.core.handle(event, now_s=self.clock.local_s(self._time.now_s)):
            self.perform(effect)
        self._wake()

    def take_turn(self, event: Event) -> list[Effect] | None:
        """Handle what has waited for its turn; None where that is not to be done, or not now."""
        if self.frozen is not None:
            self.take(event)  # it waits there
            return None
        now_s, due_s = self.clock.local_s(self._time.now_s), self.core.deadline_s
        effects: list[Effect] | None = None
        if not isinstance(event, TimerExpired) or (due_s is not None and due_s <= now_s):
            effects = self.core.handle(event, now_s=now_s)
        self._wake()
        return effects

    def perform(self, effect: Effect) -> None:
        """Do what the core wants done."""
        if isinstance(effect, Send):
            self._transmit(effect.face_id, effect.packet)
        elif isinstance(effect, Log):
            self.log(effect.record)
        elif isinstance(effect, Persist):
            assert self.disk is not None, "the core persists only where there is a log"
            self.disk.put(effect, self.take)

    def log(self, record: Record) -> None:
        """Keep a record; whatever the node's clock says, its time is that of the one clock that all records share."""
        if self.clock.rate != 1.0:
            record = msgspec.structs.replace(record, t_s=self._time.now_s)
        self._on_record(self.name, record)

    def _transmit(self, face_id: int, packet: bytes) -> None:
        line = self.lines.get(face_id)
        if line is not None:
            line.transmit(packet)
            return
        other = self.other_half
        assert other is not None, f"{self.name} has no face {face_id}"
        received = PacketReceived(other.other_face, packet)
        self._time.at(self._time.now_s, lambda: other.take(received))

    def _wake(self) -> None:
        deadline_s = self.core.deadline_s
        if deadline_s is None:
            return
        deadline_s = self.clock.true_s(deadline_s)
        if self.wakes_at_s is not None and self.wakes_at_s <= deadline_s:
            return
        at_s = max(deadline_s, self._time.now_s)
        self.wakes_at_s = at_s

        def wake() -> None:
            if self.wakes_at_s == at_s:
                self.wakes_at_s = None
                self.take(TimerExpired())

        self._time.at(at_s, wake)
