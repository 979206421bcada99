"""The service client publishes: sequence numbers, window, acks, refusals."""

from __future__ import annotations

import pytest

from proxy.core.events import CloseRequested, ObjectsScheduled, PublishRequested, ScheduleEnded, ScheduleExtended
from proxy.core.service_client import PublishError
from proxy.records import Acked, Published
from proxy.wire.messages import BODY_MAX_BYTES, FpUpdate, SignedUpdate, UpdateAck
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.client_bench import ack, core, joined, joining, logged, settled, states, welcome
from tests.unit.proxy.core.parties import (
    of,
)


def test_publishing_and_ack() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b"hello", "/an/object"))
    told = decode(update.read(SignedUpdate).update, FpUpdate)
    assert (told.seq, told.event, told.body, told.object_name) == (2, "message", b"hello", "/an/object")
    assert told.last_digest != told.digest
    assert core(party).unacked == 1
    party.answer(update, ack(5))
    assert core(party).unacked == 0
    assert [(record.seq, record.level, record.proxy) for record in logged(party, Acked)] == [
        (1, "accepted", "csr1"), (2, "accepted", "csr1")
    ]  # fmt: skip


def test_digests_chain() -> None:
    party = settled()
    first, second = (party.handle(PublishRequested("message", b"x"))[0] for _ in range(2))
    digests = [decode(each.read(SignedUpdate).update, FpUpdate) for each in (first, second)]
    assert digests[0].digest == digests[1].last_digest


def test_update_is_repeated_until_it_is_acked() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    repeated = of("update", party.live(0.5))
    assert repeated
    assert all(each.payload == update.payload for each in repeated)
    party.answer(update, ack(2))
    assert of("update", party.live(0.5)) == []


@pytest.mark.parametrize(
    "forged",
    [ack(1), UpdateAck("refused", "revoked", "csr1", 1, 0), UpdateAck("refused", "token_expired", "csr1", 1, 0)],
)
def test_ack_without_proof_is_none(forged: UpdateAck) -> None:
    party, update = joined()
    party.answer(update, encode(forged))
    assert (core(party).unacked, core(party).state) == (1, "joined")
    assert party.core.counters["refused_ack_forged"] == 1
    assert of("update", party.live(0.3))  # it waits for the true one
    party.answer(update, ack(1))
    assert core(party).unacked == 0


def test_second_ack_is_none() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    party.answer(update, ack(2))
    party.answer(update, ack(2))
    assert len(logged(party, Acked)) == 2


def test_window() -> None:
    party, update = joined(window_max=3)
    sent = [each for _ in range(5) for each in of("update", party.handle(PublishRequested("message", b"")))]
    assert len(sent) == 2  # the join is the third
    assert core(party).queued == 3
    assert len(of("update", party.answer(update, ack(1)))) == 1
    assert (core(party).unacked, core(party).queued) == (3, 2)
    assert core(party).published_seq == 6


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (PublishRequested("message", bytes(BODY_MAX_BYTES + 1)), "body of 7001 bytes"),
        (PublishRequested("", b""), "event type of 0 octets"),
        (PublishRequested("é" * 33, b""), "event type of 66 octets"),
        (PublishRequested("object", b"", "/" + "x" * 512), "object name"),
        (PublishRequested("object", b"", "é" * 257), "object name"),
    ],
)
def test_what_cannot_be_published(event: PublishRequested, problem: str) -> None:
    party = settled()
    with pytest.raises(PublishError, match=problem):
        party.handle(event)
    assert core(party).published_seq == 1


def test_largest_update_fits_into_a_packet() -> None:
    party = settled()
    assert party.handle(PublishRequested("e" * 64, bytes(BODY_MAX_BYTES), "o" * 512))


def test_nobody_publishes_without_having_joined() -> None:
    party, _ = joining()
    with pytest.raises(PublishError, match=r"not joined \(joining\)"):
        party.handle(PublishRequested("message", b""))


def test_leaving_before_anybody_has_heard_of_us() -> None:
    party, join = joining()
    assert party.handle(CloseRequested()) == []
    assert states(party)[-1] == ("closed", "asked for")
    assert party.answer(join, welcome()) == []
    assert core(party).state == "closed"
    assert party.live(10.0) == []
    with pytest.raises(PublishError, match="not joined"):
        party.handle(CloseRequested())


def test_queue_is_bounded() -> None:
    party, _ = joined(window_max=1, queue_max=2)
    party.handle(PublishRequested("message", b""))
    party.handle(PublishRequested("message", b""))
    with pytest.raises(PublishError, match="2 updates waiting"):
        party.handle(PublishRequested("message", b""))


def test_schedule() -> None:
    party = settled()
    now_s = party.now_s
    updates = ((now_s + 0.30, "message", b"ten octets"), (now_s + 0.10, "stroke", 5), (now_s + 0.2, "message", 8_000))
    party.handle(ScheduleExtended(updates))
    party.live(1.0)
    published = logged(party, Published)[1:]
    assert [(record.event, record.size_bytes) for record in published] == [("stroke", 5), ("message", 10)]
    assert [record.t_s for record in published] == pytest.approx([now_s + 0.1, now_s + 0.3])
    assert party.core.counters["publish_refused"] == 1


def test_a_schedule_that_is_ended_begins_nothing_more() -> None:
    party = settled()
    now_s = party.now_s
    party.handle(ScheduleExtended(((now_s + 0.1, "stroke", 5), (now_s + 0.5, "message", 5))))
    party.handle(ObjectsScheduled(((now_s + 0.5, 1_000),)))
    party.live(0.3)
    party.handle(ScheduleEnded())
    party.live(2.0)
    assert [record.event for record in logged(party, Published)[1:]] == ["stroke"]


@pytest.mark.parametrize("reason", ["update_forged", "observer_publishes"])
def test_refused_update_is_counted(reason: str) -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    party.answer(update, UpdateAck("refused", reason, "csr1", 1, 0))
    assert party.core.counters[f"rejected_{reason}"] == 1
    assert core(party).state == "joined"


def test_forgotten_by_its_proxy_a_client_joins_again_and_repeats_what_is_unacked() -> None:
    party = settled()
    (update,) = party.handle(PublishRequested("message", b""))
    (join,) = of("join", party.answer(update, UpdateAck("refused", "not_joined", "csr1", 1, 0)))
    assert states(party)[-1] == ("suspect", "refused")
    (repeated,) = of("update", party.answer(join, welcome(own_seq=1)))
    assert repeated.payload == update.payload
    assert states(party)[-1] == ("joined", "suspect no more")
