"""What the emulation tests share: a network, its node processes, and a look at the machine before and after."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed.emulation.ownership import OWNER_FILE, ProcessId
from testbed.plan import RUNTIME_ROOT, NetworkPlan
from topologies.model import Link, LinkProperties, Node, Topology

STAND_IN: Final = (sys.executable, str(Path(__file__).with_name("stand_in.py")))

#: core1 ── csr1 ── ue1, ue2;  core1 ── login;  all links 2 ms
TREE: Final = Topology(
    "tree",
    (Node("core1", "core"), Node("csr1", "csr"), Node("ue1", "ue"), Node("ue2", "ue"), Node("login", "login")),
    (
        Link.between("core1", "csr1", "core", LinkProperties(delay_ms=2.0)),
        Link.between("csr1", "ue1", "access", LinkProperties(delay_ms=2.0)),
        Link.between("csr1", "ue2", "access", LinkProperties(delay_ms=2.0)),
        Link.between("core1", "login", "login", LinkProperties(delay_ms=2.0)),
    ),
)
TREE_PROCESSES: Final = {*(f"{node.name}.forwarder" for node in TREE.nodes), "csr1.proxy"}


@dataclass(frozen=True)
class Machine:
    """What a run could leave behind, outside of what it is told to keep."""

    interfaces: list[str]
    named_namespaces: str
    qdiscs: str
    run_entries: frozenset[str]


def look_at_machine() -> Machine:
    def output(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    interfaces = [link["ifname"] for link in json.loads(output("ip", "-j", "link"))]
    run_entries = {str(path) for path in Path("/run").iterdir()} - {str(RUNTIME_ROOT)}  # other runs may live
    return Machine(interfaces, output("ip", "netns"), output("tc", "qdisc"), frozenset(run_entries))


def owned_processes(plan: NetworkPlan) -> dict[str, ProcessId]:
    record: dict[str, Any] = json.loads((plan.runtime_dir / OWNER_FILE).read_bytes())
    return {name: ProcessId(*who) for name, who in record["processes"].items()}


def namespace_of(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def namespaces_in_use() -> set[str]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone
            found.add(namespace_of(process.name))
    return found


def wait_until_gone(processes: Iterable[ProcessId], *, limit_s: float) -> list[ProcessId]:
    """Return those that still live after *limit_s*."""
    poll, names, until_s = select.poll(), dict[int, ProcessId](), time.monotonic() + limit_s
    for who in processes:
        try:
            pidfd = os.pidfd_open(who.pid)
        except ProcessLookupError:
            continue
        if who.is_alive():
            names[pidfd] = who
            poll.register(pidfd, select.POLLIN)
        else:
            os.close(pidfd)
    while names and (left_s := until_s - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(left_s * 1_000):
            poll.unregister(pidfd)
            os.close(pidfd)
            del names[pidfd]
    for pidfd in names:
        os.close(pidfd)
    return list(names.values())
