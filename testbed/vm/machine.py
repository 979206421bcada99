"""Boots a virtual machine on this machine's own files, runs one command in it, and brings out what that has made.

The guest sees the host's root file system read-only over virtio-9p, and writes into memory (overlay). It has no network.
What it prints passes through as it comes; Ctrl-C reaches the command. Nothing of it is left on the host, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from testbed.vm import guest
from testbed.vm.accelerators import Accelerator, accelerators_to_try, remember_kvm
from testbed.vm.description import DESCRIPTION_VARIABLE
from testbed.vm.initrd import ROOT_TAG, build_initrd
from testbed.vm.kernel import ARCHITECTURE, QEMU, GuestKernel, find_busybox, find_kernel
from testbed.vm.scratch import room_needed, scratch_folder
from testbed.vm.terminal import raw_terminal, window_size
from topologies.errors import CapabilityError, InputError

MEMORY_MIN_MB: Final = 512
MEMORY_DEFAULT_MB: Final = 3_072
#: Until the guest says it is up. Where KVM works that takes some 3 s; without it 10 to 20 s, on a busy machine more.
BOOT_LIMIT_S: Final[Mapping[Accelerator, float]] = {"kvm": 20.0, "tcg": 120.0}
OFF_LIMIT_S: Final = 20.0
#: So many times Ctrl-C within as many seconds turns the machine off, whatever runs in it.
CTRL_C_TIMES: Final = 5

_CTRL_C: Final = b"\x03"
_READ_BYTES: Final = 1 << 16
_LOG_LINES: Final = 6
#: The console is for what goes wrong; the timer that the guest would calibrate is the host's, which is right.
_KERNEL_ARGUMENTS: Final = ("console=ttyS0", "quiet", "loglevel=4", "panic=-1", "random.trust_cpu=on", "tsc=reliable")
#: QEMU 7.2 emulates AVX wrongly: numpy's sorting of some hundred numbers ends with a segmentation fault.
_TCG_CPU: Final = "max,avx=off,avx2=off,fma=off,f16c=off"
#: What protects a guest from its own processes makes emulated ones slower still.
_TCG_ARGUMENTS: Final = ("mitigations=off", "no_timer_check")


@dataclass(frozen=True, slots=True)
class Machine:
    """What to boot."""

    cpus: int
    memory_mb: int
    accelerator: Accelerator | None = None  #: None: KVM if the guest boots with it, else emulation (TCG)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in the guest. Paths are those of the host."""

    arguments: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    #: file or folder that it will have made in the guest -> where on the host it is to go; what is not made is left out
    hand_out: Mapping[Path, Path] = field(default_factory=dict)


class _NotUpError(Exception):
    """The guest did not come up; the message says how far it came."""


