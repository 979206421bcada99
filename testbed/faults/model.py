"""What a fault is, and the record of one that was applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from msgspec import Struct

from topologies.errors import InputError, pick_one_of

FaultKind = Literal["link-down", "link-up", "impair", "crash", "freeze", "disk-loss"]
FaultSource = Literal["schedule", "hand"]

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

#: What `impair` may set, with the largest value; all are 0 or more, a rate is more than 0.
IMPAIR_PARAMETERS: Final[Mapping[str, float]] = {
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
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as asked for.

    ``link-down`` takes the carrier from both ends until it is healed or ``link-up`` is applied to the link; ``impair``
    lays *parameters* over the link's properties until it is healed; ``link-up`` ends every ``link-down`` on the link.
    ``crash`` ends a process without warning, ``disk-loss`` a service proxy and all that it has stored; healed, it is started
    again. ``freeze`` stops a process until it is healed.
    Raises: InputError if a kind, a parameter or a time cannot be.
    """

    fault_id: str  #: unique within the run
    kind: FaultKind
    #: name of a link, its ends in either order; of a process, such as ``csr1.proxy``; or of a node, for all its processes
    target: str
    at_s: float = 0.0  #: since the run's epoch
    for_s: float | None = None  #: healed after that time; None: when somebody does it
    parameters: Mapping[str, float] = field(default_factory=dict)
    source: FaultSource = "schedule"
    sender: str | None = None  #: `impair`: only what this end of the link sends; None: both directions

    @property
    def direction(self) -> Literal["a_to_b", "b_to_a"] | None:
        """The direction that is impaired; None: both."""
        if self.sender is None:
            return None
        return "a_to_b" if self.target.partition("-")[0] == self.sender else "b_to_a"

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise self._refuse(f"there is no kind `{self.kind}`", pick_one_of(self.kind, FAULT_KINDS))
        if not (math.isfinite(self.at_s) and self.at_s >= 0):
            raise self._refuse(f"at_s = {self.at_s} is no time after the start", "give seconds of 0 or more")
        if self.for_s is not None and not (math.isfinite(self.for_s) and self.for_s > 0):
            raise self._refuse(f"for_s = {self.for_s} is no time", "give seconds of more than 0, or leave it out")
        if self.kind == "link-up" and self.for_s is not None:
            raise self._refuse("`link-up` does not end by itself", "leave for_s out")
        if self.sender is not None and (self.kind != "impair" or self.sender not in self.target.split("-")):
            raise self._refuse(f"sender = {self.sender} is no end of an impaired link", "name an end, or leave it out")
        if self.kind != "impair" and self.parameters:
            raise self._refuse(f"`{self.kind}` takes no {next(iter(self.parameters))}", "leave it out")
        if self.kind == "impair" and not self.parameters:
            raise self._refuse("`impair` changes nothing", f"give one of {', '.join(IMPAIR_PARAMETERS)}")
        for name, value in self.parameters.items():
            self._verify_parameter(name, value)

    def _verify_parameter(self, name: str, value: float) -> None:
        if name not in IMPAIR_PARAMETERS:
            raise self._refuse(f"`impair` knows no `{name}`", pick_one_of(name, IMPAIR_PARAMETERS))
        if not (math.isfinite(value) and 0.0 <= value <= IMPAIR_PARAMETERS[name]):
            raise self._refuse(f"{name} = {value} is out of range", f"give 0 to {IMPAIR_PARAMETERS[name]:g}")
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
    parameters: Mapping[str, float | str]  #: as asked for, with ``for_s`` and ``sender`` where they were given
    intended_s: float
    applied_s: float  #: just before the change was made
    verified: bool  #: every change, the healing included, was read back as it should be
    healed_s: float | None  #: just before it was undone; None: not yet
    source: FaultSource
