"""What an experiment file must satisfy beyond the form of each key: rules between keys, and against the topology.

One rule a function; each returns what it checked with names resolved and defaults filled in, or raises InputError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.metrics import unknown_metric
from experiments.spec_faults import ENDLESS_BURST, duration_s, endless_burst, resolve_fault
from experiments.spec_places import KeyPath, Source
from experiments.spec_schema import (
    BlackHole,
    CaptureSection,
    ClocksSection,
    ConferenceSection,
    Expectation,
    ExperimentSection,
    Fault,
    Flap,
    Freeze,
    Impair,
    Isolate,
    LinkDown,
    LinkSection,
    LinkUp,
    OneWaySection,
    Partition,
    ProcessFault,
    Restart,
    Starve,
    Thaw,
    fault_ids,
    kind_of,
)
from testbed.faults.targets import processes_of
from testbed.links.netem.match import Match
from topologies.errors import InputError, nearest, pick_one_of
from topologies.model import TIERS, Link, LinkProperties, Topology

#: Two moments closer than this are the same: a sum of decimal fractions is not exact.
_SAME_MOMENT_S: Final = 1e-9


def with_links(topology: Topology, links: Mapping[str, LinkSection], source: Source) -> Topology:
    """Return *topology* with ``[links.<tier>]``, then ``[links."<a>-<b>"]`` applied; in each, ``from`` after what is for both ways."""
    by_tier: dict[str, LinkSection] = {}
    by_name: dict[str, tuple[str, LinkSection]] = {}
    for key, section in links.items():
        _check_queues(section, ("links", key), source)
        if key in TIERS:
            _check_tier(key, section, topology, source)
            by_tier[key] = section
            continue
        link = _link(topology, key, ("links", key), source, also=TIERS)
        if link.name in by_name:
            raise source.error(
                ("links", key), problem=f"the link {link.name} has two tables", remedy="merge them into one"
            )
        for sender in section.from_:
            if sender not in (link.a, link.b):
                raise source.error(
                    ("links", key, "from", sender),
                    problem=f"`{sender}` is no end of {link.name}",
                    remedy=f"use {link.a} or {link.b}",
                )
        by_name[link.name] = (key, section)
    changed: dict[str, LinkProperties] = {}
    back: dict[str, LinkProperties] = {}
    for link in topology.links:
        tier, (key, named) = by_tier.get(link.tier), by_name.get(link.name, ("", None))
        if tier is None and named is None:
            continue
        for sender, properties in ((link.a, changed), (link.b, back)):
            given = _merged(
                tier,
                tier and tier.from_.get(topology.node(sender).role),
                named,
                named and named.from_.get(sender),
            )
            properties[link.name] = dataclasses.replace(link.properties_from(sender), **given)
            _check_bursts(properties[link.name], ("links", key if named is not None else link.tier), source)
    return topology.with_properties(changed, back)


def _check_tier(tier: str, section: LinkSection, topology: Topology, source: Source) -> None:
    """The network has links of that tier, and one end of each has a role that a ``from`` names."""
    links = [link for link in topology.links if link.tier == tier]
    if not links:
        present = [known for known in TIERS if any(link.tier == known for link in topology.links)]
        raise source.error(
            ("links", tier),
            problem=f"{topology.name} has no links of the tier {tier}",
            remedy=f"its tiers are {', '.join(present)}",
        )
    roles = {link.name: {topology.node(end).role for end in (link.a, link.b)} for link in links}
    known_roles = sorted({role for pair in roles.values() for role in pair})
    for sender in section.from_:
        path: KeyPath = ("links", tier, "from", sender)
        if sender not in known_roles:
            raise source.error(
                path,
                problem=f"no link of the tier {tier} has an end of the role `{sender}`",
                remedy=f"use {' or '.join(known_roles)}; a node's name in the table of a link: "
                f'[links."{links[0].name}".from.{links[0].a}]',
            )
        both = next((name for name, pair in roles.items() if pair == {sender}), None)
        if both is not None:
            raise source.error(
                path,
                problem=f"both ends of {both} are of the role {sender}: that is no direction",
                remedy=f'name an end in the table of each such link: [links."{both}".from.{both.partition("-")[0]}]',
            )


def _check_queues(section: LinkSection, path: KeyPath, source: Source) -> None:
    """A queue is bounded one way."""
    for one, place in ((section, path), *((each, (*path, "from", name)) for name, each in section.from_.items())):
        if one.queue_packets is not None and one.queue_bytes is not None:
            raise source.error(
                (*place, "queue_bytes"),
                problem="the queue is bounded by packets and by bytes",
                remedy="give queue_packets or queue_bytes, not both",
            )


def _check_bursts(properties: LinkProperties, path: KeyPath, source: Source) -> None:
    """A bad state that is entered is left again."""
    if endless_burst(properties):
        problem, remedy = ENDLESS_BURST
        raise source.error((*path, "good_to_bad_ratio"), problem=problem, remedy=remedy)


def _merged(*sections: OneWaySection | None) -> dict[str, Any]:
    """Return what is given, a later section before an earlier one; of the two bounds of a queue the one given last."""
    merged: dict[str, Any] = {}
    for section in sections:
        given = _given(section)
        if "queue_packets" in given:
            merged["queue_bytes"] = None
        merged |= given
    return merged


def check_conferences(section: ConferenceSection, topology: Topology, source: Source) -> dict[str, str]:
    """Return UE -> its conference, of every UE. Raises: InputError."""
    if section.return_hold_down_max_s < section.return_hold_down_s:
        raise source.error(
            ("conference", "return_hold_down_max_s"),
            problem=f"return_hold_down_max_s = {section.return_hold_down_max_s:g} is less than return_hold_down_s "
            f"({section.return_hold_down_s:g} s)",
            remedy=f"use at least {section.return_hold_down_s:g}",
        )
    conference_of: dict[str, str] = {}
    for name, ues in section.others.items():
        path: KeyPath = ("conference", "others", name)
        if name == section.name:
            raise source.error(
                path,
                problem=f"`{name}` is the conference of all who are in none of the others",
                remedy="give it another name, or leave it out",
            )
        for position, ue in enumerate(ues):
            place: KeyPath = (*path, position)
            if ue not in topology.ues:
                raise source.error(place, problem=f"there is no UE `{ue}`", remedy=_pick_ue(ue, topology))
            if ue in conference_of:
                raise source.error(
                    place, problem=f"`{ue}` is in `{conference_of[ue]}` too", remedy="put it into one of them"
                )
            conference_of[ue] = name
    return {ue: conference_of.get(ue, section.name) for ue in topology.ues}


def check_faults(
    faults: Sequence[Fault], topology: Topology, settings: ExperimentSection, source: Source
) -> tuple[Fault, ...]:
    """Return the faults with the topology's own names; they fit into the run and do not contradict each other."""
    checked: list[Fault] = []
    folder = Path(source.file).parent
    for index, asked in enumerate(faults):
        path: KeyPath = ("fault", index)

        def refuse(key: str | None, problem: str, remedy: str, path: KeyPath = path) -> InputError:
            return source.error(path if key is None else (*path, key), problem=problem, remedy=remedy)

        fault = resolve_fault(asked, topology, folder=folder, refuse=refuse)
        if fault.at_s >= settings.duration_s:
            raise source.error(
                (*path, "at_s"),
                problem=f"at_s = {fault.at_s:g} is not before the end of the run ({settings.duration_s:g} s)",
                remedy=f"use less than {settings.duration_s:g}, or a longer duration_s in [experiment]",
            )
        if fault.at_s + (duration_s(fault) or 0.0) > settings.duration_s + _SAME_MOMENT_S:
            by_time = getattr(fault, "for_s", None) is not None
            remedy = f"use at most {settings.duration_s - fault.at_s:g}"
            if not isinstance(fault, Flap):
                remedy += ", or leave for_s out: it then lasts to the end"
            raise source.error(
                (*path, "for_s") if by_time else (*path, "count" if isinstance(fault, Flap) else "times"),
                problem=f"the fault would end at {_end_s(fault):g} s, after the end of the run "
                f"({settings.duration_s:g} s)",
                remedy=remedy if by_time else "let it begin earlier, or be shorter",
            )
        checked.append(fault)
    _check_carrier_faults(checked, source)
    _check_process_faults(checked, topology, source)
    _check_impairments(checked, source)
    _check_repetitions(checked, source)
    return tuple(checked)


