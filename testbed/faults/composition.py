"""How faults on links add up: no I/O, no clock.

A link is down while any ``link-down`` on it is active, a ``flap`` in its down phase, or a ``partition`` or ``isolate`` that cuts
it (those that are silent block it instead, as a ``black-hole`` does, in one direction or both). Each active ``impair`` is laid over
the link's own properties, in the order they were applied, so the latest wins where two set the same property. One with a
``match`` is laid over those of the frames that fit it; a frame that fits several gets them all. Whatever the order in which
faults are healed, a link with none left is as it was built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from testbed.faults.model import Fault
from testbed.faults.targets import links_of
from testbed.links.model import DIRECTIONS, Direction
from testbed.links.netem.match import Match
from topologies.errors import InputError
from topologies.model import LinkProperties, Topology


@dataclass(frozen=True, slots=True)
class SetCarrier:
    """Take a link down or up."""

    link: str
    up: bool


@dataclass(frozen=True, slots=True)
class SetBlocked:
    """Let a link swallow what is sent in these directions, and in no other."""

    link: str
    directions: frozenset[Direction]


@dataclass(frozen=True, slots=True)
class SetProperties:
    """Give a link all these properties, in one direction or in both."""

    link: str
    properties: LinkProperties
    direction: Direction | None = None  #: None: both


@dataclass(frozen=True, slots=True)
class SetTargets:
    """Impair what fits each of these by itself, and everything else as before. Where a frame fits several, the strictest has it."""

    link: str
    direction: Direction
    targets: Mapping[Match, LinkProperties]


Effect = SetCarrier | SetBlocked | SetProperties | SetTargets


@dataclass(frozen=True, slots=True)
class Change:
    """What applying or healing a fault comes to."""

    effects: tuple[Effect, ...]  #: empty if another fault hides it
    healed: tuple[str, ...] = ()  #: IDs of the faults that are over by it
    links: tuple[str, ...] = ()  #: those that the fault is about, changed or not


@dataclass(slots=True)
class _Active:
    """A fault in force."""

    fault: Fault
    links: tuple[str, ...]
    phase: int = 0  #: of those that change while they are in force, see `Fault.phases_s`
    #: of a ramp: what each direction had when it began
    start: Mapping[Direction, LinkProperties] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkState:
    """What a link should be like."""

    carrier: bool
    blocked: frozenset[Direction]
    properties: Mapping[Direction, LinkProperties]
    targets: Mapping[Direction, Mapping[Match, LinkProperties]]  #: those of frames that an impairment is about alone


#: Properties that a ramp passes through whole numbers.
_WHOLE: Final = frozenset({"queue_packets", "queue_bytes", "mtu_bytes"})

_BOTH: Final[frozenset[Direction]] = frozenset(DIRECTIONS)


class ActiveFaults:
    """The faults in force on links."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._built_as: dict[str, Mapping[Direction, LinkProperties]] = {
            link.name: {"a_to_b": link.properties_from(link.a), "b_to_a": link.properties_from(link.b)}
            for link in topology.links
        }
        self._active: dict[str, _Active] = {}  # in the order applied

    def __contains__(self, fault_id: str) -> bool:
        return fault_id in self._active

    def state(self, link: str) -> LinkState:
        """Return what *link* should be like now. Raises: KeyError if there is no such link."""
        carrier, blocked = True, frozenset[Direction]()
        for active in self._on(link):
            fault = active.fault
            match fault.kind:
                case "link-down":
                    carrier = False
                case "flap":
                    carrier = carrier and active.phase % 2 == 1
                case "black-hole":
                    blocked |= _BOTH if fault.direction is None else {fault.direction}
                case "partition" | "isolate" if fault.parameters.get("silent"):
                    blocked |= _BOTH
                case "partition" | "isolate":
                    carrier = False
        ways = {direction: self._impairments_on(link, direction) for direction in DIRECTIONS}
        built_as = self._built_as[link]
        return LinkState(
            carrier,
            blocked,
            {direction: _composed(built_as[direction], active, direction) for direction, active in ways.items()},
            {
                direction: {
                    kind: _composed(built_as[direction], active, direction, of=kind)
                    for kind in _kinds_of_frames(active)
                }
                for direction, active in ways.items()
            },
        )

    def _impairments_on(self, link: str, direction: Direction) -> list[_Active]:
        impairments = [active for active in self._on(link) if active.fault.kind == "impair"]
        return [active for active in impairments if active.fault.direction in (None, direction)]

    def apply(self, fault: Fault) -> Change:
        """Put *fault* into force.

        Raises: InputError for a wrong target, or where it changes nothing; ValueError if its ID is in use. Nothing has changed then.
        """
        if fault.fault_id in self._active:
            raise ValueError(f"a fault {fault.fault_id} is active already")
        links = tuple(link.name for link in links_of(self._topology, fault.kind, fault.target))
        before = {link: self.state(link) for link in links}
        if fault.kind == "link-up":
            over = tuple(other.fault.fault_id for other in self._on(fault.target) if other.fault.kind == "link-down")
            if not over:
                raise InputError(
                    where=f"fault {fault.fault_id}",
                    problem=f"{fault.target} is not down by a link-down",
                    remedy="leave it out; `heal` ends a fault of another kind",
                )
            for fault_id in over:
                del self._active[fault_id]
            return Change(self._difference(before), over, links)
        start: dict[Direction, LinkProperties] = {}
        if fault.ramp_steps:
            start = dict(before[links[0]].properties)
            _verify_ramp(fault, start)
        self._active[fault.fault_id] = _Active(fault, links, start=start)
        return Change(self._difference(before), links=links)

    def advance(self, fault_id: str, phase: int) -> Change:
        """Bring one that changes while it is in force into its next phase. Raises: KeyError if it is not active."""
        active = self._active[fault_id]
        before = {link: self.state(link) for link in active.links}
        active.phase = phase
        return Change(self._difference(before), links=active.links)

    def heal(self, fault_id: str) -> Change:
        """End one fault. Raises: KeyError if it is not active."""
        links = self._active[fault_id].links
        before = {link: self.state(link) for link in links}
        del self._active[fault_id]
        return Change(self._difference(before), (fault_id,), links)

    def _on(self, link: str) -> list[_Active]:
        return [active for active in self._active.values() if link in active.links]

    def _difference(self, before: Mapping[str, LinkState]) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        for link, was in before.items():
            now = self.state(link)
            if now.properties != was.properties:
                if now.properties["a_to_b"] == now.properties["b_to_a"]:
                    effects.append(SetProperties(link, now.properties["a_to_b"]))
                else:
                    effects += [
                        SetProperties(link, of_one, direction)
                        for direction, of_one in now.properties.items()
                        if of_one != was.properties[direction]
                    ]
            effects += [
                SetTargets(link, direction, targets)
                for direction, targets in now.targets.items()
                if targets != was.targets[direction]
            ]
            if now.blocked != was.blocked:
                effects.append(SetBlocked(link, now.blocked))
            if now.carrier != was.carrier:
                effects.append(SetCarrier(link, now.carrier))
        return tuple(effects)


