from pathlib import Path

import msgspec

from testbed.links.ledger import FrameDropped, Ledger


def dropped(number: int) -> FrameDropped:
    return FrameDropped(1.5, "a-b", "a_to_b", "loss", number, 100)


def read(path: Path) -> list[FrameDropped]:
    return msgspec.json.decode(b"[" + path.read_bytes().strip().replace(b"\n", b",") + b"]", type=list[FrameDropped])


def test_every_record_is_a_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add(dropped(0))
    ledger.flush()
    assert read(tmp_path / "ledger.jsonl") == [dropped(0)]  # there before it is closed
    ledger.add(dropped(1))
    ledger.close()
    assert read(tmp_path / "ledger.jsonl") == [dropped(0), dropped(1)]


def test_it_is_bounded_and_says_what_it_omits(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", max_records=3)
    for number in range(5):
        ledger.add(dropped(number))
    ledger.close()
    assert read(tmp_path / "ledger.jsonl") == [dropped(number) for number in range(3)]
    assert (ledger.records, ledger.omitted) == (3, 2)


def test_a_full_disk_costs_records_and_nothing_else() -> None:
    ledger = Ledger(Path("/dev/full"))
    for number in range(3):
        ledger.add(dropped(number))
    ledger.close()
    assert (ledger.records, ledger.omitted) == (0, 3)
