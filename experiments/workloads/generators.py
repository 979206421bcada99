"""What each kind of workload has one publisher do: lazily, in the order of time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Final

from experiments.spec_workloads import (
    OBJECT_MAX_BYTES,
    ConstantWorkload,
    DataWorkload,
    DiurnalWorkload,
    FlashCrowdWorkload,
    MediaWorkload,
    ObjectsWorkload,
    OnOffWorkload,
    PoissonWorkload,
    PresenterWorkload,
    RateWorkload,
    TimedWorkload,
    WhiteboardWorkload,
)
from experiments.workloads.laws import draw, poisson_times_s, thinned_times_s
from experiments.workloads.model import ScheduledObject, ScheduledStream

#: No period and no slide is shorter; a heavy-tailed law may draw next to nothing.
PERIOD_MIN_S: Final = 1e-3
SLIDE_MIN_S: Final = 0.1


def publishing_times_s(
    workload: TimedWorkload, *, stop_s: float, generator: random.Random, share: float = 1.0
) -> Iterator[float]:
    """Yield when one publisher publishes, from the workload's `start_s` to before *stop_s*.

    Args:
        workload: one that is given by a rate, or a whiteboard.
        stop_s: the end of it, or of the run.
        generator: of this publisher in this workload.
        share: the publisher's rates are so many times those of the workload.
    """
    start_s = workload.start_s
    match workload:
        case PoissonWorkload():
            yield from poisson_times_s(workload.rate_per_s * share, start_s, stop_s, generator)
        case ConstantWorkload():
            phase = generator.random()  # else all publish at the same instants, and queue behind each other
            number = 0
            while (at_s := start_s + (phase + number) / (workload.rate_per_s * share)) < stop_s:
                yield at_s
                number += 1
        case OnOffWorkload():
            yield from _on_off_times_s(workload, stop_s, generator, share)
        case FlashCrowdWorkload():
            yield from _flash_crowd_times_s(workload, stop_s, generator, share)
        case DiurnalWorkload():
            mean_per_s, swing = workload.rate_per_s * share, workload.swing_ratio

            def rate_at(at_s: float) -> float:
                return mean_per_s * (1 + swing * math.cos(2 * math.pi * (at_s - workload.peak_at_s) / workload.day_s))

            most_per_s = mean_per_s * (1 + swing)
            yield from thinned_times_s(rate_at, lambda _: (most_per_s, math.inf), start_s, stop_s, generator)
        case WhiteboardWorkload():
            yield from _whiteboard_times_s(workload, stop_s, generator)


def _on_off_times_s(workload: OnOffWorkload, stop_s: float, generator: random.Random, share: float) -> Iterator[float]:
    is_on = generator.random() * (workload.on_s + workload.off_s) < workload.on_s
    # Equal periods would begin at the same moment everywhere: the first one is under way already.
    under_way = generator.random() if workload.law == "constant" else 1.0
    at_s = workload.start_s
    while at_s < stop_s:
        mean_s = workload.on_s if is_on else workload.off_s
        end_s = at_s + max(PERIOD_MIN_S, under_way * draw(workload.law, mean_s, generator))
        if is_on:
            yield from poisson_times_s(workload.rate_per_s * share, at_s, min(end_s, stop_s), generator)
        at_s, is_on, under_way = end_s, not is_on, 1.0


def _flash_crowd_times_s(
    workload: FlashCrowdWorkload, stop_s: float, generator: random.Random, share: float
) -> Iterator[float]:
    base_per_s, peak_per_s = workload.rate_per_s * share, workload.peak_rate_per_s * share
    rises_s, peak_s = workload.peak_at_s - workload.rise_s, workload.peak_at_s
    decays_s = peak_s + workload.hold_s

    def rate_at(at_s: float) -> float:
        if at_s <= rises_s:
            part = 0.0
        elif at_s < peak_s:
            part = (at_s - rises_s) / workload.rise_s
        elif at_s <= decays_s:
            part = 1.0
        else:
            part = math.exp((decays_s - at_s) / workload.decay_s)
        return base_per_s + (peak_per_s - base_per_s) * part

    def bound_at(at_s: float) -> tuple[float, float]:
        if at_s < rises_s:
            return base_per_s, rises_s
        return (peak_per_s, decays_s) if at_s < decays_s else (rate_at(at_s), at_s + workload.decay_s)

    yield from thinned_times_s(rate_at, bound_at, workload.start_s, stop_s, generator)


def _whiteboard_times_s(workload: WhiteboardWorkload, stop_s: float, generator: random.Random) -> Iterator[float]:
    at_s = workload.start_s
    goes_on = 1 - 1 / workload.stroke_updates  # geometric: after each update of a stroke there is another one
    while (at_s := at_s + generator.expovariate(1 / workload.pause_s)) < stop_s:
        yield at_s
        while generator.random() < goes_on:
            at_s += 1 / workload.updates_per_s
            if at_s >= stop_s:
                return
            yield at_s


def data_of(
    workload: DataWorkload, *, stop_s: float, generator: random.Random
) -> Iterator[ScheduledObject | ScheduledStream]:
    """Yield what one publisher publishes on the data plane, from the workload's `start_s` to before *stop_s*."""
    match workload:
        case ObjectsWorkload():
            number, at_s = 0, workload.start_s
            while at_s < stop_s:
                yield ScheduledObject(at_s, workload.size_bytes)
                if workload.every_s is None:
                    return
                number += 1
                at_s = workload.start_s + number * workload.every_s
        case PresenterWorkload():
            number, at_s = 0, workload.start_s
            while at_s < stop_s and (workload.slides is None or number < workload.slides):
                size_bytes = round(draw("lognormal", workload.size_bytes, generator))
                yield ScheduledObject(at_s, min(max(1, size_bytes), OBJECT_MAX_BYTES))
                at_s += max(SLIDE_MIN_S, draw(workload.law, workload.slide_s, generator))
                number += 1
        case MediaWorkload():
            if workload.start_s < stop_s:
                frames = max(1, int((stop_s - workload.start_s) * workload.frames_per_s))
                interval_s, deadline_s = 1 / workload.frames_per_s, workload.deadline_ms / 1e3
                yield ScheduledStream(workload.start_s, frames, workload.frame_bytes, interval_s, deadline_s)


def expected_updates(workload: TimedWorkload, *, stop_s: float) -> float:
    """Return about how many updates one publisher makes, at most: for a guard, not for figures."""
    time_s = max(0.0, stop_s - workload.start_s)
    match workload:
        case WhiteboardWorkload():
            stroke_s = workload.stroke_updates / workload.updates_per_s
            return time_s / (stroke_s + workload.pause_s) * workload.stroke_updates
        case OnOffWorkload():
            return time_s * workload.rate_per_s * workload.on_s / (workload.on_s + workload.off_s)
        case FlashCrowdWorkload():
            peak_s = min(time_s, workload.rise_s + workload.hold_s + workload.decay_s)
            return time_s * workload.rate_per_s + peak_s * workload.peak_rate_per_s
        case _:
            rate: RateWorkload = workload
            return time_s * rate.rate_per_s
