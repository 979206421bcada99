"""The joining part of a service client: at which proxy it is, how it gets there, and how it moves to a nearer one."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from proxy.core.client_outbox import ClientOutbox, RequestKey
from proxy.core.consumer import Pending
from proxy.core.packing import known_for_request
from proxy.core.proxy_choice import ProxyChoice
from proxy.core.publisher import Publisher
from proxy.core.receiver import Receiver
from proxy.core.timers import Timers
from proxy.core.trust import join_statement
from proxy.wire.message_names import JOIN, parse_message_name
from proxy.wire.messages import JoinReply, JoinRequest
from proxy.wire.payload import encode

#: A join is tried so often at one proxy before the next ranked one is asked.
JOIN_ATTEMPTS: Final = 3
#: And so often at one that a client would rather be at, but loses nothing if it cannot.
MOVE_ATTEMPTS: Final = 2


class ClientJoin:
    """Sets the timers ``silence`` (of our proxy), ``return`` (to a better one) and ``next`` among *timers*."""

    def __init__(
        self,
        out: ClientOutbox,
        timers: Timers[str],
        *,
        publisher: Publisher,
        receiver: Receiver,
        interval_s: float,
        detection_time_s: float,
    ) -> None:
        self._out, self._timers = out, timers
        self._publisher, self._receiver = publisher, receiver
        self._interval_s, self._detection_time_s = interval_s, detection_time_s
        self._choice = ProxyChoice(
            out.chance, hold_down_s=out.config.return_hold_down_s, hold_down_max_s=out.config.return_hold_down_max_s
        )
        self._joins = 0  #: of this boot; each is numbered, and goes to one proxy
        self._join_here = 0  #: the one by which we are at our proxy, or want to be
        self._joined_once = False
        self._no_route_s = float("-inf")  #: when we last looked for another proxy because the network told us to
        self._previous = ""  #: the proxy that we moved from
        self._overlap_until_s = float("-inf")  #: and how long we listen to it still

    def assign(self, ranked: tuple[str, ...]) -> None:
        """The login server says which proxies we may go to, best first."""
        self._choice.assign(ranked)

    def start(self, reason: str) -> None:
        """Join where we were, else at the best proxy."""
        self._join(self._choice.start_at(self._out.proxy), reason)

    def rejoin(self, reason: str) -> None:
        """The session is interrupted: re-join with the last known state, here or at the next ranked proxy."""
        self._out.enter("suspect", reason)
        self._choice.start_at(self._out.proxy)
        self._join(self._out.proxy, reason)

    def enter_joined(self, reason: str) -> None:
        """The session is whole."""
        if self._out.state != "joined":
            self._out.enter("joined", reason)
            self._timers.set("silence", self._out.now_s + self._detection_time_s)
            self.plan_return()

    def _join(self, proxy: str, reason: str) -> None:
        out = self._out
        out.stop_asking("join", "move")
        if proxy != out.proxy:  # what the last proxy has not acked goes to this one
            self._publisher.stop_asking()
            self._receiver.stop_asking()
        out.proxy = proxy
        if out.state != "suspect":
            out.enter("joining", reason)
        self._join_here = self._ask_to_join(("join", 0), proxy, attempts_max=JOIN_ATTEMPTS)

    def _ask_to_join(self, key: RequestKey, proxy: str, *, attempts_max: int) -> int:
        """Ask a proxy to let us in; return the number of this join."""
        out = self._out
        assert out.grant is not None, "joined without a token"
        vector = self._receiver.positions.vector()
        known, is_partial = known_for_request(vector, tuple) if self._joined_once else (None, False)
        self._joins += 1
        name = parse_message_name(out.name_at(proxy, JOIN, seq=self._joins))
        request = JoinRequest(
            out.grant.signed, out.boot, self._publisher.settled_seq, known, b"", is_partial, out.exchange.public_key
        )
        proof = join_statement(request, name, proxy)
        signed = encode(replace(request, signature=out.signer.sign(proof)))
        out.ask_proxy(key, JOIN, signed, seq=self._joins, attempts_max=attempts_max, proxy=proxy)
        return self._joins

    def on_nack(self, kind: str) -> None:
        """The network cannot reach the proxy that we asked to let us in (*kind* ``join`` or ``move``)."""
        if kind == "move":
            self._try_to_move()
        elif self._choice.passes_over():
            self._try_next_proxy()

    def on_sent_on(self) -> None:
        """The proxy that we asked hands over: the next one, or, where all have been asked, the same ones again in a while."""
        if self._choice.passes_over():
            self._try_next_proxy()
        else:
            self._timers.set("next", self._out.now_s + self._interval_s)

    def on_waited(self) -> None:
        """The while is over."""
        if ("join", 0) not in self._out.consumer:
            self._try_next_proxy()

    def leave_proxy(self, reason: str) -> None:
        """Our proxy sends us to the next one."""
        self._out.enter("suspect", reason)
        self._choice.start_at(self._out.proxy)
        self._try_next_proxy()

    def on_given_up(self, kind: str) -> None:
        """The proxy that we asked to let us in does not answer."""
        if kind == "move":
            self._try_to_move()
        else:
            self._choice.wait()
            self._try_next_proxy()

    def _try_next_proxy(self) -> None:
        """The same proxy once more, then the others in order of rank, over and over."""
        if self._out.state in ("joining", "suspect") and self._choice.ranked:
            self._join(self._choice.next(), "next proxy")

    def on_reply(self, reply: JoinReply) -> None:
        """The proxy has let us in."""
        out = self._out
        self._choice.settle()
        if out.state != "closing":
            self.enter_joined("suspect no more" if out.state == "suspect" else "")
        self._take_in(reply)

    def _take_in(self, reply: JoinReply) -> None:
        """Take what the proxy knows, send it what it lacks."""
        out = self._out
        out.session_key = out.exchange.session_key(
            reply.exchange_key, conference=out.conference, device=out.device, proxy=out.proxy
        )
        self._receiver.take_missed(reply)
        self._joined_once = True
        if "heartbeat" not in self._timers:
            self._timers.set("heartbeat", out.now_s + self._interval_s)
        self._publisher.admit()
        self._publisher.resend(reply.own_seq)
        self._receiver.ask_for_keys()

    # ------------------------------------------------------------------ moving while the session goes on

    def on_neighbour(self, csr: str, *, up: bool) -> None:
        """Our link to a CSR has come up or gone down. If it is that of our proxy, another one is nearer now."""
        self._choice.set_attached(csr, attached=up)
        if csr == self._out.proxy and not up:
            self.look_for_other_proxy()
        else:
            self._timers.cancel("return")
            self.plan_return()

    def on_no_route(self) -> None:
        """The network has no way to our proxy; often it is only the proxy that is gone. Ask the others, but not at every Nack."""
        if self._out.now_s - self._no_route_s >= self._detection_time_s:
            self._no_route_s = self._out.now_s
            self.look_for_other_proxy()

    def look_for_other_proxy(self) -> None:
        """Ours is out of reach, or only by a long way round: ask the others, and stay while it answers and they do not."""
        if self._out.state == "joined" and ("move", 0) not in self._out.consumer:
            self._timers.cancel("return")
            self._choice.start_round(self._out.proxy, better_only=False)
            self._try_to_move()

    def plan_return(self) -> None:
        """Where there is a better proxy than ours, look for it after a hold-down."""
        out = self._out
        if self._choice.is_best(out.proxy):
            self._choice.note_best(out.proxy, now_s=out.now_s)
            self._timers.cancel("return")
        elif out.state == "joined" and "return" not in self._timers and ("move", 0) not in out.consumer:
            self._timers.set("return", out.now_s + self._choice.hold_down_s(now_s=out.now_s))

    def look_for_better_proxy(self) -> None:
        """The hold-down is over."""
        if self._out.state == "joined":  # else the next session plans anew
            self._choice.start_round(self._out.proxy, better_only=True)
            self._try_to_move()

    def _try_to_move(self) -> None:
        """Ask the next one of this round to let us in while the session goes on; if none does, wait for the next time."""
        self._out.stop_asking("move")
        proxy = self._choice.next_of_round()
        if proxy is None:
            self.plan_return()
        else:
            self._ask_to_join(("move", 0), proxy, attempts_max=MOVE_ATTEMPTS)

    def on_move_reply(self, pending: Pending[RequestKey], reply: JoinReply) -> None:
        """Another proxy has let us in: from now on it is ours.

        The one before serves us until it has not heard us for its detection time. Its notifications are taken so long, too:
        a proxy that has just come back may know less than it does.
        """
        if not reply.granted:
            self._try_to_move()
            return
        out = self._out
        self._publisher.stop_asking()
        self._receiver.stop_asking()
        is_better = self._choice.is_better(pending.peer, than=out.proxy)
        self._previous, self._overlap_until_s = out.proxy, out.now_s + self._detection_time_s
        out.proxy, self._join_here = pending.peer, parse_message_name(pending.base_name).seq
        out.heard_s = out.now_s
        out.counters["moves"] += 1
        out.log_session("returned" if is_better else "moved")
        self.plan_return()
        self._take_in(reply)

    def is_overlapping(self, proxy: str) -> bool:
        """Tell whether we have just moved from *proxy* and take what it still tells."""
        return proxy == self._previous and self._out.now_s < self._overlap_until_s

    def is_claimed(self) -> bool:
        """Tell whether a proxy that we only asked has let us in, but could not tell us: everybody looks for us there."""
        out = self._out
        told = self._receiver.view.presence_of(out.device)
        return (
            out.state == "joined"
            and told is not None
            and (told.boot, told.join) > (out.boot, self._join_here)
            and ("move", 0) not in out.consumer
        )
