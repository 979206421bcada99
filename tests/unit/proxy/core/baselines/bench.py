"""Participants on the bench: packets between them by hand, with real keys; whoever is asked, the bench answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from proxy.config import ClientConfig, LoginConfig
from proxy.core.baselines.participant import Participant
from proxy.core.events import LOCAL_FACE, Effect, Event, JoinRequested, Log, PacketReceived, Send, TimerExpired
from proxy.core.login_server import LoginServer
from proxy.core.signing import Signer
from proxy.wire.lp import decode_link_packet
from proxy.wire.message_names import message_type
from proxy.wire.packet import INTEREST, Data, Interest, decode_data, decode_interest

NOW_S = 1_000.0
LOGIN = Signer(bytes(32))
SEEDS = {device: bytes([index + 1]) * 32 for index, device in enumerate(("ue1", "ue2", "ue3", "stranger"))}
R = TypeVar("R")


class Bench:
    """*sync* is the settings of the protocol; one login server that has registered all but the stranger."""

    def __init__(
        self,
        sync: Any,
        *devices: str,
        role: Literal["participant", "observer"] = "participant",
        lifetime_s: float = 3_600.0,
    ) -> None:
        self.now_s = NOW_S
        registered = {device: Signer(seed).public_key.hex() for device, seed in SEEDS.items() if device != "stranger"}
        self.login = LoginServer(
            LoginConfig(bytes(32).hex(), dict.fromkeys(SEEDS, ()), registered, token_lifetime_s=lifetime_s),
            device="login",
            boot=1,
            seed=1,
        )
        self.parties = {
            device: Participant(
                ClientConfig(
                    SEEDS[device].hex(),
                    role=role,
                    login_public_key_hex=LOGIN.public_key.hex(),
                ),
                sync,
                device=device,
                boot=1,
                seed=index,
            )
            for index, device in enumerate(devices)
        }
        self.records: list[Any] = []

    def handle(self, device: str, event: Event) -> list[bytes]:
        """Hand an event to a participant; return the packets that it sends."""
        return self._sent(self.parties[device].handle(event, now_s=self.now_s))

    def take(self, device: str, packet: bytes) -> list[bytes]:
        return self.handle(device, PacketReceived(LOCAL_FACE, packet))

    def _sent(self, effects: Sequence[Effect]) -> list[bytes]:
        self.records += [effect.record for effect in effects if isinstance(effect, Log)]
        return [decode_link_packet(effect.packet).fragment for effect in effects if isinstance(effect, Send)]

    def join(self, device: str) -> list[bytes]:
        """Log a device in; return what it then sends."""
        (login,) = self.handle(device, JoinRequested())
        (reply,) = self._sent(self.login.handle(PacketReceived(LOCAL_FACE, login), now_s=self.now_s))
        return self.take(device, reply)

    def answered(self, asker: str, answerer: str, packets: Sequence[bytes], *, rounds_max: int = 20) -> list[bytes]:
        """Pass what *asker* sends to *answerer*, and its Data back, until nothing comes any more; return all Interests."""
        asked: list[bytes] = []
        for _ in range(rounds_max):
            if not packets:
                return asked
            interests = [packet for packet in packets if packet[0] == INTEREST]
            asked += interests
            answers = [answer for interest in interests for answer in self.take(answerer, interest)]
            packets = [packet for answer in answers if answer[0] != INTEREST for packet in self.take(asker, answer)]
        raise AssertionError("they do not come to an end")

    def pass_time(self, device: str, until_s: float) -> list[bytes]:
        """Let a participant's timers fire until a time; return what it sends."""
        sent: list[bytes] = []
        party = self.parties[device]
        while (due_s := party.deadline_s) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            sent += self.handle(device, TimerExpired())
        self.now_s = max(self.now_s, until_s)
        return sent

    def logged(self, kind: type[R]) -> list[R]:
        return [record for record in self.records if isinstance(record, kind)]


def kinds(packets: Sequence[bytes]) -> list[str]:
    """Return the message types of packets."""
    return [
        message_type(decode_interest(packet).name, data=False)
        if packet[0] == INTEREST
        else message_type(decode_data(packet).name, data=True)
        for packet in packets
    ]


def interest_of(packet: bytes) -> Interest:
    return decode_interest(packet)


def data_of(packet: bytes) -> Data:
    return decode_data(packet)
