"""Applications at a node's socket: python-ndn, unchanged, and others that misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ndn.app import NDNApp
from ndn.app_support.nfd_mgmt import FaceStatusMsg, GeneralStatus
from ndn.appv2 import NDNApp as NDNAppV2
from ndn.appv2 import ReplyFunc
from ndn.client_conf import default_face
from ndn.encoding import Component, FormalName
from ndn.security import KeychainDigest
from ndn.types import InterestNack, ValidResult

from proxy.config import NodeConfig
from proxy.driver.applications import WAITING_MAX_BYTES
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_interest
from proxy.wire.tlv import tlv
from tests.driver.nodes import LIMIT_S, RunningNode

Start = Callable[..., RunningNode]


@pytest.fixture
def node(start: Start) -> RunningNode:
    return start("csr1.forwarder")


def socket_of(node: RunningNode) -> str:
    assert node.config.forwarder is not None
    assert node.config.forwarder.application_socket is not None
    return node.config.forwarder.application_socket


def counter(node: RunningNode, name: str) -> int:
    found: int = node.request("counters")["counters"]["counters"].get(name, 0)
    return found


def wait_for_counter(node: RunningNode, name: str, at_least: int = 1) -> int:
    found = 0
    for _ in range(2_000):
        if (found := counter(node, name)) >= at_least:
            return found
    raise AssertionError(f"{name} is {found}")


def run(app: NDNApp | NDNAppV2, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an application until *work* is done; raise what that raises."""

    async def then_stop() -> None:
        try:
            await work()
        finally:
            app.shutdown()

    async def main() -> None:
        await asyncio.wait_for(app.main_loop(then_stop()), LIMIT_S)

    asyncio.run(main())


def old_app(url: str) -> NDNApp:
    return NDNApp(face=default_face(url), keychain=KeychainDigest())


def new_app(url: str) -> NDNAppV2:
    return NDNAppV2(face=default_face(url))


def test_an_application_registers_a_prefix_and_another_one_reaches_it(node: RunningNode) -> None:
    url = f"unix://{socket_of(node)}"
    producer, consumer = old_app(url), new_app(url)

    def on_interest(name: FormalName, _param: object, _parameters: object) -> None:
        producer.put_data(name, b"hello", freshness_period=1_000)

    async def work() -> None:
        assert await producer.register("/demo", on_interest)
        connected = asyncio.Event()

        async def say_connected() -> None:
            await asyncio.sleep(0)
            connected.set()

        consuming = asyncio.create_task(consumer.main_loop(say_connected()))
        await connected.wait()
        _, content, _ = await consumer.express("/demo/1", accept, lifetime=4_000)
        assert bytes(content) == b"hello"
        assert await producer.unregister("/demo")
        with pytest.raises(InterestNack):
            await consumer.express("/demo/2", accept, lifetime=4_000)
        consumer.shutdown()
        await consuming

    run(producer, work)
    assert wait_for_counter(node, "commands", 2) == 2
    assert node.wait_for_event("prefix", state="unregistered")["prefix"] == "/demo"


async def accept(*_: object) -> ValidResult:
    await asyncio.sleep(0)
    return ValidResult.PASS


def test_the_newer_interface_of_python_ndn_registers_too(node: RunningNode) -> None:
    app = new_app(f"unix://{socket_of(node)}")

    def on_interest(name: FormalName, _parameters: object, reply: ReplyFunc, _context: object) -> None:
        reply(app.make_data(name, b"new", signer=None))

    async def work() -> None:
        assert await app.register("/new")
        app.attach_handler("/new", on_interest)

    run(app, work)
    node.wait_for_event("prefix", prefix="/new", state="registered")
    node.wait_for_event("prefix", prefix="/new", state="unregistered")  # with the application


