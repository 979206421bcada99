"""The publishing part of a service client: its own updates from the user's hand to the ack.

They are numbered and chained when the window admits them, kept until they are acked, and some of them longer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from proxy.core.client_outbox import ClientOutbox
from proxy.core.own_updates import OwnUpdates
from proxy.core.positions import Positions
from proxy.core.trust import OBSERVER_EVENTS
from proxy.core.view import View
from proxy.records import Acked
from proxy.wire.message_names import CLOSE, IDENTIFIER_MAX_OCTETS, UPDATE
from proxy.wire.messages import BODY_MAX_BYTES, OBJECT_NAME_MAX_OCTETS, CloseRequest, SignedUpdate, UpdateAck
from proxy.wire.payload import encode

#: Updates that were acked and are kept, in case a proxy that we re-join at has never heard of them.
RETAINED_MAX: Final = 64
CLOSE_ATTEMPTS: Final = 8


class PublishError(Exception):
    """The user asked for something that cannot be published; says why."""


@dataclass
class Unsent:
    """An update that the user has made and the window does not admit yet."""

    event: str
    body: bytes
    object_name: str


class Publisher:
    """The sequence of one device's updates. What it publishes is offered to *view*, acks add to *positions*."""

    def __init__(self, out: ClientOutbox, *, view: View, positions: Positions) -> None:
        self._out, self._positions = out, positions
        self.is_admitted = False  #: a proxy has let us in since we last left
        self.is_announced = False  #: our update `join` is out and no `leave` is
        self._own = OwnUpdates(out, view)
        self._acked_seq = 0
        self._acked_early: set[int] = set()
        self._is_leaving = False  #: the last thing in the queue, or unacked, says that we leave
        self._leave_seq = 0  #: of the update that says that we leave, once it is made
        self._quiet_leave: SignedUpdate | None = None  #: the same for our proxy alone, where nobody else knows of us
        self._unacked: dict[int, SignedUpdate] = {}
        #: The last ones acked: a proxy that loses its disk may be the only one that had them.
        self._retained: OrderedDict[int, SignedUpdate] = OrderedDict()
        self._forgotten_seq = 0  #: highest one that was acked and is not retained any more
        self._queue: deque[Unsent] = deque()

    @property
    def unacked(self) -> int:
        return len(self._unacked)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def published_seq(self) -> int:
        """Sequence number of the last update made, sent or not."""
        return self._own.seq + len(self._queue)

    @property
    def settled_seq(self) -> int:
        """Up to here a proxy that has less than we have is helped by the other proxies only: we keep nothing of it."""
        return min(self._acked_seq, self._forgotten_seq)

    # ------------------------------------------------------------------ making and sending

    def publish(self, event: str, body: bytes, object_name: str) -> None:
        """Take an update that was checked. Raises: PublishError."""
        config = self._out.config
        if config.role == "observer" and event not in OBSERVER_EVENTS:
            raise PublishError(f"{self._out.device} is an observer; only participants publish")
        if len(self._queue) >= config.queue_max:
            raise PublishError(
                f"{self._out.device} has {len(self._queue)} updates waiting; the network does not keep up"
            )
        if not self.is_announced:
            self._announce()
        self._queue.append(Unsent(event, body, object_name))
        self.pump()

    def admit(self) -> None:
        """A proxy has let us in: say that we have joined, before anything else, be it only when there is something else."""
        self.is_admitted = True
        if not self.is_announced and self._out.config.announce == "at-join":
            self._announce()
            self.pump()

    def _announce(self) -> None:
        self.is_announced = True
        self._queue.append(Unsent("join", b"", ""))

    def renew(self) -> None:
        """Tell everybody how long our updates are good for now, before the next one."""
        self._queue.appendleft(Unsent("renew", b"", ""))

    def pump(self) -> None:
        """Send what the window admits."""
        grant = self._out.grant
        if grant is None or grant.token.expires_s <= self._out.now_s:
            return  # the timer that says so is due
        if self._out.state not in ("joined", "closing"):
            return
        window_max = self._out.config.window_max
        while self._queue and len(self._unacked) < window_max:
            unsent = self._queue.popleft()
            signed = self._own.make(unsent.event, unsent.body, unsent.object_name)
            seq = self._own.seq
            self._unacked[seq] = signed
            if unsent.event == "leave":
                self._leave_seq = seq
                self._ask_to_close(self._unacked[seq], seq=seq)
            else:
                self._send(seq)
            self._own.take_in(signed)

    def resend(self, own_seq: int | None) -> None:
        """A proxy has let us in that has our updates up to *own_seq* (None: it does not say): send it what it lacks."""
        unknown = [] if own_seq is None else [seq for seq in self._retained if seq > own_seq]
        self._send_missing((*unknown, *self._unacked))
        self.pump()

    def _send_missing(self, seqs: tuple[int, ...]) -> None:
        for seq in seqs:
            if seq != self._leave_seq and ("update", seq) not in self._out.consumer:
                self._send(seq)

    def _send(self, seq: int) -> None:
        self._out.sent_s = self._out.now_s
        self._out.ask_proxy(("update", seq), UPDATE, encode(self._unacked.get(seq) or self._retained[seq]), seq=seq)

    # ------------------------------------------------------------------ acks

    def on_ack(self, seq: int, ack: UpdateAck) -> None:
        """An update was accepted."""
        assert ack.level != "refused", "a refusal concerns the session"
        acked = self._unacked.pop(seq, None)
        if acked is None:
            return
        self._retained[seq] = acked
        if len(self._retained) > RETAINED_MAX:
            self._forgotten_seq = max(self._forgotten_seq, self._retained.popitem(last=False)[0])
        out = self._out
        out.log(Acked(out.now_s, out.conference, out.device, out.boot, seq, ack.level, ack.proxy))
        self._acked_early.add(seq)
        while self._acked_seq + 1 in self._acked_early:
            self._acked_seq += 1
            self._acked_early.remove(self._acked_seq)
        if ack.stream_seq:
            self._positions.add((ack.proxy, ack.boot), ack.stream_seq)
        self.pump()

    def stop_asking(self) -> None:
        """Do not ask for acks any more; the updates stay."""
        for seq in (*self._unacked, *self._retained):
            self._out.consumer.cancel(("update", seq))

    # ------------------------------------------------------------------ leaving

    def close(self) -> None:
        """Send everything that is left, as the window admits, and in the end the update that says that we leave."""
        if not self.is_announced:
            self._quiet_leave = self._quiet_leave or self._own.make_quiet_leave()
            self._ask_to_close(self._quiet_leave, seq=self._own.seq + 1)
            return
        if not self._is_leaving:
            self._is_leaving = True
            self._queue.append(Unsent("leave", b"", ""))
        self._send_missing(tuple(self._unacked))
        if self._leave_seq:
            self._ask_to_close(self._unacked[self._leave_seq], seq=self._own.seq)
        else:
            self.pump()

    def _ask_to_close(self, leave: SignedUpdate, *, seq: int) -> None:
        self._out.ask_proxy(("close", 0), CLOSE, encode(CloseRequest(leave)), seq=seq, attempts_max=CLOSE_ATTEMPTS)

    def on_closed(self, ack: UpdateAck) -> None:
        """The leave was accepted, hence everything before it too, whatever became of the acks."""
        for seq in sorted(self._unacked):
            self._out.consumer.cancel(("update", seq))
            self.on_ack(seq, ack if seq == self._leave_seq else replace(ack, stream_seq=0))

    def end(self) -> None:
        """The session is over; the next one is announced anew."""
        self.stop_asking()
        self.is_admitted = self.is_announced = self._is_leaving = False
        self._leave_seq, self._quiet_leave = 0, None
        if self._queue and self._queue[-1].event == "leave":
            self._queue.pop()  # that one is over


def check_limits(event: str, body: bytes, object_name: str) -> None:
    """Raise PublishError where an update of the user's would be too large, or have no event type."""
    if len(body) > BODY_MAX_BYTES:
        raise PublishError(f"body of {len(body)} bytes; {BODY_MAX_BYTES} is the limit, publish an object instead")
    if not 1 <= len(event.encode()) <= IDENTIFIER_MAX_OCTETS:
        raise PublishError(f"event type of {len(event.encode())} octets; 1 to {IDENTIFIER_MAX_OCTETS} are allowed")
    if len(object_name.encode()) > OBJECT_NAME_MAX_OCTETS:
        raise PublishError(f"object name of {len(object_name)} characters; {OBJECT_NAME_MAX_OCTETS} octets at most")