def check_expectations(
    expectations: Sequence[Expectation], faults: Sequence[Fault], source: Source
) -> tuple[Expectation, ...]:
    """Check that each metric is one of a run with these *faults*, and its bounds."""
    ids = fault_ids(faults)
    for index, expectation in enumerate(expectations):
        path: KeyPath = ("expect", index)
        remedy = unknown_metric(expectation.metric, fault_ids=ids)
        if remedy is not None:
            raise source.error((*path, "metric"), problem=f"there is no metric `{expectation.metric}`", remedy=remedy)
        low, high, exact = expectation.at_least, expectation.at_most, expectation.equals
        if low is None and high is None and exact is None:
            raise source.error(
                path, problem="it has no bound", remedy="add at_most, at_least or equals, in the metric's unit"
            )
        if exact is not None and (low is not None or high is not None):
            raise source.error(
                (*path, "equals"), problem="equals leaves at_most and at_least no meaning", remedy="leave them out"
            )
        if low is not None and high is not None and low > high:
            raise source.error(
                (*path, "at_least"),
                problem=f"at_least = {low:g} is above at_most = {high:g}",
                remedy="exchange them, or leave one out",
            )
    return tuple(expectations)


def check_captures(capture: CaptureSection, topology: Topology, source: Source) -> tuple[str, ...]:
    """Return the topology's own names of the links to capture."""
    names: list[str] = []
    for index, wanted in enumerate(capture.links):
        path: KeyPath = ("capture", "links", index)
        name = _link(topology, wanted, path, source).name
        if name in names:
            raise source.error(path, problem=f"the link {name} is named twice", remedy="name it once")
        names.append(name)
    return tuple(names)


