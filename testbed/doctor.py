"""What this machine can emulate, what is missing, and the command that mends it.

Everything is tried for real: links and queueing disciplines in a network namespace that ends with the probe
(probes.py). Nothing is left behind, and nothing that was there before is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from rich.table import Table

from testbed.emulation.ownership import find_leftovers
from testbed.probes import QDISCS
from topologies.errors import CapabilityError

#: ``run``: without it no experiment starts. The others say what is lost.
Need = Literal["run", "capture", "exact delays", "netem links", "large networks", "speed", "tidiness"]

#: What probes.py tried: why it failed, None where it worked.
Probed = dict[str, str | None]

#: Distributions that a run or its report imports, by the name that pip knows.
PACKAGES: Final = (
    *("matplotlib", "mininet", "msgspec", "networkx", "pandas", "pynacl", "pyroute2", "rich", "scapy"),
    *("setuptools", "topohub", "trio", "typer"),
)
OLDEST_PYTHON: Final = (3, 11)

PROBE_LIMIT_S: Final = 20.0
PROGRAM_LIMIT_S: Final = 5.0

# What the quickstart (24 hosts, 28 node processes) takes, with room to spare.
FILES_MIN: Final = 1_024
PROCESSES_MIN: Final = 512
PTYS_MIN: Final = 64
MEMORY_MIN_BYTES: Final = 1 << 30
CPUS_MIN: Final = 2

#: What only `wire` links need.
_OF_TAPS: Final = ("TAP interfaces", "carrier of a TAP interface")

_NOT_TRIED: Final = "not tried: that takes root"
_AS_ROOT: Final = "run it as root: sudo ./hconf ..."


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that this machine can do or cannot."""

    name: str
    ok: bool
    detail: str  #: what was found
    mend: str  #: what to do about it; empty where `ok`
    needed_for: Need


def collect() -> list[Capability]:
    """Try everything and return what came of it, the most necessary first. Takes about a third of a second."""
    found = _probe()
    return [*_required(found), *_helpful(found)]


def can_run(capabilities: Iterable[Capability]) -> bool:
    """Return whether experiments can run here."""
    return all(capability.ok for capability in capabilities if capability.needed_for == "run")


def require_for_run(*, capture: bool = False, taps: bool = True) -> None:
    """Return if an experiment can run here, with captures if *capture*; without *taps* none of its links is a `wire` one.

    Raises: CapabilityError for the first thing that is missing; it names what mends it.
    """
    required = [one for one in _required(_probe()) if taps or one.name not in _OF_TAPS]
    for capability in [*required, *([_program("tcpdump", "capture")] if capture else [])]:
        if not capability.ok:
            raise CapabilityError(where=capability.name, problem=capability.detail, remedy=capability.mend)


def as_json(capabilities: Sequence[Capability]) -> str:
    """Return the capabilities as a JSON array, one object each with the fields of `Capability`."""
    return json.dumps([asdict(capability) for capability in capabilities], indent=2)


def as_table(capabilities: Sequence[Capability]) -> Table:
    """Return the capabilities as a table for people."""
    table = Table(title="What this machine can emulate", title_justify="left")
    for column in ("", "what", "found", "needed for", "to mend it"):
        table.add_column(column, overflow="fold")
    for one in capabilities:
        verdict = "[green]yes[/]" if one.ok else "[bold red]NO[/]" if one.needed_for == "run" else "[yellow]no[/]"
        table.add_row(verdict, one.name, _plain(one.detail), one.needed_for, _plain(one.mend))
    return table


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _capability(name: str, needed_for: Need, *, problem: str | None, detail: str, mend: str) -> Capability:
    if problem is None:
        return Capability(name, ok=True, detail=detail, mend="", needed_for=needed_for)
    return Capability(name, ok=False, detail=problem, mend=mend, needed_for=needed_for)


# --- what a run cannot do without ------------------------------------------------------------------------------------


def _required(found: Probed) -> list[Capability]:
    return [
        _root(),
        _program("mnexec", "run"),
        _capability(
            "network namespaces",
            "run",
            problem=found["mount"],
            detail="made one, with a /sys of its own",
            mend=_AS_ROOT
            if os.geteuid()
            else "leave the container, or give it the capability SYS_ADMIN (--privileged)",
        ),
        _capability(
            _OF_TAPS[0],
            "run",
            problem=found["tap"],
            detail="/dev/net/tun works",
            mend=_AS_ROOT if os.geteuid() else _mend_tun(),
        ),
        _capability(
            _OF_TAPS[1],
            "run",
            problem=found["carrier"],
            detail="goes down and reads back as down",
            mend=_AS_ROOT if os.geteuid() else "use a kernel of version 5.0 or newer",
        ),
        _python(),
        _packages(),
    ]


