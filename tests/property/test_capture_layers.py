"""Whatever our encoders write, or anybody else: octets become layers and the same octets again; edits keep lengths right."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.packet import Packet, Raw

from proxy.wire import message_names, messages, objects
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet
from proxy.wire.name import component, from_uri, number, to_uri
from proxy.wire.packet import decode_data, decode_interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import elements, tlv
from testbed.capture.layers import MESSAGE_LAYERS, Data, Interest, LpPacket, Name, NdnPacket, Nonce
from testbed.capture.layers.link import SessionState
from testbed.capture.layers.ndn import Component, InterestLifetime, MetaInfo, SignatureInfo
from testbed.capture.layers.tlv import Element, NumberValue
from tests.fuzz.corpus import (
    CONTENTS,
    ENCODED,
    MESSAGES,
    PARAMETERS,
    message_values,
    mutations,
    recordings,
    well_formed_packets,
)

BIG = st.integers(0, 2**64 - 1)
NAMES = st.lists(
    st.tuples(st.sampled_from([8, 8, 32, 50, 54, 58, 60, 300]), st.binary(max_size=40))
    | st.tuples(st.sampled_from([1, 2]), st.binary(min_size=32, max_size=32)),
    min_size=1,
    max_size=6,
).map(lambda parts: b"".join(component(value, kind) for kind, value in parts))
LINK_PACKETS = st.builds(
    LinkPacket,
    fragment=st.just(b"") | st.binary(min_size=1, max_size=300),
    nack_reason=st.none() | st.sampled_from(list(NackReason)).map(int),
    session_state=st.none() | st.integers(0, 3),
    is_detour=st.booleans(),
    sequence=st.none() | BIG,
    tx_sequence=st.none() | BIG,
    acks=st.lists(BIG, max_size=16).map(tuple),
    gaps_seen=st.none() | BIG,
    sent_count=st.none() | BIG,
    is_poll=st.booleans(),
    is_lossy_path=st.booleans(),
    hop_count=st.none() | BIG,
    min_tx_ms=st.none() | BIG,
)
RECORDED = [packet for recording in recordings().values() for packet in recording.packets]


def unknown_in(packet: Packet) -> list[Packet]:
    """Return what has not been understood: elements without a layer of their own, and octets."""
    found: list[Packet] = []
    if type(packet) in (Element, Raw):
        found.append(packet)
    for field in packet.packetfields:
        value = packet.getfieldval(field.name)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Packet):
                found += unknown_in(inner)
    return found


@given(LINK_PACKETS)
def test_every_header_field_of_a_link_packet_has_a_layer_and_round_trips(packet: LinkPacket) -> None:
    wire = encode_link_packet(packet)
    layers: Packet = NdnPacket(wire)
    assert type(layers) is LpPacket
    assert bytes(layers) == wire
    assert [octets.load for octets in unknown_in(layers)] == ([packet.fragment] if packet.fragment else [])
    values = {type(element).__name__: element.value for element in layers.value}
    assert values.get("Sequence") == packet.sequence
    assert values.get("TxSequence") == packet.tx_sequence
    assert tuple(e.value for e in layers.value if type(e).__name__ == "Ack") == packet.acks
    assert values.get("SessionState") == packet.session_state
    assert values.get("SentCount") == packet.sent_count
    assert values.get("GapsSeen") == packet.gaps_seen
    assert values.get("HopCount") == packet.hop_count
    assert ("Poll" in values, "Detour" in values) == (packet.is_poll, packet.is_detour)
    assert ("LossyPath" in values) == packet.is_lossy_path
    reason = layers.getlayer("NackReason")
    assert (None if reason is None else reason.value) == packet.nack_reason


@given(NAMES, st.integers(0, 2**32 - 1), BIG, st.none() | st.binary(max_size=300))
def test_interests_of_ours_round_trip(name: bytes, nonce: int, lifetime_ms: int, parameters: bytes | None) -> None:
    full_name, wire = encode_interest(name, nonce=nonce, lifetime_ms=lifetime_ms, parameters=parameters)
    layers = NdnPacket(wire)
    assert bytes(layers) == wire
    assert layers[Name].uri == to_uri(full_name)
    assert layers["Nonce"].value == nonce
    assert layers["InterestLifetime"].value == lifetime_ms
    if parameters is not None:
        assert bytes(layers["ApplicationParameters"].value) == parameters


@given(NAMES, st.binary(max_size=300), BIG)
def test_data_of_ours_round_trips(name: bytes, content: bytes, freshness_ms: int) -> None:
    wire = encode_data(name, content, freshness_ms=freshness_ms)
    layers = NdnPacket(wire)
    assert bytes(layers) == wire
    assert layers[Name].uri == to_uri(name)
    assert bytes(layers["Content"].value) == content
    assert layers["SignatureType"].value == 0
    layers["SignatureValue"].value = None  # to be computed
    assert bytes(layers) == wire


def every_layer_in(layer: type[Element]) -> set[type[Element]]:
    inside = {layer}
    for child in {*layer.children.values(), *([layer.other_children] if layer.other_children else [])}:
        inside |= every_layer_in(child) if child is not layer else set()
    return inside


@pytest.mark.parametrize("packet", [Interest, Data, LpPacket])
def test_every_element_inside_a_packet_round_trips_with_any_value(packet: type[Element]) -> None:
    layers = sorted(every_layer_in(packet), key=lambda layer: layer.__name__)
    assert len(layers) > 10

    @settings(max_examples=30 * len(layers))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        layer = data.draw(st.sampled_from(layers))
        field = next(field for field in layer.fields_desc if field.name == "value")
        if isinstance(field, NumberValue):
            value: Any = data.draw(st.integers(0, 2 ** (8 * (field.octets or 8)) - 1))
        elif field.islist:
            value = [kind() for kind in data.draw(st.lists(st.sampled_from(list(layer.children.values())), max_size=4))]
        else:
            value = data.draw(st.binary(max_size=300))
        built = layer(value=value)
        read = layer(bytes(built))
        assert bytes(read) == bytes(built)
        (kind, start, end) = next(elements(bytes(built), 0, len(bytes(built))))
        assert (kind, end) == (built.type, len(bytes(built)))
        if isinstance(field, NumberValue):
            assert read.value == value
            assert int.from_bytes(bytes(built)[start:end], "big") == value
        elif field.islist:
            assert [type(element) for element in read.value] == [type(element) for element in value]
        else:
            assert bytes(read.value) == value

    check()


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_has_a_layer_with_its_fields_and_round_trips(kind: type[msgspec.Struct]) -> None:
    @settings(max_examples=40)
    @given(message_values(kind))
    def check(message: msgspec.Struct) -> None:
        wire = encode(message)
        layer = MESSAGE_LAYERS[kind.__name__](wire)
        assert bytes(layer) == wire
        for name in kind.__struct_fields__:
            said, shown = getattr(message, name), layer.getfieldval(name)
            if isinstance(said, int | str | float) or said is None:
                assert shown == said or said != said  # noqa: PLR0124 - not a number
            elif isinstance(said, bytes):
                assert bytes(shown) == said
            elif isinstance(said, msgspec.Struct):
                assert bytes(shown) == encode(said)

    check()


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_message_made_by_hand_is_one_that_nodes_take(kind: type[msgspec.Struct]) -> None:
    layer = MESSAGE_LAYERS[kind.__name__]()
    assert layer.copy() == layer
    assert encode(decode(bytes(layer), kind)) == bytes(layer)


@given(st.sampled_from(RECORDED))
def test_what_nodes_really_send_is_understood_to_the_last_field(wire: bytes) -> None:
    layers = NdnPacket(wire)
    assert bytes(layers) == wire
    assert layers.payload.name == "NoPayload"
    for octets in unknown_in(layers):  # some messages have none but an empty answer
        assert octets.load == b""


@settings(max_examples=300)
@given(st.sampled_from(["csr1", "ue1"]).flatmap(well_formed_packets) | mutations(RECORDED) | st.binary(max_size=60))
def test_any_octets_come_back_as_they_were(wire: bytes) -> None:
    layers = NdnPacket(wire)
    assert bytes(layers) == wire
    assert bytes(layers.copy()) == wire
    layers.show(dump=True)


@given(st.sampled_from(RECORDED), st.binary(max_size=400))
def test_an_edit_deep_inside_changes_all_lengths_above_it(wire: bytes, octets: bytes) -> None:
    layers = NdnPacket(wire)
    names = [part for part in (layers.getlayer(Component, nb=nb) for nb in range(1, 4)) if part is not None]
    if not names:
        return  # an IDLE packet
    names[-1].value = octets
    edited = bytes(layers)
    assert len(list(elements(edited, 0, len(edited)))) == 1
    fragment = decode_link_packet(edited).fragment
    assert len(list(elements(fragment, 0, len(fragment)))) == 1
    assert octets in edited
    again = NdnPacket(edited)
    assert bytes(again) == edited
    edited_component = again.getlayer(Component, nb=len(names))
    assert edited_component is not None
    assert edited_component.value == octets


def test_an_edited_message_is_read_by_nodes_with_digests_computed_anew() -> None:
    update = messages.FpUpdate("main", "ue1", 1, 7, "message", "", b"", 0.5, bytes(16), bytes(16), b"hello")
    signed = encode(messages.SignedUpdate(encode(update), bytes(64)))
    name = message_names.message_name(
        message_names.node_prefix("csr1"), message_names.UPDATE, "main", "ue1", boot=1, seq=7
    )
    layers = NdnPacket(encode_link_packet(LinkPacket(encode_interest(name, nonce=1, parameters=signed)[1], sequence=3)))
    layers["FpUpdate"].body = b"good-bye" * 100
    layers["ParametersSha256DigestComponent"].value = None
    interest = decode_interest(decode_link_packet(bytes(layers)).fragment)  # checks the digest
    read = decode(decode(interest.parameters, messages.SignedUpdate).update, messages.FpUpdate)
    assert read == msgspec.structs.replace(update, body=b"good-bye" * 100)


def test_packets_made_by_hand_are_read_by_nodes() -> None:
    interest = Interest(value=[Name.from_uri("/a/32=sync/seq=7"), InterestLifetime(value=70_000)])
    interest.value.insert(1, Nonce(value=1))
    read = decode_interest(bytes(interest))
    assert (read.name, read.lifetime_ms, read.nonce) == (from_uri("/a/32=sync/seq=7"), 70_000, 1)
    layers = LpPacket(value=[SessionState(value=3)])
    assert decode_link_packet(bytes(layers)) == LinkPacket(b"", session_state=3)


def test_a_number_that_is_longer_than_it_needs_to_be_stays_so_and_an_edit_grows_it() -> None:
    wire = tlv(0x0C, (4_000).to_bytes(8, "big"))
    layer = InterestLifetime(wire)
    assert (layer.value, bytes(layer)) == (4_000, wire)
    narrow = InterestLifetime(tlv(0x0C, b"\x00\x01"))
    narrow.value = 2**40
    assert bytes(narrow) == tlv(0x0C, (2**40).to_bytes(8, "big"))


def test_a_length_set_by_hand_is_written_as_it_is() -> None:
    """So that wrong packets can be made, too."""
    layer = Component(value=b"abc", length=9)
    assert bytes(layer) == b"\x08\x09abc"
    assert number(3, 58) == bytes(Name.from_uri("/seq=3").value[0])
    assert decode_data(bytes(NdnPacket(encode_data(component("a"), b"c")))).content == b"c"


# Transcribed from "TLV-TYPE number assignments" of the NDN Packet Format, NDN-0022, and the tables of NDNLPv2.
INSIDE: dict[type[Element], dict[int, str]] = {
    Interest: {
        0x07: "Name", 0x21: "CanBePrefix", 0x12: "MustBeFresh", 0x1E: "ForwardingHint", 0x0A: "Nonce",
        0x0C: "InterestLifetime", 0x22: "HopLimit", 0x24: "ApplicationParameters", 0x2C: "InterestSignatureInfo",
        0x2E: "InterestSignatureValue",
    },
    Data: {0x07: "Name", 0x14: "MetaInfo", 0x15: "Content", 0x16: "SignatureInfo", 0x17: "SignatureValue"},
    MetaInfo: {0x18: "ContentType", 0x19: "FreshnessPeriod", 0x1A: "FinalBlockId"},
    SignatureInfo: {
        0x1B: "SignatureType", 0x1C: "KeyLocator", 0x26: "SignatureNonce", 0x28: "SignatureTime",
        0x2A: "SignatureSeqNum", 0xFD: "ValidityPeriod",
    },
    Name: {
        1: "ImplicitSha256DigestComponent", 2: "ParametersSha256DigestComponent", 8: "Component",
        32: "KeywordNameComponent", 50: "SegmentNameComponent", 52: "ByteOffsetNameComponent",
        54: "VersionNameComponent", 56: "TimestampNameComponent", 58: "SequenceNumNameComponent", 61: "Component",
    },
    LpPacket: {
        0x50: "Fragment", 0x51: "Sequence", 0x52: "FragIndex", 0x53: "FragCount", 0x62: "PitToken", 0x0320: "Nack",
        0x032C: "IncomingFaceId", 0x0330: "NextHopFaceId", 0x0334: "CachePolicy", 0x0340: "CongestionMark",
        0x0344: "Ack", 0x0348: "TxSequence", 0x034C: "NonDiscovery", 0x0350: "PrefixAnnouncement",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("parent", "kind", "expected"),
    [(parent, kind, expected) for parent, kinds in INSIDE.items() for kind, expected in kinds.items()],
)
def test_elements_have_the_numbers_of_the_standard(parent: type[Element], kind: int, expected: str) -> None:
    layers = parent(bytes(parent(value=[Element(type=kind, value=bytes(8))])))
    inside = layers.value[0]
    assert type(inside).__name__ == expected or (type(inside) is Element and expected in ("Nonce", "HopLimit"))
    assert (parent.children.get(kind) or parent.other_children or Element).__name__ == expected


KINDS = [
    (word, is_data, inside)
    for is_data, table in ((False, PARAMETERS), (True, CONTENTS))
    for word, inside in table.items()
]


@pytest.mark.parametrize(("word", "is_data", "inside"), KINDS)
def test_a_message_is_found_by_the_name_of_its_packet(word: bytes, is_data: bool, inside: type[msgspec.Struct]) -> None:  # noqa: FBT001
    content = bytes(MESSAGE_LAYERS[inside.__name__]())
    name = message_names.message_name(message_names.node_prefix("csr1"), word, "main", "ue1", boot=1, seq=1)
    wire = encode_data(name, content) if is_data else encode_interest(name, nonce=1, parameters=content)[1]
    assert NdnPacket(wire).haslayer(inside.__name__)


SEALED = [
    (message_names.LOGIN, True, message_names.node_prefix("login"), "LoginReply"),
    (message_names.JOIN, True, message_names.node_prefix("csr1"), "JoinReply"),
    (message_names.RECOVER, True, message_names.node_prefix("csr1"), "RecoveryReply"),
    (message_names.HEARTBEAT, False, message_names.node_prefix("ue1"), "ClientHeartbeat"),
    (message_names.HEARTBEAT, False, message_names.ALL_PROXIES, "ProxyHeartbeat"),
    (message_names.REVOKE, False, message_names.ALL_PROXIES, "Revocations"),
    (message_names.SERVE, False, message_names.node_prefix("ue1"), "ServeRequest"),
]


@pytest.mark.parametrize(("word", "is_data", "to", "inside"), SEALED)
def test_what_is_sealed_is_opened(word: bytes, is_data: bool, to: bytes, inside: str) -> None:  # noqa: FBT001
    content = encode(messages.Sealed(bytes(MESSAGE_LAYERS[inside]()), bytes(64)))
    name = message_names.message_name(to, word, "main", "csr1", boot=1, seq=1)
    wire = encode_data(name, content) if is_data else encode_interest(name, nonce=1, parameters=content)[1]
    layers = NdnPacket(wire)
    assert layers.haslayer(inside)
    assert bytes(layers) == wire


def test_the_data_plane_is_understood_too() -> None:
    name = objects.segment_name(objects.object_name("ue1", "main", boot=1, seq=2), 3)
    layers = NdnPacket(encode_data(name, encode(messages.StreamFrame(b"frame", bytes(64))), final_block=number(3, 50)))
    assert layers["StreamFrame"].frame == b"frame"
    assert layers["FinalBlockId"].value[0].value == 3
    segment = encode_data(name, b"content of an object")
    assert bytes(NdnPacket(segment)["Content"].value) == b"content of an object"
    description = messages.ObjectDescription(10, 4_000, (bytes(32),))
    update = messages.FpUpdate(
        "main", "ue1", 1, 7, "object", to_uri(name), b"", 0.5, bytes(16), bytes(16), encode(description)
    )
    layer = MESSAGE_LAYERS["FpUpdate"](encode(update))
    assert MESSAGE_LAYERS["ObjectDescription"](layer.body).size_bytes == 10


@pytest.mark.parametrize(("outer", "field"), [key for key in ENCODED if key[0] != "Sealed"])
def test_a_message_in_encoded_form_is_decoded(outer: str, field: str) -> None:
    inside = ENCODED[outer, field].__name__
    layer = MESSAGE_LAYERS[outer]()
    layer.setfieldval(field, MESSAGE_LAYERS[inside]())
    assert MESSAGE_LAYERS[outer](bytes(layer)).haslayer(inside)


def test_what_sync_groups_say_is_understood_too() -> None:
    """Of the modes `svs` and `psync`, whose packets are few among those recorded."""
    of_groups = [NdnPacket(wire) for wire in RECORDED if message_names.GROUP in wire]
    for layer in ("SeqNo", "PSyncContent"):
        assert any(packet.haslayer(layer) for packet in of_groups)
    assert not [octets for packet in of_groups for octets in unknown_in(packet) if octets.load]
