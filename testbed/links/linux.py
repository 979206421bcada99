"""System calls that Python's standard library lacks before 3.13, for the emulator process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_MCL_CURRENT_FUTURE_ONFAULT: Final = 1 | 2 | 4
_NS_PER_S: Final = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def enter_netns(fd: int) -> None:
    """Move the calling thread into the network namespace that *fd* refers to. Raises: OSError."""
    _checked(_libc.setns(fd, _CLONE_NEWNET), "setns")


@contextlib.contextmanager
def returning_to_own_netns() -> Iterator[None]:
    """Return to the calling thread's network namespace at the end, wherever the body has gone.

    A socket that is opened meanwhile stays in the namespace it was opened in.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        enter_netns(home)
        os.close(home)


def new_netns() -> int:
    """Make a network namespace that lives until the descriptor returned is closed and nothing else uses it.

    Raises: PermissionError without CAP_SYS_ADMIN.
    """
    with returning_to_own_netns():
        _checked(_libc.unshare(_CLONE_NEWNET), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def lock_memory() -> bool:
    """Keep every page that this process touches in memory; return whether the kernel agreed."""
    return bool(_libc.mlockall(_MCL_CURRENT_FUTURE_ONFAULT) == 0)


def hold_cpus_awake() -> int | None:
    """Forbid idle states that take time to wake from, on all CPUs, until the descriptor returned is closed.

    Waking an idle CPU costs up to 0.1 ms a time, in virtual machines more; a packet pays it at every hop. Meanwhile idle
    CPUs spin: that takes no time from any process, but power. Returns: None where the kernel does not offer it or we may
    not. Source: the kernel's PM Quality of Service interface, Documentation/power/pm_qos_interface.rst.
    """
    try:
        fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.write(fd, (0).to_bytes(4, sys.byteorder))  # tolerated latency in us
    return fd


def termination_fd() -> int:
    """Return a descriptor that becomes readable when this process is sent SIGTERM, which does nothing else any more.

    To be called in the main thread; Ctrl-C at the terminal, which is the supervisor's to handle, is ignored from now on.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reading


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """A timerfd on CLOCK_MONOTONIC. Poll it edge-triggered: setting it anew clears it, so it is never read."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC), "timerfd_create")
        self._spec = _Itimerspec()
        self._value = self._spec.value
        self._arguments = (self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)
        self._settime = _libc.timerfd_settime

    def set(self, at_ns: int) -> None:
        """Expire at *at_ns* (at once if that has passed); 0 disarms."""
        self._value.seconds, self._value.nanoseconds = divmod(at_ns, _NS_PER_S)
        _checked(self._settime(*self._arguments), "timerfd_settime")

    def close(self) -> None:
        os.close(self.fd)
