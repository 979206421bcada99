"""The supervisor's end of a node's control channel: JSON lines over a Unix stream socket.

Requests ``{"id": n, "op": ...}`` get one reply each, ``{"id": n, "ok": true, ...}`` or ``{"id": n, "ok": false,
"error": "..."}``, in any order; lines with ``event`` come unasked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import trio

#: Longest line a node may send; a status reply of a conference of thousands stays far below.
LINE_MAX_BYTES: Final = 64 * 1024 * 1024

#: How long a node may take to answer unless the request says otherwise.
REPLY_LIMIT_S: Final = 10.0


class NodeError(Exception):
    """A node process did not do what it was asked."""


class NodeGoneError(NodeError):
    """The process has ended, or closed its control channel."""


class NodeRefusedError(NodeError):
    """The node answered that it cannot; the message is its own."""


class NodeSilentError(NodeError):
    """The node did not answer in time."""


class ControlChannel:
    """One node process. `serve` must be running for requests to be answered."""

    def __init__(self, name: str, stream: trio.abc.Stream, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.name = name
        self._stream, self._on_event = stream, on_event
        self._sending = trio.Lock()
        self._next_id = 1
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}  # bounded by the callers that wait
        self._closed = False

    async def request(self, op: str, *, limit_s: float = REPLY_LIMIT_S, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a request and return its reply.

        Raises: NodeGoneError, NodeRefusedError, NodeSilentError after *limit_s*.
        """
        request_id, self._next_id = self._next_id, self._next_id + 1
        line = json.dumps({"id": request_id, "op": op, **arguments}, separators=(",", ":")).encode() + b"\n"
        answered, reply = trio.Event(), list[dict[str, Any]]()
        self._waiting[request_id] = answered, reply
        try:
            with trio.move_on_after(limit_s) as limit:
                await self._send(line)
                if not self._closed:
                    await answered.wait()
            if limit.cancelled_caught:
                raise NodeSilentError(f"{self.name} did not answer `{op}` within {limit_s:g} s")
        finally:
            del self._waiting[request_id]
        if not reply:
            raise NodeGoneError(f"{self.name} ended before it answered `{op}`")
        if reply[0].get("ok") is not True:
            raise NodeRefusedError(f"{self.name} refused `{op}`: {reply[0].get('error', 'no reason given')}")
        return reply[0]

    async def _send(self, line: bytes) -> None:
        async with self._sending:  # one line at a time; a reply is not waited for in here
            if self._closed:
                return
            try:
                with trio.CancelScope(shield=True) as whole_line:  # half a line would garble all that follow
                    whole_line.deadline = trio.current_time() + REPLY_LIMIT_S
                    await self._stream.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._close()
            else:
                if whole_line.cancelled_caught:
                    self._close()

    async def serve(self) -> None:
        """Read until the node closes its end: hand out replies and events. Never raises for what a node sends."""
        pending = bytearray()
        try:
            async for chunk in self._stream:
                scanned = len(pending)
                pending += chunk
                while (end := pending.find(b"\n", scanned)) >= 0:
                    self._take(bytes(pending[:end]))
                    del pending[: end + 1]
                    scanned = 0
                if len(pending) > LINE_MAX_BYTES:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was killed
        finally:
            self._close()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._on_event({"event": "garbled", "line": line[:200].decode(errors="replace")})
        elif "event" in message:
            self._on_event(message)
        elif (waiting := self._waiting.get(message.get("id", 0))) is not None:
            waiting[1].append(message)
            waiting[0].set()

    def _close(self) -> None:
        self._closed = True
        for answered, _ in self._waiting.values():
            answered.set()

    async def aclose(self) -> None:
        """Close our end; the node takes that as the end of its supervisor and ends."""
        self._close()
        await trio.aclose_forcefully(self._stream)
