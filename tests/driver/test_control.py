"""The control channel of a running node program: every op, everything that is no op, and its end."""

from __future__ import annotations

import json
import re

import pytest

from proxy.records import CountersReported, StateReported
from tests.driver.conftest import Start


@pytest.mark.parametrize("process", ["csr1.forwarder", "csr1.proxy", "ue1.forwarder", "login.forwarder"])
def test_every_process_answers(start: Start, process: str) -> None:
    node = start(process)
    name, _, kind = process.partition(".")
    assert node.request("ping") == {"id": 1, "ok": True, "node": name, "process": kind}
    status = node.request("status")["status"]
    parts = {"csr1.proxy": {"proxy"}, "ue1.forwarder": {"forwarder", "client"}}
    assert set(status) == parts.get(process, {"forwarder"})
    counters = node.request("counters")["counters"]
    assert (counters["node"], counters["process"]) == (name, kind)
    assert counters["cpu_s"] > 0
    assert counters["max_rss_bytes"] > 1_000_000


def test_status_of_a_client_that_has_not_joined(start: Start) -> None:
    client = start("ue1.forwarder").request("status")["status"]["client"]
    assert client == {
        "state": "idle", "proxy": "", "conference": "main", "state_digest": client["state_digest"], "vector": [], "heads": [],
        "roster": [], "standings": {}, "unacked": 0, "queued": 0, "fetching": 0,
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{32}", client["state_digest"])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"{}",
        b"[1, 2]",
        b'{"id": 1}',
        b'{"id": "one", "op": "ping"}',
        b'{"id": 1, "op": 7}',
        b'{"id": 1, "op": "ping"',
        b"\xff\xfe\x00",
        b'{"id": 1, "op": "publish", "size_bytes": -1}',
        b'{"id": 1, "op": "publish", "size_bytes": 1e99}',
        b'{"id": 1, "op": "schedule", "updates": [[1.0, "message", -1]]}',
        b'{"id": 1, "op": "schedule", "updates": [["soon", "message", 1]]}',
        b'{"id": 1, "op": "schedule", "updates": [[NaN, "message", 1]]}',
        b'{"id": 1, "op": "schedule-objects", "objects": [[1.0, 0]]}',
        b'{"id": 1, "op": "schedule-objects", "objects": [[1.0, 100000000]]}',
        b'{"id": 1, "op": "schedule-objects", "streams": [[1.0, 10, 100, 0, 1]]}',
        b'{"id": 1, "x": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_answered_and_harms_nobody(start: Start, line: bytes) -> None:
    node = start("ue1.forwarder")
    node.send(line + b"\n")
    reply = node.reply()
    assert reply["ok"] is False
    assert reply["id"] is None
    assert reply["error"].startswith("not a request")
    assert node.request("ping")["ok"]


def test_unknown_op(start: Start) -> None:
    assert start("ue1.forwarder").request("dance") == {"id": 1, "ok": False, "error": "unknown op 'dance'"}


@pytest.mark.parametrize("op", ["join", "publish", "schedule", "close"])
def test_ops_of_clients_elsewhere(start: Start, op: str) -> None:
    reply = start("login.forwarder").request(op)
    assert reply["error"] == f"{op} is for UEs; login is a login"


@pytest.mark.parametrize(
    ("op", "arguments", "error"),
    [
        ("publish", {"body": "hello"}, "ue1 is not joined (idle)"),
        ("close", {}, "ue1 is not joined (idle)"),
        ("publish", {"size_bytes": 7_001}, "body of 7001 bytes; 7000 is the limit, publish an object instead"),
        ("publish", {"event": ""}, "event type of 0 octets; 1 to 64 are allowed"),
    ],
)
def test_what_a_client_cannot_do(start: Start, op: str, arguments: dict[str, object], error: str) -> None:
    node = start("ue1.forwarder")
    assert node.request(op, **arguments) == {"id": 1, "ok": False, "error": error}
    assert node.request("ping")["ok"]


def test_requests_in_one_chunk_and_in_pieces(start: Start) -> None:
    node = start("ue1.forwarder")
    lines = b"".join(json.dumps({"id": number, "op": "ping"}).encode() + b"\n" for number in range(50))
    node.send(lines)
    assert [node.reply()["id"] for _ in range(50)] == list(range(50))
    for octet in b'{"id": 7, "op": "ping"}\n':
        node.send(bytes((octet,)))
    assert node.reply()["id"] == 7


def test_stop_is_answered_and_ends_the_node(start: Start) -> None:
    node = start("ue1.forwarder")
    assert node.request("stop")["ok"]
    node.join()
    assert isinstance(node.records()[-1], CountersReported)


def test_end_of_the_channel_ends_the_node(start: Start) -> None:
    node = start("csr1.proxy")
    node.end()
    assert isinstance(node.records()[-1], CountersReported)


def test_line_without_an_end_ends_the_node_rather_than_its_memory(start: Start) -> None:
    node = start("ue1.forwarder")
    try:
        for _ in range(17):
            node.send(b"x" * 1024 * 1024)
    except (BrokenPipeError, ConnectionResetError):
        pass
    node.join()


def test_status_and_counters_are_recorded(start: Start) -> None:
    node = start("ue1.forwarder")
    node.request("status")
    node.request("counters")
    node.end()
    kinds = [type(record) for record in node.records()]
    assert kinds.count(StateReported) == 1
    assert kinds.count(CountersReported) >= 2
