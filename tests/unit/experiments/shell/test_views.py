"""What the shell shows, made of what nodes say."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from experiments.shell import ndn_view
from experiments.shell.log_view import NodeLog
from experiments.shell.start import choose_experiment
from experiments.shell.status_view import Moment, node_lines, status_lines
from proxy.wire.lp import NackReason, encode_nack
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data
from topologies.errors import InputError


def view(digest: str, seq: int, **more: Any) -> dict[str, Any]:
    roster = ["ue1", "ue2"]
    return {
        "state_digest": digest, "vector": [["csr1", 1, seq]], "heads": [["ue1", 1, seq]], "roster": roster,
        "standings": dict.fromkeys(roster, "joined"), **more,
    }  # fmt: skip


def client(digest: str, seq: int, state: str = "joined") -> dict[str, Any]:
    faces = [{"face_id": 1, "link": "csr1-ue1", "peer": "csr1", "state": "up"}]
    told = view(digest, seq, state=state, proxy="csr1", conference="main", unacked=0, queued=0, fetching=0)
    return {"forwarder": {"faces": faces}, "client": told}


def proxy(digest: str, seq: int) -> dict[str, Any]:
    told = view(digest, seq, armed=4, clients=["ue1"], peers=[])
    return {"proxy": {"service": "serving", "conferences": {"main": told}}}


def test_in_sync() -> None:
    statuses = {
        "ue1.forwarder": client("aa" * 16, 5),
        "ue2.forwarder": client("aa" * 16, 5),
        "csr1.proxy": proxy("bb", 5),
    }
    lines = status_lines(Moment(12.34, statuses))
    assert lines[:3] == ["t = 12.3 s", "in sync: all have the same state", "conference main: 2 joined: ue1 ue2"]
    assert ["csr1", "main", "serving", "bb", "1", "0", "4", "0"] in [line.split() for line in lines]
    assert ["ue2", "joined", "csr1", "aaaaaaaa", "0", "0", "0"] in [line.split() for line in lines]
    assert lines[-2:] == ["faces: 2 up, none down", "faults: none active"]


def test_who_lags_who_is_silent_and_what_is_down() -> None:
    late = client("cc" * 16, 2)
    late["forwarder"]["faces"][0]["state"] = "down"
    statuses = {
        "ue1.forwarder": client("aa" * 16, 5),
        "ue2.forwarder": late,
        "csr1.proxy": proxy("bb", 5),
        "csr2.proxy": None,
    }
    lines = status_lines(Moment(1.0, statuses, ["f1  link-down a-b"]))
    assert lines[1].startswith("not in sync: ")
    assert "no answer from csr2.proxy" in lines
    assert ["ue2", "joined", "csr1", "cccccccc", "0", "0", "3"] in [line.split() for line in lines]
    assert "faces: 1 up, 1 down: ue2 to csr1" in lines
    assert lines[-1] == "faults: f1  link-down a-b"
    assert "  updates missing: 3" in node_lines("ue2", Moment(1.0, statuses))
    assert "csr2.proxy: no answer" in node_lines("csr2", Moment(1.0, statuses))


def test_of_many_clients_only_those_are_listed_that_something_is_to_be_said_of() -> None:
    statuses = {f"ue{number}.forwarder": client("aa" * 16, 5) for number in range(1, 41)}
    statuses["ue7.forwarder"] = client("aa" * 16, 5, state="suspect")
    lines = status_lines(Moment(1.0, statuses))
    assert [line.split()[0] for line in lines if line.startswith("ue")] == ["ue7"]
    assert "39 of 40 clients are joined and have everything (`status all` lists them)" in lines
    assert sum(line.startswith("ue") for line in status_lines(Moment(1.0, statuses), everybody=True)) == 40


def test_log_shows_what_is_new_in_the_order_of_time_and_leaves_out_what_comes_every_second(tmp_path: Path) -> None:
    def write(process: str, *records: dict[str, Any], torn: str = "") -> None:
        with (tmp_path / f"{process}.jsonl").open("a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records) + torn)

    write("csr1.proxy", {"kind": "peer", "t_s": 102.0, "peer": "csr2"}, {"kind": "counters", "t_s": 103.0})
    write("csr1.forwarder", {"kind": "face", "t_s": 101.5, "node": "csr1", "peer": "ue1", "reason": ""}, torn='{"kind"')
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "csr1.proxy.log").write_text("it said\nhalf a li")
    log = NodeLog(tmp_path, ["csr1.forwarder", "csr1.proxy"], 100.0)
    first = log.read()
    assert [line.split() for line in first] == [
        ["1.500", "s", "forwarder", "face", "peer=ue1"],
        ["2.000", "s", "proxy", "peer", "peer=csr2"],
        ["csr1.proxy:", "it", "said"],
    ]
    assert log.read() == []
    with (tmp_path / "csr1.forwarder.jsonl").open("a") as file:
        file.write(': "face", "t_s": 104.0}\n')
    assert [line.split()[0] for line in log.read()] == ["4.000"]
    only = NodeLog(tmp_path, ["csr1.proxy"], 100.0, frozenset({"counters"}))
    assert [line.split()[3] for line in only.read()[:1]] == ["counters"]


@pytest.mark.parametrize("uri", ["no/slash", "/a/sha256digest=12"])
def test_what_is_no_name_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is no name"):
        ndn_view.checked_name(uri)


NAME = from_uri("/a/b")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (encode_data(NAME, b"hello"), ["Data after", "5 bytes", "hello"]),
        (encode_data(NAME, b"\x00\x01"), ["Data after", "2 bytes", "00 01"]),
        (None, ["closed the connection"]),
        (b"", ["no answer within 0.1 s"]),
    ],
)
def test_an_interest_and_what_comes_back(tmp_path: Path, answer: bytes | None, said: list[str]) -> None:
    lines = expressed(tmp_path, answer)
    assert all(part in line for part, line in zip(said, lines, strict=True))


def test_a_nack_says_its_reason(tmp_path: Path) -> None:
    assert "no route" in expressed(tmp_path, encode_nack(b"\x05\x03\x07\x01x", NackReason.NO_ROUTE))[0]


def expressed(tmp_path: Path, answer: bytes | None) -> list[str]:
    """Express an Interest to a forwarder that answers in two parts, with nothing, or hangs up."""
    path = tmp_path / "nfd.sock"
    asked: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            application, _ = listener.accept()
            with application:
                asked.append(application.recv(1_000))
                if answer:
                    application.sendall(answer[:3])
                    application.sendall(answer[3:])
                if answer is not None:
                    done.wait(5)

        forwarder = threading.Thread(target=serve)
        forwarder.start()
        lines = ndn_view.express(path, NAME, lifetime_s=0.1)
        done.set()
        forwarder.join()
    assert NAME in asked[0]
    return lines


def test_a_forwarder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take applications"):
        ndn_view.express(tmp_path / "none", NAME, lifetime_s=0.1)


def test_a_shell_takes_a_file_or_the_name_of_a_topology(tmp_path: Path) -> None:
    bare = choose_experiment("topozoo/Abilene", ["experiment.seed=3"])
    assert (bare.topology.name, bare.settings.seed, bare.workloads, bare.faults) == ("topozoo/Abilene", 3, (), ())
    file = tmp_path / "mine.toml"
    file.write_text('[experiment]\nname = "mine"\nduration_s = 5\n[topology]\nname = "tiers"\n')
    assert choose_experiment(str(file)).settings.name == "mine"
    network = tmp_path / "two nodes.conf"
    network.write_text("[nodes]\na: _\nb: _\n[links]\na:b delay=1ms\n")
    of_network = choose_experiment(str(network), ["topology.csrs=1"])
    assert (of_network.topology.csrs, of_network.settings.name) == (("a",), "shell-two-nodes.conf")
    with pytest.raises(InputError, match=r"neither a file nor a topology.*topozoo/Abilene"):
        choose_experiment("abilene")
    with pytest.raises(InputError, match="no such file"):
        choose_experiment(str(tmp_path / "mime.toml"))
