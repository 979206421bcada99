"""What to do about somebody's filter: the cases of PSync's ``FullProducer::onSyncInterest``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.baselines.full_sync import FullSync
from proxy.wire.name import from_uri
from proxy.wire.psync import BloomFilter, decode_filter, numbered

A, B, C = (from_uri(f"/hconf/{name}/v=1") for name in ("a", "b", "c"))
State = dict[bytes, int]


def node(state: State, *, expected: int = 80) -> FullSync:
    full = FullSync(expected)
    for prefix, seq in state.items():
        full.update(prefix, seq)
    return full


def filter_of(state: State, *, expected: int = 80) -> BloomFilter:
    return decode_filter(node(state, expected=expected).component(), expected)


@pytest.mark.parametrize(
    ("ours", "theirs", "decision", "names"),
    [
        ({}, {}, "pend", []),
        ({A: 1, B: 2}, {B: 2, A: 1}, "pend", []),
        ({A: 1}, {}, "answer", [numbered(A, 1)]),
        ({A: 3}, {A: 2}, "answer", [numbered(A, 3)]),
        ({A: 2}, {A: 3}, "nothing", []),  # theirs is the next one
        ({A: 2}, {A: 4}, "answer", [numbered(A, 2)]),  # what theirs is, its hash does not say
        ({}, {A: 1}, "wait", []),
        ({A: 1}, {A: 1, B: 1}, "wait", []),
        ({A: 3, C: 1}, {A: 2, C: 1}, "answer", [numbered(A, 3)]),
    ],
)
def test_decisions(ours: State, theirs: State, decision: str, names: list[bytes]) -> None:
    assert node(ours).decide(filter_of(theirs), sum(theirs.values())) == (decision, names)


def crowd(count: int) -> State:
    return {from_uri(f"/hconf/ue{number}/v=1"): 1 for number in range(count)}


@pytest.mark.parametrize(
    ("elements", "decision"), [(0, "everything"), (99, "everything"), (100, "everything"), (101, "wait")]
)
def test_too_many_differences(elements: int, decision: str) -> None:
    ours = node(crowd(100), expected=10)
    found, names = ours.decide(filter_of({}, expected=10), elements)
    assert found == decision
    assert len(names) == (100 if decision == "everything" else 0)


def test_elements_count_every_publication() -> None:
    full = node({A: 3, B: 1})
    assert full.elements == 4
    assert full.update(A, 5)
    assert not full.update(A, 5)
    assert not full.update(A, 4)
    assert (full.elements, full.seqs) == (6, {A: 5, B: 1})


def test_old_publications_leave_no_trace_in_the_filter() -> None:
    full = node({A: 1})
    full.update(A, 7)
    assert full.component() == node({A: 7}).component()


def test_news_for_who_waits_include_what_was_just_published() -> None:
    full = node({A: 1, B: 1})
    waiting = filter_of({A: 1, B: 1})
    full.update(A, 2)
    assert full.news_for(waiting, numbered(A, 2)) == [numbered(A, 2)]
    assert full.news_for(filter_of({A: 2, B: 1}), numbered(A, 2)) == [numbered(A, 2)]


states = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 3), max_size=3)


@given(first=states, second=states)
def test_two_who_ask_each_other_agree_in_the_end(first: State, second: State) -> None:
    """Where no sequence number is two ahead, or the other has something else to tell meanwhile."""
    nodes = [node(first), node(second)]
    for _ in range(6):
        for asker, asked in ((0, 1), (1, 0)):
            theirs = decode_filter(nodes[asker].component(), 80)
            _, names = nodes[asked].decide(theirs, nodes[asker].elements)
            for name in names:
                prefix, seq = name[:-3], name[-1]
                nodes[asker].update(prefix, seq)
    expected = {prefix: max(first.get(prefix, 0), second.get(prefix, 0)) for prefix in {*first, *second}}
    assert [each.seqs for each in nodes] == 2 * [expected]
