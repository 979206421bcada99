"""The workloads of an experiment file: one struct for each kind of ``[[workload]]``; see `experiments.spec_schema`.

What each kind makes of its keys is in `experiments.workloads`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from experiments.spec_types import Devices, Event, Law, Moment, Ratio, Seconds, Word

UPDATE_BODY_MAX_BYTES = 7_000
OBJECT_MAX_BYTES = 64 * 1024 * 1024

RatePerS = Annotated[float, Meta(gt=0, le=10_000)]
BodyBytes = Annotated[int, Meta(ge=0, le=UPDATE_BODY_MAX_BYTES)]
ObjectBytes = Annotated[int, Meta(ge=1, le=OBJECT_MAX_BYTES)]


class _Updates(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """``[[workload]]``: what every kind has that publishes FP updates for a while."""

    event: Event = "message"  #: event type of the FP updates
    size_bytes: BodyBytes = 100  #: body of one update
    publishers: Devices | None = None  #: UEs, or routers for the UEs behind them; None: all UEs
    start_s: Moment = 0.0  #: from when on it publishes
    stop_s: Moment | None = None  #: None: until duration_s


class _Workload(_Updates, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """``[[workload]]``: what every kind has that is given by a rate."""

    rate_per_s: RatePerS  #: updates per second of each publisher
    #: Who talks how much, by Zipf's law: the k-th talker's rate is proportional to k to the power of minus this, and their mean is
    #: rate_per_s; who is which is drawn. None: all alike.
    zipf_exponent: Annotated[float, Meta(ge=0, le=5)] | None = None


class PoissonWorkload(_Workload, frozen=True, forbid_unknown_fields=True, tag="poisson", kw_only=True):
    """Exponentially distributed gaps, independent per publisher."""


class ConstantWorkload(_Workload, frozen=True, forbid_unknown_fields=True, tag="constant", kw_only=True):
    """Equal gaps, each publisher with a phase of its own."""


class OnOffWorkload(_Workload, frozen=True, forbid_unknown_fields=True, tag="on-off", kw_only=True):
    """Bursts: each publisher is on, publishing as a Poisson process with rate_per_s, then off, in turn; on its own.

    At start_s it is on with the probability that it has in the long run.
    """

    on_s: Seconds  #: mean length of a burst
    off_s: Seconds  #: mean length of the silence after it
    law: Law = "exponential"  #: of both lengths; pareto makes the sum of many sources self-similar


class FlashCrowdWorkload(_Workload, frozen=True, forbid_unknown_fields=True, tag="flash-crowd", kw_only=True):
    """A Poisson process whose rate goes from rate_per_s up to peak_rate_per_s, stays there, and decays exponentially."""

    peak_rate_per_s: RatePerS  #: of each publisher, at the peak; at least rate_per_s
    peak_at_s: Moment  #: when the peak is reached
    rise_s: Seconds = 1.0  #: so long before that, the rate begins to rise, linearly
    hold_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0  #: so long it stays at the peak
    decay_s: Seconds = 5.0  #: time constant of the decay: after so long, 37 % of the rise are left


class DiurnalWorkload(_Workload, frozen=True, forbid_unknown_fields=True, tag="diurnal", kw_only=True):
    """A Poisson process whose rate goes up and down as a sine, with rate_per_s in the mean."""

    day_s: Seconds  #: from one peak to the next; a day in short: 60.0
    peak_at_s: Moment = 0.0  #: a moment with the highest rate, (1 + swing_ratio) x rate_per_s
    swing_ratio: Ratio = 0.8  #: half a day later the rate is (1 - swing_ratio) x rate_per_s


class WhiteboardWorkload(_Updates, frozen=True, forbid_unknown_fields=True, tag="whiteboard", kw_only=True):
    """Drawing: each publisher makes a stroke, a burst of updates at an even pace, then pauses, in turn; on its own."""

    event: Event = "stroke"  #: event type of the FP updates
    size_bytes: BodyBytes = 60  #: body of one update: some points of the stroke
    pause_s: Seconds  #: mean time from the end of a stroke to the next, exponentially distributed
    stroke_updates: Annotated[float, Meta(ge=1, le=10_000)] = 12.0  #: mean number of updates of a stroke, geometric
    updates_per_s: RatePerS = 20.0  #: within a stroke


class OnceWorkload(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="once", kw_only=True):
    """One update of each publisher at one moment, with a text or of a size; what is typed in the shell is replayed so."""

    at_s: Moment
    event: Event = "message"  #: event type of the FP update
    #: At most 7,000 bytes as UTF-8; None: size_bytes of zeros.
    text: Annotated[str, Meta(max_length=UPDATE_BODY_MAX_BYTES)] | None = None
    size_bytes: BodyBytes = 100  #: body of the update, where there is no text
    publishers: Devices | None = None  #: UEs, or routers for the UEs behind them; None: all UEs


class TraceWorkload(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="trace", kw_only=True):
    """Replays a CSV file ``time_s,device_id,event,size_bytes[,text]``, of any length: it is read as the run goes on.

    Events are `message` and `stroke` (FP updates), `object` (on the data plane), `join` and `leave`. Rows are sorted by time. A
    device whose first row is a `join` is not there before. Where there is a text, it is the body, and size_bytes may be empty.
    """

    file: Word  #: as seen from the experiment file's folder
    from_s: Annotated[float, Meta(ge=0, le=1e12)] = (
        0.0  #: time_s of the trace that is start_s of the run; rows before it are left out
    )
    speed: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0  #: seconds of the trace in one second of the run
    start_s: Moment = 0.0  #: when the replay begins
    stop_s: Moment | None = None  #: None: until duration_s
    devices: dict[str, Word] = {}  #: device_id of the trace -> UE; those that are not here are called alike


class _DataWorkload(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """``[[workload]]``: what every kind of the data plane has. An FP update with event ``object`` announces each."""

    publishers: Devices | None = None  #: UEs, or routers for the UEs behind them; None: all UEs
    start_s: Moment = 0.0  #: when the first is published
    stop_s: Moment | None = None  #: None: until duration_s


class ObjectsWorkload(_DataWorkload, frozen=True, forbid_unknown_fields=True, tag="objects", kw_only=True):
    """Objects that everybody fetches: slides, pictures."""

    size_bytes: ObjectBytes  #: of one object
    every_s: Seconds | None = None  #: from one object of a publisher to the next; None: only one, at start_s


class PresenterWorkload(_DataWorkload, frozen=True, forbid_unknown_fields=True, tag="presenter", kw_only=True):
    """Slides: an object at start_s, the next when it has been talked about, and so on; of different sizes."""

    publishers: Devices | None = (
        None  #: UEs, or routers for the UEs behind them; None: the first UE, for most talks have one speaker
    )
    slide_s: Seconds  #: mean time from one slide to the next
    law: Law = "lognormal"  #: of these times
    size_bytes: ObjectBytes = 200_000  #: mean size of a slide; log-normal with sigma 1, cut at 64 MiB
    slides: Annotated[int, Meta(ge=1, le=10_000)] | None = None  #: how many; None: until stop_s


class MediaWorkload(_DataWorkload, frozen=True, forbid_unknown_fields=True, tag="media", kw_only=True):
    """A live stream from start_s to stop_s, which everybody receives frame by frame."""

    frames_per_s: Annotated[float, Meta(ge=0.1, le=1_000)]  #: 50 is usual for voice
    frame_bytes: Annotated[int, Meta(ge=1, le=4_000)]  #: of one frame; each goes in a packet of its own
    deadline_ms: Annotated[float, Meta(gt=0, le=60_000, description="after it was made, a frame is of no use")] = 150.0


RateWorkload = PoissonWorkload | ConstantWorkload | OnOffWorkload | FlashCrowdWorkload | DiurnalWorkload
#: What each publisher does for itself for a while, drawn from its own random numbers.
TimedWorkload = RateWorkload | WhiteboardWorkload
UpdateWorkload = TimedWorkload | OnceWorkload
DataWorkload = ObjectsWorkload | PresenterWorkload | MediaWorkload
Workload = UpdateWorkload | DataWorkload | TraceWorkload
