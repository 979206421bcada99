import pytest

from proxy.wire.lp import LinkPacket, NackReason, encode_link_packet, encode_nack, encode_sequenced
from proxy.wire.message_names import HEARTBEAT, OBJECT_ROOT, PRESENCE, SYNC, message_name, node_prefix
from proxy.wire.name import PARAMETERS_SHA256, component, from_uri
from proxy.wire.tlv import tlv
from testbed.faults.packets.view import PacketView, view_of, without_digest

SYNC_NAME = message_name(node_prefix("csr1"), SYNC, "main", "csr2", boot=1, seq=7)
DIGEST = tlv(PARAMETERS_SHA256, bytes(range(32)))


def interest(name: bytes) -> bytes:
    return tlv(5, tlv(7, name) + b"\x0a\x04abcd")


def data(name: bytes) -> bytes:
    return tlv(6, tlv(7, name) + tlv(0x15, bytes(400)))


@pytest.mark.parametrize(
    ("datagram", "message", "name"),
    [
        (interest(SYNC_NAME), "sync-interest", SYNC_NAME),
        (encode_sequenced(9, interest(SYNC_NAME)), "sync-interest", SYNC_NAME),
        (encode_sequenced(9, data(SYNC_NAME)), "sync-update", SYNC_NAME),
        (encode_nack(interest(SYNC_NAME), NackReason.NO_ROUTE), "nack", SYNC_NAME),
        (interest(node_prefix("a") + PRESENCE + DIGEST), "heartbeat", node_prefix("a") + PRESENCE),
        (interest(node_prefix("a") + HEARTBEAT), "heartbeat", node_prefix("a") + HEARTBEAT),
        (interest(from_uri("/x/y")), "interest", from_uri("/x/y")),
        (data(OBJECT_ROOT + component("ue1")), "object-segment", OBJECT_ROOT + component("ue1")),
        (encode_link_packet(LinkPacket(b"", session_state=3)), "face-heartbeat", b""),
        (encode_link_packet(LinkPacket(b"rest", sequence=5, frag_index=1, frag_count=2)), "fragment", b""),
        (
            encode_link_packet(LinkPacket(data(SYNC_NAME)[:200], sequence=5, frag_index=0, frag_count=3)),
            "sync-update",
            SYNC_NAME,
        ),
        (b"", "other", b""),
        (b"\x64\x05", "other", b""),
        (b"\x05\x02\x07\x09", "other", b""),
        (b"hello", "other", b""),
    ],
)
def test_what_a_packet_is(datagram: bytes, message: str, name: bytes) -> None:
    assert view_of(datagram) == PacketView(message, name)


def test_a_digest_at_the_end_of_a_name_does_not_count() -> None:
    assert without_digest(SYNC_NAME + DIGEST) == SYNC_NAME
    assert without_digest(DIGEST) == b""
    looks_like_one = component(b"x" * 10 + DIGEST)
    assert without_digest(looks_like_one) == looks_like_one
