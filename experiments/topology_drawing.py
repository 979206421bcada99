"""A picture of a topology: tiers coloured, delays on links. Nodes stand where they are in the world, or where springs put them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
import networkx as nx
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from topologies.errors import InputError
from topologies.model import Link, LinkProperties, Role, Tier, Topology

FORMATS: Final = ("png", "svg", "pdf")

#: Okabe and Ito's colours, which people with any colour vision tell apart.
ROLE_COLOURS: Final[dict[Role, str]] = {"core": "#0072B2", "csr": "#D55E00", "ue": "#009E73", "login": "#CC79A7"}
TIER_COLOURS: Final[dict[Tier, str]] = {"core": "#0072B2", "uplink": "#56B4E9", "access": "#7FCDB3", "login": "#CC79A7"}
_ROLE_WORDS: Final[dict[Role, str]] = {"core": "core router", "csr": "CSR", "ue": "UE", "login": "login server"}
_ROLE_SIZES: Final[dict[Role, float]] = {"core": 130, "csr": 190, "ue": 36, "login": 90}
_ROLE_MARKERS: Final[dict[Role, str]] = {"core": "o", "csr": "s", "ue": "o", "login": "D"}

#: Beyond these, names and delays would only cover each other.
UES_NAMED_MAX: Final = 60
UES_DRAWN_MAX: Final = 1_000
ROUTERS_NAMED_MAX: Final = 150
DELAYS_MAX: Final = 150
#: Springs cost the square of the nodes.
SPRING_ROUTERS_MAX: Final = 400
#: Of the box that routers are in, in units of the picture.
WIDTH: Final = 10.0
HEIGHT: Final = 7.0

Point = tuple[float, float]


def write_drawing(topology: Topology, path: Path) -> None:
    """Write a picture of *topology* to *path*, whose name says the format.

    Raises: InputError for another format, or where it cannot be written.
    """
    form = check_format(path)
    try:
        path.write_bytes(drawing(topology, form))
    except OSError as error:
        raise InputError(
            where=f"--out {path}", problem=f"it cannot be written: {error.strerror}", remedy="name another file"
        ) from error


def check_format(path: Path) -> str:
    """Return the format that the name of *path* asks for. Raises: InputError."""
    form = path.suffix.removeprefix(".").casefold()
    if form not in FORMATS:
        raise InputError(
            where=f"--out {path}",
            problem=f"`{path.suffix}` is no format for pictures" if path.suffix else "its name says no format",
            remedy=f"end it with {', '.join(f'.{known}' for known in FORMATS)}",
        )
    return form


def drawing(topology: Topology, form: str) -> bytes:
    """Return the picture as a file in the format *form*; the same topology gives the same bytes."""
    metadata: dict[str, str | None] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]  # type: ignore[assignment]
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "hconf", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = draw(topology)
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata, bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()


def draw(topology: Topology) -> Figure:
    """Return the picture as a matplotlib figure."""
    places = layout(topology)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.margins(0.08)
    _draw_links(axes, topology, places)
    _draw_nodes(axes, topology, places)
    _draw_delays(axes, topology, places)
    axes.legend(
        handles=_legend(topology),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
        labelspacing=0.9,
    )
    axes.set_title(
        f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links; one-way delays in ms",
        loc="left",
        fontsize=12,
    )
    return figure


def layout(topology: Topology) -> dict[str, Point]:
    """Return where to draw each node: routers first, then UEs and login servers around the router that they are at."""
    routers = [*topology.cores, *topology.csrs]
    places = _fitted(_geographic(topology, routers) or _by_springs(topology, routers))
    radius = WIDTH / max(9.0, math.sqrt(len(places)) * 3.2)
    attached: dict[str, list[str]] = {}
    for name in (*topology.ues, *topology.login_servers):
        attached.setdefault(topology.links_of(name)[0].other_end(name), []).append(name)
    for router, names in attached.items():
        neighbours = [
            places[other] for link in topology.links_of(router) if (other := link.other_end(router)) in places
        ]
        places |= _fan(places[router], names, towards=_widest_gap(places[router], neighbours), radius=radius)
    return places


def _geographic(topology: Topology, routers: Sequence[str]) -> dict[str, Point] | None:
    """Return longitude and latitude as on a map of that latitude; None unless every router has them, at different places."""
    positions = {name: topology.node(name).position for name in routers}
    known = {name: position for name, position in positions.items() if position is not None}
    if len(known) < len(routers) or len(set(known.values())) < len(routers):
        return None
    narrower = math.cos(math.radians(sum(latitude for _, latitude in known.values()) / len(known)))
    return {name: (longitude * max(0.2, narrower), latitude) for name, (longitude, latitude) in known.items()}


def _by_springs(topology: Topology, routers: Sequence[str]) -> dict[str, Point]:
    graph = nx.Graph()
    graph.add_nodes_from(routers)
    graph.add_edges_from((link.a, link.b) for link in topology.links if link.tier in ("core", "uplink"))
    start = nx.circular_layout(graph)
    if not 3 < len(routers) <= SPRING_ROUTERS_MAX:
        found = start
    else:
        found = nx.spring_layout(graph, pos=start, seed=1, iterations=200, k=1.6 / math.sqrt(len(routers)))
    return {name: (float(x), float(y)) for name, (x, y) in found.items()}


def _fitted(places: Mapping[str, Point]) -> dict[str, Point]:
    """Return *places* in a box of WIDTH x HEIGHT, stretched in one direction by half at most."""
    xs, ys = [x for x, _ in places.values()], [y for _, y in places.values()]
    across, up = max(xs) - min(xs), max(ys) - min(ys)
    by_x, by_y = (size / extent if extent > 0 else math.inf for size, extent in ((WIDTH, across), (HEIGHT, up)))
    if math.isinf(by_x) and math.isinf(by_y):
        return dict.fromkeys(places, (0.0, 0.0))
    by_x, by_y = min(by_x, 1.5 * by_y), min(by_y, 1.5 * by_x)
    return {
        name: ((x - min(xs)) * (by_x if across else 1.0), (y - min(ys)) * (by_y if up else 1.0))
        for name, (x, y) in places.items()
    }


def _widest_gap(centre: Point, neighbours: Sequence[Point]) -> tuple[float, float]:
    """Return the middle and the width of the widest gap between the directions of *neighbours*, as angles."""
    angles = sorted(math.atan2(y - centre[1], x - centre[0]) for x, y in neighbours)
    if not angles:
        return math.pi / 2, math.tau
    after = [*angles[1:], angles[0] + math.tau]
    gap, before = max((late - early, early) for early, late in zip(angles, after, strict=True))
    return before + gap / 2, gap


def _fan(centre: Point, names: Sequence[str], *, towards: tuple[float, float], radius: float) -> dict[str, Point]:
    """Return places on arcs around *centre* within a gap, further out the more there are."""
    middle, gap = towards
    width = min(gap * 0.8, math.radians(300))
    places: dict[str, Point] = {}
    ring, taken = 0, 0
    while taken < len(names):
        distance = radius * (1 + 0.5 * ring)
        room = max(3, int(width * distance / (radius * 0.42)))
        here = names[taken : taken + room]
        step = min(math.radians(32), width / max(1, len(here) - 1))
        for number, name in enumerate(here):
            angle = middle + (number - (len(here) - 1) / 2) * step
            places[name] = (centre[0] + distance * math.cos(angle), centre[1] + distance * math.sin(angle))
        ring, taken = ring + 1, taken + len(here)
    return places


def _draw_links(axes: Axes, topology: Topology, places: Mapping[str, Point]) -> None:
    is_crowded = len(topology.ues) > UES_DRAWN_MAX
    for tier, colour in TIER_COLOURS.items():
        for lossy in (False, True):
            lines = [
                (places[link.a], places[link.b])
                for link in topology.links
                if link.tier == tier and (_loss_ratio(link) > 0) == lossy and not (is_crowded and tier == "access")
            ]
            width = 1.8 if tier in ("core", "uplink") else 0.9
            axes.add_collection(
                LineCollection(
                    lines, colors=colour, linewidths=width, linestyles="dashed" if lossy else "solid", zorder=1
                )
            )


def _draw_nodes(axes: Axes, topology: Topology, places: Mapping[str, Point]) -> None:
    is_crowded = len(topology.ues) > UES_DRAWN_MAX
    scale = _scale(topology)
    for role, colour in ROLE_COLOURS.items():
        names = [name for name in topology.names_by_role(role) if not (role == "ue" and is_crowded)]
        if not names:
            continue
        xs, ys = zip(*(places[name] for name in names), strict=True)
        edges = ["#000000" if topology.node(name).is_proxy else "#ffffff" for name in names]
        axes.scatter(
            xs,
            ys,
            s=_ROLE_SIZES[role],
            c=colour,
            marker=_ROLE_MARKERS[role],
            edgecolors=edges,
            linewidths=1.0,
            zorder=3,
        )
        shown_max = UES_NAMED_MAX if role == "ue" else ROUTERS_NAMED_MAX
        for name in names if len(names) <= shown_max else ():
            small = role in ("ue", "login")
            axes.annotate(
                name,
                places[name],
                xytext=(0, 5 if small else 9),
                textcoords="offset points",
                ha="center",
                fontsize=6 if small else 8.5 * scale,
                fontweight="normal" if small else "bold",
                color="#333333",
                zorder=5,
                path_effects=[withStroke(linewidth=2.2, foreground="white")],
            )
    if is_crowded:
        for router in (*topology.csrs, *topology.cores):
            count = sum(link.tier == "access" and link.a == router for link in topology.links_of(router))
            if count:
                axes.annotate(
                    f"{count} UEs", places[router], xytext=(0, -16), textcoords="offset points", ha="center", fontsize=7
                )


def _draw_delays(axes: Axes, topology: Topology, places: Mapping[str, Point]) -> None:
    """Write the delay on each link between routers; of access links once for each router, where they are not all alike."""
    between = [link for link in topology.links if link.tier in ("core", "uplink")]
    shown = {link.name: link for link in between} if len(between) <= DELAYS_MAX else {}
    access = [link for link in topology.links if link.tier == "access"]
    if len({_spelt(link) for link in access}) > 1 and len(topology.ues) <= UES_DRAWN_MAX:
        alike: dict[tuple[str, str], Link] = {}
        for link in access:
            alike.setdefault((link.a, _spelt(link)), link)
        if len(alike) <= DELAYS_MAX:
            shown |= {link.name: link for link in alike.values()}
    for link in shown.values():
        (ax, ay), (bx, by) = places[link.a], places[link.b]
        axes.annotate(
            _spelt(link),
            ((ax + bx) / 2, (ay + by) / 2),
            ha="center",
            va="center",
            fontsize=7 * _scale(topology),
            color="#444444",
            zorder=2,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def _scale(topology: Topology) -> float:
    """Return how large letters and routers are, 1 for a small network."""
    return min(1.0, max(0.55, math.sqrt(30 / (len(topology.cores) + len(topology.csrs)))))


def _legend(topology: Topology) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=_ROLE_MARKERS[role],
            color=colour,
            markersize=math.sqrt(_ROLE_SIZES[role]) * 0.75,
            label=_counted(len(topology.names_by_role(role)), _ROLE_WORDS[role]),
        )
        for role, colour in ROLE_COLOURS.items()
        if topology.names_by_role(role)
    ]
    for tier, colour in TIER_COLOURS.items():
        links = [link for link in topology.links if link.tier == tier]
        if links:
            handles.append(Line2D([], [], color=colour, label=f"{tier} link: {_range(links)}"))
    if any(_loss_ratio(link) > 0 for link in topology.links):
        handles.append(Line2D([], [], color="#888888", linestyle="dashed", label="loses packets"))
    return handles


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _range(links: Sequence[Link]) -> str:
    """Return the least and the greatest delay of *links*."""
    delays_ms = sorted({properties.delay_ms for link in links for properties in _ways(link)})
    low, high = _milliseconds(delays_ms[0]), _milliseconds(delays_ms[-1])
    return f"{low} ms" if low == high else f"{low} to {high} ms"


def _spelt(link: Link) -> str:
    """Return a link's delay in milliseconds, both where its directions differ, and its loss."""
    delays = dict.fromkeys(_milliseconds(properties.delay_ms) for properties in _ways(link))
    loss = _loss_ratio(link)
    return "/".join(delays) + (f", {loss * 100:.2g} %" if loss else "")


def _ways(link: Link) -> tuple[LinkProperties, ...]:
    return (link.properties,) if link.back is None else (link.properties, link.back)


def _loss_ratio(link: Link) -> float:
    return max(properties.loss_ratio for properties in _ways(link))


def _milliseconds(delay_ms: float) -> str:
    """Return a delay with three digits at most.

    >>> _milliseconds(5.72512), _milliseconds(0.5), _milliseconds(136.0)
    ('5.73', '0.5', '136')
    """
    return f"{delay_ms:.3g}"
