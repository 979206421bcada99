"""Messages that somebody wants to do harm with: each is refused, with a reason that is counted, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.core.events import LOCAL_FACE, PacketReceived, RevokeRequested
from proxy.core.session_key import proven_ack
from proxy.core.signing import fingerprint
from proxy.core.trust import entry_statement, place_of, place_of_message, seal
from proxy.wire.message_names import (
    ALL_PROXIES,
    CLOSE,
    HEARTBEAT,
    JOIN,
    LOGIN,
    NOTIFY,
    PRESENCE,
    PUSH,
    RECOVER,
    REVOKE,
    SYNC,
    UPDATE,
    message_name,
    node_prefix,
    parse_message_name,
)
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    CloseRequest,
    ConferenceState,
    Head,
    JoinReply,
    LoginReply,
    Notification,
    ProxyHeartbeat,
    RecoveryReply,
    Revocation,
    Revocations,
    RosterEvent,
    Snapshot,
    SnapshotManifest,
    StreamEntry,
    StreamHead,
    SyncUpdate,
    UpdateAck,
)
from proxy.wire.name import component, from_uri
from proxy.wire.packet import Interest, encode_data, encode_interest
from proxy.wire.payload import encode
from tests.simulated.attacker import OWN_KEY, Attacker, answer_first, overhear, token
from tests.simulated.conference import TIERS, Conference


@pytest.fixture
def conference() -> Conference:
    conference = Conference(TIERS)
    conference.join([ue for ue in conference.ues if ue != "ue8"])  # the attacker sits at ue8
    return conference


@pytest.fixture
def attacker(conference: Conference) -> Iterator[Attacker]:
    """After each attack: nobody has noticed anything, and the conference goes on."""
    attacker = Attacker(conference)
    yield attacker
    conference.publish_everywhere(rounds=2, interval_s=0.3)
    conference.assert_invariants()


def refused(conference: Conference, process: str, reason: str) -> int:
    return conference.network.counters(process).get(f"refused_{reason}", 0)


# ---------------------------------------------------------------------- updates


def test_forged_update(conference: Conference, attacker: Attacker) -> None:
    victim_key = attacker.key_of("ue1").public_key
    forged = attacker.update("ue1", OWN_KEY)
    attacker.send_update("csr1", forged)
    assert refused(conference, "csr1.proxy", "fingerprint_of_other_key") == 1
    attacker.send_update("csr1", attacker.update("ue1", OWN_KEY, fingerprint=fingerprint(victim_key)))
    assert refused(conference, "csr1.proxy", "update_forged") == 1


def test_replayed_update(conference: Conference, attacker: Attacker) -> None:
    heard = overhear(conference, "csr1.proxy", UPDATE)
    conference.publish("ue1")
    conference.run_for(0.5)
    before = conference.network.counters("csr1.proxy")["updates_accepted"]
    attacker.replay(heard[-1])
    counters = conference.network.counters("csr1.proxy")
    assert (counters["updates_accepted"], counters["updates_repeated"]) == (before, 1)


def test_update_for_another_device(conference: Conference, attacker: Attacker) -> None:
    own = attacker.key_of("ue7")  # a participant who signs with its own key what is said to be of ue1
    attacker.send_update("csr1", attacker.update("ue1", own))
    assert refused(conference, "csr1.proxy", "fingerprint_of_other_key") == 1
    signed = attacker.update("ue7", own)
    name = message_name(node_prefix("csr1"), UPDATE, "main", "ue1", boot=1, seq=2)
    attacker.send(name, signed)
    assert refused(conference, "csr1.proxy", "update_under_other_name") == 1


def test_update_of_somebody_who_has_not_joined(conference: Conference, attacker: Attacker) -> None:
    attacker.send_update("csr1", attacker.update("ue8", attacker.key_of("ue8")))
    assert refused(conference, "csr1.proxy", "not_joined") == 1


def test_sequence_number_jump(conference: Conference, attacker: Attacker) -> None:
    attacker.send_update("csr1", attacker.update("ue1", attacker.key_of("ue1"), seq=1_000_000))
    assert refused(conference, "csr1.proxy", "sequence_jump") == 1


def test_update_of_another_conference_in_a_signed_stream(conference: Conference, attacker: Attacker) -> None:
    """A proxy is no licence: what it signs is still not the publisher's."""
    conference.run_for(0.1)
    proxy_key = attacker.key_of("csr1")
    forged = attacker.update("ue1", OWN_KEY)
    core = conference.network.proxy("csr2").conferences["main"]
    stream = core.log.stream("csr1", 1)
    entry = StreamEntry("csr1", 1, stream.seq + 100, "push", b"")
    sync_update = SyncUpdate(EMPTY_DIGEST, (forged,))
    signature = proxy_key.sign(entry_statement("main", entry, sync_update))
    content = encode(SyncUpdate(EMPTY_DIGEST, (forged,), signature=signature))
    name = message_name(node_prefix("csr2"), PUSH, "main", "csr1", boot=1, seq=entry.seq)
    attacker.send(name, StreamEntry("csr1", 1, entry.seq, "push", content))
    assert refused(conference, "csr2.proxy", "fingerprint_of_other_key") == 1
    assert core.log.view.seq("ue1", 1) == conference.network.client("ue1").view.seq("ue1", 1)
    del core.log.stream("csr1", 1).early[entry.seq]  # the proxy itself would have to be broken: take it back
    core.log.stream("csr1", 1).announced_seq = stream.seq


