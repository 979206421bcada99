"""One direction of a `netem` link: what its qdiscs are to be, and what their counters say.

On the inner end that frames leave by, towards the receiving host::

    prio 6363: ── band 1: netem 6370: loss, duplication, corruption, delay ── netem 6380: rate and queue, where there is a rate
               └─ bands 2 to 8, one for each target: netem 6371: …, for what a filter picks

A band stays when its target is gone: what is on its way in it arrives, and its counters are not lost. A later target may have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from testbed.links.channel import channel_key
from testbed.links.model import CAUSES, Cause, Direction, Impairment, LinkPlan
from testbed.links.netem import qdisc
from testbed.links.netem.filters import add_filter, delete_filter, redirect_all
from testbed.links.netem.match import Match
from testbed.links.netem.qdisc import Netem, QdiscState
from testbed.links.netem.translation import Stages, loss_moments, stages_of
from testbed.links.rtnetlink import Request
from topologies.errors import InputError

Requests = list[tuple[str, Request]]  #: each with what to call it
Qdiscs = Mapping[tuple[int, int], QdiscState]  #: (interface, handle)

#: A rate stage that stays when there is no rate any more: what waits in it goes on as it was going to.
_OPEN: Final = Netem()


@dataclass(slots=True)
class Flow:
    """What one band of the root carries."""

    number: int
    impairment: Impairment
    match: Match | None = None  #: None: the first, which carries what no filter picks, or a target that is gone
    has_rate: bool = False  #: its rate stage was made; it stays
    is_made: bool = False
    has_filter: bool = False
    # as the kernel has counted up to the last settlement
    settled_drops: int = 0
    settled_drawn: int = 0
    gone_with_carrier: int = 0  #: the kernel does not count these
    # up to the last settlement
    lost: int = 0
    blocked: int = 0
    drawn: int = 0
    expected_lost: float = 0.0
    expected_variance: float = 0.0


@dataclass(slots=True)
class Way:
    """One direction: frames come in at one inner end, leave by the other, and pass the qdiscs there."""

    link: str
    direction: Direction
    sender: str
    receiver: str
    in_index: int
    out_index: int
    seed: int
    flows: list[Flow]
    is_blocked: bool = False

    @classmethod
    def of(cls, plan: LinkPlan, direction: Direction, *, a: int, b: int, seed: int) -> Way:
        """Return a direction of *plan* between the inner ends *a* and *b* (interface indices)."""
        key = channel_key(seed=seed, link=plan.name, direction=direction)
        number = int.from_bytes(key[:8], "little")
        if direction == "a_to_b":
            return cls(plan.name, direction, plan.a.host, plan.b.host, a, b, number, [Flow(0, plan.a_to_b)])
        return cls(plan.name, direction, plan.b.host, plan.a.host, b, a, number, [Flow(0, plan.b_to_a)])

    @property
    def impairment(self) -> Impairment:
        return self.flows[0].impairment

    @property
    def where(self) -> str:
        return f"link {self.link}, {self.sender} to {self.receiver}"

    # What to ask of the kernel

    def make(self) -> Requests:
        """Return the requests that make everything of this direction."""
        root = qdisc.add_qdisc(self.out_index, "prio", handle=qdisc.ROOT, parent=qdisc.TC_H_ROOT, options=qdisc.bands())
        redirected = redirect_all(self.in_index, to_index=self.out_index)
        return [
            (f"{self.where}: the qdisc prio", root),
            *self.update(),
            (f"{self.where}: the qdisc ingress", redirected[0]),
            (f"{self.where}: the filter matchall with mirred", redirected[1]),
        ]

    def update(self) -> Requests:
        """Return the requests that have the kernel do what this direction says now."""
        requests: Requests = []
        for flow in self.flows:
            delay, rate = self.wanted(flow)
            at, parent = qdisc.delay_handle(flow.number), qdisc.band_of(flow.number)
            change = qdisc.change_qdisc if flow.is_made else qdisc.add_qdisc
            what = f"{self.where}: the qdisc netem"
            requests.append((what, change(self.out_index, "netem", handle=at, parent=parent, options=delay.encode())))
            if rate is not None:
                change = qdisc.change_qdisc if flow.has_rate else qdisc.add_qdisc
                line = change(
                    self.out_index,
                    "netem",
                    handle=qdisc.rate_handle(flow.number),
                    parent=at + 1,
                    options=rate.encode(),
                )
                requests.append((f"{self.where}: the qdisc netem for the rate", line))
                flow.has_rate = True
            if flow.match is not None and not flow.has_filter:
                picked = add_filter(self.out_index, flow.match, flow=flow.number)
                requests.append((f"{self.where}: the filter flower", picked))
                flow.has_filter = True
            flow.is_made = True
        return requests

    def wanted(self, flow: Flow) -> tuple[Netem, Netem | None]:
        """Return what the netem qdiscs of a flow are to do; None for a line that was never there."""
        stages: Stages = stages_of(flow.impairment, where=self.where, seed=self.seed + flow.number)
        return stages.delay.closed() if self.is_blocked else stages.delay, stages.rate or (
            _OPEN if flow.has_rate else None
        )

    @property
    def targets(self) -> dict[Match, Impairment]:
        """What is impaired by itself, and how."""
        return {flow.match: flow.impairment for flow in self.flows if flow.match is not None}

    def set_targets(self, targets: Mapping[Match, Impairment]) -> Requests:
        """Impair each of these by itself, and nothing else; return the requests for it. To be called after `settle`.

        Raises: InputError, nothing being changed, if they are more than can be.
        """
        if len(targets) >= qdisc.FLOWS:
            raise InputError(
                where=self.where,
                problem=f"{len(targets)} kinds of frames would be impaired each by itself, and {qdisc.FLOWS - 1} can be",
                remedy="end one of these impairments first; where two fit the same frames, these are one kind more",
            )
        requests: Requests = []
        for flow in self.flows:
            if flow.match is not None and flow.match not in targets:
                picked = delete_filter(self.out_index, flow.match, flow=flow.number)
                requests.append((f"{self.where}: the filter flower", picked))
                flow.match, flow.has_filter = None, False
        for match, impairment in targets.items():
            flow = next((flow for flow in self.flows if flow.match == match), None) or self._free_flow(impairment)
            flow.match, flow.impairment = match, impairment
        return requests + self.update()

    def _free_flow(self, impairment: Impairment) -> Flow:
        """Return a band that was never used; if there is none, one whose target is gone."""
        if len(self.flows) < qdisc.FLOWS:
            self.flows.append(Flow(len(self.flows), impairment))
            return self.flows[-1]
        return next(flow for flow in self.flows[1:] if flow.match is None)

    def take_stock(self, qdiscs: Qdiscs, filters: Mapping[int, Match]) -> None:
        """The kernel has refused something: take for made what is there. *filters* are by the class of their band."""
        for flow in self.flows:
            flow.is_made = (self.out_index, qdisc.delay_handle(flow.number)) in qdiscs
            flow.has_rate = (self.out_index, qdisc.rate_handle(flow.number)) in qdiscs
            flow.match = filters.get(qdisc.band_of(flow.number))
            flow.has_filter = flow.match is not None

    # What the kernel says

    def differences(self, qdiscs: Qdiscs, filters: Mapping[int, Match]) -> Iterator[str]:
        """Yield what the kernel has otherwise than it was asked. *filters* are by the class of their band."""
        for flow in self.flows:
            delay, rate = self.wanted(flow)
            for handle, asked in ((qdisc.delay_handle(flow.number), delay), (qdisc.rate_handle(flow.number), rate)):
                if asked is None:
                    continue
                state = qdiscs.get((self.out_index, handle))
                if state is None or state.kind != "netem":
                    yield f"{self.where}: the qdisc {handle >> 16:x}: is gone"
                elif not (found := Netem.decode(state.options)).is_as_asked(asked):
                    yield f"{self.where}: asked for {asked.spelt()}, read back {found.spelt()}"
            if filters.get(qdisc.band_of(flow.number)) != flow.match:
                yield f"{self.where}: its filters are not those of its targets"

    def settle(self, qdiscs: Qdiscs) -> None:
        """Take account of what was counted since the last time, under what was in force since then."""
        for flow in self.flows:
            state = qdiscs.get((self.out_index, qdisc.delay_handle(flow.number)))
            if state is None:
                continue
            line = qdiscs.get((self.out_index, qdisc.rate_handle(flow.number)))
            queue_drops = line.dropped if line else 0
            drops = state.dropped - queue_drops  # the upper stage counts what the lower one drops, too
            drawn = state.packets + state.dropped + state.waiting + flow.gone_with_carrier
            new_drops, new_drawn = drops - flow.settled_drops, drawn - flow.settled_drawn
            flow.settled_drops, flow.settled_drawn = drops, drawn
            if self.is_blocked:
                flow.blocked += new_drops
                continue
            mean, variance = loss_moments(flow.impairment)
            flow.lost += new_drops
            flow.drawn += new_drawn
            flow.expected_lost += new_drawn * mean
            flow.expected_variance += new_drawn * variance

    def lose_carrier(self, qdiscs: Qdiscs) -> None:
        """What is on its way is gone; the kernel empties the qdiscs of an interface that goes down, and does not count."""
        for flow in self.flows:
            state = qdiscs.get((self.out_index, qdisc.delay_handle(flow.number)))
            flow.gone_with_carrier += state.waiting if state else 0

    def dropped(self, qdiscs: Qdiscs) -> dict[Cause, int]:
        """Return the drops by cause; to be called after `settle`."""
        counted: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        for flow in self.flows:
            line = qdiscs.get((self.out_index, qdisc.rate_handle(flow.number)))
            counted["loss"] += flow.lost
            counted["blocked"] += flow.blocked
            counted["carrier"] += flow.gone_with_carrier
            counted["queue"] += line.dropped if line else 0
        return counted

    def delays(self, qdiscs: Qdiscs) -> Iterator[QdiscState]:
        """Yield the first stage of each flow, which everything passes."""
        for flow in self.flows:
            if (state := qdiscs.get((self.out_index, qdisc.delay_handle(flow.number)))) is not None:
                yield state
