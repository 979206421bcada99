"""TAP interfaces inside the hosts' namespaces: made, configured, and removed many at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from testbed.links.linux import enter_netns, returning_to_own_netns
from testbed.links.model import LinkEnd
from testbed.links.rtnetlink import (
    Request,
    RouteSocket,
    add_address,
    add_permanent_neighbour,
    bring_up,
    configure_link,
    delete_together,
)
from topologies.errors import CapabilityError, HconfError, InputError

T = TypeVar("T")

_TUN_DEVICE: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI_EXCL: Final = 0x0002 | 0x1000 | 0x8000  # EXCL: never attach to an interface that someone else made
_INTF_NAME_MAX: Final = 15

#: Frames that the kernel holds for the emulator to read; more are dropped and counted as `overrun`.
TXQUEUELEN_PACKETS: Final = 1_000
#: Whoever removes interfaces waits some 30 to 80 ms, mostly for RCU callbacks of the whole machine (`rcu_barrier`), and all
#: who wait at the same time wait for the same ones: 400 TAPs take 0.5 s from 64 threads, 0.1 s from one for each host.
_REMOVING_THREADS: Final = 512


class Tap:
    """A TAP interface that is up: the emulator's end is *fd*, the host sees interface *index*."""

    __slots__ = ("end", "fd", "index", "route")

    def __init__(self, end: LinkEnd, *, fd: int, index: int, route: RouteSocket) -> None:
        self.end, self.fd, self.index, self.route = end, fd, index, route


def make_taps(
    ends: Mapping[str, Sequence[tuple[LinkEnd, int]]], *, netns_fds: Mapping[str, int]
) -> dict[tuple[str, str], Tap]:
    """Make the TAPs of every host in its namespace, up and configured; return them by (host, interface name).

    *ends*: of each host, its ends of links, and the MTU of each in bytes.

    The calling thread visits the namespaces and returns to its own. Raises: InputError or CapabilityError that names the
    host and the interface; whatever was made by then is gone again.
    """
    taps: dict[tuple[str, str], Tap] = {}
    open_fds: list[int] = []
    try:
        with returning_to_own_netns():
            for host, host_ends in ends.items():
                _enter(host, netns_fds[host])
                for tap in _make_host_taps(host, host_ends, open_fds):
                    taps[host, tap.end.intf] = tap
    except BaseException:
        _side_by_side(os.close, open_fds)
        raise
    return taps


def _enter(host: str, fd: int) -> None:
    try:
        enter_netns(fd)
    except PermissionError as error:
        where, problem = f"host {host}", f"may not enter its network namespace ({error})"
        raise CapabilityError(where=where, problem=problem, remedy="run as root") from error
    except OSError as error:
        raise InputError(
            where=f"host {host}",
            problem=f"cannot enter its network namespace ({error})",
            remedy="pass an open file descriptor of /proc/<pid>/ns/net",
        ) from error


def _make_host_taps(host: str, ends: Sequence[tuple[LinkEnd, int]], open_fds: list[int]) -> list[Tap]:
    route, taps = RouteSocket(), []
    requests: list[tuple[LinkEnd, str, Request]] = []
    for end, mtu_bytes in ends:
        fd, index = _make_tap(host, end.intf, open_fds)
        taps.append(Tap(end, fd=fd, index=index, route=route))
        requests += [(end, what, request) for what, request in _configuration(end, index, mtu_bytes)]
    errors = route.carry_out([request for _, _, request in requests])
    for (end, what, _), number in zip(requests, errors, strict=True):
        if number:
            raise InputError(
                where=f"host {host}: interface {end.intf}",
                problem=f"the kernel refused {what} ({os.strerror(number)})",
                remedy="give every interface a MAC and an address of its own, unused in that namespace",
            )
    return taps


def _make_tap(host: str, intf: str, open_fds: list[int]) -> tuple[int, int]:
    where = f"host {host}: interface {intf}"
    if not 1 <= len(intf.encode()) <= _INTF_NAME_MAX:
        raise InputError(where=where, problem=f"a name has 1 to {_INTF_NAME_MAX} characters", remedy="shorten it")
    try:
        fd = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(error) from error
    open_fds.append(fd)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", intf.encode(), _IFF_TAP_NO_PI_EXCL))
    except PermissionError as error:
        problem = f"may not make a TAP interface ({error.strerror})"
        raise CapabilityError(where=where, problem=problem, remedy="run as root") from error
    except OSError as error:
        raise InputError(
            where=where,
            problem=f"cannot make it ({error.strerror}); the name may be taken in that namespace",
            remedy="use a namespace without such an interface, or another valid name",
        ) from error
    # before it is up, or captures fill with neighbour discovery; a kernel without IPv6 has no such file
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{intf}/disable_ipv6").write_bytes(b"1")
    return fd, socket.if_nametoindex(intf)


def _cannot_open(error: OSError) -> HconfError:
    remedy = "run as root; where the file is missing: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"
    return CapabilityError(where=_TUN_DEVICE, problem=f"cannot open it ({error.strerror})", remedy=remedy)


def _configuration(end: LinkEnd, index: int, mtu_bytes: int) -> list[tuple[str, Request]]:
    try:
        mac, peer_mac = (bytes.fromhex(text.replace(":", "")) for text in (end.mac, end.peer_mac))
        address, _, prefix_length = end.address.partition("/")
        if len(mac) != 6 or len(peer_mac) != 6:
            raise ValueError("a MAC has six bytes")
        local = add_address(index, address=socket.inet_aton(address), prefix_length=int(prefix_length))
        neighbour = add_permanent_neighbour(index, address=socket.inet_aton(end.peer_address), mac=peer_mac)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(
            where=f"host {end.host}: interface {end.intf}",
            problem=f"{end.mac}, {end.address}, {end.peer_mac}, {end.peer_address}: {error}",
            remedy="write a MAC as 02:00:00:00:00:01 and an IPv4 address as 10.0.0.0/31 (the peer's without /31)",
        ) from error
    link = configure_link(index, mac=mac, mtu_bytes=mtu_bytes, txqueuelen_packets=TXQUEUELEN_PACKETS)
    return [
        (f"MAC {end.mac}", link),
        (f"address {end.address}", local),
        ("to bring it up", bring_up(index)),
        (f"neighbour {end.peer_address}", neighbour),
    ]


def remove_taps(taps: Iterable[Tap]) -> None:
    """Remove interfaces and close their files; those of a host go together, all hosts side by side."""
    by_host: dict[str, list[Tap]] = {}
    for tap in taps:
        by_host.setdefault(tap.end.host, []).append(tap)
    _side_by_side(_remove_host_taps, by_host.values())


def _remove_host_taps(taps: Sequence[Tap]) -> None:
    with contextlib.suppress(OSError):  # then closing removes them, one after another
        taps[0].route.carry_out(delete_together([tap.index for tap in taps]))
    taps[0].route.close()  # it is the same of all
    for tap in taps:
        os.close(tap.fd)


def _side_by_side(work: Callable[[T], None], items: Iterable[T]) -> None:
    waiting = list(items)

    def work_some() -> None:
        while True:
            try:
                item = waiting.pop()  # atomic
            except IndexError:
                return
            work(item)

    threads = [threading.Thread(target=work_some) for _ in range(min(_REMOVING_THREADS, len(waiting)))]
    started = []
    with contextlib.suppress(RuntimeError):  # no more threads to be had: it takes longer
        for thread in threads:
            thread.start()
            started.append(thread)
    work_some()
    for thread in started:
        thread.join()
