"""What the client of a UE tells the service proxy beside it, where the UE serves its network as sync proxy."""

from __future__ import annotations

from typing import Final

from proxy.core.consumer import Consumer
from proxy.core.events import Effect
from proxy.core.signing import Signer
from proxy.core.timers import Timers
from proxy.core.trust import place_of, seal
from proxy.wire.message_names import SERVE, message_name, node_prefix
from proxy.wire.messages import ServeReply, ServeRequest
from proxy.wire.payload import encode

#: Under which the request is pending, and the timer of the next.
REQUEST: Final = ("serve", 0)
TIMER: Final = "serve"
#: A proxy that does not answer so often is not there, and has nothing to hand over.
ATTEMPTS: Final = 4
#: Whether the hand-over is done is asked so often.
POLL_INTERVAL_S: Final = 0.1


class OwnProxy:
    """Asks until the proxy has handed over; requests and timer are the client's."""

    def __init__(
        self, consumer: Consumer[tuple[str, int]], timers: Timers[str], *, device: str, boot: int, signer: Signer
    ) -> None:
        self._consumer, self._timers = consumer, timers
        self._device, self._boot, self._signer = device, boot, signer
        self._wanted = True
        self._asked = 0
        self.has_handed_over = False  #: or is not there

    def serve(self, *, now_s: float) -> list[Effect]:
        """Tell it to serve: the device comes (back)."""
        self._wanted, self.has_handed_over = True, False
        return self.ask(now_s=now_s)

    def hand_over(self, *, now_s: float) -> list[Effect]:
        """Tell it to hand over: the device is about to leave."""
        if not self._wanted:
            return []  # it has been told, and is asked again and again
        self._wanted = False
        return self.ask(now_s=now_s)

    def ask(self, *, now_s: float) -> list[Effect]:
        """Tell it (again) what is wanted, and hear whether it is done."""
        self._timers.cancel(TIMER)
        self._asked += 1
        number = self._asked
        place = place_of(SERVE, self._device, boot=self._boot, seq=number)
        return self._consumer.express(
            REQUEST,
            message_name(node_prefix(self._device), SERVE, self._device, boot=self._boot, seq=number),
            now_s=now_s,
            peer=self._device,
            parameters=encode(seal(self._signer, ServeRequest(self._wanted), place)),
            attempts_max=ATTEMPTS,
        )

    def on_reply(self, reply: ServeReply, *, now_s: float) -> None:
        """It is done, or is asked again in a while."""
        if self._wanted:
            return
        if reply.done:
            self.has_handed_over = True
        else:
            self._timers.set(TIMER, now_s + POLL_INTERVAL_S)

    def on_given_up(self) -> None:
        """It does not answer."""
        if not self._wanted:
            self.has_handed_over = True