def check_clocks(clocks: ClocksSection, topology: Topology, source: Source) -> None:
    """Check that the nodes exist."""
    names = [node.name for node in topology.nodes]
    for name in clocks.skew_ppm:
        if name not in names:
            raise source.error(
                ("clocks", "skew_ppm", name),
                problem=f"{topology.name} has no node `{name}`",
                remedy=pick_one_of(name, names),
            )


def _check_carrier_faults(faults: Sequence[Fault], source: Source) -> None:
    """A link goes down only while it is up, and up only while it is down."""
    down: dict[str, tuple[int, LinkDown]] = {}  # link -> the last link-down
    for index, fault in _by_time(faults):
        path: KeyPath = ("fault", index)
        earlier = down.get(fault.target)
        still_down = earlier is not None and fault.at_s < _end_s(earlier[1]) - _SAME_MOMENT_S
        match fault:
            case LinkDown() if earlier and still_down:
                raise source.error(
                    path,
                    problem=f"{fault.target} is already down at {fault.at_s:g} s, since [[fault]] {earlier[0] + 1} "
                    f"({_span(earlier[1])})",
                    remedy="move one of them, or leave one out",
                )
            case LinkDown():
                down[fault.target] = (index, fault)
            case LinkUp() if earlier and still_down and earlier[1].for_s is not None:
                raise source.error(
                    path,
                    problem=f"[[fault]] {earlier[0] + 1} already brings {fault.target} up, at {_end_s(earlier[1]):g} s",
                    remedy="leave out this link-up, or the other's for_s",
                )
            case LinkUp() if not still_down:
                raise source.error(
                    path,
                    problem=f"{fault.target} is not down at {fault.at_s:g} s",
                    remedy="put a link-down without for_s before it, or leave it out",
                )
            case LinkUp():
                del down[fault.target]


def _check_process_faults(faults: Sequence[Fault], topology: Topology, source: Source) -> None:
    """A process is struck only while it runs; what goes on again has been stopped."""
    struck: dict[str, tuple[int, ProcessFault]] = {}  # process -> the last fault that keeps it from running
    for index, fault in _by_time(faults):
        if not isinstance(fault, ProcessFault) or isinstance(fault, Starve):
            continue
        processes = processes_of(topology, fault.target)
        stopped = {
            process: struck[process]
            for process in processes
            if process in struck and fault.at_s < _end_s(struck[process][1]) - _SAME_MOMENT_S
        }
        if isinstance(fault, Restart | Thaw):
            _check_going_on(fault, index, stopped, topology, source)
            for process in stopped:
                del struck[process]
            continue
        for process, (number, earlier) in stopped.items():
            raise source.error(
                ("fault", index),
                problem=f"{process} does not run at {fault.at_s:g} s, because of [[fault]] {number + 1} "
                f"({_span(earlier)})",
                remedy="move one of them, or let the earlier end first with for_s",
            )
        struck |= dict.fromkeys(processes, (index, fault))


