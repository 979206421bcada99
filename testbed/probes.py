"""What the kernel lets us do, found out by doing it: `doctor` runs this as a program of its own.

It expects network and mount namespaces of its own (doctor.py starts it with unshare(1)), so everything that it makes
is gone when it ends. It prints one JSON object: what was tried, and why it failed, or null where it worked.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testbed.links.model import LinkEnd
from testbed.links.rtnetlink import set_carrier
from testbed.links.tap import make_taps
from topologies.errors import HconfError

_END: Final = LinkEnd(
    host="probe",
    intf="probe0",
    address="10.0.0.0/31",
    mac="02:00:00:00:00:01",
    peer_address="10.0.0.1",
    peer_mac="02:00:00:00:00:02",
)

#: Each queueing discipline with the least that it must be told.
QDISCS: Final = {
    "netem": ("delay", "1ms"),
    "tbf": ("rate", "1mbit", "burst", "10kb", "latency", "10ms"),
    "htb": (),
}

#: What netem is told for each impairment that it makes.
NETEM_OPTIONS: Final = {
    "delay": ("delay", "1ms"),
    "jitter": ("delay", "10ms", "1ms", "distribution", "normal"),
    "rate and queue": ("rate", "1mbit", "limit", "100"),
    "loss": ("loss", "1%"),
    "loss in bursts": ("loss", "gemodel", "1%", "10%"),
    "duplication": ("duplicate", "1%"),
    "reordering": ("delay", "10ms", "reorder", "1%"),
    "corruption": ("corrupt", "1%"),
    "black hole": ("loss", "100%"),
}

COMMAND_LIMIT_S: Final = 5.0


def try_mount() -> str | None:
    """Mount a /sys that shows this namespace, as every host has it."""
    mounted = subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], capture_output=True, text=True, check=False)
    return mounted.stderr.strip() or None if mounted.returncode else None


def try_taps() -> dict[str, str | None]:
    """Make a link end as a run does, then take its carrier away and read that back."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        tap = make_taps({"probe": [(_END, 1_500)]}, netns_fds={"probe": own})["probe", "probe0"]
    except (HconfError, OSError) as error:
        return {"tap": str(getattr(error, "problem", error)), "carrier": "not tried: there is no TAP interface"}
    (number,) = tap.route.carry_out([set_carrier(tap.index, up=False)])
    if number:
        return {"tap": None, "carrier": os.strerror(number)}
    went_down = not tap.route.link_state(tap.index).carrier
    return {"tap": None, "carrier": None if went_down else "the kernel accepted it, but the carrier stayed up"}


def try_qdisc(kind: str, options: Sequence[str]) -> str | None:
    """Give the loopback interface of this namespace a queueing discipline."""
    return _try_command("tc", "qdisc", "replace", "dev", "lo", "root", kind, *options)


def try_netem(whole: str | None) -> dict[str, str | None]:
    """Try each impairment; where netem as a *whole* is missing, that is why none works."""
    return {
        f"netem {name}": try_qdisc("netem", options) if whole is None else whole
        for name, options in NETEM_OPTIONS.items()
    }


def try_veth() -> dict[str, str | None]:
    """Make a veth pair as `netem` links are, then take one end down and see whether the other has lost its carrier."""
    for command in (
        ("link", "add", "probe1", "type", "veth", "peer", "name", "probe2"),
        ("link", "set", "probe1", "up"),
        ("link", "set", "probe2", "up"),
        ("link", "set", "probe1", "down"),
    ):
        if problem := _try_command("ip", *command):
            return {"veth": problem, "veth carrier": problem}
    carrier = Path("/sys/class/net/probe2/carrier")
    with contextlib.suppress(OSError):
        if carrier.read_text(encoding="ascii").strip() == "0":
            return {"veth": None, "veth carrier": None}
    return {"veth": None, "veth carrier": "the other end does not see it"}


def _try_command(program: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"{program} ended with {done.returncode}"


#: What `main` prints the outcome of.
NAMES: Final = (
    *("mount", "tap", "carrier", *QDISCS),
    *(f"netem {name}" for name in NETEM_OPTIONS),
    *("veth", "veth carrier", "sched_fifo"),
)


def try_sched_fifo() -> str | None:
    """Ask for the real-time scheduling that the link emulator wants."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        return error.strerror
    return None


def main() -> None:
    """Try everything and print what came of it."""
    found = {"mount": try_mount(), **try_taps()}
    found |= {kind: try_qdisc(kind, options) for kind, options in QDISCS.items()}
    found |= try_netem(found["netem"]) | try_veth()
    found["sched_fifo"] = try_sched_fifo()  # last: the programs above would inherit it
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
