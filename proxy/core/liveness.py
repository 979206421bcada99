"""Is the other end of a face there? Sessions of RFC 5880 (BFD), asynchronous mode, on link packets.

Differences from RFC 5880, all because a face carries other packets too: every packet that arrives counts as a control
packet without state, and a heartbeat is sent only where nothing else was sent in the interval. And since a link may lose
packets, a peer that has become silent is first suspected, then asked several times, and only then given up; all of it
within the detection time.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from proxy.core.starvation import STRETCH_MAX


class State(IntEnum):
    """RFC 5880 section 4.1, "Sta"."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


#: (ours, theirs) -> ours; a pair that is absent changes nothing. RFC 5880 section 6.8.6.
NEXT: Final[dict[tuple[State, State], State]] = {
    (State.DOWN, State.DOWN): State.INIT,
    (State.DOWN, State.INIT): State.UP,
    (State.INIT, State.INIT): State.UP,
    (State.INIT, State.UP): State.UP,
    (State.UP, State.DOWN): State.DOWN,
    (State.INIT, State.ADMIN_DOWN): State.DOWN,
    (State.UP, State.ADMIN_DOWN): State.DOWN,
}


#: Part of the detection time after which a silent peer is asked for a heartbeat.
SUSPICION_RATIO: Final = 0.6
#: Time between two such questions: five of them fit, and one answered is enough.
POLL_INTERVAL_S: Final = 0.02


def detection_time_s(*, desired_min_tx_s: float, detect_mult: int) -> float:
    """Return how long the peer may stay silent. Both ends of our faces use the same interval and multiplier.

    Source: RFC 5880 section 6.8.4.

    >>> detection_time_s(desired_min_tx_s=0.25, detect_mult=4)
    1.0
    """
    return desired_min_tx_s * detect_mult


class Session:
    """One end's view of the other. The owner calls ``heard`` and ``expire`` and reads ``state``."""

    def __init__(self, *, desired_min_tx_s: float, detect_mult: int) -> None:
        self.state = State.DOWN
        self._own_min_tx_s = self._desired_min_tx_s = desired_min_tx_s
        self._peer_min_tx_s = 0.0  #: what the peer has said of its interval, where it is longer than it should be
        self._detect_mult = detect_mult
        self.detection_time_s = detection_time_s(desired_min_tx_s=desired_min_tx_s, detect_mult=detect_mult)
        self.deadline_s: float | None = None

    def stretch(self, ratio: float) -> None:
        """We have too little time to listen: wait for so many times as long."""
        self._own_min_tx_s = self._desired_min_tx_s * ratio
        self._set_detection_time()

    def heard_interval(self, min_tx_ms: int | None) -> None:
        """The peer says how long its intervals are; None: as configured. Source: RFC 5880 section 6.8.4."""
        peer_min_tx_s = 0.0 if min_tx_ms is None else min(min_tx_ms / 1e3, self._desired_min_tx_s * STRETCH_MAX)
        if peer_min_tx_s != self._peer_min_tx_s:
            self._peer_min_tx_s = peer_min_tx_s
            self._set_detection_time()

    def _set_detection_time(self) -> None:
        interval_s = max(self._own_min_tx_s, self._peer_min_tx_s)
        before_s = self.detection_time_s
        self.detection_time_s = detection_time_s(desired_min_tx_s=interval_s, detect_mult=self._detect_mult)
        if self.deadline_s is not None:
            self.deadline_s += self.detection_time_s - before_s

    def heard_packet(self, *, now_s: float) -> None:
        """Take in a packet without state: it proves that we hear the peer, not that the peer hears us."""
        self.deadline_s = now_s + self.detection_time_s

    def heard(self, theirs: State | None, *, now_s: float) -> bool:
        """Take in a packet, with the peer's state where it carried one; tell whether our state changed."""
        self.deadline_s = now_s + self.detection_time_s
        if theirs is None:
            return False  # proves that we hear the peer, not that the peer hears us
        before = self.state
        self.state = NEXT.get((before, theirs), before)
        return self.state is not before

    @property
    def suspicion_s(self) -> float | None:
        """From when on the peer is suspected, unless it is heard."""
        return None if self.deadline_s is None else self.deadline_s - (1 - SUSPICION_RATIO) * self.detection_time_s

    def expire(self, *, now_s: float) -> bool:
        """Go Down where the detection time has passed; tell whether the state changed."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return False
        return self.fail()

    def fail(self) -> bool:
        """Go Down now (carrier lost); tell whether the state changed."""
        self.deadline_s = None
        before, self.state = self.state, State.DOWN
        return before is not State.DOWN
