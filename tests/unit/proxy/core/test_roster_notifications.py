"""Who comes and goes is told in a while, together; what is said is told at once, with all that has waited."""

from __future__ import annotations

from proxy.wire.messages import ClientHeartbeat, Notification, Sealed
from proxy.wire.payload import decode
from tests.unit.proxy.core.parties import SOON_S, UE2, Party, Sent, of, signed_update, to
from tests.unit.proxy.core.proxy_bench import joined, keep_heard, push, stream_of

COMINGS = stream_of(
    "csr2",
    *[signed_update(seq, "join" if seq % 2 else "leave", device="ue2", signer=UE2) for seq in range(1, 12)],
    signed_update(12, "message", device="ue2", signer=UE2),
    signed_update(13, "message", device="ue2", signer=UE2),
)


def notifications(sent: list[Sent]) -> list[Sent]:
    return [each for each in of("notification", sent) if each.name.startswith(to("ue1"))]


def told(sent: list[Sent]) -> list[list[int]]:
    """Return, of each notification to ue1, the places in the other proxy's stream that it tells of."""
    return [[entry.seq for entry in each.read(Notification).entries] for each in notifications(sent)]


def hear_of(party: Party, *seqs: int) -> list[Sent]:
    return [sent for seq in seqs for sent in push(party, COMINGS[seq - 1])]


def test_comings_and_goings_are_told_together() -> None:
    party = joined("ue1")
    assert told(hear_of(party, 1, 2, 3)) == []
    assert told(party.live(SOON_S)) == [[1, 2, 3]]
    assert told(party.live(SOON_S)) == []


def test_while_one_is_not_acked_the_next_is_gathered() -> None:
    party = joined("ue1")
    hear_of(party, 1)
    (first,) = notifications(party.live(SOON_S))
    sent = []
    for seq in range(2, 12):
        sent += hear_of(party, seq) + party.live(SOON_S)
    assert all(seqs == [1] for seqs in told(sent))  # that one, repeated
    assert told(party.answer(first, b"")) == [list(range(2, 12))]


def test_what_is_said_does_not_wait_and_takes_the_rest_with_it() -> None:
    party = joined("ue1")
    assert told(hear_of(party, *range(1, 12), 12)) == [list(range(1, 13))]
    assert told(hear_of(party, 13)) == [[13]]  # though the first is not acked yet
    assert told(party.live(SOON_S)) == []


def test_heartbeat_does_not_tell_of_what_waits() -> None:
    """Else the client would ask for it."""
    party = joined("ue1")
    hear_of(party, 1)
    party.live(SOON_S)  # not acked
    hear_of(party, 2)
    beats = [each for each in of("heartbeat", party.live(0.25)) if each.name.startswith(to("ue1"))]
    assert beats
    assert {decode(each.read(Sealed).content, ClientHeartbeat).current for each in beats} == {()}


def test_notification_tells_of_no_state_beyond_what_waits() -> None:
    """Else the client would ask for what does not fit into it."""
    large = [signed_update(seq, "leave", device="ue2", signer=UE2, body=bytes(1_000)) for seq in range(1, 21)]
    party = joined("ue1")
    for entry in stream_of("csr2", *large):
        push(party, entry)
    (first,) = notifications(party.live(SOON_S))
    sent = first.read(Notification)
    assert len(sent.entries) < 20
    assert sent.current == (("csr2", 1, len(sent.entries)),)
    (rest,) = [each for each in notifications(party.answer(first, b"")) if each.name != first.name][:1]
    assert rest.read(Notification).last == sent.current


def test_where_many_are_to_be_told_the_first_coming_is_told_at_once_and_what_follows_is_gathered() -> None:
    party = joined(*(f"ue{n}" for n in range(2, 11)), "ue1")  # ten, so for 40 ms
    keep_heard(party, 0.5, *(f"ue{n}" for n in range(1, 11)))
    hear_of(party, 1)
    (first,) = notifications(party.live(0.01))
    party.answer(first, b"")
    hear_of(party, 2)
    assert told(party.live(0.01)) == []
    hear_of(party, 3)
    assert told(party.live(0.04)) == [[2, 3]]
