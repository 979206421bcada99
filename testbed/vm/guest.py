"""PID 1 of the guest: makes its root file system usable, runs one command, hands out what it left, turns the machine off.

Run as a file with ``python -I -S`` (no site, no imports of ours) by the initial RAM disk. The host says what to do in
`config.json` of a 9p share, and both sides talk over virtio serial ports in JSON lines: to the host
``{"event": "ready"}``, then ``{"event": "ended", "status": N, "oom_kills": N, "missing": [...]}`` (a status below 0: by that
signal); from the host ``{"signal": N}`` and ``{"rows": N, "columns": N}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

MS_NOSUID_NODEV = 2 | 4  # sys/mount.h
RB_AUTOBOOT = 0x01234567  # linux/reboot.h; the host started the machine so that it ends instead
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
SIOCSIFFLAGS = 0x8914  # sockios.h
IFF_UP = 1
CLONE_NEWNET = 0x40000000

SHARE = Path("/run/hconf-vm")
SHARE_TAG = "hconf-share"
CONTROL_PORT, OUT_PORT, ERR_PORT = "hconf.control", "hconf.out", "hconf.err"
TERMINAL = "/dev/hvc0"

#: Open files of a process, as systemd sets it; the kernel alone gives 4,096.
FILES_SOFT, FILES_HARD = 1_024, 524_288

#: How long what the command left running has to end by itself, before it is killed.
SWEEP_LIMIT_S = 3.0

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount *source* at *target*, which is made if need be. Raises: OSError."""
    Path(target).mkdir(parents=True, exist_ok=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def make_usable() -> None:
    """Mount what every system has, and bring the loopback interface up."""
    mount("proc", "/proc", "proc", MS_NOSUID_NODEV)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID_NODEV)
    mount("dev", "/dev", "devtmpfs")
    mount("devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666")
    mount("shm", "/dev/shm", "tmpfs", MS_NOSUID_NODEV)  # noqa: S108  a mount point
    mount("run", "/run", "tmpfs", MS_NOSUID_NODEV, "mode=755")
    mount(SHARE_TAG, str(SHARE), "9p", 0, "trans=virtio,version=9p2000.L,cache=none,msize=524288")
    with contextlib.suppress(OSError):  # nothing that runs today needs it
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID_NODEV)
    for link, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        with contextlib.suppress(FileExistsError):
            Path("/dev", link).symlink_to(target)
    socket.sethostname("hconf-vm")
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_SOFT, FILES_HARD))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def open_port(name: str) -> int:
    """Open the virtio serial port that the host calls *name*. Raises: OSError."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").exists() and (port / "name").read_text(encoding="ascii").strip() == name:
            return os.open(f"/dev/{port.name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(f"the host made no port {name}")


def start(config: dict[str, Any]) -> int:
    """Start the command in a session of its own and return its process ID."""
    terminal = config["terminal"]
    inputs = [TERMINAL] * 3 if terminal else ["/dev/null", OUT_PORT, ERR_PORT]
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        opened = [open_port(name) if name.startswith("hconf.") else os.open(name, os.O_RDWR) for name in inputs]
        for target, fd in enumerate(opened):
            os.dup2(fd, target)
        if terminal:
            fcntl.ioctl(0, TIOCSCTTY, 0)
            resize(0, (terminal[0], terminal[1]))
        os.chdir(str(config["directory"]))
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        command, environment = list(config["command"]), dict(config["environment"])
        os.execvpe(command[0], command, environment)  # noqa: S606  no shell wanted
    except OSError as error:
        os.write(2, f"hconf: cannot start {config['command']!r} in the guest: {error}\n".encode())
    os._exit(127)


def resize(fd: int, size: tuple[int, int]) -> None:
    """Tell the terminal how many rows and columns the host's has."""
    rows, columns = size
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Reporter:
    """The control port: JSON lines both ways."""

    def __init__(self) -> None:
        self.fd = open_port(CONTROL_PORT)
        self._received = b""

    def say(self, **message: object) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]

    def heard(self) -> list[dict[str, int]]:
        """Return the messages that have come; none when the host has closed its end."""
        data = os.read(self.fd, 4096)
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]


def supervise(pid: int, reporter: Reporter) -> int:
    """Reap every process until *pid* has ended, and do what the host says meanwhile. Returns its exit code; -N: by signal N."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    watched = [woken, reporter.fd]
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == pid:
                    return os.waitstatus_to_exitcode(ended[1])
        for fd in select.select(watched, [], [], 1.0)[0]:
            if fd == woken:
                os.read(woken, 4096)
                continue
            messages = reporter.heard()
            if not messages:
                watched = [woken]  # the host is gone; the machine ends with it
            for message in messages:
                obey(pid, message)


def obey(pid: int, message: dict[str, int]) -> None:
    if "signal" in message:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, message["signal"])
    if "rows" in message:
        fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
        resize(fd, (message["rows"], message["columns"]))
        os.close(fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGWINCH)


def end_the_rest() -> None:
    """End whatever the command has left running."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)
        deadline_s = time.monotonic() + SWEEP_LIMIT_S
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline_s:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    time.sleep(0.02)


def hand_out(paths: list[str]) -> list[str]:
    """Copy what the command has made to the share, by its number in *paths*; return what is not there."""
    missing = []
    for number, path in enumerate(paths):
        if Path(path).is_dir():
            # ownership is the host's business, as whoever started the machine
            shutil.copytree(path, SHARE / "out" / str(number), symlinks=True, copy_function=shutil.copyfile)
        elif Path(path).is_file():
            (SHARE / "out").mkdir(exist_ok=True)
            shutil.copyfile(path, SHARE / "out" / str(number))
        else:
            missing.append(path)
    return missing


def oom_kills() -> int:
    """Return how many processes the kernel has ended for want of memory."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    try:
        make_usable()
        config = json.loads((SHARE / "config.json").read_bytes())
        reporter = Reporter()
        if config["terminal"]:  # the ioctl in `start` wants no one's controlling terminal
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        reporter.say(event="ready", kernel=os.uname().release)
        status = supervise(start(config), reporter)
        kills = oom_kills()
        end_the_rest()
        missing, problem = [], None
        try:
            missing = hand_out(config["hand_out"])
        except (OSError, shutil.Error) as error:
            problem = str(error)
        if config["terminal"]:
            fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
            termios.tcdrain(fd)
        reporter.say(event="ended", status=status, oom_kills=kills, missing=missing, problem=problem)
    except BaseException as error:  # noqa: BLE001  PID 1 must not end, or the kernel panics
        print(f"hconf-vm: the guest's first program failed: {error!r}", file=sys.stderr, flush=True)  # noqa: T201
    time.sleep(0.1)  # what is in the ports goes out
    os.sync()
    libc.reboot(RB_AUTOBOOT)


if __name__ == "__main__":
    main()
