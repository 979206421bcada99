"""What this machine can emulate, what is missing, and the command that mends it.

Everything is tried for real: links and queueing disciplines in a network namespace that ends with the probe
(probes.py). Nothing is left behind, and nothing that was there before is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
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
from testbed.limits import Needs, check_limits, limits
from testbed.probes import NAMES, NETEM_OPTIONS, QDISCS
from topologies.errors import CapabilityError
from topologies.model import Topology

#: ``run``: without it no experiment starts. The others say what is lost.
Need = Literal["run", "capture", "exact delays", "wire links", "netem links", "large networks", "speed", "tidiness"]

#: What probes.py tried: why it failed, None where it worked.
Probed = dict[str, str | None]

#: Distributions that a run or its report imports, by the name that pip knows.
PACKAGES: Final = (
    *("matplotlib", "mininet", "msgspec", "networkx", "pandas", "pynacl", "pyroute2", "rich", "scapy"),
    *("setuptools", "topohub", "trio", "typer"),
)
OLDEST_PYTHON: Final = (3, 11)

#: Start of the names of the capabilities that say what a link back end can do.
BACK_ENDS: Final = ("wire: ", "netem: ")
IMPAIRMENTS: Final = (*NETEM_OPTIONS, "carrier loss", "one-way settings")

PROBE_LIMIT_S: Final = 20.0
PROGRAM_LIMIT_S: Final = 5.0

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


def collect(topology: Topology | None = None) -> list[Capability]:
    """Try everything and return what came of it, the most necessary first. Takes about a third of a second.

    Args:
        topology: of the experiment whose needs limits are compared with; None: of the quickstart.
    """
    found = _probe()
    return [*_required(found), *_helpful(found, topology), *_impairments(found)]


def can_run(capabilities: Iterable[Capability]) -> bool:
    """Return whether experiments can run here."""
    return all(capability.ok for capability in capabilities if capability.needed_for == "run")


def require_for_run(*, capture: bool = False, taps: bool = True, topology: Topology | None = None) -> None:
    """Return if an experiment can run here, on a network of *topology*.

    With captures if *capture*; without *taps* none of its links is a `wire` one.

    Raises: CapabilityError for the first thing that is missing; it names what mends it.
    """
    required = [one for one in _required(_probe()) if taps or one.name not in _OF_TAPS]
    for capability in [*required, *([_program("tcpdump", "capture")] if capture else [])]:
        if not capability.ok:
            raise CapabilityError(where=capability.name, problem=capability.detail, remedy=capability.mend)
    if topology is not None:
        check_limits(topology)


def as_json(capabilities: Sequence[Capability]) -> str:
    """Return the capabilities as a JSON array, one object each with the fields of `Capability`."""
    return json.dumps([asdict(capability) for capability in capabilities], indent=2)


def as_table(capabilities: Sequence[Capability]) -> Table:
    """Return the capabilities as a table for people."""
    table = Table(title="What this machine can emulate", title_justify="left")
    for column in ("", "what", "found", "needed for", "to mend it"):
        table.add_column(column, overflow="fold")
    for one in capabilities:
        if one.name.startswith(BACK_ENDS):
            continue  # in the other table
        verdict = "[green]yes[/]" if one.ok else "[bold red]NO[/]" if one.needed_for == "run" else "[yellow]no[/]"
        table.add_row(verdict, one.name, _plain(one.detail), one.needed_for, _plain(one.mend))
    return table


def as_impairments_table(capabilities: Iterable[Capability]) -> Table:
    """Return what each link back end can do here as a table for people."""
    known = {one.name: one for one in capabilities if one.name.startswith(BACK_ENDS)}
    table = Table(title="Impairments of links", title_justify="left")
    for column in ("impairment", *(back_end.removesuffix(": ") for back_end in BACK_ENDS)):
        table.add_column(column, overflow="fold")
    for name in IMPAIRMENTS:
        ways = [known[f"{back_end}{name}"] for back_end in BACK_ENDS if f"{back_end}{name}" in known]
        table.add_row(name, *("[green]yes[/]" if one.ok else f"[yellow]no[/]: {_plain(one.detail)}" for one in ways))
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
    if os.geteuid() != 0:
        return dict.fromkeys(NAMES, _NOT_TRIED)
    command = ["unshare", "--net", "--mount", "--propagation", "slave", sys.executable, "-m", "testbed.probes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(NAMES, str(error))
    if done.returncode != 0:
        return dict.fromkeys(NAMES, (done.stderr.strip().splitlines() or [f"probe ended with {done.returncode}"])[-1])
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


def _helpful(found: Probed, topology: Topology | None) -> list[Capability]:
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
        *_limits(topology),
        _leftovers(),
    ]


def _impairments(found: Probed) -> list[Capability]:
    """Return for every impairment whether each back end makes it here.

    `wire` computes all of them itself, so it can do them as soon as there are TAP interfaces.
    """
    as_root = _AS_ROOT if os.geteuid() else ""
    rows = []
    for name in IMPAIRMENTS:
        by_wire = found["carrier"] if name == "carrier loss" else found["tap"]
        by_netem = found["veth carrier"] if name == "carrier loss" else found.get(f"netem {name}", found["netem"])
        rows += [
            _capability(
                f"wire: {name}", "wire links", problem=by_wire, detail="yes", mend=as_root or "see TAP interfaces"
            ),
            _capability(
                f"netem: {name}",
                "netem links",
                problem=by_netem or found["veth"],
                detail="yes",
                mend=as_root or "use `wire` links, or a kernel that has it (hconf vm)",
            ),
        ]
    return rows


def _cpus() -> Capability:
    count = len(os.sched_getaffinity(0))
    few = None if count >= CPUS_MIN else f"{count}, which the link emulator shares with every node"
    detail = f"{count}, kernel {platform.release()} {platform.machine()}"
    return _capability("CPUs", "exact delays", problem=few, detail=detail, mend=f"give the machine {CPUS_MIN} or more")


def _limits(topology: Topology | None) -> list[Capability]:
    needs = Needs.of_quickstart() if topology is None else Needs.of(topology)
    wanting = "the quickstart" if topology is None else "this experiment"
    return [
        _capability(
            limit.name,
            "run" if limit.is_vital and topology is not None else "large networks",
            problem=None if limit.ok else f"{limit.spelt} ({wanting}: {needs.what})",
            detail=f"{limit.spelt} ({wanting}: {needs.what})",
            mend=limit.mend,
        )
        for limit in limits(needs)
    ]


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
