"""What a network takes of this machine, against what this machine allows.

The figures per host, link and node process were measured (tests/bench/network_speed.py, and the open files of a run that was
up) and rounded up: what is refused would have failed half way, or had the kernel end somebody for want of memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from topologies.errors import CapabilityError
from topologies.model import Topology

#: Open files of the supervisor: some for itself, and per host its namespace, two control channels' ends and a shell.
SUPERVISOR_FILES: Final = 256
FILES_PER_HOST: Final = 6
#: Open files of the link emulator: per host a netlink socket and, while links are made, its namespace; per link two TAPs.
EMULATOR_FILES: Final = 64
EMULATOR_FILES_PER_HOST: Final = 2
FILES_PER_LINK: Final = 2

#: Supervisor, zygote, holder program, link emulator with the threads that close interfaces, captures.
TASKS: Final = 128
TASKS_PER_NODE: Final = 2  #: the process, and the thread that writes its records or its digest log

#: Supervisor with its analysis at the end, zygote, link emulator.
MEMORY_BYTES: Final = 300 << 20
MEMORY_PER_HOST_BYTES: Final = 3 << 19  #: namespaces and holder
MEMORY_PER_LINK_BYTES: Final = 1 << 19
MEMORY_PER_NODE_BYTES: Final = 12_000_000  #: private memory of one that has joined

#: The size of the quickstart, for who asks without an experiment: 24 hosts, 28 node processes.
QUICKSTART_HOSTS: Final = 24
QUICKSTART_LINKS: Final = 27
QUICKSTART_NODES: Final = 28


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network takes."""

    what: str  #: for messages: ``200 hosts, 205 links``
    open_files: int  #: of the process that has most of them open
    tasks: int  #: processes and threads
    memory_bytes: int
    ptys: int  #: once somebody has typed at every host

    @classmethod
    def of(cls, topology: Topology) -> Self:
        """Return what an emulated network of this topology takes, node processes included."""
        hosts = len(topology.nodes)
        return cls._of(hosts, len(topology.links), hosts + len(topology.proxies))

    @classmethod
    def of_quickstart(cls) -> Self:
        """Return what the quickstart takes."""
        return cls._of(QUICKSTART_HOSTS, QUICKSTART_LINKS, QUICKSTART_NODES)

    @classmethod
    def _of(cls, hosts: int, links: int, nodes: int) -> Self:
        return cls(
            what=f"{hosts} hosts, {links} links",
            open_files=max(
                SUPERVISOR_FILES + FILES_PER_HOST * hosts,
                EMULATOR_FILES + EMULATOR_FILES_PER_HOST * hosts + FILES_PER_LINK * links,
            ),
            tasks=TASKS + hosts + TASKS_PER_NODE * nodes,
            memory_bytes=MEMORY_BYTES
            + MEMORY_PER_HOST_BYTES * hosts
            + MEMORY_PER_LINK_BYTES * links
            + MEMORY_PER_NODE_BYTES * nodes,
            ptys=hosts,
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that there is only so much of."""

    name: str
    needed: int
    available: int | None  #: None: there is no limit
    unit: str  #: after the numbers, with its blank; empty for what is counted
    mend: str
    is_vital: bool = True  #: without it a run does not start

    @property
    def ok(self) -> bool:
        return self.available is None or self.available >= self.needed

    @property
    def spelt(self) -> str:
        """Both numbers, for people."""
        at_hand = "no limit" if self.available is None else f"{self.available}{self.unit} available"
        return f"{self.needed}{self.unit} needed, {at_hand}"


def limits(needs: Needs) -> list[Limit]:
    """Return every limit of this machine that *needs* could meet. Changes nothing."""
    memory_mib, available_mib = needs.memory_bytes >> 20, available_bytes() >> 20
    return [
        Limit(
            "open files",
            needs.open_files,
            _files_available(needs.open_files),
            "",
            f"ulimit -Hn {needs.open_files} before ./hconf (docker: --ulimit nofile={needs.open_files})",
        ),
        Limit(
            "processes",
            needs.tasks,
            _tasks_available(),
            "",
            f"end other programs, or: sysctl -w kernel.pid_max=4194304 kernel.threads-max={max(65_536, 4 * needs.tasks)}"
            f" (docker: --pids-limit {4 * needs.tasks})",
        ),
        Limit(
            "memory",
            memory_mib,
            available_mib,
            " MiB",
            f"leave {memory_mib} MiB free, or use a smaller topology",
        ),
        Limit(
            "pseudo-terminals",
            needs.ptys,
            max(0, _number("/proc/sys/kernel/pty/max", 0) - _number("/proc/sys/kernel/pty/nr", 0)),
            "",
            f"sysctl -w kernel.pty.max={max(4_096, 2 * needs.ptys)}",
            is_vital=False,
        ),
    ]


def check_limits(topology: Topology) -> None:
    """Refuse a network that is too large for this machine; changes nothing.

    Raises: CapabilityError, naming the first limit and its mend.
    """
    needs = Needs.of(topology)
    for limit in limits(needs):
        if limit.is_vital and not limit.ok:
            raise CapabilityError(
                where=limit.name,
                problem=f"{limit.spelt}: topology {topology.name} ({needs.what}) is too large for this machine",
                remedy=f"{limit.mend}; or a smaller topology" if "topology" not in limit.mend else limit.mend,
            )


def raise_file_limit(topology: Topology) -> None:
    """Let this process, and those that it starts, open the files that a network of *topology* takes.

    Raises: CapabilityError if it may not.
    """
    needed = Needs.of(topology).open_files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, needed):
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard if _is_enough(hard, needed) else needed))
    except (ValueError, OSError) as error:
        raise CapabilityError(
            where="open files",
            problem=f"{needed} needed, {hard} available",
            remedy=f"ulimit -Hn {needed} before ./hconf, or a smaller topology",
        ) from error


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


def _files_available(needed: int) -> int | None:
    """Return how many files a process of ours may open: its hard limit, or more where we may raise that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return None
    if hard >= needed:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, needed))
    except (ValueError, OSError):
        return hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return needed


def _tasks_available() -> int | None:
    """Return how many more processes and threads there may be."""
    found = []
    with contextlib.suppress(OSError, ValueError):  # proc(5): ``running/all`` is its fourth field
        there_are = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
        kernel = [_number(f"/proc/sys/kernel/{name}", 0) for name in ("pid_max", "threads-max")]
        found += [at_most - there_are for at_most in kernel if at_most]
    if os.geteuid() != 0:  # the kernel does not hold root to it
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    for folder in _cgroups("pids"):
        if (at_most := _number(folder / "pids.max", -1)) >= 0:
            found.append(at_most - _number(folder / "pids.current", 0))
    return max(0, min(found)) if found else None


def available_bytes() -> int:
    """Return the memory that can still be had: the machine's, or what the container's limit leaves."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    found = int(fields["MemAvailable"].split()[0]) * 1024
    for folder in _cgroups("memory"):
        for at_most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if (limit_bytes := _number(folder / at_most, -1)) >= 0:
                found = min(found, limit_bytes - _number(folder / used, 0))
    return max(0, found)


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' cgroups that may limit *controller*, inside out (cgroups(7), v1 and v2)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = Path("/sys/fs/cgroup", controller if controllers else "")
            folder = root / path.lstrip("/")
            yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root) and one.is_dir())


def _number(path: Path | str, otherwise: int) -> int:
    """Return the number in a file; *otherwise* where there is none, such as ``max``."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return otherwise
