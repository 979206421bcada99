"""The thread that writes the digest log, so that nobody waits for the disk but those who want to know that it has it.

Group commit: whatever was handed over while one transaction was under way goes into the next.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from types import TracebackType
from typing import Final, Self

from proxy.core.events import Persist, Persisted, PersistFailed
from proxy.storage.log_store import LogStore, StorageError

STOP_LIMIT_S: Final = 5.0


class LogWriter:
    """Hand over with ``put``; when ``fileno`` is readable, ``take`` says what has become of it. For use by one thread."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self.counters: dict[str, int] = Counter()
        self._lock = threading.Lock()
        self._wanted = threading.Condition(self._lock)
        self._queue: list[Persist] = []
        self._results: list[Persisted | PersistFailed] = []  # at most one of each kind per transaction
        self._stopping = False
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="digest log", daemon=True)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are results."""
        return self._done

    def put(self, persist: Persist) -> None:
        """Queue a `Persist`. The core stops handing over after a failure, so the queue holds what arrives in one commit."""
        with self._wanted:
            self._queue.append(persist)
            self._wanted.notify()

    def counters_now(self) -> dict[str, int]:
        """Return what was found wrong when the database was opened, and how writing goes."""
        return {**self._store.counters, **self.counters}

    def take(self) -> list[Persisted | PersistFailed]:
        """Return the results since the last call, oldest first; each stands for all tokens up to its own."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._done)
        with self._lock:
            results, self._results = self._results, []
        return results

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what is queued, then end."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        self._thread.join(STOP_LIMIT_S)
        if not self._thread.is_alive():  # else the disk hangs; the process is about to end anyway
            self._store.close()
            os.close(self._done)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._take_priority_of_process()
        failed = False
        while batch := self._next_batch():
            if failed:  # nothing may build on what is not there
                while batch and not batch[0].resets:
                    self._report(PersistFailed(batch.pop(0).token))
                if not batch:
                    continue
            try:
                self._store.write(change for persist in batch for change in persist.changes)
            except StorageError:
                failed = True
                self.counters["log_write_failures"] += 1
                self._report(PersistFailed(batch[-1].token))
            else:
                failed = False
                self.counters["log_commits"] += 1
                self._report(Persisted(batch[-1].token))

    def _next_batch(self) -> list[Persist]:
        with self._wanted:
            while not self._queue and not self._stopping:
                self._wanted.wait()
            batch, self._queue = self._queue, []
        return batch

    def _report(self, result: Persisted | PersistFailed) -> None:
        with self._lock:
            self._results.append(result)
        os.eventfd_write(self._done, 1)

    @staticmethod
    def _take_priority_of_process() -> None:
        """Threads start with ordinary scheduling; one that is suspended while it has the interpreter holds up packets."""
        with contextlib.suppress(OSError):
            main = os.getpid()
            os.sched_setscheduler(0, os.sched_getscheduler(main), os.sched_getparam(main))
