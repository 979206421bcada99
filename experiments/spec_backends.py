"""Which back end makes each link, and whether what is asked of it is something that it can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.spec_faults import as_injected
from experiments.spec_places import KeyPath, Source
from experiments.spec_schema import Fault, Impair, Inject, LinkSection, MessageFault, fault_ids, kind_of
from testbed.faults.composition import ActiveFaults
from testbed.faults.targets import links_of
from testbed.links.model import impairment_of
from testbed.links.netem.qdisc import FLOWS
from testbed.links.netem.translation import refusal
from topologies.model import TIERS, Link, LinkBackend, Topology


def with_link_backends(
    topology: Topology, default: LinkBackend, links: Mapping[str, LinkSection], source: Source
) -> Topology:
    """Return *topology* with the back end that each link is to have: of its own table, else of its tier's, else *default*.

    Raises: InputError where `netem` is asked for what it cannot do.
    """
    by_key = {key if key in TIERS else topology.link(key).name: section for key, section in links.items()}
    chosen: dict[str, LinkBackend] = {}
    for link in topology.links:
        given = [by_key[key].backend for key in (link.name, link.tier) if key in by_key]
        chosen[link.name] = next((backend for backend in given if backend is not None), default)
    wanted = topology.with_backends(chosen)
    for link in wanted.links:
        if link.backend == "netem":
            _check_netem(link, _place(link, links), source)
    return wanted


def check_faults_of_netem(faults: Sequence[Fault], topology: Topology, source: Source) -> None:
    """What a fault makes of a link is something that its back end can do. Raises: InputError."""
    for number, fault in enumerate(faults):
        if isinstance(fault, MessageFault | Inject):
            _check_looked_into(fault, number, topology, source)
        if not isinstance(fault, Impair):
            continue
        link = topology.link(fault.target)
        if fault.match is not None:
            _check_chooses(link, number, source)
        if link.backend != "netem":
            continue
        changes: dict[str, Any] = dict(fault.changes())
        if fault.mtu_bytes is not None and fault.sender is not None:
            _refuse("an MTU that differs by direction", link, ("fault", number), source)
        for sender in (link.a, link.b) if fault.sender is None else (fault.sender,):
            changed = dataclasses.replace(link.properties_from(sender), **changes)
            _refuse(refusal(impairment_of(changed)), link, ("fault", number), source)
    _check_targets(faults, topology, source)


def _check_looked_into(fault: MessageFault | Inject, number: int, topology: Topology, source: Source) -> None:
    """Only `wire` links look into packets."""
    for link in links_of(topology, kind_of(fault), fault.target):
        if link.backend == "netem":
            raise source.error(
                ("fault", number, "target"),
                problem=f"{link.name} is a netem link, whose kernel does not look into packets",
                remedy='make it a wire link: backend = "wire"',
            )


def _check_chooses(link: Link, number: int, source: Source) -> None:
    """Only `netem` links choose frames by their addresses and ports."""
    if link.backend != "netem":
        is_open = "may become a wire link (auto)" if link.backend == "auto" else "is a wire link"
        raise source.error(
            ("fault", number, "match"),
            problem=f"{link.name} {is_open}, and only netem links choose frames by their addresses and ports",
            remedy='give it that back end: backend = "netem" in [links], or link_backend = "netem"; or use message faults '
            "(drop, delay, duplicate, corrupt), which look into packets on wire links",
        )


def _check_targets(faults: Sequence[Fault], topology: Topology, source: Source) -> None:
    """What impairments that overlap come to for the frames that they choose is something that netem can do, too."""
    chosen = [
        (number, fault_id, fault)
        for number, (fault_id, fault) in enumerate(zip(fault_ids(faults), faults, strict=True))
        if isinstance(fault, Impair) and topology.link(fault.target).backend == "netem"
    ]
    if all(fault.match is None for _, _, fault in chosen):
        return
    active = ActiveFaults(topology)
    steps: list[tuple[float, bool, int, str, Impair]] = []  # at the same time, what begins before what ends
    for number, fault_id, fault in chosen:
        steps.append((fault.at_s, False, number, fault_id, fault))
        if fault.for_s is not None:
            steps.append((fault.at_s + fault.for_s, True, number, fault_id, fault))
    for _, is_end, number, fault_id, fault in sorted(steps, key=lambda step: step[:3]):
        if is_end:
            active.heal(fault_id)
            continue
        active.apply(as_injected(fault_id, fault))
        link = topology.link(fault.target)
        for targets in active.state(link.name).targets.values():
            if len(targets) >= FLOWS:
                problem = f"more than {FLOWS - 1} kinds of frames (what fits two matches is one more), each by itself"
                _refuse(problem, link, ("fault", number), source)
            for properties in targets.values():
                _refuse(refusal(impairment_of(properties)), link, ("fault", number), source)


def _check_netem(link: Link, place: KeyPath, source: Source) -> None:
    for sender in (link.a, link.b):
        _refuse(refusal(impairment_of(link.properties_from(sender))), link, place, source)
    if link.properties_from(link.a).mtu_bytes != link.properties_from(link.b).mtu_bytes:
        _refuse("an MTU that differs by direction", link, place, source)


def _refuse(problem: str | None, link: Link, place: KeyPath, source: Source) -> None:
    if problem is not None:
        raise source.error(
            place,
            problem=f"{link.name} is to be a netem link, and netem cannot do {problem}",
            remedy='leave it out, or give the link the back end that can: backend = "wire"',
        )


def _place(link: Link, links: Mapping[str, LinkSection]) -> KeyPath:
    """Return the table that says most of *link*."""
    for key in links:
        if key in (link.name, f"{link.b}-{link.a}"):
            return ("links", key)
    return ("links", link.tier) if link.tier in links else ("experiment", "link_backend")
