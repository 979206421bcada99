"""What the supervisor and the emulator process say to each other: JSON lines over a Unix stream socket.

Every request gets one reply, in order. File descriptors of namespaces travel with `AddHosts` (SCM_RIGHTS).
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.links.model import Direction, EmulatorStats, Impairment, LinkCounters, LinkPlan

MAX_FDS_PER_MESSAGE: Final = 200  # the kernel's limit is 253 (SCM_MAX_FD)
#: Links whose counters are asked for at once: encoding them keeps the emulator from its frames for about 0.3 ms.
COUNTERS_PER_MESSAGE: Final = 16
MAX_LINE_BYTES: Final = 64 << 20


class AddHosts(Struct, frozen=True, tag_field="op", tag="add-hosts"):
    """One file descriptor of a network namespace comes along for each host, in this order."""

    hosts: list[str]


class Build(Struct, frozen=True, tag_field="op", tag="build"):
    """Make all links and carry frames from now on."""

    plans: list[LinkPlan]
    seed: int
    ledger_path: str
    hold_cpus_awake: bool
    packet_code: bool = False  #: message faults may have code over packets: load what runs it


class Change(Struct, frozen=True, tag_field="op", tag="change"):
    """Replace what both directions of a link do."""

    link: str
    a_to_b: Impairment
    b_to_a: Impairment


class SetCarrier(Struct, frozen=True, tag_field="op", tag="set-carrier"):
    link: str
    up: bool


class SetBlocked(Struct, frozen=True, tag_field="op", tag="set-blocked"):
    """Make a link a black hole in these directions, and in no other."""

    link: str
    directions: list[Direction]


class AddRule(Struct, frozen=True, tag_field="op", tag="add-rule"):
    """Put a message fault into force on these directions of links."""

    rule: MessageRule
    lanes: list[tuple[str, Direction]]


class ReportRule(Struct, frozen=True, tag_field="op", tag="report-rule"):
    fault_id: str


class RemoveRule(Struct, frozen=True, tag_field="op", tag="remove-rule"):
    fault_id: str


class Inject(Struct, frozen=True, tag_field="op", tag="inject"):
    """Send a packet made by hand (testbed/faults/packets/crafting.py) as if that end had sent it."""

    link: str
    direction: Direction
    packet: str


class ReadCounters(Struct, frozen=True, tag_field="op", tag="read-counters"):
    links: list[str]


class ReadStats(Struct, frozen=True, tag_field="op", tag="read-stats"):
    pass


class Stop(Struct, frozen=True, tag_field="op", tag="stop"):
    """Remove all links and end. The reply is the end of the process."""


Request = (
    AddHosts
    | Build
    | Change
    | SetCarrier
    | SetBlocked
    | AddRule
    | ReportRule
    | RemoveRule
    | Inject
    | ReadCounters
    | ReadStats
    | Stop
)


class Failure(Struct, frozen=True):
    """The parts of an HconfError."""

    where: str
    problem: str
    remedy: str
    capability: bool = False  #: this machine cannot, rather than: the input is wrong


class Reply(Struct, frozen=True, omit_defaults=True):
    """What came of a request; the fields that the request is not about keep their defaults."""

    failure: Failure | None = None
    a_to_b: Impairment | None = None  #: read back from the running channel, the MTU from the kernel
    b_to_a: Impairment | None = None
    carriers: list[bool] | None = None  #: read back from the kernel, ends a and b
    blocked: list[Direction] | None = None  #: read back from the running channels
    counters: list[LinkCounters] | None = None
    stats: EmulatorStats | None = None
    report: RuleReport | None = None  #: of a message fault
    injected: bool | None = None  #: whether the link was up to take the packet


request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
reply_decoder: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
encoder = msgspec.json.Encoder()
