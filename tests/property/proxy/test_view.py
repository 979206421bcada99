"""Views: any arrival order, any repetition, any mixture with snapshots gives each update once, in order, and one digest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core.view import HELD_MAX, AppliedUpdate, View
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedUpdate, Snapshot
from proxy.wire.payload import encode

Publisher = tuple[str, int]

PUBLISHERS: list[Publisher] = [("ue1", 1), ("ue1", 2), ("ue2", 1)]
LENGTH = 8
#: What the events do to the roster.
EVENTS = ["join", "message", "leave", "message", "join", "stroke", "message", "leave"]


def update(publisher: Publisher, seq: int) -> SignedUpdate:
    device, boot = publisher
    event = EVENTS[(seq - 1) % len(EVENTS)]
    return SignedUpdate(
        encode(FpUpdate("main", device, boot, seq, event, "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, b"")), b""
    )


def view_of(upto: dict[Publisher, int]) -> View:
    """Return the view of somebody who received everything in order."""
    view = View()
    for publisher, seq in upto.items():
        for each in range(1, seq + 1):
            view.offer(update(publisher, each), "armed")
    return view


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.offered: dict[Publisher, set[int]] = {publisher: set() for publisher in PUBLISHERS}
        self.covered = dict.fromkeys(PUBLISHERS, 0)  # by snapshots
        self.applied: dict[Publisher, int] = dict.fromkeys(PUBLISHERS, 0)

    def expected(self, publisher: Publisher) -> int:
        seq = self.covered[publisher]
        while seq + 1 in self.offered[publisher]:
            seq += 1
        return seq

    def note(self, applied: list[AppliedUpdate]) -> None:
        for each in applied:
            publisher = (each.update.device, each.update.boot)
            assert each.update.seq == self.applied[publisher] + 1, "not in order, or twice"
            assert each.signed == update(publisher, each.update.seq)
            self.applied[publisher] = each.update.seq

    @rule(publisher=st.sampled_from(PUBLISHERS), seq=st.integers(1, LENGTH))
    def offer(self, publisher: Publisher, seq: int) -> None:
        self.note(self.view.offer(update(publisher, seq), "armed"))
        self.offered[publisher].add(seq)

    @rule(publisher=st.sampled_from(PUBLISHERS), seq=st.integers(0, LENGTH))
    def install(self, publisher: Publisher, seq: int) -> None:
        news, released = self.view.install(Snapshot(view_of({publisher: seq}).heads(), ()))
        is_news = seq > self.applied[publisher]
        assert [(head.device, head.boot, head.seq) for head in news] == ([(*publisher, seq)] if is_news else [])
        if is_news:
            self.covered[publisher] = self.applied[publisher] = seq
        self.note(released)

    @invariant()
    def is_the_view_of_somebody_who_received_everything_in_order(self) -> None:
        upto = {publisher: self.expected(publisher) for publisher in PUBLISHERS}
        assert self.applied == upto
        reference = view_of(upto)
        assert self.view.heads() == reference.heads()
        assert self.view.digest() == reference.digest()
        assert self.view.roster() == reference.roster()
        assert all(self.view.seq(*publisher) == seq for publisher, seq in upto.items())


TestView = AnyHistory.TestCase
TestView.settings = settings(max_examples=100, stateful_step_count=20)


@settings(max_examples=500)
@given(
    one=st.tuples(*[st.integers(0, LENGTH)] * len(PUBLISHERS)),
    other=st.tuples(*[st.integers(0, LENGTH)] * len(PUBLISHERS)),
)
def test_digests_are_equal_where_views_are_and_only_there(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    a, b = (view_of(dict(zip(PUBLISHERS, seqs, strict=True))) for seqs in (one, other))
    assert (a.digest() == b.digest()) is (one == other)


def test_same_numbers_with_other_content_are_another_view() -> None:
    a, b = View(), View()
    a.offer(update(("ue1", 1), 1), "push")
    other = FpUpdate("main", "ue1", 1, 1, "join", "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, b"something else")
    b.offer(SignedUpdate(encode(other), b""), "push")
    assert a.digest() != b.digest()


def test_what_waits_for_an_earlier_update_is_bounded() -> None:
    view = View()
    for seq in range(2, HELD_MAX + 100):
        assert view.offer(update(("ue1", 1), seq), "push") == []
    assert len(view.offer(update(("ue1", 1), 1), "push")) == HELD_MAX + 1


def test_latest_boot_of_a_device_decides_whether_it_is_there() -> None:
    view = View()
    view.offer(update(("ue1", 1), 1), "push")
    assert view.roster() == ["ue1"]
    for seq in (1, 2, 3):
        view.offer(update(("ue1", 2), seq), "push")
    assert view.roster() == []
