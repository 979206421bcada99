"""The node's end of its control channel: JSON lines from and to the supervisor."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import trio

from proxy.config import RouteConfig
from proxy.core.build import Client, client_of, forwarder_of, login_server_of
from proxy.core.events import (
    CloseRequested,
    Event,
    JoinRequested,
    ObjectsScheduled,
    PublishRequested,
    RevokeRequested,
    ScheduleEnded,
    ScheduleExtended,
)
from proxy.core.service_client import PublishError
from proxy.driver.register import revoked_path, save_revoked
from proxy.driver.status import tables_of
from proxy.records import FaceChanged, PrefixChanged, SessionChanged
from proxy.wire.messages import FRAME_MAX_BYTES, FRAMES_MAX, OBJECT_MAX_BYTES

if TYPE_CHECKING:
    from proxy.driver.program import NodeProgram

LINE_MAX_BYTES: Final = 16 * 1024 * 1024
#: Messages that wait for a supervisor that does not read; beyond that, events are dropped.
WAITING_MAX: Final = 10_000


#: Beyond what can be published, so that whoever asks for too much hears the reason; and within all memory.
SizeBytes = Annotated[int, msgspec.Meta(ge=0, le=1024 * 1024)]
ObjectBytes = Annotated[int, msgspec.Meta(ge=1, le=OBJECT_MAX_BYTES)]
FrameCount = Annotated[int, msgspec.Meta(ge=1, le=FRAMES_MAX)]
FrameBytes = Annotated[int, msgspec.Meta(ge=1, le=FRAME_MAX_BYTES)]
Interval = Annotated[float, msgspec.Meta(gt=0, le=60)]


class Request(msgspec.Struct):
    """One request; each op uses the fields it needs."""

    id: int
    op: str
    writes: bool = True
    event: str = "message"
    body: str | None = None
    size_bytes: SizeBytes = 0
    object_name: str = ""
    device: str = ""
    updates: list[tuple[float, str, SizeBytes | str]] = msgspec.field(default_factory=list)
    routes: list[RouteConfig] = msgspec.field(default_factory=list)
    objects: list[tuple[float, ObjectBytes]] = msgspec.field(default_factory=list)
    streams: list[tuple[float, FrameCount, FrameBytes, Interval, Interval]] = msgspec.field(default_factory=list)


class RequestError(Exception):
    """The supervisor asked for something that this node cannot do; the message goes back."""


class ControlServer:
    """Answers one request after the other; ends the program when the channel ends."""

    def __init__(self, sock: socket.socket, program: NodeProgram) -> None:
        self._socket, self._program = sock, program
        self._outgoing, self._queue = trio.open_memory_channel[bytes](WAITING_MAX)
        self._is_stopping = False

    async def serve(self) -> None:
        """Run until the supervisor closes its end, then stop the program."""
        self._socket.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, stream)
            await self._receive_all(stream)
            self._program.stop()
            nursery.cancel_scope.cancel()

    def say(self, message: dict[str, Any]) -> None:
        """Queue a message for the supervisor; dropped where it has not read the last WAITING_MAX."""
        self._program.give_way()
        try:
            self._outgoing.send_nowait(msgspec.json.encode(message) + b"\n")
        except trio.WouldBlock:
            self._program.counters["control_events_dropped"] += 1

    def say_record(self, record: SessionChanged | FaceChanged | PrefixChanged) -> None:
        """Tell the supervisor of a change of session, face or registered prefix."""
        message = msgspec.to_builtins(record)
        message["event"] = message.pop("kind")
        self.say(message)

    async def _send_all(self, stream: trio.SocketStream) -> None:
        try:
            async for line in self._queue:
                await stream.send_all(line + self._take_waiting())
                if self._is_stopping and not self._queue.statistics().current_buffer_used:
                    self._program.stop()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._program.stop()

    def _take_waiting(self) -> bytes:
        """Take all that waits: a turn of the packet loop for every single line would cost more than the lines."""
        lines = b""
        with contextlib.suppress(trio.WouldBlock):
            while True:
                lines += self._queue.receive_nowait()
        return lines

    async def _receive_all(self, stream: trio.SocketStream) -> None:
        pending = bytearray()
        try:
            async for chunk in stream:
                pending += chunk
                if b"\n" in chunk:
                    *lines, pending = pending.split(b"\n")
                    for line in lines:
                        self._answer(line)
                if len(pending) > LINE_MAX_BYTES:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the supervisor is gone; so are we

    def _answer(self, line: bytes | bytearray) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.say({"id": None, "ok": False, "error": f"not a request: {error}"})
            return
        try:
            reply = self._perform(request)
        except (RequestError, PublishError) as error:
            self.say({"id": request.id, "ok": False, "error": str(error)})
        else:
            self.say({"id": request.id, "ok": True, **reply})
        if request.op == "stop":
            self._is_stopping = True  # as soon as the reply is out

    def _perform(self, request: Request) -> dict[str, Any]:
        program = self._program
        match request.op:
            case "ping" | "stop":
                return {"node": program.config.node, "process": program.config.process}
            case "status":
                return {"status": program.report_status(writes=request.writes)}
            case "tables":
                return {"tables": tables_of(program.core)}
            case "counters":
                return {"counters": msgspec.to_builtins(program.report_counters())}
            case "join" | "schedule" | "schedule-objects" | "end-schedule" | "close":
                self._client(request.op)
                program.dispatch(_asked_of_client(request))
                return {}
            case "publish":
                return self._publish(request)
            case "revoke":
                self._revoke(request.device)
                return {}
            case "routes":
                self._set_routes(request.routes)
                return {}
            case _:
                raise RequestError(f"unknown op {request.op!r}")

    def _publish(self, request: Request) -> dict[str, Any]:
        client = self._client("publish")
        body = bytes(request.size_bytes) if request.body is None else request.body.encode()
        self._program.dispatch(PublishRequested(request.event, body, request.object_name))
        return {"boot": client.boot, "seq": client.published_seq}

    def _set_routes(self, routes: list[RouteConfig]) -> None:
        forwarder = forwarder_of(self._program.core)
        if forwarder is None:
            raise RequestError("routes are for forwarders")
        try:
            for route in routes:
                forwarder.set_route(route)
        except ValueError as error:
            raise RequestError(f"routes: {error}") from error

    def _revoke(self, device: str) -> None:
        config, server = self._program.config, login_server_of(self._program.core)
        if server is None or config.login is None:
            raise RequestError(f"revoke is for the login server; {config.node} is a {config.role}")
        if not server.is_registered(device):
            raise RequestError(f"{device!r} is not registered")
        self._program.dispatch(RevokeRequested(device))
        if config.login.devices_path is not None:
            try:
                save_revoked(revoked_path(Path(config.login.devices_path)), server.revoked)
            except OSError as error:
                raise RequestError(f"{device} is revoked until this server restarts: {error}") from error

    def _client(self, op: str) -> Client:
        client = client_of(self._program.core)
        if client is None:
            raise RequestError(f"{op} is for UEs; {self._program.config.node} is a {self._program.config.role}")
        return client


def _asked_of_client(request: Request) -> Event:
    match request.op:
        case "join":
            return JoinRequested()
        case "schedule":
            updates = (
                (at_s, event, body.encode() if isinstance(body, str) else body) for at_s, event, body in request.updates
            )
            return ScheduleExtended(tuple(updates))
        case "schedule-objects":
            return ObjectsScheduled(tuple(request.objects), tuple(request.streams))
        case "end-schedule":
            return ScheduleEnded()
        case _:
            return CloseRequested()