def test_close_of_another_device(conference: Conference, attacker: Attacker) -> None:
    leave = attacker.update("ue1", OWN_KEY, event="leave")
    attacker.send(message_name(node_prefix("csr1"), CLOSE, "main", "ue1", boot=1, seq=2), CloseRequest(leave))
    assert refused(conference, "csr1.proxy", "fingerprint_of_other_key") == 1
    assert "ue1" in conference.network.client("ue3").view.roster()


# ---------------------------------------------------------------------- joins


def test_replayed_join(conference: Conference, attacker: Attacker) -> None:
    heard = overhear(conference, "csr4.proxy", JOIN)
    conference.join(["ue8"])
    (join, *_) = heard
    conference.run_for(11.0)
    attacker.replay(join)
    assert refused(conference, "csr4.proxy", "join_replayed") == 1
    conference.close("ue8")
    conference.run_for(1.0)
    attacker.replay(join)
    assert refused(conference, "csr4.proxy", "join_replayed") == 2
    assert "ue8" not in conference.network.proxy("csr4").conferences["main"].clients


def test_stolen_token(conference: Conference, attacker: Attacker) -> None:
    attacker.send_join("csr4", "ue1", attacker.token_of("ue1"), OWN_KEY, number=50)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "join_without_key") == 1
    attacker.send_join("csr4", "ue8", attacker.token_of("ue1"), attacker.key_of("ue8"), number=50)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "token_of_other_device") == 1


def test_forged_token(conference: Conference, attacker: Attacker) -> None:
    attacker.send_join("csr4", "ue8", token(OWN_KEY, "ue8", OWN_KEY), OWN_KEY, number=1)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "token_forged") == 1


def test_expired_token(conference: Conference, attacker: Attacker) -> None:
    login, own = attacker.key_of("login"), attacker.key_of("ue8")
    attacker.send_join("csr4", "ue8", token(login, "ue8", own, expires_s=conference.now_s - 1.0), own, number=1)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "token_expired") == 1
    attacker.send_join("csr4", "ue8", token(login, "ue8", own, expires_s=float("nan")), own, number=1)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "token_expired") == 2


def test_token_of_another_conference(conference: Conference, attacker: Attacker) -> None:
    login, own = attacker.key_of("login"), attacker.key_of("ue8")
    attacker.send_join("csr4", "ue8", token(login, "ue8", own, conference="other"), own, number=1)
    conference.run_for(0.2)
    assert refused(conference, "csr4.proxy", "token_of_other_conference") == 1


def test_revoked_device(conference: Conference, attacker: Attacker) -> None:
    stolen = attacker.token_of("ue7")
    conference.network.send("login", RevokeRequested("ue7"))
    conference.members.discard("ue7")
    conference.run_for(0.5)
    own = attacker.key_of("ue7")
    attacker.send_join("csr1", "ue7", stolen, own, number=70)
    conference.run_for(0.2)
    assert refused(conference, "csr1.proxy", "revoked") == 1
    attacker.send_update("csr4", attacker.update("ue7", own))
    assert refused(conference, "csr4.proxy", "not_joined") >= 1


def test_forged_revocation(conference: Conference, attacker: Attacker) -> None:
    revocations = Revocations((Revocation("ue1", conference.now_s),))
    name = message_name(ALL_PROXIES, REVOKE, "login", boot=1, seq=1)
    attacker.send(name, seal(OWN_KEY, revocations, place_of(REVOKE, "login", boot=1, seq=0)))
    for csr in conference.csrs:
        assert refused(conference, f"{csr}.proxy", "seal_forged") == 1
    assert conference.network.client("ue1").state == "joined"


def test_flood_of_joins_leaves_the_others_their_latency(conference: Conference, attacker: Attacker) -> None:
    conference.join(["ue8"])
    login, own = attacker.key_of("login"), attacker.key_of("ue8")
    valid = token(login, "ue8", own)

    def flood(number: int) -> None:
        attacker.send_join("csr4", "ue8", valid, own, number=100 + number)

    for number in range(1_000):
        conference.at(number / 1_000, lambda number=number: flood(number))  # type: ignore[misc]
    start_s = conference.now_s
    for round_ in range(4):
        conference.at(0.2 + 0.2 * round_, lambda: conference.publish("ue1"))
        conference.at(0.2 + 0.2 * round_, lambda: conference.publish("ue7"))
    conference.run_for(2.0)
    counters = conference.network.counters("csr4.proxy")
    assert counters["refused_join_flood"] >= 900
    late = [
        each
        for each in conference.deliveries(since_s=start_s)
        if each.publisher != "ue8" and each.receiver != "ue8" and each.latency_ms > each.path_delay_ms + 0.01
    ]
    assert not late
    conference.members.discard("ue8")  # whose user did this has to join again, and will
    conference.members.add("ue8")
    conference.run_for(3.0)


def test_flood_of_joins_without_tokens(conference: Conference, attacker: Attacker) -> None:
    for number in range(500):
        device = f"nobody{number}"
        forged = token(OWN_KEY, device, OWN_KEY)
        attacker.send_join("csr4", device, forged, OWN_KEY, number=1)
        conference.run_for(0.001)
    counters = conference.network.counters("csr4.proxy")
    assert counters["refused_token_forged"] <= 150
    assert counters["refused_join_flood"] >= 300


# ---------------------------------------------------------------------- proxies


def test_forged_sync_update(conference: Conference, attacker: Attacker) -> None:
    """Pushed, and as the answer to an armed sync interest."""
    seq = conference.network.proxy("csr2").conferences["main"].log.stream("csr1", 1).seq + 1
    entry = StreamEntry("csr1", 1, seq, "push", b"")
    empty = SyncUpdate(bytes(range(16)), ())
    content = encode(SyncUpdate(bytes(range(16)), (), signature=OWN_KEY.sign(entry_statement("main", entry, empty))))
    name = message_name(node_prefix("csr2"), PUSH, "main", "csr1", boot=1, seq=seq)
    attacker.send(name, StreamEntry("csr1", 1, seq, "push", content))
    assert refused(conference, "csr2.proxy", "sync_update_forged") == 1
    data = encode_data(message_name(node_prefix("csr1"), SYNC, "main", boot=1, seq=seq), content, freshness_ms=600_000)
    conference.network.send("csr2", PacketReceived(1, data))  # from a router that lies; the content store keeps it
    conference.run_for(0.5)
    assert refused(conference, "csr2.proxy", "sync_update_forged") >= 2
    assert conference.network.proxy("csr2").conferences["main"].log.stream("csr1", 1).seq == seq - 1


def test_sync_update_of_an_unknown_proxy(conference: Conference, attacker: Attacker) -> None:
    content = encode(SyncUpdate(EMPTY_DIGEST, (), roster=(RosterEvent("ue1", 1, 2**60, 1, "left"),)))
    name = message_name(node_prefix("csr2"), PUSH, "main", "ue8", boot=1, seq=1)
    attacker.send(name, StreamEntry("ue8", 1, 1, "push", content))
    assert refused(conference, "csr2.proxy", "sync_update_of_unknown_proxy") == 1


def test_forged_heartbeat_of_a_proxy(conference: Conference, attacker: Attacker) -> None:
    before = conference.network.counters("csr2.proxy").get("recovery_requests", 0)
    beat = ProxyHeartbeat((ConferenceState("main", bytes(16), (("csr1", 1, 10**9), ("nowhere", 1, 10**9))),))
    place = place_of(HEARTBEAT, "csr1", boot=1, seq=10**6)
    attacker.send(message_name(ALL_PROXIES, HEARTBEAT, "csr1", boot=1, seq=10**6), seal(OWN_KEY, beat, place))
    assert refused(conference, "csr2.proxy", "seal_forged") == 1
    conference.run_for(1.0)
    assert conference.network.counters("csr2.proxy").get("recovery_requests", 0) == before


def test_replayed_heartbeat_of_a_dead_proxy(conference: Conference, attacker: Attacker) -> None:
    heard = overhear(conference, "csr2.proxy", HEARTBEAT)
    conference.run_for(0.5)
    beats = [each for each in heard if component("csr3") in each.name and each.name.startswith(ALL_PROXIES)]
    attacker.replay(beats[0])
    assert refused(conference, "csr2.proxy", "heartbeat_replayed") == 1