def test_tcp_and_udp_on_the_loopback_address_work_as_well(start: Start, configs: dict[str, NodeConfig]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    forwarder = configs["csr1.forwarder"].forwarder
    assert forwarder is not None
    node = start("csr1.forwarder", forwarder=msgspec.structs.replace(forwarder, application_port=port))
    for url in (f"tcp4://127.0.0.1:{port}", f"udp4://127.0.0.1:{port}"):
        app = old_app(url)

        async def work(app: NDNApp = app) -> None:
            assert await app.register("/demo", lambda *_: None)
            assert await app.unregister("/demo")

        run(app, work)
    assert counter(node, "commands") == 4
    assert counter(node, "applications") == 2


def test_datasets_are_what_python_ndn_reads(node: RunningNode) -> None:
    app = old_app(f"unix://{socket_of(node)}")

    async def work() -> None:
        name, _, content = await app.express_interest(
            "/localhost/nfd/faces/list", can_be_prefix=True, must_be_fresh=True, lifetime=4_000
        )
        assert Component.get_type(name[-1]) == Component.TYPE_SEGMENT
        assert Component.get_type(name[-2]) == Component.TYPE_VERSION
        faces = FaceStatusMsg.parse(content).face_status
        links = {face.face_id: face for face in faces if face.face_id < 1_000}
        assert [face.uri.startswith("udp4://127.") for face in links.values()] == [True] * 3
        mine = next(face for face in faces if face.face_id >= 1_000)
        assert (mine.face_scope.name, mine.n_in_interests, mine.n_out_data) == ("LOCAL", 1, 0)
        assert mine.local_uri == f"unix://{socket_of(node)}"
        _, _, content = await app.express_interest(
            "/localhost/nfd/status/general", can_be_prefix=True, must_be_fresh=True, lifetime=4_000
        )
        status = GeneralStatus.parse(content)
        assert status.current_timestamp >= status.start_timestamp > 1_600_000_000_000
        assert status.n_fib_entries > 3
        assert status.n_in_interests >= 2

    run(app, work)


# ---------------------------------------------------------------------- bad input


def connect(node: RunningNode) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(LIMIT_S)
    sock.connect(socket_of(node))
    return sock


def assert_others_are_served(node: RunningNode) -> None:
    app = old_app(f"unix://{socket_of(node)}")

    async def work() -> None:
        assert await app.register("/served", lambda *_: None)

    run(app, work)


def test_half_a_packet_is_waited_for_and_forgotten_with_its_sender(node: RunningNode) -> None:
    _, packet = encode_interest(from_uri("/localhost/nfd/status/none"), nonce=7)
    with connect(node) as sock:
        for at in range(len(packet)):  # one octet at a time
            sock.send(packet[at : at + 1])
        assert sock.recv(8_800)[:1] == b"\x64"  # a Nack: there is no such thing
        sock.send(packet[:-1])
        assert_others_are_served(node)
    wait_for_counter(node, "malformed")


def test_what_is_no_packet_ends_the_connection(node: RunningNode) -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n", b"\x05\xfe\x7f\xff\xff\xff", b"\x05\xfd\xff\xff", b"\x05\xfd\x00\x01a"):
        with connect(node) as sock:
            sock.send(rubbish)
            assert sock.recv(1) == b""
    assert counter(node, "malformed") == 4
    assert_others_are_served(node)


def test_a_broken_packet_is_counted_and_its_sender_goes_on(node: RunningNode) -> None:
    with connect(node) as sock:
        sock.send(tlv(5, b"\x07\x01") + encode_interest(from_uri("/localhost/nfd/status/none"), nonce=7)[1])
        assert sock.recv(8_800)[:1] == b"\x64"
    assert counter(node, "malformed") == 1


def test_who_does_not_read_loses_packets_and_nobody_else_does(node: RunningNode) -> None:
    dataset = from_uri("/localhost/nfd/status/general")
    wire = encode_interest(dataset, nonce=7)[1]
    wire = tlv(5, wire[2 : 2 + 2 + len(dataset)] + b"\x21\x00" + wire[2 + 2 + len(dataset) :])  # CanBePrefix
    with connect(node) as sock:
        sock.settimeout(1.0)
        sock.sendall(wire)
        answer_bytes = len(sock.recv(8_800))
        wanted = 3 * WAITING_MAX_BYTES // answer_bytes  # besides what the kernel keeps
        sock.settimeout(LIMIT_S)
        for _ in range(wanted // 100):
            sock.sendall(wire * 100)
        wait_for_counter(node, "unread")
        assert_others_are_served(node)


def test_a_flood_does_not_keep_others_from_being_served(node: RunningNode) -> None:
    with connect(node) as flooding:
        flooding.setblocking(False)
        for number in range(200_000):
            try:
                flooding.send(encode_interest(from_uri(f"/nowhere/{number}"), nonce=number + 1)[1])
            except BlockingIOError:
                break
        assert_others_are_served(node)


def test_connections_are_limited(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.driver.applications.APPLICATIONS_MAX", 2)
    with connect(node) as first, connect(node), connect(node) as third:
        assert third.recv(1) == b""
        first.close()
        wait_for_counter(node, "refused_application")
        assert_others_are_served(node)


def test_who_leaves_is_forgotten_with_what_it_asked_and_was_asked(node: RunningNode) -> None:
    url = f"unix://{socket_of(node)}"
    producer, consumer = old_app(url), old_app(url)

    async def consume() -> None:
        waiting = [asyncio.create_task(express(consumer, f"/mute/{number}")) for number in range(50)]
        await asyncio.sleep(0.2)  # they are at the producer now, which says nothing
        producer.shutdown()
        assert await asyncio.gather(*waiting) == ["nack"] * 50
        consumer.shutdown()

    async def produce() -> None:
        assert await producer.register("/mute", lambda *_: None)
        await consumer.main_loop(consume())

    asyncio.run(asyncio.wait_for(producer.main_loop(produce()), LIMIT_S))
    assert counter(node, "pit_entries") == 0
    with connect(node) as sock:
        sock.sendall(
            b"".join(encode_interest(from_uri(f"/hconf/ue1/{number}"), nonce=number)[1] for number in range(9))
        )
        wait_for_counter(node, "pit_peak", 9)
    node.request("ping")
    assert_others_are_served(node)


async def express(app: NDNApp, name: str) -> str:
    try:
        await app.express_interest(name, lifetime=10_000)
    except InterestNack:
        return "nack"
    return "data"


def test_the_socket_is_for_everybody(node: RunningNode) -> None:
    path = Path(socket_of(node))
    assert path.stat().st_mode & 0o777 == 0o666
    assert path.parent.stat().st_mode & 0o755 == 0o755


def test_routes_are_taken_from_the_supervisor(node: RunningNode) -> None:
    face = {"face_id": 1, "cost_ms": 2.0}
    assert node.request("routes", routes=[{"prefix": "/demo", "next_hops": [face]}])["ok"]
    assert node.request("routes", routes=[{"prefix": "/demo", "next_hops": []}])["ok"]
    for wrong in ({"prefix": "demo", "next_hops": [face]}, {"prefix": "/demo", "next_hops": [face | {"face_id": 99}]}):
        assert not node.request("routes", routes=[wrong])["ok"]
