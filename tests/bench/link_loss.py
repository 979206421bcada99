"""What link reliability makes of a lossy path: Interests that stay unanswered, and the delay that repeating them adds.

    python -m tests.bench.link_loss [--interests 20000] [--hops 4] [--loss-ratio 0.05] [--delay-ms 10] [--rate 100]

Simulated: a line of forwarders, every link with the same loss in both directions, one consumer and one producer at its ends,
nobody but the links repeats anything. Issue 4 asks for an end-to-end loss below 0.1 %, and for an added delay of at most
two round trips of a link at p99; exit status 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Callable

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import LOCAL_FACE, Effect, PacketReceived, Send, TimerExpired
from proxy.core.forwarder import Forwarder
from proxy.wire.lp import decode_link_packet
from proxy.wire.name import from_uri, number
from proxy.wire.packet import DATA, decode_data, encode_data, encode_interest, peek_interest
from testbed.links.channel import Channel
from testbed.links.model import DIRECTIONS, Impairment

TOWARDS_CONSUMER, TOWARDS_PRODUCER = 1, 2
WARM_UP_S, WARM_UP_INTERESTS = 5.0, 300
LOSS_LIMIT = 0.001


class Line:
    """Forwarders 0 to *hops*; the consumer is at the first, the producer at the last."""

    def __init__(self, *, hops: int, impairment: Impairment, mode: str, size_bytes: int) -> None:
        self.now_s = 0.0
        self.answered_s: dict[bytes, float] = {}
        self.round_trip_s = 2 * hops * impairment.delay_ms / 1e3  #: of the path, nothing lost
        self._content = bytes(size_bytes)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._wakes_s = [float("inf")] * (hops + 1)
        self._nodes = [self._forwarder(n, hops, mode) for n in range(hops + 1)]
        self._channels = {
            (link, direction): Channel(impairment, seed=1, link=f"l{link}", direction=direction)
            for link in range(hops)
            for direction in DIRECTIONS
        }
        for n in range(hops + 1):
            self._give(n, TimerExpired())

    @staticmethod
    def _forwarder(n: int, hops: int, mode: str) -> Forwarder:
        wanted = [face for face, is_there in ((TOWARDS_CONSUMER, n > 0), (TOWARDS_PRODUCER, n < hops)) if is_there]
        faces = tuple(FaceConfig(face, f"l{n}.{face}", "eth0", "10.0.0.0", "10.0.0.1", "peer") for face in wanted)
        onward = NextHopConfig(TOWARDS_PRODUCER if n < hops else LOCAL_FACE, 1.0)
        config = ForwarderConfig(faces, (RouteConfig("/p", (onward,)),), link_reliability=mode)  # type: ignore[arg-type]
        return Forwarder(config, node=f"n{n}", seed=n + 1, local_attached=True)

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, action))

    def run_until(self, until_s: float) -> None:
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._heap)
            action()
        self.now_s = until_s

    def ask(self, name: bytes, nonce: int) -> None:
        """One Interest of the consumer, never repeated by it."""
        _, wire = encode_interest(name, nonce=nonce)
        self._give(0, PacketReceived(LOCAL_FACE, wire))

    def _give(self, n: int, event: PacketReceived | TimerExpired) -> None:
        self._do(n, self._nodes[n].handle(event, now_s=self.now_s))
        at_s = max(self._nodes[n].deadline_s, self.now_s)
        if at_s < self._wakes_s[n]:
            self._wakes_s[n] = at_s
            self.at(at_s, lambda: self._wake(n, at_s))

    def _wake(self, n: int, at_s: float) -> None:
        if self._wakes_s[n] == at_s:
            self._wakes_s[n] = float("inf")
            self._give(n, TimerExpired())

    def _do(self, n: int, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            if effect.face_id == LOCAL_FACE:
                self._at_end(n, effect.packet)
                continue
            towards_producer = effect.face_id == TOWARDS_PRODUCER
            link, direction = (n, DIRECTIONS[0]) if towards_producer else (n - 1, DIRECTIONS[1])
            due_ns = self._channels[link, direction].offer(len(effect.packet) + 42, now_ns=round(self.now_s * 1e9))
            if due_ns >= 0:
                there, face = (n + 1, TOWARDS_CONSUMER) if towards_producer else (n - 1, TOWARDS_PRODUCER)
                received = PacketReceived(face, effect.packet)
                self.at(due_ns / 1e9, lambda there=there, received=received: self._give(there, received))  # type: ignore[misc]

    def _at_end(self, n: int, packet: bytes) -> None:
        fragment = decode_link_packet(packet).fragment
        if n:
            data = encode_data(peek_interest(fragment).name, self._content)
            self._give(n, PacketReceived(LOCAL_FACE, data))
        elif fragment[0] == DATA:
            self.answered_s[decode_data(fragment).name] = self.now_s

    def counter(self, name: str) -> int:
        return sum(node.counters_now().get(name, 0) for node in self._nodes)


def measure(line: Line, *, interests: int, per_s: float) -> tuple[float, list[float]]:
    """Ask so much; return the ratio of what stayed unanswered, and the delay in ms that repeating added to each of the others.

    What is asked first, until the links have been found lossy, is left out.
    """
    line.run_until(WARM_UP_S)
    prefix, asked_s = from_uri("/p"), {}
    for n in range(-WARM_UP_INTERESTS, interests):
        name, at_s = prefix + number(n + WARM_UP_INTERESTS, 50), WARM_UP_S + (n + WARM_UP_INTERESTS) / per_s
        if n >= 0:
            asked_s[name] = at_s
        line.at(at_s, lambda name=name, n=n: line.ask(name, n + WARM_UP_INTERESTS))  # type: ignore[misc]
    line.run_until(WARM_UP_S + (WARM_UP_INTERESTS + interests) / per_s + 10.0)
    answered = [(at_s, line.answered_s[name]) for name, at_s in asked_s.items() if name in line.answered_s]
    added_ms = sorted(1e3 * (answered_s - at_s - line.round_trip_s) for at_s, answered_s in answered)
    return 1 - len(added_ms) / interests, added_ms


def percentile(ordered: list[float], part: float) -> float:
    """Return the value that so large a part of *ordered* does not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def main() -> int:
    """Print what came out; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interests", type=int, default=20_000)
    parser.add_argument("--hops", type=int, default=4)
    parser.add_argument("--loss-ratio", type=float, default=0.05)
    parser.add_argument("--delay-ms", type=float, default=10.0, help="of a link, one way")
    parser.add_argument("--rate", type=float, default=100.0, help="Interests per second")
    parser.add_argument("--size-bytes", type=int, default=200, help="content of each Data")
    parser.add_argument("--mode", choices=["auto", "on", "off"], default="on")
    arguments = parser.parse_args()
    impairment = Impairment(delay_ms=arguments.delay_ms, loss_ratio=arguments.loss_ratio)
    line = Line(hops=arguments.hops, impairment=impairment, mode=arguments.mode, size_bytes=arguments.size_bytes)
    loss_ratio, added_ms = measure(line, interests=arguments.interests, per_s=arguments.rate)
    limit_ms = 2 * 2 * arguments.delay_ms
    p50, p99, worst = (percentile(added_ms, part) for part in (0.5, 0.99, 1.0))
    print(
        f"{arguments.hops} hops, {arguments.loss_ratio:.1%} loss each way on each, round trip of a link "
        f"{2 * arguments.delay_ms:g} ms, {arguments.rate:g} Interests/s\n"
        f"unanswered: {loss_ratio:.4%} of {arguments.interests:,} (below {LOSS_LIMIT:.1%} asked for)\n"
        f"added delay: p50 {p50:.1f} ms, p99 {p99:.1f} ms (at most {limit_ms:g} ms asked for), worst {worst:.1f} ms\n"
        f"repeated on links: {line.counter('link_repetitions'):,}; arrived twice: {line.counter('link_doubles'):,}; "
        f"given up: {line.counter('link_losses'):,}"
    )
    return 0 if loss_ratio < LOSS_LIMIT and p99 <= limit_ms else 1


if __name__ == "__main__":
    sys.exit(main())
