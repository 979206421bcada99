"""What was committed is there again, whatever happened to the process; what the disk has damaged is never served."""

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from proxy.storage.log_store import LogStore, StorageError
from tests.unit.proxy.storage.logs import Proxy, database, open_store, restored_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "csr1.sqlite3"


def filled(path: Path, *, entries: int, history_max_entries: int = 1_000) -> Proxy:
    """Leave a closed database behind; return the proxy that wrote it."""
    store, proxy = open_store(path), Proxy(history_max_entries=history_max_entries)
    store.take_boot(1)
    for _ in range(0, entries, 10):
        store.write(proxy.accept(10))
    store.close()
    return proxy


def test_an_empty_one(path: Path) -> None:
    store = open_store(path)
    assert store.restored == ()
    assert not store.counters
    store.close()


def test_everything_comes_back(path: Path) -> None:
    proxy = filled(path, entries=50)
    store = open_store(path)
    log, dropped = restored_log(store)
    assert dropped == 0
    assert log.state_digest() == proxy.log.state_digest()
    assert log.view.digest() == proxy.log.view.digest()
    assert log.history_entries == 50
    assert not store.counters
    store.close()


@pytest.mark.parametrize("history_max_entries", [1, 7, 10, 40])
def test_compaction_keeps_the_state_and_bounds_the_file(path: Path, history_max_entries: int) -> None:
    proxy = filled(path, entries=400, history_max_entries=history_max_entries)
    with database(path) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    assert rows <= history_max_entries
    store = open_store(path)
    log, dropped = restored_log(store, history_max_entries=history_max_entries)
    assert dropped == 0
    assert log.state_digest() == proxy.log.state_digest()
    assert log.view.digest() == proxy.log.view.digest()
    store.close()


def test_boots_never_repeat(path: Path) -> None:
    boots = []
    for configured in (1, 1, 5, 2):
        store = open_store(path)
        boots.append(store.take_boot(configured))
        store.close()
    assert boots == [1, 2, 5, 6]


def test_boots_do_not_repeat_though_their_row_is_damaged(path: Path) -> None:
    filled(path, entries=10)
    with database(path) as connection:
        connection.execute("UPDATE boot SET boot = 0")
    store = open_store(path)
    assert store.counters == {"log_rows_damaged": 1, "log_set_aside": 1}
    assert store.take_boot(1) == 2  # its own stream says that it had boot 1
    store.close()


@pytest.mark.parametrize("column", ["content", "checksum"])
def test_an_entry_that_was_changed_is_left_out_with_those_chained_to_it(path: Path, column: str) -> None:
    filled(path, entries=20)
    with database(path) as connection:
        connection.execute(f"UPDATE entry SET {column} = zeroblob(length({column})) WHERE seq = 12")  # noqa: S608
    store = open_store(path)
    log, dropped = restored_log(store)
    assert store.counters == {"log_rows_damaged": 1, "log_set_aside": 1}
    assert log.vector() == (("csr1", 1, 11),)
    assert dropped == 8
    assert path.with_name("csr1.sqlite3.broken-1").exists()
    store.close()
    assert not open_store(path).counters  # the new file is whole


def test_an_entry_that_verifies_but_does_not_fit_is_left_out(path: Path) -> None:
    """Two rows exchanged, each with a checksum of its own: only the chain tells."""
    proxy = filled(path, entries=10)
    store = open_store(path)
    changed = list(store.restored[0].entries)
    log = Proxy().log
    changed[4], changed[5] = (
        type(changed[4])("csr1", 1, 5, "recovery", changed[5].content),
        type(changed[5])("csr1", 1, 6, "recovery", changed[4].content),
    )
    assert log.restore(type(store.restored[0])("main", None, tuple(changed))) == 6
    assert log.vector() == (("csr1", 1, 4),)
    assert proxy.log.vector() == (("csr1", 1, 10),)
    store.close()


def test_a_snapshot_that_was_changed_is_not_believed(path: Path) -> None:
    filled(path, entries=100, history_max_entries=10)
    with database(path) as connection:
        connection.execute("UPDATE snapshot SET content = substr(content, 1, length(content) - 1) || x'00'")
    store = open_store(path)
    log, dropped = restored_log(store)
    assert log.vector() == ()  # the entries that are left hang in the air
    assert dropped == len(store.restored[0].entries)
    assert store.take_boot(1) == 2
    store.close()


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, and long enough to be taken for one" * 100)
    store = open_store(path)
    assert store.restored == ()
    assert store.counters["log_set_aside"] == 1
    store.write(Proxy().accept(3))
    store.close()
    assert restored_log(open_store(path))[0].vector() == (("csr1", 1, 3),)
    assert path.with_name("csr1.sqlite3.broken-1").read_bytes().startswith(b"not a database")


