"""Networks of the real world: the collections that the topohub package carries with it (nothing is downloaded).

A name is ``<collection>/<name>`` as in topohub: ``topozoo/Abilene``, ``sndlib/germany50``, ``backbone/europe``,
``caida/2024-08/1103``, ``gabriel/25/0``. Every node is a router; some of them become CSRs. A link's delay is the time that
light takes through fibre of the length that topohub gives, which is the great-circle distance of its ends; a link between
two nodes of one place has length 0 and so delay 0.

What topohub's data cannot be used as it is:

- Names become host names: accents and blanks go ("New York" is ``NewYork``, "Ciudad de México" ``CiudadDeMexico``); a
  node without a name becomes ``n<id>``; a name that is taken gets ``_2``, ``_3`` … in the order of the file.
- Parallel links between two nodes become one: the shortest. A link from a node to itself is left out.
- A disconnected network is refused.
- Some networks of SNDlib have places in a drawing, in pixels, of which topohub reckons lengths as if they were degrees (up to
  19,000 km): nobody knows how long their links are, so `default_delay_ms` has to say it for all of them.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Annotated, Any, Final

import topohub
from msgspec import Meta

from topologies.attach import UesPerCsr
from topologies.errors import InputError
from topologies.model import DELAY_MAX_MS, LinkProperties, Topology
from topologies.names import host_names, natural_key
from topologies.placement import PlacementParameters, RouterGraph, merged_links, place

#: Light in fibre travels 1 km in 5 us (refractive index 1.5).
DELAY_MS_PER_KM: Final = 0.005
#: Drawn, too, though one cannot tell by the numbers: India is at other degrees than 0 to 49.
_DRAWN: Final = frozenset({"sndlib/india35"})


class TopohubParameters(PlacementParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` for a network from topohub."""

    ues_per_csr: UesPerCsr = 3  #: UEs behind each CSR
    default_delay_ms: Annotated[float, Meta(ge=0, le=DELAY_MAX_MS)] | None = (
        None  #: of every link, and required, where the nodes have no places on the earth (zib54 and others of SNDlib)
    )


@functools.cache
def topohub_names() -> tuple[str, ...]:
    """Return all names of topohub's collections, sorted naturally (``gabriel/5/0`` before ``gabriel/10/0``)."""
    return tuple(sorted(_json_names(_data(), ""), key=natural_key))


def build_topohub(name: str, parameters: TopohubParameters) -> Topology:
    """Return the network *name*, one of `topohub_names`. Raises: InputError."""
    text = (_data() / f"{name}.json").read_text("utf-8")  # topohub.get leaves its file open
    return topology_from_graph(name, json.loads(text), parameters)


def topology_from_graph(name: str, graph: Mapping[str, Any], parameters: TopohubParameters) -> Topology:
    """Return the network of a node-link dictionary as topohub has them. Raises: InputError."""
    names = host_names([(node["id"], node.get("name")) for node in graph["nodes"]])
    drawn, given_ms = name in _DRAWN or _is_drawn(graph), parameters.default_delay_ms
    if drawn and given_ms is None:
        raise InputError(
            where=f"topology {name}",
            problem="its nodes have places in a drawing, not on the earth, and nothing else says how long its links are",
            remedy='give default_delay_ms in [topology], for all of them; [links."A-B"] for single ones',
        )
    if given_ms is not None and not drawn:
        raise InputError(
            where=f"topology {name}",
            problem="default_delay_ms is given, and the lengths of its links are known",
            remedy="leave it out, or give delay_ms in [links.core]",
        )
    links = [
        (
            names[edge["source"]],
            names[edge["target"]],
            LinkProperties(delay_ms=fibre_delay_ms(float(edge["dist"])) if given_ms is None else given_ms),
        )
        for edge in graph["edges"]
    ]
    positions = {names[node["id"]]: None if drawn else _position(node) for node in graph["nodes"]}
    return place(name, RouterGraph(positions, merged_links(links)), parameters, ues_per_csr=parameters.ues_per_csr)


def _is_drawn(graph: Mapping[str, Any]) -> bool:
    """Tell whether the nodes have places that are not on the earth, and links lengths that are not between these either."""
    places = {node["id"]: position for node in graph["nodes"] if (position := _position(node)) is not None}
    if all(abs(x) <= 180 and abs(y) <= 90 for x, y in places.values()):
        return False
    lengths = [
        (math.dist(places[edge["source"]], places[edge["target"]]), float(edge["dist"])) for edge in graph["edges"]
    ]  # of collections in a plane, such as gabriel, both are the same
    return any(abs(straight - given) > 1 + given / 100 for straight, given in lengths)


def fibre_delay_ms(length_km: float) -> float:
    """Return how long light takes through that much fibre.

    >>> fibre_delay_ms(1_000)
    5.0
    """
    return round(length_km * DELAY_MS_PER_KM, 6)


def _data() -> Any:  # noqa: ANN401 - a Traversable, which moved between Python 3.11 and 3.14
    return resources.files(topohub) / "data"


def _json_names(folder: Any, prefix: str) -> Iterator[str]:  # noqa: ANN401 - as above
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _json_names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".json"):
            yield prefix + entry.name.removesuffix(".json")


def _position(node: Mapping[str, Any]) -> tuple[float, float] | None:
    pos = node.get("pos")
    return (float(pos[0]), float(pos[1])) if pos else None
