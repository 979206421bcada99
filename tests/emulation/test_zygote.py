"""The zygote alone: node programs forked into a namespace, their ends reported, nothing left when it goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from topologies.catalogue import build

LIMIT_S = 20.0


class Zygote:
    """The testbed's end of it."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(LIMIT_S)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "zygote", "--socket-fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        assert self.receive() == {"zygote": "ready", "pid": self.process.pid}

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.sock.recv(65_536))
        return message

    def spawn(self, name: str, config_path: Path, log_path: Path) -> tuple[dict[str, Any], socket.socket]:
        """Return its answer and our end of the node's control channel; the node gets a namespace of its own."""
        ours, theirs = socket.socketpair()
        ours.settimeout(LIMIT_S)
        request = {"op": "spawn", "name": name, "config_path": str(config_path), "log_path": str(log_path)}
        with theirs, new_namespace() as namespace:
            socket.send_fds(self.sock, [json.dumps(request).encode()], [namespace, theirs.fileno()])
        return self.receive(), ours

    def end(self) -> int:
        self.sock.close()
        return self.process.wait(LIMIT_S)


@contextlib.contextmanager
def new_namespace() -> Iterator[int]:
    """Give a descriptor of a fresh network namespace, which lives as long as somebody has it open."""
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.read(1)  # it is there, in its namespace
        namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield namespace
    finally:
        os.close(namespace)


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    found = Zygote()
    yield found
    found.sock.close()
    if found.process.poll() is None:
        found.process.wait(LIMIT_S)


@pytest.fixture
def proxy_config(tmp_path: Path) -> Path:
    """A service proxy needs no interface: it waits for its forwarder."""
    (tmp_path / "raw").mkdir()
    topology = build("tiers", {"cores": 3, "csrs": 1, "ues_per_csr": 1})
    raw = dict(build_node_configs(NetworkPlan("zygote", topology, 7, tmp_path)))["csr1.proxy"]
    path = tmp_path / "csr1.proxy.json"
    path.write_bytes(msgspec.json.encode(raw))
    return path


def lines(sock: socket.socket) -> Iterator[dict[str, Any]]:
    with sock.makefile("rb") as stream:
        for line in stream:
            yield json.loads(line)


def test_node_runs_in_its_namespace_and_its_end_is_reported(zygote: Zygote, proxy_config: Path, tmp_path: Path) -> None:
    answer, control = zygote.spawn("csr1.proxy", proxy_config, tmp_path / "log")
    assert answer.keys() == {"spawned", "pid"}
    pid = answer["pid"]
    said = lines(control)
    assert next(said)["event"] == "ready"
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    control.sendall(b'{"id": 1, "op": "ping"}\n')
    assert next(said) == {"id": 1, "ok": True, "node": "csr1", "process": "proxy"}
    control.sendall(b'{"id": 2, "op": "stop"}\n')
    assert next(said)["ok"]
    ended = zygote.receive()
    assert (ended["exited"], ended["pid"], ended["status"]) == ("csr1.proxy", pid, 0)
    assert ended["cpu_s"] > 0
    assert ended["max_rss_bytes"] > 1_000_000
    control.close()


def test_killed_node_is_reported_with_its_signal(zygote: Zygote, proxy_config: Path, tmp_path: Path) -> None:
    answer, control = zygote.spawn("csr1.proxy", proxy_config, tmp_path / "log")
    os.kill(answer["pid"], signal.SIGKILL)
    assert zygote.receive()["status"] == -signal.SIGKILL
    control.close()


def test_bad_configuration_ends_the_node_and_the_log_says_why(zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    answer, control = zygote.spawn("csr1.proxy", tmp_path / "bad.json", tmp_path / "log")
    assert "spawned" in answer
    assert zygote.receive()["status"] == 2
    assert "bad.json" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    control.close()


def test_spawn_without_descriptors_fails(zygote: Zygote) -> None:
    zygote.sock.send(json.dumps({"op": "spawn", "name": "x", "config_path": "", "log_path": ""}).encode())
    assert zygote.receive() == {"failed": "x", "error": "2 descriptors are needed, 0 came"}


@pytest.mark.parametrize("how", ["exit", "close", "terminate", "kill"])
def test_nodes_end_with_the_zygote(zygote: Zygote, proxy_config: Path, tmp_path: Path, how: str) -> None:
    answer, control = zygote.spawn("csr1.proxy", proxy_config, tmp_path / "log")
    said = lines(control)
    assert next(said)["event"] == "ready"
    if how == "exit":
        zygote.sock.send(b'{"op": "exit"}')
    elif how == "close":
        zygote.sock.close()
    else:
        zygote.process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    assert zygote.process.wait(LIMIT_S) == (-signal.SIGKILL if how == "kill" else 0)
    assert list(said) == []  # the channel is closed: the node has gone
    assert (
        not Path(f"/proc/{answer['pid']}/cmdline").exists() or not Path(f"/proc/{answer['pid']}/cmdline").read_bytes()
    )
    control.close()
