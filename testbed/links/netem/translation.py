"""What an `Impairment` is in terms of netem, and what of it netem cannot do.

Two stages, one inside the other: a frame passes *delay* (loss, duplication, corruption, delay, jitter, reordering) and then,
where there is a rate, *rate* (the queue and the line). A single netem would count what is on its way as waiting in the
queue. `wire` has the line first; what arrives when differs only where there is jitter before a full line, and that a lost frame
takes no time on the line here.

netem's own reordering sends some frames early, ahead of the configured delay. Ours holds them back, as `wire` does: the table
of delays has so many late entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

from testbed.links.model import Impairment
from testbed.links.netem.qdisc import CERTAIN, JITTER_MAX_NS, NO_TIME_BYTES_PER_S, TABLE_MAX, TABLE_SCALE, Netem
from topologies.errors import CapabilityError
from topologies.model import mean_loss_ratio

_NS_PER_MS: Final = 1_000_000
_BYTES_PER_S_PER_MBPS: Final = 125_000
_ENTRY_MAX: Final = 0x7FFF
#: A ratio that only the table can hold is off by at most this much of itself, or it is refused.
_TABLE_ERROR_MAX_RATIO: Final = 0.05


@dataclass(frozen=True, slots=True)
class Stages:
    """The netem qdiscs of one direction of a link."""

    delay: Netem
    rate: Netem | None  #: None: no limit


def stages_of(impairment: Impairment, *, where: str, seed: int | None = None) -> Stages:
    """Translate. *where* names the link, for messages.

    Raises: CapabilityError for what netem cannot do.
    """
    if problem := refusal(impairment):
        raise CapabilityError(
            where=where,
            problem=f"the link back end netem cannot do {problem}",
            remedy='leave it out, or use the back end that can: link_backend = "wire"',
        )
    jitter_ns, table = _table(
        impairment.jitter_ms,
        impairment.jitter_distribution,
        impairment.delay_ms if impairment.jitter_distribution == "normal" else 0.0,
        impairment.reorder_ratio,
        impairment.late_max_ms,
    )
    # Whatever the jitter is and becomes: a frame that a lowered delay would have overtake the one before it waits, too.
    keeps_order = impairment.jitter_keeps_order and impairment.reorder_ratio == 0
    delay = Netem(
        latency_ns=round(impairment.delay_ms * _NS_PER_MS),
        jitter_ns=jitter_ns,
        table=table,
        loss=0 if impairment.good_to_bad_ratio > 0 else probability(impairment.loss_ratio),
        bursts=_bursts(impairment),
        duplicate=probability(impairment.duplicate_ratio),
        corrupt=probability(impairment.corrupt_ratio),
        rate_bytes_per_s=NO_TIME_BYTES_PER_S if keeps_order else 0,
        seed=seed,
    )
    if impairment.rate_mbps is None:
        return Stages(delay, None)
    rate = Netem(
        limit_packets=impairment.queue_packets,
        rate_bytes_per_s=max(1, round(impairment.rate_mbps * _BYTES_PER_S_PER_MBPS)),
        seed=seed,
    )
    return Stages(delay, rate)


def refusal(impairment: Impairment) -> str | None:
    """Return what of *impairment* netem cannot do; None if it can all of it."""
    if impairment.rate_mbps is not None and impairment.queue_bytes is not None:
        return "a queue that is bounded by bytes (queue_bytes): its queue counts packets"
    if impairment.rate_mbps is not None and impairment.duplicate_ratio > 0:
        return "duplicates together with a rate: kernels refuse two netem qdiscs on top of each other then"
    if impairment.duplicate_ratio > 0 and impairment.late_max_ms > 0:
        return "duplicates that come later than the frame itself (late_max_ms; with 0 it can)"
    if impairment.reorder_ratio > 0:
        if impairment.jitter_ms > 0 and impairment.jitter_keeps_order:
            return "reordering on top of a jitter that keeps the order (with jitter_keeps_order = false it can)"
        held = round(impairment.reorder_ratio * TABLE_MAX) / TABLE_MAX
        if abs(held - impairment.reorder_ratio) > _TABLE_ERROR_MAX_RATIO * impairment.reorder_ratio:
            return f"a reorder_ratio of {impairment.reorder_ratio:g}: it is a share of {TABLE_MAX} entries of a table"
    limit_ms = JITTER_MAX_NS / _NS_PER_MS * _ENTRY_MAX / TABLE_SCALE
    for name, value_ms in (
        ("jitter_ms", impairment.jitter_ms * (4 if impairment.jitter_distribution == "normal" else 1)),
        ("late_max_ms", impairment.late_max_ms if impairment.reorder_ratio > 0 else 0.0),
    ):
        if value_ms > limit_ms / 2:
            return f"delays that vary so much ({name}): it ends at {limit_ms / 2:.0f} ms"
    return None


def probability(ratio: float) -> int:
    """Return a ratio as netem has it.

    >>> probability(1.0) == CERTAIN
    True
    """
    return round(ratio * CERTAIN)


def loss_moments(impairment: Impairment) -> tuple[float, float]:
    """Return mean and variance, a frame, of the number of frames that the configured loss takes.

    In bursts, losses of neighbours go together: the state's autocorrelation is 1 - p - r to the power of the distance, so
    the variance of a long run is that of independent losses, and (1 + c) / (1 - c) of the part that follows the state.
    """
    mean = mean_loss_ratio(impairment)
    p, r = impairment.good_to_bad_ratio, impairment.bad_to_good_ratio
    variance = mean * (1 - mean)
    if p <= 0 or p + r <= 0:
        return mean, variance
    correlation, bad = 1 - p - r, p / (p + r)
    by_state = bad * (1 - bad) * (impairment.bad_loss_ratio - impairment.loss_ratio) ** 2
    return mean, variance + by_state * 2 * correlation / (1 - correlation)


def _bursts(impairment: Impairment) -> tuple[int, int, int, int] | None:
    if impairment.good_to_bad_ratio <= 0:
        return None
    return (
        probability(impairment.good_to_bad_ratio),
        probability(impairment.bad_to_good_ratio),
        CERTAIN - probability(impairment.bad_loss_ratio),  # the kernel has h, everybody else 1-h
        probability(impairment.loss_ratio),
    )


@lru_cache(maxsize=64)
def _table(
    jitter_ms: float, distribution: str, delay_ms: float, reorder_ratio: float, late_max_ms: float
) -> tuple[int, tuple[int, ...]]:
    """Return `jitter_ns` and `table` of `Netem`: what is added to the delay, each entry as likely as any other."""
    late_count = round(reorder_ratio * TABLE_MAX) if late_max_ms > 0 else 0
    if jitter_ms == 0 and late_count == 0:
        return 0, ()
    shares = [(number + 0.5) / TABLE_MAX for number in range(TABLE_MAX)]
    if jitter_ms == 0:
        offsets_ms = [0.0] * TABLE_MAX
    elif distribution == "normal":  # at most four deviations, and no frame before it was sent
        normal, low_ms, high_ms = NormalDist(0.0, jitter_ms), max(-delay_ms, -4 * jitter_ms), 4 * jitter_ms
        offsets_ms = [max(low_ms, min(high_ms, normal.inv_cdf(share))) for share in shares]
    else:
        offsets_ms = [share * jitter_ms for share in shares]
    for number in range(late_count):
        # Those that are late stand all over the table, and how late they are is in an order of its own (multiples of the
        # golden ratio are spread evenly): jitter and lateness have nothing to do with each other.
        offsets_ms[number * TABLE_MAX // late_count] += (number * 0.618_033_988_749_895 + 0.5) % 1.0 * late_max_ms
    furthest_ns = max(map(abs, offsets_ms)) * _NS_PER_MS
    jitter_ns = max(1, math.ceil(furthest_ns * TABLE_SCALE / _ENTRY_MAX))
    return jitter_ns, tuple(round(offset_ms * _NS_PER_MS * TABLE_SCALE / jitter_ns) for offset_ms in offsets_ms)
