"""A forwarder and a client in one process: what the client of a UE with several links is told of its neighbours."""

from __future__ import annotations

from typing import cast

import pytest

from proxy.config import ClientConfig, FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import (
    LOCAL_FACE,
    ApplicationLeft,
    CarrierChanged,
    Effect,
    Event,
    JoinRequested,
    Log,
    NeighbourChanged,
    PacketReceived,
    Send,
    TimerExpired,
)
from proxy.core.forwarder import Forwarder
from proxy.core.host import Host
from proxy.core.liveness import State
from proxy.core.service_client import ServiceClient
from proxy.records import FaceChanged
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.name import from_uri
from tests.unit.proxy.core.bench import interest_wire
from tests.unit.proxy.core.parties import TRUSTED

HELLO = encode_link_packet(LinkPacket(b"", session_state=State.INIT))
ALIVE = encode_link_packet(LinkPacket(b"", session_state=State.UP))


class Listener:
    """Stands before a client and notes what it is told."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self.told: list[Event] = []

    @property
    def deadline_s(self) -> float | None:
        return self._client.deadline_s

    def handle(self, event: Event, *, now_s: float) -> list[Effect]:
        self.told.append(event)
        return self._client.handle(event, now_s=now_s)

    def beat_in_step(self, *, now_s: float) -> list[Effect]:
        return self._client.beat_in_step(now_s=now_s)


def host(links: int) -> tuple[Host, Listener]:
    faces = tuple(
        FaceConfig(number, f"csr{number}-ue1", f"ue1-eth{number}", "10.0.0.1", "10.0.0.0", f"csr{number}")
        for number in range(1, links + 1)
    )
    routes = (RouteConfig("/hconf", tuple(NextHopConfig(face.face_id, 2.0) for face in faces)),)
    forwarder = Forwarder(ForwarderConfig(faces, routes), node="ue1", seed=1, local_attached=True)
    client = ServiceClient(ClientConfig(key_seed_hex=(bytes([1]) * 32).hex(), **TRUSTED), device="ue1", boot=1, seed=1)
    both, listener = Host(forwarder, client), Listener(client)
    both.application = cast("ServiceClient", listener)
    return both, listener


def of_neighbours(client: Listener) -> list[NeighbourChanged]:
    return [event for event in client.told if isinstance(event, NeighbourChanged)]


def test_client_hears_of_every_face_that_comes_and_goes() -> None:
    both, client = host(2)
    for face in (1, 2):
        both.handle(PacketReceived(face, HELLO), now_s=1.0)
    assert of_neighbours(client) == [NeighbourChanged("csr1", up=True), NeighbourChanged("csr2", up=True)]
    effects = both.handle(CarrierChanged(1, up=False), now_s=2.0)
    assert of_neighbours(client)[2:] == [NeighbourChanged("csr1", up=False)]
    assert any(isinstance(effect, Log) and isinstance(effect.record, FaceChanged) for effect in effects)


def test_client_with_one_link_has_no_choice_and_hears_nothing() -> None:
    only, client = host(1)
    only.handle(PacketReceived(1, HELLO), now_s=1.0)
    only.handle(CarrierChanged(1, up=False), now_s=2.0)
    assert of_neighbours(client) == []


@pytest.mark.parametrize("links", [1, 2])
def test_carriers_are_the_forwarders_business(links: int) -> None:
    both, client = host(links)
    both.handle(CarrierChanged(1, up=False), now_s=1.0)
    assert not any(isinstance(event, CarrierChanged) for event in client.told)


def test_what_the_client_had_asked_of_an_application_that_goes_is_refused_to_the_client() -> None:
    both, client = host(1)
    face = both.forwarder.add_local_face()
    both.forwarder.fib.register(from_uri("/app"), face, 0.0)
    asked = interest_wire("/app/1", 1)
    both.forwarder.handle(PacketReceived(LOCAL_FACE, asked), now_s=1.0)
    assert both.handle(ApplicationLeft(face), now_s=1.0) == []  # it stays inside
    assert client.told == [PacketReceived(LOCAL_FACE, encode_nack(asked, NackReason.NO_ROUTE))]


def heartbeats(effects: list[Effect]) -> list[LinkPacket]:
    packets = [decode_link_packet(effect.packet) for effect in effects if isinstance(effect, Send)]
    return [packet for packet in packets if not packet.fragment]


def is_starved(both: Host) -> bool:
    return both.forwarder.is_starved


def starve(both: Host, now_s: float) -> float:
    """Let timers fire 30 ms late, until that is no chance any more. Returns: when the last one did."""
    for _ in range(20):
        now_s = (both.forwarder.deadline_s or now_s) + 0.03
        both.handle(PacketReceived(1, ALIVE), now_s=now_s)
        both.handle(TimerExpired(), now_s=now_s)
    return now_s


def test_who_is_starved_and_woken_by_a_packet_says_what_would_be_said_soon() -> None:
    both, _ = host(1)
    both.handle(PacketReceived(1, HELLO), now_s=1.0)
    both.handle(TimerExpired(), now_s=1.0)
    assert heartbeats(both.handle(PacketReceived(1, ALIVE), now_s=1.06)) == []  # there is time: each at its own
    assert not is_starved(both)
    now_s = starve(both, 1.06)
    assert is_starved(both)
    interval_s = 4 * 0.095
    both.handle(PacketReceived(1, ALIVE), now_s=now_s + 0.5 * interval_s)
    assert (
        heartbeats(both.handle(PacketReceived(1, ALIVE), now_s=now_s + 0.6 * interval_s)) == []
    )  # has just been heard
    (beat,) = heartbeats(both.handle(PacketReceived(1, ALIVE), now_s=now_s + 1.1 * interval_s))
    assert beat.min_tx_ms == 380
    assert both.forwarder.deadline_s is not None
    assert both.forwarder.deadline_s > now_s + 1.5 * interval_s  # and sleeps on


def test_first_hellos_are_not_answered_in_step() -> None:
    both, _ = host(2)
    both.handle(PacketReceived(1, HELLO), now_s=1.0)  # the other face is down still
    now_s = starve(both, 1.0)
    assert is_starved(both)
    deadline_s = both.forwarder.deadline_s
    both.handle(PacketReceived(1, ALIVE), now_s=now_s + 0.06)
    assert both.forwarder.deadline_s == deadline_s


def test_what_is_performed_as_it_comes_is_what_is_returned() -> None:
    returning, performing = (Host(both.forwarder, client._client) for both, client in (host(2), host(2)))
    performed: list[Effect] = []
    performing.perform_at_once(performed.append)
    events: tuple[Event, ...] = (PacketReceived(1, HELLO), JoinRequested(), CarrierChanged(1, up=False), TimerExpired())
    for number, event in enumerate(events):
        returned = returning.handle(event, now_s=1.0 + 0.1 * number)
        assert performing.handle(event, now_s=1.0 + 0.1 * number) == []
        assert performed == returned
        assert returned
        performed.clear()
