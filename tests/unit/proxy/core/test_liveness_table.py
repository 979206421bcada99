"""The state table of RFC 5880 section 6.8.6, pair by pair, transcribed from its text and not from the code.

If received state is AdminDown: if bfd.SessionState is not Down, set it to Down.
Else, if bfd.SessionState is Down: received Down -> Init; received Init -> Up.
Else, if bfd.SessionState is Init: received Init or Up -> Up.
Else (bfd.SessionState is Up): received Down -> Down.
"""

from __future__ import annotations

import pytest

from proxy.core.liveness import NEXT, Session, State

TABLE = [
    ("DOWN", "ADMIN_DOWN", "DOWN"),
    ("DOWN", "DOWN", "INIT"),
    ("DOWN", "INIT", "UP"),
    ("DOWN", "UP", "DOWN"),
    ("INIT", "ADMIN_DOWN", "DOWN"),
    ("INIT", "DOWN", "INIT"),
    ("INIT", "INIT", "UP"),
    ("INIT", "UP", "UP"),
    ("UP", "ADMIN_DOWN", "DOWN"),
    ("UP", "DOWN", "DOWN"),
    ("UP", "INIT", "UP"),
    ("UP", "UP", "UP"),
]


@pytest.mark.parametrize(("ours", "theirs", "then"), TABLE)
def test_received_state(ours: str, theirs: str, then: str) -> None:
    session = Session(desired_min_tx_s=0.1, detect_mult=3)
    session.state = State[ours]
    assert session.heard(State[theirs], now_s=0.0) is (ours != then)
    assert session.state is State[then]


def test_states_have_the_numbers_of_section_4_1() -> None:
    assert [(state.name, state.value) for state in State] == [("ADMIN_DOWN", 0), ("DOWN", 1), ("INIT", 2), ("UP", 3)]


def test_nothing_beyond_the_table() -> None:
    assert all(then is not ours for (ours, _), then in NEXT.items())
    assert len(NEXT) == len([row for row in TABLE if row[0] != row[2]])