def _kinds_of_frames(impairments: Sequence[_Active]) -> list[Match]:
    """Return what is impaired otherwise than all other frames: what fits one match, and what fits several at the same time."""
    kinds: dict[Match, None] = {}  # a set that keeps its order
    for active in impairments:
        if (match := active.fault.match) is not None:
            both = (kind.both(match) for kind in list(kinds))
            kinds |= dict.fromkeys((match, *(kind for kind in both if kind is not None)))
    return list(kinds)


def _composed(
    built_as: LinkProperties, impairments: Sequence[_Active], direction: Direction, *, of: Match | None = None
) -> LinkProperties:
    """Lay impairments over what a link was built as: those of every frame, and those of the frames *of* a kind."""
    composed = built_as
    for active in impairments:
        match = active.fault.match
        if match is None or (of is not None and of.is_within(match)):
            composed = dataclasses.replace(composed, **_changes(active, direction))
    return composed


def _changes(active: _Active, direction: Direction) -> dict[str, Any]:
    """Return the properties that an impairment sets in its present phase, with the types that `LinkProperties` has."""
    steps, changes = active.fault.ramp_steps, dict[str, Any]()
    for name, wanted in active.fault.changes.items():
        value: Any = wanted
        if active.phase < steps and _is_number(wanted):
            begun_at = getattr(active.start[direction], name)
            value = begun_at + (wanted - begun_at) * active.phase / steps
        changes[name] = round(value) if name in _WHOLE else value
    if "queue_packets" in changes:  # of the two bounds of a queue the one given last
        changes.setdefault("queue_bytes", None)
    return changes


def _verify_ramp(fault: Fault, start: Mapping[Direction, LinkProperties]) -> None:
    """A ramp needs something to begin at. Raises: InputError."""
    for direction in DIRECTIONS if fault.direction is None else (fault.direction,):
        for name, wanted in fault.changes.items():
            if _is_number(wanted) and not _is_number(getattr(start[direction], name)):
                raise InputError(
                    where=f"fault {fault.fault_id}",
                    problem=f"{name} of {fault.target} has no value that a ramp could begin at",
                    remedy=f"give the link a {name}, or leave ramp_s out",
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
