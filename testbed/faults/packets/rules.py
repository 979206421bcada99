"""What a message fault is to do, and what it has done: plain data, shared by the supervisor and the emulator process."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

#: Packets that are sent again by one packet that was met, and copies of it.
COPIES_MAX: Final = 100


class MessageRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message fault. A packet is meant if its type, its name and the predicate say so; *ratio* and *count* then decide."""

    fault_id: str
    action: Literal["drop", "delay", "duplicate", "corrupt", "replay", "forge"]
    seed: int
    messages: tuple[str, ...] = ()  #: types as in messages.csv; empty: any
    name: str = ""  #: pattern for the name's URI, with ``*`` and ``?``; empty: any
    predicate: str = ""  #: Python expression over ``packet``; empty: none
    ratio: float = 1.0  #: of the packets meant, each on its own
    count: int | None = None  #: no more than so many are hit
    delay_ms: float = 0.0  #: `delay`: how much later; `replay`: when, after the packet itself
    times: int = 1  #: `duplicate`, `replay`: so many more
    every_ms: float = 0.0  #: and so far apart
    bits: int = 1  #: `corrupt`: so many are flipped
    checksum_right: bool = True  #: `corrupt`, `forge`: of UDP; else the receiver's kernel drops the packet
    edit: str = ""  #: `forge`: Python statements over ``packet``
    keep_original: bool = False  #: `forge`: what was met arrives, too

    @property
    def needs_scapy(self) -> bool:
        return bool(self.predicate or self.edit)


class RuleReport(Struct, frozen=True, kw_only=True):
    """What came of a rule so far."""

    fault_id: str
    lanes: int = 0  #: directions of links that it is in force on, as read back
    matched: int = 0  #: packets that it was meant for
    hit: int = 0  #: of these, those that it changed
    errors: int = 0  #: packets that the predicate or the edit failed on; they passed as they were
    last_error: str = ""
    exhausted_s: float | None = None  #: when it had hit as many as it was to


class MessageHit(Struct, frozen=True, tag_field="kind", tag="message_hit"):
    """A packet that a message fault changed; a line of ``raw/wire-ledger.jsonl``."""

    t_s: float  #: CLOCK_MONOTONIC; virtual in a simulation
    fault_id: str
    action: str
    link: str
    sender: str
    message: str
    name: str  #: URI without a digest at its end; empty: it has none
    attempt: int  #: how many of this type and name the rule had met before on this link in this direction
