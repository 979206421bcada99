"""A UE that serves its network as sync proxy, as node programs over real sockets."""

from __future__ import annotations

import pytest

from proxy.records import ServiceChanged
from tests.driver.conftest import Start
from tests.driver.nodes import RunningNode
from topologies.model import Link, LinkProperties, Node, Topology

UES = ("ue1", "ue2", "ue3")


@pytest.fixture
def topology() -> Topology:
    links = (
        ("csr1", "core1", "core"),
        ("csr1", "ue1", "access"),
        ("core1", "ue2", "access"),
        ("core1", "ue3", "access"),
    )
    return Topology(
        "edge",
        (
            *(Node("core1", "core"), Node("csr1", "csr"), Node("ue1", "ue")),
            *(Node("ue2", "ue", is_proxy=True), Node("ue3", "ue"), Node("login", "login")),
        ),
        (
            *(Link.between(a, b, tier, LinkProperties()) for a, b, tier in links),  # type: ignore[arg-type]
            Link.between("core1", "login", "login", LinkProperties()),
        ),
    )


@pytest.fixture
def nodes(start: Start) -> dict[str, RunningNode]:
    """Everything is up, all have joined."""
    names = ("core1.forwarder", "csr1.forwarder", "csr1.proxy", "login.forwarder", "ue1.forwarder", "ue2.forwarder")
    found = {name: start(name) for name in (*names, "ue2.proxy", "ue3.forwarder")}
    for name, node in found.items():
        if name.endswith(".forwarder"):
            node.wait_for_status(lambda status: all(face["state"] == "up" for face in status["forwarder"]["faces"]))
    for ue in UES:
        assert found[f"{ue}.forwarder"].request("join")["ok"]
        found[f"{ue}.forwarder"].wait_for_event("session", state="joined")
    return found


def wait_for_roster(nodes: dict[str, RunningNode], ues: tuple[str, ...], *, proxies: dict[str, str]) -> None:
    for ue in ues:
        nodes[f"{ue}.forwarder"].wait_for_status(
            lambda status, ue=ue: (  # type: ignore[misc]
                (status["client"]["state"], status["client"]["proxy"]) == ("joined", proxies[ue])
                and status["client"]["roster"] == list(ues)
                and not status["client"]["unacked"]
            )
        )


def test_it_serves_and_hands_over(nodes: dict[str, RunningNode]) -> None:
    wait_for_roster(nodes, UES, proxies={"ue1": "csr1", "ue2": "ue2", "ue3": "ue2"})
    assert sorted(nodes["ue2.proxy"].request("status")["status"]["proxy"]["conferences"]["main"]["clients"]) == [
        "ue2",
        "ue3",
    ]
    assert nodes["ue3.forwarder"].request("publish", body="by way of ue2")["ok"]
    nodes["ue1.forwarder"].wait_for_status(
        lambda status: ["ue3", 1, 2] in [list(head) for head in status["client"]["heads"]]
    )
    assert nodes["ue2.forwarder"].request("close")["ok"]
    nodes["ue2.forwarder"].wait_for_event("session", state="closed", reason="close reply")
    wait_for_roster(nodes, ("ue1", "ue3"), proxies={"ue1": "csr1", "ue3": "csr1"})
    status = nodes["ue2.proxy"].request("status")["status"]["proxy"]
    assert status == {"service": "handed-over", "conferences": {}}
    for node in nodes.values():
        node.end()
    services = [record.state for record in nodes["ue2.proxy"].records() if isinstance(record, ServiceChanged)]
    assert services == ["handing-over", "handed-over"]


def test_client_and_forwarder_outlive_the_proxy(nodes: dict[str, RunningNode], start: Start) -> None:
    nodes["ue2.proxy"].end()
    wait_for_roster(nodes, UES, proxies=dict.fromkeys(UES, "csr1"))
    faces = nodes["ue2.forwarder"].request("status")["status"]["forwarder"]["faces"]
    assert {face["face_id"]: face["state"] for face in faces} == {-1: "down", 0: "up", 1: "up"}
    nodes["ue2.proxy"] = start("ue2.proxy", boot=2, records_path=nodes["ue2.proxy"].config.records_path + "2")
    nodes["ue2.forwarder"].wait_for_status(
        lambda status: all(face["state"] == "up" for face in status["forwarder"]["faces"])
    )
