import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from testbed.emulation import control
from testbed.emulation.control import ControlChannel, NodeGoneError, NodeRefusedError, NodeSilentError

Lines = list[dict[str, Any]]


class Node:
    """The other end of a control channel, driven by a test."""

    def __init__(self) -> None:
        ours, self.stream = trio.testing.memory_stream_pair()
        self.events: Lines = []
        self.channel = ControlChannel("ue1.forwarder", ours, self.events.append)

    async def requests(self, count: int) -> Lines:
        data = b""
        while data.count(b"\n") < count:
            data += await self.stream.receive_some()
        return [json.loads(line) for line in data.splitlines()]

    async def say(self, *messages: dict[str, Any]) -> None:
        await self.stream.send_all(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


@pytest.fixture
def node() -> Node:
    return Node()


async def test_replies_find_their_requests_in_any_order(node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(node.channel.serve)
    answers: dict[str, Any] = {}

    async def ask(op: str) -> None:
        answers[op] = (await node.channel.request(op, word=op * 2))["echo"]

    async with trio.open_nursery() as asking:
        for op in ("a", "b", "c"):
            asking.start_soon(ask, op)
        asked = await node.requests(3)
        await node.say(*({"id": one["id"], "ok": True, "echo": one["word"]} for one in reversed(asked)))
    assert answers == {"a": "aa", "b": "bb", "c": "cc"}
    await node.stream.aclose()


async def test_events_come_unasked_and_in_pieces(node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(node.channel.serve)
    for byte in b'{"event":"ready","t_s":1.5}\n{"event":"fa':
        await node.stream.send_all(bytes([byte]))
    await node.stream.send_all(b'ce"}\n')
    await trio.testing.wait_all_tasks_blocked()
    assert node.events == [{"event": "ready", "t_s": 1.5}, {"event": "face"}]
    await node.stream.aclose()


async def test_a_refusal_carries_the_nodes_words(node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(node.channel.serve)
    await node.say({"id": 1, "ok": False, "error": "not joined"})
    with pytest.raises(NodeRefusedError, match=r"ue1\.forwarder refused `publish`: not joined"):
        await node.channel.request("publish")
    await node.stream.aclose()


async def test_a_silent_node_is_given_up(
    node: Node, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    nursery.start_soon(node.channel.serve)
    with pytest.raises(NodeSilentError, match="within 2 s"):
        await node.channel.request("ping", limit_s=2.0)
    assert trio.current_time() == 2.0
    await node.say({"id": 1, "ok": True}, {"id": 2, "ok": True})  # the first answer is late; nobody minds
    await node.channel.request("ping")
    await node.stream.aclose()


async def test_whoever_waits_hears_of_the_end(node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(node.channel.serve)
    nursery.start_soon(node.stream.aclose)
    with pytest.raises(NodeGoneError, match="before it answered `ping`"):
        await node.channel.request("ping")
    with pytest.raises(NodeGoneError):
        await node.channel.request("ping")


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", b"[1]", b"{", b"null", b"3"])
async def test_what_is_no_message_is_reported_and_skipped(node: Node, nursery: trio.Nursery, line: bytes) -> None:
    nursery.start_soon(node.channel.serve)
    await node.stream.send_all(line + b'\n{"event":"next"}\n')
    await trio.testing.wait_all_tasks_blocked()
    assert [event["event"] for event in node.events] == ["garbled", "next"]
    await node.stream.aclose()


async def test_a_line_without_end_ends_the_channel(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LINE_MAX_BYTES", 1_000)
    await node.stream.send_all(b"x" * 1_001)
    await node.channel.serve()
    with pytest.raises(NodeGoneError):
        await node.channel.request("ping")


async def test_a_cancelled_request_leaves_the_channel_usable(node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(node.channel.serve)
    with trio.CancelScope() as scope:
        cancel: Callable[[], None] = scope.cancel
        scope.cancel()
        await node.channel.request("ping")
    assert cancel == scope.cancel
    await node.say({"id": 2, "ok": True})
    assert (await node.channel.request("ping"))["ok"]
    await node.stream.aclose()
