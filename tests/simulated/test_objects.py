"""Objects and live streams in a simulated conference: each crosses a link once, outlives its publisher, and is checked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.build import forwarder_of
from proxy.core.events import CloseRequested, ObjectsScheduled, PacketReceived, PublishRequested
from proxy.core.objects.stream import START_DELAY_S
from proxy.records import ObjectFetched
from proxy.wire.lp import decode_link_packet
from proxy.wire.message_names import OBJECT_ROOT
from proxy.wire.messages import OBJECT_SEGMENT_BYTES, ObjectDescription, StreamFrame
from proxy.wire.packet import DATA, decode_data, encode_data
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError
from tests.simulated.conference import ABILENE, TIERS, Conference, impair_everywhere
from topologies.catalogue import build
from topologies.model import Topology

SIZE_BYTES = 200_000


def publish(conference: Conference, ue: str, *, size_bytes: int = SIZE_BYTES) -> None:
    conference.network.send(ue, ObjectsScheduled(((conference.now_s, size_bytes),)))


def stream(
    conference: Conference, ue: str, *, frames: int = 50, interval_s: float = 0.02, deadline_s: float = 0.1
) -> None:
    conference.network.send(ue, ObjectsScheduled(streams=((conference.now_s, frames, 160, interval_s, deadline_s),)))


def records(conference: Conference, kind: type[ObjectFetched]) -> list[ObjectFetched]:
    return [record for record in conference.network.records if isinstance(record, kind)]


def fetched(conference: Conference) -> dict[str, ObjectFetched]:
    return {record.receiver: record for record in records(conference, ObjectFetched)}


def sent_bytes(conference: Conference, message: str = "object-segment") -> Counter[tuple[str, str]]:
    """Return what each node sent to each neighbour of a type of message."""
    total: Counter[tuple[str, str]] = Counter()
    for process in conference.network.processes.values():
        forwarder = forwarder_of(process.core)
        for face in forwarder.faces.values() if forwarder is not None else ():
            total[process.config.node, face.peer] += face.sent.get(message, [0, 0])[1]
    return total


def test_twelve_receivers_cost_one_copy_a_link() -> None:
    conference = Conference(ABILENE)
    conference.join()
    publish(conference, "ue1", size_bytes=1_000_000)
    conference.run_for(3.0)
    outcomes = fetched(conference)
    assert set(outcomes) == set(conference.ues) - {"ue1"}
    assert {record.outcome for record in outcomes.values()} == {"complete"}
    assert {record.size_bytes for record in outcomes.values()} == {1_000_000}
    assert max(sent_bytes(conference).values()) <= 1.1 * 1_000_000
    assert sum(record.retransmissions for record in outcomes.values()) == 0
    conference.assert_invariants()


def test_an_object_is_served_by_stores_after_its_publisher_has_gone() -> None:
    """ue3 is cut off while the object is published, and comes back when ue1 has left and its link is down."""
    conference = Conference(TIERS)
    conference.join()
    conference.cut(["ue3"])
    conference.run_for(0.2)
    publish(conference, "ue1")
    conference.run_for(2.0)
    assert set(fetched(conference)) == set(conference.ues) - {"ue1", "ue3"}
    conference.close("ue1")
    conference.run_for(1.0)
    conference.cut(["ue1"])
    conference.run_for(1.0)
    before = sent_bytes(conference)
    conference.cut(["ue3"], up=True)
    conference.wait_for_agreement()
    conference.run_for(3.0)
    late = fetched(conference)["ue3"]
    assert (late.outcome, late.size_bytes) == ("complete", SIZE_BYTES)
    # ue4 of the same CSR has fetched it: all comes from there, one link away.
    assert late.bytes_by_hops == [(1, SIZE_BYTES)]
    moved = {link for link, size in (sent_bytes(conference) - before).items() if size}
    assert moved == {(conference.topology.proxy_of("ue3"), "ue3")}


def test_what_no_store_has_and_whose_publisher_is_gone_is_given_up() -> None:
    conference = Conference(TIERS, forwarder_settings={"cs_max_entries": 0})
    conference.join()
    conference.cut(["ue3"])
    conference.run_for(0.2)
    publish(conference, "ue1")
    conference.run_for(2.0)
    conference.close("ue1")
    conference.run_for(1.0)
    conference.cut(["ue1"])
    conference.cut(["ue3"], up=True)
    conference.run_for(60.0)
    late = fetched(conference)["ue3"]
    assert (late.outcome, late.size_bytes) == ("given-up", 0)
    assert conference.network.client("ue3").fetching == 0


def test_loss_on_every_link_delays_objects_and_loses_none() -> None:
    conference = Conference(TIERS)
    conference.join()
    impair_everywhere(conference, loss_ratio=0.05)
    publish(conference, "ue1")
    publish(conference, "ue8")
    conference.run_for(20.0)
    assert len(records(conference, ObjectFetched)) == 2 * (len(conference.ues) - 1)
    assert {record.outcome for record in records(conference, ObjectFetched)} == {"complete"}
    impair_everywhere(conference, loss_ratio=0.0)
    conference.assert_invariants()


def test_many_objects_at_once_are_fetched_in_turn() -> None:
    conference = Conference(TIERS)
    conference.join()
    for _ in range(12):
        publish(conference, "ue1", size_bytes=20_000)
    conference.run_for(0.06)
    assert max(conference.network.client(ue).fetching for ue in conference.ues) > 4
    conference.run_for(3.0)
    assert Counter(record.receiver for record in records(conference, ObjectFetched)) == {
        ue: 12 for ue in conference.ues if ue != "ue1"
    }


class Tampering:
    """Stands before the client of a UE, and alters the content of every Data of the data plane that comes to it."""

    def __init__(self, client: Any, change: Callable[[bytes], bytes]) -> None:
        self._client, self._change = client, change

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._client)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def handle(self, event: Any, *, now_s: float) -> list[Any]:
        if isinstance(event, PacketReceived):
            packet = decode_link_packet(event.packet)
            if packet.fragment[:1] == bytes((DATA,)):
                data = decode_data(packet.fragment)
                if data.name.startswith(OBJECT_ROOT):
                    event = PacketReceived(event.face_id, encode_data(data.name, self._change(data.content)))
        effects: list[Any] = self._client.handle(event, now_s=now_s)
        return effects


def with_other_sound(content: bytes) -> bytes:
    """Return a well-formed frame that says something else, under the genuine signature."""
    try:
        frame = decode(content, StreamFrame)
    except MalformedError:  # of an object
        return bytes(len(content))
    return encode(StreamFrame(bytes(len(frame.frame)), frame.signature))


def test_a_frame_that_its_publisher_has_not_signed_is_refused() -> None:
    conference = Conference(TIERS)
    conference.join()
    host: Any = conference.network.processes["ue3.forwarder"].core
    host.application = Tampering(host.application, with_other_sound)
    stream(conference, "ue1")
    conference.run_for(5.0)
    outcomes = fetched(conference)
    assert (outcomes["ue3"].segments, outcomes["ue3"].deadline_misses) == (0, 50)
    assert outcomes["ue4"].deadline_misses == 0
    counters = conference.network.counters("ue3.forwarder")
    assert counters["refused_frame_forged"] >= 50
    assert not counters.get("malformed")


@pytest.mark.parametrize("change", [lambda content: bytes(len(content)), lambda content: content[:-1], lambda _: b""])
def test_what_a_router_has_altered_is_not_believed(change: Callable[[bytes], bytes]) -> None:
    conference = Conference(TIERS)
    conference.join()
    host: Any = conference.network.processes["ue3.forwarder"].core
    host.application = Tampering(host.application, change)
    publish(conference, "ue1")
    stream(conference, "ue1")
    conference.run_for(60.0)
    for record in records(conference, ObjectFetched):
        if record.receiver == "ue3":
            assert (record.size_bytes, record.segments) == (0, 0)
        else:
            assert record.outcome == "complete"
            assert not record.deadline_misses
    assert Counter(record.receiver for record in records(conference, ObjectFetched))["ue3"] == 2, "neither goes on"
    counters = conference.network.counters("ue3.forwarder")
    assert counters["refused_object_forged"] > 1
    assert counters.get("refused_frame_forged", 0) + counters.get("malformed", 0) > 10


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("/hconf-data/ue2/main/seq=1/v=1", encode(ObjectDescription(100, OBJECT_SEGMENT_BYTES, (bytes(32),)))),
        ("/hconf-data/ue1/main/seq=1", encode(ObjectDescription(100, OBJECT_SEGMENT_BYTES, (bytes(32),)))),
        ("no name", encode(ObjectDescription(100, OBJECT_SEGMENT_BYTES, (bytes(32),)))),
        ("/hconf-data/ue1/main/seq=1/v=1", b"no description"),
        ("/hconf-data/ue1/main/seq=1/v=1", encode(ObjectDescription(10**7, OBJECT_SEGMENT_BYTES, (bytes(32),)))),
        ("/hconf-data/ue1/main/seq=1/v=1", encode(ObjectDescription(10**7, 100, (), interval_s=0.01))),
    ],
)
def test_an_announcement_that_makes_no_sense_is_counted_and_nothing_is_fetched(name: str, body: bytes) -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.network.send("ue1", PublishRequested("object", body, name))
    conference.run_for(2.0)
    assert conference.network.client("ue3").fetching == 0
    assert conference.network.counters("ue3.forwarder")["malformed"] == 1
    assert not sent_bytes(conference, "object-interest").total()
    conference.wait_for_agreement()


def test_an_update_with_event_object_and_no_name_is_an_update_like_any_other() -> None:
    conference = Conference(TIERS)
    conference.join()
    conference.network.send("ue1", PublishRequested("object", b"body"))
    conference.run_for(1.0)
    assert not sent_bytes(conference, "object-interest").total()
    conference.assert_invariants()


def test_a_live_stream_takes_one_path_delay_a_frame_and_one_copy_a_link() -> None:
    conference = Conference(ABILENE)
    conference.join()
    stream(conference, "ue1", frames=100)
    conference.run_for(START_DELAY_S + 2.5)
    outcomes = fetched(conference)
    assert set(outcomes) == set(conference.ues) - {"ue1"}
    assert {(r.outcome, r.segments, r.deadline_misses, r.retransmissions) for r in outcomes.values()} == {
        ("complete", 100, 0, 0)
    }
    assert max(sent_bytes(conference, "object-interest").values()) < 100 * 80, "one Interest a frame and link"
    frame_bytes = sent_bytes(conference)["ue1", conference.topology.proxy_of("ue1")]
    assert max(sent_bytes(conference).values()) < 1.01 * frame_bytes, "the first packets of a link ask for acks"


def test_frames_lost_on_the_way_are_asked_for_again_or_missed() -> None:
    conference = Conference(TIERS)
    conference.join()
    access = [link.name for link in conference.topology.links if "ue3" in (link.a, link.b)]
    impair_everywhere(conference, access, loss_ratio=0.2)
    stream(conference, "ue1", frames=200, deadline_s=0.3)
    conference.run_for(START_DELAY_S + 6.0)
    outcome = fetched(conference)["ue3"]
    assert outcome.segments_asked == 200
    assert outcome.retransmissions >= 1, "what link reliability does not repeat in time"
    assert outcome.segments > 190
    assert outcome.deadline_misses is not None
    assert outcome.deadline_misses >= 200 - outcome.segments
    assert fetched(conference)["ue4"].deadline_misses == 0


def test_who_leaves_in_the_middle_fetches_nothing_any_more() -> None:
    conference = Conference(TIERS)
    conference.join()
    stream(conference, "ue1", frames=500)
    conference.run_for(2.0)
    conference.network.send("ue3", CloseRequested())
    conference.run_for(1.0)
    record = fetched(conference)["ue3"]
    assert record.outcome == "left"
    assert 0 < record.segments < 500
    assert conference.network.client("ue3").fetching == 0


def slow_tiers(rate_mbps: float) -> Topology:
    """Return TIERS with access links of this rate."""
    topology = build(*TIERS)
    links = [
        dataclasses.replace(link, properties=dataclasses.replace(link.properties, rate_mbps=rate_mbps))
        if link.tier == "access"
        else link
        for link in topology.links
    ]
    return dataclasses.replace(topology, links=tuple(links))


def test_media_on_a_slow_link_does_not_hold_up_updates() -> None:
    """4 Mbit/s and an object of 1 MB: two seconds of it. What is published meanwhile waits for a segment or two at most."""
    limited = Conference(slow_tiers(4.0))
    limited.join()
    publish(limited, "ue1", size_bytes=1_000_000)
    begun_s = limited.now_s
    for _ in range(20):
        limited.publish("ue1")
        limited.publish("ue4")
        limited.run_for(0.1)
    deliveries = limited.deliveries(since_s=begun_s)
    assert len(deliveries) == (2 * 20 + 1) * (len(limited.ues) - 1)
    segment_ms = (OBJECT_SEGMENT_BYTES + 400) * 8 / 4e6 * 1e3
    assert max(each.latency_ms - each.path_delay_ms for each in deliveries) < 2 * segment_ms + 10
    limited.run_for(3.0)
    assert {record.outcome for record in records(limited, ObjectFetched)} == {"complete"}
