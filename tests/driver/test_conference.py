"""A whole conference of node programs over real sockets, and what happens when one of them ends and comes back."""

from __future__ import annotations

import socket

import pytest

from proxy.config import NodeConfig
from proxy.records import Acked, Applied, ObjectFetched, ObjectPublished, Published, SessionChanged
from tests.driver.conftest import Start
from tests.driver.nodes import RunningNode


@pytest.fixture
def nodes(start: Start) -> dict[str, RunningNode]:
    """Everything is up, ue1 and ue2 have joined."""
    found = {
        name: start(name)
        for name in ("csr1.forwarder", "csr1.proxy", "login.forwarder", "ue1.forwarder", "ue2.forwarder")
    }
    for ue in ("ue1.forwarder", "ue2.forwarder"):
        assert found[ue].request("join")["ok"]
        found[ue].wait_for_event("session", state="joined")
    wait_for_agreement(found, {"ue1": 1, "ue2": 1})
    return found


def wait_for_agreement(
    nodes: dict[str, RunningNode], heads: dict[str, int], *, ues: tuple[str, ...] = ("ue1", "ue2")
) -> None:
    for ue in ues:
        nodes[f"{ue}.forwarder"].wait_for_status(
            lambda status: (
                {device: seq for device, _, seq in status["client"]["heads"]} == heads
                and status["client"]["unacked"] == 0
                and status["client"]["state"] == "joined"
            )
        )


def test_updates_are_published_acked_applied_and_recorded(nodes: dict[str, RunningNode]) -> None:
    ue1, ue2 = nodes["ue1.forwarder"], nodes["ue2.forwarder"]
    assert ue1.request("publish", event="message", body="hello") == {
        "id": ue1._numbered,
        "ok": True,
        "boot": 1,
        "seq": 2,
    }
    assert ue1.request("publish", size_bytes=1_000)["seq"] == 3
    wait_for_agreement(nodes, {"ue1": 3, "ue2": 1})
    status = nodes["csr1.proxy"].request("status")["status"]["proxy"]["conferences"]["main"]
    assert status["roster"] == ["ue1", "ue2"]
    assert status["clients"] == ["ue1", "ue2"]
    for node in nodes.values():
        node.end()
    published = {(record.publisher, record.seq): record for record in ue1.records() if isinstance(record, Published)}
    assert [(seq, record.size_bytes) for (_, seq), record in published.items()][1:] == [(2, 5), (3, 1_000)]
    assert [record.seq for record in ue1.records() if isinstance(record, Acked)] == [1, 2, 3]
    applied = [record for record in ue2.records() if isinstance(record, Applied)]
    for record in applied:
        assert record.sha256 == published[record.publisher, record.seq].sha256
        assert record.t_s >= published[record.publisher, record.seq].t_s  # one clock for all
    assert {record.seq for record in applied} >= {2, 3}


def test_schedule_is_published_by_itself(nodes: dict[str, RunningNode]) -> None:
    ue1 = nodes["ue1.forwarder"]
    now_s = ue1.request("counters")["counters"]["t_s"]
    ue1.request("schedule", updates=[[now_s + 0.05 * number, "stroke", 10] for number in range(4)])
    ue1.request("schedule", updates=[[now_s + 0.1, "message", "grüß"], [now_s + 3_600, "message", 1]])
    wait_for_agreement(nodes, {"ue1": 6, "ue2": 1})
    assert ue1.request("end-schedule")["ok"]


def test_a_forwarder_tells_its_tables_and_a_proxy_has_none(nodes: dict[str, RunningNode]) -> None:
    tables = nodes["csr1.forwarder"].request("tables")["tables"]
    routes = {route["prefix"]: route["next_hops"] for route in tables["fib"]}
    peer_of = {face["face_id"]: face["peer"] for face in tables["faces"]}
    assert [peer_of[hop["face_id"]] for hop in routes["/hconf/ue1"]] == ["ue1"]
    assert "multicast" in tables["strategies"].values()
    assert tables["counters"]["pit_peak"] >= 1
    assert nodes["csr1.proxy"].request("tables")["tables"] == {}


def test_an_object_and_a_live_stream_cross_real_sockets(nodes: dict[str, RunningNode]) -> None:
    ue1, ue2 = nodes["ue1.forwarder"], nodes["ue2.forwarder"]
    now_s = ue1.request("counters")["counters"]["t_s"]
    assert ue1.request("schedule-objects", objects=[[now_s, 300_000]], streams=[[now_s, 25, 160, 0.02, 0.5]])["ok"]
    wait_for_agreement(nodes, {"ue1": 3, "ue2": 1})
    ue2.wait_for_status(lambda status: status["client"]["fetching"] == 0)
    for node in nodes.values():
        node.end()
    published = [record for record in ue1.records() if isinstance(record, ObjectPublished)]
    fetched = {record.object_name: record for record in ue2.records() if isinstance(record, ObjectFetched)}
    assert [(record.size_bytes, record.is_stream) for record in published] == [(300_000, False), (25 * 160, True)]
    of_object, of_stream = (fetched[record.object_name] for record in published)
    assert (of_object.outcome, of_object.bytes_by_hops) == ("complete", [(2, 300_000)])
    assert (of_stream.outcome, of_stream.segments, of_stream.deadline_misses) == ("complete", 25, 0)


