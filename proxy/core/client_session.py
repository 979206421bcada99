"""A service proxy's side of one client: what it was sent, what waits, when it was last heard."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.core.session_key import SessionKey
from proxy.core.trust import Grant
from proxy.wire.message_names import NUMBER_MAX
from proxy.wire.messages import PAYLOAD_MAX_BYTES, Position, RosterEvent, SignedUpdate, StreamEntry
from proxy.wire.payload import encoded_size_bytes

#: Notifications sent and not acked; what comes meanwhile is collected into the next one.
IN_FLIGHT_MAX: Final = 16
#: The same where all that waits is who comes and goes: the slower the client, the more it is told at once.
ROSTERS_IN_FLIGHT_MAX: Final = 1
#: Entries that wait for a slow client; beyond that they are dropped and the client recovers them by itself.
QUEUE_MAX_ENTRIES: Final = 2_048
#: Updates of one publisher held while an earlier one is missing.
HELD_MAX: Final = 128
#: Acks remembered, so that a repeated update is acked as it was the first time.
ACKS_MAX: Final = 256


@dataclass
class ClientSession:
    """One joined device."""

    grant: Grant
    boot: int
    join: int  #: number of its last join here
    heard_s: float
    sent_s: float
    key: SessionKey | None = None
    last_beat: int = 0  #: number of its last heartbeat
    present: bool = True  #: heard within the detection time
    owes_presence: bool = False  #: it has come from another proxy, and was not announced then
    roster_version: int = 0  #: of the last roster event about it
    accepted_seq: int = 0  #: its updates up to this one were accepted, here or elsewhere
    next_notification: int = 1
    outstanding: set[int] = field(default_factory=set)  #: notifications sent and not acked
    queue: deque[StreamEntry] = field(default_factory=deque)
    is_urgent: bool = False  #: the queue holds something of the conversation
    is_due: bool = False  #: what it holds of rosters has been gathered for long enough
    #: seq -> (update, name of the Interest to answer once it is accepted, what it falls under)
    held: dict[int, tuple[SignedUpdate, bytes, Grant]] = field(default_factory=dict)
    acks: OrderedDict[int, int] = field(default_factory=OrderedDict)  #: seq -> place in the proxy's stream

    #: places in the proxy's stream of its updates that were accepted and not acked yet (an ordered set)
    unacked_places: dict[int, None] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return self.grant.token.device

    def next_roster_event(self, state: Literal["present", "away", "left"]) -> RosterEvent:
        """Return what everybody is to be told of the device now."""
        self.roster_version += 1
        return RosterEvent(self.device, self.boot, self.join, self.roster_version, state)

    def enqueue(self, entry: StreamEntry) -> bool:
        """Queue an entry for notification; return False where the queue was full and has been dropped."""
        if len(self.queue) >= QUEUE_MAX_ENTRIES:
            self.drop_queue()
            return False
        self.queue.append(entry)
        return True

    def drop_queue(self) -> None:
        """Forget what waits; the client recovers it by itself."""
        self.queue.clear()
        self.is_urgent = self.is_due = False

    @property
    def has_room(self) -> bool:
        """Tell whether a notification may leave now."""
        in_flight_max = IN_FLIGHT_MAX if self.is_urgent else ROSTERS_IN_FLIGHT_MAX if self.is_due else 0
        return bool(self.queue) and len(self.outstanding) < in_flight_max

    def next_batch(self) -> list[StreamEntry]:
        """Take from the queue what fits into one notification."""
        batch: list[StreamEntry] = []
        size_bytes = 0
        streams: set[tuple[str, int]] = set()
        while self.queue:
            entry = self.queue[0]
            key = (entry.proxy, entry.boot)
            size_bytes += encoded_size_bytes(entry)
            if key not in streams:  # it has a position before and one after
                streams.add(key)
                size_bytes += 2 * encoded_size_bytes((entry.proxy, entry.boot, NUMBER_MAX))
            if batch and size_bytes > PAYLOAD_MAX_BYTES:
                break
            batch.append(self.queue.popleft())
        if not self.queue:
            self.is_urgent = self.is_due = False
        return batch

    def current(self, vector: tuple[Position, ...], own: tuple[str, int]) -> tuple[Position, ...]:
        """Return what to tell the client of the proxy's state: its own stream *own* only to before what is not acked.

        A client learns the places of its own updates from their acks; told of them earlier, it would believe to have
        missed something.
        """
        if not self.unacked_places:
            return vector
        before = next(iter(self.unacked_places)) - 1
        return tuple((proxy, boot, min(seq, before) if (proxy, boot) == own else seq) for proxy, boot, seq in vector)

    def remember_ack(self, seq: int, stream_seq: int) -> None:
        """Keep where an update went."""
        self.acks[seq] = stream_seq
        while len(self.acks) > ACKS_MAX:
            self.acks.popitem(last=False)
