"""Where each node of a network is drawn: routers as on the map, or where springs put them; the others around theirs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

from topologies.model import Topology

#: Springs cost the square of the nodes.
SPRING_ROUTERS_MAX: Final = 400
#: And whether links cross the square of the links.
PLANAR_ROUTERS_MAX: Final = 100
#: Of the box that routers are in, in units of the picture.
WIDTH: Final = 10.0
HEIGHT: Final = 7.0

Point = tuple[float, float]


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
    import networkx as nx  # noqa: PLC0415  # takes longer to load than all else here, and maps do without

    graph = nx.Graph()
    graph.add_nodes_from(routers)
    graph.add_edges_from((link.a, link.b) for link in topology.links if link.tier in ("core", "uplink"))
    starts = [nx.circular_layout(graph)]
    if 3 < len(routers) <= PLANAR_ROUTERS_MAX and nx.check_planarity(graph)[0]:
        starts.append(nx.planar_layout(graph))  # springs alone do not untangle what need not cross
    tried: list[dict[str, Point]] = []
    for start in starts:
        found = start
        if 3 < len(routers) <= SPRING_ROUTERS_MAX:
            found = nx.spring_layout(graph, pos=start, seed=1, iterations=200, k=1.6 / math.sqrt(len(routers)))
        tried.append({name: (float(x), float(y)) for name, (x, y) in found.items()})
    return min(tried, key=lambda places: _crossings([(places[a], places[b]) for a, b in graph.edges]))


def _crossings(lines: Sequence[tuple[Point, Point]]) -> int:
    """Return how many pairs of *lines* cross; those that share an end do not.

    >>> _crossings([((0, 0), (1, 1)), ((0, 1), (1, 0)), ((0, 0), (1, 0))])
    1
    """

    def side(line: tuple[Point, Point], point: Point) -> float:
        (ax, ay), (bx, by) = line
        return (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)

    return sum(
        side(one, other[0]) * side(one, other[1]) < 0 and side(other, one[0]) * side(other, one[1]) < 0
        for one, other in itertools.combinations(lines, 2)
    )


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
