"""The whole node program under load: real UDP sockets on the loopback of a namespace, one process on one core.

``python -m tests.bench.forwarder_throughput --process`` runs it. A consumer and a producer, both in this process on another
core, keep WINDOW Interests on their way; every name is new, so neither PIT nor content store has any of them.
"""

from __future__ import annotations

import os
import select
import tempfile
import time
from pathlib import Path

from proxy import compiled
from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.liveness import State
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.packet import DATA
from tests.bench.node_process import Neighbour, NodeProcess, enter_namespace, largest_costs, node_config

WINDOW = 128
REQUIRED_PER_S = 15_000
HEARTBEAT_S = 0.05
LIMIT_S = 120.0
FACES = (
    FaceConfig(1, "down", "lo", "127.77.1.1", "127.77.1.2", "consumer"),
    FaceConfig(2, "up", "lo", "127.77.2.1", "127.77.2.2", "producer"),
)


def measure(pairs: list[tuple[bytes, bytes]], *, profile: Path | None) -> tuple[float, float]:
    """Pass all pairs of Interest and Data through a node; return packets per second, by the clock and by processor time."""
    interests = [encode_link_packet(LinkPacket(interest, sequence=n)) for n, (interest, _) in enumerate(pairs)]
    answers = {interest: encode_link_packet(LinkPacket(data, sequence=n)) for n, (interest, data) in enumerate(pairs)}
    config = ForwarderConfig(FACES, (RouteConfig("/hconf/producer", (NextHopConfig(2, 1.0),)),))
    last_cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as directory:
        node = NodeProcess(node_config(config, Path(directory)), cpu=last_cpu, profile=profile)
        consumer, producer = (Neighbour(face) for face in FACES)
        try:
            for neighbour in (consumer, producer):
                neighbour.say(State.INIT)
            time.sleep(0.1)  # both faces come up
            begun_s, cpu_begun_s = time.monotonic(), node.cpu_s()
            _exchange(interests, answers, consumer, producer)
            took_s, cpu_s = time.monotonic() - begun_s, node.cpu_s() - cpu_begun_s
        finally:
            consumer.close()
            producer.close()
            node.end()
    return 2 * len(pairs) / took_s, 2 * len(pairs) / cpu_s


def _exchange(interests: list[bytes], answers: dict[bytes, bytes], consumer: Neighbour, producer: Neighbour) -> None:
    poll = select.epoll()
    poll.register(consumer.fileno(), select.EPOLLIN)
    poll.register(producer.fileno(), select.EPOLLIN)
    asked = answered = 0
    beat_s, until_s = 0.0, time.monotonic() + LIMIT_S
    while answered < len(interests):
        now_s = time.monotonic()
        assert now_s < until_s, f"{answered:,} of {len(interests):,} were answered in {LIMIT_S:g} s"
        if now_s >= beat_s:
            beat_s = now_s + HEARTBEAT_S
            consumer.say(State.UP)
            producer.say(State.UP)
        while asked < len(interests) and asked - answered < WINDOW:
            consumer.send(interests[asked])
            asked += 1
        poll.poll(HEARTBEAT_S)
        for datagram in producer.take():
            answer = answers.get(decode_link_packet(datagram).fragment)
            if answer is not None:
                producer.send(answer)
        for datagram in consumer.take():
            answered += decode_link_packet(datagram).fragment[:1] == bytes((DATA,))


def run(pairs: list[tuple[bytes, bytes]], runs: int) -> int:
    """Print the rates of some runs and the three largest costs; return the exit status."""
    enter_namespace()
    best_per_s = 0.0
    for _ in range(runs):
        per_s, per_cpu_s = measure(pairs, profile=None)
        best_per_s = max(best_per_s, per_s)
        print(f"{per_s:,.0f} packets/s by the clock, {per_cpu_s:,.0f} per second of its processor time")
    print(f"required: {REQUIRED_PER_S:,} packets/s")
    if compiled.is_in_use():
        print("a profiler does not see into compiled code: set HCONF_INTERPRETED=1 for the largest costs")
        return 0 if best_per_s >= REQUIRED_PER_S else 1
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as directory:
        profile = Path(directory) / "profile"
        measure(pairs[: len(pairs) // 4], profile=profile)
        print("largest costs, under cProfile:", *largest_costs(profile, 3), sep="\n  ")
    return 0 if best_per_s >= REQUIRED_PER_S else 1
