"""A client and a proxy that are told of a snapshot larger than a packet, and what they do when it does not come as it should."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

from proxy.core.events import LOCAL_FACE, JoinRequested, PacketReceived, Send
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy
from proxy.core.signing import Signer
from proxy.core.snapshot_transfer import FROZEN_IDLE_S
from proxy.core.trust import place_of, place_of_message, seal
from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, JOIN, RECOVER, SNAPSHOT, MessageName, message_name
from proxy.wire.messages import (
    EMPTY_DIGEST,
    SEGMENT_BYTES,
    ClientHeartbeat,
    ConferenceState,
    Head,
    JoinReply,
    LoginReply,
    Position,
    ProxyHeartbeat,
    RecoveryReply,
    RecoveryRequest,
    Snapshot,
    SnapshotManifest,
    StreamHead,
)
from proxy.wire.packet import decode_data, encode_interest
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.parties import (
    PROXIES,
    STRANGER,
    Party,
    Sent,
    client_party,
    join_request,
    of,
    proxy_party,
    to,
    token,
)

AHEAD: Position = ("csr2", 1, 20)
WHOLE = Snapshot(
    tuple(Head(f"ue{number}", 1, 5, bytes(16), joined=True) for number in range(1_000, 1_500)),
    (StreamHead("csr2", 1, 20, EMPTY_DIGEST),),
)
CONTENT = encode(WHOLE)
SEGMENTS = [CONTENT[at : at + SEGMENT_BYTES] for at in range(0, len(CONTENT), SEGMENT_BYTES)]
MANIFEST = SnapshotManifest(1, len(CONTENT), hashlib.sha256(CONTENT).digest())


def segments_asked(sent: list[Sent]) -> list[Sent]:
    return of("snapshot-interest", sent)


def client_core(party: Party) -> ServiceClient:
    assert isinstance(party.core, ServiceClient)
    return party.core


def joined_client(current: Position = AHEAD) -> tuple[Party, list[Sent]]:
    """Return a client whose join was answered with a manifest, and what it asks for."""
    party = client_party()
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), ("csr1", "csr2")))
    sent = party.answer(join, JoinReply(True, "", (current,), None, (), 0, MANIFEST))
    assert of("recovery-request", sent) == []
    return party, segments_asked(sent)


def beat(party: Party, *current: Position, proxy: str = "csr1") -> list[Sent]:
    number = next(party.numbers)
    place = place_of(HEARTBEAT, "main", proxy, "", boot=1, seq=number)
    payload = seal(PROXIES[proxy], ClientHeartbeat(EMPTY_DIGEST, current), place)
    return party.ask(to("ue1"), HEARTBEAT, "main", proxy, seq=number, payload=payload)


def answer_all(party: Party, asked: list[Sent], segments: list[bytes]) -> list[Sent]:
    return [each for question in asked for each in party.answer(question, segments[question.parsed.seq])]


# ---------------------------------------------------------------------- client


def test_client_is_joined_at_once_and_fetches_from_its_proxy() -> None:
    party, asked = joined_client()
    assert client_core(party).state == "joined"
    assert [each.parsed.seq for each in asked] == list(range(len(SEGMENTS)))
    assert all(each.name.startswith(to("csr1") + SNAPSHOT) for each in asked)
    assert of("recovery-request", beat(party, AHEAD)) == []  # it is being taken care of
    sent = answer_all(party, asked, SEGMENTS)
    assert len(client_core(party).view.roster()) == 500 + 1
    assert client_core(party).positions.vector() == (AHEAD,)
    assert of("recovery-request", sent) == []
    assert len(of("keys-request", sent)) == 1


def test_client_goes_on_with_what_came_after_the_snapshot() -> None:
    party, asked = joined_client(("csr2", 1, 25))
    (recovery,) = of("recovery-request", answer_all(party, asked, SEGMENTS))
    assert recovery.read(RecoveryRequest).known == (AHEAD,)


@pytest.mark.parametrize(
    ("instead", "reason"),
    [(bytes(len(SEGMENTS[0])), "snapshot_forged"), (b"short", "snapshot_forged"), (b"", "snapshot_gone")],
)
def test_client_asks_anew_after_what_is_no_use(instead: bytes, reason: str) -> None:
    party, asked = joined_client()
    answer_all(party, asked, [instead, *SEGMENTS[1:]])
    assert client_core(party).view.roster() == ["ue1"]
    assert client_core(party).positions.vector() == ()
    assert party.core.counters[f"refused_{reason}"] == 1
    (recovery,) = of("recovery-request", beat(party, AHEAD))
    again = segments_asked(party.answer(recovery, RecoveryReply((AHEAD,), None, (), MANIFEST)))
    assert ({each.name for each in again} == {each.name for each in asked}) is (reason == "snapshot_gone")
    answer_all(party, again, SEGMENTS)
    assert client_core(party).positions.vector() == (AHEAD,)


def test_client_asks_anew_where_a_segment_does_not_come() -> None:
    party, asked = joined_client()
    answer_all(party, asked[1:], SEGMENTS)
    sent: list[Sent] = []
    for _ in range(80):
        sent += beat(party, AHEAD) + party.live(0.1)
    assert len([each for each in segments_asked(sent) if each.name == asked[0].name]) == 5
    assert party.core.counters["snapshots_given_up"] == 1
    assert of("recovery-request", sent)


def test_client_that_moves_fetches_no_more_from_its_last_proxy() -> None:
    party, _ = joined_client()
    moved: list[Sent] = []
    while not moved:
        moved = [each for each in of("join", party.live(0.05)) if each.name.startswith(to("csr2") + JOIN)]
    assert segments_asked(party.live(0.3)) == []
    asked = segments_asked(party.answer(moved[0], JoinReply(True, "", (AHEAD,), None, (), 0, MANIFEST)))
    asked += segments_asked(party.live(0.27))  # said again, since nobody answers
    assert len(asked) > len(SEGMENTS)
    assert all(each.name.startswith(to("csr2")) for each in asked)
    assert client_core(party).state == "joined"


def test_reply_without_a_manifest_makes_up_for_the_snapshot() -> None:
    party, _ = joined_client()
    (join, *_) = of("join", party.live(0.7))
    party.answer(join, JoinReply(True, "", (AHEAD,), Snapshot((), WHOLE.streams), (), 0))
    assert segments_asked(party.live(0.5)) == []
    assert client_core(party).positions.vector() == (AHEAD,)


@pytest.mark.parametrize("forger", [STRANGER, PROXIES["csr2"]])
def test_client_believes_no_announcement_but_its_proxys(forger: Signer) -> None:
    party = client_party()
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), ("csr1", "csr2")))
    reply = JoinReply(True, "", (AHEAD,), None, (), 0, MANIFEST)
    assert party.answer(join, encode(seal(forger, reply, place_of_message(join.parsed)))) == []
    other = place_of_message(MessageName(JOIN, ("main", "ue1"), 1, 2))
    assert party.answer(join, encode(seal(PROXIES["csr1"], reply, other))) == []  # of another join
    assert party.core.counters["refused_seal_forged"] == 2
    (again,) = of("join", party.live(0.3))  # it is still waiting
    assert segments_asked(party.answer(again, reply))


def test_client_believes_no_refusal_but_its_proxys() -> None:
    party = client_party()
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), ("csr1", "csr2")))
    refusal = seal(STRANGER, JoinReply(False, "revoked", (), None, ()), place_of_message(join.parsed))
    party.answer(join, encode(refusal))
    assert client_core(party).state == "joining"


# ---------------------------------------------------------------------- proxy


def proxy_core(party: Party) -> ServiceProxy:
    assert isinstance(party.core, ServiceProxy)
    return party.core


def hear(party: Party, sender: str, *positions: Position) -> list[Sent]:
    beat, number = ProxyHeartbeat((ConferenceState("main", EMPTY_DIGEST, positions),)), next(party.numbers)
    sealed = seal(PROXIES[sender], beat, place_of(HEARTBEAT, sender, boot=1, seq=number))
    return party.ask(ALL_PROXIES, HEARTBEAT, sender, seq=number, payload=sealed)


def told_proxy() -> tuple[Party, list[Sent]]:
    """Return a proxy that was told of a snapshot by another, and what it asks for."""
    party = proxy_party()
    party.ask(to("csr1"), JOIN, "main", "ue1", seq=1, payload=join_request(token()))
    (recovery,) = of("recovery-request", hear(party, "csr2", AHEAD))
    return party, segments_asked(party.answer(recovery, RecoveryReply((AHEAD,), None, (), MANIFEST)))


def test_proxy_fetches_from_the_proxy_that_told_it_and_asks_nobody_else_meanwhile() -> None:
    party, asked = told_proxy()
    assert all(each.name.startswith(to("csr2") + SNAPSHOT) for each in asked)
    assert of("recovery-request", hear(party, "csr3", AHEAD)) == []
    sent = answer_all(party, asked, SEGMENTS)
    assert proxy_core(party).conferences["main"].log.vector() == (AHEAD,)
    assert party.core.counters["snapshots_installed"] == 1
    assert [each for each in of("heartbeat", sent) if each.name.startswith(to("ue1"))]  # our client is told
    assert of("keys-request", sent)


def test_proxy_believes_no_announcement_but_that_of_whom_it_asked() -> None:
    party = proxy_party()
    party.ask(to("csr1"), JOIN, "main", "ue1", seq=1, payload=join_request(token()))
    (recovery,) = of("recovery-request", hear(party, "csr2", AHEAD))
    reply = RecoveryReply((AHEAD,), None, (), MANIFEST)
    for forger in (STRANGER, PROXIES["csr3"]):
        assert party.answer(recovery, encode(seal(forger, reply, place_of_message(recovery.parsed)))) == []
    assert party.core.counters["refused_seal_forged"] == 2
    assert of("recovery-request", party.live(0.3))  # it is still waiting
    assert segments_asked(party.answer(recovery, reply))


@pytest.mark.parametrize("instead", [bytes(len(SEGMENTS[0])), b"short", b""])
def test_proxy_asks_anew_after_what_is_no_use(instead: bytes) -> None:
    party, asked = told_proxy()
    sent = answer_all(party, asked, [instead, *SEGMENTS[1:]])
    assert proxy_core(party).conferences["main"].log.vector() == ()
    (recovery,) = of("recovery-request", sent)
    again = segments_asked(party.answer(recovery, RecoveryReply((AHEAD,), None, (), MANIFEST)))
    answer_all(party, again, SEGMENTS)
    assert proxy_core(party).conferences["main"].log.vector() == (AHEAD,)


def test_proxy_turns_to_another_when_the_one_it_fetches_from_falls_silent() -> None:
    party, _ = told_proxy()
    sent: list[Sent] = []
    for _ in range(20):
        sent += hear(party, "csr3", AHEAD) + party.live(0.1)
    assert party.core.counters["snapshots_given_up"] == 1
    assert {each.name.startswith(to("csr3")) for each in of("recovery-request", sent)} == {True}


def test_proxy_turns_to_another_when_segments_do_not_come() -> None:
    party, _ = told_proxy()
    sent: list[Sent] = []
    for _ in range(80):
        sent += hear(party, "csr2", AHEAD) + hear(party, "csr3", AHEAD) + party.live(0.1)
    assert party.core.counters["snapshots_given_up"] == 1
    assert of("recovery-request", sent)[0].name.startswith(to("csr3"))


def test_second_announcement_does_not_disturb_what_is_being_fetched() -> None:
    party = proxy_party()
    party.ask(to("csr1"), JOIN, "main", "ue1", seq=1, payload=join_request(token()))
    (first,) = of("recovery-request", hear(party, "csr2", AHEAD))
    (second,) = of("recovery-request", hear(party, "csr3", AHEAD, ("csr3", 1, 20)))
    asked = segments_asked(party.answer(first, RecoveryReply((AHEAD,), None, (), MANIFEST)))
    assert segments_asked(party.answer(second, RecoveryReply((AHEAD,), None, (), MANIFEST))) == []
    answer_all(party, asked, SEGMENTS)
    assert proxy_core(party).conferences["main"].log.vector() == (AHEAD,)


def test_proxy_answers_for_segments_that_it_has_not() -> None:
    party, _ = told_proxy()
    for digest, boot in ((MANIFEST.digest.hex(), 1), ("nothing", 1), (MANIFEST.digest.hex(), 2)):
        (sent,) = party.ask(to("csr1"), SNAPSHOT, "main", digest, seq=0, boot=boot)
        assert (sent.message, sent.payload) == ("snapshot-segment", b"")
    assert party.core.counters["segments_gone"] == 3
    assert party.ask(to("csr1"), SNAPSHOT, "main", seq=0) == []
    assert party.core.counters["malformed"] == 1


def frozen_at_proxy() -> tuple[Party, SnapshotManifest]:
    """Return a proxy that has announced a snapshot, and the announcement."""
    party = proxy_party()
    party.ask(to("csr1"), JOIN, "main", "ue1", seq=1, payload=join_request(token()))
    proxy_core(party).conferences["main"].log.install(WHOLE)
    (reply,) = of("join-reply", party.ask(to("csr1"), JOIN, "main", "ue1", seq=2, payload=join_request(token(), seq=2)))
    manifest = reply.read(JoinReply).manifest
    assert manifest is not None
    return party, manifest


def fetch_all(party: Party, manifest: SnapshotManifest) -> bytes:
    return b"".join(
        party.ask(to("csr1"), SNAPSHOT, "main", manifest.digest.hex(), seq=number)[0].payload or b""
        for number in range(manifest.segments)
    )


def test_proxy_freezes_once_for_a_join_and_a_recovery() -> None:
    party, manifest = frozen_at_proxy()
    request = RecoveryRequest((("csr2", 1, 1),))
    (sent,) = of("recovery-reply", party.ask(to("csr1"), RECOVER, "main", "ue1", seq=1, payload=request))
    assert sent.read(RecoveryReply).manifest == manifest
    assert (party.core.counters["snapshots_frozen"], party.core.counters["snapshots_shared"]) == (1, 1)
    assert fetch_all(party, manifest) == CONTENT


def test_frozen_snapshot_has_all_tokens() -> None:
    party = proxy_party()
    party.ask(to("csr1"), JOIN, "main", "ue1", seq=1, payload=join_request(token()))
    tokens = tuple(token(f"ue{number}", Signer(number.to_bytes(32, "big"))) for number in range(1_000, 1_100))
    proxy_core(party).conferences["main"].log.install(replace(WHOLE, tokens=tokens))
    (reply,) = of("join-reply", party.ask(to("csr1"), JOIN, "main", "ue1", seq=2, payload=join_request(token(), seq=2)))
    manifest = reply.read(JoinReply).manifest
    assert manifest is not None
    assert decode(fetch_all(party, manifest), Snapshot).tokens == tokens


def test_stores_keep_segments_and_forget_that_one_is_gone() -> None:
    party, manifest = frozen_at_proxy()

    def freshness_ms(digest: str, boot: int) -> int:
        _, packet = encode_interest(message_name(to("csr1"), SNAPSHOT, "main", digest, boot=boot, seq=0), nonce=1)
        (effect,) = party.core.handle(PacketReceived(LOCAL_FACE, packet), now_s=party.now_s)
        assert isinstance(effect, Send)
        data = decode_data(effect.packet)
        assert bool(data.content) is bool(data.freshness_ms)
        return data.freshness_ms

    assert freshness_ms(manifest.digest.hex(), 1) > 0
    assert freshness_ms(manifest.digest.hex(), 2) == 0  # whoever asks by another boot was told by another proxy
    assert freshness_ms("nothing", 1) == 0


def test_proxy_forgets_what_nobody_asks_for() -> None:
    party, _ = frozen_at_proxy()
    party.live(FROZEN_IDLE_S + 1.0)
    assert len(proxy_core(party).conferences["main"].frozen) == 0
