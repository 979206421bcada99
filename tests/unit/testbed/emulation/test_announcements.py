"""What an application registers at one node is routed from all others."""

from __future__ import annotations

from typing import Any

import trio

from testbed.emulation.announcements import Announcements
from testbed.emulation.control import NodeGoneError
from topologies.model import Link, LinkProperties, Node, Topology

#: A ring of three routers, csr1 - core1 - csr2 - csr1; ue1 at csr1, ue2 at csr2.
RING = Topology(
    "ring",
    (
        Node("core1", "core"),
        Node("csr1", "csr"),
        Node("csr2", "csr"),
        Node("ue1", "ue"),
        Node("ue2", "ue"),
        Node("login", "login"),
    ),
    (
        Link.between("core1", "csr1", "core", LinkProperties(delay_ms=1.0)),
        Link.between("core1", "csr2", "core", LinkProperties(delay_ms=1.0)),
        Link.between("csr1", "csr2", "core", LinkProperties(delay_ms=5.0)),
        Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=2.0)),
        Link.between("csr2", "ue2", "access", LinkProperties(delay_ms=2.0)),
        Link.between("core1", "login", "login", LinkProperties(delay_ms=2.0)),
    ),
)
NODES = [node.name for node in RING.nodes]


class Forwarders:
    """The routes that each forwarder has been told: prefix -> [(face, cost)]."""

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, list[tuple[int, float]]]] = {name: {} for name in NODES}
        self.gone: set[str] = set()
        self.announcements = Announcements(RING, self.request)
        for name in NODES:
            self.announcements.note(f"{name}.forwarder", "ready", {})

    async def request(self, process: str, op: str, *, routes: list[dict[str, Any]], limit_s: float) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        node = process.removesuffix(".forwarder")
        if node in self.gone:
            raise NodeGoneError(node)
        assert op == "routes"
        assert limit_s < 5.0
        for route in routes:
            hops = [(hop["face_id"], hop["cost_ms"]) for hop in route["next_hops"]]
            self.routes[node][route["prefix"]] = hops
        return {}

    def say(self, node: str, prefix: str, state: str) -> None:
        self.announcements.note(f"{node}.forwarder", "prefix", {"prefix": prefix, "state": state})

    async def settle(self) -> None:
        """Serve until nothing more is told."""
        with trio.move_on_after(0.2):
            await self.announcements.serve()


async def test_every_other_node_learns_its_ranked_next_hops() -> None:
    forwarders = Forwarders()
    forwarders.say("ue2", "/demo", "registered")
    await forwarders.settle()
    told = {node: routes.get("/demo") for node, routes in forwarders.routes.items()}
    assert told == {
        "core1": [(1, 8.0), (2, 3.0)],
        "csr1": [(1, 4.0), (2, 7.0)],
        "csr2": [(3, 2.0)],
        "ue1": [(1, 6.0)],
        "ue2": [],
        "login": [(1, 5.0)],
    }
    forwarders.say("ue2", "/demo", "unregistered")
    await forwarders.settle()
    assert {node: routes["/demo"] for node, routes in forwarders.routes.items()} == {name: [] for name in NODES}


async def test_of_two_producers_each_node_has_the_nearer_one_first() -> None:
    forwarders = Forwarders()
    forwarders.say("ue2", "/demo", "registered")
    forwarders.say("core1", "/demo", "registered")
    await forwarders.settle()
    assert forwarders.routes["csr1"]["/demo"] == [(1, 1.0), (2, 6.0)]
    assert forwarders.routes["core1"]["/demo"] == [(1, 8.0), (2, 3.0)]
    assert forwarders.routes["ue2"]["/demo"] == [(1, 3.0)]
    for node in ("core1", "ue2"):  # in whatever order they come
        forwarders.say(node, "/other", "registered")
    await forwarders.settle()
    assert forwarders.routes["csr1"]["/other"] == [(1, 1.0), (2, 6.0)]
    forwarders.say("core1", "/demo", "unregistered")
    await forwarders.settle()
    assert forwarders.routes["csr1"]["/demo"] == [(1, 4.0), (2, 7.0)]


async def test_names_that_are_routed_from_the_start_are_left_alone() -> None:
    forwarders = Forwarders()
    forwarders.say("ue2", "/hconf/ue2/files", "registered")
    await forwarders.settle()
    assert not any(forwarders.routes.values())
    forwarders.say("core1", "/hconf/core1/files", "registered")  # nothing is routed to a core router
    await forwarders.settle()
    assert forwarders.routes["ue1"]["/hconf/core1/files"] == [(1, 3.0)]


async def test_a_forwarder_that_ends_takes_its_prefixes_with_it_and_learns_the_others_when_it_is_back() -> None:
    forwarders = Forwarders()
    forwarders.say("ue2", "/two", "registered")
    forwarders.say("ue1", "/one", "registered")
    await forwarders.settle()
    forwarders.gone.add("ue2")
    forwarders.announcements.note("ue2.forwarder", "exited", {"status": -9})
    await forwarders.settle()
    assert forwarders.routes["csr1"]["/two"] == []
    forwarders.routes["ue2"].clear()
    forwarders.gone.clear()
    forwarders.announcements.note("ue2.forwarder", "ready", {})
    await forwarders.settle()
    assert forwarders.routes["ue2"] == {"/one": [(1, 6.0)]}
    forwarders.announcements.note("csr1.proxy", "exited", {"status": -9})  # not a forwarder
    await forwarders.settle()
    assert forwarders.routes["csr1"]["/one"] == [(3, 2.0)]
