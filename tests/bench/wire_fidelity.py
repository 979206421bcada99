"""How truthful `wire` links are: real UDP packets between two network namespaces, timed end to end.

    python tests/bench/wire_fidelity.py [--repetitions 5] [--packets 10000] [--ordinary-priority] [--out FIGURES.json]

Needs root and nothing else; makes two namespaces of its own and leaves nothing. What is measured:

* Delay error: time from just before `sendto` in one process to just after `recv` in another, minus the configured
  delay, at 1,000 packets/s. So it holds everything between two applications: both kernels' paths, the emulator, and the
  time until the receiving process runs. Required: p50 at most 0.2 ms and p99 at most 1 ms at every delay.
* Loss: the number of lost frames of a fixed input against the exact 99.9 % binomial interval; the same seed must lose
  the same frames, another seed others.
* Throughput (no requirement here): frames of 1,200 bytes carried a second, and what one of them costs the emulator.

Exit status 1 if a requirement does not hold. Figures are medians over the repetitions with their lowest and highest.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import math
import os
import platform
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from testbed.links.model import EmulatorStats, Impairment, LinkCounters
from tests.emulation.wire_pair import Pair, wire_pair

RATE_PPS: Final = 1_000
DELAYS_MS: Final = (0.0, 1.0, 4.0, 20.0)
LOSS_RATIOS: Final = (0.02, 0.3)
REQUIRED_P50_MS: Final = 0.2
REQUIRED_P99_MS: Final = 1.0
HEADER: Final = struct.Struct("=qq")  # sequence number, CLOCK_MONOTONIC ns at sending
THROUGHPUT_FRAME_BYTES: Final = 1_200
ETHERNET_IP_UDP_BYTES: Final = 14 + 20 + 8
THROUGHPUT_S: Final = 3.0
SILENCE_S: Final = 1.0  # a receiver that has heard nothing for so long has heard everything
SEED: Final = 7


@dataclass
class Check:
    """One figure against what is required of it; *required* None: for information."""

    name: str
    measured: float
    unit: str
    required: str | None
    holds: bool
    low: float | None = None
    high: float | None = None


@contextlib.contextmanager
def taking_turns_first(wanted: bool) -> Iterator[None]:  # noqa: FBT001
    """Take this process's turns before those of others, as the emulator does."""
    if wanted:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a forked process, scheduled as this one; return its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def send_paced(sender: socket.socket, *, packets: int, rate_pps: int) -> None:
    begin_ns = time.monotonic_ns() + 1_000_000
    for number in range(packets):
        ahead_ns = begin_ns + number * 1_000_000_000 // rate_pps - time.monotonic_ns()
        if ahead_ns > 0:
            time.sleep(ahead_ns / 1e9)
        sender.send(HEADER.pack(number, time.monotonic_ns()))


def received(receiver: socket.socket) -> tuple[list[int], list[int]]:
    """Return the numbers of the packets that arrive until silence, and how long each was on its way in ns."""
    numbers, took_ns = array.array("q"), array.array("q")
    receiver.settimeout(SILENCE_S + 2)
    while True:
        try:
            packet = receiver.recv(2_048)
        except TimeoutError:
            return list(numbers), list(took_ns)
        now_ns = time.monotonic_ns()
        number, sent_ns = HEADER.unpack_from(packet)
        numbers.append(number)
        took_ns.append(now_ns - sent_ns)
        receiver.settimeout(SILENCE_S)


def transmit(link: Pair, *, packets: int, rate_pps: int, instrument: bool) -> tuple[list[int], list[int]]:
    sender, receiver = link.sockets()
    with sender, receiver, taking_turns_first(instrument):
        child = in_child(lambda: send_paced(sender, packets=packets, rate_pps=rate_pps))
        try:
            return received(receiver)
        finally:
            os.waitpid(child, 0)


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


@dataclass
class DelayRun:
    delay_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    emulator_p50_ms: float
    emulator_p99_ms: float
    busy_p99_ms: float
    cpu_s: float


def delay_run(delay_ms: float, *, packets: int, instrument: bool) -> DelayRun:
    with wire_pair(impairment=Impairment(delay_ms=delay_ms)) as link:
        _, took_ns = transmit(link, packets=packets, rate_pps=RATE_PPS, instrument=instrument)
        counters: LinkCounters = link.emulator.counters()[0]
        stats: EmulatorStats = link.emulator.stats()
    errors_ms = sorted(took / 1e6 - delay_ms for took in took_ns)
    assert len(errors_ms) == packets, f"{packets - len(errors_ms)} packets did not arrive on a link without loss"
    return DelayRun(
        delay_ms=delay_ms,
        p50_ms=quantile(errors_ms, 0.5),
        p99_ms=quantile(errors_ms, 0.99),
        max_ms=errors_ms[-1],
        emulator_p50_ms=counters.delay_error_p50_ms or 0.0,
        emulator_p99_ms=counters.delay_error_p99_ms or 0.0,
        busy_p99_ms=stats.busy_p99_ms or 0.0,
        cpu_s=stats.cpu_s,
    )


def binomial_interval(trials: int, ratio: float, *, confidence: float) -> tuple[int, int]:
    """Return the smallest central interval of counts that holds *confidence* of the binomial distribution.

    >>> binomial_interval(10, 0.5, confidence=0.9)
    (2, 8)
    """
    tail, below, low, high = (1 - confidence) / 2, 0.0, 0, trials
    for count in range(trials + 1):
        log_mass = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        log_mass += count * math.log(ratio) + (trials - count) * math.log1p(-ratio)
        if below < tail:
            low = count
        below += math.exp(log_mass)
        if below >= 1 - tail:
            high = count
            break
    return low, high


