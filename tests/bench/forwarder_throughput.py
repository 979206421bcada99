"""How many packets per second one forwarder core passes on: small Interests and the Data that answer them, all different.

    python -m tests.bench.forwarder_throughput [--packets 100000] [--runs 5] [--profile | --process]

Neither the PIT nor the content store has any of the names; half of the packets are Interests, half Data. The core alone, no
sockets; with --process the whole node program with its sockets, for which issue 4 asks for 15,000 packets/s (takes root).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import time

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import Effect, PacketReceived, Send
from proxy.core.forwarder import Forwarder
from proxy.core.liveness import State
from proxy.wire.lp import LinkPacket, encode_link_packet
from proxy.wire.name import from_uri, number
from proxy.wire.packet import encode_data, encode_interest
from tests.bench import forwarder_process

DOWN, UP = 1, 2


def make_forwarder() -> Forwarder:
    """Return a forwarder with a face on either side, both up, and a route."""
    faces = tuple(
        FaceConfig(
            face_id, f"link{face_id}", f"eth{face_id}", f"10.0.{face_id}.1", f"10.0.{face_id}.2", f"peer{face_id}"
        )
        for face_id in (DOWN, UP)
    )
    routes = (RouteConfig("/hconf/producer", (NextHopConfig(UP, 1.0),)),)
    forwarder = Forwarder(ForwarderConfig(faces, routes), node="bench", seed=1, local_attached=False)
    for face_id in (DOWN, UP):
        hello = encode_link_packet(LinkPacket(b"", session_state=State.INIT))
        forwarder.handle(PacketReceived(face_id, hello), now_s=0.0)
        assert forwarder.faces[face_id].is_up
    return forwarder


def make_packets(count: int) -> list[tuple[bytes, bytes]]:
    """Return pairs of an Interest and its Data."""
    prefix = from_uri("/hconf/producer/32=sync/main/v=1")
    pairs = []
    for n in range(count):
        name = prefix + number(n, 58)
        _, interest = encode_interest(name, nonce=n + 1)
        data = encode_data(name, bytes(50), freshness_ms=1000)
        pairs.append((interest, data))
    return pairs


def as_received(pairs: list[tuple[bytes, bytes]]) -> list[tuple[PacketReceived, PacketReceived]]:
    """Return the pairs as they come over links that number them."""
    return [
        (
            PacketReceived(DOWN, encode_link_packet(LinkPacket(interest, sequence=n))),
            PacketReceived(UP, encode_link_packet(LinkPacket(data, sequence=n))),
        )
        for n, (interest, data) in enumerate(pairs)
    ]


def drive(forwarder: Forwarder, pairs: list[tuple[PacketReceived, PacketReceived]], *, interval_s: float) -> float:
    """Pass all of them; return the seconds of processor time that it took."""
    now_s, sent = 1.0, 0
    begun_s = time.process_time()
    for interest, data in pairs:
        now_s += interval_s
        sent += _sends(forwarder.handle(interest, now_s=now_s))
        sent += _sends(forwarder.handle(data, now_s=now_s))
    took_s = time.process_time() - begun_s
    assert sent == 2 * len(pairs), f"{sent} of {2 * len(pairs)} packets were passed on"
    return took_s


def _sends(effects: list[Effect]) -> int:
    return sum(isinstance(effect, Send) for effect in effects)


def main() -> int:
    """Print packets per second of every run, and with --profile where the time goes; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--process", action="store_true")
    arguments = parser.parse_args()
    packets = make_packets(arguments.packets // 2)
    if arguments.process:
        return forwarder_process.run(packets, arguments.runs)
    pairs = as_received(packets)
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(drive, make_forwarder(), pairs, interval_s=1e-4)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return 0
    rates = [2 * len(pairs) / drive(make_forwarder(), pairs, interval_s=1e-4) for _ in range(arguments.runs)]
    print(
        f"{statistics.median(rates):,.0f} packets/s (median of {len(rates)}, {min(rates):,.0f} to {max(rates):,.0f}); "
        f"{1e6 / statistics.median(rates):.1f} microseconds each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
