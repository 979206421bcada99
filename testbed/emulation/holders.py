"""The holder program: makes the namespaces of all hosts at once, keeps them, and ends everything in them.

Run as a file with ``python -I -S`` (no site, no imports of ours: it is up in some 20 ms and small), from the supervisor:

    holders.py --socket-fd N --hosts ue1,ue2,...

One process per host unshares a network and a mount namespace and sleeps; Mininet calls it the host's shell process and
attaches to it. Protocol on the socket (SOCK_SEQPACKET, JSON): once the hosts exist ``{"pids": [...]}`` in the order of
the names, or ``{"error": "..."}``; then ``{"op": "end"}`` ends all. The end of file does the same, so a supervisor that
was killed takes its hosts down with it: first whatever else runs in their namespaces, then the holders. As long as a
holder lives, its namespace's number is not given to another one, so nothing foreign can be hit.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import signal
import socket
import struct
import sys
import time

CLONE_NEWNS = 0x00020000  # sched.h
CLONE_NEWNET = 0x40000000
MS_REC = 16384  # sys/mount.h
MS_SLAVE = 1 << 19
PR_SET_PDEATHSIG = 1  # sys/prctl.h
PR_SET_NAME = 15
SIOCGIFFLAGS = 0x8913  # sockios.h
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

#: How long the end waits for what runs in the namespaces to be gone; a killed process goes within milliseconds.
SWEEP_LIMIT_S = 1.0

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError, saying *what* failed, if a libc call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def make_namespaces(host: str) -> None:
    """Move this process into new network and mount namespaces and make them usable. Raises: OSError."""
    check(libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare")
    # Slave, not private as mnexec does: an unmount outside must not be held up by the copy in here.
    check(libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None), "mount / as slave")
    check(libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount sysfs")  # /sys/class/net shows this namespace
    libc.prctl(PR_SET_NAME, f"hconf:{host}".encode()[:15], 0, 0, 0)
    for scope in ("all", "default"):  # before any interface comes up: captures would fill with neighbour discovery
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as knob:
            knob.write("1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def hold(host: str, parent: int, ready_fd: int) -> None:
    """Be the process that keeps the namespaces of *host*; ends with the process that forked it. Never returns."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        make_namespaces(host)
    except OSError as error:
        os.write(ready_fd, f"{host}: {error.strerror}\n".encode())
        os._exit(1)
    os.write(ready_fd, b"+\n")
    os.close(ready_fd)
    while True:
        signal.pause()


def start_holders(hosts: list[str]) -> tuple[list[int], str | None]:
    """Fork one holder per host, all at work at the same time. Returns (pids, what went wrong or None)."""
    me = os.getpid()
    read_fd, write_fd = os.pipe()
    gc.disable()
    gc.freeze()  # a collection in a holder would copy pages that all of them share
    pids = []
    for host in hosts:
        pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            hold(host, me, write_fd)
        pids.append(pid)
    os.close(write_fd)
    reports = b""
    while reports.count(b"\n") < len(hosts) and (data := os.read(read_fd, 65_536)):
        reports += data
    os.close(read_fd)
    failed = [line for line in reports.decode().splitlines() if line != "+"]
    if failed or reports.count(b"\n") < len(hosts):
        return pids, failed[0] if failed else "a holder ended before it had its namespaces"
    return pids, None


def namespace_of(pid: int | str) -> str:
    """Return the network namespace of a process, such as ``net:[4026532291]``; empty if there is no such process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115
    except OSError:
        return ""


def sweep(holders: list[int]) -> int:
    """Kill whatever runs in the namespaces of *holders* besides them, until nothing does. Returns how many it hit."""
    ours = {namespace_of(pid) for pid in holders} - {"", namespace_of("self")}
    spared, hit, give_up_s = set(holders), set(), time.monotonic() + SWEEP_LIMIT_S
    while time.monotonic() < give_up_s:
        inside = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid not in spared]  # noqa: PTH208
        inside = [pid for pid in inside if namespace_of(pid) in ours]
        if not inside:
            break
        for pid in inside:
            hit.add(pid)
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                if namespace_of(pid) in ours:  # still: the number was not given to another process meanwhile
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        time.sleep(0.002)  # the kernel is taking them apart
    return len(hit)


def end(holders: list[int]) -> int:
    """End everything in the hosts, then the holders. Returns how many processes besides the holders there were."""
    hit = sweep(holders)
    for pid in holders:
        os.kill(pid, signal.SIGKILL)  # our child, not reaped yet: the number is still its own
    for pid in holders:
        os.waitpid(pid, 0)
    return hit


def main() -> int:
    """Make the hosts, hold them until told to end, end them."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    supervisor = socket.socket(fileno=int(arguments["--socket-fd"]))
    supervisor.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides what an interrupt means
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.shutdown(socket.SHUT_RD))  # as if told to end
    pids, error = start_holders(arguments["--hosts"].split(","))
    try:
        supervisor.send(json.dumps({"pids": pids} if error is None else {"error": error}).encode())
        if error is None:
            supervisor.recv(4096)  # `end`, or the end of file
    except OSError:
        pass  # the supervisor is gone
    hit = end(pids)
    with contextlib.suppress(OSError):
        supervisor.send(json.dumps({"ended": len(pids), "swept": hit}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
