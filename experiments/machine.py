"""What a run was made on and with, for its manifest, and how busy the machine was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

from proxy import compiled
from testbed.vm.description import DESCRIPTION_VARIABLE

_ROOT: Final = Path(__file__).resolve().parent.parent
_GIT_LIMIT_S: Final = 5.0

#: Distributions that make a difference to what is measured.
_PACKAGES: Final = (
    *("mininet", "msgspec", "networkx", "numpy", "pandas", "pynacl", "pyroute2", "rich", "topohub", "trio"),
    "typer",
)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Ticks that all CPUs together have spent since the machine booted."""

    busy: int
    total: int

    @classmethod
    def now(cls) -> Self:
        """Read /proc/stat (proc(5)): user nice system idle iowait irq softirq steal; guest time is in user time."""
        with Path("/proc/stat").open(encoding="ascii") as stat:
            ticks = [int(field) for field in stat.readline().split()[1:9]]
        return cls(busy=sum(ticks) - ticks[3] - ticks[4], total=sum(ticks))

    def busy_ratio_since(self, earlier: CpuTimes) -> float:
        """Return which part of all CPUs was busy between *earlier* and now, 0 to 1."""
        return (self.busy - earlier.busy) / max(1, self.total - earlier.total)


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run uses, and whether the protocol runs compiled."""
    versions = {
        "python": platform.python_version(),
        "proxy.core": "compiled" if compiled.is_in_use() else "interpreted",
    }
    for name in ("hconf", *_PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def describe_machine() -> dict[str, Any]:
    """Return what machine this is."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _field("/proc/cpuinfo", "model name"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "architecture": platform.machine(),
        "system": _field("/etc/os-release", "PRETTY_NAME", separator="=").strip('"'),
    }


def describe_vm() -> dict[str, Any] | None:
    """Return what virtual machine of ours this is (testbed/vm/machine.py); None where it is none."""
    said = os.environ.get(DESCRIPTION_VARIABLE)
    found: dict[str, Any] | None = json.loads(said) if said else None
    return found


def describe_commit() -> dict[str, Any]:
    """Return the git commit of this hconf; nothing where it is not a clone."""
    if not (_ROOT / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit or None, "git_dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        # safe.directory: as root in another user's clone git would refuse to read it.
        done = subprocess.run(
            ["git", "-c", f"safe.directory={_ROOT}", "-C", str(_ROOT), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _field(path: str, key: str, *, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(separator)[2].strip() for line in lines if line.partition(separator)[0].strip() == key), ""
    )


def utc_offset_s() -> float:
    """Return UTC minus CLOCK_MONOTONIC: of some readings, the one that least time passed in."""
    readings: list[tuple[float, float]] = []
    for _ in range(9):
        before_s = time.monotonic()
        utc_s = time.time()
        after_s = time.monotonic()
        readings.append((after_s - before_s, utc_s - (before_s + after_s) / 2))
    return min(readings)[1]
