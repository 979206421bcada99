"""PSync's full synchronisation: who has published how much, as a set whose differences two nodes find from their filters.

Source: M. Zhang, V. Lehman, L. Wang, "Scalable Name-based Data Synchronization for Named Data Networking" (IEEE INFOCOM 2017),
and ``producer-base.cpp``, ``full-producer.cpp`` of its implementation (github.com/named-data/PSync, version 0.5).
"""

from __future__ import annotations

from typing import Literal

from proxy.wire.psync import BloomFilter, encode_filter, key_of, numbered

#: What to do about somebody's sync Interest: answer it, with all that there is or with what they lack; keep it pending, since
#: they have what we have; wait, since they have more; or nothing.
Decision = Literal["everything", "answer", "pend", "wait", "nothing"]


class FullSync:
    """The set holds the last publication of each participant; a participant's prefix says its name and boot."""

    def __init__(self, expected: int) -> None:
        self.seqs: dict[bytes, int] = {}  #: prefix -> number of the last publication
        self.elements = 0  #: publications of everybody together
        self._prefixes: dict[int, bytes] = {}  #: key in the filter -> prefix
        self._filter = BloomFilter(expected)

    def component(self) -> bytes:
        """Return the name component that says what we have."""
        return encode_filter(self._filter)

    def update(self, prefix: bytes, seq: int) -> bool:
        """Take in that there are publications up to *seq*; return whether that is news."""
        known = self.seqs.get(prefix, 0)
        if seq <= known:
            return False
        if known:
            old = key_of(numbered(prefix, known))
            self._filter.erase(old)
            self._prefixes.pop(old, None)
        self.seqs[prefix] = seq
        self.elements += seq - known
        key = key_of(numbered(prefix, seq))
        self._prefixes[key] = prefix
        self._filter.insert(key)
        return True

    def decide(self, theirs: BloomFilter, elements: int) -> tuple[Decision, list[bytes]]:
        """Return what to do about somebody who has this filter and so many publications, and what to answer."""
        ours_only, theirs_only, is_all = self._filter.minus(theirs).peeled()
        if not is_all:
            if elements > self.elements:
                return "wait", []
            if elements == self.elements and not ours_only and theirs_only:
                return "nothing", []
            return "everything", self.everything()
        if not ours_only:
            return ("wait" if theirs_only else "pend"), []
        names: list[bytes] = []
        for key in sorted(ours_only):
            prefix = self._prefixes.get(key)
            # They may have asked before our next answer reached them: what they have is then the next of the same.
            if prefix is not None and key_of(numbered(prefix, self.seqs[prefix] + 1)) not in theirs_only:
                names.append(numbered(prefix, self.seqs[prefix]))
        return ("answer" if names else "nothing"), names

    def news_for(self, theirs: BloomFilter, published: bytes) -> list[bytes]:
        """Return what somebody lacks who had all that we had, until *published*; that in any case."""
        ours_only, _, _ = self._filter.minus(theirs).peeled()
        found = [self._prefixes[key] for key in sorted(ours_only) if key in self._prefixes]
        names = [numbered(prefix, self.seqs[prefix]) for prefix in found]
        return names if published in names else [*names, published]

    def everything(self) -> list[bytes]:
        """Return the last publication of everybody."""
        return [numbered(prefix, seq) for prefix, seq in sorted(self.seqs.items())]
