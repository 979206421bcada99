"""Between a service proxy and its disk: what is to be written, and which acks wait for it.

Nothing but acks waits: an update is on its way to the others while it is being written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.core.client_session import ClientSession
from proxy.core.conference import Conference
from proxy.core.events import LogChange, Persist, PersistFailed
from proxy.core.outbox import Outbox
from proxy.wire.messages import UpdateAck

#: After the disk has refused, it is tried again with the whole log so often.
RETRY_INTERVAL_S: Final = 1.0


@dataclass
class WaitingAck:
    """An update that was accepted, and whose publisher is to hear of it later."""

    conference: Conference
    session: ClientSession | None
    stream_seq: int  #: where in our stream it went; 0 where that is not known any more
    token: int = 0  #: what must be on the disk before
    copies: tuple[
        tuple[int, int], ...
    ] = ()  #: positions (boot, seq) of our streams that another proxy must have before


class LogKeeper:
    """One per service proxy; ``flush`` at the end of every event."""

    def __init__(self, out: Outbox, conferences: dict[str, Conference]) -> None:
        config = out.config
        if config.ack_level == "durable" and config.log_path is None:
            raise ValueError("nothing is durable without a log_path")  # `load_config` says so to the user
        self._out, self._conferences = out, conferences
        self._level = config.ack_level
        self._persists = config.log_path is not None
        self._token = self._persisted = 0
        self._last_reset = 0  #: token of the `Persist` that started anew after a failure
        #: By name of the Interest to answer; a repeated Interest takes the place of the first. No more than the windows
        #: of all clients.
        self._waiting: dict[bytes, WaitingAck] = {}
        self._new: list[WaitingAck] = []
        self._recheck = False
        self.retry_s: float | None = None  #: when to call `retry`; None while the disk does what it should

    def ack(self, conference: Conference, session: ClientSession | None, name: bytes, stream_seq: int) -> None:
        """Ack the update under the Interest *name* as soon as it is held as surely as this proxy promises."""
        waiting = WaitingAck(conference, session, stream_seq)
        if self._level == "accepted":
            self._send(name, waiting)
            return
        if self._level == "replicated":
            own = self._out.device
            waiting.copies = (
                ((self._out.boot, stream_seq),)
                if stream_seq
                else tuple(
                    (stream.boot, stream.seq) for stream in conference.log.streams.values() if stream.proxy == own
                )
            )
        if session is not None and stream_seq:
            session.unacked_places[stream_seq] = None
        self._waiting[name] = waiting
        self._new.append(waiting)

    def flush(self) -> None:
        """Hand over to the disk what this event has brought, and send the acks that need not wait (any more)."""
        changes: list[LogChange] = []
        for conference in self._conferences.values():
            changes += conference.log.take_journal(conference.name)
        if changes and self._persists and self.retry_s is None:
            self._token += 1
            self._out.effects.append(Persist(self._token, tuple(changes)))
        if self._new:
            needs = (self._token if self.retry_s is None else self._token + 1) if self._persists else 0
            for waiting in self._new:
                waiting.token = needs
            self._new.clear()
            self._recheck = True
        if self._recheck:
            self._recheck = False
            self._release()

    def on_persisted(self, token: int) -> None:
        """The disk has everything up to *token*."""
        self._persisted = max(self._persisted, token)
        self._recheck = True

    def on_failed(self, event: PersistFailed) -> None:
        """The disk is full or broken: nothing more is durable until it has taken the whole log."""
        if event.token < self._last_reset:
            return  # handed over before we started anew
        self._out.counters["log_writes_failed"] += 1
        self.retry_s = self._out.now_s + RETRY_INTERVAL_S

    def retry(self) -> None:
        """Hand over all logs as a whole, if it is time."""
        if self.retry_s is not None and self._out.now_s >= self.retry_s:
            self.retry_s = None
            self.start_anew()

    def start_anew(self) -> None:
        """Have the disk hold exactly what we hold."""
        if self._persists:
            self._token += 1
            self._last_reset = self._token
            changes = tuple(conference.log.whole(conference.name) for conference in self._conferences.values())
            self._out.effects.append(Persist(self._token, changes, resets=True))

    def on_replicated(self, conference: Conference, boot: int, seq: int) -> None:
        """Another proxy has our stream of *boot* up to *seq*."""
        if seq > conference.replicated.get(boot, 0):
            conference.replicated[boot] = seq
            self._recheck = self._recheck or self._level == "replicated"

    def _release(self) -> None:
        for name, waiting in list(self._waiting.items()):
            if waiting.token <= self._persisted or not self._persists:
                replicated = waiting.conference.replicated
                if all(replicated.get(boot, 0) >= seq for boot, seq in waiting.copies):
                    del self._waiting[name]
                    self._send(name, waiting)

    def _send(self, name: bytes, waiting: WaitingAck) -> None:
        if waiting.session is not None:
            waiting.session.unacked_places.pop(waiting.stream_seq, None)
        ack = UpdateAck(self._level, "", self._out.device, self._out.boot, waiting.stream_seq)
        self._out.ack(name, ack, None if waiting.session is None else waiting.session.key)
