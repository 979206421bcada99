"""Node programs on this machine's loopback, each in a thread of its own: real sockets, real clock, no namespaces, no root."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from proxy.config import NodeConfig
from proxy.driver.clock import MonotonicClock
from proxy.driver.program import NodeProgram
from proxy.records import Record

#: For any one thing that a test waits for; only a failure takes so long.
LIMIT_S = 20.0


class RunningNode:
    """A node program, seen from the supervisor's end of its control channel."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.settimeout(LIMIT_S)
        self.events: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self._pending = b""
        self._numbered = 0
        self._thread = threading.Thread(target=self._run, args=(theirs,), name=f"{config.node}.{config.process}")
        self._thread.start()
        self.wait_for_event("ready")

    def _run(self, control: socket.socket) -> None:
        try:
            with control:
                trio.run(NodeProgram(self.config, control=control).run, clock=MonotonicClock())
        except BaseException as error:  # noqa: ASYNC103, BLE001 - reported by `end`, in the test's own thread
            self.failure = error

    # ------------------------------------------------------------------ control channel

    def send(self, line: bytes) -> None:
        self.control.sendall(line)

    def receive(self) -> dict[str, Any]:
        """Return the next message, whatever it is."""
        while b"\n" not in self._pending:
            chunk = self.control.recv(65_536)
            if not chunk:
                self.join()  # which says why
                raise AssertionError("the node has closed its control channel")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def reply(self) -> dict[str, Any]:
        """Return the next reply; events on the way are collected."""
        while "event" in (message := self.receive()):
            self.events.append(message)
        return message

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        self._numbered += 1
        self.send(json.dumps({"id": self._numbered, "op": op, **arguments}).encode() + b"\n")
        reply = self.reply()
        assert reply["id"] == self._numbered
        return reply

    def wait_for_event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the first event like this, from now or before."""
        seen = 0
        while True:
            for message in self.events[seen:]:
                if message["event"] == event and fields.items() <= message.items():
                    return message
            seen = len(self.events)
            message = self.receive()
            assert "event" in message, f"unexpected reply {message}"
            self.events.append(message)

    def wait_for_status(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask again and again, at the pace at which it answers."""
        until_s = time.monotonic() + LIMIT_S
        while True:
            status: dict[str, Any] = self.request("status")["status"]
            if is_wanted(status):
                return status
            assert time.monotonic() < until_s, f"still {status}"

    # ------------------------------------------------------------------ end

    def end(self) -> None:
        """Close the control channel, which ends the node; raise what went wrong in it."""
        self.control.close()
        self.join()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the node goes on"
        if self.failure is not None:
            raise self.failure

    def records(self) -> list[Record]:
        """Return what it wrote down."""
        lines = Path(self.config.records_path).read_bytes()
        return msgspec.json.Decoder(Record).decode_lines(lines)
