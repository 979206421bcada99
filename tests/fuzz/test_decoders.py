"""Any bytes either decode or raise MalformedError, and never anything else."""

import contextlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from proxy.wire.lp import decode_link_packet
from proxy.wire.management import PREFIX, CommandError, ControlParameters, decode_command, encode_parameters
from proxy.wire.message_names import component_text, message_type, parse_message_name
from proxy.wire.name import boundaries, split, to_uri
from proxy.wire.packet import decode_data, decode_interest, peek_interest
from proxy.wire.payload import decode, encode
from proxy.wire.psync import BloomFilter, decode_filter, decode_names, encode_filter
from proxy.wire.signed_data import decode_signed_data
from proxy.wire.svs import decode_state_vector, encode_state_vector
from proxy.wire.tlv import MalformedError, tlv
from tests.fuzz.corpus import MESSAGES, message_values, mutations, recordings

EXAMPLES = 500

PACKETS = [packet for recording in recordings().values() for packet in recording.packets]
#: Octets that mean something more often than chance would have it.
meaningful = st.sampled_from(bytes.fromhex("0506071415161b200a0c222432363a5064fdfeff0001020480809192a0c4d9dd"))
octets = st.lists(meaningful | st.integers(0, 255), max_size=60).map(bytes)
datagrams = octets | st.binary(max_size=200) | mutations(PACKETS)
#: Looks like an element on the outside, whatever is inside.
wrapped = st.builds(tlv, st.sampled_from([0x05, 0x06, 0x07, 0x64]), octets)
names = st.lists(st.builds(tlv, st.sampled_from([0, 1, 2, 8, 32, 54, 58, 300]), st.binary(max_size=12)), max_size=9)


@pytest.mark.parametrize(
    "decoder",
    [
        decode_link_packet,
        decode_interest,
        peek_interest,
        decode_data,
        decode_signed_data,
        decode_state_vector,
        decode_names,
    ],
)
@settings(max_examples=EXAMPLES)
@given(datagram=datagrams | wrapped)
def test_packet_decoders(decoder: type, datagram: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decoder(datagram)


node_names = st.sampled_from([b"\x08\x01a", b"\x08\x05hconf\x08\x03ue1", b"\x20\x01b"])
vectors = st.dictionaries(node_names, st.dictionaries(st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1), max_size=3))


@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_damaged_state_vectors(draw: st.DataObject) -> None:
    wire = draw.draw(mutations([encode_state_vector(draw.draw(vectors))]))
    with contextlib.suppress(MalformedError):
        encode_state_vector(decode_state_vector(wire))


@settings(max_examples=EXAMPLES)
@given(draw=st.data(), keys=st.sets(st.integers(0, 2**32 - 1), max_size=4), cells=st.binary(max_size=180))
def test_filters_of_anything_come_to_an_end(draw: st.DataObject, keys: set[int], cells: bytes) -> None:
    bloom = BloomFilter(10)
    for key in keys:
        bloom.insert(key)
    made_up = tlv(8, zlib.compress(cells.ljust(180, b"\x01")))
    for encoded in (draw.draw(mutations([encode_filter(bloom)])), made_up):
        with contextlib.suppress(MalformedError):
            bloom.minus(decode_filter(encoded, 10)).peeled()


@settings(max_examples=EXAMPLES)
@given(name=octets | names.map(b"".join) | st.binary(max_size=100))
def test_name_decoders(name: bytes) -> None:
    for decoder in (boundaries, split, to_uri, parse_message_name):
        with contextlib.suppress(MalformedError):
            decoder(name)
    for index in range(4):
        with contextlib.suppress(MalformedError):
            component_text(name, index)


@settings(max_examples=EXAMPLES)
@given(name=octets | names.map(b"".join) | st.binary(max_size=100), data=st.booleans())
def test_message_type_never_raises(name: bytes, *, data: bool) -> None:
    for at in range(len(name) + 1):
        assert message_type(name[:at], data=data)


@settings(max_examples=EXAMPLES)
@given(prefix=st.just(b"\x08\x05hconf"), rest=octets | names.map(b"".join), data=st.booleans())
def test_message_type_of_names_that_begin_like_ours_never_raises(prefix: bytes, rest: bytes, *, data: bool) -> None:
    assert message_type(prefix + rest, data=data)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=EXAMPLES // 10)
@given(draw=st.data())
def test_message_decoders(kind: type[Struct], draw: st.DataObject) -> None:
    payload = draw.draw(octets | st.binary(max_size=60) | mutations([encode(draw.draw(message_values(kind)))]))
    with contextlib.suppress(MalformedError):
        decode(payload, kind)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=EXAMPLES // 25)
@given(draw=st.data())
def test_every_message_survives_the_wire(kind: type[Struct], draw: st.DataObject) -> None:
    message = draw.draw(message_values(kind))
    payload = encode(message)
    assert encode(decode(payload, kind)) == payload  # NaN is not equal to itself, its octets are


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x90", id="too few fields"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="4 billion fields announced"),
        pytest.param(b"\x91\xdd\xff\xff\xff\xff", id="4 billion items announced"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="4 GB of octets announced"),
        pytest.param(b"\x91" * 100_000, id="nested 100,000 deep"),
        pytest.param(b"\x81\xa1\x61\x01", id="a map"),
        pytest.param(b"\xc1", id="the octet that MessagePack never uses"),
    ],
)
def test_malformed_message(kind: type[Struct], payload: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(payload, kind)


parameters = encode_parameters(ControlParameters(name=b"\x08\x01a", face_id=1, cost=2, strategy=b"\x08\x01b"))
command_parts = st.lists(
    st.one_of(
        st.builds(
            tlv, st.sampled_from([2, 8]), mutations([parameters, tlv(0x16, b"\x1b\x01\x00"), tlv(0x17, bytes(32))])
        ),
        st.builds(tlv, st.sampled_from([1, 2, 8]), st.binary(max_size=40)),
    ),
    max_size=8,
)


@settings(max_examples=EXAMPLES)
@given(parts=command_parts, tail=st.just(b"") | st.builds(tlv, st.sampled_from([0x24, 0x2C, 0x2E]), octets) | octets)
def test_commands_are_understood_or_refused(parts: list[bytes], tail: bytes) -> None:
    name = PREFIX + tlv(8, b"rib") + tlv(8, b"register") + b"".join(parts)
    with contextlib.suppress(MalformedError, CommandError):
        decode_command(peek_interest(tlv(5, tlv(7, name) + b"\x0a\x04abcd" + tail)))


def test_no_payload_at_all() -> None:
    with pytest.raises(MalformedError):
        decode(None, MESSAGES[0])