def choose_machine(*, cpus: int | None, memory_mb: int | None, accelerator: Accelerator | None = None) -> Machine:
    """Return what to boot, with what was not asked for chosen by what this machine has.

    Raises: InputError for what it does not have; CapabilityError if it cannot run virtual machines at all.
    """
    if platform.machine() != ARCHITECTURE:
        raise CapabilityError(
            where="hconf vm",
            problem=f"it boots {ARCHITECTURE} kernels, and this machine is {platform.machine()}",
            remedy="run the experiment on the machine itself: hconf run",
        )
    if shutil.which(QEMU) is None:
        raise CapabilityError(
            where=QEMU,
            problem="is not installed, or not in PATH",
            remedy="apt-get install --no-install-recommends qemu-system-x86",
        )
    own_cpus, available_mb = len(os.sched_getaffinity(0)), _available_mb()
    if cpus is not None and not 1 <= cpus <= own_cpus:
        raise InputError(
            where="--cpus", problem=f"{cpus} is outside 1 to {own_cpus}", remedy="this machine has no more"
        )
    if memory_mb is None:
        memory_mb = max(MEMORY_MIN_MB, min(MEMORY_DEFAULT_MB, available_mb * 3 // 4))
    if memory_mb < MEMORY_MIN_MB:
        raise InputError(
            where="--memory-mb", problem=f"{memory_mb} is below {MEMORY_MIN_MB}", remedy="the guest would not start"
        )
    if memory_mb > available_mb:
        raise CapabilityError(
            where="memory",
            problem=f"the guest would get {memory_mb} MB, and {available_mb} MB are available",
            remedy=f"end other programs, or --memory-mb {available_mb * 3 // 4} if that is enough",
        )
    return Machine(cpus or own_cpus, memory_mb, accelerator)


def run_in_guest(machine: Machine, command: Command, *, note: Callable[[str], None]) -> int:
    """Boot, run *command*, and return its exit code; 130 if it was interrupted before it ran or while it would not end.

    *note* is told what a user wants to know of the machine itself.
    Raises: CapabilityError if the guest does not come up, or goes down by itself.
    """
    kernel, busybox = find_kernel(), find_busybox()
    with scratch_folder() as directory:
        initrd = directory / "initrd"
        agent = (sys.executable, "-I", "-S", guest.__file__)
        packed = build_initrd(kernel, busybox=busybox, agent=agent)
        with room_needed():
            initrd.write_bytes(packed)
        attempts = accelerators_to_try(machine.accelerator, kernel)
        for number, accelerator in enumerate(attempts, start=1):
            boot = _Boot(machine, kernel, accelerator, command, directory=directory / str(number), initrd=initrd)
            try:
                return boot.run(note)
            except _NotUpError as error:
                if number == len(attempts):
                    raise CapabilityError(
                        where="hconf vm",
                        problem=f"the guest did not come up with {boot.spelt}: {error}",
                        remedy="see whether this machine is very busy, or try another kernel (HCONF_VM_KERNEL)",
                    ) from error
                if accelerator == "kvm":
                    remember_kvm(kernel)
                    note("KVM is there, but this kernel does not boot with it: emulating the processor, which is slow")
                else:
                    note(f"the guest did not come up with {boot.spelt}: trying once more")
    raise AssertionError("there is always one accelerator to try")


class _Boot:
    """One start of a virtual machine."""

    def __init__(
        self,
        machine: Machine,
        kernel: GuestKernel,
        accelerator: Accelerator,
        command: Command,
        *,
        directory: Path,
        initrd: Path,
    ) -> None:
        self.machine, self.kernel, self.accelerator, self.command = machine, kernel, accelerator, command
        self.log = directory / "kernel.log"
        self.share = directory / "share"
        self.share.mkdir(parents=True)
        self.initrd = initrd
        self.terminal = window_size() if sys.stdin.isatty() and sys.stdout.isatty() else None
        self.ended: dict[str, Any] | None = None  #: what the guest said last

    @property
    def spelt(self) -> str:
        return f"kernel {self.kernel.release} under {'KVM' if self.accelerator == 'kvm' else 'emulation (TCG)'}"

    def run(self, note: Callable[[str], None]) -> int:
        """Boot and run. Raises: _NotUpError, CapabilityError."""
        self._write_config()
        names = ("terminal",) if self.terminal else ("out", "err")
        ours: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        for name in ("control", *names):
            ours[name], theirs[name] = socket.socketpair()
        started_s = time.monotonic()
        with contextlib.ExitStack() as stack:
            for one in ours.values():
                stack.enter_context(one)
            signals = stack.enter_context(_signals_kept())  # from before there is anything to be ended
            try:
                process = self._start({name: one.fileno() for name, one in theirs.items()})
            finally:
                for one in theirs.values():
                    one.close()
            stack.callback(_end, process)
            turn = _Loop(self, process, ours, started_s=started_s, note=note)
            stack.callback(turn.close)
            signals.hand_over_to(turn)
            turn.run()
            return self._outcome(turn)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest of a run says of the machine."""
        return {
            "accelerator": self.accelerator,
            "cpus": self.machine.cpus,
            "memory_mb": self.machine.memory_mb,
            "kernel_arguments": self._kernel_arguments(),
            "host_kernel": f"{platform.system()} {platform.release()}",
        }

    def _kernel_arguments(self) -> str:
        return " ".join((*_KERNEL_ARGUMENTS, *(_TCG_ARGUMENTS if self.accelerator == "tcg" else ())))

    def _write_config(self) -> None:
        description = msgspec.json.encode(self.describe()).decode()
        config = {
            "command": list(self.command.arguments),
            "directory": str(self.command.directory),
            "environment": {**self.command.environment, DESCRIPTION_VARIABLE: description},
            "terminal": self.terminal,
            "hand_out": [str(path) for path in self.command.hand_out],
        }
        (self.share / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def _start(self, fds: Mapping[str, int]) -> subprocess.Popen[bytes]:
        ports = [
            *("-chardev", f"socket,id=control,fd={fds['control']}"),
            *("-device", f"virtserialport,chardev=control,name={guest.CONTROL_PORT}"),
        ]
        if self.terminal:
            ports += ["-chardev", f"socket,id=tty,fd={fds['terminal']}", "-device", "virtconsole,chardev=tty"]
        else:
            for name, port in (("out", guest.OUT_PORT), ("err", guest.ERR_PORT)):
                ports += ["-chardev", f"socket,id={name},fd={fds[name]}"]
                ports += ["-device", f"virtserialport,chardev={name},name={port}"]
        speed = ("kvm", "host") if self.accelerator == "kvm" else ("tcg,thread=multi,tb-size=512", _TCG_CPU)
        command = [
            *("setpriv", "--pdeathsig", "KILL", QEMU),  # it ends with us, however we end
            *("-name", "hconf", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-accel", speed[0], "-cpu", speed[1]),
            *("-smp", str(self.machine.cpus), "-m", str(self.machine.memory_mb)),
            *("-kernel", str(self.kernel.image), "-initrd", str(self.initrd), "-append", self._kernel_arguments()),
            *("-chardev", f"file,id=log,path={_escaped(self.log)}", "-serial", "chardev:log"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci", *ports),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
            *("-fsdev", f"local,id=share,path={_escaped(self.share)},security_model=none"),
            *("-device", f"virtio-9p-pci,fsdev=share,mount_tag={guest.SHARE_TAG}"),
        ]
        with self.log.with_suffix(".qemu").open("wb") as said:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=list(fds.values()),
                start_new_session=True,  # Ctrl-C at the terminal is for the command in the guest
            )

    def _outcome(self, turn: _Loop) -> int:
        """Bring out what the command has made; return its exit code."""
        if self.ended is None:
            if turn.interrupted:
                return 130
            if not turn.is_up:
                raise _NotUpError(self.last_words())
            raise CapabilityError(
                where="hconf vm",
                problem=f"the guest went down while the command ran: {self.last_words()}",
                remedy=f"give it more memory if it had too little: --memory-mb {self.machine.memory_mb * 2}",
            )
        problem = self.ended["problem"]
        try:
            for number, (inside, outside) in enumerate(self.command.hand_out.items()):
                made = self.share / "out" / str(number)
                if str(inside) not in self.ended["missing"] and made.exists():
                    outside.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(made, outside)
        except (OSError, shutil.Error) as error:
            problem = str(error)
        if problem:
            raise CapabilityError(
                where="hconf vm",
                problem=f"what the command has made could not be brought out: {problem}",
                remedy=f"make room on this machine's disk, there and in {self.initrd.parent.parent} (TMPDIR)",
            )
        status = int(self.ended["status"])
        if status and self.ended["oom_kills"]:
            raise CapabilityError(
                where="memory of the guest",
                problem=f"{self.machine.memory_mb} MB were too little: its kernel ended {self.ended['oom_kills']} processes",
                remedy=f"--memory-mb {self.machine.memory_mb * 2}, or a smaller experiment",
            )
        if status < 0 and not turn.interrupted:
            turn.note(f"the command was ended by signal {-status} ({signal.strsignal(-status)})")
        return status if status >= 0 else 128 - status

    def last_words(self) -> str:
        """Return the end of what QEMU and the guest's kernel have said."""
        said: list[str] = []
        for path in (self.log.with_suffix(".qemu"), self.log):
            if path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "")
                said += [
                    line for line in re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]|\x1bc", "", text).splitlines() if line.strip()
                ]
        return " / ".join(said[-_LOG_LINES:]) or "neither QEMU nor the kernel said anything"


