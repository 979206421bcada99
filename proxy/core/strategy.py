"""Forwarding strategies: where an Interest goes, and where it goes next when that did not help (NFD, ``daemon/fw``).

A strategy decides; what it decides is done by the pipelines of the forwarder. One object of each kind serves all entries
of the PIT, and keeps nothing of its own: what was asked, and what came of it, is in the entry.
"""

from __future__ import annotations

from typing import Final

from proxy.core.face import Face
from proxy.core.table.dead_nonce_list import DeadNonceList
from proxy.core.table.fib import StrategyName
from proxy.core.table.pit import InRecord, PitEntry
from proxy.wire.lp import NackReason

#: A consumer that repeats itself sooner than this is not forwarded again. NFD begins with 10 ms, too, and doubles it each time, up
#: to 250 ms; here a repetition is what looks for another way where one is silently dead, so that it stays at that.
SUPPRESSION_S: Final = 0.010
#: Of multicast, the longest.
SUPPRESSION_MAX_S: Final = 0.250
#: An Interest that is aggregated relies on the copy upstream. A consumer that keeps one outstanding repeats it after at
#: most this part of its lifetime (see ``consumer.REFRESH_RATIO``), so a copy with less left must be renewed now.
RENEWAL_RATIO: Final = 0.6
#: Stands in the dead nonce list for a name that was refused because there is a better way behind the asker; no nonce.
TURNED_BACK: Final = -1
#: A next hop that has answered with a Nack is not asked again for so long; by then it may have another way.
NACK_HOLD_S: Final = 0.1


