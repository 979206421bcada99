"""Into a host of a run that is alive, from any other process of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.emulation.children import RUN_ID_VARIABLE
from testbed.emulation.ownership import ProcessId, boot_id, pid_namespace, read_record
from testbed.node_config import application_socket
from testbed.plan import RUNTIME_ROOT
from topologies.errors import CapabilityError, InputError, pick_one_of

#: Where python-ndn, ndn-cxx and others look for their forwarder, before any configuration file.
TRANSPORT_VARIABLE: Final = "NDN_CLIENT_TRANSPORT"

_HOST: Final = "host "  # as `EmulatedNetwork` records them
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run whose supervisor is alive."""

    run_id: str
    hosts: dict[str, ProcessId]  #: name -> the process that keeps its namespaces


def find_live_runs(root: Path = RUNTIME_ROOT) -> list[LiveRun]:
    """Return all runs of this machine that are alive and have their hosts, by ID."""
    found = []
    for directory in sorted(root.iterdir()) if root.is_dir() else []:
        record = read_record(directory)
        if record is None or record["run_id"] != directory.name:
            continue
        if record["boot_id"] != boot_id() or record["pid_namespace"] != pid_namespace():
            continue
        hosts = {
            name.removeprefix(_HOST): ProcessId(*who)
            for name, who in record["processes"].items()
            if name.startswith(_HOST)
        }
        if hosts and ProcessId(*record["supervisor"]).is_alive():
            found.append(LiveRun(record["run_id"], hosts))
    return found


def choose_run(run_id: str | None, *, where: str) -> LiveRun:
    """Return the run of that ID, or the only one. Raises: InputError."""
    runs = {run.run_id: run for run in find_live_runs()}
    if run_id is not None:
        if run_id not in runs:
            remedy = pick_one_of(run_id, runs) if runs else "start one: `hconf run EXPERIMENT.toml --hold`"
            raise InputError(where=where, problem=f"no run `{run_id}` is alive", remedy=remedy)
        return runs[run_id]
    if not runs:
        raise InputError(
            where=where,
            problem="no run is alive on this machine",
            remedy="start one in another terminal: `hconf run EXPERIMENT.toml --hold`",
        )
    if len(runs) > 1:
        raise InputError(
            where=where,
            problem=f"{len(runs)} runs are alive",
            remedy=f"say which with --run: {', '.join(runs)}",
        )
    return next(iter(runs.values()))


def enter_host(run: LiveRun, host: str, *, where: str) -> None:
    """Move this process, which must have one thread only, into the namespaces of *host*, and tell it of its forwarder.

    Raises: InputError for an unknown host or one that is gone, CapabilityError if the kernel refuses.
    """
    holder = run.hosts.get(host)
    if holder is None:
        raise InputError(
            where=where, problem=f"run {run.run_id} has no node `{host}`", remedy=pick_one_of(host, run.hosts)
        )
    try:
        with _namespaces(holder) as fds:
            directory = Path.cwd()
            for fd, kind in zip(fds, (_CLONE_NEWNET, _CLONE_NEWNS), strict=True):
                if _libc.setns(fd, kind) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
    except FileNotFoundError as error:
        raise InputError(where=where, problem=f"run {run.run_id} has just ended", remedy="start it again") from error
    except OSError as error:
        raise CapabilityError(
            where=where, problem=f"cannot enter the namespaces of {host} ({error.strerror})", remedy="run it with sudo"
        ) from error
    os.chdir(directory)  # entering a mount namespace has moved us to its root
    os.environ[RUN_ID_VARIABLE] = run.run_id
    os.environ[TRANSPORT_VARIABLE] = f"unix://{application_socket(run.run_id, host)}"


@contextlib.contextmanager
def _namespaces(holder: ProcessId) -> Iterator[tuple[int, int]]:
    """Open the network and mount namespaces of a process. Raises: FileNotFoundError if it is gone, OSError."""
    net = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        mount = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not holder.is_alive():  # after it was opened: it is that process's, and no other's
                raise FileNotFoundError
            yield net, mount
        finally:
            os.close(mount)
    finally:
        os.close(net)
