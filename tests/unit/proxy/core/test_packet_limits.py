"""States larger than a packet: many proxies, many boots, long names. Everything is said, in packets that can be sent."""

from __future__ import annotations

import pytest

from proxy.core.events import JoinRequested
from proxy.core.packing import KNOWN_MAX_BYTES, heartbeats, known_for_request, lacking_first, pieces
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy
from proxy.core.signing import Signer
from proxy.core.trust import place_of, seal
from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, JOIN, KEYS, NUMBER_MAX, RECOVER
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    ConferenceState,
    Head,
    JoinReply,
    JoinRequest,
    KeysReply,
    KeysRequest,
    LoginReply,
    Notification,
    Position,
    ProxyHeartbeat,
    RecoveryReply,
    RecoveryRequest,
    RosterEvent,
    Sealed,
    Snapshot,
    StreamEntry,
    StreamHead,
    SyncUpdate,
)
from proxy.wire.payload import decode, encode, encoded_size_bytes
from proxy.wire.tlv import PACKET_MAX_BYTES
from tests.unit.proxy.core.parties import (
    PROXIES,
    UE1,
    UE2,
    Party,
    Sent,
    client_party,
    join_request,
    of,
    proxy_party,
    signed_update,
    to,
    token,
)

ME = to("csr1")
#: Some 50 kB of them.
MANY: tuple[Position, ...] = tuple(
    (f"{'a-rather-long-name-of-a-router':-<55}{number:04}", 1, 7) for number in range(700)
)
LONGEST = "x" * 64


def joined_proxy() -> Party:
    """Return a proxy that knows many streams, with one client."""
    party = proxy_party()
    join(party, "ue1", None)
    streams = tuple(StreamHead(proxy, boot, seq, EMPTY_DIGEST) for proxy, boot, seq in MANY)
    core = party.core
    assert isinstance(core, ServiceProxy)
    core.conferences["main"].log.install(Snapshot((), streams))
    return party


def join(party: Party, device: str, known: tuple[Position, ...] | None, *, seq: int = 1) -> JoinReply:
    signer = UE2 if device == "ue2" else UE1
    request = join_request(token(device, signer), signer, device=device, seq=seq, known=known)
    (reply,) = of("join-reply", party.ask(ME, JOIN, "main", device, seq=seq, payload=request))
    return reply.read(JoinReply)


def hear(party: Party, *positions: Position) -> list[Sent]:
    beat, number = ProxyHeartbeat((ConferenceState("main", EMPTY_DIGEST, positions),)), next(party.numbers)
    sealed = seal(PROXIES["csr2"], beat, place_of(HEARTBEAT, "csr2", boot=1, seq=number))
    return party.ask(ALL_PROXIES, HEARTBEAT, "csr2", seq=number, payload=sealed)


# ---------------------------------------------------------------------- proxy


def test_heartbeats_of_a_proxy_say_all_of_a_large_state_to_everybody() -> None:
    party = joined_proxy()
    sent = of("heartbeat", party.live(0.3))
    to_all = {
        position
        for each in sent
        if each.name.startswith(ALL_PROXIES)
        for state in decode(each.read(Sealed).content, ProxyHeartbeat).conferences
        for position in state.current
    }
    to_client = {
        position
        for each in sent
        if each.name.startswith(to("ue1"))
        for position in decode(each.read(Sealed).content, ClientHeartbeat).current
    }
    assert to_all == to_client == set(MANY)
    assert len({each.name for each in sent}) == len(sent)


def test_replies_of_a_proxy_with_a_large_state_name_first_what_the_asker_lacks() -> None:
    party = joined_proxy()
    reply = join(party, "ue2", ())
    assert reply.manifest is not None  # the streams alone are many packets
    assert 0 < len(reply.current) < len(MANY)
    lacking = MANY[650]
    known = (*MANY[:50], (lacking[0], 1, 6))
    request = RecoveryRequest(known, is_partial=True)
    (sent,) = of("recovery-reply", party.ask(ME, RECOVER, "main", "ue1", seq=1, payload=request))
    current = sent.read(RecoveryReply).current
    assert current[0] == lacking
    assert set(current) == {lacking, *MANY[:50]}


def test_suffix_of_the_streams_that_are_named() -> None:
    party = joined_proxy()
    core = party.core
    assert isinstance(core, ServiceProxy)
    log = core.conferences["main"].log
    for _ in range(3):
        log.append_own(core.conferences["main"].own, (signed_update(1),))
    request = RecoveryRequest((("csr1", 1, 1),), is_partial=True)
    (reply,) = of("recovery-reply", party.ask(ME, RECOVER, "main", "ue1", seq=1, payload=request))
    assert [entry.seq for entry in reply.read(RecoveryReply).entries] == [2, 3]
    assert reply.read(RecoveryReply).manifest is None


def test_proxy_with_a_large_state_asks_for_those_streams_that_it_lacks_more_of() -> None:
    party = joined_proxy()
    ahead = (MANY[600][0], 1, 100)
    (request,) = of("recovery-request", hear(party, ahead))
    asked = request.read(RecoveryRequest)
    assert (asked.known, asked.is_partial) == (((ahead[0], 1, 7),), True)


