"""What applications register at one node, made reachable from all others: the part that a routing protocol has elsewhere.

Names under a node's own prefix are routed from the start. For any other prefix, each forwarder is told its next hops, ranked
as all others are. Where several nodes have applications for one prefix, Interests go to the nearest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from testbed.emulation.control import NodeError
from testbed.node_config import ROOT_PREFIX, face_ids
from testbed.routing import ranked_next_hops
from topologies.model import Topology

#: As `EmulatedNetwork.request`: process, op, arguments.
Request = Callable[..., Awaitable[Mapping[str, Any]]]

#: Forwarders that are told at the same time, and what each is told in one request.
TOLD_AT_ONCE: Final = 50
ROUTES_AT_ONCE: Final = 500
#: One that is frozen takes what it was sent when it goes on; the others need not wait for that.
TELL_LIMIT_S: Final = 2.0


class Announcements:
    """Of one network. `note` is called with whatever nodes say; `serve` must be running."""

    def __init__(self, topology: Topology, request: Request) -> None:
        self._topology, self._request = topology, request
        self._producers: dict[
            str, dict[str, None]
        ] = {}  #: prefix -> nodes; no more than forwarders let applications register
        self._ready: set[str] = set()  #: nodes whose forwarder has ever been
        self._news: dict[str, set[str]] = {}  #: node to be told -> prefixes
        self._there_are_news = trio.Event()
        self._ways: dict[str, Mapping[str, list[tuple[str, float]]]] = {}  #: producer -> node -> ranked neighbours
        self.is_stopping = False  #: from now on nobody needs to know anything

    def note(self, process: str, event: str, fields: Mapping[str, Any]) -> None:
        """A node has said something."""
        node, _, kind = process.rpartition(".")
        if kind != "forwarder" or self.is_stopping:
            return
        if event == "prefix":
            self._note_prefix(node, str(fields.get("prefix")), registered=fields.get("state") == "registered")
        elif event == "ready":
            if node in self._ready:  # it lost what it was told
                self._tell({node}, set(self._producers))
            self._ready.add(node)
        elif event == "exited":  # and its applications have lost it
            for prefix in [prefix for prefix, nodes in self._producers.items() if node in nodes]:
                self._note_prefix(node, prefix, registered=False)

    def _note_prefix(self, node: str, prefix: str, *, registered: bool) -> None:
        if self._topology.node(node).role != "core" and prefix.startswith(f"{ROOT_PREFIX}/{node}/"):
            return
        producers = self._producers.setdefault(prefix, {})
        if registered:
            producers[node] = None
        else:
            producers.pop(node, None)
        if not producers:
            del self._producers[prefix]
        self._tell({other.name for other in self._topology.nodes}, {prefix})

    def _tell(self, nodes: set[str], prefixes: set[str]) -> None:
        for node in nodes & self._ready:
            self._news.setdefault(node, set()).update(prefixes)
        self._there_are_news.set()

    async def serve(self) -> None:
        """Tell forwarders their next hops, whenever these change."""
        while True:
            await self._there_are_news.wait()
            self._there_are_news = trio.Event()
            news, self._news = self._news, {}
            for producer in {producer for nodes in self._producers.values() for producer in nodes} - set(self._ways):
                ways = await trio.to_thread.run_sync(ranked_next_hops, self._topology, [producer])
                self._ways[producer] = {node: row.get(producer, []) for node, row in ways.items()}
            limit = trio.CapacityLimiter(TOLD_AT_ONCE)
            async with trio.open_nursery() as together:
                for node, prefixes in news.items():
                    together.start_soon(partial(self._tell_node, node, sorted(prefixes), limit))

    async def _tell_node(self, node: str, prefixes: list[str], limit: trio.CapacityLimiter) -> None:
        async with limit:
            for at in range(0, len(prefixes), ROUTES_AT_ONCE):
                routes = [
                    {"prefix": prefix, "next_hops": self._next_hops(node, prefix)}
                    for prefix in prefixes[at : at + ROUTES_AT_ONCE]
                ]
                with contextlib.suppress(NodeError):  # one that is gone will be told everything when it is back
                    await self._request(f"{node}.forwarder", "routes", routes=routes, limit_s=TELL_LIMIT_S)

    def _next_hops(self, node: str, prefix: str) -> list[dict[str, Any]]:
        faces, costs_ms = face_ids(self._topology, node), dict[int, float]()
        for producer in self._producers.get(prefix, ()):
            for neighbour, cost_ms in self._ways.get(producer, {}).get(node, ()):
                face_id = faces[neighbour]
                costs_ms[face_id] = min(cost_ms, costs_ms.get(face_id, cost_ms))
        return [{"face_id": face_id, "cost_ms": cost_ms} for face_id, cost_ms in sorted(costs_ms.items())]
