"""What a fault is, and the record of one that was applied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from testbed.faults.targets import EVENT_KINDS, MESSAGE_KINDS
from testbed.links.netem.match import Match
from topologies.errors import InputError, pick_one_of
from topologies.model import JITTER_DISTRIBUTIONS, MTU_MAX_BYTES, MTU_MIN_BYTES

FaultKind = Literal[
    "link-down", "link-up", "flap", "impair", "black-hole", "partition", "isolate",
    "crash", "freeze", "thaw", "restart", "disk-loss", "starve", "login-outage",
    "drop", "delay", "duplicate", "corrupt", "replay", "forge", "inject",
]  # fmt: skip
FaultSource = Literal["schedule", "hand"]

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

#: Of a ramp, the longest time from one step to the next.
RAMP_STEP_S: Final = 0.1

#: Parameters of `impair` that say how, or of what, and change no property by themselves.
_IMPAIR_MANNERS: Final = frozenset({"ramp_s", "match"})

_ONE_WAY_KINDS: Final = frozenset({"impair", "black-hole", "inject"})
_PLAIN_KINDS: Final = frozenset(
    {"link-down", "link-up", "black-hole", "crash", "freeze", "thaw", "restart", "disk-loss"}
)

#: What `impair` may set: the largest value of numbers, all of which are 0 or more (a rate is more than 0); else the values.
IMPAIR_PARAMETERS: Final[Mapping[str, float | tuple[str | bool, ...]]] = {
    "delay_ms": 60_000.0,
    "jitter_ms": 60_000.0,
    "loss_ratio": 1.0,
    "rate_mbps": math.inf,
    "queue_packets": 100_000,
    "queue_bytes": 1_000_000_000,
    "good_to_bad_ratio": 1.0,
    "bad_to_good_ratio": 1.0,
    "bad_loss_ratio": 1.0,
    "duplicate_ratio": 1.0,
    "reorder_ratio": 1.0,
    "corrupt_ratio": 1.0,
    "late_max_ms": 60_000.0,
    "mtu_bytes": MTU_MAX_BYTES,
    "jitter_distribution": JITTER_DISTRIBUTIONS,
    "jitter_keeps_order": (False, True),
}


#: What `impair` cannot do to a part of a link's frames.
NOT_OF_A_MATCH: Final = ("ramp_s", "mtu_bytes")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as asked for; what each kind does is said where the file's keys are defined (experiments/spec_schema.py).

    Raises: InputError if a kind, a parameter or a time cannot be.
    """

    fault_id: str  #: unique within the run
    kind: FaultKind
    #: name of a link, its ends in either order; of a process, such as ``csr1.proxy``; of a node, for all its processes or
    #: links; groups of nodes, as ``csr1,core1/csr2``; of a message fault also ``*``, all links
    target: str
    at_s: float = 0.0  #: since the run's epoch
    for_s: float | None = None  #: healed after that time; None: when somebody does it
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: those of the kind that were given
    source: FaultSource = "schedule"
    sender: str | None = None  #: only what this end of the link sends; None: both directions

    @property
    def direction(self) -> Literal["a_to_b", "b_to_a"] | None:
        """The direction of the link that is struck; None: both."""
        if self.sender is None:
            return None
        return "a_to_b" if self.target.partition("-")[0] == self.sender else "b_to_a"

    @property
    def duration_s(self) -> float | None:
        """From being applied to being healed, if that is known."""
        parameters = self.parameters
        if self.kind == "flap" and "count" in parameters:
            by_count_s = int(parameters["count"]) * float(parameters["period_s"])
            return by_count_s if self.for_s is None else min(by_count_s, self.for_s)
        if self.kind == "inject":
            return (int(parameters.get("times", 1)) - 1) * float(parameters.get("every_ms", 0.0)) / 1e3
        return self.for_s

    def phases_s(self) -> Iterator[float]:
        """Yield when the fault changes while it is in force, counted from its beginning; phase 0 begins with it.

        A flap goes down in even phases and comes up in odd ones; of a ramp each phase is a step; of an injection, a packet.

        >>> list(Fault("1", "flap", "a-b", parameters={"period_s": 2.0, "down_ratio": 0.25, "count": 2}).phases_s())
        [0.5, 2.0, 2.5]
        >>> list(Fault("1", "impair", "a-b", parameters={"delay_ms": 9.0, "ramp_s": 0.25}).phases_s())
        [0.08333333333333333, 0.16666666666666666, 0.25]
        """
        end_s = math.inf if self.duration_s is None else self.duration_s
        match self.kind:
            case "flap":
                period_s, down_ratio = float(self.parameters["period_s"]), float(self.parameters["down_ratio"])
                for number in itertools.count(1):
                    at_s = (number // 2 + (down_ratio if number % 2 else 0.0)) * period_s
                    if at_s >= end_s:
                        return
                    yield at_s
            case "impair" if "ramp_s" in self.parameters:
                ramp_s = float(self.parameters["ramp_s"])
                yield from (ramp_s * step / self.ramp_steps for step in range(1, self.ramp_steps + 1))
            case "inject":
                every_s = float(self.parameters.get("every_ms", 0.0)) / 1e3
                yield from (every_s * number for number in range(1, int(self.parameters.get("times", 1))))

    @property
    def changes(self) -> dict[str, Any]:
        """The properties that an impairment sets."""
        return {name: value for name, value in self.parameters.items() if name not in _IMPAIR_MANNERS}

    @property
    def match(self) -> Match | None:
        """What an impairment is about; None: every frame."""
        said = self.parameters.get("match")
        return None if said is None else Match.parse(said, where=f"fault {self.fault_id}: match")

    @property
    def ramp_steps(self) -> int:
        """In how many steps an impairment reaches what it is to be; 0: at once."""
        return math.ceil(float(self.parameters.get("ramp_s", 0.0)) / RAMP_STEP_S)

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise self._refuse(f"there is no kind `{self.kind}`", pick_one_of(self.kind, FAULT_KINDS))
        if not (math.isfinite(self.at_s) and self.at_s >= 0):
            raise self._refuse(f"at_s = {self.at_s} is no time after the start", "give seconds of 0 or more")
        if self.for_s is not None and not (math.isfinite(self.for_s) and self.for_s > 0):
            raise self._refuse(f"for_s = {self.for_s} is no time", "give seconds of more than 0, or leave it out")
        if self.kind in (*EVENT_KINDS, "inject") and self.for_s is not None:
            raise self._refuse(f"`{self.kind}` does not end by itself", "leave for_s out")
        if self.sender is not None and self.kind not in MESSAGE_KINDS:
            ends = self.target.split("-") if self.kind in _ONE_WAY_KINDS else []
            if self.sender not in ends:
                raise self._refuse(f"sender = {self.sender} is no end of a link", "name an end, or leave it out")
        if self.parameters and self.kind in _PLAIN_KINDS:
            raise self._refuse(f"`{self.kind}` takes no {next(iter(self.parameters))}", "leave it out")
        if self.kind == "flap" and self.duration_s is None:
            raise self._refuse("`flap` has no end", "give count or for_s")
        if self.kind == "impair":
            self._verify_impairment()

    def _verify_impairment(self) -> None:
        if not self.changes:
            raise self._refuse("`impair` changes nothing", f"give one of {', '.join(IMPAIR_PARAMETERS)}")
        for name, value in self.changes.items():
            self._verify_parameter(name, value)
        if self.match is not None:
            for name in NOT_OF_A_MATCH:
                if name in self.parameters:
                    raise self._refuse(f"{name} is of all frames of a link, not of those of a match", "leave one out")

    def _verify_parameter(self, name: str, value: float | str) -> None:
        if name not in IMPAIR_PARAMETERS:
            raise self._refuse(f"`impair` knows no `{name}`", pick_one_of(name, IMPAIR_PARAMETERS))
        allowed = IMPAIR_PARAMETERS[name]
        if isinstance(allowed, tuple):
            if value not in allowed:
                known = " or ".join(str(one).lower() for one in allowed)
                raise self._refuse(f"{name} = {value} cannot be", f"give {known}")
            return
        least = MTU_MIN_BYTES if name == "mtu_bytes" else 0
        if isinstance(value, str) or not (math.isfinite(value) and least <= value <= allowed):
            raise self._refuse(f"{name} = {value} is out of range", f"give {least} to {allowed:g}")
        if value == 0.0 and name in ("rate_mbps", "queue_packets", "queue_bytes"):
            raise self._refuse(f"{name} = 0 lets nothing through", "give more than 0, or use `link-down`")

    def _refuse(self, problem: str, remedy: str) -> InputError:
        return InputError(where=f"fault {self.fault_id}", problem=problem, remedy=remedy)


class FaultApplied(Struct, frozen=True, kw_only=True):
    """A line of ``raw/faults.jsonl``: written when the fault is applied and again when it is healed; the last one counts.

    All times are CLOCK_MONOTONIC seconds.
    """

    fault_id: str
    kind: FaultKind
    target: str  #: as the topology names it; a process as ``<node>.<process>``
    parameters: Mapping[str, Any]  #: as asked for, with ``for_s`` and ``sender`` where they were given
    intended_s: float
    applied_s: float  #: just before the change was made
    verified: bool  #: every change, the healing included, was read back as it should be
    healed_s: float | None  #: just before it was undone; None: not yet
    source: FaultSource
    #: who healed it: ``schedule``, ``hand``, the ID of the fault that did (``link-up``, ``restart``, ``thaw``), or ``count``: it
    #: had struck as often as it was to
    healed_by: str = ""
    packets_matched: int | None = None  #: message faults: packets that it was meant for
    packets_hit: int | None = None  #: of these, those that it changed; of an injection, packets sent
    detail: str = ""  #: what was in its way
