"""The disk of a simulated service proxy: takes its time, survives a crash, and loses what it had not finished writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.core.events import (
    EntryLogged,
    LogChange,
    LogCompacted,
    LogReplaced,
    Persist,
    Persisted,
    StoredConference,
)
from proxy.wire.messages import Snapshot, StreamEntry

#: How long one commit takes, whatever it writes.
FSYNC_S = 0.001


@dataclass(slots=True)
class _Conference:
    snapshot: Snapshot | None = None
    entries: dict[tuple[str, int, int], StreamEntry] = field(default_factory=dict)


class SimulatedDisk:
    """Group commit as `proxy.storage.writer` does it: what comes during a commit goes into the next one."""

    def __init__(self, at: Callable[[float, Callable[[], None]], None]) -> None:
        """*at*: do something so many seconds from now."""
        self._after = at
        self._conferences: dict[str, _Conference] = {}
        self._queue: list[Persist] = []
        self._is_busy = False
        self._crashes = 0
        self.boot = 0

    def take_boot(self, configured: int) -> int:
        """Return a boot number that was not taken before, at least *configured*."""
        self.boot = max(configured, self.boot + 1)
        return self.boot

    def stored(self) -> tuple[StoredConference, ...]:
        """Return what is on the disk."""
        return tuple(
            StoredConference(name, one.snapshot, tuple(one.entries.values()))
            for name, one in sorted(self._conferences.items())
        )

    def put(self, persist: Persist, on_done: Callable[[Persisted], None]) -> None:
        """Write soon; *on_done* hears of it unless the process crashes before."""
        self._queue.append(persist)
        if not self._is_busy:
            self._commit(on_done)

    def crash(self) -> None:
        """The process is gone, and with it whatever had not been written."""
        self._crashes += 1
        self._queue.clear()
        self._is_busy = False

    def lose(self) -> None:
        """Everything that was written is gone, the boot number included."""
        self._conferences.clear()
        self.boot = 0

    def _commit(self, on_done: Callable[[Persisted], None]) -> None:
        batch, self._queue = self._queue, []
        crashes, self._is_busy = self._crashes, True

        def done() -> None:
            if crashes != self._crashes:
                return
            for persist in batch:
                for change in persist.changes:
                    self._apply(change)
            self._is_busy = False
            if self._queue:
                self._commit(on_done)
            on_done(Persisted(batch[-1].token))

        self._after(FSYNC_S, done)

    def _apply(self, change: LogChange) -> None:
        one = self._conferences.setdefault(change.conference, _Conference())
        match change:
            case EntryLogged(_, entry):
                one.entries.pop(_key(entry), None)
                one.entries[_key(entry)] = entry
            case LogCompacted(_, snapshot, keep):
                one.snapshot = snapshot
                for key in list(one.entries)[: len(one.entries) - keep]:
                    del one.entries[key]
            case LogReplaced(_, snapshot, entries):
                one.snapshot, one.entries = snapshot, {_key(entry): entry for entry in entries}


def _key(entry: StreamEntry) -> tuple[str, int, int]:
    return (entry.proxy, entry.boot, entry.seq)