def test_forged_heartbeat_and_notification_to_a_client(conference: Conference, attacker: Attacker) -> None:
    beat = ClientHeartbeat(bytes(16), (("csr1", 1, 10**9),), "revoked")
    name = message_name(node_prefix("ue1"), HEARTBEAT, "main", "csr1", boot=1, seq=10**6)
    place = place_of(HEARTBEAT, "main", "csr1", "ue1", boot=1, seq=10**6)
    attacker.send(name, seal(OWN_KEY, beat, place))
    assert refused(conference, "ue1.forwarder", "seal_forged") == 1
    seq = conference.network.proxy("csr1").conferences["main"].own.seq + 1
    entry = StreamEntry("csr1", 1, seq, "push", encode(SyncUpdate(EMPTY_DIGEST, ())))
    name = message_name(node_prefix("ue1"), NOTIFY, "main", "csr1", boot=1, seq=10**6)
    attacker.send(name, Notification((), (), (entry,)))
    assert refused(conference, "ue1.forwarder", "sync_update_forged") == 1


def test_end_of_one_session_does_not_end_another(conference: Conference, attacker: Attacker) -> None:
    heard = overhear(conference, "ue7.forwarder", HEARTBEAT)
    conference.join(["ue8"])
    conference.network.send("login", RevokeRequested("ue7"))
    conference.members.discard("ue7")
    conference.run_for(0.5)
    last = heard[-1]
    attacker.ue = "ue1"
    name = last.name.replace(component("ue7"), component("ue8"))[: -2 - 32]
    attacker.send(name, last.parameters or b"")
    counters = conference.network.counters("ue8.forwarder")
    assert counters.get("refused_seal_forged", 0) + counters.get("refused_heartbeat_replayed", 0) >= 1
    assert conference.network.client("ue8").state == "joined"


# ---------------------------------------------------------------------- what proxies answer


INVENTED = Snapshot((Head("nobody", 1, 7, EMPTY_DIGEST, joined=True),), (StreamHead("csr1", 1, 10**9, EMPTY_DIGEST),))


@pytest.mark.parametrize(
    "reply",
    [
        JoinReply(True, "", (), INVENTED, ()),
        JoinReply(True, "", (), None, (), manifest=SnapshotManifest(1, 100, bytes(32))),
        JoinReply(False, "revoked", (), None, ()),
    ],
    ids=["snapshot", "manifest", "refusal"],
)
def test_forged_join_reply(conference: Conference, attacker: Attacker, reply: JoinReply) -> None:
    """The client waits for the true one."""

    def forge(interest: Interest) -> bytes:
        return encode(seal(attacker.key_of("ue7"), reply, place_of_message(parse_message_name(interest.name))))

    answer_first(conference, "csr4.proxy", JOIN, "ue8", forge)
    conference.join(["ue8"])
    assert refused(conference, "ue8.forwarder", "seal_forged") == 1
    assert "nobody" not in conference.network.client("ue8").view.roster()


@pytest.mark.parametrize(
    "reply",
    [LoginReply(False, "revoked", None, ()), LoginReply(True, "", None, ("csr9",))],
    ids=["refusal", "proxies"],
)
def test_forged_login_reply(conference: Conference, attacker: Attacker, reply: LoginReply) -> None:
    """The client neither gives up nor turns to a proxy that somebody else names: it waits for the true answer."""

    def forge(interest: Interest) -> bytes:
        return encode(seal(attacker.key_of("ue7"), reply, place_of_message(parse_message_name(interest.name))))

    answer_first(conference, "login.forwarder", LOGIN, "ue8", forge)
    conference.join(["ue8"])
    assert refused(conference, "ue8.forwarder", "seal_forged") == 1
    assert "ue8" in conference.network.client("ue1").view.roster()


def test_forged_snapshot_for_a_proxy(conference: Conference, attacker: Attacker) -> None:
    """A proxy that has lost its disk asks for everything, and a router answers."""

    def forge(interest: Interest) -> bytes:
        reply = RecoveryReply((), INVENTED, ())
        return encode(seal(attacker.key_of("csr3"), reply, place_of_message(parse_message_name(interest.name))))

    conference.publish_everywhere(rounds=12, interval_s=0.1)  # more is missing than is asked for one by one
    conference.network.crash("csr2.proxy")
    conference.network.lose_disk("csr2.proxy")
    answer_first(conference, "csr1.proxy", RECOVER, "csr2", forge)
    answer_first(conference, "csr4.proxy", RECOVER, "csr2", forge)
    conference.run_for(1.0)
    conference.network.restart("csr2.proxy")
    conference.run_for(2.0)
    assert refused(conference, "csr2.proxy", "seal_forged") >= 1
    assert "nobody" not in conference.network.proxy("csr2").conferences["main"].log.view.roster()


