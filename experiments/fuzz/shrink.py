"""Makes a schedule that breaks an invariant smaller, for as long as it still breaks it: delta debugging."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final

from experiments.fuzz.case import Case, topology_of
from experiments.fuzz.trial import try_case
from topologies.errors import InputError

#: Lists of a case of which each entry may be left out.
_LISTS: Final = ("fault", "attendance", "workload")
#: Parameters of a topology that may be lowered, with what they are where they are not given, and at least.
_SIZES: Final = (("ue_links", 1, 1), ("ues_per_csr", 3, 1), ("csrs", 4, 1), ("cores", 4, 3))


def shrink(case: Case, breaks: Callable[[Case], bool], *, may_go_on: Callable[[], bool]) -> Case:
    """Return a smaller case for which *breaks* holds, as it does for *case*.

    Args:
        case: is not changed.
        breaks: whether a case still shows what is looked for; an invalid one does not.
        may_go_on: whether there is time left to look further.
    """
    smaller = True
    while smaller and may_go_on():
        smaller = False
        for name in _LISTS:
            found = _fewer(case, name, breaks, may_go_on)
            smaller |= len(found.get(name, ())) < len(case.get(name, ()))
            case = found
        for candidate in _simpler(case):
            if not may_go_on():
                break
            if breaks(candidate):
                case, smaller = candidate, True
                break  # the others were made from what this one replaces
    return case


def still_breaks(kinds: frozenset[str]) -> Callable[[Case], bool]:
    """Return whether a case breaks one of the same invariants."""

    def breaks(case: Case) -> bool:
        try:
            return bool(try_case(case).kinds & kinds)
        except InputError:
            return False

    return breaks


def _fewer(case: Case, name: str, breaks: Callable[[Case], bool], may_go_on: Callable[[], bool]) -> Case:
    """Leave out as many entries of one list as possible. Source: ddmin, Zeller and Hildebrandt 2002, complements only."""
    parts = 2
    while (entries := case.get(name, [])) and may_go_on():
        size = max(1, len(entries) // parts)
        for start in range(0, len(entries), size):
            candidate = {**case, name: entries[:start] + entries[start + size :]}
            if may_go_on() and breaks(candidate):
                case, parts = candidate, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(entries), 2 * parts)
    return case


def _simpler(case: Case) -> Iterator[Case]:
    """Yield cases that are simpler in one respect, the greatest steps first."""
    yield from (_without(case, name) for name in ("clocks", "links") if case.get(name))
    table = case["topology"]
    for key, default, least in _SIZES:
        if table["name"] == "tiers" or key in ("ues_per_csr", "ue_links"):
            size = table.get(key, default)
            for smaller in sorted({least, size // 2, size - 1}):
                if least <= smaller < size:
                    yield _restricted({**case, "topology": {**table, key: smaller}})
    edge = ("edge_networks", "edge_nodes", "ues_per_edge_network", "proxy_ues")
    if any(key in table for key in edge):
        yield _restricted({**case, "topology": {key: item for key, item in table.items() if key not in edge}})
    if "proxy_ues" in table:  # the first of each network; their numbers change with the sizes below
        yield _restricted({**case, "topology": {key: item for key, item in table.items() if key != "proxy_ues"}})
    cities = table.get("csr_nodes", [])
    for city in cities if len(cities) > 1 else ():
        yield _restricted({**case, "topology": {**table, "csr_nodes": [each for each in cities if each != city]}})
    for key in case["conference"]:
        yield {**case, "conference": {name: item for name, item in case["conference"].items() if name != key}}
    for index, workload in enumerate(case.get("workload", [])):
        publishers = workload.get("publishers", [])
        for one in publishers if len(publishers) > 1 else ():
            yield _replaced(case, "workload", index, publishers=[each for each in publishers if each != one])
        if workload.get("rate_per_s", 0.0) > 1.0:
            yield _replaced(case, "workload", index, rate_per_s=round(workload["rate_per_s"] / 2, 1))
    yield from _simpler_faults(case)


def _simpler_faults(case: Case) -> Iterator[Case]:
    for index, fault in enumerate(case.get("fault", [])):
        for digits in (0, 1):
            rounded = {key: round(fault[key], digits) for key in ("at_s", "for_s") if key in fault}
            if rounded.get("for_s", 1.0) > 0 and any(fault[key] != item for key, item in rounded.items()):
                yield _replaced(case, "fault", index, **rounded)
    last_s = max((fault["at_s"] + fault.get("for_s", 0.0) for fault in case.get("fault", [])), default=0.0)
    shorter_s = round(max(last_s + 0.3, case["experiment"]["duration_s"] / 2), 2)
    if shorter_s < case["experiment"]["duration_s"]:
        yield {**case, "experiment": {**case["experiment"], "duration_s": shorter_s}}


def _without(case: Case, name: str) -> Case:
    return {key: item for key, item in case.items() if key != name}


def _replaced(case: Case, name: str, index: int, **changes: Any) -> Case:  # noqa: ANN401
    entries = list(case[name])
    entries[index] = {**entries[index], **changes}
    return {**case, name: entries}


def _restricted(case: Case) -> Case:
    """Return the case without what names nodes and links that its topology no longer has."""
    case = copy.deepcopy(case)
    try:
        topology = topology_of(case)
    except InputError:
        return case  # which is then found to be invalid
    nodes, links = {node.name for node in topology.nodes}, {link.name for link in topology.links}
    known = links | nodes | {"*"}
    case["fault"] = [
        fault
        for fault in case.get("fault", [])
        if known.issuperset(part.partition(".")[0] for part in fault["target"].replace("/", ",").split(","))
    ]
    case["attendance"] = [entry for entry in case.get("attendance", []) if set(entry["devices"]) <= nodes]
    for workload in case.get("workload", []):
        if "publishers" in workload:
            workload["publishers"] = [ue for ue in workload["publishers"] if ue in nodes]
    case["workload"] = [each for each in case.get("workload", []) if each.get("publishers", True)]
    if "clocks" in case:
        skew_ppm = case["clocks"]["skew_ppm"]
        case["clocks"] = {"skew_ppm": {name: item for name, item in skew_ppm.items() if name in nodes}}
    return case
