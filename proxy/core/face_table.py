"""The faces of a forwarder and their upkeep: carrier, liveness, link reliability. Whatever a forwarder sends goes through here.

What follows from a face that dies, or from a packet that its link has lost, is the forwarder's business: it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from proxy.config import ForwarderConfig, LivenessConfig
from proxy.core.effects import Effects
from proxy.core.events import LOCAL_FACE, SERVICE_FACE, Effect, Log, Send
from proxy.core.face import JITTER_RATIO, Face
from proxy.core.hold_down import HoldDown
from proxy.core.link_reliability import LinkReliability
from proxy.core.liveness import POLL_INTERVAL_S, State
from proxy.core.pacing import PACED, Pacer
from proxy.core.seeded import SplitMix64
from proxy.core.starvation import Starvation
from proxy.core.timers import Timers
from proxy.records import FaceChanged
from proxy.wire.lp import LinkPacket
from proxy.wire.tlv import PACKET_MAX_BYTES

#: Faces to applications that come and go have IDs from here on; smaller ones are for links, and for what belongs to the node.
APPLICATION_FACE_MIN: Final = 1_000
#: Who is awake anyway sends a heartbeat after this part of the interval already.
IN_STEP_RATIO: Final = 0.5


class FaceTable:
    """Face 0 leads to the node's own application or service proxy, see ``Forwarder``.

    Args:
        config: of the forwarder.
        node: its name, for records.
        chance: for sequence numbers and jitter.
        counters: the forwarder's.
        local_attached: whether what is at the local face is there from the beginning.
        on_face_down: called when a face that was up is no longer.
        on_face_suspect: called when the peer of a face that is up does not answer.
        on_link_loss: called with what a link did not get across, however often it was sent.
    """

    def __init__(
        self,
        config: ForwarderConfig,
        *,
        node: str,
        chance: SplitMix64,
        counters: dict[str, int],
        local_attached: bool,
        on_face_down: Callable[[Face, float], None],
        on_face_suspect: Callable[[Face, float], None],
        on_link_loss: Callable[[Face, LinkPacket, float], None],
    ) -> None:
        self._node, self._chance, self._counters = node, chance, counters
        self._on_face_down, self._on_link_loss = on_face_down, on_link_loss
        self._on_face_suspect = on_face_suspect
        self.faces = {
            face.face_id: Face(
                face.face_id,
                LinkReliability(config.link_reliability, chance, mtu_bytes=face.mtu_bytes),
                link=face.link,
                peer=face.peer,
                liveness=config.liveness,
                hold_down=HoldDown(config.return_hold_down_s, max_s=config.return_hold_down_max_s),
                pacer=None if face.rate_mbps is None else Pacer(rate_mbps=face.rate_mbps),
            )
            for face in config.faces
        }
        self._next_id = max([APPLICATION_FACE_MIN, *(face_id + 1 for face_id in self.faces)])
        self._add_local(LOCAL_FACE, attached=local_attached)
        if local_attached and config.service_socket is not None:
            self._add_local(SERVICE_FACE, attached=False)
        self._detection: Timers[int] = Timers()  #: per face: detection time
        self._acknowledging: Timers[int] = Timers()  #: per face: acks to send, packets to repeat
        self._pacing: Timers[int] = Timers()  #: per face: what waits for its turn
        #: next look at who needs a heartbeat; one for all faces, since every wake-up costs more than the look
        self._beat_s = 0.0
        self._beat_interval_s = config.liveness.desired_min_tx_s
        self._starvation = Starvation()
        self._effects = Effects()

    def take_effects(self) -> list[Effect]:
        """Return what is to be done since the last call, in order, and has not been performed."""
        return self._effects.take()

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """From now on, have every effect performed as it comes."""
        self._effects.perform_at_once(perform)

    @property
    def deadline_s(self) -> float:
        """The earliest of heartbeats, detection times, acks and repetitions."""
        deadline_s = self._beat_s
        for other_s in (self._detection.next_s, self._acknowledging.next_s, self._pacing.next_s):
            if other_s is not None and other_s < deadline_s:
                deadline_s = other_s
        return deadline_s

    # ------------------------------------------------------------------ local faces

    def add_local(self) -> int:
        """Add a face to an application, up at once; return its ID, which no other face ever gets."""
        face_id, self._next_id = self._next_id, self._next_id + 1
        self._add_local(face_id, attached=True)
        return face_id

    def remove(self, face: Face) -> None:
        """Forget a face."""
        del self.faces[face.face_id]
        self._detection.cancel(face.face_id)
        self._acknowledging.cancel(face.face_id)
        self._pacing.cancel(face.face_id)

    def _add_local(self, face_id: int, *, attached: bool) -> None:
        reliability = LinkReliability("off", self._chance, mtu_bytes=PACKET_MAX_BYTES)  # never used
        hold_down = HoldDown(0.0, max_s=0.0)  # what is on the node itself is there, or it is not
        face = Face(
            face_id, reliability, link="", peer="", liveness=LivenessConfig(), hold_down=hold_down, is_local=True
        )
        face.carrier = attached
        face.refresh()
        self.faces[face_id] = face

    def perform(self, effects: Iterable[Effect]) -> None:
        """Have done what management wants."""
        for effect in effects:
            if isinstance(effect, Send):
                face = self.faces[effect.face_id]
                face.counts.count_out(effect.packet[0])
                self.send(face, effect.packet)
            else:
                self._effects.append(effect)

    # ------------------------------------------------------------------ sending

    def send(self, face: Face, packet: bytes) -> None:
        """Send a packet as it is, to a local face."""
        face.counts.out_bytes += len(packet)
        self._effects.append(Send(face.face_id, packet))

    def transmit(self, face: Face, message: str, packet: LinkPacket, now_s: float, *, acked: bool = True) -> None:
        """Send a packet over a link, under its reliability unless *acked* is false; *message* is the type it counts as."""
        if face.pacer is not None and message in PACED:
            face.pacer.put(message, packet, acked=acked)
            self._release(face, now_s)
        else:
            self._transmit(face, message, packet, now_s, acked=acked)

    def _release(self, face: Face, now_s: float) -> None:
        """Send what has waited long enough."""
        if face.pacer is None:
            return
        while (waiting := face.pacer.pop(now_s)) is not None:
            message, packet, acked = waiting
            self._transmit(face, message, packet, now_s, acked=acked)
        if face.pacer.next_s is not None:
            self._pacing.set(face.face_id, face.pacer.next_s)

    def _transmit(self, face: Face, message: str, packet: LinkPacket, now_s: float, *, acked: bool) -> None:
        is_regular = message == "heartbeat"
        for datagram in face.reliability.wrap(packet, now_s=now_s, acked=acked, is_regular=is_regular):
            face.counts.out_bytes += len(datagram)
            face.count_sent(message, len(datagram), now_s=now_s)
            self._effects.append(Send(face.face_id, datagram))
        if face.reliability.is_watched and packet.fragment:
            self._watch_reliability(face)

    # ------------------------------------------------------------------ receiving

    def received(self, face: Face, link_packet: LinkPacket, now_s: float) -> LinkPacket | None:
        """Take in what a packet says of its link and of the other end.

        Returns: the packet, put together where it came in fragments; None where it has been here before, or is not all there.
        Raises: MalformedError where fragments do not make a packet.
        """
        face.session.heard_packet(now_s=now_s)
        if link_packet.session_state is not None:
            face.session.heard_interval(link_packet.min_tx_ms)
        if link_packet.session_state is not None or face.face_id not in self._detection:
            self._heard(face, link_packet.session_state, now_s)
        if link_packet.is_poll:
            self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s)))
        if link_packet.is_plain:
            is_new = face.reliability.is_new(link_packet.sequence)
        else:
            is_new, repeat, lost = face.reliability.received(link_packet, now_s=now_s)
            self._after_reliability(face, repeat, lost, now_s)
        if not is_new:
            return None
        return link_packet if link_packet.frag_count == 1 else face.reassembler.take(link_packet, now_s=now_s)

    def _after_reliability(self, face: Face, repeat: list[bytes], lost: list[LinkPacket], now_s: float) -> None:
        for datagram in repeat:
            face.count_sent("link-repetition", len(datagram), now_s=now_s)
            self._effects.append(Send(face.face_id, datagram))
        for packet in lost:
            self._counters["link_losses"] += 1
            self._on_link_loss(face, packet, now_s)
        self._watch_reliability(face)

    def _watch_reliability(self, face: Face) -> None:
        deadline_s = face.reliability.deadline_s
        if deadline_s is None:
            self._acknowledging.cancel(face.face_id)
        else:
            self._acknowledging.set(face.face_id, deadline_s)

    # ------------------------------------------------------------------ liveness

    def _heard(self, face: Face, their_state: int | None, now_s: float) -> None:
        theirs = None if their_state is None else State(their_state)
        was_up = face.is_up
        changed = face.session.heard(theirs, now_s=now_s)
        if changed:
            face.refresh()
        suspicion_s = face.session.suspicion_s
        if suspicion_s is not None and face.face_id not in self._detection:
            self._detection.set(face.face_id, suspicion_s)  # moved lazily, when it comes due
        if changed or (theirs is State.INIT and face.session.state is State.UP):
            self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s)))  # the peer waits for our answer
        self._note_face(face, "heard" if face.is_up else "peer-down", now_s, was_up=was_up)

    def set_carrier(self, face: Face, now_s: float, *, up: bool) -> None:
        """The interface of a link gained or lost its carrier, or what is at a local face came or went."""
        was_up, face.carrier = face.is_up, up
        if not up:
            face.session.fail()
        face.refresh()
        if up and not face.is_local:
            self._beat_s = now_s  # say hello at once
        self._note_face(face, "carrier", now_s, was_up=was_up)

    def _note_face(self, face: Face, reason: str, now_s: float, *, was_up: bool) -> None:
        if face.is_up is was_up:
            return
        if not face.is_local:
            face.hold_down.note(now_s, up=face.is_up)
            self._effects.append(
                Log(FaceChanged(now_s, self._node, face.link, face.peer, "up" if face.is_up else "down", reason))
            )
        if was_up:
            face.reliability.forget()
            face.reassembler.clear()
            if face.pacer is not None:
                face.pacer.clear()
            self._watch_reliability(face)
            self._on_face_down(face, now_s)

    def on_timer(self, now_s: float) -> None:
        """Do what is due: heartbeats, questions to who is silent, acks and repetitions."""
        if self._starvation.note(self.deadline_s, now_s):
            for face in self.faces.values():
                face.stretch(self._starvation.stretch)
        if self._beat_s <= now_s:
            self._beat(now_s)
            interval_s = self._beat_interval_s * self._starvation.stretch
            self._beat_s = now_s + interval_s * (1.0 - JITTER_RATIO * self._chance.uniform())
        for face_id in self._detection.pop_due(now_s):
            self._on_silence(self.faces[face_id], now_s)
        for face_id in self._acknowledging.pop_due(now_s):
            face = self.faces[face_id]
            repeat, lost = face.reliability.on_timer(now_s=now_s)
            if (ack := face.reliability.late_ack(face.session.state, now_s=now_s)) is not None:
                face.count_sent("link-ack", len(ack), now_s=now_s)
                self._effects.append(Send(face.face_id, ack))
            self._after_reliability(face, repeat, lost, now_s)
        for face_id in self._pacing.pop_due(now_s):
            self._release(self.faces[face_id], now_s)

    def _beat(self, now_s: float, *, after_ratio: float = 0.7) -> None:
        for face in self.faces.values():
            if face.carrier and not face.is_local and face.heartbeat_due(now_s=now_s, after_ratio=after_ratio):
                self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s)))

    @property
    def is_starved(self) -> bool:
        return self._starvation.stretch > 1.0

    def beat_in_step(self, now_s: float) -> None:
        """A packet has woken us: say now what is to be said soon, so as not to wake once more for that.

        For nodes with few faces. Where there are many, one wake-up serves all of them.
        """
        if any(face.session.state is not State.UP for face in self.faces.values() if not face.is_local):
            return  # hellos have a beat of their own
        self._beat(now_s, after_ratio=IN_STEP_RATIO)
        silent_until_s = [face.silent_until_s for face in self.faces.values() if not face.is_local]
        self._beat_s = max(self._beat_s, min(silent_until_s, default=now_s))

    def _on_silence(self, face: Face, now_s: float) -> None:
        """Look at a face that may have been silent: suspect it, ask it, give it up."""
        suspicion_s, deadline_s = face.session.suspicion_s, face.session.deadline_s
        if suspicion_s is None or deadline_s is None:
            return
        was_up = face.is_up
        if now_s < suspicion_s:
            self._detection.set(face.face_id, suspicion_s)
        elif now_s < deadline_s:
            if face.is_up and not face.is_suspect and now_s >= suspicion_s + POLL_INTERVAL_S:
                face.suspect()
                self._on_face_suspect(face, now_s)
            if face.carrier:
                self._counters["polls"] += 1
                self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s, is_poll=True)))
            self._detection.set(face.face_id, min(now_s + POLL_INTERVAL_S, deadline_s))
        else:
            face.session.expire(now_s=now_s)
            face.refresh()
            self._note_face(face, "detection-time", now_s, was_up=was_up)
