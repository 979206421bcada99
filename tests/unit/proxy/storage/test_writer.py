"""The writing thread: results in order, group commit, and nothing built on what failed."""

import select
import threading
from collections.abc import Iterable
from pathlib import Path

from proxy.core.events import EntryLogged, LogChange, Persist, Persisted, PersistFailed
from proxy.storage.log_store import LogStore, StorageError
from proxy.storage.writer import LogWriter
from tests.unit.proxy.storage.logs import Proxy, open_store, restored_log


class HeldStore(LogStore):
    """Waits at each write until it is let go, and fails where it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, device="csr1")
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.fails = False
        self.sizes: list[int] = []

    def write(self, changes: Iterable[LogChange]) -> None:
        written = list(changes)
        self.begun.release()
        self.go.acquire()
        if self.fails:
            raise StorageError("disk full")
        self.sizes.append(len(written))
        super().write(written)


def results(writer: LogWriter) -> list[Persisted | PersistFailed]:
    assert select.select([writer.fileno()], [], [], 10.0)[0]
    return writer.take()


def persist(proxy: Proxy, token: int, *, resets: bool = False) -> Persist:
    return Persist(token, tuple(proxy.accept()), resets)


def test_what_comes_during_a_commit_goes_into_the_next(tmp_path: Path) -> None:
    store, proxy = HeldStore(tmp_path / "log"), Proxy()
    with LogWriter(store) as writer:
        writer.put(persist(proxy, 1))
        store.begun.acquire()
        for token in (2, 3, 4):
            writer.put(persist(proxy, token))
        store.go.release()
        assert results(writer) == [Persisted(1)]
        store.go.release()
        assert results(writer) == [Persisted(4)]
        assert writer.take() == []
    assert store.sizes == [1, 3]
    assert writer.counters == {"log_commits": 2}


def test_after_a_failure_only_a_fresh_start_is_written(tmp_path: Path) -> None:
    store, proxy = HeldStore(tmp_path / "log"), Proxy()
    with LogWriter(store) as writer:
        for _ in range(4):
            store.go.release()
        store.fails = True
        writer.put(persist(proxy, 1))
        assert results(writer) == [PersistFailed(1)]
        store.fails = False
        writer.put(persist(proxy, 2))
        assert results(writer) == [PersistFailed(2)]
        writer.put(Persist(3, (proxy.log.whole("main"),), resets=True))
        assert results(writer) == [Persisted(3)]
        writer.put(persist(proxy, 4))
        assert results(writer) == [Persisted(4)]
    log, dropped = restored_log(open_store(tmp_path / "log"))
    assert (log.vector(), dropped) == ((("csr1", 1, 3),), 0)


def test_the_end_writes_what_is_queued(tmp_path: Path) -> None:
    proxy = Proxy()
    with LogWriter(open_store(tmp_path / "log")) as writer:
        for token in range(1, 20):
            change = persist(proxy, token)
            assert isinstance(change.changes[0], EntryLogged)
            writer.put(change)
    assert restored_log(open_store(tmp_path / "log"))[0].vector() == (("csr1", 1, 19),)
