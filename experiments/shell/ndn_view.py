"""``ndn``: routes and tables of forwarders, and an Interest of one's own."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from experiments.shell.columns import in_columns
from proxy.wire.lp import NackReason, decode_link_packet
from proxy.wire.name import from_uri, to_uri
from proxy.wire.packet import decode_data
from proxy.wire.tlv import MalformedError, non_negative_integer, read_element, tlv
from topologies.errors import InputError

_INTEREST, _NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _LIFETIME = (
    0x05,
    0x07,
    b"\x21\x00",
    b"\x12\x00",
    0x0C,
)  # NDN Packet Format v0.3
_PACKET_MAX_BYTES: Final = 8_800
_CONTENT_SHOWN_BYTES: Final = 400
#: What each of the two layers adds to an Interest's lifetime until a Nack would have come.
_GRACE_S: Final = 0.5


def table_lines(tables: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return a line a node: faces, routes, PIT and content store."""
    rows: list[list[object]] = []
    for node, told in tables.items():
        if told is None:
            rows.append([node, "no answer", "-", "-", "-", "-", "-", "-", "-"])
            continue
        count, faces = told["counters"], told["faces"]
        up = sum(face["state"] == "up" for face in faces)
        rows.append(
            [
                *(node, f"{up} of {len(faces)}", len(told["fib"]), count["pit_entries"], count["pit_peak"]),
                *(count["cs_entries"], count["cs_bytes"], count["cs_hits"], count["cs_misses"]),
            ]
        )
    head = ["node", "faces up", "prefixes", "PIT", "PIT peak", "CS", "CS bytes", "CS hits", "CS misses"]
    return in_columns(head, rows)


def node_lines(node: str, told: Mapping[str, Any]) -> list[str]:
    """Return the FIB of one node, next hops best first, its strategies and counters."""
    peers = {face["face_id"]: face["peer"] or f"local face {face['face_id']}" for face in told["faces"]}
    rows = [
        [
            route["prefix"],
            ", ".join(
                f"{peers.get(hop['face_id'], hop['face_id'])} ({hop['cost_ms']:.3g} ms)" for hop in route["next_hops"]
            ),
        ]
        for route in sorted(told["fib"], key=lambda route: str(route["prefix"]))
    ]
    strategies = [f"{prefix}: {strategy}" for prefix, strategy in told["strategies"].items()]
    counters = [f"{name} {value}" for name, value in sorted(told["counters"].items()) if value]
    return [
        f"FIB of {node}, next hops best first:",
        *in_columns(["prefix", "next hops (path delay)"], rows),
        "",
        f"strategies: {'; '.join(strategies) or 'none'}; best-route for all other names",
        f"counters: {', '.join(counters)}",
    ]


def checked_name(uri: str) -> bytes:
    """Return a name that was typed. Raises: InputError."""
    try:
        if not uri.startswith("/"):
            raise MalformedError("it does not begin with /")
        return from_uri(uri)
    except (MalformedError, ValueError) as error:
        raise InputError(
            where=f"ndn get {uri}",
            problem=f"is no name: {error}",
            remedy="write a name such as /localhost/nfd/faces/list",
        ) from error


def express(socket_path: Path, name: bytes, *, lifetime_s: float) -> list[str]:
    """Send one Interest to a forwarder, as an application of its node, and return what came back. Raises: InputError."""
    packet = tlv(
        _INTEREST,
        tlv(_NAME, name)
        + _CAN_BE_PREFIX
        + _MUST_BE_FRESH
        + b"\x0a\x04"
        + secrets.token_bytes(4)
        + tlv(_LIFETIME, non_negative_integer(int(lifetime_s * 1e3))),
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as application:
        application.settimeout(lifetime_s + _GRACE_S)
        try:
            application.connect(str(socket_path))
            begun_s = time.monotonic()
            application.sendall(packet)
            answer = _receive(application)
        except TimeoutError:
            return [f"no answer within {lifetime_s:g} s"]
        except OSError as error:
            raise InputError(
                where="ndn get",
                problem=f"the forwarder does not take applications ({error.strerror or error})",
                remedy="see `status`: is it dead or frozen?",
            ) from error
    took_ms = (time.monotonic() - begun_s) * 1e3
    if answer is None:
        return ["the forwarder closed the connection"]
    link = decode_link_packet(answer)
    if link.nack_reason is not None:
        known = {reason.value: reason.name.lower().replace("_", " ") for reason in NackReason}
        return [f"Nack after {took_ms:.2f} ms: {known.get(link.nack_reason, link.nack_reason)}"]
    data = decode_data(link.fragment)
    lines = [f"Data after {took_ms:.2f} ms: {to_uri(data.name)}", f"  {len(data.content)} bytes of content"]
    shown = data.content[:_CONTENT_SHOWN_BYTES]
    text = shown.decode("utf-8", errors="replace")
    if shown and text.isprintable():
        lines.append(f"  {text}")
    elif shown:
        lines += [f"  {shown[at : at + 16].hex(' ')}" for at in range(0, min(len(shown), 128), 16)]
    return lines


def _receive(application: socket.socket) -> bytes | None:
    """Return the first packet that comes; None where the stream ends before."""
    received = b""
    while len(received) <= _PACKET_MAX_BYTES * 2:
        with contextlib.suppress(MalformedError):  # it has not come to its end yet
            _, _, end = read_element(received, 0, len(received))
            return received[:end]
        more = application.recv(65_536)
        if not more:
            return None
        received += more
    return None
