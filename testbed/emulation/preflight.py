"""What this machine must have before a network is built; each lack ends the run before anything is started."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from pathlib import Path
from typing import Final

from topologies.errors import CapabilityError

TUN_DEVICE: Final = Path("/dev/net/tun")

#: Open files of the supervisor: some for itself, and per host its namespace, two control channels' ends and a shell.
FILES_BASE: Final = 256
FILES_PER_HOST: Final = 6


def check_machine(*, hosts: int, taps: bool = True) -> None:
    """Check that this process can build a network of so many hosts; raises its limit of open files if need be.

    Without *taps* none of its links is a `wire` one.

    Raises: CapabilityError, naming the first lack and how to mend it.
    """
    if os.geteuid() != 0:
        raise CapabilityError(
            where="this user",
            problem="an emulated network takes root, for namespaces and interfaces",
            remedy="run it with sudo",
        )
    if shutil.which("mnexec") is None:
        raise CapabilityError(
            where="mnexec",
            problem="is not installed; Mininet enters its hosts through it",
            remedy="apt-get install --no-install-recommends mininet",
        )
    try:
        if taps:
            os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise CapabilityError(
            where=str(TUN_DEVICE),
            problem=f"cannot be opened ({error.strerror}); the ends of `wire` links are TAP interfaces",
            remedy="modprobe tun, or give the container that device and the capability NET_ADMIN",
        ) from error
    needed = FILES_BASE + FILES_PER_HOST * hosts
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
            return
        raise CapabilityError(
            where="open files",
            problem=f"{hosts} hosts take {needed}, the limit of this process is {hard}",
            remedy=f"ulimit -Hn {needed}, or a smaller topology",
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
