"""How long a process takes for what it is given: what a simulated twin of a run is told of the machine. Pure.

A process is a queue with one server. What arrives while it is idle waits until it has woken up; what arrives while it is busy
waits for that to end; then it is handled, which takes the longer the larger a packet is and the more packets follow from it.
"""

from __future__ import annotations

from proxy.lag import bin_of
from proxy.records import HandlingCount


class ProcessingMeter:
    """Counts in the bins of `proxy.lag`, by class: bit length of the packet's size, and of how many packets were sent."""

    def __init__(self) -> None:
        self._handling: dict[tuple[int, int], dict[int, int]] = {}
        self._wake_up: dict[int, int] = {}
        self._arrived_s = 0.0
        self._idle_since_s = 0.0

    def arrived(self, at_s: float) -> None:
        """The kernel has had the packet that is handled next since *at_s*."""
        self._arrived_s = at_s

    def handled(self, begun_s: float, ended_s: float, *, size_bytes: int, sent_packets: int) -> None:
        """An event is done with; *size_bytes* is 0 where it was no packet."""
        if self._arrived_s > self._idle_since_s:  # else it has waited for those before it
            index = bin_of((begun_s - self._arrived_s) * 1e3)
            self._wake_up[index] = self._wake_up.get(index, 0) + 1
        self._arrived_s, self._idle_since_s = 0.0, ended_s
        bins = self._handling.setdefault((size_bytes.bit_length(), sent_packets.bit_length()), {})
        index = bin_of((ended_s - begun_s) * 1e3)
        bins[index] = bins.get(index, 0) + 1

    def take(self) -> tuple[list[HandlingCount], list[tuple[int, int]]]:
        """Return what was counted, of handling by class and of waking up, (bin, count) each; start anew."""
        handling = [HandlingCount(*of, sorted(bins.items())) for of, bins in sorted(self._handling.items())]
        wake_up = sorted(self._wake_up.items())
        self._handling, self._wake_up = {}, {}
        return handling, wake_up
