"""What a forwarder makes of packets that are broken, or unusual and right."""

from __future__ import annotations

import pytest

from proxy.core.events import JoinRequested
from proxy.core.table.pit import EXPIRY_GRAIN_S
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data, peek_interest
from proxy.wire.tlv import tlv
from tests.unit.proxy.core.bench import Bench, interest_wire

#: Faces 1, 2, 3 lead to the producer, best first; who asks sits on face 4 or 0.
PRODUCER = {"/p": [(1, 10.0), (2, 20.0), (3, 30.0)]}


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00", id="type 0"),
        pytest.param(b"hello, world", id="text"),
        pytest.param(b"\x05\x05\x07\x03\x08\x01a", id="Interest without a nonce"),
        pytest.param(b"\x05\x0d\x07\x05\x08\x09abc\x0a\x04abcd", id="Interest with a broken name"),
        pytest.param(b"\x05\x0d\x07\x05\x00\x03abc\x0a\x04abcd", id="name with a component of type 0"),
        pytest.param(b"\x05\x0d\x07\x05\x01\x03abc\x0a\x04abcd", id="name with a digest of 3 octets"),
        pytest.param(b"\x05\x0f\x07\x05\x08\x09abc\x21\x00\x0a\x04abcd", id="prefix Interest with a broken name"),
        pytest.param(interest_wire(33 * "/a", 1), id="name of 33 components"),
        pytest.param(tlv(5, tlv(7, from_uri("/p"))) + b"x", id="something behind the packet"),
        pytest.param(b"\x06\x05\x07\x03\x08\x01a", id="Data without a signature"),
        pytest.param(tlv(0x64, tlv(0x50, b"\x07\x00")), id="fragment that is no packet"),
        pytest.param(tlv(0x64, tlv(0x0320, b"") + tlv(0x50, b"\x06\x00")), id="Nack of a Data"),
    ],
)
def test_malformed_packet_is_counted(packet: bytes) -> None:
    bench = Bench(PRODUCER)
    assert bench.packet(4, packet) == []
    assert bench.counters["malformed"] == 1


@pytest.mark.parametrize("wire", [interest_wire("/p/1", 1), encode_data(from_uri("/p/1"), b"", freshness_ms=1)])
def test_no_beginning_of_a_packet_is_taken_for_one(wire: bytes) -> None:
    bench = Bench(PRODUCER)
    for size in range(len(wire)):
        assert bench.packet(4, wire[:size]) == []
    assert bench.counters["malformed"] == len(wire)


def test_nonces_of_zero_are_nonces() -> None:
    """Somebody who always says zero harms himself: the second asker of a name is taken for a loop."""
    bench = Bench(PRODUCER)
    assert bench.interest(4, "/p/1", 0) == [(1, "interest", "/p/1")]
    assert bench.interest(3, "/p/1", 0) == [(3, "nack-DUPLICATE", "/p/1")]
    assert bench.interest(3, "/p/2", 0) == [(1, "interest", "/p/2")]
    assert bench.data(1, "/p/1") == [(4, "data", "/p/1")]
    assert bench.counters["loops"] == 1


def test_interest_of_an_application_without_a_nonce_gets_one() -> None:
    """NDN Packet Format, "Nonce": it is whoever puts the Interest on the network that must add it."""
    hint = "1e050703080162"
    wire = bytes.fromhex("0517 0706 0801 70 0801 31" + "2100 1200" + hint + "0c02 03e8")
    bench = Bench(PRODUCER)
    bench.packet(0, wire)
    sent = peek_interest(bench.last_interest(1))
    assert sent.nonce > 0
    assert sent.wire.hex() == bytes.fromhex("051d 0706 0801 70 0801 31" + "2100 1200" + hint + "0a04").hex() + (
        f"{sent.nonce:08x}" + "0c0203e8"
    )
    assert bench.packet(4, wire) == []
    assert bench.counters["malformed"] == 1


def test_forwarding_hint_is_passed_on_and_not_looked_at() -> None:
    bench = Bench(PRODUCER)
    hint = tlv(0x1E, tlv(0x07, from_uri("/elsewhere")))
    wire = tlv(5, tlv(7, from_uri("/p/1")) + hint + b"\x0a\x04abcd")
    bench.packet(4, wire)
    assert bench.sent_fragments()[-1] == (1, wire)


def test_interest_that_says_nothing_of_its_lifetime_is_pending_for_four_seconds() -> None:
    bench = Bench(PRODUCER)
    bench.packet(4, tlv(5, tlv(7, from_uri("/p/1")) + b"\x0a\x04abcd"))
    bench.live(3.9)
    assert bench.counters["pit_entries"] == 1
    bench.live(0.11 + EXPIRY_GRAIN_S)
    assert bench.counters["pit_entries"] == 0


def test_route_of_the_root_prefix() -> None:
    bench = Bench({"/": [(1, 1.0)], "/p": [(2, 1.0)]})
    assert bench.interest(4, "/anything", 1) == [(1, "interest", "/anything")]
    assert bench.interest(4, "/p/1", 2) == [(2, "interest", "/p/1")]


def test_event_of_another_core_is_our_own_mistake() -> None:
    bench = Bench(PRODUCER)
    with pytest.raises(TypeError, match="not for a forwarder"):
        bench.forwarder.handle(JoinRequested(), now_s=0.0)


def test_counting_of_what_was_sent() -> None:
    wire = interest_wire("/hconf/csr1/32=sync/main/v=1/seq=1", 1)
    bench = Bench({"/hconf": [(1, 1.0)]})
    bench.packet(4, wire)
    answer = encode_data(from_uri("/hconf/csr1/32=sync/main/v=1/seq=1"), b"")
    bench.packet(1, answer)
    for face, message, fragment in ((1, "sync-interest", wire), (4, "sync-update", answer)):
        (datagram,) = [packet for at, packet in bench.sent_packets if at == face and fragment in packet]
        assert bench.forwarder.faces[face].sent[message] == [1, len(datagram)]
