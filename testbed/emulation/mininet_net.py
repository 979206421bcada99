"""The Mininet object over the network that we made: the only module that imports mininet.

Mininet gives the API and the CLI that its users know. What it would do by starting some twenty programs a host, one
after another, is already done when its objects are made: the namespaces by the holder program, the interfaces by the
link back end. Its objects are told, and run nothing until somebody types at a host.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.emulation.children import RUN_ID_VARIABLE
from topologies.errors import CapabilityError

try:
    with warnings.catch_warnings():
        # distutils, which it imports, announces its end in 3.11; from 3.12 on setuptools brings a stand-in.
        warnings.simplefilter("ignore")
        from mininet import log as mininet_log
        from mininet.link import Intf, Link
        from mininet.net import Mininet
        from mininet.node import Host, Node
except ImportError as import_error:
    raise CapabilityError(
        where="Mininet",
        problem=f"its Python side cannot be imported ({import_error})",
        remedy="install hconf into a fresh virtual environment: its dependencies bring mininet and setuptools",
    ) from import_error


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A host, as Mininet shall know it."""

    name: str
    holder_pid: int
    node_address: str  #: that all its neighbours reach it under


@dataclass(frozen=True, slots=True)
class IntfPlan:
    """One end of a link, as Mininet shall know it."""

    host: str
    intf: str
    address: str
    prefix_length: int
    mac: str


class HeldHost(Host):  # type: ignore[misc]  # mininet is not typed
    """A host whose namespaces a holder process keeps; bash starts when something is first typed at it."""

    isSetup = True  # the stock check looks for mnexec and ifconfig and calls exit(); ours is in preflight.py  # noqa: N815

    def __init__(self, name: str, plan: HostPlan, run_id: str, **params: Any) -> None:  # noqa: ANN401
        self.plan, self.run_id = plan, run_id
        self.shell: subprocess.Popen[Any] | None = None
        super().__init__(name, **params)

    def startShell(self, mnopts: str | None = None) -> None:  # noqa: N802
        """Called by the constructor: note which process to attach to. The shell itself starts in `_start_bash`."""
        del mnopts
        self.pid = self.plan.holder_pid

    def _start_bash(self) -> None:
        """Start bash inside, in the way that Mininet's own shells start (node.py, startShell)."""
        self.inNamespace = False  # or it would add `n`, for new namespaces, to mnexec's options
        try:
            super().startShell(mnopts=f"-cda{self.plan.holder_pid}")
        finally:
            self.inNamespace = True
            os.close(self.slave)  # or, when everything in the host has ended, reading from it would wait for ever
            self.pid = self.plan.holder_pid  # not bash's: that one may be typed `exit` at

    def _popen(self, cmd: Sequence[str], **params: Any) -> subprocess.Popen[Any]:  # noqa: ANN401
        environment = params.pop("env", None) or os.environ
        started: subprocess.Popen[Any] = super()._popen(
            cmd, env={**environment, RUN_ID_VARIABLE: self.run_id}, **params
        )
        return started

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N802
        if self.shell is None:
            self._start_bash()
        super().sendCmd(*args, **kwargs)

    def cmd(self, *args: Any, **kwargs: Any) -> str | None:  # noqa: ANN401
        if self.shell is None:
            self._start_bash()
        output: str | None = super().cmd(*args, **kwargs)
        return output

    def config(self, **_params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Do nothing: addresses, MACs and the loopback interface are set."""
        return {}

    def unmountPrivateDirs(self) -> None:  # noqa: N802
        """Do nothing: they go with the mount namespace."""

    def terminate(self) -> None:
        """End the shell, if there is one; the holder is ended with all others."""
        if self.shell is None:
            return
        shell, self.shell = self.shell, None
        for fds_to_nodes in (Node.inToNode, Node.outToNode):  # of the class, so they would outlive the network
            fds_to_nodes.pop(self.stdout.fileno(), None)
        if shell.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # mnexec -d made it the leader of its group
        self.stdout.close()
        shell.wait()


class HeldIntf(Intf):  # type: ignore[misc]  # mininet is not typed
    """An interface that exists and is configured."""

    def config(self, ip: str | None = None, prefixLen: int | None = None, **_params: Any) -> dict[str, Any]:  # noqa: ANN401, N803
        self.ip, self.prefixLen = ip, prefixLen
        return {}

    def updateIP(self) -> str:  # noqa: N802
        """Return what the CLI is to put in the place of the host's name: the address that all neighbours can reach."""
        address: str = self.node.plan.node_address
        return address

    def delete(self) -> None:
        """Forget it; the interface itself is the link back end's."""
        self.node.delIntf(self)
        self.link = None


class WireLink(Link):  # type: ignore[misc]  # mininet is not typed
    """A link that the emulator carries."""

    @classmethod
    def makeIntfPair(cls, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401, N802
        """Do nothing: both interfaces exist."""

    def stop(self) -> None:
        """Do nothing: links end with their back end."""


def build_mininet(run_id: str, hosts: Sequence[HostPlan], links: Sequence[tuple[IntfPlan, IntfPlan]]) -> Mininet:
    """Return a Mininet over hosts and links that exist."""
    # Mininet.init() would raise limits of the whole machine with sysctl(8) and never put them back.
    Mininet.inited = True
    net = Mininet(controller=None, build=False, host=HeldHost, link=WireLink, intf=HeldIntf)
    for host in hosts:
        net.addHost(host.name, plan=host, run_id=run_id, ip=None)
    for a, b in links:
        net.addLink(
            a.host,
            b.host,
            intfName1=a.intf,
            intfName2=b.intf,
            addr1=a.mac,
            addr2=b.mac,
            params1={"ip": a.address, "prefixLen": a.prefix_length},
            params2={"ip": b.address, "prefixLen": b.prefix_length},
        )
    net.built = True
    return net


class LogRoute:
    """Where Mininet's messages go; as shipped they go to stderr, over our progress display."""

    def __init__(self, path: Path) -> None:
        self._handler: logging.StreamHandler[Any] = mininet_log.lg.handlers[0]
        self._file: io.TextIOBase = path.open("a", encoding="utf-8")
        self._before = self._handler.setStream(self._file)

    def close(self) -> None:
        """Put it back as it was."""
        if self._before is not None:
            self._handler.setStream(self._before)
        self._file.close()
