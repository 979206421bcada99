"""From a message fault as it was asked for to the rule that a link back end carries out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from testbed.faults.model import Fault
from testbed.faults.packets.rules import MessageRule
from testbed.links.model import Direction
from topologies.model import Link

#: Parameters that the rule has under the same name.
_SAME: Final = ("name", "predicate", "ratio", "count", "delay_ms", "times", "every_ms", "bits", "edit", "keep_original")


def rule_of(fault: Fault, *, seed: int) -> MessageRule:
    """Return what a link back end is to do for *fault*."""
    parameters: dict[str, Any] = {name: fault.parameters[name] for name in _SAME if name in fault.parameters}
    if "after_ms" in fault.parameters:
        parameters["delay_ms"] = fault.parameters["after_ms"]
    message = str(fault.parameters.get("message", ""))
    return MessageRule(
        fault_id=fault.fault_id,
        action=fault.kind,  # type: ignore[arg-type]  # one of MESSAGE_KINDS, or the injector would not ask
        seed=seed,
        messages=tuple(word.strip() for word in message.split(",") if word.strip()),
        checksum_right=fault.parameters.get("checksum", "right") == "right",
        **parameters,
    )


def directions_of(lanes: Iterable[tuple[Link, str]]) -> list[tuple[Link, Direction]]:
    """Return (link, direction) of (link, sending node)."""
    return [(link, "a_to_b" if sender == link.a else "b_to_a") for link, sender in lanes]
