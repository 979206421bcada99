"""Who owns what: each run says in ``/run/hconf/<run_id>/owner.json`` which processes and paths are its own.

Removing leftovers goes by that record alone, never by what something is called. A process is named by its number *and*
its start time, so a number that was given to another process since is not mistaken for ours; besides, whatever a run
starts carries the run's ID in its environment, so a process started a moment before its supervisor was killed is known
too. Namespaces and interfaces of a run exist only while its processes do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from testbed.emulation.children import RUN_ID_VARIABLE
from testbed.plan import RUN_ID_PATTERN, RUNTIME_ROOT

OWNER_FILE: Final = "owner.json"

#: How long `clean` waits for killed processes to be gone.
KILL_LIMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, for ever: its number and when it started, in clock ticks since the machine booted."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of the process that has the number now; None if there is none, or only a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *fields = stat.rpartition(")")[2].split()  # the command before may contain anything
        return None if state in "ZX" else cls(pid, int(fields[18]))  # field 22 of proc(5), counted from 1

    def is_alive(self) -> bool:
        return ProcessId.of(self.pid) == self


def boot_id() -> str:
    """Return what tells this boot of the machine from others; process numbers and start times repeat after it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def pid_namespace() -> str:
    """Return which processes the process numbers here are about."""
    return str(Path("/proc/self/ns/pid").readlink())


@dataclass(slots=True)
class Ownership:
    """The record of one live run. `record` as things are started; `release` at the end."""

    run_id: str
    root: Path = RUNTIME_ROOT
    processes: dict[str, ProcessId] = field(default_factory=dict)  #: what it is -> who

    @property
    def directory(self) -> Path:
        return self.root / self.run_id

    def claim(self) -> None:
        """Make the run's directory, with the record in it from the first moment.

        Raises: FileExistsError if a run of that ID is there.
        """
        me = _myself()
        staging = self.root / f".new-{me.pid}-{me.start_ticks}"
        while True:
            self.root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run's end removed the empty root meanwhile
                staging.mkdir(exist_ok=True)
                break
        self._write(staging / OWNER_FILE)
        if self.directory.exists():  # rename(2) would replace an empty one
            shutil.rmtree(staging)
            raise FileExistsError(f"{self.directory} exists: a run of that ID lives, or `clean` has work to do")
        staging.rename(self.directory)

    def record(self, pids: dict[str, int]) -> None:
        """Note further processes; those that have ended already are left out."""
        for name, pid in pids.items():
            identity = ProcessId.of(pid)
            if identity is not None:
                self.processes[name] = identity
        temporary = self.directory / f".{OWNER_FILE}"
        self._write(temporary)
        temporary.replace(self.directory / OWNER_FILE)

    def release(self) -> None:
        """Remove the run's directory, and the root if no other run is in it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)
        with contextlib.suppress(OSError):  # not empty: other runs
            self.root.rmdir()

    def _write(self, path: Path) -> None:
        me = _myself()
        record = {
            "run_id": self.run_id,
            "boot_id": boot_id(),
            "pid_namespace": pid_namespace(),
            "supervisor": [me.pid, me.start_ticks],
            "processes": {name: [who.pid, who.start_ticks] for name, who in self.processes.items()},
            "paths": [str(self.directory)],
        }
        path.write_text(json.dumps(record), encoding="utf-8")


def _myself() -> ProcessId:
    identity = ProcessId.of(os.getpid())
    if identity is None:
        raise RuntimeError("/proc does not show this process")
    return identity


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a run left whose supervisor is dead."""

    run_id: str
    directory: Path
    processes: tuple[ProcessId, ...]  #: alive when looked


def find_leftovers(root: Path = RUNTIME_ROOT) -> list[Leftovers]:
    """Return what dead runs left behind; runs whose supervisor lives, or cannot be judged from here, are left out."""
    found = []
    for directory in sorted(root.iterdir()) if root.is_dir() else []:
        if directory.is_symlink() or not directory.is_dir():
            continue  # not ours
        if directory.name.startswith(".new-"):
            pid, start_ticks = (int(part) for part in directory.name.split("-")[1:])
            if not ProcessId(pid, start_ticks).is_alive():
                found.append(Leftovers(directory.name, directory, ()))
            continue
        record = read_record(directory)
        if record is None or record["run_id"] != directory.name:
            continue  # not ours
        same_boot = record["boot_id"] == boot_id()
        if same_boot and (record["pid_namespace"] != pid_namespace() or ProcessId(*record["supervisor"]).is_alive()):
            continue
        recorded = [ProcessId(*who) for who in record["processes"].values()] if same_boot else []
        marked = processes_marked(record["run_id"]) if same_boot else []
        alive = {who for who in [*recorded, *marked] if who.is_alive()}
        found.append(Leftovers(directory.name, directory, tuple(sorted(alive, key=lambda who: who.pid))))
    return found


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return what a run has written down of what it owns; None where *directory* is no run's."""
    try:
        record: dict[str, Any] = json.loads((directory / OWNER_FILE).read_bytes())
        shaped = (
            RUN_ID_PATTERN.fullmatch(record["run_id"])
            and isinstance(record["boot_id"], str)
            and isinstance(record["pid_namespace"], str)
            and all(
                len([int(part) for part in who]) == 2 for who in [record["supervisor"], *record["processes"].values()]
            )
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if shaped else None


def processes_marked(run_id: str) -> list[ProcessId]:
    """Return the live processes that carry the run's ID in the environment they were started with."""
    marker, found = f"{RUN_ID_VARIABLE}={run_id}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        identity = ProcessId.of(int(entry.name))
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone, or not for us to read: then not ours either
        if identity is not None and marker in environment.split(b"\0"):
            found.append(identity)
    return found


def kill_and_wait(processes: Iterable[ProcessId], *, limit_s: float = KILL_LIMIT_S) -> list[ProcessId]:
    """Kill processes by identity and wait until they are gone. Returns those that are not after *limit_s*."""
    left, give_up_s = list(processes), time.monotonic() + limit_s
    for who in left:
        kill(who)
    while left and time.monotonic() < give_up_s:
        left = [who for who in left if who.is_alive()]
        time.sleep(0.005 if left else 0)
    return left


def kill(who: ProcessId) -> None:
    """Send SIGKILL to exactly that process; nothing happens if it is gone."""
    try:
        pidfd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    try:
        if who.is_alive():  # the descriptor cannot come to mean another process after this look
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def clean(root: Path = RUNTIME_ROOT) -> list[str]:
    """Remove what dead runs left, and only that. Returns a line for each thing removed or that would not go."""
    done = []
    for leftovers in find_leftovers(root):
        stubborn = kill_and_wait(leftovers.processes)
        done += [
            f"run {leftovers.run_id}: process {who.pid} {'would not end' if who in stubborn else 'ended'}"
            for who in leftovers.processes
        ]
        if not stubborn:
            shutil.rmtree(leftovers.directory, ignore_errors=True)
            done.append(f"run {leftovers.run_id}: {leftovers.directory} removed")
    with contextlib.suppress(OSError):  # not there, or not empty: other runs
        root.rmdir()
    return done
