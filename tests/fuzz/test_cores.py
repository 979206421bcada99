"""No datagram whatever brings a core down: it is handled, or counted as malformed; and the core lives on.

Each example takes a core to the middle of a recorded conference, throws packets at it, lets its timers fire and goes on with
what it really received.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.events import Core, PacketReceived
from proxy.core.forwarder import Forwarder
from proxy.core.fragmentation import PARTIAL_MAX_BYTES
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.packet import decode_data, decode_interest, peek_interest
from proxy.wire.tlv import MalformedError
from tests.fuzz.corpus import TARGETS, live_on, mutations, recordings, well_formed_packets

EXAMPLES = 60

targets = pytest.mark.parametrize("target", TARGETS)


def faces(core: Core) -> list[int]:
    return list(core.faces) if isinstance(core, Forwarder) else [0]


def throw(target: str, packets: list[bytes], face: int) -> Core:
    recording = recordings()[target]
    core, now_s = recording.core_in_the_middle()
    at_faces = faces(core)
    for packet in packets:
        core.handle(PacketReceived(at_faces[face % len(at_faces)], packet), now_s=now_s)
    live_on(core, now_s)
    for later_s, event in recording.events[recording.middle : recording.middle + 30]:
        core.handle(event, now_s=max(now_s, later_s))
    return core


@targets
@settings(max_examples=EXAMPLES)
@given(packets=st.lists(st.binary(max_size=100), min_size=1, max_size=4), face=st.integers(0, 5))
def test_arbitrary_datagrams(target: str, packets: list[bytes], face: int) -> None:
    throw(target, packets, face)


@targets
@settings(max_examples=EXAMPLES)
@given(draw=st.data(), face=st.integers(0, 5))
def test_damaged_packets(target: str, draw: st.DataObject, face: int) -> None:
    throw(target, draw.draw(st.lists(mutations(recordings()[target].packets), min_size=1, max_size=4)), face)


@targets
@settings(max_examples=EXAMPLES)
@given(draw=st.data(), face=st.integers(0, 5))
def test_well_formed_packets_that_say_anything(target: str, draw: st.DataObject, face: int) -> None:
    to = TARGETS[target][0].partition(".")[0]
    throw(target, draw.draw(st.lists(well_formed_packets(to), min_size=1, max_size=6)), face)


#: Few sequence numbers, so that some of them belong together.
fragments = st.builds(
    lambda content, sequence, index, more, flags: encode_link_packet(
        LinkPacket(
            content,
            sequence=sequence,
            frag_index=index,
            frag_count=index + more,
            nack_reason=50 if flags & 1 else None,
            tx_sequence=sequence if flags & 2 else None,
            acks=(sequence,) if flags & 4 else (),
        )
    ),
    content=st.sampled_from([b"\x05", b"\x06\x00", b"\x07\x03\x08\x01a", bytes(5_000)])
    | st.binary(min_size=1, max_size=40),
    sequence=st.integers(0, 6) | st.integers(0, 2**64 - 1),
    index=st.integers(0, 3),
    more=st.integers(0, 3),
    flags=st.integers(0, 7),
)


@targets
@settings(max_examples=EXAMPLES)
@given(packets=st.lists(fragments, min_size=1, max_size=12), face=st.integers(0, 5))
def test_fragments_of_anything(target: str, packets: list[bytes], face: int) -> None:
    core = throw(target, packets, face)
    if isinstance(core, Forwarder):
        assert core.counters_now()["reassembly_bytes"] <= PARTIAL_MAX_BYTES


@targets
@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_what_does_not_decode_is_counted(target: str, draw: st.DataObject) -> None:
    recording = recordings()[target]
    packet = draw.draw(mutations(recording.packets))
    core, now_s = recording.core_in_the_middle()
    before = core.counters.get("malformed", 0) + core.counters.get("unsolicited", 0)
    core.handle(PacketReceived(0, packet), now_s=now_s)
    if not decodes(packet, in_forwarder=isinstance(core, Forwarder)):
        assert core.counters.get("malformed", 0) + core.counters.get("unsolicited", 0) == before + 1


def decodes(packet: bytes, *, in_forwarder: bool) -> bool:
    try:
        fragment = decode_link_packet(packet).fragment
        if not fragment:
            return True
        if fragment[0] == 5:
            (peek_interest if in_forwarder else decode_interest)(fragment)
        else:
            decode_data(fragment)
    except MalformedError:
        return False
    return True
