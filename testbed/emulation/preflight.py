"""What this machine must have before a network is built; each lack ends the run before anything is started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from testbed.limits import check_limits, raise_file_limit
from topologies.errors import CapabilityError
from topologies.model import Topology

TUN_DEVICE: Final = Path("/dev/net/tun")


def check_machine(topology: Topology, *, taps: bool = True) -> None:
    """Check that this process can build a network of this topology; raises its limit of open files if need be.

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
    check_limits(topology)
    raise_file_limit(topology)
