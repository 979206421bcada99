"""Networks from GraphML files, such as those of the Internet Topology Zoo.

Format: http://graphml.graphdrawing.org/specification.html; one flat graph, whose edges join two nodes each. A document type is
refused: entities and other files are not read. An edge may also have ``jitter_ms``, ``loss_ratio``, ``rate_mbps`` and ``queue_packets``.

A link's delay is, in this order: the attribute that `delay_key` names, in milliseconds; ``delay_ms``; ``delay``, a number of milliseconds
or with a unit (``10ms``); the light's time through ``length_km`` (or ``dist``, ``length``) of fibre; that through the great-circle
distance of its ends (``Longitude`` and ``Latitude``, as the Topology Zoo has them); `default_delay_ms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final
from xml.parsers import expat

from msgspec import Meta

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
from topologies.model import DELAY_MAX_MS, LinkProperties, Topology
from topologies.topohub_source import fibre_delay_ms
from topologies.units import duration_ms

SUFFIX: Final = ".graphml"

EARTH_RADIUS_KM: Final = 6_371.0

_LABELS: Final = ("label", "name")
_LONGITUDES: Final = ("longitude", "lon", "lng")
_LATITUDES: Final = ("latitude", "lat")
_LENGTHS_KM: Final = ("length_km", "dist", "length")
_KIND: Final = "GraphML file"


class GraphmlParameters(FileParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` with ``name = "<file>.graphml"``, as seen from the experiment file's folder."""

    delay_key: str | None = None  #: attribute of a link that is its delay in ms; None: as said above
    default_delay_ms: Annotated[float, Meta(ge=0, le=DELAY_MAX_MS)] | None = (
        None  #: of links that the file says nothing of
    )


@dataclass(slots=True)
class _Element:
    """A node or edge of the file."""

    line: int
    ends: tuple[str, str] | None = None  #: of an edge
    data: dict[str, str] = field(default_factory=dict)  #: by attribute name, as written


def build_graphml(name: str, path: Path, parameters: GraphmlParameters) -> Topology:
    """Return the network of the GraphML file at *path*. Raises: InputError with file and line."""
    reader = _Reader(path)
    reader.read(read_bytes(path, kind=_KIND))
    nodes = [_node(path, key, element, parameters) for key, element in reader.nodes.items()]
    positions = {node.key: node.position for node in nodes}
    links = [_link(path, element, positions, parameters) for element in reader.edges]
    if parameters.role_key != "role" and not any(node.role for node in nodes):
        raise InputError(
            where=str(path),
            problem=f"no node has the attribute `{parameters.role_key}`",
            remedy=pick_one_of(parameters.role_key, sorted({key for one in reader.nodes.values() for key in one.data})),
        )
    return topology_of_graph(name, FileGraph(nodes, links), parameters)


