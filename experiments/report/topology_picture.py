"""The network as a picture: routers where they are on the map, or laid out by springs, and user equipments around theirs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.report.canvas import new_figure
from experiments.report.figures import ROLE_COLOURS
from experiments.report.palette import INK, MUTED, PAPER, VERMILLION
from topologies.model import Topology

Place = tuple[float, float]

_SHAPES: Final = {"core": "o", "csr": "s", "ue": ".", "proxy-ue": "P", "login": "D"}
_SIZES: Final = {"core": 55, "csr": 80, "ue": 40, "proxy-ue": 55, "login": 50}
_WORDS: Final = {"core": "core router", "csr": "CSR", "ue": "UE", "proxy-ue": "proxy UE", "login": "login server"}
_LABELLED_ROUTERS_MAX: Final = 60
_LABELLED_UES_MAX: Final = 40
_SPRING_NODES_MAX: Final = 400
_FAN: Final = 0.085  #: distance of a UE from its router, as a share of the picture


def topology_figure(topology: Topology, *, struck: Collection[str] = ()) -> Figure:
    """Draw *topology*, links and nodes of *struck* marked: those that faults hit."""
    figure, (axes,) = new_figure(9.6, 5.0, margins=(0.01, 0.01, 0.99, 0.93))
    places = _places(topology)
    hit = {name.partition(".")[0] for name in struck}
    for link in topology.links:
        (x1, y1), (x2, y2) = places[link.a], places[link.b]
        marked = link.name in struck
        colour = VERMILLION if marked else MUTED
        width = 2.4 if marked else 1.4 if link.tier in ("core", "uplink") else 0.7
        axes.plot([x1, x2], [y1, y2], color=colour.light, linewidth=width, linestyle="--" if marked else "-", zorder=1)
    routers = [node.name for node in topology.nodes if node.role in ("core", "csr")]
    if len(routers) <= _LABELLED_ROUTERS_MAX:
        _label_delays(axes, topology, places)
    _draw_nodes(axes, topology, places, hit)
    labelled = set(routers if len(routers) <= _LABELLED_ROUTERS_MAX else ()) | hit
    if len(topology.ues) <= _LABELLED_UES_MAX:
        labelled |= {*topology.ues, *topology.login_servers}
    for name in sorted(labelled & places.keys()):
        is_router = topology.node(name).role in ("core", "csr")
        axes.annotate(
            name,
            places[name],
            xytext=(0, 7 if is_router else 5),
            textcoords="offset points",
            ha="center",
            fontsize=8 if is_router else 6.5,
            color=(VERMILLION if name in hit else INK).light,
            zorder=5,
            path_effects=[withStroke(linewidth=2.2, foreground=PAPER.light)],
        )
    axes.set_axis_off()
    axes.margins(0.06)
    axes.set_title(f"{topology.name}: one-way delays in ms" + ("; dashed or red: struck by a fault" if struck else ""))
    return figure


def _draw_nodes(axes: Axes, topology: Topology, places: Mapping[str, Place], hit: Collection[str]) -> None:
    shown = 0
    for role, shape in _SHAPES.items():
        names = [
            node.name
            for node in topology.nodes
            if ("proxy-ue" if node.is_proxy and node.role == "ue" else node.role) == role
        ]
        if not names:
            continue
        axes.scatter(
            [places[name][0] for name in names],
            [places[name][1] for name in names],
            s=_SIZES[role],
            marker=shape,
            color=ROLE_COLOURS[role].light,
            edgecolors=[(VERMILLION if name in hit else PAPER).light for name in names],
            linewidths=[2.0 if name in hit else 0.6 for name in names],
            zorder=3,
        )
        axes.scatter([0.985], [0.97 - 0.05 * shown], s=_SIZES[role], marker=shape, color=ROLE_COLOURS[role].light,
                     transform=axes.transAxes, clip_on=False)  # fmt: skip
        axes.text(0.972, 0.97 - 0.05 * shown, f"{_WORDS[role]} ({len(names)})", ha="right", va="center", fontsize=8,
                  transform=axes.transAxes)  # fmt: skip
        shown += 1


def _label_delays(axes: Axes, topology: Topology, places: Mapping[str, Place]) -> None:
    for link in topology.links:
        if link.tier not in ("core", "uplink"):
            continue
        (x1, y1), (x2, y2) = places[link.a], places[link.b]
        axes.text(
            (x1 + x2) / 2, (y1 + y2) / 2, f"{link.properties.delay_ms:.3g}", fontsize=6.5, color=INK.light, ha="center",
            va="center", zorder=2, bbox={"facecolor": PAPER.light, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _places(topology: Topology) -> dict[str, Place]:
    """Return where each node is drawn, in a unit square."""
    routers = [node for node in topology.nodes if node.role in ("core", "csr")]
    positions = {node.name: node.position for node in routers if node.position is not None}
    if len(positions) == len(routers) and len(set(positions.values())) > 1:
        placed = _scaled({name: (place[0], place[1]) for name, place in positions.items()})
    else:
        placed = _scaled(_sprung(topology, [node.name for node in routers]))
    return placed | _around(topology, placed)


def _sprung(topology: Topology, routers: list[str]) -> dict[str, Place]:
    graph = nx.Graph()
    graph.add_nodes_from(routers)
    known = set(routers)
    graph.add_edges_from((link.a, link.b) for link in topology.links if link.a in known and link.b in known)
    start = nx.circular_layout(graph)
    if len(routers) > _SPRING_NODES_MAX or len(routers) < 3:
        layout = start
    else:
        layout = nx.spring_layout(graph, pos=start, seed=1, iterations=60, k=1.6 / math.sqrt(len(routers)))
    return {name: (float(place[0]), float(place[1])) for name, place in layout.items()}


def _scaled(places: Mapping[str, Place]) -> dict[str, Place]:
    """Return *places* stretched to the unit square."""
    xs, ys = [x for x, _ in places.values()], [y for _, y in places.values()]
    width, height = max(max(xs) - min(xs), 1e-9), max(max(ys) - min(ys), 1e-9)
    return {
        name: ((x - min(xs)) / width, (y - min(ys)) / height if height > 1e-6 else 0.5)
        for name, (x, y) in places.items()
    }


def _around(topology: Topology, placed: Mapping[str, Place]) -> dict[str, Place]:
    """Return where the others are: fanned out from the router that they hang on, away from its other links."""
    hanging: dict[str, list[str]] = {}
    for node in topology.nodes:
        if node.name not in placed:
            router = next(link.other_end(node.name) for link in topology.links_of(node.name))
            hanging.setdefault(router, []).append(node.name)
    result: dict[str, Place] = {}
    for router, names in hanging.items():
        x, y = placed.get(router, (0.5, 0.5))
        away = _direction_away(topology, router, placed)
        width = min(math.tau * 0.9, 0.55 * max(0, len(names) - 1))
        for index, name in enumerate(names):
            angle = away + (width * (index / (len(names) - 1) - 0.5) if len(names) > 1 else 0.0)
            reach = _FAN * (1.0 if len(names) <= 12 else 1.0 + 0.5 * (index % 2))
            result[name] = (x + reach * math.cos(angle) * 0.7, y + reach * math.sin(angle) * 1.3)
    return result


def _direction_away(topology: Topology, router: str, placed: Mapping[str, Place]) -> float:
    """Return the middle of the widest gap between the links of a router, as an angle."""
    x, y = placed.get(router, (0.5, 0.5))
    angles = sorted(
        math.atan2(placed[other][1] - y, placed[other][0] - x)
        for link in topology.links_of(router)
        if (other := link.other_end(router)) in placed
    )
    if not angles:
        return math.pi / 2
    gaps = [(after - before, before) for before, after in zip(angles, [*angles[1:], angles[0] + math.tau], strict=True)]
    gap, before = max(gaps)
    return before + gap / 2
