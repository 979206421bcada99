"""Writing raw records: JSON lines, collected in memory and appended to the file several times a second."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import trio

from proxy.records import Record

FLUSH_INTERVAL_S: Final = 0.5
#: Beyond this the lines are written at once, so that memory stays bounded whatever happens in an interval.
BUFFER_MAX_BYTES: Final = 256 * 1024


class RecordWriter:
    """Append-only. A full disk costs records, which are counted, and never the node."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self.bytes_lost = 0

    def write(self, record: Record) -> None:
        """Take in one record."""
        self._encoder.encode_into(record, self._buffer, -1)
        self._buffer += b"\n"
        if len(self._buffer) > BUFFER_MAX_BYTES:  # out of turn: lines of one file may then not be in order of time
            self.flush()

    def flush(self) -> None:
        """Hand everything to the kernel; blocks as long as the disk does."""
        buffer, self._buffer = self._buffer, bytearray()
        self._write(buffer)

    def _write(self, buffer: bytearray) -> None:
        while buffer:
            try:
                written = os.write(self._file, buffer)
            except OSError:  # no space left, or quota: the conference goes on
                self.bytes_lost += len(buffer)
                return
            del buffer[:written]

    async def flush_regularly(self) -> None:
        """Flush until cancelled, in another thread: a busy disk would hold up packets for milliseconds."""
        while True:
            await trio.sleep(FLUSH_INTERVAL_S)
            buffer, self._buffer = self._buffer, bytearray()
            if buffer:
                with trio.CancelScope(shield=True):  # what was taken is written, also when the node is stopped just now
                    await trio.to_thread.run_sync(self._write, buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()
        os.close(self._file)