def test_forged_ack(conference: Conference, attacker: Attacker) -> None:
    """What a router says was accepted and never was is published all the same."""
    before = conference.network.counters("csr1.proxy")["updates_accepted"]

    def forge(interest: Interest) -> bytes:
        name = parse_message_name(interest.name)
        ack = UpdateAck("durable", "", "csr1", 1, 10**9 + name.seq)
        return encode(proven_ack(ack, interest.name, None, attacker.key_of("ue7")))

    answer_first(conference, "csr1.proxy", UPDATE, "ue1", forge)
    conference.publish("ue1")
    conference.run_for(1.0)
    assert refused(conference, "ue1.forwarder", "ack_forged") == 1
    assert conference.network.counters("csr1.proxy")["updates_accepted"] == before + 1
    assert conference.network.client("ue1").positions.behind((("csr1", 1, 10**9 + 1),))


def test_forged_refusal_of_an_update(conference: Conference, attacker: Attacker) -> None:
    del attacker
    answer_first(
        conference, "csr1.proxy", UPDATE, "ue1", lambda _: encode(UpdateAck("refused", "revoked", "csr1", 1, 0))
    )
    conference.publish("ue1")
    conference.run_for(1.0)
    assert refused(conference, "ue1.forwarder", "ack_forged") == 1
    assert conference.network.client("ue1").state == "joined"


def test_forged_and_replayed_heartbeat_of_a_client(conference: Conference, attacker: Attacker) -> None:
    heard = overhear(conference, "csr1.proxy", PRESENCE)
    conference.run_for(0.5)
    beats = [each for each in heard if component("ue1") in each.name and not each.name.startswith(ALL_PROXIES)]
    attacker.send(
        message_name(node_prefix("csr1"), PRESENCE, "main", "ue1", boot=1, seq=10**6),
        ClientHeartbeat(EMPTY_DIGEST, ()),
    )
    assert refused(conference, "csr1.proxy", "heartbeat_forged") == 1
    attacker.replay(beats[0])
    assert refused(conference, "csr1.proxy", "heartbeat_replayed") == 1


# ---------------------------------------------------------------------- packets


@pytest.mark.usefixtures("attacker")
def test_name_with_thousands_of_components(conference: Conference) -> None:
    name = from_uri("/hconf/csr1") + component("x") * 2_500
    _, packet = encode_interest(name, nonce=1, lifetime_ms=1_000)
    conference.network.send("ue8", PacketReceived(LOCAL_FACE, packet))
    assert conference.network.counters("ue8.forwarder")["malformed"] == 1
    conference.network.processes["ue8.forwarder"].core.counters["malformed"] = 0  # expected, and no other


def test_interests_that_fill_the_pit_leave_room_for_others() -> None:
    conference = Conference(TIERS, forwarder_settings={"pit_max_entries": 800})
    conference.join()
    start_s = conference.now_s

    def flood(first: int) -> None:
        for number in range(first, first + 20):
            name = message_name(node_prefix("csr1"), SYNC, "nowhere", boot=1, seq=number)
            _, packet = encode_interest(name, nonce=number, lifetime_ms=30_000)
            # as a host would that is not held back by its own forwarder
            link = conference.topology.links_of("ue8")[0]
            router = link.other_end("ue8")
            core = conference.network.processes[f"{router}.forwarder"].core
            face = next(each for each in core.faces.values() if each.link == link.name)  # type: ignore[union-attr]
            conference.network.send(router, PacketReceived(face.face_id, packet))

    for index in range(100):
        conference.at(index / 50, lambda index=index: flood(1 + 20 * index))  # type: ignore[misc]
    for round_ in range(8):
        conference.at(0.2 + 0.2 * round_, lambda: conference.publish("ue1"))
        conference.at(0.25 + 0.2 * round_, lambda: conference.publish("ue7"))
    conference.run_for(3.0)
    counters = conference.network.counters("csr4.forwarder")
    assert counters["refused_pit_share"] >= 1_800
    assert counters["pit_peak"] < 800
    late = [each for each in conference.deliveries(since_s=start_s) if each.latency_ms > each.path_delay_ms + 0.01]
    assert not late
    conference.run_for(30.0)  # its own client finds no room beside it, until what it asked for has expired
    conference.assert_invariants()
