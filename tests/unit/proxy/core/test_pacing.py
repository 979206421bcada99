"""Control before media on a link with a rate: alone, and in a forwarder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import Effect, PacketReceived, Send, TimerExpired
from proxy.core.forwarder import Forwarder
from proxy.core.liveness import State
from proxy.core.pacing import CATCH_UP_S, FRAMING_BYTES, SHARE, WAITING_MAX_BYTES, Pacer
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.message_names import UPDATE, message_name, node_prefix
from proxy.wire.objects import object_name, segment_name
from proxy.wire.packet import INTEREST, encode_data, encode_interest

RATE_MBPS = 2.0


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 1_400)), min_size=1, max_size=60))
def test_no_more_is_let_go_than_the_link_carries(offers: list[tuple[float, int]]) -> None:
    """In any interval that begins with a busy link, beside what a late driver may catch up on and one packet."""
    pacer, now_s, went = Pacer(rate_mbps=RATE_MBPS), 100.0, list[tuple[float, int]]()

    def release(until_s: float) -> None:
        nonlocal now_s
        while (next_s := pacer.next_s) is not None and max(next_s, now_s) <= until_s:
            now_s = max(next_s, now_s)
            waiting = pacer.pop(now_s)
            assert waiting is not None
            size_bytes = len(waiting[1].fragment)
            pacer.note(size_bytes, now_s)
            went.append((now_s, size_bytes + FRAMING_BYTES))

    for gap_s, size_bytes in offers:
        release(now_s + gap_s)
        now_s += max(0.0, gap_s)
        pacer.put("object-segment", LinkPacket(bytes(size_bytes)))
    release(float("inf"))
    assert sum(size for _, size in went) == sum(size + FRAMING_BYTES for _, size in offers), "all of it goes"
    for first in range(len(went)):
        carried_bytes = sum(size for _, size in went[first:-1])
        busy_s = went[-1][0] - went[first][0]
        assert carried_bytes <= (busy_s + CATCH_UP_S + 1e-6) * RATE_MBPS * 1e6 / 8 * SHARE


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    pacer = Pacer(rate_mbps=RATE_MBPS)
    for _ in range(WAITING_MAX_BYTES // 4_000 + 3):
        pacer.put("object-segment", LinkPacket(bytes(4_000)))
    assert pacer.dropped == 3
    pacer.clear()
    assert pacer.next_s is None
    pacer.put("object-segment", LinkPacket(bytes(4_000)))
    assert pacer.dropped == 3


def forwarder(rate_mbps: float | None) -> Forwarder:
    faces = (
        FaceConfig(1, "l1", "r-eth1", "10.0.0.0", "10.0.0.1", "a", rate_mbps=rate_mbps),
        FaceConfig(2, "l2", "r-eth2", "10.0.0.2", "10.0.0.3", "b"),
    )
    routes = tuple(RouteConfig(prefix, (NextHopConfig(2, 1.0),)) for prefix in ("/hconf/ue1", "/hconf-data/ue1"))
    made = Forwarder(ForwarderConfig(faces, routes), node="r", seed=1, local_attached=True)
    for face in faces:
        made.handle(
            PacketReceived(face.face_id, encode_link_packet(LinkPacket(b"", session_state=State.INIT))), now_s=1.0
        )
    return made


def sent(effects: Sequence[Effect], face_id: int) -> list[bytes]:
    packets = [
        decode_link_packet(effect.packet)
        for effect in effects
        if isinstance(effect, Send) and effect.face_id == face_id
    ]
    return [packet.fragment for packet in packets if packet.fragment]


def answered(made: Forwarder, name: bytes, content: bytes, now_s: float) -> list[bytes]:
    """Ask on face 1, answer on face 2; return what goes out on face 1 at once."""
    _, interest = encode_interest(name, nonce=len(content) + round(now_s * 1e3))
    assert sent(made.handle(PacketReceived(1, interest), now_s=now_s), 2)[0][0] == INTEREST
    return sent(made.handle(PacketReceived(2, encode_data(name, content)), now_s=now_s), 1)


def segment(index: int) -> bytes:
    return segment_name(object_name("ue1", "main", boot=1, seq=1), index)


def update(seq: int) -> bytes:
    return message_name(node_prefix("ue1"), UPDATE, "main", "ue1", boot=1, seq=seq)


def test_control_passes_media_that_waits_and_media_goes_in_its_time_and_order() -> None:
    made = forwarder(RATE_MBPS)
    assert len(answered(made, segment(0), bytes(1_000), 10.0)) == 1, "the link is free"
    assert answered(made, segment(1), bytes(1_001), 10.0) == []
    assert answered(made, segment(2), bytes(1_002), 10.0) == []
    assert len(answered(made, update(1), b"", 10.0)) == 1
    came: list[tuple[float, int]] = []
    now_s = 10.0
    while now_s < 10.05:
        now_s = made.deadline_s
        came += [(now_s, len(wire)) for wire in sent(made.handle(TimerExpired(), now_s=now_s), 1)]
    assert len(came) == 2
    (first_s, first_bytes), (second_s, second_bytes) = came
    assert first_bytes < second_bytes, "in the order in which they were to go"
    size_bytes = first_bytes + 14 + FRAMING_BYTES  # with the header of the link packet, more or less
    assert second_s - first_s == pytest.approx(size_bytes * 8 / (RATE_MBPS * 1e6 * SHARE), rel=0.02)
    assert first_s - 10.0 + CATCH_UP_S > second_s - first_s, "the update went before it, too"


def test_a_link_without_a_rate_and_a_dead_one_hold_nothing_back() -> None:
    made = forwarder(None)
    assert [len(answered(made, segment(index), bytes(1_000), 10.0)) for index in range(3)] == [1, 1, 1]
    made = forwarder(RATE_MBPS)
    for index in range(3):
        answered(made, segment(index), bytes(1_000), 10.0)
    gone = encode_link_packet(LinkPacket(b"", session_state=State.DOWN))
    made.handle(PacketReceived(1, gone), now_s=10.001)
    for now_s in (10.002, 10.02, 10.1):
        assert not sent(made.handle(TimerExpired(), now_s=now_s), 1)
