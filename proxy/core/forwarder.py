"""The name-based forwarder: NFD's pipelines as a machine without I/O.

Pipelines and their names follow the NFD developer guide (section 4): incoming Interest, Interest loop, content store hit
and miss, outgoing Interest, Interest finalize, incoming Data, Data unsolicited, outgoing Data, incoming and outgoing
Nack. Packets are forwarded as the bytes that came; only the hop limit is changed.
"""

from __future__ import annotations

from collections import Counter

from proxy.config import ForwarderConfig
from proxy.core.events import (
    LOCAL_FACE,
    SERVICE_FACE,
    CarrierChanged,
    Effect,
    Event,
    Log,
    PacketReceived,
    Send,
    TimerExpired,
)
from proxy.core.face import JITTER_RATIO, Face
from proxy.core.link_reliability import LinkReliability
from proxy.core.liveness import POLL_INTERVAL_S, State
from proxy.core.seeded import SplitMix64
from proxy.core.table.cs import ContentStore
from proxy.core.table.dead_nonce_list import DeadNonceList
from proxy.core.table.fib import Fib, NextHop
from proxy.core.table.pit import InRecord, OutRecord, Pit, PitEntry
from proxy.core.timers import Timers
from proxy.records import FaceChanged
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_nack
from proxy.wire.messages import message_type
from proxy.wire.name import from_uri
from proxy.wire.packet import INTEREST, Interest, decode_data, peek_interest
from proxy.wire.tlv import MalformedError

#: A consumer that repeats itself sooner than this is not forwarded again (NFD's minimal suppression interval is 10 ms).
SUPPRESSION_S = 0.010
#: An Interest that is aggregated relies on the copy upstream. A consumer that keeps one outstanding repeats it after at
#: most this part of its lifetime (see ``consumer.REFRESH_RATIO``), so a copy with less left must be renewed now.
RENEWAL_RATIO = 0.6
#: Stands in the dead nonce list for a name that was refused because there is a better way behind the asker; no nonce.
TURNED_BACK = -1
#: A next hop that has answered with a Nack is not asked again for so long; by then it may have another way.
NACK_HOLD_S = 0.1
#: No Interest stays pending longer, whatever its sender asks for.
INTEREST_LIFETIME_MAX_S = 60.0


