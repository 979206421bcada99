"""Digest logs: however entries arrive, logs that hold the same say the same; and a snapshot stands in for any history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.digest_log import DigestLog
from proxy.core.positions import AHEAD_MAX
from proxy.wire.messages import EMPTY_DIGEST, PAYLOAD_MAX_BYTES, FpUpdate, SignedUpdate, StreamEntry, SyncUpdate, Via
from proxy.wire.payload import decode, encode
from proxy.wire.tlv import MalformedError

EXAMPLES = 200

#: The acceptance of one update at one proxy: (proxy, publisher); a publisher may move from proxy to proxy.
acceptances = st.lists(
    st.tuples(st.sampled_from(["csr1", "csr2", "csr3"]), st.sampled_from(["ue1", "ue2"])), max_size=16
)


def signed(device: str, seq: int, body: bytes = b"") -> SignedUpdate:
    update = FpUpdate("main", device, 1, seq, "message", "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, body)
    return SignedUpdate(encode(update), b"")


def accept(accepted: list[tuple[str, str]], body: bytes = b"") -> list[StreamEntry]:
    """Return the entries that the proxies make of it, stream by stream complete, in the order of acceptance."""
    logs = {proxy: DigestLog(history_max_entries=1_000) for proxy in ("csr1", "csr2", "csr3")}
    seqs: dict[str, int] = {}
    entries = []
    for proxy, publisher in accepted:
        seqs[publisher] = seqs.get(publisher, 0) + 1
        log = logs[proxy]
        update = signed(publisher, seqs[publisher], body)
        log.view.offer(update, "push")
        entries.append(log.append_own(log.stream(proxy, 1), (update,)))
    return entries


def log_of(entries: list[StreamEntry], *, history_max_entries: int = 1_000) -> DigestLog:
    log = DigestLog(history_max_entries=history_max_entries)
    for entry in entries:
        log.add(entry)
    return log


def same(a: DigestLog, b: DigestLog) -> bool:
    return (a.vector(), a.state_digest(), a.view.digest()) == (b.vector(), b.state_digest(), b.view.digest())


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data(), via=st.sampled_from(["armed", "push", "recovery"]))
def test_any_order_of_arrival_gives_the_same_state(
    accepted: list[tuple[str, str]], draw: st.DataObject, via: Via
) -> None:
    entries = accept(accepted)
    shuffled = draw.draw(st.permutations(entries))
    repeated = draw.draw(st.lists(st.sampled_from(entries), max_size=4)) if entries else []
    log = log_of([*shuffled, *repeated])
    assert same(log, log_of(entries))
    heads = {head.device: head.seq for head in log.view.heads()}
    assert heads == {
        publisher: [each for _, each in accepted].count(publisher) for publisher in {p for _, p in accepted}
    }
    assert via  # how an entry came makes no difference to the state: the chain is over updates


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data())
def test_each_update_is_applied_once_and_in_order(accepted: list[tuple[str, str]], draw: st.DataObject) -> None:
    entries = accept(accepted)
    log = DigestLog(history_max_entries=1_000)
    applied: dict[str, list[int]] = {}
    for entry in draw.draw(st.permutations(entries + entries)):
        for each in log.add(entry) or []:
            applied.setdefault(each.update.device, []).append(each.update.seq)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in applied.values())
    assert sum(map(len, applied.values())) == len(accepted)


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data())
def test_vector_counts_only_what_is_complete(accepted: list[tuple[str, str]], draw: st.DataObject) -> None:
    entries = accept(accepted)
    some = draw.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []
    log = log_of(some)
    have = {(entry.proxy, entry.seq) for entry in some}
    for proxy, _, seq in log.vector():
        assert all((proxy, each) in have for each in range(1, seq + 1))
        assert (proxy, seq + 1) not in have
    for entry in entries:
        assert log.has((entry.proxy, 1), entry.seq) is (entry in some)
        assert (log.get((entry.proxy, 1), entry.seq) == entry) is (entry in some)


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data())
def test_suffix_brings_whoever_is_behind_up_to_date(accepted: list[tuple[str, str]], draw: st.DataObject) -> None:
    entries = accept(accepted)
    ahead = log_of(entries)
    behind = log_of(draw.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else [])
    for _ in range(len(entries) + 1):
        suffix = ahead.suffix(behind.vector(), max_bytes=draw.draw(st.integers(0, 2_000)))
        assert suffix is not None
        for entry in suffix:
            behind.add(entry)
    assert same(behind, ahead)


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, history=st.integers(1, 8), draw=st.data())
def test_truncated_history_gives_a_snapshot_that_brings_up_to_date(
    accepted: list[tuple[str, str]], history: int, draw: st.DataObject
) -> None:
    entries = accept(accepted)
    ahead = log_of(entries, history_max_entries=history)
    assert ahead.history_entries <= history
    behind = log_of(draw.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else [])
    suffix = ahead.suffix(behind.vector())
    if suffix is None:
        behind.install(ahead.snapshot())
    else:
        for entry in suffix:
            behind.add(entry)
    assert same(behind, ahead)


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data())
def test_snapshot_of_an_incomplete_log_loses_nothing(accepted: list[tuple[str, str]], draw: st.DataObject) -> None:
    """Updates that wait for an earlier one, of a stream that is not there yet, are part of the state."""
    entries = accept(accepted)
    first = draw.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []
    incomplete = log_of(first)
    joiner = DigestLog(history_max_entries=1_000)
    joiner.install(incomplete.snapshot())
    for _ in range(len(entries) + 1):  # what the vector does not claim is asked for
        for entry in log_of(entries).suffix(joiner.vector()) or []:
            joiner.add(entry)
    assert same(joiner, log_of(entries))


@settings(max_examples=EXAMPLES)
@given(accepted=acceptances, draw=st.data())
def test_install_in_the_middle_of_arrivals(accepted: list[tuple[str, str]], draw: st.DataObject) -> None:
    """A snapshot may come before, between and after entries that it covers, and entries beyond it."""
    entries = accept(accepted)
    cut = draw.draw(st.integers(0, len(entries)))
    log = DigestLog(history_max_entries=1_000)
    shuffled = draw.draw(st.permutations(entries))
    at = draw.draw(st.integers(0, len(shuffled)))
    for entry in shuffled[:at]:
        log.add(entry)
    log.install(log_of(entries[:cut]).snapshot())
    for entry in shuffled[at:]:
        log.add(entry)
    assert same(log, log_of(entries))


def test_entry_that_does_not_fit_the_chain_is_malformed_and_changes_nothing() -> None:
    first, second = accept([("csr1", "ue1"), ("csr1", "ue1")])
    log = log_of([first])
    before = (log.vector(), log.state_digest(), log.view.digest())
    forged = SyncUpdate(bytes(range(16)), decode(second.content, SyncUpdate).updates)
    with pytest.raises(MalformedError, match="chain"):
        log.add(StreamEntry("csr1", 1, 2, "armed", encode(forged)))
    assert (log.vector(), log.state_digest()) == before[:2]
    assert log.add(second) is not None
    assert same(log, log_of([first, second]))


def test_forged_entry_that_came_early_does_no_harm_to_those_before_it() -> None:
    entries = accept([("csr1", "ue1"), ("csr1", "ue1"), ("csr1", "ue1")])
    log = log_of([entries[0]])
    forged = SyncUpdate(bytes(range(16)), (signed("ue9", 1),))
    log.add(StreamEntry("csr1", 1, 3, "push", encode(forged)))
    applied = log.add(entries[1])
    assert applied is not None
    assert [each.update.seq for each in applied] == [2]
    assert log.vector() == (("csr1", 1, 2),)
    log.add(entries[2])
    assert log.vector() == (("csr1", 1, 3),)
    assert {head.device: head.seq for head in log.view.heads()}["ue1"] == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x90", b"\x93", encode(SyncUpdate(EMPTY_DIGEST, (SignedUpdate(b"\xc1", b""),)))]
)
def test_broken_entry_is_malformed(content: bytes) -> None:
    log = DigestLog(history_max_entries=10)
    with pytest.raises(MalformedError):
        log.add(StreamEntry("csr1", 1, 1, "push", content))


def test_what_lies_ahead_of_a_stream_is_bounded() -> None:
    entries = accept([("csr1", "ue1")] * (AHEAD_MAX + 50))
    log = log_of(entries[1:])
    assert len(log.stream("csr1", 1).early) == AHEAD_MAX
    log.add(entries[0])
    assert log.vector() == (("csr1", 1, AHEAD_MAX + 1),)


def test_suffix_fits_into_a_packet() -> None:
    entries = accept([("csr1", "ue1")] * 30, body=bytes(1_000))
    suffix = log_of(entries).suffix(())
    assert suffix is not None
    assert 1 < len(suffix) < 30
    assert sum(len(entry.content) for entry in suffix) <= PAYLOAD_MAX_BYTES


def test_an_entry_larger_than_the_limit_is_sent_alone() -> None:
    entries = accept([("csr1", "ue1")] * 3, body=bytes(1_000))
    suffix = log_of(entries).suffix((), max_bytes=10)
    assert suffix == entries[:1]