def test_a_foreign_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    with database(path) as connection:
        connection.execute("CREATE TABLE something (x)")
    store = open_store(path)
    assert store.counters["log_set_aside"] == 1
    store.close()


def test_files_set_aside_do_not_pile_up(path: Path) -> None:
    path.parent.mkdir()
    for _ in range(12):
        path.write_bytes(b"not a database" * 100)
        open_store(path).close()
    assert len(list(path.parent.glob("*.broken-?"))) == 5


def test_a_file_cut_short_loses_the_end_and_serves_nothing_false(path: Path) -> None:
    proxy = filled(path, entries=300)
    whole = path.read_bytes()
    for part in (0.1, 0.3, 0.5, 0.8, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert_prefix(path, proxy)


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_give_anything_false(path: Path, seed: int) -> None:
    proxy = filled(path, entries=300, history_max_entries=100 if seed % 2 else 1_000)
    whole = path.read_bytes()
    chance = random.Random(seed)
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert_prefix(path, proxy)


def assert_prefix(path: Path, proxy: Proxy) -> None:
    """What can be restored is a beginning of what *proxy* has, entry by entry the same, and can be written on."""
    for left in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        left.unlink(missing_ok=True)
    store = open_store(path)
    log, _ = restored_log(store)
    for boot_key, stream in log.streams.items():
        assert boot_key == ("csr1", 1)
        assert stream.seq <= proxy.own.seq
        for seq in range(1, stream.seq + 1):
            known, ours = log.get(boot_key, seq), proxy.log.get(boot_key, seq)
            assert known is None or ours is None or known.content == ours.content
    if log.vector() == proxy.log.vector():
        assert log.state_digest() == proxy.log.state_digest()
        assert log.view.digest() == proxy.log.view.digest()
    assert store.take_boot(1) >= (2 if log.vector() else 1)
    store.write([log.whole("main")])
    store.close()
    again = open_store(path)
    assert restored_log(again)[0].state_digest() == log.state_digest()
    again.close()


@pytest.mark.parametrize("cut_bytes", [1, 100, 4_000, 20_000])
def test_a_torn_write_ahead_log(path: Path, cut_bytes: int) -> None:
    """The last commits are gone, as if the disk had never got them; what was before is there."""
    store, proxy = open_store(path), Proxy()
    store.take_boot(1)
    for _ in range(10):
        store.write(proxy.accept(5))
    wal, database = Path(f"{path}-wal").read_bytes(), path.read_bytes()
    store.close()
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(wal[:-cut_bytes])
    again = open_store(path)
    log, dropped = restored_log(again)
    assert dropped == 0
    assert 0 < log.vector()[0][2] < 50
    assert again.take_boot(1) == 2
    again.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse files above a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_refuses_whole_transactions_and_takes_more_when_there_is_room(path: Path) -> None:
    store, proxy = open_store(path), Proxy()
    store.take_boot(1)
    written = 0
    with largest_file(200_000), suppress(StorageError):
        for _ in range(1_000):
            store.write(proxy.accept(10))
            written += 10
    assert 0 < written < 10_000
    store.write([proxy.log.whole("main")])
    store.close()
    log, dropped = restored_log(open_store(path))
    assert dropped == 0
    assert log.vector() == (("csr1", 1, written + 10),)


_WRITER = """
import sys
from pathlib import Path
from tests.unit.proxy.storage.logs import Proxy, open_store, restored_log
store = open_store(Path(sys.argv[1]))
log, dropped = restored_log(store, history_max_entries=50)
assert not dropped and not store.counters, (dropped, store.counters)
proxy = Proxy(history_max_entries=50, boot=store.take_boot(1))
own = proxy.own
log.streams[own.key] = own
proxy.log = log
while True:
    store.write(proxy.accept(3))
    print(own.boot, own.seq, flush=True)
"""


def test_what_a_killed_writer_said_was_durable_is_there(path: Path) -> None:
    """Killed at any moment, again and again; what it printed had been committed."""
    said: dict[int, int] = {}
    for round_ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stderr is not None
            for _ in range(10 + 3 * round_):
                line = writer.stdout.readline()
                assert line, writer.stderr.read()
                boot, seq = map(int, line.split())
                said[boot] = seq
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                boot, seq = map(int, line.split())
                said[boot] = seq
        store = open_store(path)
        log, dropped = restored_log(store, history_max_entries=50)
        store.close()
        assert dropped == 0
        have = {boot: seq for _, boot, seq in log.vector()}
        assert all(have[boot] >= seq for boot, seq in said.items())
        assert log.view.seq("ue1", 1) == sum(have.values())


def test_a_database_in_use_is_not_taken_for_a_broken_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, entries=10)
    monkeypatch.setattr("proxy.storage.log_store.BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked"):
        LogStore(path, device="csr1")
    other.close()
    assert not list(path.parent.glob("*.broken-*"))
