"""Writing raw records: what is in the file and when, and what a full disk does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from proxy.driver.records import BUFFER_MAX_BYTES, FLUSH_INTERVAL_S, RecordWriter
from proxy.records import FaceChanged, Record


def record(number: int) -> FaceChanged:
    return FaceChanged(float(number), "csr1", "csr1-ue1", "ue1", "up", "heard")


def numbers(path: Path) -> list[float]:
    return [each.t_s for each in msgspec.json.Decoder(Record).decode_lines(path.read_bytes())]


def test_lines_are_json_with_the_kind_first(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "r.jsonl") as writer:
        writer.write(record(1))
    assert (tmp_path / "r.jsonl").read_text() == (
        '{"kind":"face","t_s":1.0,"node":"csr1","link":"csr1-ue1","peer":"ue1","state":"up","reason":"heard"}\n'
    )


def test_records_are_appended(tmp_path: Path) -> None:
    for number in (1, 2):
        with RecordWriter(tmp_path / "r.jsonl") as writer:
            writer.write(record(number))
    assert numbers(tmp_path / "r.jsonl") == [1.0, 2.0]


async def test_flushing_regularly(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "r.jsonl"
    autojump_clock.autojump_threshold = 0.05  # the writing itself happens in a thread, in real time
    with RecordWriter(path) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.flush_regularly)
            writer.write(record(1))
            assert path.read_bytes() == b""
            await trio.sleep(1.5 * FLUSH_INTERVAL_S)
            assert numbers(path) == [1.0]
            writer.write(record(2))
            await trio.sleep(FLUSH_INTERVAL_S)
            assert numbers(path) == [1.0, 2.0]
            nursery.cancel_scope.cancel()


async def test_stopping_loses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Also when the node is stopped at the very moment of a flush; which of the two comes first is chance."""
    path = tmp_path / "r.jsonl"
    autojump_clock.autojump_threshold = 0.01
    for _ in range(20):
        path.unlink(missing_ok=True)
        with RecordWriter(path) as writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.flush_regularly)
                writer.write(record(1))
                await trio.sleep(FLUSH_INTERVAL_S)
                nursery.cancel_scope.cancel()
        assert numbers(path) == [1.0]


def test_memory_is_bounded_between_flushes(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "r.jsonl") as writer:
        for number in range(10_000):
            writer.write(record(number))
            assert len(writer._buffer) <= BUFFER_MAX_BYTES + 200
        assert (tmp_path / "r.jsonl").stat().st_size > 0
    assert numbers(tmp_path / "r.jsonl") == [float(number) for number in range(10_000)]


def test_full_disk_costs_records_and_nothing_else() -> None:
    with RecordWriter(Path("/dev/full")) as writer:
        writer.write(record(1))
        size = len(writer._buffer)
        writer.flush()
        assert writer.bytes_lost == size
        writer.write(record(2))
    assert writer.bytes_lost == 2 * size


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RecordWriter(tmp_path / "missing" / "r.jsonl")
