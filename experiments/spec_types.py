"""Types that several tables of an experiment file share; see `experiments.spec_schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Moment = Annotated[float, Meta(ge=0, le=86_400, description="seconds since the start of the run")]
Ratio = Annotated[float, Meta(ge=0, le=1, description="a fraction, not a percentage")]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Devices = Annotated[tuple[Word, ...], Meta(min_length=1)]

Event = Literal["message", "stroke", "object"]
#: How times are distributed around their mean: all the same; exponentially; heavy-tailed (log-normal with sigma 1, Pareto with
#: shape 1.5), as measured of sessions and of on-off sources.
Law = Literal["constant", "exponential", "lognormal", "pareto"]
