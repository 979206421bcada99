"""Whether `wire` links do what they are asked to, and how much they carry: real packets between network namespaces.

    python tests/bench/wire_model.py [--repetitions 3] [--only throughput delay chance rate] [--out FIGURES.json]

Needs root and nothing else; makes namespaces of its own and leaves nothing. What is measured, and required:

* Throughput of one direction, the emulator on one core: at least 60,000 frames/s of 1,200 bytes; at least 1 Gbit/s of TCP over a
  link without delay, MTU 1,500. For information: the same where every frame's name is looked for and its fate drawn.
* Delay error at 10,000 frames/s over 20 links of 1 to 20 ms: from just before `sendto` to the receiving kernel's
  timestamp (SO_TIMESTAMPNS), minus the configured delay; p50 at most 0.15 ms, p99 at most 0.6 ms. And the emulator's own figures.
* Loss, duplication, reordering, corruption, and losses in bursts and their mean length, of 100,000 frames each, as the receiver sees
  them: within the 99.9 % interval of the binomial (of bursts: geometric) distribution.
* Rate: what arrives in 5 s at 1, 10 and 100 Mbit/s, a sender always having more: within 1 %.

Exit status 1 if a requirement does not hold. Figures are medians over the repetitions with their lowest and highest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from testbed.links.linux import new_netns
from testbed.links.model import Impairment, LinkCounters
from testbed.links.wire import WireEmulator
from tests.bench.wire_fidelity import (
    Check,
    binomial_interval,
    in_child,
    over_repetitions,
    quantile,
    show,
    taking_turns_first,
)
from tests.emulation.wire_pair import ADDRESS_A, ADDRESS_B, PORT, Pair, plan_between, socket_in, wire_pair

HEADERS_BYTES: Final = 14 + 20 + 8
FRAME_BYTES: Final = 1_200
THROUGHPUT_S: Final = 3.0
LINKS: Final = 20
LINKS_RATE_PPS: Final = 10_000
LINKS_S: Final = 3.0
FRAMES: Final = 100_000
FRAMES_PPS: Final = 20_000
CHANCE_RATIO: Final = 0.02
#: Gilbert's bursts: p, r.
BURST_START, BURST_END = 0.01, 0.25
RATES_MBPS: Final = (1.0, 10.0, 100.0)
RATE_S: Final = 5.0
QUEUE_S: Final = 0.1  # so long may the sender not get its turn before the line runs empty
SILENCE_S: Final = 0.5
NUMBER: Final = struct.Struct("=qq")  # number, CLOCK_REALTIME ns at sending
_SO_TIMESTAMPNS: Final = 35
_THREE_NINES_SIGMAS: Final = 3.291


def at_least(name: str, values: Sequence[float], unit: str, required: float | None = None) -> Check:
    check = over_repetitions(name, values, unit)
    if required is not None:
        check.required, check.holds = f"at least {required:g}", check.measured >= required
    return check


# Throughput


def udp_frames_per_s(impairment: Impairment) -> tuple[float, float]:
    """Return frames carried a second, and CPU time of the emulator a frame in us."""
    # an Interest of a long name, so that there is something to look for
    name = b"".join(b"\x08\x08" + b"%08d" % part for part in range(6))
    payload = b"\x05\xfd" + (1_154).to_bytes(2, "big") + b"\x07" + bytes([len(name)]) + name
    payload += bytes(FRAME_BYTES - HEADERS_BYTES - len(payload))

    def blast(sender: socket.socket) -> None:
        end_s = time.monotonic() + THROUGHPUT_S
        while time.monotonic() < end_s:
            for _ in range(32):
                sender.send(payload)

    with wire_pair(impairment=impairment) as link:
        sender, receiver = link.sockets()
        with sender, receiver:  # nobody reads: the kernel's receive path is paid for, a second process is not
            before_s = link.emulator.stats().cpu_s
            os.waitpid(in_child(lambda: blast(sender)), 0)
            cpu_s = link.emulator.stats().cpu_s - before_s
            counters = link.emulator.counters()[0]
    through = counters.packets + counters.dropped_packets["loss"]
    return through / THROUGHPUT_S, cpu_s / through * 1e6


def tcp_gbps() -> tuple[float, float]:
    """Return Gbit/s of content that arrive, and CPU time of the emulator over real time."""
    block = bytes(1 << 18)
    with wire_pair() as link:
        listener = socket_in(link.netns_b, ADDRESS_B, kind=socket.SOCK_STREAM)
        caller = socket_in(link.netns_a, ADDRESS_A, kind=socket.SOCK_STREAM)
        listener.listen(1)

        def send() -> None:
            caller.connect((ADDRESS_B, PORT))
            end_s = time.monotonic() + THROUGHPUT_S
            while time.monotonic() < end_s:
                caller.send(block)

        with listener, caller:
            child = in_child(send)
            connection, _ = listener.accept()
            caller.close()
            with connection:
                room, received, begin_s = bytearray(1 << 20), 0, time.monotonic()
                before_s = link.emulator.stats().cpu_s
                while size := connection.recv_into(room):
                    received += size
                took_s = time.monotonic() - begin_s
                cpu_s = link.emulator.stats().cpu_s - before_s
            os.waitpid(child, 0)
    return received * 8 / took_s / 1e9, cpu_s / took_s


def throughput_checks(repetitions: int) -> list[Check]:
    plain = [udp_frames_per_s(Impairment()) for _ in range(repetitions)]
    drawn = [udp_frames_per_s(Impairment(loss_ratio=0.01)) for _ in range(repetitions)]
    tcp = [tcp_gbps() for _ in range(repetitions)]
    return [
        at_least("throughput, frames of 1,200 bytes", [each for each, _ in plain], "frames/s", 60_000),
        over_repetitions("  emulator CPU a frame", [us for _, us in plain], "us"),
        at_least("throughput, named frames that are drawn for (1 % loss)", [each for each, _ in drawn], "frames/s"),
        over_repetitions("  emulator CPU a frame", [us for _, us in drawn], "us"),
        at_least("TCP over a link of 0 ms", [gbps for gbps, _ in tcp], "Gbit/s", 1.0),
        over_repetitions("  emulator CPU, of one core", [share for _, share in tcp], "1"),
    ]


# Delay error over many links


@contextlib.contextmanager
def parallel_links(delays_ms: Sequence[float]) -> Iterator[tuple[WireEmulator, int, int]]:
    """Hosts a and b with a link for each delay, of subnets 0, 1, …"""
    netns_a, netns_b = new_netns(), new_netns()
    plans = []
    for subnet, delay_ms in enumerate(delays_ms):
        plan = plan_between(subnet=subnet, impairment=Impairment(delay_ms=delay_ms))
        fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
        plans.append(type(plan)(**fields | {"name": f"a-b{subnet}"}))
    try:
        with tempfile.TemporaryDirectory() as folder:
            netns_fds = {"a": netns_a, "b": netns_b}
            emulator = WireEmulator.start(plans, netns_fds=netns_fds, seed=7, ledger_path=Path(folder, "ledger"))
            try:
                yield emulator, netns_a, netns_b
            finally:
                emulator.stop()
    finally:
        os.close(netns_a)
        os.close(netns_b)


def delay_errors_ms() -> tuple[list[float], list[LinkCounters]]:
    """Return how much later than asked for each frame reached the receiving kernel, and what the emulator says."""
    delays_ms = [1.0 + subnet for subnet in range(LINKS)]
    with parallel_links(delays_ms) as (emulator, netns_a, netns_b), contextlib.ExitStack() as stack:
        senders, receivers = [], []
        for subnet in range(LINKS):
            senders.append(stack.enter_context(socket_in(netns_a, f"10.0.{subnet}.0")))
            receivers.append(stack.enter_context(socket_in(netns_b, f"10.0.{subnet}.1")))
            senders[-1].connect((f"10.0.{subnet}.1", PORT))
            receivers[-1].setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

        def send() -> None:
            count = int(LINKS_RATE_PPS * LINKS_S)
            begin_ns = time.monotonic_ns() + 1_000_000
            for number in range(count):
                ahead_ns = begin_ns + number * 1_000_000_000 // LINKS_RATE_PPS - time.monotonic_ns()
                if ahead_ns > 0:
                    time.sleep(ahead_ns / 1e9)
                senders[number % LINKS].send(NUMBER.pack(number, time.time_ns()))

        with taking_turns_first(wanted=True):
            child = in_child(send)
        os.waitpid(child, 0)
        time.sleep(0.1)
        errors_ms = []
        for delay_ms, receiver in zip(delays_ms, receivers, strict=True):
            errors_ms += [took_ms - delay_ms for took_ms in stamped_ms(receiver)]
        assert len(errors_ms) == int(LINKS_RATE_PPS * LINKS_S), f"{len(errors_ms)} frames arrived"
        return errors_ms, [row for row in emulator.counters() if row.direction == "a_to_b"]


def stamped_ms(receiver: socket.socket) -> Iterator[float]:
    """Yield how long each packet that has arrived took from its sender to this kernel."""
    receiver.setblocking(False)
    while True:
        try:
            packet, ancillary, _, _ = receiver.recvmsg(100, 100)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
        yield (seconds * 1_000_000_000 + nanoseconds - NUMBER.unpack_from(packet)[1]) / 1e6


def delay_checks(repetitions: int) -> list[Check]:
    runs = [delay_errors_ms() for _ in range(repetitions)]
    ordered = [sorted(errors) for errors, _ in runs]
    own = [
        sorted(itertools.chain(*([bound] * count for row in rows for bound, count in row.delay_error_histogram)))
        for _, rows in runs
    ]
    name = f"delay error, {LINKS_RATE_PPS:,} frames/s over {LINKS} links"
    return [
        over_repetitions(f"{name}, p50", [quantile(each, 0.5) for each in ordered], "ms", at_most=0.15),
        over_repetitions(f"{name}, p99", [quantile(each, 0.99) for each in ordered], "ms", at_most=0.6),
        over_repetitions("  max", [each[-1] for each in ordered], "ms"),
        over_repetitions("  of which by the emulator's own figures, p50", [quantile(e, 0.5) for e in own], "ms"),
        over_repetitions("  of which by the emulator's own figures, p99", [quantile(e, 0.99) for e in own], "ms"),
    ]


# Chance


def numbers_arrived(link: Pair) -> list[int]:
    """Send FRAMES numbers through *link* and return those that arrived, in the order of arrival."""
    sender, receiver = link.sockets()

    def send() -> None:
        begin_ns = time.monotonic_ns()
        for number in range(FRAMES):
            if number % 20 == 0:
                ahead_ns = begin_ns + number * 1_000_000_000 // FRAMES_PPS - time.monotonic_ns()
                if ahead_ns > 0:
                    time.sleep(ahead_ns / 1e9)
            sender.send(NUMBER.pack(number, 0))

    with sender, receiver:
        child, arrived = in_child(send), []
        receiver.settimeout(SILENCE_S)
        with contextlib.suppress(TimeoutError):
            while True:
                arrived.append(NUMBER.unpack_from(receiver.recv(100))[0])
        os.waitpid(child, 0)
    overrun = link.emulator.counters()[0].dropped_packets["overrun"]
    assert not overrun, f"this machine could not keep up: {overrun} frames dropped unread; nothing can be said"
    return arrived


def within_binomial(name: str, count: int, ratio: float) -> Check:
    low, high = binomial_interval(FRAMES, ratio, confidence=0.999)
    return Check(f"{name}: of {FRAMES:,} frames", count, "frames", f"{low} to {high}", holds=low <= count <= high)


def overtaken(numbers: Sequence[int]) -> int:
    """Return how many came after one that was sent later (RFC 4737, type-P-reordered)."""
    latest, count = -1, 0
    for number in dict.fromkeys(numbers):
        count += number < latest
        latest = max(latest, number)
    return count


def chance_checks(seed: int) -> list[Check]:
    asked = f"{CHANCE_RATIO:g} asked for, seed {seed}"
    with wire_pair(seed=seed, impairment=Impairment(loss_ratio=CHANCE_RATIO)) as link:
        checks = [within_binomial(f"loss, {asked}", FRAMES - len(set(numbers_arrived(link))), CHANCE_RATIO)]
    with wire_pair(seed=seed, impairment=Impairment(duplicate_ratio=CHANCE_RATIO)) as link:
        twice = sum(count == 2 for count in Counter(numbers_arrived(link)).values())
        checks.append(within_binomial(f"duplication, {asked}", twice, CHANCE_RATIO))
    with wire_pair(seed=seed, impairment=Impairment(reorder_ratio=CHANCE_RATIO, late_max_ms=100.0)) as link:
        checks.append(within_binomial(f"reordering, {asked}", overtaken(numbers_arrived(link)), CHANCE_RATIO))
    with wire_pair(seed=seed, impairment=Impairment(corrupt_ratio=CHANCE_RATIO)) as link:
        refused = FRAMES - len(set(numbers_arrived(link)))
        checks.append(within_binomial(f"corruption, {asked}: refused by the receiver's kernel", refused, CHANCE_RATIO))
    bursts = Impairment(good_to_bad_ratio=BURST_START, bad_to_good_ratio=BURST_END)
    with wire_pair(seed=seed, impairment=bursts) as link:
        arrived = set(numbers_arrived(link))
        row = link.emulator.counters()[0]
    return [*checks, *burst_checks(arrived, row, seed)]


def burst_checks(arrived: set[int], row: LinkCounters, seed: int) -> list[Check]:
    runs = [
        (lost, len(list(run))) for lost, run in itertools.groupby(number not in arrived for number in range(FRAMES))
    ]
    name, checks = f"Gilbert-Elliott p {BURST_START:g} r {BURST_END:g}, seed {seed}", []
    spread = _THREE_NINES_SIGMAS * math.sqrt(row.expected_lost_variance)
    lost, expected = FRAMES - len(arrived), row.expected_lost_packets
    required = f"{expected - spread:.0f} to {expected + spread:.0f}"
    checks.append(Check(f"{name}: lost", lost, "frames", required, holds=abs(lost - expected) <= spread))
    for what, wanted, ends in (("bursts", True, BURST_END), ("gaps between bursts", False, BURST_START)):
        lengths = [length for lost_run, length in runs[1:-1] if lost_run is wanted]
        mean, spread = 1 / ends, _THREE_NINES_SIGMAS * math.sqrt((1 - ends) / ends**2 / len(lengths))
        measured = statistics.fmean(lengths)
        checks.append(
            Check(
                f"{name}: mean length of {len(lengths)} {what}",
                measured,
                "frames",
                f"{mean - spread:.3f} to {mean + spread:.3f}",
                holds=abs(measured - mean) <= spread,
            )
        )
    return checks


# Rate


def carried_mbps(rate_mbps: float) -> float:
    """Return the rate at which frames arrive while their sender always has more, over RATE_S."""
    payload = bytes(FRAME_BYTES - HEADERS_BYTES)
    queue_bytes = max(10 * FRAME_BYTES, round(rate_mbps * 1e6 / 8 * QUEUE_S))
    with wire_pair(impairment=Impairment(rate_mbps=rate_mbps, queue_bytes=queue_bytes)) as link:
        sender, receiver = link.sockets()
        end_s = time.monotonic() + RATE_S + 0.2
        gap_s = FRAME_BYTES * 8 / (rate_mbps * 1e6) / 1.2  # a fifth more than the link takes

        def send() -> None:
            begin_s, number = time.monotonic(), 0
            while (now_s := time.monotonic()) < end_s:
                if begin_s + number * gap_s > now_s:
                    time.sleep(begin_s + number * gap_s - now_s)
                sender.send(payload)
                number += 1

        with sender, receiver:
            child = in_child(send)
            receiver.recv(2_000)
            begin_s, received_bytes = time.monotonic(), 0
            while time.monotonic() < begin_s + RATE_S:
                if select.select([receiver], [], [], 0.1)[0]:
                    received_bytes += len(receiver.recv(2_000)) + HEADERS_BYTES
            took_s = time.monotonic() - begin_s
            os.waitpid(child, 0)
    return received_bytes * 8 / took_s / 1e6


def rate_checks(repetitions: int) -> list[Check]:
    checks = []
    for rate_mbps in RATES_MBPS:
        check = over_repetitions(
            f"rate {rate_mbps:g} Mbit/s over {RATE_S:g} s",
            [carried_mbps(rate_mbps) for _ in range(repetitions)],
            "Mbit/s",
        )
        check.required, check.holds = "within 1 %", abs(check.measured / rate_mbps - 1) <= 0.01
        checks.append(check)
    return checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, optionally write; return the exit status."""
    parts = ("throughput", "delay", "chance", "rate")
    parser = argparse.ArgumentParser(description="measure what wire links do to frames (needs root)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    print(f"kernel {platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    checks: list[Check] = []
    if "throughput" in options.only:
        checks += throughput_checks(options.repetitions)
    if "delay" in options.only:
        checks += delay_checks(options.repetitions)
    for check in checks:
        show(check)
    for part, measure in (("chance", chance_checks), ("rate", rate_checks)):
        if part in options.only:
            new = measure(7 if part == "chance" else options.repetitions)
            for check in new:
                show(check)
            checks += new
    if options.out is not None:
        figures = {"kernel": platform.release(), "cpus": os.cpu_count(), "checks": [asdict(check) for check in checks]}
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
