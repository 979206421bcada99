"""Does a forwarder stay within its bounds, whatever it is asked? Interests with random names, for half an hour of virtual time.

    python -m tests.bench.random_names [--interests 10000000] [--minutes 30]

Names of random length, depth and kind from three faces: half of the Interests are answered, by Data that may be kept, the
others expire. Prints how full the tables were and the memory of this process at every tenth; exit status 1 where a table
outgrew its limit, or memory grew by more than GROWTH_MAX_MB in the second half.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
import time
from pathlib import Path

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import Effect, PacketReceived, TimerExpired
from proxy.core.forwarder import Forwarder
from proxy.core.liveness import State
from proxy.core.table.dead_nonce_list import ENTRIES_MAX
from proxy.wire.lp import LinkPacket, encode_link_packet
from proxy.wire.packet import encode_data
from proxy.wire.tlv import tlv

FACES, UPSTREAM = (1, 2, 3, 4), 4
GROWTH_MAX_MB = 8.0
KINDS = (8, 8, 8, 32, 50, 54, 1_000)
HEARTBEAT_S = 0.1


def forwarder() -> Forwarder:
    """Return a forwarder with three faces to askers and one to everything."""
    faces = tuple(FaceConfig(face, f"l{face}", "eth0", "10.0.0.0", "10.0.0.1", "peer") for face in FACES)
    config = ForwarderConfig(faces, (RouteConfig("/", (NextHopConfig(UPSTREAM, 1.0),)),))
    return Forwarder(config, node="bench", seed=1, local_attached=True)


def random_interest(chance: random.Random) -> tuple[bytes, bytes]:
    """Return (name, packet)."""
    name = b"".join(
        tlv(chance.choice(KINDS), chance.randbytes(chance.randrange(1, 24))) for _ in range(chance.randrange(1, 10))
    )
    asked = name + tlv(1, chance.randbytes(32)) if chance.random() < 0.05 else name
    flags = (b"\x21\x00" if chance.random() < 0.2 else b"") + (b"\x12\x00" if chance.random() < 0.3 else b"")
    lifetime = b"" if chance.random() < 0.5 else b"\x0c\x02" + chance.randrange(100, 10_000).to_bytes(2, "big")
    return name, tlv(5, tlv(7, asked) + flags + b"\x0a\x04" + chance.randbytes(4) + lifetime)


def resident_mb() -> float:
    """Return the memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


class Flood:
    """The forwarder, and everybody around it."""

    def __init__(self, *, rate_per_s: float) -> None:
        self.forwarder, self.now_s = forwarder(), 1.0
        self._chance, self._step_s = random.Random(1), 1.0 / rate_per_s
        self._beat_s = 0.0
        self.peaks: dict[str, int] = {}

    def one(self) -> None:
        """One more Interest; answered, or not."""
        chance = self._chance
        self.now_s += self._step_s
        if self.now_s >= self._beat_s:
            self._beat_s = self.now_s + HEARTBEAT_S
            for face in FACES:
                self._handle(PacketReceived(face, encode_link_packet(LinkPacket(b"", session_state=State.INIT))))
        while self.forwarder.deadline_s <= self.now_s:
            self._handle(TimerExpired())
        name, wire = random_interest(chance)
        sent = self._handle(PacketReceived(chance.randrange(1, UPSTREAM), wire))
        if sent and chance.random() < 0.5:
            data = encode_data(name, chance.randbytes(chance.randrange(1_000)), freshness_ms=chance.choice((0, 1_000)))
            self._handle(PacketReceived(UPSTREAM, data))

    def _handle(self, event: PacketReceived | TimerExpired) -> list[Effect]:
        return self.forwarder.handle(event, now_s=self.now_s)

    def note_peaks(self) -> None:
        """Keep the largest of each size."""
        counters = self.forwarder.counters_now()
        sizes = {name: counters[name] for name in ("pit_peak", "cs_entries", "cs_bytes", "dead_nonces")}
        sizes["pit_timers"] = len(self.forwarder.pit.timers._heap)  # what was moved or cancelled, too
        for name, size in sizes.items():
            self.peaks[name] = max(size, self.peaks.get(name, 0))


def main() -> int:
    """Print what came out; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interests", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    flood = Flood(rate_per_s=arguments.interests / (60 * arguments.minutes))
    config = ForwarderConfig((), ())
    limits = {
        "pit_peak": config.pit_max_entries,
        "cs_entries": config.cs_max_entries,
        "cs_bytes": config.cs_max_bytes,
        "dead_nonces": ENTRIES_MAX,
        "pit_timers": 64 + 4 * config.pit_max_entries,
    }
    memory_mb, begun_s = [], time.process_time()
    for tenth in range(10):
        for n in range(arguments.interests // 10):
            flood.one()
            if n % 1_000 == 0:
                flood.note_peaks()
        gc.collect()
        memory_mb.append(resident_mb())
        counters = flood.forwarder.counters_now()
        print(
            f"{tenth + 1:2}/10: {flood.now_s / 60:5.1f} min, PIT {counters['pit_entries']:,}, CS {counters['cs_entries']:,} "
            f"({counters['cs_bytes'] / 1e6:.1f} MB), dead nonces {counters['dead_nonces']:,}, memory {memory_mb[-1]:.1f} MB",
            flush=True,
        )
    counters = flood.forwarder.counters_now()
    print(f"peaks: {flood.peaks}, limits: {limits}")
    print(
        {name: counters.get(name, 0) for name in ("malformed", "loops", "pit_full", "refused_pit_share", "unsatisfied")}
    )
    took_s = time.process_time() - begun_s
    print(f"{1e6 * took_s / arguments.interests:.0f} microseconds of processor time for each, making it up included")
    growth_mb = memory_mb[-1] - memory_mb[4]
    print(f"memory grew by {growth_mb:.1f} MB in the second half (at most {GROWTH_MAX_MB:g} MB)")
    within = all(flood.peaks[name] <= limit for name, limit in limits.items())
    return 0 if within and growth_mb <= GROWTH_MAX_MB else 1


if __name__ == "__main__":
    sys.exit(main())
