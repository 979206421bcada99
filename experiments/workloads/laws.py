"""Random times and rates: the distributions that workloads and attendance are made of.

Every draw comes from a generator that is seeded with the run's seed and with what it is for, and with nothing else: no draw
depends on what another device, workload or fault does, or on when it is made.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from experiments.spec_types import Law

#: Shape of the Pareto law: mean is finite, variance is not, as of the periods of sources whose sum is self-similar
#: (Willinger et al., "Self-Similarity Through High-Variability", IEEE/ACM Transactions on Networking 5(1), 1997).
PARETO_SHAPE: Final = 1.5
#: Standard deviation of the logarithm.
LOGNORMAL_SIGMA: Final = 1.0

#: The rate at a moment is at most so much, up to a moment: what `thinned_times_s` asks for.
RateBound = Callable[[float], tuple[float, float]]


def generator_for(*purpose: object) -> random.Random:
    """Return the random numbers for one purpose, such as ``("workload", seed, index, device)``."""
    digest = sha256("/".join(map(str, purpose)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def draw(law: Law, mean: float, generator: random.Random) -> float:
    """Return one value above 0 of a distribution with that mean; none but the constant one is ever exactly the mean.

    >>> draw("constant", 3.0, random.Random(1))
    3.0
    """
    match law:
        case "constant":
            return mean
        case "exponential":
            return generator.expovariate(1 / mean)
        case "lognormal":
            return generator.lognormvariate(math.log(mean) - LOGNORMAL_SIGMA**2 / 2, LOGNORMAL_SIGMA)
        case "pareto":
            return mean * (1 - 1 / PARETO_SHAPE) * generator.paretovariate(PARETO_SHAPE)


def poisson_times_s(rate_per_s: float, start_s: float, stop_s: float, generator: random.Random) -> Iterator[float]:
    """Yield the moments of a Poisson process from *start_s* to before *stop_s*."""
    at_s = start_s + generator.expovariate(rate_per_s)
    while at_s < stop_s:
        yield at_s
        at_s += generator.expovariate(rate_per_s)


def thinned_times_s(
    rate_at: Callable[[float], float], bound_at: RateBound, start_s: float, stop_s: float, generator: random.Random
) -> Iterator[float]:
    """Yield the moments of a Poisson process whose rate changes.

    Source: Lewis and Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979; with a bound that is looked
    up anew at each candidate and where it ends, so that a short peak does not cost a long run its time.
    """
    at_s = start_s
    while at_s < stop_s:
        most_per_s, until_s = bound_at(at_s)
        until_s = min(until_s, stop_s)
        candidate_s = at_s + generator.expovariate(most_per_s) if most_per_s > 0 else until_s
        if candidate_s >= until_s:
            at_s = until_s
            continue
        at_s = candidate_s
        if generator.random() * most_per_s < rate_at(at_s):
            yield at_s


def zipf_shares(exponent: float, devices: Sequence[str], *, seed: int, index: int) -> dict[str, float]:
    """Return how much of the mean rate each of *devices* has, by Zipf's law; the shares' mean is 1.

    Who is first is drawn; one more device changes all shares, but not who is before whom.
    """
    ranked = sorted(devices, key=lambda device: sha256(f"zipf/{seed}/{index}/{device}".encode()).digest())
    weights = [rank**-exponent for rank in range(1, len(ranked) + 1)]
    mean = sum(weights) / len(weights)
    return {device: weight / mean for device, weight in zip(ranked, weights, strict=True)}
