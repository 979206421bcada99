"""A service proxy that hands over, a client that is told to go, and the client of a UE that has a proxy of its own."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import ClientConfig, FaceConfig, ForwarderConfig, NextHopConfig, NodeConfig, RouteConfig
from proxy.core.build import build_core, service_face
from proxy.core.events import (
    LOCAL_FACE,
    SERVICE_FACE,
    CarrierChanged,
    CloseRequested,
    JoinRequested,
    PacketReceived,
    Send,
)
from proxy.core.hand_over import HandOver
from proxy.core.host import Host
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy
from proxy.core.trust import place_of, seal
from proxy.records import ServiceChanged, SessionChanged
from proxy.wire.lp import decode_link_packet
from proxy.wire.message_names import (
    ALL_PROXIES,
    HEARTBEAT,
    JOIN,
    KEYS,
    NOTIFY,
    PRESENCE,
    PUSH,
    RECOVER,
    REVOKE,
    SERVE,
    SYNC,
    UPDATE,
    message_name,
    node_prefix,
)
from proxy.wire.messages import (
    EMPTY_DIGEST,
    HANDING_OVER,
    ClientHeartbeat,
    ConferenceState,
    JoinReply,
    LoginReply,
    ProxyHeartbeat,
    Revocation,
    Revocations,
    Sealed,
    ServeReply,
    ServeRequest,
    Snapshot,
    UpdateAck,
)
from proxy.wire.packet import decode_interest, encode_data, encode_interest
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.parties import (
    LOGIN,
    NOW_S,
    PROXIES,
    TRUSTED,
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


def hand_over(party: Party) -> HandOver:
    assert isinstance(party.core, ServiceProxy)
    return party.core.hand_over


def serve(
    party: Party, *, serves: bool, number: int | None = None, by: str = "csr1", boot: int = 1
) -> ServeReply | None:
    """Let the device of the proxy under test say whether to serve; None: no answer."""
    number = next(party.numbers) if number is None else number
    sealed = seal(PROXIES[by], ServeRequest(serves), place_of(SERVE, "csr1", boot=boot, seq=number))
    replies = of("serve-reply", party.ask(ME, SERVE, "csr1", seq=number, payload=sealed, boot=boot))
    return replies[0].read(ServeReply) if replies else None


def join(party: Party, device: str = "ue1", seq: int = 1) -> JoinReply:
    signer = UE1 if device == "ue1" else UE2
    request = join_request(token(device, signer), signer, device=device, seq=seq)
    (reply,) = of("join-reply", party.ask(ME, JOIN, "main", device, seq=seq, payload=request))
    return reply.read(JoinReply)


def hear(party: Party, sender: str, *positions: tuple[str, int, int]) -> list[Sent]:
    beat, number = ProxyHeartbeat((ConferenceState("main", EMPTY_DIGEST, positions),)), next(party.numbers)
    sealed = seal(PROXIES[sender], beat, place_of(HEARTBEAT, sender, boot=1, seq=number))
    return party.ask(ALL_PROXIES, HEARTBEAT, sender, seq=number, payload=sealed)


def states(party: Party) -> list[str]:
    return [record.state for record in party.records if isinstance(record, ServiceChanged)]


def ended(sent: list[Sent]) -> list[str]:
    """Return why clients are told that their sessions end."""
    beats = [each for each in of("heartbeat", sent) if not each.name.startswith(ALL_PROXIES)]
    return [beat.ended for each in beats if (beat := decode(each.read(Sealed).content, ClientHeartbeat)).ended]


def serving() -> Party:
    """Return a proxy with one client, an update of it, and another proxy that has heard nothing yet."""
    party = proxy_party()
    assert join(party).granted
    party.ask(ME, UPDATE, "main", "ue1", seq=1, payload=signed_update(1, "join"))
    hear(party, "csr2")
    return party


# ---------------------------------------------------------------------- the proxy


def test_clients_are_told_to_go_until_they_have() -> None:
    party = serving()
    number = next(party.numbers)
    sealed = seal(PROXIES["csr1"], ServeRequest(False), place_of(SERVE, "csr1", boot=1, seq=number))
    sent = party.ask(ME, SERVE, "csr1", seq=number, payload=sealed)
    assert ended(sent)[:1] == [HANDING_OVER]
    assert of("serve-reply", sent)[0].read(ServeReply) == ServeReply(False)
    assert states(party) == ["handing-over"]
    # It is served for as long as it is heard here.
    for number in range(5):
        presence = ClientHeartbeat(EMPTY_DIGEST, ())
        party.ask(ME, PRESENCE, "main", "ue1", seq=1_000 + number, payload=presence)
        hear(party, "csr2", ("csr1", 1, 1))
        assert ended(party.live(0.25))
    (ack,) = of("update-ack", party.ask(ME, UPDATE, "main", "ue1", seq=2, payload=signed_update(2, "message")))
    assert ack.read(UpdateAck).level == "accepted"
    assert states(party) == ["handing-over"]


def test_nobody_is_admitted_and_all_hear_so_at_once() -> None:
    party = serving()
    serve(party, serves=False)
    for device, number in (("ue1", 2), ("ue2", 1)):
        reply = join(party, device, number)
        assert (reply.granted, reply.reason) == (False, HANDING_OVER)


def gone(party: Party) -> None:
    """Let the only client fall silent, and the other proxy not."""
    for _ in range(5):
        hear(party, "csr2")
        party.live(0.2)


def test_done_is_when_the_others_have_everything() -> None:
    party = serving()
    assert serve(party, serves=False) == ServeReply(False)
    gone(party)
    assert isinstance(party.core, ServiceProxy)
    seq = party.core.conferences["main"].own.seq
    assert serve(party, serves=False) == ServeReply(False), "csr2 has nothing yet"
    hear(party, "csr2", ("csr1", 1, seq - 1))
    assert serve(party, serves=False) == ServeReply(False), "csr2 lacks the last entry"
    hear(party, "csr3")
    hear(party, "csr2", ("csr1", 1, seq))
    assert serve(party, serves=False) == ServeReply(False), "csr3 lacks all"
    hear(party, "csr3", ("csr1", 1, seq))
    assert serve(party, serves=False) == ServeReply(True)
    assert states(party) == ["handing-over", "handed-over"]


def test_while_the_others_are_silent_it_is_not_done() -> None:
    party = serving()
    serve(party, serves=False)
    party.live(10.0)
    assert serve(party, serves=False) == ServeReply(False)


def test_who_has_never_had_a_client_is_done_at_once() -> None:
    party = proxy_party()
    assert serve(party, serves=False) == ServeReply(True)


def test_who_comes_back_to_ask_is_there() -> None:
    """The others cannot be reached: nobody has left, and there is nobody yet to take what this proxy has."""
    party = proxy_party()
    assert join(party).granted
    party.ask(ME, UPDATE, "main", "ue1", seq=1, payload=signed_update(1, "join"))
    serve(party, serves=False)
    for number in range(2, 12):
        party.live(0.4)
        assert join(party, seq=number).reason == HANDING_OVER
    assert isinstance(party.core, ServiceProxy)
    assert party.core.conferences["main"].log.view.roster() == ["ue1"]
    assert serve(party, serves=False) == ServeReply(False)
    party.live(2.0)
    assert party.core.conferences["main"].log.view.roster() == []
    assert serve(party, serves=False) == ServeReply(True), "nobody is there any more"


def handed_over() -> Party:
    party = serving()
    serve(party, serves=False)
    gone(party)
    assert isinstance(party.core, ServiceProxy)
    hear(party, "csr2", ("csr1", 1, party.core.conferences["main"].own.seq))
    assert serve(party, serves=False) == ServeReply(True)
    return party


def test_silent_clients_have_left() -> None:
    party = handed_over()
    assert isinstance(party.core, ServiceProxy)
    assert party.core.conferences["main"].log.view.standings() == {"ue1": "left"}


def test_then_it_is_silent_and_deaf() -> None:
    party = handed_over()
    assert party.live(10.0) == []
    assert hear(party, "csr2", ("csr2", 1, 30)) == []
    assert party.live(10.0) == []
    # What it alone may still have in its log it gives away.
    (update,) = of("sync-update", party.ask(ME, SYNC, "main", seq=1))
    assert update.payload


def test_it_serves_again_when_its_device_comes_back() -> None:
    party = handed_over()
    assert serve(party, serves=True) == ServeReply(True)
    assert states(party) == ["handing-over", "handed-over", "serving"]
    assert of("heartbeat", party.live(0.0))
    assert join(party, "ue2").granted
    assert of("sync-interest", hear(party, "csr2")), "it follows the others again"


def test_the_next_hand_over_is_about_what_there_is_then() -> None:
    party = handed_over()
    assert serve(party, serves=True) == ServeReply(True)
    assert join(party, "ue2").granted
    party.ask(ME, UPDATE, "main", "ue2", seq=1, payload=signed_update(1, "join", device="ue2", signer=UE2))
    assert isinstance(party.core, ServiceProxy)
    before = party.core.conferences["main"].own.seq - 1
    assert serve(party, serves=False) == ServeReply(False)
    gone(party)
    hear(party, "csr2", ("csr1", 1, before))
    assert serve(party, serves=False) == ServeReply(False)
    hear(party, "csr2", ("csr1", 1, party.core.conferences["main"].own.seq))
    assert serve(party, serves=False) == ServeReply(True)


def test_hand_over_is_taken_back() -> None:
    party = serving()
    serve(party, serves=False)
    assert serve(party, serves=True) == ServeReply(True)
    gone(party)
    assert states(party) == ["handing-over", "serving"]
    assert join(party, "ue2").granted


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"by": "csr2"}, "refused_seal_forged"),
        ({"number": 5}, "refused_serve_replayed"),
        ({"boot": 0}, "refused_serve_replayed"),
    ],
)
def test_only_its_own_device_has_a_say_and_each_word_counts_once(request_: dict[str, Any], reason: str) -> None:
    party = serving()
    serve(party, serves=True, number=10_000)
    assert serve(party, serves=False, **{"number": 10_001, **request_}) is None
    assert party.core.counters[reason] == 1
    assert states(party) == []


def test_another_device_has_no_say_under_its_own_name() -> None:
    party = serving()
    sealed = seal(PROXIES["csr2"], ServeRequest(False), place_of(SERVE, "csr2", boot=1, seq=1))
    assert party.ask(ME, SERVE, "csr2", seq=1, payload=sealed) == []
    assert party.core.counters["refused_serve_of_other_device"] == 1


def test_a_repeated_question_is_answered_again() -> None:
    party = serving()
    assert serve(party, serves=False, number=7_000) == serve(party, serves=False, number=7_000) == ServeReply(False)


def revoke(party: Party, device: str) -> None:
    number = next(party.numbers)
    sealed = seal(LOGIN, Revocations((Revocation(device, NOW_S + 1.0),)), place_of(REVOKE, "login", boot=1, seq=0))
    party.ask(ALL_PROXIES, REVOKE, "login", seq=number, payload=sealed)


def test_the_proxy_of_a_revoked_device_hands_over_for_good() -> None:
    party = serving()
    revoke(party, "ue2")
    assert states(party) == []
    revoke(party, "csr1")
    assert states(party) == ["handing-over"]
    assert serve(party, serves=True) == ServeReply(False)
    assert not join(party, "ue2").granted


# ---------------------------------------------------------------------- a client that is told to go


def client_joined(**settings: Any) -> Party:
    party = client_party(**settings)
    (login,) = of("login", party.handle(JoinRequested()))
    (question,) = of("join", party.answer(login, LoginReply(True, "", token(), ("csr1", "csr2", "csr3"))))
    (update,) = of("update", party.answer(question, JoinReply(True, "", (), Snapshot((), ()), ())))
    party.answer(update, UpdateAck("accepted", "", "csr1", 1, 1))
    return party


def beat(party: Party, ended: str = "", proxy: str = "csr1") -> list[Sent]:
    number = next(party.numbers)
    place = place_of(HEARTBEAT, "main", proxy, ended and "ue1", boot=1, seq=number)
    payload = seal(PROXIES[proxy], ClientHeartbeat(EMPTY_DIGEST, (), ended), place)
    return party.ask(to("ue1"), HEARTBEAT, "main", proxy, seq=number, payload=payload)


def tell_to_go(party: Party) -> list[Sent]:
    return beat(party, HANDING_OVER)


def sessions(party: Party) -> list[tuple[str, str, str]]:
    return [(r.proxy, r.state, r.reason) for r in party.records if isinstance(r, SessionChanged)]


def asked(sent: list[Sent]) -> list[str]:
    """Return which proxies are asked to join."""
    return [proxy for each in of("join", sent) for proxy in PROXIES if each.name.startswith(to(proxy))]


def test_who_is_told_to_go_joins_the_next_proxy_at_once() -> None:
    party = client_joined()
    sent = tell_to_go(party)
    assert asked(sent) == ["csr2"]
    party.answer(of("join", sent)[0], JoinReply(True, "", (), None, ()))
    assert sessions(party)[-2:] == [("csr1", "suspect", HANDING_OVER), ("csr2", "joined", "suspect no more")]
    assert tell_to_go(party) == [], "of a proxy that it has left"


def test_who_is_refused_for_that_asks_the_next() -> None:
    party = client_joined()
    refusal = JoinReply(False, HANDING_OVER, (), None, ())
    first = of("join", tell_to_go(party))
    second = of("join", party.answer(first[0], refusal))
    assert asked(second) == ["csr3"]
    third = of("join", party.answer(second[0], refusal))
    assert asked(third) == ["csr1"]
    fourth = of("join", party.answer(third[0], refusal))
    assert asked(fourth) == ["csr1"], "all have refused: once more the nearest"
    assert of("join", party.answer(fourth[0], refusal)) == [], "and then not at once"
    assert asked(party.live(0.25))[:1] == ["csr2"]
    assert sessions(party)[-1][1] == "suspect"


def test_who_is_about_to_leave_there_does_not_move() -> None:
    party = client_joined()
    (close,) = of("close", party.handle(CloseRequested()))
    assert tell_to_go(party) == []
    party.answer(close, UpdateAck("accepted", "", "csr1", 1, 2))
    assert sessions(party)[-1][1:] == ("closed", "close reply")


# ---------------------------------------------------------------------- a client with a proxy of its own


def with_own_proxy() -> Party:
    party = client_joined(own_proxy=True)
    party.live(0.0)
    return party


def test_it_tells_its_proxy_to_serve_when_it_comes() -> None:
    party = client_party(own_proxy=True)
    (question,) = of("serve-request", party.handle(JoinRequested()))
    assert question.name.startswith(to("ue1"))
    sealed = decode(question.payload, Sealed)
    assert decode(sealed.content, ServeRequest) == ServeRequest(True)
    assert of("serve-request", party.answer(question, ServeReply(True))) == []
    assert of("serve-request", client_party().handle(JoinRequested())) == []


def answered_serve(party: Party) -> Party:
    """Let the question of the beginning be answered."""
    (question,) = of("serve-request", party.live(0.3))
    party.answer(question, ServeReply(True))
    return party


def test_it_leaves_once_its_proxy_has_handed_over() -> None:
    party = answered_serve(with_own_proxy())
    sent = party.handle(CloseRequested())
    assert [each.message for each in sent] == ["serve-request"]
    assert party.answer(sent[0], ServeReply(False)) == []
    (again,) = of("serve-request", party.live(0.11))
    assert again.name != sent[0].name
    assert [each.message for each in party.answer(again, ServeReply(True))] == ["close"]


def test_it_leaves_though_its_proxy_does_not_answer() -> None:
    party = answered_serve(with_own_proxy())
    sent = party.handle(CloseRequested())
    for _ in range(4):
        (question,) = of("serve-request", sent)
        party.refuse(question)
        beat(party)
        sent = party.live(0.33)
    assert of("close", sent)


def test_it_leaves_at_another_proxy_if_its_own_one_is_dead() -> None:
    party = client_party(own_proxy=True)
    sent = party.handle(JoinRequested())
    (login,) = of("login", sent)
    (question,) = of("join", party.answer(login, LoginReply(True, "", token(), ("ue1", "csr2"))))
    (update,) = of("update", party.answer(question, JoinReply(True, "", (), Snapshot((), ()), ())))
    party.answer(update, UpdateAck("accepted", "", "ue1", 1, 1))
    party.answer(of("serve-request", sent)[0], ServeReply(True))
    party.handle(CloseRequested())
    sent = party.live(0.5)
    assert of("close", sent) == []
    assert of("join", sent)[0].name.startswith(to("ue1"))
    while not (to_next := [each for each in of("join", party.live(0.05)) if each.name.startswith(to("csr2"))]):
        assert party.now_s < NOW_S + 5.0
    (close,) = of("close", party.answer(to_next[0], JoinReply(True, "", (), None, ())))
    assert close.name.startswith(to("csr2"))


def test_a_second_close_changes_nothing() -> None:
    party = answered_serve(with_own_proxy())
    party.handle(CloseRequested())
    assert party.handle(CloseRequested()) == []


# ---------------------------------------------------------------------- demultiplexing


def proxy_ue() -> Host:
    """Return the forwarder process of ue1, a proxy UE with one link."""
    face = FaceConfig(1, "core1-ue1", "eth0", "127.0.0.1", "127.0.0.2", "core1")
    routes = {"/hconf/ue1": -1, "/hconf/ue1/32=notify": 0, "/hconf/ue1/32=heartbeat": 0, "/hconf": 1}
    config = NodeConfig(
        "run", "ue1", "ue", "forwarder", 1, 1, "records",
        forwarder=ForwarderConfig(
            (face,),
            tuple(RouteConfig(prefix, (NextHopConfig(face_id, 0.0),)) for prefix, face_id in routes.items()),
            service_socket="socket",
        ),
        client=ClientConfig(key_seed_hex=(bytes([1]) * 32).hex(), own_proxy=True, **TRUSTED),
    )  # fmt: skip
    assert service_face(config) == SERVICE_FACE
    core = build_core(config)
    assert isinstance(core, Host)
    assert not core.forwarder.faces[SERVICE_FACE].is_up, "nobody has attached"
    core.handle(CarrierChanged(SERVICE_FACE, up=True), now_s=NOW_S)
    return core


def interest(kind: bytes, *parts: str, seq: int = 1) -> bytes:
    name = message_name(node_prefix("ue1"), kind, *parts, boot=1, seq=seq)
    return encode_interest(name, nonce=seq, lifetime_ms=1_000, parameters=b"")[1]


@pytest.mark.parametrize("kind", [JOIN, UPDATE, SYNC, PUSH, PRESENCE, RECOVER, KEYS, SERVE])
def test_what_is_for_a_proxy_reaches_the_proxy(kind: bytes) -> None:
    core = proxy_ue()
    effects = core.handle(PacketReceived(1, interest(kind, "main", "ue2")), now_s=NOW_S)
    (send,) = [each for each in effects if isinstance(each, Send) and each.face_id == SERVICE_FACE]
    assert decode_interest(decode_link_packet(send.packet).fragment).name
    assert isinstance(core.application, ServiceClient)
    assert not core.application.counters
    core.handle(CarrierChanged(SERVICE_FACE, up=False), now_s=NOW_S)
    before = core.counters["nacks_sent"]
    effects = core.handle(PacketReceived(1, interest(kind, "main", "ue2", seq=2)), now_s=NOW_S)
    assert not [each for each in effects if isinstance(each, Send) and each.face_id == SERVICE_FACE]
    assert core.counters["nacks_sent"] == before + 1, "it is the only one who could answer"


@pytest.mark.parametrize("kind", [NOTIFY, HEARTBEAT])
@pytest.mark.parametrize("face_id", [1, SERVICE_FACE])
def test_what_is_for_a_client_reaches_the_client(kind: bytes, face_id: int) -> None:
    """From another proxy over the link, or from the one beside it."""
    core = proxy_ue()
    effects = core.handle(PacketReceived(face_id, interest(kind, "other", "ue1")), now_s=NOW_S)
    assert not [each for each in effects if isinstance(each, Send) and each.face_id == SERVICE_FACE]
    assert core.application.counters == {"malformed": 1}, "it is of no conference of this client"


def test_client_and_proxy_of_one_ue_talk_through_the_forwarder() -> None:
    core = proxy_ue()
    effects = core.handle(JoinRequested(), now_s=NOW_S)
    (send,) = [each for each in effects if isinstance(each, Send) and each.face_id == SERVICE_FACE]
    question = decode_interest(decode_link_packet(send.packet).fragment)
    answer = PacketReceived(SERVICE_FACE, encode_data(question.name, encode(ServeReply(True))))
    assert not core.handle(answer, now_s=NOW_S)
    assert isinstance(core.application, ServiceClient)
    assert not core.application.counters
    assert LOCAL_FACE in core.forwarder.faces
