"""The namespaces of all hosts, made together and ended together by the holder program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import trio

from testbed.emulation.children import Helper, HelperError
from testbed.faults.targets import ProcessState
from topologies.errors import CapabilityError

HOLDER_PROGRAM: Final = Path(__file__).with_name("holders.py")

START_LIMIT_S: Final = 60.0  #: 1,000 hosts take some 3 s on two cores
END_LIMIT_S: Final = 5.0  #: 1,000 hosts take some 0.3 s


class Hosts:
    """The network namespaces of a run, one per host name."""

    def __init__(self, helper: Helper) -> None:
        self.helper = helper
        self.pids: dict[str, int] = {}  #: host -> its holder process
        self.netns_fds: dict[str, int] = {}  #: host -> open file of its network namespace

    @classmethod
    def begin(cls, names: Sequence[str], *, run_id: str, log_path: Path) -> Self:
        """Start the holder program; `ready` waits for it. Nothing of it outlives this process."""
        command = [sys.executable, "-I", "-S", str(HOLDER_PROGRAM), "--hosts", ",".join(names)]
        return cls(Helper.start("holder program", command, run_id=run_id, log_path=log_path))

    async def ready(self, names: Sequence[str]) -> None:
        """Wait until every host has its namespaces.

        Raises: CapabilityError if this machine refuses to make them, HelperError if the program died.
        """
        with trio.fail_after(START_LIMIT_S):
            answer = await self.helper.receive()
        if answer is None:
            raise HelperError("the holder program ended before the hosts were made; its log says why")
        if "error" in answer:
            raise CapabilityError(
                where="network namespaces",
                problem=f"cannot be made here ({answer['error']})",
                remedy="run as root, outside of any container that forbids unshare(2) and mount(2)",
            )
        self.pids = dict(zip(names, answer["pids"], strict=True))
        for name, pid in self.pids.items():
            self.netns_fds[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    async def end(self) -> None:
        """End every process in the hosts and the hosts themselves. Bounded; never raises for what is already gone."""
        self.close_files()
        try:
            with trio.move_on_after(END_LIMIT_S):
                await self.helper.send({"op": "end"})
                await self.helper.receive()
        except HelperError:
            pass  # somebody killed it; its holders went with it
        await self.helper.wait_ended(limit_s=END_LIMIT_S)

    def close_files(self) -> None:
        """Close the namespace files: an open one would keep its namespace alive."""
        while self.netns_fds:
            os.close(self.netns_fds.popitem()[1])


def read_carrier(pid: int, intf: str) -> bool:
    """Return whether *intf*, in the namespaces of process *pid*, has a carrier.

    Reads the host's own sysfs, through the root directory of the process (proc(5), /proc/pid/root).
    Raises: OSError if there is no such interface, or if it is administratively down (sysfs answers EINVAL).
    """
    return Path(f"/proc/{pid}/root/sys/class/net/{intf}/carrier").read_text(encoding="ascii").strip() == "1"


def read_process_state(pid: int) -> ProcessState:
    """Return what process *pid* is doing, as its kernel says (proc(5), /proc/pid/stat, third field)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "dead"
    state = stat.rpartition(")")[2].split()[0]
    if state in "ZXx":
        return "dead"
    return "frozen" if state in "Tt" else "running"
