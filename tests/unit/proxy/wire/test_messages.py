"""Names of messages, their types for counting, and that the largest of them fits into a packet."""

from __future__ import annotations

import pytest

from proxy.wire.message_names import (
    ALL_PROXIES,
    IDENTIFIER_MAX_OCTETS,
    MESSAGE_TYPES,
    NOTIFY,
    NUMBER_MAX,
    PUSH,
    RECOVER,
    SYNC,
    UPDATE,
    MessageName,
    component_text,
    message_name,
    message_type,
    node_prefix,
    parse_message_name,
)
from proxy.wire.messages import (
    BODY_MAX_BYTES,
    EMPTY_DIGEST,
    OBJECT_NAME_MAX_OCTETS,
    REPLY_MAX_BYTES,
    FpUpdate,
    Notification,
    RecoveryReply,
    Sealed,
    SignedUpdate,
    StreamEntry,
    SyncUpdate,
)
from proxy.wire.name import component, from_uri, keyword, to_uri
from proxy.wire.packet import encode_data, encode_interest
from proxy.wire.payload import encode
from proxy.wire.tlv import MalformedError

#: design.md section 5 and its messages.csv: kind in the name, type of the Interest, type of the Data.
TYPES = [
    ("login", "login", "login-reply"),
    ("join", "join", "join-reply"),
    ("update", "update", "update-ack"),
    ("notify", "notification", "notification-ack"),
    ("sync", "sync-interest", "sync-update"),
    ("push", "push", "push-reply"),
    ("heartbeat", "heartbeat", "heartbeat-reply"),
    ("recover", "recovery-request", "recovery-reply"),
    ("close", "close", "close-reply"),
    ("keys", "keys-request", "keys-reply"),
    ("revoke", "revocation", "revocation-reply"),
    ("snapshot", "snapshot-interest", "snapshot-segment"),
    ("presence", "heartbeat", "heartbeat-reply"),
    ("serve", "serve-request", "serve-reply"),
    ("publication", "publication-interest", "publication"),
    ("certificate", "certificate-interest", "certificate"),
    ("svs", "svs-sync-interest", "svs-sync-data"),
    ("psync", "psync-sync-interest", "psync-sync-data"),
]


@pytest.mark.parametrize(("word", "interest", "data"), TYPES)
def test_message_types(word: str, interest: str, data: str) -> None:
    for to in (node_prefix("csr1"), ALL_PROXIES):
        name = message_name(to, keyword(word), "main", boot=1, seq=2)
        assert message_type(name, data=False) == interest
        assert message_type(name, data=True) == data


def test_no_type_is_forgotten() -> None:
    assert set(MESSAGE_TYPES) == {keyword(word) for word, *_ in TYPES}


@pytest.mark.parametrize(
    "uri", ["/", "/hconf", "/hconf/csr1", "/other/csr1/32=sync/v=1/seq=1", "/hconf/csr1/32=dance/v=1/seq=1"]
)
def test_other_names_are_plain_packets(uri: str) -> None:
    assert message_type(from_uri(uri), data=False) == "interest"
    assert message_type(from_uri(uri), data=True) == "data"


def test_names_as_the_design_spells_them() -> None:
    assert (
        to_uri(message_name(node_prefix("csr1"), SYNC, "main", boot=1, seq=700))
        == "/hconf/csr1/32=sync/main/v=1/seq=700"
    )
    assert (
        to_uri(message_name(ALL_PROXIES, PUSH, "main", "csr1", boot=1, seq=2))
        == "/hconf/32=all/32=push/main/csr1/v=1/seq=2"
    )