class _Reader:
    """Takes nodes and edges out of a file as expat, which knows the line, meets them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.nodes: dict[str, _Element] = {}
        self.edges: list[_Element] = []
        self._names: dict[str, str] = {}  # key ID -> attribute name
        self._defaults: dict[tuple[str, str], str] = {}  # (what it is for, attribute name) -> value
        self._stack: list[str] = []
        self._current: _Element | None = None
        self._key: tuple[str, str] = ("", "")  # of the <key> that is being read: what it is for, attribute name
        self._data_name: str | None = None
        self._text: list[str] = []
        self._graphs = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")

    def read(self, content: bytes) -> None:
        parser = self._parser
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._on_doctype
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise InputError(
                where=f"{self._path}:{error.lineno}",
                problem=f"it is not valid XML: {expat.ErrorString(error.code)} at column {error.offset + 1}",
                remedy="name a GraphML file",
            ) from error
        except (LookupError, ValueError) as error:  # an encoding that there is not
            raise InputError(where=str(self._path), problem=str(error), remedy="save it as UTF-8") from error
        if not self._graphs:
            raise InputError(where=str(self._path), problem="it has no <graph>", remedy="name a GraphML file")
        for edge in self.edges:
            for end in edge.ends or ():
                if end not in self.nodes:
                    raise self._error(
                        f"the edge ends at {end!r}, which is no node", pick_one_of(end, self.nodes), edge.line
                    )
        for element, kind in (*((one, "node") for one in self.nodes.values()), *((one, "edge") for one in self.edges)):
            for (of, name), value in self._defaults.items():
                if of in (kind, "all"):
                    element.data.setdefault(name, value)

    def _on_doctype(self, *_: object) -> None:
        raise self._error("it has a document type", "take the <!DOCTYPE ...> out: entities are not read")

    def _on_start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        self._stack.append(name)
        self._text.clear()
        if len(self._stack) == 1 and name != "graphml":
            raise self._error(f"it begins with <{name}>, not <graphml>", "name a GraphML file")
        match name:
            case "graph":
                self._graphs += 1
                if self._graphs > 1:
                    raise self._error("it has more than one graph", "leave one: nested graphs have no meaning here")
            case "key":
                key_id = self._needed(attributes, "id", "key")
                self._names[key_id] = attributes.get("attr.name") or key_id
                self._key = (attributes.get("for", "all"), self._names[key_id])
            case "node":
                key = self._needed(attributes, "id", "node")
                if key in self.nodes:
                    raise self._error(
                        f"the node {key!r} is there twice, first in line {self.nodes[key].line}",
                        "give each an ID of its own",
                    )
                self._current = self.nodes[key] = _Element(self._line)
            case "edge":
                ends = (self._needed(attributes, "source", "edge"), self._needed(attributes, "target", "edge"))
                self._current = _Element(self._line, ends)
                self.edges.append(self._current)
            case "hyperedge":
                raise self._error("it has a <hyperedge>", "join its nodes to a router of its own: links have two ends")
            case "data":
                key_id = self._needed(attributes, "key", "data")
                if key_id not in self._names:
                    raise self._error(f"the key {key_id!r} is not declared", pick_one_of(key_id, self._names))
                self._data_name = self._names[key_id]
            case _:
                pass

    def _on_end(self, tag: str) -> None:
        name = tag.rpartition(" ")[2]
        self._stack.pop()
        match name:
            case "node" | "edge":
                self._current = None
            case "default":
                self._defaults[self._key] = "".join(self._text).strip()
            case "data" if self._current is not None and self._data_name is not None:
                self._current.data[self._data_name] = "".join(self._text).strip()
            case _:
                pass

    @property
    def _line(self) -> int:
        return int(self._parser.CurrentLineNumber)

    def _needed(self, attributes: Mapping[str, str], attribute: str, element: str) -> str:
        try:
            return attributes[attribute]
        except KeyError:
            raise self._error(f"a <{element}> has no `{attribute}`", f'write <{element} {attribute}="...">') from None

    def _error(self, problem: str, remedy: str, line: int | None = None) -> InputError:
        return InputError(where=f"{self._path}:{self._line if line is None else line}", problem=problem, remedy=remedy)


def _node(path: Path, key: str, element: _Element, parameters: GraphmlParameters) -> FileNode:
    where = f"{path}:{element.line}"
    data = {name.casefold(): value for name, value in element.data.items()}
    longitude, latitude = (_number(_first(data, names), where, names[0]) for names in (_LONGITUDES, _LATITUDES))
    for name, degrees, most in ((_LONGITUDES[0], longitude, 180), (_LATITUDES[0], latitude, 90)):
        if degrees is not None and abs(degrees) > most:
            raise InputError(
                where=where,
                problem=f"{name} = {degrees:g} is no place on the earth, so it tells no length of a link",
                remedy=f"write degrees, from -{most} to {most}; places in a drawing go by other names, such as x and y",
            )
    word = element.data.get(parameters.role_key)
    return FileNode(
        key=key,
        label=_first(data, _LABELS) or key,
        where=where,
        role=role_of(word, where=where, key=parameters.role_key) if word else None,
        position=None if longitude is None or latitude is None else (longitude, latitude),
    )


def _link(
    path: Path,
    element: _Element,
    positions: Mapping[object, tuple[float, float] | None],
    parameters: GraphmlParameters,
) -> FileLink:
    assert element.ends is not None
    where, (a, b) = f"{path}:{element.line}", element.ends
    data = {name.casefold(): value for name, value in element.data.items()}
    link = " to ".join(str(end)[:40] for end in (a, b))
    delay_ms = 0.0 if a == b else _delay_ms(element.data, data, (positions[a], positions[b]), parameters, where, link)
    properties: LinkProperties = link_properties(
        where,
        delay_ms=delay_ms,
        jitter_ms=_number(data.get("jitter_ms"), where, "jitter_ms"),
        loss_ratio=_number(data.get("loss_ratio"), where, "loss_ratio"),
        rate_mbps=_number(data.get("rate_mbps"), where, "rate_mbps"),
        queue_packets=_number(data.get("queue_packets"), where, "queue_packets"),
    )
    return FileLink(a, b, properties, where)


def _delay_ms(
    written: Mapping[str, str],
    data: Mapping[str, str],
    ends: tuple[tuple[float, float] | None, tuple[float, float] | None],
    parameters: GraphmlParameters,
    where: str,
    link: str,
) -> float:
    key = parameters.delay_key
    if key is not None:
        if (delay_ms := _number(written.get(key), where, key)) is not None:
            return delay_ms
        if parameters.default_delay_ms is None:
            known = pick_one_of(key, sorted(written)) if written else "leave delay_key out"
            raise InputError(
                where=where,
                problem=f"the link {link} has no `{key}`",
                remedy=f"{known}; or give default_delay_ms in [topology]",
            )
        return parameters.default_delay_ms
    if (delay_ms := _number(data.get("delay_ms"), where, "delay_ms")) is not None:
        return delay_ms
    if data.get("delay"):
        return duration_ms(data["delay"], bare="ms", where=where, key="delay")
    if (length_km := _number(_first(data, _LENGTHS_KM), where, "length_km")) is not None:
        return fibre_delay_ms(length_km)
    a, b = ends
    if a is not None and b is not None:
        return fibre_delay_ms(great_circle_km(a, b))
    if parameters.default_delay_ms is not None:
        return parameters.default_delay_ms
    raise InputError(
        where=where,
        problem=f"nothing says how long the link {link} is: it has no delay_ms, delay or length_km, and not both its ends have "
        "coordinates",
        remedy="add one of them, or give delay_key or default_delay_ms in [topology]",
    )


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the distance of two places, given as longitude and latitude in degrees (haversine formula).

    >>> round(great_circle_km((-74.0, 40.71), (-87.65, 41.85)))  # New York to Chicago
    1146
    """
    (lon_a, lat_a), (lon_b, lat_b) = ((math.radians(x), math.radians(y)) for x, y in (a, b))
    root = math.sin((lat_b - lat_a) / 2) ** 2
    root += math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(root)))


def _first(data: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((data[name] for name in names if data.get(name)), None)


def _number(text: str | None, where: str, key: str) -> float | None:
    """Return *text* as a number; None for no text. Raises: InputError."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            where=where, problem=f"{key} = {text[:40]!r} is no number", remedy="write a number, without a unit"
        )
    return number
