"""A forwarder on the bench: packets in on its faces, what comes out read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig, StrategyConfig
from proxy.core.events import ApplicationLeft, CarrierChanged, Effect, Log, PacketReceived, Send, TimerExpired
from proxy.core.forwarder import Forwarder
from proxy.core.liveness import State
from proxy.records import FaceChanged
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet, encode_nack
from proxy.wire.name import from_uri, to_uri
from proxy.wire.packet import INTEREST, decode_data, encode_data, peek_interest
from proxy.wire.tlv import tlv

#: (face, what, URI of the name); *what* is interest, detour, data, nack-<reason>, idle-<state>, or a fragment of one
Sent = tuple[int, str, str]


def idle(state: State) -> bytes:
    """Return a face heartbeat."""
    return encode_link_packet(LinkPacket(b"", session_state=state))


def interest_wire(
    uri: str,
    nonce: int,
    *,
    lifetime_ms: int = 4_000,
    hop_limit: int | None = None,
    can_be_prefix: bool = False,
    must_be_fresh: bool = False,
) -> bytes:
    return tlv(
        0x05,
        tlv(0x07, from_uri(uri))
        + (b"\x21\x00" if can_be_prefix else b"")
        + (b"\x12\x00" if must_be_fresh else b"")
        + b"\x0a\x04"
        + nonce.to_bytes(4, "big")
        + b"\x0c\x04"
        + lifetime_ms.to_bytes(4, "big")
        + (b"" if hop_limit is None else bytes((0x22, 1, hop_limit))),
    )


class Bench:
    """A forwarder with faces 1 to *faces*, all up unless *up* says less, and the local face 0."""

    def __init__(
        self,
        routes: Mapping[str, Sequence[tuple[int, float]]],
        *,
        faces: int = 4,
        up: Sequence[int] | None = None,
        local_attached: bool = True,
        pit_share_ratio: float = 1.0,
        **settings: Any,
    ) -> None:
        config = ForwarderConfig(
            faces=tuple(
                FaceConfig(
                    face,
                    f"link{face}",
                    f"r-eth{face}",
                    "10.0.0.0",
                    "10.0.0.1",
                    f"peer{face}",
                    pit_share_ratio=pit_share_ratio,
                )
                for face in range(1, faces + 1)
            ),
            routes=tuple(
                RouteConfig(prefix, tuple(NextHopConfig(face, cost_ms) for face, cost_ms in hops))
                for prefix, hops in routes.items()
            ),
            strategies=(StrategyConfig("/all", "multicast"),),
            **settings,
        )
        self.now_s = 100.0
        self.forwarder = Forwarder(config, node="r", seed=1, local_attached=local_attached)
        self.logged: list[FaceChanged] = []
        self.sent_packets: list[tuple[int, bytes]] = []
        self.timer()
        for face in range(1, faces + 1) if up is None else up:
            self.bring_up(face)
        self.logged.clear()

    @property
    def counters(self) -> dict[str, int]:
        return self.forwarder.counters_now()

    def bring_up(self, face: int) -> None:
        self.packet(face, idle(State.INIT))

    def packet(self, face: int, packet: bytes) -> list[Sent]:
        return self._read(self.forwarder.handle(PacketReceived(face, packet), now_s=self.now_s))

    def interest(self, face: int, uri: str, nonce: int, *, detour: bool = False, **properties: Any) -> list[Sent]:
        wire = interest_wire(uri, nonce, **properties)
        return self.packet(face, encode_link_packet(LinkPacket(wire, is_detour=True)) if detour else wire)

    def data(self, face: int, uri: str, *, content: bytes = b"", freshness_ms: int = 0) -> list[Sent]:
        return self.packet(face, encode_data(from_uri(uri), content, freshness_ms=freshness_ms))

    def nack(self, face: int, reason: NackReason, *, of: bytes | None = None) -> list[Sent]:
        """Answer the last Interest that went out on *face*, or *of*, with a Nack."""
        if of is None:
            of = self.last_interest(face)
        return self.packet(face, encode_nack(of, reason))

    def last_interest(self, face: int) -> bytes:
        """Return the last Interest sent on *face*, without its link header."""
        packets = [packet for at, packet in self.sent_fragments() if at == face]
        return next(packet for packet in reversed(packets) if packet[:1] == bytes((INTEREST,)))

    def sent_fragments(self) -> list[tuple[int, bytes]]:
        """Return (face, network packet) of everything sent but heartbeats, without link headers."""
        sent = [(face, decode_link_packet(packet).fragment) for face, packet in self.sent_packets]
        return [(face, fragment) for face, fragment in sent if fragment]

    def sent_heartbeats(self) -> list[tuple[int, LinkPacket]]:
        """Return (face, link packet) of the heartbeats that were sent."""
        sent = [(face, decode_link_packet(packet)) for face, packet in self.sent_packets]
        return [(face, packet) for face, packet in sent if not packet.fragment]

    def carrier(self, face: int, *, up: bool) -> list[Sent]:
        return self._read(self.forwarder.handle(CarrierChanged(face, up), now_s=self.now_s))

    def remove(self, face: int) -> list[Sent]:
        return self._read(self.forwarder.handle(ApplicationLeft(face), now_s=self.now_s))

    def timer(self) -> list[Sent]:
        return self._read(self.forwarder.handle(TimerExpired(), now_s=self.now_s))

    def live(self, duration_s: float, *, hearing: Sequence[int] = (1, 2, 3, 4)) -> list[Sent]:
        """Let time pass as a driver would; the peers of *hearing* are heard every 50 ms."""
        sent, end_s, beat_s = [], self.now_s + duration_s, self.now_s
        while True:
            at_s = min(beat_s, max(self.forwarder.deadline_s, self.now_s))
            if at_s >= end_s:
                break
            self.now_s = at_s
            if at_s == beat_s:
                beat_s += 0.05
                for face in hearing:
                    sent += self.packet(face, idle(State.UP))
            else:
                sent += self.timer()
        self.now_s = end_s
        return [each for each in sent if not each[1].startswith("idle")]

    def _read(self, effects: list[Effect]) -> list[Sent]:
        sent = []
        for effect in effects:
            match effect:
                case Log(record):
                    assert isinstance(record, FaceChanged)
                    self.logged.append(record)
                case Send(face, packet):
                    self.sent_packets.append((face, packet))
                    sent.append((face, *describe(packet)))
        return sent


def describe(packet: bytes) -> tuple[str, str]:
    """Return what a packet is, and its name."""
    link_packet = decode_link_packet(packet)
    fragment = link_packet.fragment
    if not fragment:
        return f"idle-{State(link_packet.session_state or 0).name}", ""
    if link_packet.frag_count > 1:
        return "fragment", f"{link_packet.frag_index} of {link_packet.frag_count}"
    if fragment[0] != INTEREST:
        return "data", to_uri(decode_data(fragment).name)
    uri = to_uri(peek_interest(fragment).name)
    if link_packet.nack_reason is not None:
        return f"nack-{NackReason(link_packet.nack_reason).name}", uri
    return ("detour" if link_packet.is_detour else "interest"), uri
