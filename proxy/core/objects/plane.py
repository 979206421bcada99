"""The data plane of one UE: gives out what it has published, fetches what others announce. Joined from its parts."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.core.client_outbox import ClientOutbox
from proxy.core.events import LOCAL_FACE, Send
from proxy.core.objects.fetch import ObjectFetch, is_consistent
from proxy.core.objects.shelf import Shelf
from proxy.core.objects.stream import FRAME_FRESHNESS_MS, StreamFetch, StreamSource, frame_content
from proxy.core.signing import Verifier
from proxy.core.trust import Refusal
from proxy.records import ObjectFetched, ObjectOutcome, ObjectPublished
from proxy.wire.lp import NackReason
from proxy.wire.messages import FpUpdate, ObjectDescription, StreamFrame
from proxy.wire.name import from_uri, to_uri
from proxy.wire.objects import ObjectName, data_prefix, object_name, parse_object_name, segment_name
from proxy.wire.packet import Data, Interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: FP updates with this event and an object's name announce it.
OBJECT_EVENT: Final = "object"
#: Objects that are fetched at a time; others wait.
FETCHES_MAX: Final = 4
#: Objects announced and not yet fetched; what is announced beyond that is left alone.
WAITING_MAX: Final = 1_000
#: Live streams that are received, or published, at a time.
STREAMS_MAX: Final = 64
#: An object of which nothing came for so long does not get on; it is still asked for, until it is given up.
STALLED_S: Final = 5.0
#: An Interest for a segment stays pending for so long; it is repeated before.
SEGMENT_LIFETIME_MS: Final = 4_000

#: What a device is to fetch or receive: an FP update of which publisher and boot
VerifierOf = Callable[[str, int], Verifier | None]


class ObjectPlane:
    """One per service client, whose *out* it sends through. *verifier_of*: (device, boot) -> its key."""

    def __init__(self, out: ClientOutbox, verifier_of: VerifierOf) -> None:
        self._out, self._verifier_of = out, verifier_of
        self._shelf = Shelf()
        self._published = 0
        self._sources: dict[bytes, StreamSource] = {}
        self._fetches: dict[bytes, ObjectFetch] = {}
        self._streams: dict[bytes, tuple[StreamFetch, Verifier]] = {}
        self._waiting: deque[tuple[bytes, ObjectDescription]] = deque()

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        wishes = [fetch.next_s for fetch in self._fetches.values()]
        wishes += [source.next_s for source in self._sources.values()]
        wishes += [stream.next_s for stream, _ in self._streams.values()]
        return min((at for at in wishes if at is not None), default=None)

    @property
    def fetching(self) -> int:
        """How many objects and streams are not all there yet, without those that do not get on."""
        since_s = self._out.now_s - STALLED_S
        moving = sum(fetch.progress_s > since_s for fetch in self._fetches.values())
        return moving + (len(self._waiting) if moving else 0) + len(self._streams)

    # ------------------------------------------------------------------ publishing

    def publish(self, size_bytes: int) -> tuple[str, bytes]:
        """Make an object of so many bytes; return its name and what to announce (the body of the FP update)."""
        name = self._new_name()
        description = self._shelf.put(name, hashlib.shake_128(name).digest(size_bytes))
        return self._announced(name, description)

    def publish_stream(
        self, *, frames: int, frame_bytes: int, interval_s: float, deadline_s: float
    ) -> tuple[str, bytes]:
        """Begin a live stream; return its name and what to announce, which must be published now."""
        now_s = self._out.now_s
        for old in [name for name, source in self._sources.items() if source.end_s < now_s]:
            del self._sources[old]
        name = self._new_name()
        description = ObjectDescription(frames * frame_bytes, frame_bytes, (), interval_s, deadline_s)
        if len(self._sources) < STREAMS_MAX:
            self._sources[name] = StreamSource(description, announced_s=now_s)
        return self._announced(name, description)

    def _new_name(self) -> bytes:
        self._published += 1
        return object_name(self._out.device, self._out.conference, boot=self._out.boot, seq=self._published)

    def _announced(self, name: bytes, description: ObjectDescription) -> tuple[str, bytes]:
        out, uri = self._out, to_uri(name)
        out.log(
            ObjectPublished(
                out.now_s, out.conference, out.device, uri, description.size_bytes, description.segments,
                description.is_stream,
            )
        )  # fmt: skip
        return uri, encode(description)

    def on_interest(self, interest: Interest) -> None:
        """Somebody asks for a segment of ours, or for a frame. Raises: MalformedError."""
        asked = parse_object_name(interest.name)
        source = self._sources.get(asked.object_name)
        if source is not None and not asked.is_manifest:
            source.ask(asked.segment, self._out.now_s)
            self._give_out(asked.object_name, source)
            return
        data = self._shelf.data(asked, interest.name)
        if data is None:
            self._out.counters["objects_not_here"] += 1
        else:
            self._out.counters["object_segments_sent"] += 1
            self._out.effects.append(Send(LOCAL_FACE, data))

    def _give_out(self, name: bytes, source: StreamSource) -> None:
        for index in source.made(self._out.now_s):
            frame_name = segment_name(name, index)
            frame = frame_content(name, source.description, index)
            content = encode(StreamFrame(frame, self._out.signer.sign(_frame_statement(frame_name, frame))))
            self._out.counters["object_frames_sent"] += 1
            self._out.effects.append(
                Send(LOCAL_FACE, encode_data(frame_name, content, freshness_ms=FRAME_FRESHNESS_MS))
            )

    # ------------------------------------------------------------------ fetching

    def on_update(self, update: FpUpdate) -> None:
        """Another device has published something: fetch it if it is an object. What is wrong with it is counted."""
        if update.event != OBJECT_EVENT or not update.object_name:
            return
        out = self._out
        try:
            name = from_uri(update.object_name)
            own_prefix = data_prefix(update.device)
            if not name.startswith(own_prefix) or parse_object_name(segment_name(name, 0)).object_name != name:
                raise MalformedError("name of something else")
            description = decode(update.body, ObjectDescription)
        except ValueError:  # MalformedError is one
            out.counters["malformed"] += 1
            return
        if not is_consistent(description):
            out.counters["malformed"] += 1
        elif name in self._fetches or name in self._streams or any(name == each for each, _ in self._waiting):
            out.counters["objects_announced_twice"] += 1
        elif description.is_stream:
            self._receive(name, description, update)
        elif len(self._waiting) >= WAITING_MAX:
            out.counters["objects_left_alone"] += 1
        else:
            self._waiting.append((name, description))
            self._fetch()

    def _receive(self, name: bytes, description: ObjectDescription, update: FpUpdate) -> None:
        verifier = self._verifier_of(update.device, update.boot)
        if verifier is None or len(self._streams) >= STREAMS_MAX:
            self._out.counters["objects_left_alone"] += 1
            return
        stream = StreamFetch(name, description, announced_s=update.published_s, now_s=self._out.now_s)
        self._streams[name] = (stream, verifier)
        self._follow(name, stream)

    def on_data(self, data: Data, hop_count: int | None) -> None:
        """A segment has come, or a frame. Raises: Refusal, MalformedError where it is of no use."""
        asked = parse_object_name(data.name)
        if (streamed := self._streams.get(asked.object_name)) is not None:
            self._on_frame(*streamed, asked, data, hop_count)
            return
        fetch = self._fetches.get(asked.object_name)
        if fetch is None:
            self._out.counters["unsolicited"] += 1
            return
        try:
            fetch.on_data(asked.segment, data.content, hop_count, self._out.now_s, is_manifest=asked.is_manifest)
        finally:
            self._fetch()

    def _on_frame(
        self, stream: StreamFetch, verifier: Verifier, asked: ObjectName, data: Data, hop_count: int | None
    ) -> None:
        if not stream.is_asked(asked.segment) or asked.is_manifest:
            self._out.counters["unsolicited"] += 1
            return
        content = decode(data.content, StreamFrame)
        if not verifier.is_valid(content.signature, _frame_statement(data.name, content.frame)):
            raise Refusal("frame_forged")
        stream.on_frame(asked.segment, len(content.frame), hop_count, self._out.now_s)
        self._follow(stream.name, stream)

    def on_nack(self, interest: Interest, reason: int) -> None:
        """The network cannot deliver. Raises: MalformedError."""
        asked = parse_object_name(interest.name)
        now_s = self._out.now_s
        if (streamed := self._streams.get(asked.object_name)) is not None:
            streamed[0].on_refused(asked.segment, now_s)
        elif (fetch := self._fetches.get(asked.object_name)) is not None:
            is_congestion = reason == NackReason.CONGESTION
            fetch.on_refused(asked.segment, now_s, is_manifest=asked.is_manifest, is_congestion=is_congestion)
            self._fetch()

    def on_timer(self) -> None:
        """Do what is due."""
        now_s = self._out.now_s
        for name, source in list(self._sources.items()):
            if source.next_s is not None and source.next_s <= now_s:
                self._give_out(name, source)
        for name, (stream, _) in list(self._streams.items()):
            self._follow(name, stream)
        self._fetch()

    def stop(self) -> None:
        """We leave: fetch nothing any more. What we have published is given out as long as we are there."""
        for fetch in list(self._fetches.values()):
            self._end(fetch, "left")
        for stream, _ in list(self._streams.values()):
            self._end(stream, "left")
        self._waiting.clear()

    def _fetch(self) -> None:
        """Ask for what the windows of all fetches admit; begin with others where there is room."""
        for fetch in list(self._fetches.values()):
            self._pull(fetch)
        while self._waiting and len(self._fetches) < FETCHES_MAX:
            name, description = self._waiting.popleft()
            fetch = self._fetches[name] = ObjectFetch(name, description, now_s=self._out.now_s)
            self._pull(fetch)

    def _pull(self, fetch: ObjectFetch) -> None:
        if fetch.is_complete:
            self._end(fetch, "complete")
            return
        names = fetch.due(self._out.now_s)
        if names is None:
            self._end(fetch, "given-up")
            return
        for name in names:
            self._ask(name)

    def _follow(self, name: bytes, stream: StreamFetch) -> None:
        for index in stream.due(self._out.now_s):
            self._ask(segment_name(name, index))
        if stream.is_complete:
            self._end(stream, "complete")

    def _ask(self, name: bytes) -> None:
        _, packet = encode_interest(name, nonce=self._out.chance.nonce(), lifetime_ms=SEGMENT_LIFETIME_MS)
        self._out.effects.append(Send(LOCAL_FACE, packet))

    def _end(self, fetch: ObjectFetch | StreamFetch, outcome: ObjectOutcome) -> None:
        if isinstance(fetch, StreamFetch):
            del self._streams[fetch.name]
            misses: int | None = fetch.misses
        else:
            del self._fetches[fetch.name]
            misses = None
        out = self._out
        out.log(
            ObjectFetched(
                out.now_s, out.conference, out.device, to_uri(fetch.name), fetch.begun_s, fetch.size_bytes,
                fetch.segments, fetch.segments_asked, fetch.retransmissions, sorted(fetch.bytes_by_hops.items()),
                outcome, misses,
            )
        )  # fmt: skip


def _frame_statement(name: bytes, frame: bytes) -> bytes:
    return b"hconf frame\0" + len(name).to_bytes(4, "big") + name + frame
