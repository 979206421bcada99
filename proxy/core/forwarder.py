"""The name-based forwarder: NFD's pipelines as a machine without I/O.

Pipelines and their names follow the NFD developer guide (section 4): incoming Interest, Interest loop, content store hit
and miss, outgoing Interest, Interest finalize, incoming Data, Data unsolicited, outgoing Data, incoming and outgoing
Nack. Packets are forwarded as the bytes that came; only the hop limit is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from proxy.config import ForwarderConfig, RouteConfig
from proxy.core.events import (
    LOCAL_FACE,
    SERVICE_FACE,
    ApplicationLeft,
    CarrierChanged,
    Effect,
    Event,
    MtuChanged,
    PacketReceived,
    TimerExpired,
)
from proxy.core.face import Face
from proxy.core.face_table import FaceTable
from proxy.core.management import Management
from proxy.core.seeded import SplitMix64
from proxy.core.strategy import NACK_HOLD_S, Pipelines, make_strategies
from proxy.core.table.cs import ContentStore
from proxy.core.table.fib import Fib, NextHop
from proxy.core.table.pit import InRecord, OutRecord, Pit, PitEntry
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.message_names import OBJECT_ROOT, message_type
from proxy.wire.name import from_uri
from proxy.wire.packet import INTEREST, Interest, decode_data, peek_interest, with_nonce
from proxy.wire.tlv import MalformedError

#: No Interest stays pending longer, whatever its sender asks for.
INTEREST_LIFETIME_MAX_S: Final = 60.0
#: What Interests of one application that has attached itself may fill of the PIT.
APPLICATION_PIT_SHARE_RATIO: Final = 0.25
#: Names under it do not leave the node (NFD, "Namespace-based scope control").
LOCALHOST: Final = from_uri("/localhost")

#: Hops are counted up to here; nobody counts further.
HOP_COUNT_MAX: Final = 255


class Forwarder(Pipelines):
    """Faces, tables and pipelines of one node. Face 0 leads to the node's own application or service proxy.

    Where both are there, on a UE that serves as sync proxy, face -1 leads to the service proxy. Which packet is for whom
    is what the FIB says, as for any face: names tell apart what a client is sent from what a proxy is.
    """

    def __init__(self, config: ForwarderConfig, *, node: str, seed: int, local_attached: bool) -> None:
        self.node = node
        self._chance = SplitMix64(seed)
        counters: dict[str, int] = Counter()
        self._table = FaceTable(
            config,
            node=node,
            chance=self._chance,
            counters=counters,
            local_attached=local_attached,
            on_face_down=self._on_face_down,
            on_face_suspect=self._on_face_suspect,
            on_link_loss=self._on_link_loss,
        )
        super().__init__(self._table.faces, counters)
        self.fib = Fib()
        for route in config.routes:
            hops = [NextHop(hop.face_id, hop.cost_ms) for hop in route.next_hops]
            self.fib.insert_all([_encoded(prefix) for prefix in route.prefixes], hops)
        for choice in config.strategies:
            self.fib.set_strategy(from_uri(choice.prefix), choice.strategy)
        self._unreliable = tuple(from_uri(prefix) for prefix in config.unreliable_prefixes)
        self.pit = Pit(max_entries=config.pit_max_entries)
        self._pit_shares = {
            face.face_id: max(1, int(config.pit_max_entries * face.pit_share_ratio)) for face in config.faces
        }
        self.cs = ContentStore(max_entries=config.cs_max_entries, max_bytes=config.cs_max_bytes)
        self._strategies = make_strategies(self)
        self.management = Management(self, config.faces, self.counters)

    # ------------------------------------------------------------------ driver's side

    @property
    def deadline_s(self) -> float:
        """The earliest of what its faces wait for, PIT expiries and routes that run out."""
        deadline_s = self._table.deadline_s
        for other_s in (self.pit.timers.next_s, self.management.deadline_s):
            if other_s is not None and other_s < deadline_s:
                deadline_s = other_s
        return deadline_s

    def perform_at_once(self, perform: Callable[[Effect], None]) -> None:
        """Have effects performed as they come, in the same order, instead of returned by `handle`.

        Of a thousand Interests that a failure moves elsewhere, the first leaves before the last has been thought about.
        """
        self._table.perform_at_once(perform)

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        """Take in one event, return what is to be done, in order."""
        if isinstance(event, PacketReceived):
            try:
                self._on_packet(self.faces[event.face_id], event.packet, now_s)
            except MalformedError:
                self.counters["malformed"] += 1
            return self._table.take_effects()
        match event:
            case CarrierChanged(face_id, up):
                self._table.set_carrier(self.faces[face_id], now_s, up=up)
            case MtuChanged(face_id, mtu_bytes):
                self.faces[face_id].reliability.set_mtu(mtu_bytes)
            case ApplicationLeft(face_id):
                self._table.perform(self.management.face_removed(face_id, now_s=now_s))
                self._remove_face(self.faces[face_id], now_s)
            case TimerExpired():
                self._table.on_timer(now_s)
                for entry in self.pit.pop_expired(now_s):  # Interest finalize
                    self.counters["unsatisfied"] += 1
                    self._remember_nonces(entry, now_s)
                self._table.perform(self.management.on_timer(now_s=now_s))
            case _:
                raise TypeError(f"not for a forwarder: {event!r}")
        return self._table.take_effects()

    @property
    def is_starved(self) -> bool:
        """Whether this node gets the processor too late to keep its times."""
        return self._table.is_starved

    def beat_in_step(self, *, now_s: float) -> list[Effect]:
        """We are awake: return the heartbeats that would be due soon; see `FaceTable.beat_in_step`."""
        self._table.beat_in_step(now_s)
        return self._table.take_effects()

    def add_local_face(self) -> int:
        """Make a face for an application that attaches itself; return its ID, which no other face ever gets.

        It is up until the event ``ApplicationLeft``. What is sent on it are plain network packets, or Nacks in link packets.
        """
        face_id = self._table.add_local()
        self._pit_shares[face_id] = max(1, int(self.pit.max_entries * APPLICATION_PIT_SHARE_RATIO))
        return face_id

    def set_route(self, route: RouteConfig) -> None:
        """Set the next hops that configuration gives a prefix, none to take them away.

        Raises: ValueError where the prefix is no NDN URI or a face is none of this node's.
        """
        hops = [NextHop(hop.face_id, hop.cost_ms) for hop in route.next_hops]
        if strange := [hop.face_id for hop in hops if hop.face_id not in self.faces]:
            raise ValueError(f"there is no face {strange[0]}")
        self.fib.insert_all([from_uri(prefix) for prefix in route.prefixes], hops)

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
            "paced_drops": sum(face.pacer.dropped for face in self.faces.values() if face.pacer is not None),
            "reassembly_bytes": sum(face.reassembler.bytes for face in self.faces.values()),
            "reassembly_drops": sum(face.reassembler.dropped for face in self.faces.values()),
        }

    # ------------------------------------------------------------------ faces

    def _on_packet(self, face: Face, datagram: bytes, now_s: float) -> None:
        received, counts = decode_link_packet(datagram), face.counts
        counts.in_bytes += len(datagram)
        link_packet = received if face.is_local else self._table.received(face, received, now_s)
        if link_packet is None:
            return  # has been here before, or is not all there
        if link_packet.frag_count != 1:
            raise MalformedError("fragment on a face without a link")
        fragment = link_packet.fragment
        if not fragment:
            return
        if link_packet.nack_reason is not None:
            counts.in_nacks += 1
            self._on_incoming_nack(face, peek_interest(fragment), link_packet.nack_reason, now_s)
        elif fragment[0] == INTEREST:
            counts.in_interests += 1
            token = link_packet.pit_token if face.is_local else b""  # neighbours of ours ask under names alone
            interest = peek_interest(fragment)
            self._on_incoming_interest(
                face,
                interest,
                now_s,
                is_detour=link_packet.is_detour,
                is_lossy_path=link_packet.is_lossy_path or face.reliability.is_lossy,
                pit_token=token,
            )
        else:
            counts.in_data += 1
            self._on_incoming_data(face, fragment, now_s, hop_count=link_packet.hop_count)

    def _on_link_loss(self, face: Face, packet: LinkPacket, now_s: float) -> None:
        """The link did not get a packet across, however often it tried: for an Interest, that is as good as a Nack."""
        if packet.fragment[0] != INTEREST or packet.nack_reason is not None:
            return
        interest = peek_interest(packet.fragment)
        entry = self.pit.find(interest)
        out = None if entry is None else entry.out_records.get(face.face_id)
        if entry is not None and out is not None and out.nonce == interest.nonce:
            out.refuse(NackReason.CONGESTION, until_s=now_s + NACK_HOLD_S)
            self._strategies[entry.strategy].after_nack(entry, NackReason.CONGESTION, now_s)

    def _on_face_down(self, dead: Face, now_s: float) -> None:
        """Move what was asked over a dead face elsewhere, and forget who asked over it."""
        for entry in self.pit:
            entry.in_records.pop(dead.face_id, None)
            if entry.out_records.pop(dead.face_id, None) is not None:
                self._strategies[entry.strategy].after_face_down(entry, now_s)

    def _on_face_suspect(self, silent: Face, now_s: float) -> None:
        """Ask elsewhere as well what was asked over a face whose peer does not answer: it may be up, and it may be dead."""
        for entry in self.pit:
            if silent.face_id in entry.out_records:
                self._strategies[entry.strategy].after_suspicion(entry, now_s)

    def _remove_face(self, face: Face, now_s: float) -> None:
        """Forget a face, its routes, whom it asked and what it was asked; what waits for it is asked elsewhere, or refused."""
        self.fib.remove_face(face.face_id)
        for entry in self.pit:
            entry.next_hops = tuple(hop for hop in entry.next_hops if hop.face_id != face.face_id)
        self._table.set_carrier(face, now_s, up=False)
        for entry in self.pit:
            if not entry.in_records:  # nobody else has asked
                self._remember_nonces(entry, now_s)
                self.pit.erase(entry)
        self._table.remove(face)
        self._pit_shares.pop(face.face_id, None)

    # ------------------------------------------------------------------ Interest pipelines

    def _on_incoming_interest(
        self,
        face: Face,
        interest: Interest,
        now_s: float,
        *,
        is_detour: bool,
        is_lossy_path: bool = False,
        pit_token: bytes = b"",
    ) -> None:
        if interest.nonce < 0:
            if not face.is_local:
                raise MalformedError("Interest without a nonce")
            interest = with_nonce(interest, self.new_nonce())
        wire, stays = interest.wire, False
        if interest.name.startswith(LOCALHOST):
            if not face.is_local:
                self.counters["refused_scope"] += 1
                return
            if self.management.is_for_it(interest):
                effects = self.management.handle(face.face_id, interest, pit_token=pit_token, now_s=now_s)
                self._table.perform(effects)
                return
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
            self._on_interest_loop(face, interest, now_s, pit_token)
            return
        if entry is not None and self._was_passed_on(face, interest, entry):
            self.counters["repeated_nonces"] += 1
            return
        if entry is None:
            stored = self.cs.find(interest, now_s=now_s)  # content store hit
            if stored is not None:
                self._send_data(face, stored, interest.name, now_s, pit_token=pit_token)
                return
            entry = self._new_entry(face, interest, now_s, pit_token)
            if entry is None:
                return
        lifetime_s = min(interest.lifetime_ms / 1e3, INTEREST_LIFETIME_MAX_S)
        previous = entry.in_records.get(face.face_id)
        record = InRecord(
            interest.nonce,
            now_s + lifetime_s,
            lifetime_s,
            wire,
            interest.nonce_at,
            stays=stays,
            pit_token=pit_token,
            is_lossy_path=is_lossy_path,
        )
        entry.in_records[face.face_id] = record
        if previous is not None and previous.nonce != record.nonce:
            # A copy of it may still be on its way round; two in one circle would else replace each other here for ever.
            self.dead_nonces.add(interest.name, previous.nonce, now_s=now_s)
        self.pit.refresh(entry)
        self._strategies[entry.strategy].after_interest(face, entry, previous, now_s, is_detour=is_detour)

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

    def _on_interest_loop(self, face: Face, interest: Interest, now_s: float, pit_token: bytes) -> None:
        self.counters["loops"] += 1
        if self.fib.lookup(interest.name)[1] != "multicast":  # there, copies that meet are the normal case
            self._send_nack(face, interest.wire, NackReason.DUPLICATE, now_s, pit_token=pit_token)

    def _new_entry(self, face: Face, interest: Interest, now_s: float, pit_token: bytes) -> PitEntry | None:
        if self.pit.is_full:
            self.counters["pit_full"] += 1
            self._send_nack(face, interest.wire, NackReason.CONGESTION, now_s, pit_token=pit_token)
            return None
        share = self._pit_shares.get(face.face_id)
        if share is not None and self.pit.held_by(face.face_id) >= share:
            self.counters["refused_pit_share"] += 1  # whoever is behind that face, the others find room
            self._send_nack(face, interest.wire, NackReason.CONGESTION, now_s, pit_token=pit_token)
            return None
        next_hops, strategy = self.fib.lookup(interest.name)
        if interest.name.startswith(LOCALHOST):
            next_hops = tuple(hop for hop in next_hops if self.faces[hop.face_id].is_local)
        return self.pit.insert(interest, strategy, next_hops, opener=face.face_id)

    def new_nonce(self) -> int:
        """Return a nonce for an Interest that is asked in another way than it came."""
        return self._chance.nonce()

    def reject(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        """Tell all who wait that there is no way, and forget the entry."""
        self._remember_nonces(entry, now_s)
        for face_id, record in entry.in_records.items():
            self._send_nack(self.faces[face_id], record.wire, reason, now_s, pit_token=record.pit_token)
        self.pit.erase(entry)

    def send_interest(
        self, entry: PitEntry, face: Face, record: InRecord, now_s: float, *, is_detour: bool = False
    ) -> None:
        """Outgoing Interest."""
        replaced = entry.out_records.get(face.face_id)
        if replaced is not None and replaced.nonce != record.nonce:
            self.dead_nonces.add(entry.key[0], replaced.nonce, now_s=now_s)
        entry.out_records[face.face_id] = OutRecord(record.nonce, now_s, now_s + record.lifetime_s)
        face.counts.out_interests += 1
        if face.is_local:
            packet = record.wire
            # Of applications, only those of ours have a use for it.
            if record.is_lossy_path and face.face_id in (LOCAL_FACE, SERVICE_FACE):
                packet = encode_link_packet(LinkPacket(packet, is_lossy_path=True))
            self._table.send(face, packet)
        else:
            link_packet = LinkPacket(record.wire, is_detour=is_detour, is_lossy_path=record.is_lossy_path)
            name = entry.key[0]
            acked = not name.startswith(self._unreliable)
            self._table.transmit(face, message_type(name, data=False), link_packet, now_s, acked=acked)

    # ------------------------------------------------------------------ Data and Nack pipelines

    def _on_incoming_data(self, face: Face, wire: bytes, now_s: float, *, hop_count: int | None) -> None:
        data = decode_data(wire)
        hop_count = 0 if face.is_local else None if hop_count is None else min(hop_count + 1, HOP_COUNT_MAX)
        entries = self.pit.matches(data)
        if not entries:
            self.counters["unsolicited"] += 1
            return
        self.counters["satisfied"] += len(entries)
        self.cs.insert(data, now_s=now_s)
        asking: dict[tuple[int, bytes], None] = {}  # in order, each face once for each token
        for entry in entries:
            for face_id, record in entry.in_records.items():
                if record.expiry_s > now_s and face_id != face.face_id:
                    asking[face_id, record.pit_token] = None
            self._remember_nonces(entry, now_s)
            self.pit.erase(entry)
        for face_id, token in asking:
            self._send_data(self.faces[face_id], wire, data.name, now_s, hop_count=hop_count, pit_token=token)

    def _send_data(
        self, face: Face, wire: bytes, name: bytes, now_s: float, *, hop_count: int | None = 0, pit_token: bytes = b""
    ) -> None:
        """Outgoing Data; of the data plane it says how many links it has crossed since it was given out."""
        face.counts.out_data += 1
        counted = hop_count if name.startswith(OBJECT_ROOT) else None
        if face.is_local:
            if face.face_id != LOCAL_FACE:
                counted = None  # other applications have no use for it
            is_bare = counted is None and not pit_token
            packet = wire if is_bare else encode_link_packet(LinkPacket(wire, hop_count=counted, pit_token=pit_token))
            self._table.send(face, packet)
        elif face.is_up:
            acked = not name.startswith(self._unreliable)
            link_packet = LinkPacket(wire, hop_count=counted)
            self._table.transmit(face, message_type(name, data=True), link_packet, now_s, acked=acked)
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
        known = reason in (NackReason.CONGESTION, NackReason.DUPLICATE, NackReason.NO_ROUTE)
        self._strategies[entry.strategy].after_nack(entry, NackReason(reason) if known else NackReason.NONE, now_s)

    def _send_nack(
        self, face: Face, interest_wire: bytes, reason: NackReason, now_s: float, *, pit_token: bytes = b""
    ) -> None:
        self.counters["nacks_sent"] += 1
        face.counts.out_nacks += 1
        if face.is_local:
            self._table.send(face, encode_nack(interest_wire, reason, pit_token=pit_token))
        elif face.is_up:
            self._table.transmit(face, "nack", LinkPacket(interest_wire, nack_reason=reason), now_s)

    def _remember_nonces(self, entry: PitEntry, now_s: float) -> None:
        name = entry.key[0]
        nonces = {
            record.nonce: None for records in (entry.in_records, entry.out_records) for record in records.values()
        }
        for nonce in nonces:  # in order; what was passed on as it came is there twice
            self.dead_nonces.add(name, nonce, now_s=now_s)


@lru_cache(maxsize=65_536)
def _encoded(prefix: str) -> bytes:
    """Return a prefix as in names; where many forwarders share a process, they share it too. Raises: ValueError."""
    return from_uri(prefix)
