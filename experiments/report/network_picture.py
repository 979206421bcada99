"""The network as a picture: tiers and roles by colour, delays on links, and what faults struck."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from experiments.report.network_layout import Point, layout
from experiments.report.palette import GREEN, INK, MUTED, ORANGE, PAPER, ROLE_COLOURS, SKY, VERMILLION, Colour
from topologies.model import Link, LinkProperties, Tier, Topology

TIER_COLOURS: Final[Mapping[Tier, Colour]] = {"core": MUTED, "uplink": SKY, "access": GREEN, "login": ORANGE}
_ROLE_WORDS: Final = {
    "core": "core router", "csr": "CSR", "ue": "UE", "proxy-ue": "proxy UE", "login": "login server",
}  # fmt: skip
_ROLE_SIZES: Final = {"core": 110.0, "csr": 150.0, "ue": 36.0, "proxy-ue": 80.0, "login": 80.0}
_ROLE_MARKERS: Final = {"core": "o", "csr": "s", "ue": "o", "proxy-ue": "P", "login": "D"}

#: Beyond these, names and delays would only cover each other.
UES_NAMED_MAX: Final = 60
UES_DRAWN_MAX: Final = 1_000
ROUTERS_NAMED_MAX: Final = 150
DELAYS_MAX: Final = 150

#: Where on a link its delay may stand, the best place first.
_DELAY_SPOTS: Final = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
#: Half of what a router takes, in the pixels of a figure that is not drawn yet.
_ROUTER_PX: Final = 8.0


def network_figure(topology: Topology, *, struck: Collection[str] = ()) -> Figure:
    """Draw *topology*; the links and nodes named in *struck* are marked as hit by faults."""
    places = layout(topology)
    figure = Figure(
        figsize=(9.6, 5.6), layout=ConstrainedLayoutEngine(rect=(0, 0, 0.96, 1))
    )  # a page's letters may be wider
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.margins(0.08)
    _draw_links(axes, topology, places, struck)
    _draw_nodes(axes, topology, places, struck)
    axes.legend(
        handles=_legend(topology, struck),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
        labelspacing=0.9,
    )
    axes.set_title(
        f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links; one-way delays in ms", loc="left"
    )
    figure.draw_without_rendering()  # now it is known where everything comes to be
    _draw_delays(axes, topology, places)
    return figure


def _names_by_role(topology: Topology, role: str) -> list[str]:
    return [
        node.name
        for node in topology.nodes
        if ("proxy-ue" if node.is_proxy and node.role == "ue" else node.role) == role
    ]


def _draw_links(axes: Axes, topology: Topology, places: Mapping[str, Point], struck: Collection[str]) -> None:
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
                    lines, colors=colour.light, linewidths=width, linestyles="dashed" if lossy else "solid", zorder=1
                )
            )

    hit = [(places[link.a], places[link.b]) for link in topology.links if link.name in struck]
    axes.add_collection(LineCollection(hit, colors=VERMILLION.light, linewidths=3.0, zorder=1.5))


def _draw_nodes(axes: Axes, topology: Topology, places: Mapping[str, Point], struck: Collection[str]) -> None:
    is_crowded = len(topology.ues) > UES_DRAWN_MAX
    scale = _scale(topology)
    for role, colour in ROLE_COLOURS.items():
        names = [] if role == "ue" and is_crowded else _names_by_role(topology, role)
        if not names:
            continue
        xs, ys = zip(*(places[name] for name in names), strict=True)
        edges = [(VERMILLION if name in struck else PAPER).light for name in names]
        axes.scatter(
            xs,
            ys,
            s=_ROLE_SIZES[role],
            color=colour.light,
            marker=_ROLE_MARKERS[role],
            edgecolors=edges,
            linewidths=[2.2 if name in struck else 0.8 for name in names],
            zorder=3,
        )
        shown_max = UES_NAMED_MAX if role in ("ue", "proxy-ue") else ROUTERS_NAMED_MAX
        for name in names if len(names) <= shown_max else ():
            small = role in ("ue", "proxy-ue", "login")
            axes.annotate(
                name,
                places[name],
                xytext=(0, 5 if small else 9),
                textcoords="offset points",
                ha="center",
                fontsize=6 if small else 8.5 * scale,
                fontweight="normal" if small else "bold",
                color=(VERMILLION if name in struck else INK).light,
                zorder=5,
                path_effects=[withStroke(linewidth=2.2, foreground=PAPER.light)],
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
    routers = [axes.transData.transform(places[name]) for name in (*topology.cores, *topology.csrs)]
    taken = [text.get_window_extent() for text in axes.texts]
    taken += [Bbox.from_extents(x - _ROUTER_PX, y - _ROUTER_PX, x + _ROUTER_PX, y + _ROUTER_PX) for x, y in routers]
    for link in shown.values():
        delay = axes.annotate(
            _spelt(link),
            places[link.a],
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7 * _scale(topology),
            color=INK.light,
            zorder=2,
            bbox={"facecolor": PAPER.light, "edgecolor": "none", "pad": 0.8},
        )
        extent = delay.get_window_extent()
        away = (extent.width + extent.height) / 2 * 72 / axes.figure.get_dpi()
        best, fewest = None, math.inf
        for spot in _delay_spots(places[link.a], places[link.b], away=away):
            delay.xy, (across, up) = spot
            delay.set_position((across, up))
            hidden = delay.get_window_extent().count_overlaps(taken)
            if hidden < fewest:
                best, fewest = spot, hidden
            if not hidden:
                break
        if best is not None:
            delay.xy, (across, up) = best
            delay.set_position((across, up))
        taken.append(delay.get_window_extent())


def _delay_spots(a: Point, b: Point, *, away: float) -> Iterator[tuple[Point, Point]]:
    """Yield where the delay of a link from *a* to *b* may stand, the best place first: a place, and how far aside in points."""
    for share in _DELAY_SPOTS:
        yield _along(a, b, share), (0.0, 0.0)
    length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
    right = (b[1] - a[1]) / length, -(b[0] - a[0]) / length
    for steps in (away, -away, 1.6 * away, -1.6 * away):
        yield _along(a, b, 0.5), (right[0] * steps, right[1] * steps)


def _along(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _scale(topology: Topology) -> float:
    """Return how large letters and routers are, 1 for a small network."""
    return min(1.0, max(0.55, math.sqrt(30 / (len(topology.cores) + len(topology.csrs)))))


def _legend(topology: Topology, struck: Collection[str]) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=_ROLE_MARKERS[role],
            color=colour.light,
            markersize=math.sqrt(_ROLE_SIZES[role]) * 0.75,
            label=_counted(len(_names_by_role(topology, role)), _ROLE_WORDS[role]),
        )
        for role, colour in ROLE_COLOURS.items()
        if _names_by_role(topology, role)
    ]
    for tier, colour in TIER_COLOURS.items():
        links = [link for link in topology.links if link.tier == tier]
        if links:
            handles.append(Line2D([], [], color=colour.light, label=f"{tier} link: {_range(links)}"))
    if any(_loss_ratio(link) > 0 for link in topology.links):
        handles.append(Line2D([], [], color=MUTED.light, linestyle="dashed", label="loses packets"))
    if struck:
        handles.append(Line2D([], [], color=VERMILLION.light, linewidth=3.0, label="struck by a fault"))
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
