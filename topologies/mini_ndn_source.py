"""Networks from Mini-NDN's topology files.

Sections (Mini-NDN's ``processTopo``): ``[nodes]`` with lines ``name: _ key=value ...``, ``[links]`` with ``a:b delay=10ms bw=10 loss=0.5
jitter=1ms max_queue_size=100``, and in older files ``[faces]`` with ``a:b cost=10``. Units are Mininet's: bw in Mbit/s, loss in per cent, a
time without a unit in microseconds, as tc reads it; a link without a delay has none. Of what is said of a node
only `role_key` counts (Mini-NDN itself does not mind it); costs of faces are read and left alone, for routes follow delays here.
A section ``[switches]`` with something in it is refused: switches have no forwarder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

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

SUFFIX: Final = ".conf"

_KIND: Final = "Mini-NDN topology file"
_LINK_KEYS: Final = ("delay", "bw", "loss", "jitter", "max_queue_size")
#: How Mininet shapes a rate; here it is done in one way that is checked.
_IGNORED_LINK_KEYS: Final = frozenset({"use_htb", "use_hfsc", "use_tbf"})
_REFUSED_SECTIONS: Final = {
    "switches": (
        "switches have no forwarder, and links here join two nodes each",
        "make each switch a node, or join its neighbours by links",
    ),
    "stations": ("wireless stations are not emulated", "make them nodes with links"),
    "accesspoints": ("wireless access points are not emulated", "make them nodes with links"),
}


class MiniNdnParameters(FileParameters, frozen=True, forbid_unknown_fields=True):
    """``[topology]`` with ``name = "<file>.conf"``, a topology of Mini-NDN, as seen from the experiment file's folder."""


def build_mini_ndn(name: str, path: Path, parameters: MiniNdnParameters) -> Topology:
    """Return the network of the Mini-NDN file at *path*. Raises: InputError with file and line."""
    reader = _Reader(path, parameters.role_key)
    content = read_bytes(path, kind=_KIND)
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(
                where=f"{path}:{number}",
                problem=f"it is not UTF-8 text: byte {raw[error.start]:#04x}",
                remedy=f"name a {_KIND}",
            ) from error
        if line and line[0] not in "#;":
            reader.take(line, number)
    reader.finish()
    return topology_of_graph(name, FileGraph(list(reader.nodes.values()), list(reader.links.values())), parameters)


class _Reader:
    """Takes one line after the other."""

    def __init__(self, path: Path, role_key: str) -> None:
        self._path, self._role_key = path, role_key
        self._where = str(path)
        self._section: Callable[[str, dict[str, str]], None] | None = None
        self._refusal: tuple[str, str, str] | None = None  # of a section that is only refused if something is in it
        self.nodes: dict[str, FileNode] = {}
        self.links: dict[frozenset[str], FileLink] = {}
        self._ends: list[tuple[str, str, str]] = []  # of links and faces: both ends, and where; nodes may come later

    def take(self, line: str, number: int) -> None:
        self._where = f"{self._path}:{number}"
        if line.startswith("["):
            self._begin(line)
            return
        if self._refusal is not None:
            section, reason, remedy = self._refusal
            raise self._error(f"it has {section}: {reason}", remedy)
        if self._section is None:
            raise self._error(f"{line[:60]!r} stands in no section", "begin with [nodes]")
        head, *words = line.split()
        self._section(head, self._values(words))

    def finish(self) -> None:
        self._where = str(self._path)
        if not self.nodes:
            raise self._error("it has no section [nodes], or nothing in it", f"name a {_KIND}")
        for a, b, where in self._ends:
            for end in (a, b):
                if end not in self.nodes:
                    raise InputError(
                        where=where,
                        problem=f"{a}:{b} ends at `{end}`, which is no node",
                        remedy=pick_one_of(end, self.nodes),
                    )

    def _begin(self, line: str) -> None:
        section = line.strip("[] \t")
        self._section = {"nodes": self._take_node, "links": self._take_link, "faces": self._take_face}.get(
            section.casefold()
        )
        refusal = _REFUSED_SECTIONS.get(section.casefold())
        self._refusal = None if refusal is None else (f"[{section}]", *refusal)
        if not line.endswith("]") or (self._section is None and refusal is None):
            raise self._error(
                f"{line[:60]} is no section of a {_KIND}", "its sections are [nodes], [links] and [faces]"
            )

    def _take_node(self, head: str, values: dict[str, str]) -> None:
        name = head.rstrip(":")
        if ":" in name or not name:
            raise self._error(f"{head[:60]!r} is no node", "write name: _ key=value ...")
        if name in self.nodes:
            raise self._error(
                f"the node `{name}` is there twice", f"leave one out: the first is at {self.nodes[name].where}"
            )
        word = values.get(self._role_key)
        role = None if word is None else role_of(word, where=self._where, key=self._role_key)
        self.nodes[name] = FileNode(name, name, self._where, role)

    def _take_link(self, head: str, values: dict[str, str]) -> None:
        a, b = self._pair(head)
        for key in values:
            if key not in _LINK_KEYS and key not in _IGNORED_LINK_KEYS:
                raise self._error(f"a link has no `{key}`", pick_one_of(key, _LINK_KEYS))
        earlier = self.links.get(frozenset((a, b)))
        if earlier is not None:
            raise self._error(f"the link {a}:{b} is there twice", f"leave one out: the first is at {earlier.where}")
        loss = self._number(values, "loss")
        if loss is not None and loss > 100:
            raise self._error(f"loss = {loss:g} is above 100", "it is in per cent, as in Mininet")
        properties = link_properties(
            self._where,
            delay_ms=self._time_ms(values, "delay"),
            jitter_ms=self._time_ms(values, "jitter"),
            loss_ratio=None if loss is None else loss / 100,
            rate_mbps=self._number(values, "bw"),
            queue_packets=self._number(values, "max_queue_size"),
        )
        self.links[frozenset((a, b))] = FileLink(a, b, properties, self._where)

    def _take_face(self, head: str, values: dict[str, str]) -> None:
        self._pair(head)
        self._number(values, "cost")

    def _pair(self, head: str) -> tuple[str, str]:
        a, colon, b = head.partition(":")
        if not (a and colon and b) or ":" in b:
            raise self._error(f"{head[:60]!r} names no two nodes", "write a:b and what is said of the link")
        self._ends.append((a, b, self._where))
        return a, b

    def _values(self, words: list[str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for word in words:
            if word == "_":
                continue
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise self._error(f"{word[:60]!r} is no key=value", "write for example delay=10ms")
            values[key] = value
        return values

    def _number(self, values: dict[str, str], key: str) -> float | None:
        text = values.get(key)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e12:
            raise self._error(f"{key} = {text[:40]!r} is no number of 0 or more", f"write for example {key}=10")
        return number

    def _time_ms(self, values: dict[str, str], key: str) -> float | None:
        text = values.get(key)
        return None if text is None else duration_ms(text, bare="us", where=self._where, key=key)

    def _error(self, problem: str, remedy: str) -> InputError:
        return InputError(where=self._where, problem=problem, remedy=remedy)
