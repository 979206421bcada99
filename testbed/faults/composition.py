"""How faults on one link add up: no I/O, no clock.

A link is down while any ``link-down`` on it is active. Each active ``impair`` is laid over the link's own properties,
in the order they were applied, so the latest wins where two set the same property. Whatever the order in which faults
are healed, a link with none left is as it was built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.faults.model import Fault
from testbed.links.model import DIRECTIONS, Direction
from topologies.model import LinkProperties


@dataclass(frozen=True, slots=True)
class SetCarrier:
    """Take a link down or up."""

    link: str
    up: bool


@dataclass(frozen=True, slots=True)
class SetProperties:
    """Give a link all these properties, in one direction or in both."""

    link: str
    properties: LinkProperties
    direction: Direction | None = None  #: None: both


Effect = SetCarrier | SetProperties


@dataclass(frozen=True, slots=True)
class Change:
    """What applying or healing a fault comes to."""

    effects: tuple[Effect, ...]  #: empty if another fault hides it
    healed: tuple[str, ...] = ()  #: IDs of the faults that are over by it


class ActiveFaults:
    """The faults in force. Targets must be names of links as in *links*; *back*: what the other end sends, where it differs."""

    def __init__(self, links: Mapping[str, LinkProperties], back: Mapping[str, LinkProperties] | None = None) -> None:
        self._built_as, self._built_back = dict(links), dict(back or {})
        self._active: dict[str, Fault] = {}  # in the order applied

    def __contains__(self, fault_id: str) -> bool:
        return fault_id in self._active

    def carrier(self, link: str) -> bool:
        """Return whether *link* should have a carrier now. Raises: KeyError if there is no such link."""
        self._built_as[link]
        return not any(fault.kind == "link-down" for fault in self._on(link))

    def properties(self, link: str, direction: Direction = "a_to_b") -> LinkProperties:
        """Return what one direction of *link* should be like now. Raises: KeyError if there is no such link."""
        composed = self._built_as[link]
        if direction == "b_to_a":
            composed = self._built_back.get(link, composed)
        for fault in self._on(link):
            if fault.kind == "impair" and fault.direction in (None, direction):
                composed = dataclasses.replace(composed, **_as_fields(fault.parameters))
        return composed

    def apply(self, fault: Fault) -> Change:
        """Put *fault* into force. Raises: KeyError for an unknown link, ValueError if its ID is in use."""
        if fault.fault_id in self._active:
            raise ValueError(f"a fault {fault.fault_id} is active already")
        before = self._state(fault.target)
        if fault.kind == "link-up":
            healed = tuple(other.fault_id for other in self._on(fault.target) if other.kind == "link-down")
            for fault_id in healed:
                del self._active[fault_id]
            return Change(self._difference(fault.target, before), healed)
        self._active[fault.fault_id] = fault
        return Change(self._difference(fault.target, before))

    def heal(self, fault_id: str) -> Change:
        """End one fault. Raises: KeyError if it is not active."""
        link = self._active[fault_id].target
        before = self._state(link)
        del self._active[fault_id]
        return Change(self._difference(link, before), (fault_id,))

    def _on(self, link: str) -> list[Fault]:
        return [fault for fault in self._active.values() if fault.target == link]

    def _state(self, link: str) -> tuple[bool, dict[Direction, LinkProperties]]:
        return self.carrier(link), {direction: self.properties(link, direction) for direction in DIRECTIONS}

    def _difference(self, link: str, before: tuple[bool, dict[Direction, LinkProperties]]) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        carrier, properties = self._state(link)
        if properties != before[1]:
            if properties["a_to_b"] == properties["b_to_a"]:
                effects.append(SetProperties(link, properties["a_to_b"]))
            else:
                effects += [
                    SetProperties(link, of_one, direction)
                    for direction, of_one in properties.items()
                    if of_one != before[1][direction]
                ]
        if carrier != before[0]:
            effects.append(SetCarrier(link, carrier))
        return tuple(effects)


def _as_fields(parameters: Mapping[str, float]) -> dict[str, Any]:
    """Return fault parameters with the types that `LinkProperties` has."""
    fields: dict[str, Any] = {
        name: int(value) if name in ("queue_packets", "queue_bytes") else value for name, value in parameters.items()
    }
    if "queue_packets" in fields:  # of the two bounds of a queue the one given last
        fields.setdefault("queue_bytes", None)
    return fields