class Pipelines:
    """What a strategy sees of the forwarder, and what it may ask of it."""

    def __init__(self, faces: dict[int, Face], counters: dict[str, int]) -> None:
        self.faces, self.counters = faces, counters
        self.dead_nonces = DeadNonceList()

    def new_nonce(self) -> int:
        """Return a nonce for an Interest that is asked in another way than it came."""
        raise NotImplementedError

    def send_interest(
        self, entry: PitEntry, face: Face, record: InRecord, now_s: float, *, is_detour: bool = False
    ) -> None:
        """Outgoing Interest."""
        raise NotImplementedError

    def reject(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        """Tell all who wait that there is no way, and forget the entry."""
        raise NotImplementedError


class Strategy:
    """Named as in NFD; *entry* has the in-record of who asks, and the out-records of whom was asked."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._do = pipelines

    def after_interest(
        self, face: Face, entry: PitEntry, previous: InRecord | None, now_s: float, *, is_detour: bool
    ) -> None:
        """An Interest came from *face* that the content store cannot answer; *previous* is what that face asked before."""
        raise NotImplementedError

    def after_nack(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        """An upstream has refused, or the link to it did not get the question across; its out-record says so."""
        raise NotImplementedError

    def after_face_down(self, entry: PitEntry, now_s: float) -> None:
        """A face that was asked is dead; its out-record is gone."""
        raise NotImplementedError

    def after_suspicion(self, entry: PitEntry, now_s: float) -> None:
        """A face that was asked may be dead; its out-record is still there."""
        raise NotImplementedError


def _may_take(face: Face, record: InRecord) -> bool:
    """Tell whether an Interest can go over a face: it is up, and no hop too far."""
    return face.is_up and (face.is_local or not record.stays)


class Multicast(Strategy):
    """Every Interest to all next hops; there is no other way to try.

    What several ask under one name goes on to each next hop once, and again only after a time that doubles (NFD,
    ``retx-suppression-exponential``).
    """

    def after_interest(
        self,
        face: Face,
        entry: PitEntry,
        previous: InRecord | None,  # noqa: ARG002
        now_s: float,
        *,
        is_detour: bool,  # noqa: ARG002
    ) -> None:
        """Fan out to all but where it came from."""
        record = entry.in_records[face.face_id]
        for hop in entry.next_hops:
            upstream = self._do.faces[hop.face_id]
            if upstream is face or not _may_take(upstream, record):
                continue
            out, suppression_s = entry.out_records.get(hop.face_id), SUPPRESSION_S
            if out is not None and out.expiry_s > now_s:
                if now_s - out.sent_s < out.suppression_s:
                    self._do.counters["suppressed"] += 1
                    continue
                suppression_s = min(2.0 * out.suppression_s, SUPPRESSION_MAX_S)
            self._do.send_interest(entry, upstream, record, now_s)
            entry.out_records[hop.face_id].suppression_s = suppression_s

    def after_nack(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        """Somebody else may answer."""

    def after_face_down(self, entry: PitEntry, now_s: float) -> None:
        """Somebody else may answer."""

    def after_suspicion(self, entry: PitEntry, now_s: float) -> None:
        """Somebody else may answer."""


class BestRoute(Strategy):
    """The best ranked next hop; where it fails, the next one that does not lead round in a circle."""

    def after_interest(
        self, face: Face, entry: PitEntry, previous: InRecord | None, now_s: float, *, is_detour: bool
    ) -> None:
        """Forward a new Interest; aggregate into a pending one unless what is pending cannot serve this asker."""
        if not entry.out_records and entry.next_hops:  # nobody was asked yet, and the best way is nearly always there
            best, wanted = self._do.faces[entry.next_hops[0].face_id], entry.in_records[face.face_id]
            if best is not face and _may_take(best, wanted) and best.hold_down.until_s <= now_s and not best.is_suspect:
                self._do.send_interest(entry, best, wanted, now_s)
                return
        for face_id, out in list(entry.out_records.items()):
            if out.expiry_s <= now_s:
                # Upstream has forgotten us: as good as never asked. And a Nack tells nothing of what comes after it.
                del entry.out_records[face_id]
        pending = {face_id: record for face_id, record in entry.out_records.items() if record.nacked is None}
        if face.face_id in pending:
            # Upstream asks us back: it has lost its way to the producer, and would wait for us while we wait for it.
            pending.pop(face.face_id).refuse(NackReason.NO_ROUTE, until_s=now_s + NACK_HOLD_S)
            self._do.counters["crossed"] += 1
        if pending:
            upstream, last = max(pending.items(), key=lambda item: item[1].sent_s)
            wanted = entry.in_records[face.face_id]
            if is_detour:
                # Those we wait for may be waiting, around a circle, for this very Interest: send it after them. If it
                # comes round, its nonce gives it away, and whoever sees that tries another way.
                self._do.send_interest(entry, self._do.faces[upstream], wanted, now_s, is_detour=True)
                return
            if last.expiry_s - now_s < RENEWAL_RATIO * wanted.lifetime_s:
                # What is pending upstream expires long before this asker does: renew it, by the best way there is now.
                self._renew(face, entry, wanted, now_s)
                return
            refreshed = previous is None or previous.expiry_s - now_s < RENEWAL_RATIO * previous.lifetime_s
            if refreshed or now_s - last.sent_s < SUPPRESSION_S:
                self._do.counters["aggregated"] += 1
                return
        self._try_next_hop(entry, NackReason.NO_ROUTE, now_s, asker=face)

    def after_nack(self, entry: PitEntry, reason: NackReason, now_s: float) -> None:
        """Ask the next one, unless somebody else was asked who has not refused."""
        if all(record.nacked is not None for record in entry.out_records.values()):
            self._try_next_hop(entry, reason, now_s)

    def after_face_down(self, entry: PitEntry, now_s: float) -> None:
        """Ask the next one at once, without waiting for anybody to repeat himself."""
        if all(record.nacked is not None for record in entry.out_records.values()):
            self._do.counters["failovers"] += 1
            self._try_next_hop(entry, NackReason.NO_ROUTE, now_s)

    def after_suspicion(self, entry: PitEntry, now_s: float) -> None:
        """Ask the next one as well, if all who were asked are suspected; whoever answers first will do."""
        faces = self._do.faces
        if any(out.nacked is None and not faces[face_id].is_suspect for face_id, out in entry.out_records.items()):
            return
        for hop in entry.next_hops:
            upstream, record = faces[hop.face_id], _asking_record(entry, hop.face_id, None)
            if record is None or hop.face_id in entry.out_records or not _may_take(upstream, record):
                continue
            if not upstream.is_suspect and upstream.hold_down.until_s <= now_s:
                self._do.counters["suspicions"] += 1
                self._do.send_interest(entry, upstream, record.renewed(self._do.new_nonce()), now_s, is_detour=True)
                return

    def _renew(self, face: Face, entry: PitEntry, wanted: InRecord, now_s: float) -> None:
        faces = self._do.faces
        for hop in sorted(entry.next_hops, key=lambda hop: faces[hop.face_id].hold_down.until_s > now_s):
            out, upstream = entry.out_records.get(hop.face_id), faces[hop.face_id]
            if upstream is not face and _may_take(upstream, wanted) and (out is None or out.nacked is None):
                self._do.send_interest(entry, upstream, wanted, now_s)
                return

    def _try_next_hop(self, entry: PitEntry, reason: NackReason, now_s: float, asker: Face | None = None) -> None:
        """Ask the best next hop that was not asked yet, else the one asked longest ago; if there is none, say so.

        Where the better ways are dead and the best that is left leads back to who asks, say so too: the asker has a shorter
        way than we do, only it cannot know. If it asks again, it has none, and ours will do.

        A face that has only just come back, or is suspected, counts as dead, but is better than none.
        """
        best: tuple[float, int, Face, InRecord] | None = None
        last_resort: tuple[Face, InRecord] | None = None
        is_best_dead = False
        for rank, hop in enumerate(entry.next_hops):
            face = self._do.faces[hop.face_id]
            out = entry.out_records.get(hop.face_id)
            record = _asking_record(entry, hop.face_id, asker)
            is_refused = out is not None and out.nacked is not None
            is_held = face.hold_down.until_s > now_s or face.is_suspect
            if is_refused or is_held or not face.is_up:
                is_best_dead |= best is None
                if record is None or is_refused or not is_held or last_resort is not None:
                    continue
            elif record is None:
                if is_best_dead and best is None and self._turn_back_once(entry, now_s):
                    last_resort = None
                    break
                continue
            if not _may_take(face, record) or (out is not None and asker is None):
                continue
            if is_held:
                last_resort = face, record
                continue
            asked_s = -1.0 if out is None else out.sent_s
            if best is None or (asked_s, rank) < best[:2]:
                best = (asked_s, rank, face, record)
        chosen = best[2:] if best is not None else last_resort
        if chosen is None:
            self._do.reject(entry, reason, now_s)
            return
        upstream, record = chosen
        if asker is None or record is not entry.in_records.get(asker.face_id):
            # Not the Interest that has just arrived: routers that saw it come another way would take it for a loop.
            record = record.renewed(self._do.new_nonce())
        is_detour = upstream.face_id != entry.next_hops[0].face_id
        self._do.send_interest(entry, upstream, record, now_s, is_detour=is_detour)

    def _turn_back_once(self, entry: PitEntry, now_s: float) -> bool:
        """Tell whether this is the first time that a name is refused for a better way behind the asker."""
        name = entry.key[0]
        if self._do.dead_nonces.has(name, TURNED_BACK):
            return False
        self._do.dead_nonces.add(name, TURNED_BACK, now_s=now_s)
        self._do.counters["turned_back"] += 1
        return True


def _asking_record(entry: PitEntry, upstream: int, asker: Face | None) -> InRecord | None:
    """Return an in-record to ask *upstream* with: never upstream's own (it would only get its question back)."""
    if asker is not None and asker.face_id != upstream:
        return entry.in_records.get(asker.face_id)
    return next((record for face_id, record in entry.in_records.items() if face_id != upstream), None)


def make_strategies(pipelines: Pipelines) -> dict[StrategyName, Strategy]:
    """Return one of each kind, by the name that configuration uses."""
    return {"best-route": BestRoute(pipelines), "multicast": Multicast(pipelines)}
