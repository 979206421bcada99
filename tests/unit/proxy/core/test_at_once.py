"""What others wait for leaves first: effects as they come, entries before their updates are looked into."""

from __future__ import annotations

import pytest

from proxy.core.digest_log import DigestLog
from proxy.core.events import LOCAL_FACE, Effect, Log, PacketReceived, PublishRequested, Send, TimerExpired
from proxy.core.service_proxy import ServiceProxy
from proxy.records import Published
from proxy.wire.message_names import JOIN, message_name, node_prefix
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedUpdate, StreamEntry
from proxy.wire.packet import encode_interest
from proxy.wire.payload import encode
from tests.unit.proxy.core import client_bench, proxy_bench
from tests.unit.proxy.core.parties import NOW_S, join_request, proxy_party, token


def entry_of_another() -> StreamEntry:
    update = encode(FpUpdate("main", "ue1", 1, 1, "message", "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, b""))
    origin = DigestLog(history_max_entries=10)
    return origin.append_own(origin.stream("csr2", 1), (SignedUpdate(update, b""),))


def test_an_entry_is_passed_on_before_the_view_has_looked_at_its_updates() -> None:
    log, entry = DigestLog(history_max_entries=10), entry_of_another()
    seen: list[int] = []
    assert log.add(entry, lambda _: seen.append(log.view.seq("ue1", 1))) is not None
    assert (seen, log.view.seq("ue1", 1)) == ([0], 1)
    assert log.add(entry, lambda _: pytest.fail("passed on twice")) is None


def test_effects_performed_as_they_come_are_those_returned() -> None:
    returning, performing = proxy_party().core, proxy_party().core
    assert isinstance(performing, ServiceProxy)
    performed: list[Effect] = []
    performing.perform_at_once(performed.append)
    name = message_name(node_prefix("csr1"), JOIN, "main", "ue1", boot=1, seq=1)
    _, join = encode_interest(name, nonce=7, lifetime_ms=4_000, parameters=encode(join_request(token())))
    for later_s, event in ((0.0, PacketReceived(LOCAL_FACE, join)), (0.3, TimerExpired())):
        returned = returning.handle(event, now_s=NOW_S + later_s)
        assert performing.handle(event, now_s=NOW_S + later_s) == []
        assert performed == returned
        performed.clear()
        assert any(isinstance(effect, Send) for effect in returned)

    conference, seen = performing.conferences["main"], list[tuple[int, int]]()

    def notify(entry: StreamEntry) -> None:
        performing._clients.notify(conference, entry)
        seen.append((sum(isinstance(effect, Send) for effect in performed), conference.log.view.seq("ue1", 1)))

    conference.log.add(entry_of_another(), notify)
    assert seen == [(1, 0)]  # what has left, and what the proxy's own view has taken in by then


def test_a_client_sends_its_update_before_its_own_view_takes_it_in() -> None:
    client = client_bench.core(party := client_bench.settled())
    seen: list[tuple[str, int]] = []

    def perform(effect: Effect) -> None:
        if isinstance(effect, Send):
            seen.append(("sent", client.view.seq("ue1", 1)))
        elif isinstance(effect, Log) and isinstance(effect.record, Published):
            seen.append(("published", client.view.seq("ue1", 1)))

    client.perform_at_once(perform)
    assert client.handle(PublishRequested("message", b"hello"), now_s=party.now_s) == []
    assert seen == [("sent", 1), ("published", 2)]


def test_a_proxy_passes_on_what_a_client_publishes_before_its_own_view_takes_it_in() -> None:
    party = proxy_bench.joined("ue1", "ue2")
    proxy, view = proxy_bench.core(party), proxy_bench.conference(party).log.view
    seen: list[int] = []
    proxy.perform_at_once(lambda effect: seen.append(view.seq("ue1", 1)) if isinstance(effect, Send) else None)
    proxy_bench.publish(party, 1)
    assert seen[0] == 0
    assert view.seq("ue1", 1) == 1
