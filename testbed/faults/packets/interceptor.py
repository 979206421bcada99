"""Decides for every packet that enters one direction of a link what the message faults in force make of it.

Whether a packet that is meant is hit follows from a hash of (seed, fault, link, sender, message type, name, attempt), so that a
rerun with the same seed hits the same ones, whatever the timing; only a *count* takes the first that come.
"""

# ruff: noqa: PLC0415  # scapy is loaded where a rule has code, and only then: it takes 0.7 s

from __future__ import annotations

import fnmatch
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from proxy.wire.name import to_uri
from proxy.wire.tlv import MalformedError
from testbed.faults.packets.frames import LaneEnds, datagram_in
from testbed.faults.packets.rules import MessageHit, MessageRule, RuleReport
from testbed.faults.packets.view import PacketView, view_of

#: Names of which a rule knows how often it has met them; it forgets the one not met for longest.
NAMES_MAX: Final = 65_536
_DRAW_LIMIT: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Copy:
    """A packet that goes on, as it came or changed."""

    datagram: bytes
    later_ms: float = 0.0  #: than it would arrive otherwise
    checksum_right: bool = True


@dataclass(slots=True)
class ActiveRule:
    """A rule in force, on however many links; *evaluate* and *edit* are there where it has code of the user's."""

    rule: MessageRule
    evaluate: Callable[..., bool] | None = None
    edit: Callable[..., bytes] | None = None
    matched: int = 0
    hit: int = 0
    errors: int = 0
    last_error: str = ""
    exhausted_s: float | None = None
    attempts: OrderedDict[tuple[str, str, str, bytes], int] = field(default_factory=OrderedDict)
    _pattern: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        if self.rule.name:
            self._pattern = re.compile(fnmatch.translate(self.rule.name))

    @classmethod
    def of(cls, rule: MessageRule) -> ActiveRule:
        """Return *rule*, ready for packets. Raises: InputError where its code is wrong."""
        if not rule.needs_scapy:
            return cls(rule)
        from testbed.faults.packets.expressions import Edit, Predicate  # imports scapy, which takes 0.7 s

        return cls(
            rule,
            evaluate=Predicate(rule.predicate) if rule.predicate else None,
            edit=Edit(rule.edit) if rule.edit else None,
        )

    def report(self, *, lanes: int) -> RuleReport:
        return RuleReport(
            fault_id=self.rule.fault_id,
            lanes=lanes,
            matched=self.matched,
            hit=self.hit,
            errors=self.errors,
            last_error=self.last_error,
            exhausted_s=self.exhausted_s,
        )

    def is_meant(self, view: PacketView, datagram: bytes, ends: LaneEnds) -> bool:
        """Tell whether the rule is about this packet."""
        rule = self.rule
        if self.exhausted_s is not None or (rule.messages and view.message not in rule.messages):
            return False
        if self._pattern is not None and (not view.name or self._pattern.match(uri_of(view.name)) is None):
            return False
        if self.evaluate is None:
            return True
        try:
            return bool(self.evaluate(datagram, view, ends))
        except Exception as error:  # noqa: BLE001  whatever the user's code raises
            self._note_error(error)
            return False

    def draw(self, view: PacketView, ends: LaneEnds) -> tuple[int, int]:
        """Return (attempt, draw from 0 to 2**64 - 1) of a packet that is meant."""
        key = (ends.link, ends.sender, view.message, view.name)
        attempt = self.attempts.pop(key, 0)
        self.attempts[key] = attempt + 1
        if len(self.attempts) > NAMES_MAX:
            self.attempts.popitem(last=False)
        rule = self.rule
        text = f"{rule.seed}|{rule.fault_id}|{ends.link}|{ends.sender}|{view.message}|{attempt}|".encode()
        return attempt, int.from_bytes(blake2b(text + view.name, digest_size=8).digest(), "little")

    def copies(self, copy: Copy, draw: int, view: PacketView, ends: LaneEnds) -> list[Copy]:
        """Return what becomes of a packet that is hit. Raises: whatever the user's code raises."""
        rule = self.rule
        match rule.action:
            case "drop":
                return []
            case "delay":
                return [Copy(copy.datagram, copy.later_ms + rule.delay_ms, copy.checksum_right)]
            case "duplicate" | "replay":
                again = (copy.later_ms + rule.delay_ms + number * rule.every_ms for number in range(rule.times))
                return [copy, *(Copy(copy.datagram, later_ms, copy.checksum_right) for later_ms in again)]
            case "corrupt":
                return [Copy(_corrupted(copy.datagram, rule.bits, draw), copy.later_ms, rule.checksum_right)]
            case "forge":
                assert self.edit is not None
                forged = Copy(self.edit(copy.datagram, view, ends), copy.later_ms, rule.checksum_right)
                return [copy, forged] if rule.keep_original else [forged]

    def note_hit(self, now_s: float) -> None:
        self.hit += 1
        if self.rule.count is not None and self.hit >= self.rule.count:
            self.exhausted_s = now_s

    def _note_error(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = f"{type(error).__name__}: {error}"[:200]

    def apply(self, copy: Copy, ends: LaneEnds, now_s: float, on_hit: Callable[[MessageHit], None]) -> list[Copy]:
        """Return what becomes of one packet."""
        view = view_of(copy.datagram)
        if not self.is_meant(view, copy.datagram, ends):
            return [copy]
        self.matched += 1
        attempt, draw = self.draw(view, ends)
        if draw >= self.rule.ratio * _DRAW_LIMIT:
            return [copy]
        try:
            copies = self.copies(copy, draw, view, ends)
        except Exception as error:  # noqa: BLE001  whatever the user's code raises
            self._note_error(error)
            return [copy]
        self.note_hit(now_s)
        name = uri_of(view.name) if view.name else ""
        on_hit(
            MessageHit(now_s, self.rule.fault_id, self.rule.action, ends.link, ends.sender, view.message, name, attempt)
        )
        return copies


class Interceptor:
    """All rules on one direction of one link, the first that came into force first."""

    def __init__(self, ends: LaneEnds, on_hit: Callable[[MessageHit], None]) -> None:
        self.ends, self._on_hit = ends, on_hit
        self.rules: list[ActiveRule] = []

    def intercept(self, datagram: bytes, now_s: float) -> list[Copy] | None:
        """Return what goes on instead of *datagram*, in order; None: nothing has been changed."""
        whole = Copy(datagram)
        copies = [whole]
        for rule in self.rules:
            copies = [each for copy in copies for each in rule.apply(copy, self.ends, now_s, self._on_hit)]
        return None if len(copies) == 1 and copies[0] is whole else copies


class FrameInterceptor:
    """An `Interceptor` of Ethernet frames; those that carry nothing of a forwarder are not its business."""

    def __init__(self, ends: LaneEnds, on_hit: Callable[[MessageHit], None]) -> None:
        self.interceptor = Interceptor(ends, on_hit)

    def __call__(self, frame: bytes, now_ns: int) -> list[tuple[bytes, int]] | None:
        """Return (frame, how many ns later) of each that goes on instead; None: nothing has been changed."""
        datagram = datagram_in(frame)
        copies = None if datagram is None else self.interceptor.intercept(datagram, now_ns / 1e9)
        if copies is None:
            return None
        ends = self.interceptor.ends
        return [
            (
                frame
                if copy.datagram is datagram and copy.checksum_right
                else ends.frame(copy.datagram, checksum_right=copy.checksum_right),
                round(copy.later_ms * 1e6),
            )
            for copy in copies
        ]


class ActiveRules:
    """The message faults in force on a network, whatever carries its packets."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[ActiveRule, list[Interceptor]]] = {}

    def add(self, rule: MessageRule, interceptors: Iterable[Interceptor]) -> RuleReport:
        """Put a rule into force. Raises: InputError where its code is wrong; ValueError if its ID is in use."""
        if rule.fault_id in self._rules:
            raise ValueError(f"a message fault {rule.fault_id} is active already")
        active, on = ActiveRule.of(rule), list(interceptors)
        for interceptor in on:
            interceptor.rules.append(active)
        self._rules[rule.fault_id] = (active, on)
        return self.report(rule.fault_id)

    def remove(self, fault_id: str) -> tuple[RuleReport, list[Interceptor]]:
        """End a rule. Returns: what came of it, and where it was. Raises: KeyError if it is not active."""
        report = self.report(fault_id)
        active, on = self._rules.pop(fault_id)
        for interceptor in on:
            interceptor.rules.remove(active)
        return report, on

    def report(self, fault_id: str) -> RuleReport:
        """Return what came of a rule so far. Raises: KeyError if it is not active."""
        active, on = self._rules[fault_id]
        return active.report(lanes=sum(any(rule is active for rule in interceptor.rules) for interceptor in on))


def uri_of(name: bytes) -> str:
    """Return the URI of a name; of what is none, its octets."""
    try:
        return to_uri(name)
    except MalformedError:
        return name.hex()


def _corrupted(datagram: bytes, bits: int, draw: int) -> bytes:
    """Return *datagram* with so many different bits flipped, which follow from the draw."""
    octets, flipped, number = bytearray(datagram), set[int](), 0
    while len(flipped) < min(bits, 8 * len(octets)):
        digest = blake2b(draw.to_bytes(8, "little") + number.to_bytes(4, "little"), digest_size=8).digest()
        at = int.from_bytes(digest, "little") % (8 * len(octets))
        number += 1
        if at not in flipped:
            flipped.add(at)
            octets[at // 8] ^= 1 << at % 8
    return bytes(octets)
