"""The digest log of a service proxy in an SQLite database (WAL, synchronous = FULL: a commit is an fsync).

Every row carries a checksum over all of it, so a byte that changed on the disk shows whatever it was; a database that
SQLite cannot read as a whole is set aside, and what could be read of it goes into a new one. Whether rows that are intact
also fit together is for the core to say, which knows how digests are chained.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from proxy.core.events import EntryLogged, LogChange, LogCompacted, LogReplaced, StoredConference
from proxy.wire.messages import Snapshot, StreamEntry
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

#: "hcnf"; in the file's header (SQLite's `application_id`).
APPLICATION_ID: Final = 0x68636E66
CHECKSUM_BYTES: Final = 16
#: Databases set aside are called ``<name>.broken-<n>``; with so many there, the oldest is replaced.
BROKEN_MAX: Final = 5
#: Nobody else opens the file; but somebody who looks at it with a tool must not fail a commit at once.
BUSY_TIMEOUT_S: Final = 2.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS boot (only INTEGER PRIMARY KEY CHECK (only = 1), boot INTEGER NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (conference TEXT PRIMARY KEY, content BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    place INTEGER PRIMARY KEY, -- the order of logging
    conference TEXT NOT NULL, proxy TEXT NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL,
    content BLOB NOT NULL, checksum BLOB NOT NULL,
    UNIQUE (conference, proxy, boot, seq)
);
"""
_PUT_ENTRY: Final = (
    "INSERT OR REPLACE INTO entry(conference, proxy, boot, seq, content, checksum) VALUES (?, ?, ?, ?, ?, ?)"
)
_KEEP_NEWEST: Final = """
DELETE FROM entry WHERE conference = :conference AND place <=
    (SELECT place FROM entry WHERE conference = :conference ORDER BY place DESC LIMIT 1 OFFSET :keep)
"""

#: What says nothing about the content of a file: it cannot be had just now.
_NOT_DAMAGE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM}
)

StorageError = sqlite3.Error


def row_checksum(*fields: str | int | bytes) -> bytes:
    """Return 16 bytes of SHA-256 over the fields of a row, each with its type and length.

    >>> row_checksum("ab", 1) == row_checksum("a", "b1")
    False
    >>> row_checksum("ab") == row_checksum(b"ab")
    False
    """
    state = hashlib.sha256()
    for field in fields:
        octets = field if isinstance(field, bytes) else str(field).encode()
        state.update(f"{type(field).__name__} {len(octets)} ".encode() + octets)
    return state.digest()[:CHECKSUM_BYTES]


