"""One face of a forwarder: its session with the other end, and what went over it."""

from __future__ import annotations

import math
from typing import Final

from proxy.config import LivenessConfig
from proxy.core.fragmentation import Reassembler
from proxy.core.hold_down import HoldDown
from proxy.core.link_reliability import LinkReliability
from proxy.core.liveness import Session, State
from proxy.core.pacing import Pacer
from proxy.wire.management import PacketCounts

#: RFC 5880 section 6.8.7: an interval is shortened by 0 to 25 % at random, so that nodes do not beat in step.
JITTER_RATIO: Final = 0.25


class Face:
    """A UDP face with liveness, or a local one, which is up while its application is attached: no link, so nothing to watch."""

    def __init__(
        self,
        face_id: int,
        reliability: LinkReliability,
        *,
        link: str,
        peer: str,
        liveness: LivenessConfig,
        hold_down: HoldDown,
        is_local: bool = False,
        pacer: Pacer | None = None,
    ) -> None:
        self.face_id, self.link, self.peer = face_id, link, peer
        self.is_local = is_local
        self.reliability = reliability
        self.pacer = pacer  #: where the link has a rate
        self.reassembler = Reassembler()
        self.session = Session(desired_min_tx_s=liveness.desired_min_tx_s, detect_mult=liveness.detect_mult)
        self.hold_down = hold_down
        self.carrier = True
        self.is_up = False  #: as `refresh` has last found it
        self.counts = PacketCounts()  #: of network packets, as management tells them
        self.sent: dict[str, list[int]] = {}  #: message type -> [packets, bytes]
        self._desired_min_tx_s = self._min_tx_s = liveness.desired_min_tx_s
        self._quiet_since_s = float("-inf")
        self._suspected_s: float | None = math.nan  #: when the peer was to be given up, as it was when it was suspected

    def suspect(self) -> None:
        """The peer has not even answered when asked: until it is heard again, other ways are better."""
        self._suspected_s = self.session.deadline_s

    @property
    def is_suspect(self) -> bool:
        return self.session.deadline_s == self._suspected_s

    def refresh(self) -> None:
        """Carrier or session has changed; every packet asks whether a face is up, so that is worked out here."""
        self.is_up = self.carrier and (self.is_local or self.session.state is State.UP)

    def count_sent(self, message: str, size_bytes: int, *, now_s: float) -> None:
        """Account for one packet; it also spares a heartbeat."""
        self._quiet_since_s = now_s
        tally = self.sent.get(message)
        if tally is None:
            tally = self.sent[message] = [0, 0]
        tally[0] += 1
        tally[1] += size_bytes
        if self.pacer is not None:
            self.pacer.note(size_bytes, now_s)

    def heartbeat(self, *, now_s: float, is_poll: bool = False) -> bytes:
        """Return a heartbeat that tells the peer our state; *is_poll* asks for one in return, at once."""
        stretched_ms = None if self._min_tx_s == self._desired_min_tx_s else math.ceil(self._min_tx_s * 1e3)
        packet = self.reliability.idle(self.session.state, is_poll=is_poll, min_tx_ms=stretched_ms)
        self.count_sent("face-heartbeat", len(packet), now_s=now_s)
        return packet

    def heartbeat_due(self, *, now_s: float, after_ratio: float = 0.7) -> bool:
        """Tell whether the peer needs to hear from us: nothing was sent, or it must still learn our state.

        after_ratio: nothing for so great a part of the interval.
        """
        return self.session.state is not State.UP or now_s - self._quiet_since_s >= after_ratio * self._min_tx_s

    def stretch(self, ratio: float) -> None:
        """Make our heartbeats rarer, and wait longer for the peer's."""
        self._min_tx_s = self._desired_min_tx_s * ratio
        self.session.stretch(ratio)

    @property
    def silent_until_s(self) -> float:
        """When the peer must hear from us at the latest."""
        return self._quiet_since_s + self._min_tx_s