def test_close(nodes: dict[str, RunningNode]) -> None:
    ue1 = nodes["ue1.forwarder"]
    assert ue1.request("close")["ok"]
    ue1.wait_for_event("session", state="closed", reason="close reply")
    nodes["ue2.forwarder"].wait_for_status(lambda status: status["client"]["roster"] == ["ue2"])


def test_forwarder_outlives_its_service_proxy_and_takes_the_next_one(
    nodes: dict[str, RunningNode], start: Start
) -> None:
    nodes["csr1.proxy"].end()
    for ue in ("ue1.forwarder", "ue2.forwarder"):
        nodes[ue].wait_for_event("session", state="suspect")
    faces = nodes["csr1.forwarder"].request("status")["status"]["forwarder"]["faces"]
    assert {face["face_id"]: face["state"] for face in faces} == {0: "down", 1: "up", 2: "up", 3: "up"}
    nodes["csr1.proxy"] = start("csr1.proxy", boot=2, records_path=nodes["csr1.proxy"].config.records_path + "2")
    for ue in ("ue1.forwarder", "ue2.forwarder"):
        nodes[ue].wait_for_status(lambda status: status["client"]["state"] == "joined")
        nodes[ue].request("publish", body="after")
    wait_for_agreement(nodes, {"ue1": 2, "ue2": 2})


def test_service_proxy_outlives_its_forwarder(nodes: dict[str, RunningNode], start: Start) -> None:
    nodes["csr1.forwarder"].end()
    nodes["ue1.forwarder"].wait_for_event("face", state="down")
    nodes["csr1.forwarder"] = start("csr1.forwarder", boot=2)
    nodes["csr1.forwarder"].wait_for_status(
        lambda status: all(face["state"] == "up" for face in status["forwarder"]["faces"])
    )
    for ue in ("ue1.forwarder", "ue2.forwarder"):
        nodes[ue].wait_for_status(lambda status: status["client"]["state"] == "joined")
    nodes["ue1.forwarder"].request("publish", body="after")
    wait_for_agreement(nodes, {"ue1": 2, "ue2": 1})


def test_second_service_proxy_replaces_the_first(start: Start) -> None:
    """Its process was restarted before anybody noticed that the old one hangs; several times over."""
    forwarder = start("csr1.forwarder")
    held = []
    assert forwarder.config.forwarder is not None
    path = forwarder.config.forwarder.service_socket
    assert path is not None
    for _ in range(5):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(path)
        held.append(sock)
        forwarder.wait_for_status(lambda status: status["forwarder"]["faces"][-1]["state"] == "up")
    for sock in held[:-1]:
        sock.settimeout(20.0)
        assert sock.recv(100) == b"\x64\x00"  # taken in
        assert sock.recv(100) == b""  # closed by the forwarder
    for sock in held:
        sock.close()
    forwarder.wait_for_status(lambda status: status["forwarder"]["faces"][-1]["state"] == "down")


@pytest.mark.parametrize(
    "datagram", [b"", b"\x00", b"hello, world", b"\x05\x02\x07\x00", b"x" * 9_000, b"\x64" + bytes(2_000)]
)
def test_datagram_that_is_no_packet_never_stops_a_node(
    start: Start, configs: dict[str, NodeConfig], datagram: bytes
) -> None:
    node = start("ue1.forwarder")
    forwarder = configs["ue1.forwarder"].forwarder
    assert forwarder is not None
    (face,) = forwarder.faces
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((face.remote_address, face.port))
        sock.connect((face.local_address, face.port))
        for _ in range(3):
            sock.send(datagram)
        node.wait_for_status(lambda _: node.request("counters")["counters"]["counters"].get("malformed", 0) == 3)
    assert node.request("ping")["ok"]


def test_sessions_are_recorded_and_told(nodes: dict[str, RunningNode]) -> None:
    ue1 = nodes["ue1.forwarder"]
    told = [message["state"] for message in ue1.events if message["event"] == "session"]
    assert told == ["login", "joining", "joined"]
    ue1.end()
    assert [record.state for record in ue1.records() if isinstance(record, SessionChanged)] == told


def test_revoked_device_is_out_and_stays_out(nodes: dict[str, RunningNode]) -> None:
    login, ue1 = nodes["login.forwarder"], nodes["ue1.forwarder"]
    assert "not registered" in login.request("revoke", device="nobody")["error"]
    assert "for the login server" in ue1.request("revoke", device="ue1")["error"]
    assert login.request("revoke", device="ue1")["ok"]
    ue1.wait_for_event("session", state="refused", reason="revoked")
    nodes["csr1.proxy"].wait_for_status(
        lambda status: status["proxy"]["conferences"]["main"]["standings"] == {"ue1": "left", "ue2": "joined"}
    )
    nodes["ue2.forwarder"].wait_for_status(lambda status: status["client"]["roster"] == ["ue2"])