class _Loop:
    """Passes everything on until the machine is off."""

    def __init__(
        self,
        boot: _Boot,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        *,
        started_s: float,
        note: Callable[[str], None],
    ) -> None:
        self.boot, self.process, self.sockets, self.note = boot, process, sockets, note
        self.is_up = self.interrupted = False
        self._started_s = started_s
        self._off_by_s = started_s + BOOT_LIMIT_S[boot.accelerator]
        self._heard = b""
        self._ctrl_c_s: list[float] = []
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(process.pid)
        self._stack = contextlib.ExitStack()
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._note_end)
        for name, one in sockets.items():
            one.setblocking(False)
            handler = self._hear if name == "control" else self._pass_on
            self._selector.register(one, selectors.EVENT_READ, (handler, name))
        self._is_running = True

    def close(self) -> None:
        self._stack.close()
        self._selector.close()
        os.close(self._pidfd)

    def run(self) -> None:
        while self._is_running:
            left_s = self._off_by_s - time.monotonic()
            if left_s <= 0:
                self._turn_off()
                return
            for key, _ in self._selector.select(min(left_s, 1e6)):
                if isinstance(key.data, tuple):
                    handler, name = key.data
                    handler(name)
                else:
                    key.data()

    def interrupt(self) -> None:
        """SIGINT or SIGTERM came: the command in the guest gets it; the second time, the machine is turned off."""
        if not self.is_up or self.interrupted:
            self._turn_off()
        else:
            self._say(signal=int(signal.SIGINT))
        self.interrupted = True

    def resize(self) -> None:
        if self.is_up and (size := window_size()):
            self._say(rows=size[0], columns=size[1])

    def _turn_off(self) -> None:
        self.process.kill()
        self._off_by_s = time.monotonic() + OFF_LIMIT_S

    def _note_end(self) -> None:
        for name in self.sockets:  # what it said last
            while name != "control" and self._pass_on(name):
                pass
        while self._hear("control"):
            pass
        self._is_running = False

    def _say(self, **message: int) -> None:
        with contextlib.suppress(OSError):
            self.sockets["control"].sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, name: str) -> bytes:
        one = self.sockets[name]
        try:
            data = one.recv(_READ_BYTES)
        except OSError:
            return b""
        if not data and one in self._selector.get_map():
            self._selector.unregister(one)
        return data

    def _pass_on(self, name: str) -> bool:
        data = self._receive(name)
        _write(2 if name == "err" else 1, data)
        return bool(data)

    def _hear(self, name: str) -> bool:
        data = self._receive(name)
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["event"] == "ready":
                self.is_up, self._off_by_s = True, float("inf")
                self.note(f"{self.boot.spelt} is up after {time.monotonic() - self._started_s:.1f} s")
                self._take_terminal()
            else:
                self.boot.ended = message
                self._off_by_s = time.monotonic() + OFF_LIMIT_S
        return bool(data)

    def _take_terminal(self) -> None:
        if self.boot.terminal:
            self._stack.enter_context(raw_terminal())
            self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._type)

    def _type(self) -> None:
        """Pass on what was typed."""
        data = os.read(sys.stdin.fileno(), _READ_BYTES)
        if not data:
            self._selector.unregister(sys.stdin.fileno())
            return
        now_s = time.monotonic()
        self._ctrl_c_s += [now_s] * data.count(_CTRL_C)
        if len(self._ctrl_c_s) >= CTRL_C_TIMES and now_s - self._ctrl_c_s[-CTRL_C_TIMES] <= CTRL_C_TIMES:
            self.interrupted = True
            self._turn_off()
            return
        one = self.sockets["terminal"]
        one.setblocking(True)  # a person types; the guest reads
        with contextlib.suppress(OSError):
            one.sendall(data)
        one.setblocking(False)


class _Signals:
    """Signals go to the loop instead of interrupting us anywhere; until there is one, they are kept."""

    def __init__(self) -> None:
        self._loop: _Loop | None = None
        self._interrupted = False

    def hand_over_to(self, loop: _Loop) -> None:
        self._loop = loop
        if self._interrupted:
            loop.interrupt()

    def interrupt(self, _number: int, _frame: object) -> None:
        if self._loop is None:
            self._interrupted = True
        else:
            self._loop.interrupt()

    def resize(self, _number: int, _frame: object) -> None:
        if self._loop is not None:
            self._loop.resize()


@contextlib.contextmanager
def _signals_kept() -> Iterator[_Signals]:
    signals = _Signals()
    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signals.interrupt)
    handlers[signal.SIGWINCH] = signals.resize
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _write(fd: int, data: bytes) -> None:
    """Write everything; whoever reads us may have gone, and the command goes on all the same."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data) :]


def _escaped(path: Path) -> str:
    """Return *path* as a value of a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")


def _available_mb() -> int:
    found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) // 1024 if found else MEMORY_DEFAULT_MB
