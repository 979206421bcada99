"""The process that records one interface: a packet socket in the host's namespace, blocks of pcapng in a file.

``python -S -m testbed.capture.recorder --netns-fd N --file-fd N --parent-pid P --intf NAME --link NAME``, started by
`link_capture.LinkCapture`. It says ``ready`` on its standard output once nothing escapes it, or why it cannot, and ends
when its standard input closes, on SIGTERM, or when its parent ends. What was seen is in the file at once: a kill loses
nothing older than a few milliseconds. It imports nothing but the standard library, so that it starts in 50 ms.

Frames are seen as tcpdump sees them: those the host sends before the link does anything to them, those it receives after.
Source: packet(7); SO_TIMESTAMPNS in the kernel's Documentation/networking/timestamping.rst.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final

from testbed.capture import pcapng
from testbed.links.linux import enter_netns, termination_fd

_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_OUTGOING: Final = 4
_TIMESPEC: Final = struct.Struct("=qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_RECEIVE_BUFFER_BYTES: Final = 32 << 20
_BATCH_PACKETS: Final = 256


class Recorder:
    """Copies what passes an interface into a file."""

    def __init__(self, intf: str, *, link: str, file_fd: int) -> None:
        self._file_fd = file_fd
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((intf, _ETH_P_ALL))
        self._write(pcapng.header(application="hconf", intf=intf, description=f"link {link}"))

    def fileno(self) -> int:
        return self._socket.fileno()

    def record_batch(self) -> int:
        """Write what has been seen, up to a batch; return how many frames that was."""
        blocks: list[bytes] = []
        try:
            while len(blocks) < _BATCH_PACKETS:
                frame, ancillary, _, address = self._socket.recvmsg(pcapng.SNAP_BYTES, _ANCILLARY_BYTES)
                outbound = address[2] == _PACKET_OUTGOING
                blocks.append(pcapng.packet(frame, time_ns=_time_ns(ancillary), outbound=outbound))
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENETDOWN}:  # the interface may go down and up again
                raise
        self._write(b"".join(blocks))
        return len(blocks)

    def finish(self) -> None:
        """Write what was seen until now, and the statistics."""
        while self.record_batch() == _BATCH_PACKETS:
            pass
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        received, dropped = struct.unpack("=II", raw)
        self._write(pcapng.statistics(time_ns=time.time_ns(), received_packets=received, dropped_packets=dropped))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file_fd, view) :]


def _time_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def main() -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="testbed.capture.recorder", description="internal; started by hconf")
    for name in ("netns-fd", "file-fd", "parent-pid"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--intf", required=True)
    parser.add_argument("--link", required=True)
    options = parser.parse_args()
    stop_fds = sys.stdin.fileno(), termination_fd(), os.pidfd_open(options.parent_pid)
    try:
        enter_netns(options.netns_fd)
        recorder = Recorder(options.intf, link=options.link, file_fd=options.file_fd)
    except OSError as error:
        os.write(sys.stdout.fileno(), f"{type(error).__name__}: {error.strerror}\n".encode())
        return 1
    poll = select.poll()
    for fd in (*stop_fds, recorder.fileno()):
        poll.register(fd, select.POLLIN)
    os.write(sys.stdout.fileno(), b"ready\n")
    while all(fd == recorder.fileno() for fd, _ in poll.poll()):
        recorder.record_batch()
    recorder.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