def _check_going_on(
    fault: Restart | Thaw,
    index: int,
    stopped: Mapping[str, tuple[int, ProcessFault]],
    topology: Topology,
    source: Source,
) -> None:
    """A ``thaw`` or ``restart`` ends what has no end of its own, and all of it."""
    for number, earlier in stopped.values():
        if isinstance(fault, Thaw) and not isinstance(earlier, Freeze):
            raise source.error(
                ("fault", index),
                problem=f"{fault.target} is not frozen at {fault.at_s:g} s, but dead because of [[fault]] {number + 1}",
                remedy="use a restart",
            )
        if duration_s(earlier) is not None:
            raise source.error(
                ("fault", index),
                problem=f"[[fault]] {number + 1} already lets {fault.target} go on, at {_end_s(earlier):g} s",
                remedy=f"leave out this {kind_of(fault)}, or the other's for_s",
            )
        if not set(processes_of(topology, earlier.target)) <= set(processes_of(topology, fault.target)):
            raise source.error(
                ("fault", index, "target"),
                problem=f"[[fault]] {number + 1} has struck all of {earlier.target}",
                remedy=f"use target = {earlier.target}",
            )
    if isinstance(fault, Thaw) and not stopped:
        raise source.error(
            ("fault", index),
            problem=f"{fault.target} is not frozen at {fault.at_s:g} s",
            remedy="put a freeze without for_s before it, or leave it out",
        )


def _check_repetitions(faults: Sequence[Fault], source: Source) -> None:
    """Nothing is broken twice in the same way at the same time; faults of different kinds add up."""
    active: dict[tuple[str, str], list[tuple[int, Fault]]] = {}
    for index, fault in _by_time(faults):
        if not isinstance(fault, Flap | BlackHole | Partition | Isolate | Starve):
            continue
        before = active.setdefault((kind_of(fault), fault.target), [])
        for number, earlier in before:
            senders = {getattr(fault, "sender", None), getattr(earlier, "sender", None)}
            same_way = None in senders or len(senders) == 1
            if same_way and fault.at_s < _end_s(earlier) - _SAME_MOMENT_S:
                raise source.error(
                    ("fault", index),
                    problem=f"[[fault]] {number + 1} does the same to {fault.target} then ({_span(earlier)})",
                    remedy="move one of them, or leave one out",
                )
        before.append((index, fault))


def _check_impairments(faults: Sequence[Fault], source: Source) -> None:
    """At no time do two impairments of a link set the same property of the same frames of the same direction."""
    #: link, what is matched, property -> the impairments so far
    active: dict[tuple[str, Match | None, str], list[tuple[int, Impair]]] = {}
    for index, fault in _by_time(faults):
        if not isinstance(fault, Impair):
            continue
        match = None if fault.match is None else Match.parse(fault.match, where="match")
        for name in fault.changes():
            before = active.setdefault((fault.target, match, name), [])
            for number, earlier in before:
                same_way = fault.sender is None or earlier.sender in (None, fault.sender)
                if same_way and fault.at_s < _end_s(earlier) - _SAME_MOMENT_S:
                    raise source.error(
                        ("fault", index, name),
                        problem=f"[[fault]] {number + 1} also sets {name} of {fault.target} then ({_span(earlier)})",
                        remedy="move one of them, or let the earlier end first with for_s",
                    )
            before.append((index, fault))


def _by_time(faults: Sequence[Fault]) -> list[tuple[int, Fault]]:
    """Return (position in the file, fault), the earliest first, equal times in the order of the file."""
    return sorted(enumerate(faults), key=lambda entry: entry[1].at_s)


def _end_s(fault: Fault) -> float:
    lasts_s = duration_s(fault)
    return float("inf") if lasts_s is None else fault.at_s + lasts_s


def _span(fault: Fault) -> str:
    end_s = _end_s(fault)
    return f"{kind_of(fault)} from {fault.at_s:g} s " + ("on" if end_s == float("inf") else f"to {end_s:g} s")


def _link(topology: Topology, name: str, path: KeyPath, source: Source, *, also: Sequence[str] = ()) -> Link:
    try:
        return topology.link(name)
    except InputError as error:
        remedy = pick_one_of(name, also) if nearest(name, also) else error.remedy
        raise source.error(path, problem=f"{topology.name} has no link `{name}`", remedy=remedy) from None


def _pick_ue(name: str, topology: Topology) -> str:
    ues = topology.ues
    if name in {node.name for node in topology.nodes}:
        return f"`{name}` is a {topology.node(name).role}; UEs are {ues[0]} to {ues[-1]}"
    return f"the UEs are {ues[0]} to {ues[-1]}"


def _given(section: OneWaySection | None) -> dict[str, Any]:
    if section is None:
        return {}
    names = OneWaySection.__struct_fields__
    return {name: value for name in names if (value := getattr(section, name)) is not None}
