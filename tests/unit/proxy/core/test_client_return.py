"""A client that is not at its nearest proxy: when it asks that one, and what it does with the answer."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.events import (
    LOCAL_FACE,
    CloseRequested,
    JoinRequested,
    NeighbourChanged,
    PacketReceived,
    PublishRequested,
)
from proxy.core.proxy_choice import SPREAD_RATIO, ProxyChoice
from proxy.core.seeded import SplitMix64
from proxy.core.service_client import ServiceClient
from proxy.core.trust import entry_statement, place_of, seal
from proxy.records import Applied, SessionChanged
from proxy.wire.lp import NackReason, encode_nack
from proxy.wire.message_names import HEARTBEAT, NOTIFY
from proxy.wire.messages import (
    EMPTY_DIGEST,
    ClientHeartbeat,
    JoinReply,
    LoginReply,
    Notification,
    RosterEvent,
    Snapshot,
    StreamEntry,
    SyncUpdate,
    UpdateAck,
)
from proxy.wire.payload import encode
from tests.unit.proxy.core.parties import (
    PROXIES,
    UE2,
    Party,
    Sent,
    client_party,
    of,
    signed_entry,
    signed_update,
    to,
    token,
)

RANKED = ("csr1", "csr2", "csr3")
HOLD_DOWN_S = 5.0
WELCOME = JoinReply(True, "", (), Snapshot((), ()), ())


def core(party: Party) -> ServiceClient:
    assert isinstance(party.core, ServiceClient)
    return party.core


def beat(party: Party, proxy: str) -> list[Sent]:
    number = next(party.numbers)
    place = place_of(HEARTBEAT, "main", proxy, "", boot=1, seq=number)
    payload = seal(PROXIES[proxy], ClientHeartbeat(EMPTY_DIGEST, ()), place)
    return party.ask(to("ue1"), HEARTBEAT, "main", proxy, seq=number, payload=payload)


def hear(party: Party, duration_s: float, proxy: str) -> list[Sent]:
    """Let time pass while a proxy is heard; return what the client sent."""
    sent = []
    for _ in range(round(duration_s / 0.1)):
        sent += party.live(0.1) + beat(party, proxy)
    return sent


def notify(party: Party, proxy: str, *entries: StreamEntry) -> list[Sent]:
    number = next(party.numbers)
    return party.ask(to("ue1"), NOTIFY, "main", proxy, seq=number, payload=Notification((), (), entries))


def ack(stream_seq: int, proxy: str) -> UpdateAck:
    return UpdateAck("accepted", "", proxy, 1, stream_seq)


def at(proxy: str) -> Party:
    """Return a client that found the proxies ranked before *proxy* out of reach; its update `join` is acked."""
    party = client_party()
    (login,) = party.handle(JoinRequested())
    (join,) = party.answer(login, LoginReply(True, "", token(), RANKED))
    while to(proxy) not in join.name:
        (join,) = of("join", party.refuse(join))
    (update,) = of("update", party.answer(join, WELCOME))
    party.answer(update, ack(1, proxy))
    return party


def returning(proxy: str = "csr2") -> tuple[Party, Sent]:
    """Return a client that is at *proxy*, and its question to a better one."""
    party = at(proxy)
    while True:
        for each in of("join", hear(party, 0.1, proxy)):
            return party, each


def asked(sent: list[Sent]) -> list[str]:
    """Return whom a client asked to let it in, in order."""
    return [name for each in of("join", sent) for name in RANKED if to(name) in each.name]


def test_the_best_proxy_is_not_left() -> None:
    assert asked(hear(at("csr1"), 60.0, "csr1")) == []


def test_better_proxies_are_asked_after_the_hold_down_best_first() -> None:
    party = at("csr3")
    assert asked(hear(party, HOLD_DOWN_S - 0.1, "csr3")) == []
    sent = hear(party, HOLD_DOWN_S * SPREAD_RATIO + 2.0, "csr3")
    assert asked(sent) == ["csr1", "csr1", "csr2", "csr2"]
    assert core(party).state == "joined"
    assert core(party).proxy == "csr3"


def test_a_better_proxy_out_of_reach_is_passed_over_at_once() -> None:
    party, join = returning("csr3")
    assert asked(party.refuse(join)) == ["csr2"]


def test_the_session_goes_on_while_a_better_proxy_is_asked_and_moves_with_its_answer() -> None:
    party, join = returning()
    (update,) = of("update", party.handle(PublishRequested("message", b"")))
    assert to("csr2") in update.name
    moved = party.answer(join, msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    assert [each.payload for each in of("update", moved)] == [update.payload]  # not acked there, so sent here
    assert to("csr1") in of("update", moved)[0].name
    assert core(party).proxy == "csr1"
    last = [record for record in party.records if isinstance(record, SessionChanged)][-1]
    assert (last.proxy, last.state, last.reason) == ("csr1", "joined", "returned")
    party.answer(update, ack(2, "csr2"))
    assert core(party).unacked == 1  # what the old proxy says of it is of no use any more
    party.answer(of("update", moved)[0], ack(1, "csr1"))
    assert core(party).unacked == 0
    assert asked(hear(party, 60.0, "csr1")) == []


def test_the_proxy_left_is_listened_to_for_a_detection_time() -> None:
    party, join = returning()
    party.answer(join, msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    theirs = [signed_update(seq, "join" if seq == 1 else "message", device="ue2", signer=UE2) for seq in (1, 2)]
    assert len(notify(party, "csr2", signed_entry("csr2", 2, theirs[0]))) == 1  # its ack
    assert len([record for record in party.records if isinstance(record, Applied)]) == 1
    hear(party, 0.7, "csr1")
    assert notify(party, "csr2", signed_entry("csr2", 3, theirs[1])) == []
    assert len([record for record in party.records if isinstance(record, Applied)]) == 1
    assert core(party).state == "joined"


def test_being_heard_by_the_proxy_left_does_not_hide_the_silence_of_ours() -> None:
    party, join = returning()
    party.answer(join, msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    for _ in range(8):
        party.live(0.1)
        notify(party, "csr2")
        beat(party, "csr2")
    assert core(party).state == "suspect"


def roster_entry(proxy: str, seq: int, event: RosterEvent) -> StreamEntry:
    plain = SyncUpdate(EMPTY_DIGEST, (), roster=(event,))
    entry = StreamEntry(proxy, 1, seq, "push", b"")
    signature = PROXIES[proxy].sign(entry_statement("main", entry, plain))
    return msgspec.structs.replace(entry, content=encode(msgspec.structs.replace(plain, signature=signature)))


def test_a_proxy_whose_answer_got_lost_does_not_keep_the_claim() -> None:
    """It has let us in and told everybody; the answer never came, so we stay where we are, and say so."""
    party, join = returning()
    number = join.parsed.seq
    notify(party, "csr2", roster_entry("csr1", 1, RosterEvent("ue1", 1, number, 1, "present")))
    rejoins: list[Sent] = []
    while not rejoins:
        rejoins = [each for each in of("join", hear(party, 0.1, "csr2")) if to("csr2") in each.name]
    assert rejoins[0].parsed.seq > number
    party.answer(rejoins[0], msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    assert core(party).state == "joined"
    assert core(party).proxy == "csr2"
    assert [each for each in of("join", hear(party, 2.0, "csr2")) if to("csr2") in each.name] == []


def test_losing_the_session_ends_the_attempt_to_return() -> None:
    """Two joins on their way would leave it open which proxy we are at."""
    party, join = returning()
    (update,) = of("update", party.handle(PublishRequested("message", b"")))
    party.answer(update, UpdateAck("refused", "not_joined", "csr2", 1, 0))
    party.answer(join, msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    assert core(party).state == "suspect"
    assert core(party).proxy == "csr2"


def test_a_refusal_by_a_better_proxy_changes_nothing() -> None:
    party, join = returning()
    party.answer(join, JoinReply(False, "token_expired", (), None, ()))
    assert core(party).state == "joined"
    assert core(party).proxy == "csr2"


def test_a_client_that_leaves_does_not_return_first() -> None:
    party, join = returning()
    party.handle(CloseRequested())
    party.answer(join, msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    assert core(party).state == "closing"
    assert core(party).proxy == "csr2"


# ---------------------------------------------------------------------- links and routes that fail


def test_losing_the_link_to_our_proxy_asks_the_next_one_at_once_and_coming_back_is_held_down() -> None:
    party = at("csr1")
    sent = party.handle(NeighbourChanged("csr1", up=False))
    assert asked(sent) == ["csr2"]
    assert core(party).state == "joined"
    party.answer(of("join", sent)[0], msgspec.structs.replace(WELCOME, snapshot=None, own_seq=1))
    assert core(party).proxy == "csr2"
    assert [record.reason for record in party.records if isinstance(record, SessionChanged)][-1] == "moved"
    assert asked(hear(party, 60.0, "csr2")) == []  # with that link down, csr2 is the nearest
    assert asked(party.handle(NeighbourChanged("csr1", up=True))) == []
    assert asked(hear(party, HOLD_DOWN_S - 0.1, "csr2")) == []
    assert set(asked(hear(party, HOLD_DOWN_S * SPREAD_RATIO + 0.2, "csr2"))) == {"csr1"}


def test_a_link_that_comes_up_shortens_what_asking_in_vain_made_long() -> None:
    party = at("csr2")
    party.handle(NeighbourChanged("csr1", up=True))
    assert set(asked(hear(party, 8 * HOLD_DOWN_S * (1 + SPREAD_RATIO), "csr2"))) == {"csr1"}
    party.handle(NeighbourChanged("csr1", up=True))
    assert set(asked(hear(party, HOLD_DOWN_S * (1 + SPREAD_RATIO) + 0.2, "csr2"))) == {"csr1"}


def test_losing_the_link_to_another_proxy_changes_nothing_now() -> None:
    party = at("csr1")
    assert asked(party.handle(NeighbourChanged("csr2", up=False))) == []
    assert asked(party.handle(NeighbourChanged("csr1", up=False))) == ["csr3"]  # and csr2 is not the next any more


def test_no_route_to_our_proxy_asks_the_next_one_at_once() -> None:
    party = at("csr1")
    (update,) = of("update", party.handle(PublishRequested("message", b"")))
    assert asked(party.refuse(update)) == ["csr2"]
    assert core(party).state == "joined"


def test_a_heartbeat_that_cannot_be_delivered_is_noticed_too() -> None:
    party = at("csr1")
    (first, *_) = [each for each in hear(party, 1.0, "csr1") if each.message == "heartbeat"]
    assert asked(party.refuse(first)) == ["csr2"]


def test_others_are_asked_once_in_a_detection_time_however_many_nacks_come() -> None:
    party = at("csr1")
    updates = [of("update", party.handle(PublishRequested("message", b"")))[0] for _ in range(5)]
    sent = [each for update in updates for each in party.refuse(update)]
    for _ in range(2):  # nobody is in reach
        sent += [each for join in of("join", sent)[-1:] for each in party.refuse(join)]
    sent += [each for update in updates for each in party.refuse(update)]
    assert asked(sent) == ["csr2", "csr3"]
    assert core(party).state == "joined"


def test_a_congested_network_is_no_reason_to_move() -> None:
    party = at("csr1")
    (update,) = of("update", party.handle(PublishRequested("message", b"")))
    assert update.interest is not None
    nack = encode_nack(update.interest.wire, NackReason.CONGESTION)
    assert party.handle(PacketReceived(LOCAL_FACE, nack)) == []


# ---------------------------------------------------------------------- hold-down


def choice() -> ProxyChoice:
    made = ProxyChoice(SplitMix64(1), hold_down_s=2.0, hold_down_max_s=20.0)
    made.assign(RANKED)
    return made


def holds(made: ProxyChoice, count: int, *, now_s: float) -> list[int]:
    """Return the next hold-downs, each at its shortest possible length."""
    spans = [made.hold_down_s(now_s=now_s) for _ in range(count)]
    return [next(base for base in (2, 4, 8, 16, 20) if base <= span <= base * (1 + SPREAD_RATIO)) for span in spans]


def test_hold_downs_grow_up_to_the_maximum() -> None:
    assert holds(choice(), 6, now_s=100.0) == [2, 4, 8, 16, 20, 20]


@pytest.mark.parametrize(("stayed_s", "expected"), [(19.0, 4), (21.0, 2)])
def test_hold_downs_start_anew_after_a_return_that_lasted(stayed_s: float, expected: int) -> None:
    made = choice()
    assert holds(made, 2, now_s=100.0) == [2, 4]
    made.note_best("csr1", now_s=110.0)
    made.note_best("csr1", now_s=120.0)  # a re-join there is no new arrival
    assert holds(made, 1, now_s=110.0 + stayed_s) == [expected]


def test_clients_of_one_proxy_come_back_one_after_another() -> None:
    spans = {
        ProxyChoice(SplitMix64(seed), hold_down_s=2.0, hold_down_max_s=9.0).hold_down_s(now_s=0.0) for seed in range(50)
    }
    assert len(spans) == 50
    assert max(spans) - min(spans) > 0.8


def test_a_proxy_that_is_not_assigned_any_more_is_not_the_best() -> None:
    made = choice()
    assert made.is_best("csr1")
    assert not made.is_best("csr2")
    assert not made.is_best("csr9")
    made.start_round("csr9", better_only=True)
    assert [made.next_of_round() for _ in range(4)] == [*RANKED, None]