class LogStore:
    """One database, one writer. Synchronous; every `write` waits for the disk.

    Attributes: ``restored``: what the database held and verified when it was opened. ``counters``: what was found wrong.
    """

    def __init__(self, path: Path, *, device: str) -> None:
        """Open or make the database at *path* for the proxy *device*.

        Raises: StorageError or OSError where there is no usable database and none can be made.
        """
        self.path, self._device = path, device
        self.counters: dict[str, int] = Counter()
        self.restored: tuple[StoredConference, ...] = ()
        self._last_boot = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        is_whole = self._read()
        if not is_whole:
            self._set_aside()
        self._connection = self._connect()
        try:
            self._connection.executescript(_SCHEMA)
            if not is_whole:
                self._rewrite()
        except BaseException:
            self._connection.close()
            raise

    def take_boot(self, configured: int) -> int:
        """Return a boot number that this proxy has never had, at least *configured*, and make it durable.

        Raises: StorageError: a boot that is not on disk must not be used.
        """
        self._last_boot = max(configured, self._last_boot + 1)
        with self._transaction() as connection:
            self._put_boot(connection)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # out of the way of whatever tears the WAL
        return self._last_boot

    def write(self, changes: Iterable[LogChange]) -> None:
        """Make *changes* durable in one transaction. Raises: StorageError; then none of them is there."""
        with self._transaction() as connection:
            for change in changes:
                _apply(connection, change)

    def close(self) -> None:
        """Close the database; what was written stays."""
        self._connection.close()

    # ------------------------------------------------------------------ opening

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=32
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _read(self) -> bool:
        """Read what is there, as far as it verifies; return whether the file may go on being used."""
        if not self.path.exists():
            return True
        snapshots: dict[str, Snapshot] = {}
        entries: dict[str, list[StreamEntry]] = {}
        wrong_before = sum(self.counters.values())
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.text_factory = _text
            self._reading(lambda: self._check_whole(connection))
            self._reading(lambda: self._read_boot(connection))
            self._reading(lambda: snapshots.update(self._intact_snapshots(connection)))
            self._reading(lambda: self._collect_entries(connection, entries))
        self.restored = tuple(
            StoredConference(name, snapshots.get(name), tuple(entries.get(name, ())))
            for name in sorted(snapshots.keys() | entries.keys())
        )
        own_boots = [
            boot
            for stored in self.restored
            for proxy, boot in (
                *((entry.proxy, entry.boot) for entry in stored.entries),
                *((head.proxy, head.boot) for head in (stored.snapshot.streams if stored.snapshot else ())),
            )
            if proxy == self._device
        ]
        self._last_boot = max(self._last_boot, *own_boots, 0)
        return sum(self.counters.values()) == wrong_before

    def _reading(self, read: Callable[[], None]) -> None:
        try:
            read()
        except (sqlite3.Error, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", None) in _NOT_DAMAGE:
                raise
            self.counters["log_unreadable"] += 1

    def _check_whole(self, connection: sqlite3.Connection) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables >= {"boot", "snapshot", "entry"}:
            raise sqlite3.DatabaseError("tables are missing")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check found damage")

    def _read_boot(self, connection: sqlite3.Connection) -> None:
        for boot, checksum in _rows(connection, "SELECT boot, checksum FROM boot"):
            if isinstance(boot, int) and checksum == row_checksum(boot):
                self._last_boot = boot
            else:
                self.counters["log_rows_damaged"] += 1

    def _intact_snapshots(self, connection: sqlite3.Connection) -> Iterator[tuple[str, Snapshot]]:
        for conference, content, checksum in _rows(connection, "SELECT conference, content, checksum FROM snapshot"):
            try:
                if not isinstance(content, bytes) or row_checksum(conference, content) != checksum:
                    raise MalformedError("checksum")
                yield conference, decode(content, Snapshot)
            except MalformedError:
                self.counters["log_rows_damaged"] += 1

    def _collect_entries(self, connection: sqlite3.Connection, into: dict[str, list[StreamEntry]]) -> None:
        query = "SELECT conference, proxy, boot, seq, content, checksum FROM entry ORDER BY place"
        for conference, proxy, boot, seq, content, checksum in _rows(connection, query):
            if isinstance(content, bytes) and row_checksum(conference, proxy, boot, seq, content) == checksum:
                into.setdefault(conference, []).append(StreamEntry(proxy, boot, seq, "recovery", content))
            else:
                self.counters["log_rows_damaged"] += 1

    def _set_aside(self) -> None:
        """Rename the broken database, so that somebody can look at it; its WAL goes with it."""
        self.counters["log_set_aside"] += 1
        taken = [n for n in range(1, BROKEN_MAX + 1) if self._aside(n).exists()]
        number = len(taken) % BROKEN_MAX + 1
        self.path.replace(self._aside(number))
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{self._aside(number)}{suffix}")

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.broken-{number}")

    def _rewrite(self) -> None:
        """Put what was salvaged into a new database, in the order in which it was logged."""
        with self._transaction() as connection:
            self._put_boot(connection)
            for stored in self.restored:
                if stored.snapshot is not None:
                    _put_snapshot(connection, stored.name, stored.snapshot)
                for entry in stored.entries:
                    _put_entry(connection, stored.name, entry)

    # ------------------------------------------------------------------ writing

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _put_boot(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO boot(only, boot, checksum) VALUES (1, ?, ?)",
            (self._last_boot, row_checksum(self._last_boot)),
        )


def _apply(connection: sqlite3.Connection, change: LogChange) -> None:
    match change:
        case EntryLogged(conference, entry):
            _put_entry(connection, conference, entry)
        case LogCompacted(conference, snapshot, keep):
            _put_snapshot(connection, conference, snapshot)
            connection.execute(_KEEP_NEWEST, {"conference": conference, "keep": keep})
        case LogReplaced(conference, snapshot, entries):
            _put_snapshot(connection, conference, snapshot)
            connection.execute("DELETE FROM entry WHERE conference = ?", (conference,))
            for entry in entries:
                _put_entry(connection, conference, entry)


def _put_entry(connection: sqlite3.Connection, conference: str, entry: StreamEntry) -> None:
    fields = (conference, entry.proxy, entry.boot, entry.seq, entry.content)
    connection.execute(_PUT_ENTRY, (*fields, row_checksum(*fields)))


def _put_snapshot(connection: sqlite3.Connection, conference: str, snapshot: Snapshot) -> None:
    content = encode(snapshot)
    connection.execute(
        "INSERT OR REPLACE INTO snapshot(conference, content, checksum) VALUES (?, ?, ?)",
        (conference, content, row_checksum(conference, content)),
    )


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows as far as they can be read. Raises: StorageError where reading breaks off."""
    yield from connection.execute(query)


def _text(octets: bytes) -> str:
    """Damaged text must not stop the reading: its checksum will not fit."""
    return octets.decode(errors="replace")
