"""A conference on loopback: csr1 with two UEs and the login server, as the testbed would configure them."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from proxy.config import NodeConfig
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from tests.driver.nodes import RunningNode
from topologies.model import Link, LinkProperties, Node, Topology

#: core1 is only there because a topology needs its login server somewhere; it is not started.
STAR = Topology(
    "star",
    (Node("csr1", "csr"), Node("ue1", "ue"), Node("ue2", "ue"), Node("login", "login")),
    (
        Link.between("csr1", "ue1", "access", LinkProperties()),
        Link.between("csr1", "ue2", "access", LinkProperties()),
        Link.between("csr1", "login", "login", LinkProperties()),
    ),
)

Start = Callable[..., RunningNode]


@pytest.fixture
def topology() -> Topology:
    """A module with another network overrides it."""
    return STAR


@pytest.fixture
def configs(tmp_path: Path, topology: Topology) -> Iterator[dict[str, NodeConfig]]:
    """Configurations by process name, moved to addresses of this machine."""
    (tmp_path / "raw").mkdir()
    plan = NetworkPlan("driver", topology, 7, tmp_path)
    with tempfile.TemporaryDirectory(prefix="hconf-driver-") as sockets:  # paths of sockets are limited to 107 bytes
        found = {}
        for name, raw in build_node_configs(plan):
            text = msgspec.json.encode(raw).decode()
            text = text.replace('"10.0.', f'"127.{1 + os.getpid() % 250}.').replace(str(plan.runtime_dir), sockets)
            config = msgspec.json.decode(text.encode(), type=NodeConfig)
            found[name] = on_loopback(config)
        yield found


def on_loopback(config: NodeConfig) -> NodeConfig:
    if config.forwarder is None:
        return config
    faces = tuple(msgspec.structs.replace(face, intf="lo") for face in config.forwarder.faces)
    forwarder = msgspec.structs.replace(config.forwarder, faces=faces, application_port=None)  # all share one loopback
    return msgspec.structs.replace(config, forwarder=forwarder)


@pytest.fixture
def start(configs: dict[str, NodeConfig]) -> Iterator[Start]:
    """Starts a process by its name; all of them are ended with the test, and what went wrong in them is raised."""
    running: list[RunningNode] = []

    def start_process(name: str, **changes: object) -> RunningNode:
        node = RunningNode(msgspec.structs.replace(configs[name], **changes))
        running.append(node)
        return node

    yield start_process
    for node in reversed(running):
        node.end()
