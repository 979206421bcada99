"""Networks from Python files with a Mininet ``Topo`` class, as ``mn --custom`` takes them.

The file is run, as Mininet runs it, and imports mininet itself. Its ``topos`` names what it has, each name a
function or class that makes a ``Topo``; without ``topos``, its classes derived from ``Topo`` are found by their names. What is read of
a Topo is what Mininet's ``Topo`` offers: nodes, what was said of each, links and what was said of them (bw in Mbit/s, delay and jitter as
tc takes them, loss in per cent, max_queue_size).

Mininet's switches join frames and Mininet's hosts send them. Here routers forward NDN packets, so every switch becomes a router, and
where there are switches every host becomes a UE; a switch with hosts is a CSR. ``addHost("r1", role="csr")`` says it otherwise.
Where there are hosts only, as with Mini-NDN, all are routers.
"""

# Mininet is loaded by the user's file alone: what is asked of a Topo are methods, so that topologies stay data.

from __future__ import annotations

import inspect
import math
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import field

from topologies.errors import InputError, pick_one_of
from topologies.file_graph import (
    FileGraph,
    FileLink,
    FileNode,
    FileParameters,
    link_properties,
    read_bytes,
    role_of,
    topology_of_graph,
)
from topologies.model import Topology
from topologies.units import duration_ms

SUFFIX: Final = ".py"

_KIND: Final = "Python file with a Mininet Topo"


class CustomParameters(FileParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` with ``name = "<file>.py"``, as seen from the experiment file's folder; run with the rights of who runs hconf."""

    topo: str | None = None  #: name in the file's `topos`, or of a class; None: the only one
    arguments: dict[str, Any] = field(default_factory=dict)  #: keyword arguments that make it


def build_custom(name: str, path: Path, parameters: CustomParameters) -> Topology:
    """Return the network of a Topo class in the Python file at *path*. Raises: InputError."""
    read_bytes(path, kind=_KIND)
    namespace = _guarded(path, lambda: _run(path))
    make, called = _chosen(path, namespace, parameters.topo)
    topo = _guarded(path, lambda: make(**parameters.arguments))
    where = f"{path}: {called}"
    if not all(callable(getattr(topo, method, None)) for method in ("nodes", "links", "isSwitch", "nodeInfo")):
        raise InputError(where=where, problem="it makes no Mininet Topo", remedy="derive it from mininet.topo.Topo")
    graph = _guarded(path, lambda: _graph(topo, where, parameters.role_key))
    return topology_of_graph(name, graph, parameters)


def _run(path: Path) -> dict[str, Any]:
    """Run the file; what stands beside it can be imported."""
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return runpy.run_path(str(path), run_name="topology")
    finally:
        sys.path.pop(0)


def _guarded(path: Path, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the file makes
    """Return what *call* returns. Raises: InputError for whatever the user's code raises, with its line."""
    try:
        return call()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename) == path:
                line = frame.lineno
        said = str(error).splitlines()[0] if str(error) else "no reason given"
        remedy = "correct it"
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] == "mininet":
            remedy = "install mininet, or run it with ./hconf"
        raise InputError(
            where=str(path) if line is None else f"{path}:{line}",
            problem=f"{type(error).__name__}: {said}",
            remedy=remedy,
        ) from error


def _chosen(path: Path, namespace: Mapping[str, Any], wanted: str | None) -> tuple[Callable[..., Any], str]:
    """Return what makes the Topo, and its name. Raises: InputError."""
    known: dict[str, Any] = {}
    topos = namespace.get("topos")
    if isinstance(topos, Mapping):
        known = {str(name): make for name, make in topos.items() if callable(make)}
    if not known:
        known = {
            name: value
            for name, value in namespace.items()
            if inspect.isclass(value) and value.__module__ == "topology" and _is_topo(value)
        }
    if not known:
        raise InputError(
            where=str(path),
            problem="it has no `topos`, and no class derived from Topo",
            remedy='end it with topos = {"mine": MyTopo}',
        )
    if wanted is None and len(known) > 1:
        raise InputError(
            where=str(path),
            problem=f"it has {len(known)} topologies",
            remedy=f'choose one: topo = "{next(iter(known))}"; there are {", ".join(known)}',
        )
    chosen = next(iter(known)) if wanted is None else wanted
    if chosen not in known:
        raise InputError(where=str(path), problem=f"it has no topology `{chosen}`", remedy=pick_one_of(chosen, known))
    return known[chosen], chosen


def _is_topo(value: type) -> bool:
    return any(base.__name__ == "Topo" and base.__module__ == "mininet.topo" for base in value.__mro__[1:])


def _graph(topo: Any, where: str, role_key: str) -> FileGraph:  # noqa: ANN401 - mininet ships no annotations
    names = list(topo.nodes(sort=False))
    has_switches = any(topo.isSwitch(name) for name in names)
    nodes: list[FileNode] = []
    for name in names:
        said = dict(topo.nodeInfo(name))
        nested = said.get("params")  # where Mini-NDN has them
        word = said.get(role_key) or (nested.get(role_key) if isinstance(nested, Mapping) else None)
        place = f"{where}: {name}"
        if word is not None:
            role: str | None = role_of(str(word), where=place, key=role_key)
        else:
            role = None if topo.isSwitch(name) or not has_switches else "ue"
        nodes.append(FileNode(name, str(name), place, role))
    links = [_link(a, b, dict(info), f"{where}: {a}-{b}") for a, b, info in topo.links(sort=False, withInfo=True)]
    return FileGraph(nodes, links)


def _link(a: str, b: str, said: Mapping[str, Any], where: str) -> FileLink:
    loss = _number(said, "loss", where)
    if loss is not None and loss > 100:
        raise InputError(
            where=where, problem=f"loss = {loss:g} is above 100", remedy="it is in per cent, as in Mininet"
        )
    return FileLink(
        a,
        b,
        link_properties(
            where,
            delay_ms=_time_ms(said, "delay", where),
            jitter_ms=_time_ms(said, "jitter", where),
            loss_ratio=None if loss is None else loss / 100,
            rate_mbps=_number(said, "bw", where),
            queue_packets=_number(said, "max_queue_size", where),
        ),
        where,
    )


def _number(said: Mapping[str, Any], key: str, where: str) -> float | None:
    value = said.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(where=where, problem=f"{key} = {value!r} is no number of 0 or more", remedy=f"write {key}=10")
    return float(value)


def _time_ms(said: Mapping[str, Any], key: str, where: str) -> float | None:
    value = said.get(key)
    return None if value is None else duration_ms(str(value), bare="us", where=where, key=key)