def lost_numbers(ratio: float, *, seed: int, packets: int) -> set[int]:
    with wire_pair(seed=seed, impairment=Impairment(loss_ratio=ratio)) as link:
        numbers, _ = transmit(link, packets=packets, rate_pps=5 * RATE_PPS, instrument=False)
        counted = link.emulator.counters()[0]
    lost = set(range(packets)) - set(numbers)
    assert counted.dropped_packets["loss"] == len(lost), f"counted {counted.dropped_packets}, missing {len(lost)}"
    return lost


def loss_checks(ratio: float, *, packets: int) -> list[Check]:
    first, again = (lost_numbers(ratio, seed=SEED, packets=packets) for _ in range(2))
    other = lost_numbers(ratio, seed=SEED + 1, packets=packets)
    low, high = binomial_interval(packets, ratio, confidence=0.999)
    return [
        Check(
            name=f"loss {ratio}: frames lost of {packets}, seed {seed}",
            measured=len(lost),
            unit="frames",
            required=f"{low} to {high}",
            holds=low <= len(lost) <= high,
        )
        for seed, lost in ((SEED, first), (SEED + 1, other))
    ] + [
        Check(
            name=f"loss {ratio}: frames that one of two runs with the same seed lost",
            measured=len(first ^ again),
            unit="frames",
            required="0",
            holds=first == again and first != other,
        )
    ]


@dataclass
class ThroughputRun:
    carried_per_s: float
    emulator_us_per_frame: float
    overrun_ratio: float


def throughput_run() -> ThroughputRun:
    payload = bytes(THROUGHPUT_FRAME_BYTES - ETHERNET_IP_UDP_BYTES)

    def blast(sender: socket.socket) -> None:
        end_s = time.monotonic() + THROUGHPUT_S
        while time.monotonic() < end_s:
            for _ in range(32):
                sender.send(payload)

    with wire_pair() as link:
        sender, receiver = link.sockets()
        with sender, receiver:  # nobody reads: the kernel's receive path is paid for, a second process is not
            cpu_before_s = link.emulator.stats().cpu_s
            os.waitpid(in_child(lambda: blast(sender)), 0)
            cpu_s = link.emulator.stats().cpu_s - cpu_before_s
            counters = link.emulator.counters()[0]
    overrun = counters.dropped_packets["overrun"]
    return ThroughputRun(
        carried_per_s=counters.packets / THROUGHPUT_S,
        emulator_us_per_frame=cpu_s / counters.packets * 1e6,
        overrun_ratio=overrun / (overrun + counters.packets),
    )


def over_repetitions(name: str, values: Sequence[float], unit: str, *, at_most: float | None = None) -> Check:
    middle = statistics.median(values)
    return Check(
        name=name,
        measured=middle,
        unit=unit,
        required=None if at_most is None else f"at most {at_most:g}",
        holds=at_most is None or middle <= at_most,
        low=min(values),
        high=max(values),
    )


def delay_checks(runs: Sequence[DelayRun]) -> list[Check]:
    name = f"delay {runs[0].delay_ms:g} ms, {RATE_PPS} packets/s: error end to end"
    return [
        over_repetitions(f"{name}, p50", [run.p50_ms for run in runs], "ms", at_most=REQUIRED_P50_MS),
        over_repetitions(f"{name}, p99", [run.p99_ms for run in runs], "ms", at_most=REQUIRED_P99_MS),
        over_repetitions(f"{name}, max", [run.max_ms for run in runs], "ms"),
        over_repetitions("  of which by the emulator's own figures, p50", [r.emulator_p50_ms for r in runs], "ms"),
        over_repetitions("  of which by the emulator's own figures, p99", [r.emulator_p99_ms for r in runs], "ms"),
    ]


def show(check: Check) -> None:
    spread = "" if check.low is None else f"  ({check.low:.3g} to {check.high:.3g})"
    verdict = "" if check.required is None else f"  required {check.required}: {'pass' if check.holds else 'FAIL'}"
    print(f"{check.name:<72} {check.measured:>9.4g} {check.unit}{spread}{verdict}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, optionally write; return the exit status."""
    parser = argparse.ArgumentParser(description="measure the fidelity of wire links (needs root)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--packets", type=int, default=10_000, help="for each figure of delay or loss")
    parser.add_argument(
        "--ordinary-priority", action="store_true", help="sender and receiver not at real-time priority"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    instrument = not options.ordinary_priority
    checks: list[Check] = []

    def note(new: Sequence[Check]) -> None:
        for check in new:
            show(check)
        checks.extend(new)

    print(f"kernel {platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for delay_ms in DELAYS_MS:
        runs = range(options.repetitions)
        note(delay_checks([delay_run(delay_ms, packets=options.packets, instrument=instrument) for _ in runs]))
    for ratio in LOSS_RATIOS:
        note(loss_checks(ratio, packets=options.packets))
    throughput = [throughput_run() for _ in range(options.repetitions)]
    note(
        [
            over_repetitions("throughput, 1,200-byte frames", [run.carried_per_s for run in throughput], "frames/s"),
            over_repetitions("  emulator CPU a frame", [run.emulator_us_per_frame for run in throughput], "us"),
            over_repetitions("  dropped unread or late", [run.overrun_ratio for run in throughput], "of all"),
        ]
    )
    if options.out is not None:
        figures = {"kernel": platform.release(), "cpus": os.cpu_count(), "checks": [asdict(check) for check in checks]}
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
