"""Entries of other proxies' streams, checked as few times as will do: one signature covers the chain in front of it.

The signature over an entry covers its chain digest, and that digest covers every entry before. So of entries that follow
each other the last one's signature will do, where the chain leads from something known to it; where it does not (a gap, or a
forgery among them), each is checked for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.digest_log import chain_of
from proxy.core.positions import StreamKey
from proxy.core.trust import Refusal, Trust
from proxy.wire.messages import EMPTY_DIGEST, StreamEntry, StreamHead, SyncUpdate

#: An entry with what is in it.
Opened = tuple[StreamEntry, SyncUpdate]


class ChainCheck:
    """What is known, of one conference, of the chain of each stream."""

    def __init__(self, trust: Trust, *, conference: str) -> None:
        self._trust, self._conference = trust, conference
        self._known: dict[StreamKey, tuple[int, bytes]] = {}  #: (seq, chain digest) of the last entry that was checked

    def install(self, heads: Sequence[StreamHead]) -> None:
        """Take over what a snapshot says."""
        for head in heads:
            self._note((head.proxy, head.boot), head.seq, head.chain_digest)

    def refused(self, entries: Sequence[Opened]) -> dict[int, str]:
        """Check entries; return the indexes of those that are not believed, and why."""
        streams: dict[StreamKey, list[int]] = {}
        for index, (entry, _) in enumerate(entries):
            streams.setdefault((entry.proxy, entry.boot), []).append(index)
        refused: dict[int, str] = {}
        for key, indexes in streams.items():
            left = sorted(indexes, key=lambda index: entries[index][0].seq)
            while left:
                run = self._run(key, [entries[index] for index in left])
                refused |= {left[at]: reason for at, reason in self._check(run)}
                left = left[len(run) :]
        return refused

    def _run(self, key: StreamKey, opened: Sequence[Opened]) -> list[Opened]:
        """Return those in front that the chain leads through from what is known; at least one."""
        seq, digest = self._known.get(key, (0, EMPTY_DIGEST))
        run: list[Opened] = []
        for entry, content in opened:
            if entry.seq != seq + 1 or chain_of(digest, content) != content.chain_digest:
                break
            run.append((entry, content))
            seq, digest = entry.seq, content.chain_digest
        return run or [opened[0]]

    def _check(self, run: Sequence[Opened]) -> list[tuple[int, str]]:
        """Check a run by its last entry, if that is not believed each for itself; return what is refused, by place in it."""
        entry, content = run[-1]
        try:
            self._trust.check_entry(self._conference, entry, content)
        except Refusal as refusal:
            if len(run) == 1:
                return [(0, refusal.reason)]
            return [(at, reason) for at, one in enumerate(run) for _, reason in self._check([one])]
        self._note((entry.proxy, entry.boot), entry.seq, content.chain_digest)
        return []

    def _note(self, key: StreamKey, seq: int, chain_digest: bytes) -> None:
        if seq > self._known.get(key, (0, EMPTY_DIGEST))[0]:
            self._known[key] = (seq, chain_digest)
