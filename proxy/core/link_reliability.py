"""Link reliability: one end of a link repeats what the other end did not acknowledge (NDNLPv2, "Reliability").

Sequence numbers are on every packet; acknowledgements cost packets, so they are asked for only where there is loss, and of
the first PROBATION packets, which tell whether there is (but for heartbeats of proxies and clients: of those a gap tells it). A
receiver that sees a gap in the sequence says so in a header field of ours, which a peer that does not know it ignores; from
then on, and until CALM_S without another gap, the sender puts a TxSequence on what it sends, and whoever receives a TxSequence
acknowledges it: on the next packet that goes back, or alone after ACK_DELAY_S.

Differences from NFD's implementation: the sequence number also weeds out what arrives twice (a repetition has the same
Sequence and a new TxSequence), the ack of any of the transmissions of a packet will do, and reliability switches itself on.
On a link that loses a lot, small packets are repeated at once: no ack can tell of a loss before a round trip has passed,
and on a path of many such links two of those are too long to wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Literal

from proxy.core.consumer import RoundTripEstimator
from proxy.core.fragmentation import ACK_BYTES, ACKS_ALWAYS, fragments, payload_max_bytes
from proxy.core.seeded import SplitMix64
from proxy.core.timers import Timers
from proxy.wire.lp import ACKS_MAX, LinkPacket, encode_link_packet, encode_sequenced

#: How long an ack waits for a packet to ride on.
ACK_DELAY_S: Final = 0.003
#: A packet is lost when so many sent after it have been acknowledged (NFD's seqNumLossThreshold).
OVERTAKEN_BY: Final = 3
#: Repetitions of one packet; then whoever sent it is told that the link lost it.
REPETITIONS_MAX: Final = 4
#: Packets of a new session that get across, as acks tell or no gap does, before a link is taken for one that loses nothing.
PROBATION: Final = 32
#: A link is lossy when more than this part of what is sent over it is lost (of transmissions twice that, since acks are lost,
#: too), over as many packets as it takes ...
LOSSY_RATIO: Final = 0.025
#: ... for so many losses beyond that (a CUSUM test): three in a row, or five of fifty acks. Small packets are then repeated early ...
LOSSY_LOSSES: Final = 2.5
#: ... until of so many transmissions fewer than this part were not acked.
WINDOW: Final = 128
CALM_RATIO: Final = 0.04
#: Early is so much later, that one burst of losses does not take both; larger packets cost too much.
EARLY_S: Final = 0.002
EARLY_MAX_BYTES: Final = 1_000
#: Without a gap for so long, acknowledgements are switched off again.
CALM_S: Final = 60.0
#: Packets that wait for their ack; beyond that the oldest is taken for lost.
UNACKED_MAX: Final = 1_024
#: So many sequence numbers up to the highest received are remembered, to tell what arrives twice (RFC 4303 section 3.4.3).
SEEN_WINDOW: Final = 1_024
_SEEN_MASK: Final = (1 << SEEN_WINDOW) - 1
#: A jump in the sequence beyond this is a peer that has started again, not a loss.
GAP_MAX: Final = 10_000
#: Least margin over the round-trip estimate, beside ACK_DELAY_S: both ends need time to work.
RTO_MIN_S: Final = 0.002

Mode = Literal["auto", "on", "off"]


@dataclass
class Unacked:
    """A packet whose ack has not come."""

    packet: LinkPacket  #: with its sequence
    whole: LinkPacket  #: what it is a fragment of, or the same
    sent_s: float
    due_s: float
    tx_sequence: int = 0  #: of its last transmission
    repetitions: int = 0
    overtaken: int = 0


class LinkReliability:
    """Of one face. Packets out: ``wrap``. Link packets in: ``received``. Time: ``deadline_s`` and ``on_timer``."""

    def __init__(self, mode: Mode, chance: SplitMix64, *, mtu_bytes: int) -> None:
        self._mode = mode
        self.set_mtu(mtu_bytes)
        # At random, so that a peer that has started again is not taken for its past.
        self._sequence = self._tx_sequence = chance.next_u64() >> 2
        self._unacked: OrderedDict[int, Unacked] = OrderedDict()  #: by TxSequence, ascending
        #: earlier transmissions of what was repeated, with the time of each, by TxSequence
        self._superseded: OrderedDict[int, tuple[Unacked, float]] = OrderedDict()
        self._acked_max = self._tx_sequence - 1  #: TxSequences up to here were acked, or are lost
        self._window_sent = self._window_lost = 0
        self._losses_beyond = LOSSY_LOSSES  #: of the CUSUM test; of a link that is new, one loss says as much
        self._probation: int | None = None  #: acks to come; None until the peer shows that it knows about them
        self.is_lossy = False
        self._overdue: Timers[int] = Timers()  #: when each of them is repeated
        self._estimator = RoundTripEstimator(rto_min_s=RTO_MIN_S)
        self._asking_until_s = float("inf") if mode == "on" else float("-inf")
        self._tx_seen_max = -1  #: highest TxSequence received
        self._seen = 0  #: bit n: n below the highest was received
        self._seen_up_to = 0  #: the highest of these
        self._highest_seen: int | None = None  #: the highest received, or known to have been sent
        self._gaps_seen = 0  #: in what the peer sent
        self._peer_gaps = 0  #: in what we sent, as the peer last told
        self._acks: deque[int] = deque()
        self._ack_due_s: float | None = None
        self.repeated = self.lost = self.doubles = 0

    def set_mtu(self, mtu_bytes: int) -> None:
        """What is longer than fits is sent in fragments from now on."""
        self.payload_max_bytes = payload_max_bytes(mtu_bytes)

    @property
    def is_watched(self) -> bool:
        """Whether there may be a deadline."""
        return bool(self._unacked) or self._ack_due_s is not None

    @property
    def deadline_s(self) -> float | None:
        """When ``on_timer`` wants to be called: an ack has waited long enough, or one is overdue."""
        overdue_s = self._overdue.next_s if self._unacked else None
        if self._ack_due_s is None or overdue_s is None:
            return self._ack_due_s if overdue_s is None else overdue_s
        return min(self._ack_due_s, overdue_s)

    def wrap(self, packet: LinkPacket, *, now_s: float, acked: bool = True, is_regular: bool = False) -> list[bytes]:
        """Return the datagrams for a packet, with what acks there are; more than one where it does not fit into one.

        With *acked* false it is sent once, come what may; *is_regular*: it is sent regularly, whatever gets lost.
        """
        is_asking = now_s < self._asking_until_s or self.is_lossy
        if self._probation and not is_asking and acked:
            is_asking = not is_regular
            if is_regular:
                self._probation -= 1
        is_asking &= acked
        if len(packet.fragment) > self.payload_max_bytes:
            pieces = fragments(packet, payload_bytes=self.payload_max_bytes)
            return [self._wrap(piece, packet, now_s, is_asking=is_asking) for piece in pieces]
        if self._mode == "off":
            return [encode_link_packet(packet)]
        has_more = packet.is_detour or packet.is_lossy_path
        has_more |= packet.nack_reason is not None or packet.hop_count is not None
        if not (is_asking or self._acks or self._gaps_seen or has_more):
            sequence, self._sequence = self._sequence, self._sequence + 1
            return [encode_sequenced(sequence, packet.fragment)]
        return [self._wrap(packet, packet, now_s, is_asking=is_asking)]

    def _wrap(self, packet: LinkPacket, whole: LinkPacket, now_s: float, *, is_asking: bool) -> bytes:
        packet = packet.as_transmission(self._sequence)
        self._sequence += 1
        if not is_asking:
            return self._encode(packet, None)
        if self.is_lossy and self._mode == "auto":
            self._asking_until_s = now_s + CALM_S  # what is repeated early leaves no gap that the peer could tell of
        is_early = self.is_lossy and len(whole.fragment) <= EARLY_MAX_BYTES
        due_s = now_s + (EARLY_S if is_early else self._rto_s)
        return self._encode(packet, self._track(Unacked(packet, whole, now_s, due_s)))

    def idle(self, session_state: int, *, is_poll: bool = False, min_tx_ms: int | None = None) -> bytes:
        """Return a face heartbeat; it carries acks, and how much was sent, so that a lost tail shows."""
        sent_count = None if self._mode == "off" else self._sequence
        packet = LinkPacket(
            b"", session_state=session_state, sent_count=sent_count, is_poll=is_poll, min_tx_ms=min_tx_ms
        )
        return self._encode(packet, None)

    def received(self, packet: LinkPacket, *, now_s: float) -> tuple[bool, list[bytes], list[LinkPacket]]:
        """Take in the header of a link packet.

        Returns: whether its fragment is new, datagrams to send now, and packets given up as lost.
        """
        repeat, lost = self._on_acks(packet.acks, now_s) if packet.acks else ([], [])
        if packet.gaps_seen is not None and packet.gaps_seen != self._peer_gaps:
            self._peer_gaps = packet.gaps_seen
            if self._probation:
                self._suspect(1, LOSSY_RATIO)
            if self._mode == "auto":
                self._asking_until_s = now_s + CALM_S
        if packet.sent_count is not None:
            self._note_sent(packet.sent_count)
            if self._probation is None:
                self._probation = PROBATION if self._mode == "auto" else 0
        if packet.tx_sequence is not None:
            self._acks.append(packet.tx_sequence)
            missed = packet.tx_sequence - self._tx_seen_max - 1
            if missed >= 0:
                self._suspect(missed if missed < GAP_MAX else 0, LOSSY_RATIO)
                self._tx_seen_max = packet.tx_sequence
            if self._ack_due_s is None:
                self._ack_due_s = now_s + ACK_DELAY_S
        return self.is_new(packet.sequence), repeat, lost

    def on_timer(self, *, now_s: float) -> tuple[list[bytes], list[LinkPacket]]:
        """Return datagrams to send once more, and packets given up as lost."""
        repeat: list[bytes] = []
        lost: list[LinkPacket] = []
        for tx_sequence in list(self._overdue.pop_due(now_s)):
            self._repeat(tx_sequence, now_s, repeat, lost)
        return repeat, lost

    def late_ack(self, session_state: int, *, now_s: float) -> bytes | None:
        """Return a packet for acks that have waited long enough for one to ride on; None where there are none."""
        if self._ack_due_s is None or self._ack_due_s > now_s:
            return None
        if self._acks:
            return self.idle(session_state)
        self._ack_due_s = None
        return None

    def forget(self) -> None:
        """The session is down: whatever is unacked is somebody else's business now."""
        self._unacked.clear()
        self._superseded.clear()
        self._overdue = Timers()
        self._acks.clear()
        self._seen = 0
        self._ack_due_s = self._highest_seen = None
        self._acked_max, self._tx_seen_max = self._tx_sequence - 1, -1
        self._probation = None

    # ------------------------------------------------------------------ sending

    @property
    def _rto_s(self) -> float:
        return self._estimator.rto_s + ACK_DELAY_S

    def _track(self, unacked: Unacked) -> int:
        tx_sequence, self._tx_sequence = self._tx_sequence, self._tx_sequence + 1
        self._unacked[tx_sequence] = unacked
        unacked.tx_sequence = tx_sequence
        self._overdue.set(tx_sequence, unacked.due_s)
        if len(self._unacked) > UNACKED_MAX:
            self._overdue.cancel(self._unacked.popitem(last=False)[0])
            self.lost += 1
        return tx_sequence

    def _judge(self, acked: int) -> None:
        """Take in that a transmission was acked: those before it that were not are lost, they or their acks.

        Links keep the order, so that this does not depend on how long anybody takes.
        """
        if acked <= self._acked_max:
            self._window_lost = max(0, self._window_lost - 1)  # it was only overtaken
            return
        lost, self._acked_max = acked - self._acked_max - 1, acked
        if self._probation:
            self._probation -= 1
        self._window_sent += lost + 1
        self._window_lost += lost
        self._suspect(lost, 2 * LOSSY_RATIO)
        if self._window_sent >= WINDOW:
            if self._window_lost < CALM_RATIO * self._window_sent:
                self.is_lossy, self._losses_beyond = False, 0.0
            self._window_sent = self._window_lost = 0

    def _suspect(self, lost: int, allowed: float) -> None:
        """Take in whether there were losses since the last packet, here or there; a burst is one."""
        self._losses_beyond = max(0.0, self._losses_beyond + min(lost, 1) - allowed)
        if lost and self._losses_beyond >= LOSSY_LOSSES and not self.is_lossy:
            self.is_lossy = self._mode != "off"
            self._window_sent = self._window_lost = 0

    def _encode(self, packet: LinkPacket, tx_sequence: int | None) -> bytes:
        if tx_sequence is not None or self._acks or self._gaps_seen:
            acks = self._take_acks(packet)
            packet = packet.as_transmission(packet.sequence, tx_sequence, acks, self._gaps_seen or None)
        return encode_link_packet(packet)

    def _take_acks(self, packet: LinkPacket) -> tuple[int, ...]:
        room = (self.payload_max_bytes - len(packet.fragment)) // ACK_BYTES + ACKS_ALWAYS
        acks = tuple(self._acks.popleft() for _ in range(min(len(self._acks), ACKS_MAX, room)))
        if not self._acks:
            self._ack_due_s = None
        return acks

    def _on_acks(self, acks: tuple[int, ...], now_s: float) -> tuple[list[bytes], list[LinkPacket]]:
        repeat: list[bytes] = []
        lost: list[LinkPacket] = []
        for tx_sequence in acks:
            acked, sent_s = self._take_acked(tx_sequence)
            if acked is None:
                continue
            self._judge(tx_sequence)
            self._estimator.sample(now_s - sent_s)  # of this very transmission, however often the packet was sent
            overtaken = []
            for earlier, unacked in self._unacked.items():
                if earlier > tx_sequence:
                    break
                unacked.overtaken += 1
                if unacked.overtaken >= OVERTAKEN_BY:
                    overtaken.append(earlier)
            for earlier in overtaken:
                self._repeat(earlier, now_s, repeat, lost)
        return repeat, lost

    def _take_acked(self, tx_sequence: int) -> tuple[Unacked | None, float]:
        """Return what was sent in a transmission, and when; None where that is not known. It is unacked no longer."""
        acked = self._unacked.pop(tx_sequence, None)
        if acked is not None:
            self._overdue.cancel(tx_sequence)
            return acked, acked.sent_s
        superseded = self._superseded.pop(tx_sequence, None)
        if superseded is None:
            return None, 0.0
        acked, sent_s = superseded
        if self._unacked.pop(acked.tx_sequence, None) is not None:
            # The last transmission is as good as acked; if its ack comes yet, it tells of the link all the same.
            self._overdue.cancel(acked.tx_sequence)
            self._supersede(acked)
        return acked, sent_s

    def _supersede(self, unacked: Unacked) -> None:
        self._superseded[unacked.tx_sequence] = unacked, unacked.sent_s
        if len(self._superseded) > UNACKED_MAX:
            self._superseded.popitem(last=False)

    def _repeat(self, tx_sequence: int, now_s: float, repeat: list[bytes], lost: list[LinkPacket]) -> None:
        unacked = self._unacked.pop(tx_sequence, None)
        if unacked is None:
            return  # another fragment of the same packet has just been given up
        self._overdue.cancel(tx_sequence)
        if unacked.repetitions >= REPETITIONS_MAX:
            self.lost += 1
            lost.append(unacked.whole)
            for other in [each for each, sent in self._unacked.items() if sent.whole is unacked.whole]:
                del self._unacked[other]  # without this fragment, the others are of no use
                self._overdue.cancel(other)
            return
        self._supersede(unacked)
        self.repeated += 1
        unacked.sent_s = now_s
        unacked.repetitions += 1
        unacked.overtaken = 0
        unacked.due_s = now_s + self._rto_s * 2 ** (unacked.repetitions - 1)
        repeat.append(self._encode(unacked.packet, self._track(unacked)))

    # ------------------------------------------------------------------ receiving

    def _note_sent(self, sent_count: int) -> None:
        """Everything below *sent_count* was sent; if some of it was not seen, the link loses packets."""
        highest = self._highest_seen
        if highest is not None and highest + 1 < sent_count <= highest + GAP_MAX:
            self._gaps_seen += 1
        self._highest_seen = sent_count - 1

    def is_new(self, sequence: int | None) -> bool:
        """Tell whether a packet with this sequence, None for one without, has not been received yet; note that it has."""
        if sequence is None:
            return True
        if self._is_seen(sequence):
            self.doubles += 1
            return False
        if self._highest_seen is None or not self._highest_seen - GAP_MAX < sequence <= self._highest_seen:
            self._note_sent(sequence)
            self._highest_seen = sequence
        return True

    def _is_seen(self, sequence: int) -> bool:
        """Tell whether a sequence number was received; from now on it was. Too old to tell: it was not."""
        behind = self._seen_up_to - sequence
        if 0 <= behind < SEEN_WINDOW and self._seen:
            bit = 1 << behind
            if self._seen & bit:
                return True
            self._seen |= bit
        elif -SEEN_WINDOW < behind < 0 and self._seen:
            self._seen = (self._seen << -behind | 1) & _SEEN_MASK
            self._seen_up_to = sequence
        elif not 0 <= behind < GAP_MAX or not self._seen:  # far ahead, or a peer that has started again
            self._seen, self._seen_up_to = 1, sequence
        return False
