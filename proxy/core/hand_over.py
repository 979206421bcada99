"""Whether a service proxy serves. That of a UE hands over before its device leaves, and serves again when it comes back.

    serving --(serve: no)--> handing over --(no clients left, all is with the others)--> handed over
       ^                          |                                                           |
       +------(serve: yes)--------+-----------------------------------------------------------+

While it hands over, it tells its clients to go, serves those that have not gone yet, and admits nobody. What it has then is
its last word: as soon as every other proxy that is up has all of that, it falls silent.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.client_side import ClientSide
from proxy.core.conference import Conference
from proxy.core.events import Log
from proxy.core.outbox import Outbox
from proxy.core.trust import Refusal, place_of
from proxy.records import ServiceChanged, ServiceState
from proxy.wire.message_names import SERVE, MessageName
from proxy.wire.messages import Position, Sealed, ServeReply, ServeRequest
from proxy.wire.packet import Interest
from proxy.wire.payload import decode


class HandOver:
    """One per service proxy. *on_resumed* is called when it serves again."""

    def __init__(
        self,
        out: Outbox,
        conferences: dict[str, Conference],
        clients: ClientSide,
        *,
        detection_time_s: float,
        on_resumed: Callable[[], None],
    ) -> None:
        self.state: ServiceState = "serving"
        self._out, self._conferences, self._clients = out, conferences, clients
        self._detection_time_s, self._on_resumed = detection_time_s, on_resumed
        self._last_request = (0, 0)  #: boot and number
        self._is_revoked = False
        #: By conference: what we had when the last client had gone, and who of the others has all of it.
        self._targets: dict[str, dict[tuple[str, int], int]] = {}
        self._holders: dict[str, set[str]] = {}

    @property
    def admits(self) -> bool:
        """Whether clients may join here."""
        return self.state == "serving"

    @property
    def takes_part(self) -> bool:
        """Whether this is a proxy of its conferences still."""
        return self.state != "handed-over"

    def on_request(self, interest: Interest, name: MessageName) -> None:
        """Our own device tells us to serve or to hand over. Raises: Refusal, MalformedError."""
        device = self._out.device
        if name.parts != (device,):
            raise Refusal("serve_of_other_device")
        if (name.boot, name.seq) < self._last_request:  # the same once more: the reply got lost
            raise Refusal("serve_replayed")
        place = place_of(SERVE, device, boot=name.boot, seq=name.seq)
        sealed = decode(interest.parameters, Sealed)
        request = self._out.trust.open_from_proxy(sealed, ServeRequest, place, device)
        self._last_request = (name.boot, name.seq)
        if request.serves:
            self._resume()
        else:
            self.begin()
            self.advance()
        self._out.reply(interest, ServeReply(self.state == ("serving" if request.serves else "handed-over")))

    def on_revoked(self) -> None:
        """Our own device is out of every conference for good, hence no proxy for others."""
        self._is_revoked = True
        self.begin()

    def begin(self) -> None:
        """Tell all clients to go."""
        if self.state == "serving":
            self._enter("handing-over")
            for conference in self._conferences.values():
                self._clients.send_away(conference)

    def advance(self) -> None:
        """Once per interval: tell those who are still here again; see whether all is done."""
        if self.state != "handing-over":
            return
        for conference in self._conferences.values():
            self._clients.forget_gone(conference, silent_s=self._detection_time_s)
            self._clients.send_away(conference)
            if not conference.clients and conference.name not in self._targets:
                self._targets[conference.name] = {
                    (proxy, boot): seq for proxy, boot, seq in conference.log.vector() if seq
                }
        if all(map(self._is_held, self._conferences.values())):
            self._enter("handed-over")
            self._out.consumer.cancel_all()
            for conference in self._conferences.values():
                conference.peers.clear()
                conference.armed.clear()

    def on_vector(self, conference: Conference, sender: str, vector: tuple[Position, ...]) -> None:
        """Another proxy tells what it has."""
        target = self._targets.get(conference.name)
        if target is None:
            return
        theirs = {(proxy, boot): seq for proxy, boot, seq in vector}
        if all(theirs.get(key, 0) >= seq for key, seq in target.items()):
            self._holders.setdefault(conference.name, set()).add(sender)

    def _is_held(self, conference: Conference) -> bool:
        """Tell whether the others have everything, or nobody takes part any more; where none is up, it has to wait."""
        target = self._targets.get(conference.name)
        if target is None:
            return False
        if not (conference.peers or conference.clients or conference.log.view.roster()):
            return True
        others = {device for device, peer in conference.peers.items() if peer.up}
        return not target or (bool(others) and others <= self._holders.get(conference.name, set()))

    def _resume(self) -> None:
        if self.state != "serving" and not self._is_revoked:
            self._targets.clear()
            self._holders.clear()
            self._enter("serving")
            self._on_resumed()

    def _enter(self, state: ServiceState) -> None:
        self.state = state
        self._out.counters[f"service_{state.replace('-', '_')}"] += 1
        self._out.effects.append(Log(ServiceChanged(self._out.now_s, self._out.device, state)))