def test_notification_of_small_entries_of_many_proxies_fits() -> None:
    party = joined_proxy()
    core = party.core
    assert isinstance(core, ServiceProxy)
    conference = core.conferences["main"]
    small = encode(SyncUpdate(EMPTY_DIGEST, (), roster=(RosterEvent("u", 1, 1, 1, "away"),), signature=bytes(64)))
    for proxy, _, _ in MANY[:200]:
        conference.clients["ue1"].enqueue(StreamEntry(proxy, 1, 7, "push", small))
    conference.clients["ue1"].is_urgent = True
    core._clients._flush(conference, conference.clients["ue1"])
    sent = of("notification", party.live(0.3))  # said again, since nobody acks
    told = [entry.proxy for each in sent for entry in each.read(Notification).entries]
    assert set(told) == {proxy for proxy, _, _ in MANY[:200]}


def test_keys_reply_holds_what_fits_and_the_asker_goes_on() -> None:
    party = joined_proxy()
    core = party.core
    assert isinstance(core, ServiceProxy)
    view = core.conferences["main"].log.view
    devices = [f"{number:03}{LONGEST[3:]}" for number in range(64)]
    heads = tuple(Head(device, 1, 1, EMPTY_DIGEST, joined=True) for device in devices)
    view.install(Snapshot(heads, (), tokens=tuple(token(device, Signer(device.encode()[:32])) for device in devices)))
    (reply,) = of("keys-reply", party.ask(ME, KEYS, "main", "ue1", seq=1, payload=KeysRequest(tuple(devices))))
    assert 20 < len(reply.read(KeysReply).tokens) < 64


# ---------------------------------------------------------------------- client


def test_client_that_knows_many_streams_still_beats_recovers_and_joins() -> None:
    party = client_party()
    core = party.core
    assert isinstance(core, ServiceClient)
    (login,) = party.handle(JoinRequested())
    (question,) = party.answer(login, LoginReply(True, "", token(), ("csr1", "csr2")))
    party.answer(question, JoinReply(True, "", (), Snapshot((), ()), ()))
    core.positions.install(MANY)
    sent = party.live(0.3)
    assert of("heartbeat", sent)
    number, ahead = next(party.numbers), (MANY[600][0], 1, 9)
    beat = seal(
        PROXIES["csr1"], ClientHeartbeat(EMPTY_DIGEST, (ahead,)),
        place_of(HEARTBEAT, "main", "csr1", "", boot=1, seq=number),
    )  # fmt: skip
    (recovery,) = of("recovery-request", party.ask(to("ue1"), HEARTBEAT, "main", "csr1", seq=number, payload=beat))
    asked = recovery.read(RecoveryRequest)
    assert (asked.known, asked.is_partial) == (((ahead[0], 1, 7),), True)
    (again, *_) = of("join", party.live(2.0))
    request = again.read(JoinRequest)
    assert (request.known, request.is_partial) == ((), True)


# ---------------------------------------------------------------------- the functions


def test_pieces_are_together_the_whole() -> None:
    assert pieces((), 100) == [()]
    for max_bytes in (1, 500, 10**6):  # a position that does not fit goes alone: nobody may be left out
        found = pieces(MANY, max_bytes)
        assert tuple(position for piece in found for position in piece) == MANY
        assert all(len(piece) == 1 or sum(map(encoded_size_bytes, piece)) <= max_bytes for piece in found)


def test_what_is_lacking_comes_first() -> None:
    vector = (("a", 1, 5), ("b", 1, 5), ("c", 1, 5))
    assert lacking_first(vector, (("a", 1, 5), ("b", 1, 4), ("c", 1, 6))) == [vector[1], vector[0], vector[2]]


def test_small_state_is_told_as_a_whole() -> None:
    assert known_for_request(MANY[:10], tuple) == (MANY[:10], False)
    behind = MANY[:500]
    known, is_partial = known_for_request(MANY, lambda: behind)
    assert is_partial
    assert known == behind[: len(known)]
    assert KNOWN_MAX_BYTES - 100 < sum(map(encoded_size_bytes, known)) <= KNOWN_MAX_BYTES


@pytest.mark.parametrize("conferences", [0, 1, 3, 300])
def test_heartbeats_of_many_conferences(conferences: int) -> None:
    longest = tuple((f"{number:03}{LONGEST[3:]}", NUMBER_MAX, NUMBER_MAX) for number in range(150))
    states = [ConferenceState(f"{number:03}{LONGEST[3:]}", EMPTY_DIGEST, longest) for number in range(conferences)]
    batches = list(heartbeats(states))
    for batch in batches:
        assert encoded_size_bytes(ProxyHeartbeat(batch)) <= PACKET_MAX_BYTES - 700
    told = [(state.conference, position) for batch in batches for state in batch for position in state.current]
    assert told == [(state.conference, position) for state in states for position in state.current]
