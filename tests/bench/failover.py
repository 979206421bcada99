"""How long Interests that are pending are held up by the failure of a link, at the router beside it.

    sudo python -m tests.bench.failover [--pending 1 100 1000] [--runs 20]

A real node program in a namespace of its own, three links (veth pairs) to this process in another: Interests come from the
first and are pending on the second, which then loses its carrier; they must leave over the third. Timed from before the
carrier is taken away to the arrival of each, so the kernel's part is in it. Issue 4 asks for at most 5 ms; exit status 1
where the first Interest took longer in the median run. Of many, the last ones wait for those before them: that is printed, too.
"""

from __future__ import annotations

import argparse
import fcntl
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

from proxy.config import FaceConfig, ForwarderConfig, LivenessConfig, NextHopConfig, RouteConfig
from proxy.core.liveness import State
from proxy.wire.lp import LinkPacket, decode_link_packet, encode_link_packet
from proxy.wire.name import from_uri, number
from proxy.wire.packet import INTEREST, encode_interest
from tests.bench.node_process import Neighbour, NodeProcess, enter_namespace, ip, node_config

LIMIT_MS = 5.0
WAIT_S = 5.0
_SIOCSIFFLAGS = 0x8914
FACES = tuple(
    FaceConfig(n, f"link{n}", f"node{n}", f"10.77.{n}.0", f"10.77.{n}.1", f"peer{n}", mtu_bytes=1_500)
    for n in (1, 2, 3)
)


def one_failure(pending: int) -> list[float]:
    """Return how long each of the pending Interests was held up, in milliseconds, in the order in which they came."""
    routes = (RouteConfig("/p", (NextHopConfig(2, 1.0), NextHopConfig(3, 2.0))),)
    commands = [
        command
        for face in FACES
        for command in (
            ("addr", "add", f"{face.local_address}/31", "dev", face.intf),
            ("link", "set", face.intf, "up"),
        )
    ]
    for face in FACES:
        ip("link", "add", f"far{face.face_id}", "type", "veth", "peer", "name", face.intf)
    with tempfile.TemporaryDirectory(prefix="hconf-bench-") as directory:
        config = ForwarderConfig(
            FACES, routes, liveness=LivenessConfig(desired_min_tx_s=10.0)
        )  # the carrier alone tells
        node = NodeProcess(node_config(config, Path(directory)), prepare=commands)
        neighbours: list[Neighbour] = []
        try:
            for face in FACES:
                ip("link", "set", face.intf, "netns", str(node.pid))
                ip("addr", "add", f"{face.remote_address}/31", "dev", f"far{face.face_id}")
                ip("link", "set", f"far{face.face_id}", "up")
            node.go()
            neighbours = [Neighbour(face) for face in FACES]
            return _fail(neighbours, pending)
        finally:
            for neighbour in neighbours:
                neighbour.close()
            for face in FACES:
                ip("link", "del", f"far{face.face_id}")  # and with it the other end
            node.end()


def take_down(intf: str) -> None:
    """Take an interface down, and with it the carrier of its other end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", intf.encode(), 0))


def _fail(neighbours: list[Neighbour], pending: int) -> list[float]:
    consumer, best, second = neighbours
    for neighbour in neighbours:
        neighbour.say(State.INIT)
    _collect(consumer, 0, 0.1)
    for n in range(pending):
        _, wire = encode_interest(from_uri("/p") + number(n, 50), nonce=n + 1, lifetime_ms=60_000)
        consumer.send(encode_link_packet(LinkPacket(wire, sequence=n)))
    assert len(_collect(best, pending, WAIT_S)) == pending
    begun_s = time.monotonic()
    take_down("far2")
    arrived = _collect(second, pending, WAIT_S)
    assert len(arrived) == pending, f"{len(arrived)} of {pending} Interests left over the other link"
    return [1e3 * (at_s - begun_s) for at_s in arrived]


def _collect(neighbour: Neighbour, count: int, wait_s: float) -> list[float]:
    """Return when each Interest arrived; stop after *count*, or so many seconds."""
    arrived: list[float] = []
    until_s = time.monotonic() + wait_s
    while (left_s := until_s - time.monotonic()) > 0 and not (count and len(arrived) >= count):
        select.select([neighbour], [], [], left_s)
        at_s = time.monotonic()
        for datagram in neighbour.take():
            arrived += [at_s] * (decode_link_packet(datagram).fragment[:1] == bytes((INTEREST,)))
    return arrived


def main() -> int:
    """Print what came out; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pending", type=int, nargs="+", default=[1, 100, 1_000])
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    enter_namespace()
    longest_ms = 0.0
    for pending in arguments.pending:
        times_ms = [one_failure(pending) for _ in range(arguments.runs)]
        first_ms, last_ms = [each[0] for each in times_ms], [each[-1] for each in times_ms]
        print(
            f"{pending:,} pending: the first after {statistics.median(first_ms):.2f} ms (worst {max(first_ms):.2f}), "
            f"the last after {statistics.median(last_ms):.2f} ms (worst {max(last_ms):.2f})"
        )
        longest_ms = max(longest_ms, statistics.median(first_ms))
    print(f"at most {LIMIT_MS:g} ms asked for, the kernel included")
    return 0 if longest_ms <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
