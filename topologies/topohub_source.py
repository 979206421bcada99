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
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final

import topohub

from topologies.attach import UesPerCsr
from topologies.model import LinkProperties, Topology
from topologies.names import host_names, natural_key
from topologies.placement import PlacementParameters, RouterGraph, merged_links, place

#: Light in fibre travels 1 km in 5 us (refractive index 1.5).
DELAY_MS_PER_KM: Final = 0.005


class TopohubParameters(PlacementParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` for a network from topohub."""

    ues_per_csr: UesPerCsr = 3  #: UEs behind each CSR


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
    links = [
        (names[edge["source"]], names[edge["target"]], LinkProperties(delay_ms=fibre_delay_ms(float(edge["dist"]))))
        for edge in graph["edges"]
    ]
    positions = {names[node["id"]]: _position(node) for node in graph["nodes"]}
    return place(name, RouterGraph(positions, merged_links(links)), parameters, ues_per_csr=parameters.ues_per_csr)


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
