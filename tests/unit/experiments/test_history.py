from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from experiments.checker import check_nothing_twice
from experiments.history import Membership, history_of, memberships, read_history, read_lines
from proxy.records import Applied, Published, Record, SessionChanged, SnapshotApplied
from topologies.errors import InputError

FIRST = Published(2.0, "main", "ue1", 1, 1, "message", 3, "", "ab")
SECOND = Applied(1.0, "main", "ue2", "ue1", 1, 1, "armed", "ab")


def write(path: Path, *records: object, tail: bytes = b"") -> None:
    path.write_bytes(msgspec.json.Encoder().encode_lines(records) + tail)


def change(t_s: float, state: str) -> SessionChanged:
    return msgspec.convert(
        {"kind": "session", "t_s": t_s, "conference": "main", "device": "ue1", "proxy": "csr1", "state": state},
        SessionChanged,
    )


def test_records_of_all_nodes_are_merged_in_the_order_of_time(tmp_path: Path) -> None:
    write(tmp_path / "a.forwarder.jsonl", change(5.0, "joined"), change(3.0, "joining"))
    write(tmp_path / "b.forwarder.jsonl", FIRST, SECOND, change(4.0, "login"))
    (tmp_path / "faults.jsonl").write_text("not a record of a node\n")
    history = read_history(tmp_path)
    assert history.published == [FIRST]
    assert list(history.applied) == [SECOND]
    assert [session.t_s for session in history.sessions] == [3.0, 4.0, 5.0]
    assert history.damage == []


@pytest.mark.parametrize("torn", [b'{"kind":"publ', b'{"kind":"published","t_s":1}', b"\xff\xfe", b"\x00" * 100])
def test_a_torn_last_line_is_left_out_and_named(tmp_path: Path, torn: bytes) -> None:
    write(tmp_path / "a.forwarder.jsonl", FIRST, SECOND, tail=torn)
    history = read_history(tmp_path)
    assert (len(history.published), len(history.applied)) == (1, 1)
    assert len(history.damage) == 1
    assert history.damage[0].startswith("a.forwarder.jsonl:3: ")
    assert history.damage[0].endswith("(the last line, torn off)")


def test_a_damaged_line_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.forwarder.jsonl"
    write(path, FIRST, tail=b'{"kind":"unheard-of"}\n\n' + msgspec.json.encode(SECOND) + b"\n")
    raw = read_lines(path, Record)
    assert raw.records == [FIRST, SECOND]
    assert len(raw.damage) == 1
    assert "a.forwarder.jsonl:2" in raw.damage[0]


def test_a_file_of_many_parts_is_read_whole_and_its_damage_has_the_right_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.history._PART_BYTES", 200)
    path = tmp_path / "a.forwarder.jsonl"
    records = [change(float(second), "joined") for second in range(50)]
    lines = [msgspec.json.encode(record) for record in records]
    lines[17:17] = [b"{"]
    lines[40:40] = [b""]
    path.write_bytes(b"\n".join(lines) + b'\n{"kin')
    raw = read_lines(path, Record)
    assert raw.records == records
    assert [damage.partition(": ")[0] for damage in raw.damage] == ["a.forwarder.jsonl:18", "a.forwarder.jsonl:53"]


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no records of nodes"):
        read_history(tmp_path)
    (tmp_path / "a.forwarder.jsonl").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_history(tmp_path)


def test_what_tearing_down_does_to_sessions_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "a.forwarder.jsonl", change(1.0, "joined"), change(9.0, "closed"))
    assert len(read_history(tmp_path, quiesced_s=8.0).sessions) == 1


def test_memberships_end_with_a_close_and_survive_a_suspicion() -> None:
    changes = [
        change(1.0, "login"), change(2.0, "joined"), change(3.0, "suspect"), change(4.0, "joined"),
        change(5.0, "closing"), change(5.5, "closed"), change(7.0, "joined"),
    ]  # fmt: skip
    assert memberships(changes) == {("main", "ue1"): [Membership(2.0, 5.0), Membership(7.0, None)]}
    assert memberships(changes[:1]) == {}


def test_what_a_receiver_did_at_one_instant_keeps_its_order() -> None:
    """fuzz-schedules 20118: a thawed client applied updates and then a snapshot that covers them, at one virtual instant."""
    applied = Applied(5.0, "main", "ue1", "ue2", 1, 1, "push", "00")
    snapshot = SnapshotApplied(5.0, "main", "ue1", [("ue2", 1, 1)])
    published = Published(4.0, "main", "ue2", 1, 1, "message", 0, "", "00")
    assert check_nothing_twice(history_of([published, applied, snapshot])).verdict == "pass"
    assert check_nothing_twice(history_of([published, snapshot, applied])).verdict == "fail"