@pytest.mark.parametrize("parts", [(), ("main",), ("main", "ue1"), ("Zürich", "x" * IDENTIFIER_MAX_OCTETS)])
@pytest.mark.parametrize(("boot", "seq"), [(1, 1), (0, 0), (NUMBER_MAX, NUMBER_MAX), (255, 256), (65_535, 65_536)])
def test_names_there_and_back(parts: tuple[str, ...], boot: int, seq: int) -> None:
    name = message_name(node_prefix("csr1"), UPDATE, *parts, boot=boot, seq=seq)
    assert parse_message_name(name) == MessageName(UPDATE, parts, boot, seq)
    with_digest, _ = encode_interest(name, nonce=1, parameters=b"x")
    assert parse_message_name(with_digest) == MessageName(UPDATE, parts, boot, seq)
    assert component_text(name, 1) == "csr1"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(from_uri("/hconf/csr1/32=sync/v=1"), id="too short"),
        pytest.param(from_uri("/other/csr1/32=sync/main/v=1/seq=1"), id="outside our prefix"),
        pytest.param(from_uri("/hconf/csr1/32=dance/main/v=1/seq=1"), id="unknown kind"),
        pytest.param(from_uri("/hconf/csr1/sync/main/v=1/seq=1"), id="kind that is no keyword"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/seq=1/v=1"), id="boot and sequence number exchanged"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/v=1/1"), id="sequence number without a type"),
        pytest.param(from_uri("/hconf/csr1/32=sync/32=main/v=1/seq=1"), id="identifier that is a keyword"),
        pytest.param(from_uri("/hconf/csr1/32=sync/.../v=1/seq=1"), id="empty identifier"),
        pytest.param(from_uri("/hconf/csr1/32=sync/%FF/v=1/seq=1"), id="identifier that is not UTF-8"),
        pytest.param(from_uri(f"/hconf/csr1/32=sync/{'x' * 65}/v=1/seq=1"), id="identifier too long"),
        pytest.param(from_uri(f"/hconf/{'x' * 65}/32=sync/main/v=1/seq=1"), id="addressee too long"),
        pytest.param(from_uri(f"/hconf/{'x' * 8_000}/32=sync/main/v=1/seq=1"), id="addressee as long as a packet"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/v=9223372036854775808/seq=1"), id="boot beyond 2**63 - 1"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/v=1/seq=9223372036854775808"), id="number beyond 2**63 - 1"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/54=%00%00%01/seq=1"), id="boot of 3 octets"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/v=1/58=" + "%00" * 9), id="sequence number of 9 octets"),
        pytest.param(from_uri("/hconf/csr1/32=sync/main/54=" + "%01" * 250 + "/seq=1"), id="boot of 250 octets"),
    ],
)
def test_what_is_no_name_of_ours(name: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_message_name(name)


@pytest.mark.parametrize(("uri", "index"), [("/", 0), ("/a", 1), ("/a/%FF", 1)])
def test_component_that_is_not_there_or_no_text(uri: str, index: int) -> None:
    with pytest.raises(MalformedError):
        component_text(from_uri(uri), index)


LONGEST = "x" * IDENTIFIER_MAX_OCTETS


def largest_entry() -> StreamEntry:
    update = FpUpdate(
        LONGEST, LONGEST, NUMBER_MAX, NUMBER_MAX, LONGEST, "o" * OBJECT_NAME_MAX_OCTETS, bytes(16), 1e9, EMPTY_DIGEST,
        EMPTY_DIGEST, bytes(BODY_MAX_BYTES),
    )  # fmt: skip
    content = encode(SyncUpdate(EMPTY_DIGEST, (SignedUpdate(encode(update), bytes(64)),)))
    return StreamEntry(LONGEST, NUMBER_MAX, NUMBER_MAX, "recovery", content)


def test_largest_update_fits_into_every_packet_that_carries_it() -> None:
    """Raises ValueError where it does not."""
    entry, numbers = largest_entry(), {"boot": NUMBER_MAX, "seq": NUMBER_MAX}
    position = (LONGEST, NUMBER_MAX, NUMBER_MAX)
    to = node_prefix(LONGEST)
    encode_data(message_name(to, SYNC, LONGEST, **numbers), entry.content, freshness_ms=600_000)
    push = message_name(ALL_PROXIES, PUSH, LONGEST, LONGEST, **numbers)
    encode_interest(push, nonce=1, parameters=encode(entry))
    notify = message_name(to, NOTIFY, LONGEST, LONGEST, **numbers)
    encode_interest(notify, nonce=1, parameters=encode(Notification((position,), (position,), (entry,))))
    recover, _ = encode_interest(message_name(to, RECOVER, LONGEST, LONGEST, **numbers), nonce=1, parameters=b"")
    reply = encode(RecoveryReply((position,) * 3, None, (entry,)))
    assert len(reply) <= REPLY_MAX_BYTES
    encode_data(recover, encode(Sealed(bytes(REPLY_MAX_BYTES), bytes(64))))


def test_components_are_those_of_names() -> None:
    assert node_prefix("csr1") == component("hconf") + component("csr1") == from_uri("/hconf/csr1")
    assert from_uri("/hconf/32=all") == ALL_PROXIES
