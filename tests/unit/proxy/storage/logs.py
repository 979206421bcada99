"""Digest logs to store: what a proxy accepted from one publisher."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from proxy.core.digest_log import DigestLog
from proxy.core.events import LogChange
from proxy.storage.log_store import LogStore
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedUpdate
from proxy.wire.payload import encode


def update(seq: int, *, device: str = "ue1", size_bytes: int = 100) -> SignedUpdate:
    return SignedUpdate(
        encode(
            FpUpdate("main", device, 1, seq, "message", "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, bytes(size_bytes))
        ),
        bytes(64),
    )


class Proxy:
    """A digest log whose own stream grows, and what a disk is told of it."""

    def __init__(self, *, history_max_entries: int = 1_000, device: str = "csr1", boot: int = 1) -> None:
        self.log = DigestLog(history_max_entries=history_max_entries)
        self.own = self.log.stream(device, boot)

    def accept(self, count: int = 1) -> list[LogChange]:
        for _ in range(count):
            signed = update(self.log.view.seq("ue1", 1) + 1)
            self.log.view.offer(signed, "push")
            self.log.append_own(self.own, (signed,))
        return self.log.take_journal("main")


def restored_log(store: LogStore, *, history_max_entries: int = 1_000) -> tuple[DigestLog, int]:
    """Return a log with what *store* had when it was opened, and how many entries did not verify."""
    log = DigestLog(history_max_entries=history_max_entries)
    dropped = sum(log.restore(stored) for stored in store.restored)
    return log, dropped


#: Stores that a test has opened; `close_all` closes what it did not.
_opened: list[LogStore] = []


def open_store(path: Path) -> LogStore:
    store = LogStore(path, device="csr1")
    _opened.append(store)
    return store


def close_all() -> None:
    while _opened:
        _opened.pop().close()


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else sees it; what is done in the block is committed, and the connection closed."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection
