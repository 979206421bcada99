"""Two network namespaces with one `wire` link between them, and sockets in them: no processes, no names, no residue."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from testbed.links.linux import enter_netns, new_netns, returning_to_own_netns
from testbed.links.model import Impairment, LinkEnd, LinkPlan
from testbed.links.wire import WireEmulator

PORT: Final = 6363
ADDRESS_A: Final = "10.0.0.0"
ADDRESS_B: Final = "10.0.0.1"
MAC_A: Final = "02:00:00:00:00:0a"
MAC_B: Final = "02:00:00:00:00:0b"
_SO_RCVBUFFORCE: Final = 33


def plan_between(
    host_a: str = "a",
    host_b: str = "b",
    *,
    subnet: int = 0,
    impairment: Impairment | None = None,
    back: Impairment | None = None,
) -> LinkPlan:
    """Return the plan of a link of its own /31, the same in both directions unless what b sends is to go otherwise (*back*)."""
    address_a, address_b = f"10.0.{subnet}.0", f"10.0.{subnet}.1"
    mac_a, mac_b = f"02:00:00:00:{subnet:02x}:0a", f"02:00:00:00:{subnet:02x}:0b"
    both = impairment or Impairment()
    return LinkPlan(
        name=f"{host_a}-{host_b}",
        a=LinkEnd(
            host=host_a,
            intf=f"{host_a}-eth{subnet}",
            address=f"{address_a}/31",
            mac=mac_a,
            peer_address=address_b,
            peer_mac=mac_b,
        ),
        b=LinkEnd(
            host=host_b,
            intf=f"{host_b}-eth{subnet}",
            address=f"{address_b}/31",
            mac=mac_b,
            peer_address=address_a,
            peer_mac=mac_a,
        ),
        a_to_b=both,
        b_to_a=back or both,
    )


def socket_in(netns: int, address: str, *, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
    """Return an IPv4 socket of namespace *netns*, bound to *address* and PORT."""
    with returning_to_own_netns():
        enter_netns(netns)
        opened = socket.socket(socket.AF_INET, kind)
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    opened.bind((address, PORT))
    return opened


def ip(netns: int, *arguments: str) -> list[dict[str, Any]]:
    """Return what iproute2 says in namespace *netns*."""
    inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{netns}", "ip", "-json", "-details", *arguments)
    said = subprocess.run(inside, check=True, capture_output=True, text=True).stdout
    found: list[dict[str, Any]] = json.loads(said or "[]")
    return found


def intf_names(netns: int) -> list[str]:
    return [link["ifname"] for link in ip(netns, "link") if link["ifname"] != "lo"]


class Pair:
    """Host a and host b, and the emulator of link ``a-b`` between them."""

    def __init__(
        self, folder: Path, *, seed: int = 7, impairment: Impairment | None = None, back: Impairment | None = None
    ) -> None:
        self.ledger_path = folder / "ledger.jsonl"
        self.netns_a, self.netns_b = new_netns(), new_netns()
        try:
            self.emulator = WireEmulator.start(
                [plan_between(impairment=impairment, back=back)],
                netns_fds={"a": self.netns_a, "b": self.netns_b},
                seed=seed,
                ledger_path=self.ledger_path,
            )
        except BaseException:
            self._close_netns()
            raise

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Return a sending UDP socket in a, connected to a receiving one in b."""
        sender, receiver = socket_in(self.netns_a, ADDRESS_A), socket_in(self.netns_b, ADDRESS_B)
        sender.connect((ADDRESS_B, PORT))
        return sender, receiver

    def close(self) -> None:
        self.emulator.stop()
        self._close_netns()

    def _close_netns(self) -> None:
        os.close(self.netns_a)
        os.close(self.netns_b)


@contextlib.contextmanager
def wire_pair(*, seed: int = 7, impairment: Impairment | None = None, back: Impairment | None = None) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder), seed=seed, impairment=impairment, back=back)
        try:
            yield pair
        finally:
            pair.close()
