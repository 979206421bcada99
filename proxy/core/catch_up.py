"""A service proxy towards whoever is behind, be it a client or another proxy: the suffix, or else a snapshot."""

from __future__ import annotations

from typing import Final

from proxy.core.conference import Conference
from proxy.core.outbox import Outbox
from proxy.core.packing import cut, lacking_first
from proxy.wire.message_names import MessageName
from proxy.wire.messages import PAYLOAD_MAX_BYTES, REPLY_MAX_BYTES, Position, RecoveryReply, SnapshotManifest
from proxy.wire.packet import Interest
from proxy.wire.payload import encoded_size_bytes
from proxy.wire.tlv import MalformedError

#: What a reply holds beside what is missing and the proxy's state.
REPLY_OVERHEAD_BYTES: Final = 100
#: Segments never change, so stores may keep them as long as they like.
SEGMENT_FRESHNESS_MS: Final = 600_000


class CatchUp:
    """One per service proxy."""

    def __init__(self, out: Outbox, conferences: dict[str, Conference]) -> None:
        self._out, self._conferences = out, conferences

    def missed(
        self, conference: Conference, known: tuple[Position, ...] | None, *, is_partial: bool = False
    ) -> RecoveryReply:
        """Return what comes after *known*, in a reply that fits into a packet; None stands for nothing at all.

        *is_partial*: of streams that *known* does not name, nothing is asked for.
        """
        log = conference.log
        vector = log.vector()
        if is_partial:  # of the others the asker has not said how far it is
            named = {(proxy, boot) for proxy, boot, _ in known or ()}
            vector = tuple(position for position in vector if position[:2] in named)
        missing = RecoveryReply((), None, ())
        entries = None if known is None else log.suffix(known, named_only=is_partial)
        if entries is not None:
            missing = RecoveryReply((), None, tuple(entries))
        elif (manifest := conference.frozen.reusable(log, now_s=self._out.now_s)) is not None:
            self._out.counters["snapshots_shared"] += 1
            missing = RecoveryReply((), None, (), manifest)
        else:
            snapshot = log.snapshot()
            if encoded_size_bytes(snapshot) <= PAYLOAD_MAX_BYTES:
                missing = RecoveryReply((), snapshot, ())
            else:
                missing = RecoveryReply((), None, (), self._freeze(conference))
        room_bytes = REPLY_MAX_BYTES - REPLY_OVERHEAD_BYTES - encoded_size_bytes(missing)
        current = cut(lacking_first(vector, known or ()), room_bytes)
        return RecoveryReply(current, missing.snapshot, missing.entries, missing.manifest)

    def _freeze(self, conference: Conference) -> SnapshotManifest | None:
        manifest = conference.frozen.freeze(conference.log, boot=self._out.boot, now_s=self._out.now_s)
        self._out.counters["snapshots_too_large" if manifest is None else "snapshots_frozen"] += 1
        return manifest

    def on_snapshot_interest(self, interest: Interest, name: MessageName) -> None:
        """Somebody fetches a frozen snapshot. An empty answer says that it is forgotten. Raises: MalformedError."""
        if len(name.parts) != 2:
            raise MalformedError("segment of a snapshot without conference and digest")
        conference_name, digest = name.parts
        conference = self._conferences.get(conference_name)
        segment = b""
        if conference is not None and name.boot == self._out.boot:
            segment = conference.frozen.segment(digest, name.seq, now_s=self._out.now_s)
        self._out.counters["segments_sent" if segment else "segments_gone"] += 1
        # Without a freshness period no store keeps it: the same snapshot may be frozen again.
        self._out.send_data(interest.name, segment, freshness_ms=SEGMENT_FRESHNESS_MS if segment else 0)
