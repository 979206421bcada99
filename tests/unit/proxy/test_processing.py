"""The meter of a process: what counts as handling, and what as waking up."""

from __future__ import annotations

import pytest

from proxy.lag import bin_of, bounds_ms
from proxy.processing import ProcessingMeter
from proxy.records import HandlingCount


def test_handling_is_counted_by_class() -> None:
    meter = ProcessingMeter()
    for size_bytes, sent, took_ms in ((100, 1, 0.2), (120, 1, 0.2), (120, 3, 0.2), (0, 0, 0.05)):
        meter.handled(1.0, 1.0 + took_ms / 1e3, size_bytes=size_bytes, sent_packets=sent)
    handling, wake_up = meter.take()
    fast, slow = bin_of(0.05), bin_of(0.2)
    assert handling == [
        HandlingCount(0, 0, [(fast, 1)]),
        HandlingCount(7, 1, [(slow, 2)]),
        HandlingCount(7, 2, [(slow, 1)]),
    ]
    assert wake_up == []  # nobody said when any of them had arrived
    assert meter.take() == ([], [])


def test_only_what_finds_the_process_idle_wakes_it_up() -> None:
    meter = ProcessingMeter()
    meter.arrived(1.0)
    meter.handled(1.003, 1.010, size_bytes=10, sent_packets=0)
    meter.handled(1.010, 1.011, size_bytes=10, sent_packets=0)  # one behind it, of which nobody knows
    meter.arrived(1.005)
    meter.handled(1.020, 1.021, size_bytes=10, sent_packets=0)  # it has waited for the first
    meter.arrived(1.030)
    meter.handled(1.0301, 1.031, size_bytes=10, sent_packets=0)
    assert meter.take()[1] == [(bin_of(0.1), 1), (bin_of(3.0), 1)]


@pytest.mark.parametrize("lag_ms", [0.0, -1.0, 0.0005, 0.0011, 0.3, 12.0, 900.0])
def test_bins_hold_what_their_bounds_say(lag_ms: float) -> None:
    low_ms, high_ms = bounds_ms(bin_of(lag_ms))
    assert low_ms < max(lag_ms, 1e-9) <= high_ms * (1 + 1e-9)


def test_the_last_bin_takes_what_is_longer() -> None:
    assert bin_of(1e9) == bin_of(1e12)