def _probe() -> Probed:
    """Run probes.py in namespaces of its own."""
    names = ("mount", "tap", "carrier", *QDISCS, "sched_fifo")
    if os.geteuid() != 0:
        return dict.fromkeys(names, _NOT_TRIED)
    command = ["unshare", "--net", "--mount", "--propagation", "slave", sys.executable, "-m", "testbed.probes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(names, str(error))
    if done.returncode != 0:
        return dict.fromkeys(names, (done.stderr.strip().splitlines() or [f"probe ended with {done.returncode}"])[-1])
    found: Probed = json.loads(done.stdout)
    return found


def _root() -> Capability:
    uid = os.geteuid()
    return _capability(
        "root",
        "run",
        problem=None if uid == 0 else f"user {uid} is not root, and namespaces and interfaces take root",
        detail="user 0",
        mend=_AS_ROOT,
    )


def _program(name: Literal["mnexec", "tcpdump"], needed_for: Need) -> Capability:
    package, argument = {"mnexec": ("mininet", "true"), "tcpdump": ("tcpdump", "--version")}[name]
    path, problem = shutil.which(name), None
    if path is None:
        problem = "is not installed, or not in PATH"
    else:
        try:
            subprocess.run([path, argument], capture_output=True, check=True, timeout=PROGRAM_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"does not work ({error})"
    return _capability(
        name,
        needed_for,
        problem=problem,
        detail=str(path),
        mend=f"./hconf installs it when run as root; or: apt-get install --no-install-recommends {package}",
    )


def _mend_tun() -> str:
    if Path("/dev/net/tun").exists():
        return "let the container use it (--device /dev/net/tun --cap-add NET_ADMIN)"
    return "modprobe tun; if that does not make it: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"


def _python() -> Capability:
    old = sys.version_info < OLDEST_PYTHON
    version = f"{platform.python_version()} at {sys.executable}"
    mend = "set HCONF_PYTHON to a Python 3.11 or newer and start ./hconf"
    return _capability("Python", "run", problem=f"{version} is too old" if old else None, detail=version, mend=mend)


def _packages() -> Capability:
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    missing = [name for name in PACKAGES if name not in versions]
    return _capability(
        "Python packages",
        "run",
        problem=f"not installed: {', '.join(missing)}" if missing else None,
        detail=f"all {len(versions)}, with mininet {versions.get('mininet')} and trio {versions.get('trio')}",
        mend="remove .venv and start ./hconf, which makes it anew",
    )


# --- what a run is better with ---------------------------------------------------------------------------------------


def _helpful(found: Probed) -> list[Capability]:
    as_root = _AS_ROOT if os.geteuid() else ""
    return [
        _program("tcpdump", "capture"),
        _capability(
            "real-time scheduling",
            "exact delays",
            problem=found["sched_fifo"],
            detail="SCHED_FIFO granted",
            mend=as_root
            or "give the container the capability SYS_NICE; runs work without it and say how exact they were",
        ),
        _cpus(),
        *(
            _capability(
                f"qdisc {kind}",
                "netem links",
                problem=found[kind],
                detail="the kernel has it",
                mend=as_root
                or "not needed: `wire` links do without. Else use a kernel built with it, or: modprobe sch_" + kind,
            )
            for kind in QDISCS
        ),
        *_limits(),
        _leftovers(),
    ]


def _cpus() -> Capability:
    count = len(os.sched_getaffinity(0))
    few = None if count >= CPUS_MIN else f"{count}, which the link emulator shares with every node"
    detail = f"{count}, kernel {platform.release()} {platform.machine()}"
    return _capability("CPUs", "exact delays", problem=few, detail=detail, mend=f"give the machine {CPUS_MIN} or more")


def _limits() -> list[Capability]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    ptys = _number("/proc/sys/kernel/pty/max") - _number("/proc/sys/kernel/pty/nr")
    memory_bytes = _available_bytes()
    return [
        _at_least("open files", files, FILES_MIN, mend=f"ulimit -Hn {FILES_MIN * 64}"),
        _at_least("processes", processes, PROCESSES_MIN, mend=f"ulimit -u {PROCESSES_MIN * 64}"),
        _at_least("pseudo-terminals", ptys, PTYS_MIN, mend="sysctl -w kernel.pty.max=4096"),
        _capability(
            "memory",
            "large networks",
            problem=None if memory_bytes >= MEMORY_MIN_BYTES else f"{memory_bytes >> 20} MiB available",
            detail=f"{memory_bytes >> 20} MiB available",
            mend=f"leave {MEMORY_MIN_BYTES >> 20} MiB for the quickstart",
        ),
    ]


def _at_least(name: str, found: int, least: int, *, mend: str) -> Capability:
    unlimited = found == resource.RLIM_INFINITY
    return _capability(
        name,
        "large networks",
        problem=None if unlimited or found >= least else f"at most {found}",
        detail="no limit" if unlimited else f"at most {found}",
        mend=mend,
    )


def _number(path: str) -> int:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _available_bytes() -> int:
    """Return the memory that can still be had: the machine's, or what the container's limit leaves."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available_bytes = int(fields["MemAvailable"].split()[0]) * 1024
    limit_bytes = _number("/sys/fs/cgroup/memory.max")
    if limit_bytes:
        available_bytes = min(available_bytes, limit_bytes - _number("/sys/fs/cgroup/memory.current"))
    return available_bytes


def _leftovers() -> Capability:
    found = find_leftovers()
    names = ", ".join(one.run_id for one in found)
    return _capability(
        "leftovers of killed runs",
        "tidiness",
        problem=f"of {names}" if found else None,
        detail="none",
        mend="hconf clean",
    )
