"""What a participant and its sync protocol want of each other."""

from __future__ import annotations

from typing import Protocol

from proxy.wire.packet import Data, Interest


class SyncGroup(Protocol):
    """A sync protocol tells which publications there are; `Participant` makes and fetches them."""

    @property
    def next_s(self) -> float | None:
        """When ``on_timer`` wants to be called."""

    def begin(self) -> None:
        """We take part from now on; said again after every new join, it does no harm."""

    def publish(self, seq: int) -> None:
        """Our last publication is this one now."""

    def on_interest(self, interest: Interest) -> None:
        """Somebody says something to the group. Raises: Refusal, MalformedError."""

    def on_data(self, data: Data) -> bool:
        """Take an answer to what we have asked the group; False: it is none. Raises: Refusal, MalformedError."""

    def on_nack(self, interest: Interest) -> None:
        """The network could not take what we said to the group."""

    def on_key(self, device: str) -> None:
        """The key ring has got the key of a device that it was asked for."""

    def on_face_up(self) -> None:
        """The network is in reach again."""

    def on_timer(self) -> None:
        """Do what is due."""