class Forwarder:
    """Faces, tables and pipelines of one node. Face 0 leads to the node's own application or service proxy.

    Where both are there, on a UE that serves as sync proxy, face -1 leads to the service proxy. Which packet is for whom
    is what the FIB says, as for any face: names tell apart what a client is sent from what a proxy is.
    """

    def __init__(self, config: ForwarderConfig, *, node: str, seed: int, local_attached: bool) -> None:
        self.node = node
        self._chance = SplitMix64(seed)
        liveness = config.liveness
        self.faces = {
            face.face_id: Face(
                face.face_id,
                LinkReliability(config.link_reliability, self._chance),
                link=face.link,
                peer=face.peer,
                desired_min_tx_s=liveness.desired_min_tx_s,
                detect_mult=liveness.detect_mult,
            )
            for face in config.faces
        }
        self._add_local(LOCAL_FACE, attached=local_attached)
        if local_attached and config.service_socket is not None:
            self._add_local(SERVICE_FACE, attached=False)
        self.fib = Fib()
        for route in config.routes:
            self.fib.insert(from_uri(route.prefix), [NextHop(hop.face_id, hop.cost_ms) for hop in route.next_hops])
        for choice in config.strategies:
            self.fib.set_strategy(from_uri(choice.prefix), choice.strategy)
        self.pit = Pit(max_entries=config.pit_max_entries)
        self._pit_shares = {
            face.face_id: max(1, int(config.pit_max_entries * face.pit_share_ratio)) for face in config.faces
        }
        self.cs = ContentStore(max_entries=config.cs_max_entries, max_bytes=config.cs_max_bytes)
        self.dead_nonces = DeadNonceList()
        self.counters: dict[str, int] = Counter()
        self._detection: Timers[int] = Timers()  #: per face: detection time
        self._acknowledging: Timers[int] = Timers()  #: per face: acks to send, packets to repeat
        #: next look at who needs a heartbeat; one for all faces, since every wake-up costs more than the look
        self._beat_s = 0.0
        self._beat_interval_s = liveness.desired_min_tx_s
        self._effects: list[Effect] = []

    def _add_local(self, face_id: int, *, attached: bool) -> None:
        reliability = LinkReliability("off", self._chance)
        face = Face(face_id, reliability, link="", peer="", desired_min_tx_s=1.0, detect_mult=1)
        face.carrier = attached
        face.refresh()
        self.faces[face_id] = face

    # ------------------------------------------------------------------ driver's side

    @property
    def deadline_s(self) -> float:
        """The earliest of heartbeats, detection times and PIT expiries."""
        deadline_s = self._beat_s
        for other_s in (self._detection.next_s, self._acknowledging.next_s, self.pit.timers.next_s):
            if other_s is not None and other_s < deadline_s:
                deadline_s = other_s
        return deadline_s

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order."""
        self._effects = []
        match event:
            case PacketReceived(face_id, packet):
                try:
                    self._on_packet(self.faces[face_id], packet, now_s)
                except MalformedError:
                    self.counters["malformed"] += 1
            case CarrierChanged(face_id, up):
                self._on_carrier(self.faces[face_id], now_s, up=up)
            case TimerExpired():
                self._on_timer(now_s)
            case _:
                raise TypeError(f"not for a forwarder: {event!r}")
        return self._effects

    def counters_now(self) -> dict[str, int]:
        """Return all counters, tables included."""
        return dict(self.counters) | {
            "pit_entries": len(self.pit),
            "pit_peak": self.pit.peak,
            "cs_entries": len(self.cs),
            "cs_bytes": self.cs.bytes,
            "cs_hits": self.cs.hits,
            "cs_misses": self.cs.misses,
            "cs_evictions": self.cs.evictions,
            "dead_nonces": len(self.dead_nonces),
            "link_repetitions": sum(face.reliability.repeated for face in self.faces.values()),
            "link_doubles": sum(face.reliability.doubles for face in self.faces.values()),
        }

    # ------------------------------------------------------------------ faces

    def _on_packet(self, face: Face, datagram: bytes, now_s: float) -> None:
        link_packet = decode_link_packet(datagram)
        if face.face_id != LOCAL_FACE:
            face.session.heard_packet(now_s=now_s)
            if link_packet.session_state is not None or face.face_id not in self._detection:
                self._heard(face, link_packet.session_state, now_s)
            if link_packet.is_poll:
                self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s)))
            if link_packet.is_plain:
                if not face.reliability.is_new(link_packet.sequence):
                    return  # has been here before
            elif not self._on_link_header(face, link_packet, now_s):
                return
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            self._on_incoming_nack(face, peek_interest(fragment), link_packet.nack_reason, now_s)
        elif fragment[0] == INTEREST:
            self._on_incoming_interest(face, peek_interest(fragment), now_s, is_detour=link_packet.is_detour)
        else:
            self._on_incoming_data(face, fragment, now_s)

    def _on_link_header(self, face: Face, link_packet: LinkPacket, now_s: float) -> bool:
        """Let link reliability look at a packet; return whether its fragment is new."""
        is_new, repeat, lost = face.reliability.received(link_packet, now_s=now_s)
        self._after_reliability(face, repeat, lost, now_s)
        return is_new

    def _after_reliability(self, face: Face, repeat: list[bytes], lost: list[LinkPacket], now_s: float) -> None:
        for datagram in repeat:
            face.count_sent("link-repetition", len(datagram), now_s=now_s)
            self._effects.append(Send(face.face_id, datagram))
        for packet in lost:
            self.counters["link_losses"] += 1
            if packet.fragment[0] == INTEREST and packet.nack_reason is None:
                self._on_link_loss(face, peek_interest(packet.fragment), now_s)
        self._watch_reliability(face)

    def _watch_reliability(self, face: Face) -> None:
        deadline_s = face.reliability.deadline_s
        if deadline_s is None:
            self._acknowledging.cancel(face.face_id)
        else:
            self._acknowledging.set(face.face_id, deadline_s)

    def _on_link_loss(self, face: Face, interest: Interest, now_s: float) -> None:
        """The link did not get an Interest across, however often it tried: that is as good as a Nack."""
        entry = self.pit.find(interest)
        out = None if entry is None else entry.out_records.get(face.face_id)
        if entry is None or out is None or out.nonce != interest.nonce or entry.strategy == "multicast":
            return
        out.refuse(NackReason.CONGESTION, until_s=now_s + NACK_HOLD_S)
        if all(record.nacked is not None for record in entry.out_records.values()):
            self._try_next_hop(entry, NackReason.CONGESTION, now_s)

    def _transmit(self, face: Face, message: str, packet: LinkPacket, now_s: float) -> None:
        """Send a packet over a link, under its reliability."""
        datagram = face.reliability.wrap(packet, now_s=now_s)
        face.count_sent(message, len(datagram), now_s=now_s)
        self._effects.append(Send(face.face_id, datagram))
        if face.reliability.is_watched and packet.fragment:
            self._watch_reliability(face)

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

    def _on_carrier(self, face: Face, now_s: float, *, up: bool) -> None:
        was_up, face.carrier = face.is_up, up
        if not up:
            face.session.fail()
        face.refresh()
        if up and not face.is_local:
            self._beat_s = now_s  # say hello at once
        self._note_face(face, "carrier", now_s, was_up=was_up)

    def _note_face(self, face: Face, reason: str, now_s: float, *, was_up: bool) -> None:
        if face.is_up is was_up or face.is_local:
            if face.is_local and was_up and not face.is_up:
                self._fail_over(face, now_s)
            return
        self._effects.append(
            Log(FaceChanged(now_s, self.node, face.link, face.peer, "up" if face.is_up else "down", reason))
        )
        if was_up:
            face.reliability.forget()
            self._watch_reliability(face)
            self._fail_over(face, now_s)

    def _fail_over(self, dead: Face, now_s: float) -> None:
        """Move what was asked over a dead face to the next ranked next hop, without waiting for anybody."""
        for entry in self.pit:
            entry.in_records.pop(dead.face_id, None)
            if entry.out_records.pop(dead.face_id, None) is None or entry.strategy == "multicast":
                continue
            if any(record.nacked is None for record in entry.out_records.values()):
                continue
            self.counters["failovers"] += 1
            self._try_next_hop(entry, NackReason.NO_ROUTE, now_s)

    def _on_timer(self, now_s: float) -> None:
        if self._beat_s <= now_s:
            for face in self.faces.values():
                if face.carrier and not face.is_local and face.heartbeat_due(now_s=now_s):
                    self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s)))
            self._beat_s = now_s + self._beat_interval_s * (1.0 - JITTER_RATIO * self._chance.uniform())
        for face_id in self._detection.pop_due(now_s):
            self._on_silence(self.faces[face_id], now_s)
        for face_id in self._acknowledging.pop_due(now_s):
            face = self.faces[face_id]
            repeat, lost = face.reliability.on_timer(face.session.state, now_s=now_s)
            self._after_reliability(face, repeat, lost, now_s)
        for entry in self.pit.pop_expired(now_s):  # Interest finalize
            self.counters["unsatisfied"] += 1
            self._remember_nonces(entry, now_s)

    def _on_silence(self, face: Face, now_s: float) -> None:
        """Look at a face that may have been silent: suspect it, ask it, give it up."""
        suspicion_s, deadline_s = face.session.suspicion_s, face.session.deadline_s
        if suspicion_s is None or deadline_s is None:
            return
        was_up = face.is_up
        if now_s < suspicion_s:
            self._detection.set(face.face_id, suspicion_s)
        elif now_s < deadline_s:
            if face.carrier:
                self.counters["polls"] += 1
                self._effects.append(Send(face.face_id, face.heartbeat(now_s=now_s, is_poll=True)))
            self._detection.set(face.face_id, min(now_s + POLL_INTERVAL_S, deadline_s))
        else:
            face.session.expire(now_s=now_s)
            face.refresh()
            self._note_face(face, "detection-time", now_s, was_up=was_up)

    # ------------------------------------------------------------------ Interest pipelines

    def _on_incoming_interest(self, face: Face, interest: Interest, now_s: float, *, is_detour: bool) -> None:
        wire, stays = interest.wire, False
        if interest.nonce < 0:
            raise MalformedError("Interest without a nonce")
        if interest.hop_limit_at:
            hops = wire[interest.hop_limit_at]
            if not hops:
                self.counters["hop_limit"] += 1
                return
            if not face.is_local:
                at = interest.hop_limit_at
                wire = wire[:at] + bytes((hops - 1,)) + wire[at + 1 :]
                stays = hops == 1
        entry = self.pit.find(interest)
        if self._is_loop(face, interest, entry):
            self._on_interest_loop(face, interest, now_s)
            return
        if entry is not None and self._was_passed_on(face, interest, entry):
            self.counters["repeated_nonces"] += 1
            return
        if entry is None:
            stored = self.cs.find(interest, now_s=now_s)  # content store hit
            if stored is not None:
                self._send_data(face, stored, interest.name, now_s)
                return
            entry = self._new_entry(face, interest, now_s)
            if entry is None:
                return
        lifetime_s = min(interest.lifetime_ms / 1e3, INTEREST_LIFETIME_MAX_S)
        previous = entry.in_records.get(face.face_id)
        record = InRecord(interest.nonce, now_s + lifetime_s, lifetime_s, wire, interest.nonce_at, stays)
        entry.in_records[face.face_id] = record
        if previous is not None and previous.nonce != record.nonce:
            # A copy of it may still be on its way round; two in one circle would else replace each other here for ever.
            self.dead_nonces.add(interest.name, previous.nonce, now_s=now_s)
        self.pit.refresh(entry)
        if entry.strategy == "multicast":
            self._multicast(face, entry, record, now_s)
        else:
            self._best_route(face, entry, previous, now_s, is_detour=is_detour)

    def _is_loop(self, face: Face, interest: Interest, entry: PitEntry | None) -> bool:
        """The same nonce from another face, or after its entry is gone, has come round in a circle."""
        nonce = interest.nonce
        if entry is not None:
            for face_id, record in entry.in_records.items():
                if record.nonce == nonce and face_id != face.face_id:
                    return True
            known = entry.in_records.get(face.face_id)
            if known is not None and known.nonce == nonce:
                return False
            if any(out.nonce == nonce for out in entry.out_records.values()):
                return True
        return self.dead_nonces.has(interest.name, nonce)

    @staticmethod
    def _was_passed_on(face: Face, interest: Interest, entry: PitEntry) -> bool:
        """Tell whether this very Interest came from this very face before, and was passed on.

        Somebody repeats it under its old nonce, or it goes round in a circle.
        """
        known = entry.in_records.get(face.face_id)
        if known is None or known.nonce != interest.nonce:
            return False
        return any(out.nonce == interest.nonce for out in entry.out_records.values())

    def _on_interest_loop(self, face: Face, interest: Interest, now_s: float) -> None:
        self.counters["loops"] += 1
        if self.fib.lookup(interest.name)[1] != "multicast":  # there, copies that meet are the normal case
            self._send_nack(face, interest.wire, NackReason.DUPLICATE, now_s)

    def _new_entry(self, face: Face, interest: Interest, now_s: float) -> PitEntry | None:
        if self.pit.is_full:
            self.counters["pit_full"] += 1
            self._send_nack(face, interest.wire, NackReason.CONGESTION, now_s)
            return None
        share = self._pit_shares.get(face.face_id)
        if share is not None and self.pit.held_by(face.face_id) >= share:
            self.counters["refused_pit_share"] += 1  # whoever is behind that face, the others find room
            self._send_nack(face, interest.wire, NackReason.CONGESTION, now_s)
            return None
        next_hops, strategy = self.fib.lookup(interest.name)
        return self.pit.insert(interest, strategy, next_hops, opener=face.face_id)

    def _multicast(self, face: Face, entry: PitEntry, record: InRecord, now_s: float) -> None:
        for hop in entry.next_hops:
            if hop.face_id != face.face_id and self._may_take(self.faces[hop.face_id], record):
                self._send_interest(entry, self.faces[hop.face_id], record, now_s)

    def _may_take(self, face: Face, record: InRecord) -> bool:
        """Tell whether an Interest can go over a face: it is up, and no hop too far."""
        return face.is_up and (face.is_local or not record.stays)

    def _best_route(
        self, face: Face, entry: PitEntry, previous: InRecord | None, now_s: float, *, is_detour: bool
    ) -> None:
        """Forward a new Interest; aggregate into a pending one unless what is pending cannot serve this asker."""
        if not entry.out_records and entry.next_hops:  # nobody was asked yet, and the best way is nearly always there
            best, wanted = self.faces[entry.next_hops[0].face_id], entry.in_records[face.face_id]
            if best is not face and self._may_take(best, wanted):
                self._send_interest(entry, best, wanted, now_s)
                return
        for face_id, out in list(entry.out_records.items()):
            if out.expiry_s <= now_s:
                # Upstream has forgotten us: as good as never asked. And a Nack tells nothing of what comes after it.
                del entry.out_records[face_id]
        pending = {face_id: record for face_id, record in entry.out_records.items() if record.nacked is None}
        if face.face_id in pending:
            # Upstream asks us back: it has lost its way to the producer, and would wait for us while we wait for it.
            pending.pop(face.face_id).refuse(NackReason.NO_ROUTE, until_s=now_s + NACK_HOLD_S)
            self.counters["crossed"] += 1
        if pending:
            upstream, last = max(pending.items(), key=lambda item: item[1].sent_s)
            wanted = entry.in_records[face.face_id]
            if is_detour:
                # Those we wait for may be waiting, around a circle, for this very Interest: send it after them. If it
                # comes round, its nonce gives it away, and whoever sees that tries another way.
                self._send_interest(entry, self.faces[upstream], wanted, now_s, is_detour=True)
                return
            if last.expiry_s - now_s < RENEWAL_RATIO * wanted.lifetime_s:
                # What is pending upstream expires long before this asker does: renew it, by the best way there is now.
                self._renew(face, entry, wanted, now_s)
                return
            refreshed = previous is None or previous.expiry_s - now_s < RENEWAL_RATIO * previous.lifetime_s
            if refreshed or now_s - last.sent_s < SUPPRESSION_S:
                self.counters["aggregated"] += 1
                return
        self._try_next_hop(entry, NackReason.NO_ROUTE, now_s, asker=face)

    def _renew(self, face: Face, entry: PitEntry, wanted: InRecord, now_s: float) -> None:
        for hop in entry.next_hops:
            out, upstream = entry.out_records.get(hop.face_id), self.faces[hop.face_id]
            if upstream is not face and self._may_take(upstream, wanted) and (out is None or out.nacked is None):
                self._send_interest(entry, upstream, wanted, now_s)
                return

    def _try_next_hop(self, entry: PitEntry, reason: NackReason, now_s: float, asker: Face | None = None) -> None:
        """Ask the best next hop that was not asked yet, else the one asked longest ago; if there is none, say so.

        Where the better ways are dead and the best that is left leads back to who asks, say so too: the asker has a shorter
        way than we do, only it cannot know. If it asks again, it has none, and ours will do.
        """
        best: tuple[float, int, Face, InRecord] | None = None
        is_best_dead = False
        for rank, hop in enumerate(entry.next_hops):
            face = self.faces[hop.face_id]
            out = entry.out_records.get(hop.face_id)
            if not face.is_up or (out is not None and out.nacked is not None):
                is_best_dead |= best is None
                continue
            record = self._asking_record(entry, hop.face_id, asker)
            if record is None and is_best_dead and best is None and self._turn_back_once(entry, now_s):
                break
            if record is None or not self._may_take(face, record) or (out is not None and asker is None):
                continue
            asked_s = -1.0 if out is None else out.sent_s
            if best is None or (asked_s, rank) < best[:2]:
                best = (asked_s, rank, face, record)
        if best is None:
            self._reject(entry, reason, now_s)
            return
        _, _, upstream, record = best
        if asker is None or record is not entry.in_records.get(asker.face_id):
            # Not the Interest that has just arrived: routers that saw it come another way would take it for a loop.
            record = record.renewed(self._chance.nonce())
        self._send_interest(entry, upstream, record, now_s, is_detour=upstream.face_id != entry.next_hops[0].face_id)

    def _turn_back_once(self, entry: PitEntry, now_s: float) -> bool:
        """Tell whether this is the first time that a name is refused for a better way behind the asker."""
        name = entry.key[0]
        if self.dead_nonces.has(name, TURNED_BACK):
            return False
        self.dead_nonces.add(name, TURNED_BACK, now_s=now_s)
        self.counters["turned_back"] += 1
        return True

    def _asking_record(self, entry: PitEntry, upstream: int, asker: Face | None) -> InRecord | None:
        """Return an in-record to ask *upstream* with: never upstream's own (it would only get its question back)."""
        if asker is not None and asker.face_id != upstream:
            return entry.in_records.get(asker.face_id)
        return next((record for face_id, record in entry.in_records.items() if face_id != upstream), None)

    def _reject(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        self._remember_nonces(entry, now_s)
        for face_id, record in entry.in_records.items():
            self._send_nack(self.faces[face_id], record.wire, reason, now_s)
        self.pit.erase(entry)

    def _send_interest(
        self, entry: PitEntry, face: Face, record: InRecord, now_s: float, *, is_detour: bool = False
    ) -> None:
        replaced = entry.out_records.get(face.face_id)
        if replaced is not None and replaced.nonce != record.nonce:
            self.dead_nonces.add(entry.key[0], replaced.nonce, now_s=now_s)
        entry.out_records[face.face_id] = OutRecord(record.nonce, now_s, now_s + record.lifetime_s)
        if face.is_local:
            self._effects.append(Send(face.face_id, record.wire))
        else:
            packet = LinkPacket(record.wire, is_detour=is_detour)
            self._transmit(face, message_type(entry.key[0], data=False), packet, now_s)

    # ------------------------------------------------------------------ Data and Nack pipelines

    def _on_incoming_data(self, face: Face, wire: bytes, now_s: float) -> None:
        data = decode_data(wire)
        entries = self.pit.matches(data)
        if not entries:
            self.counters["unsolicited"] += 1
            return
        self.cs.insert(data, now_s=now_s)
        asking: dict[int, None] = {}  # in order, each face once
        for entry in entries:
            for face_id, record in entry.in_records.items():
                if record.expiry_s > now_s and face_id != face.face_id:
                    asking[face_id] = None
            self._remember_nonces(entry, now_s)
            self.pit.erase(entry)
        for face_id in asking:
            self._send_data(self.faces[face_id], wire, data.name, now_s)

    def _send_data(self, face: Face, wire: bytes, name: bytes, now_s: float) -> None:
        if face.is_local:
            self._effects.append(Send(face.face_id, wire))
        elif face.is_up:
            self._transmit(face, message_type(name, data=True), LinkPacket(wire), now_s)
        else:
            self.counters["data_to_dead_face"] += 1

    def _on_incoming_nack(self, face: Face, interest: Interest, reason: int, now_s: float) -> None:
        entry = self.pit.find(interest)
        out = None if entry is None else entry.out_records.get(face.face_id)
        if entry is None or out is None or out.nonce != interest.nonce:
            self.counters["nacks_unmatched"] += 1
            return
        self.counters["nacks_received"] += 1
        out.refuse(reason, until_s=now_s + NACK_HOLD_S)
        if entry.strategy == "multicast" or any(record.nacked is None for record in entry.out_records.values()):
            return
        known = reason in (NackReason.CONGESTION, NackReason.DUPLICATE, NackReason.NO_ROUTE)
        self._try_next_hop(entry, NackReason(reason) if known else NackReason.NONE, now_s)

    def _send_nack(self, face: Face, interest_wire: bytes, reason: NackReason, now_s: float) -> None:
        self.counters["nacks_sent"] += 1
        if face.is_local:
            self._effects.append(Send(face.face_id, encode_nack(interest_wire, reason)))
        elif face.is_up:
            self._transmit(face, "nack", LinkPacket(interest_wire, nack_reason=reason), now_s)

    def _remember_nonces(self, entry: PitEntry, now_s: float) -> None:
        name = entry.key[0]
        nonces = {
            record.nonce: None for records in (entry.in_records, entry.out_records) for record in records.values()
        }
        for nonce in nonces:  # in order; what was passed on as it came is there twice
            self.dead_nonces.add(name, nonce, now_s=now_s)
