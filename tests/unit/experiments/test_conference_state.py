from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from experiments.conference_state import ConferenceState, disagreement

EVERYBODY = frozenset({"ue1", "ue2"})
CLIENT = ConferenceState("ue1", "client", "main", "joined", "d", EVERYBODY, 0)
OTHER = dataclasses.replace(CLIENT, node="ue2")
PROXY = ConferenceState("csr1", "proxy", "main", "joined", "p", EVERYBODY, 0)
PEER = dataclasses.replace(PROXY, node="csr2")


def but(state: ConferenceState, **changes: Any) -> ConferenceState:
    return dataclasses.replace(state, **changes)


def test_clients_agree_with_clients_and_proxies_with_proxies() -> None:
    assert disagreement([CLIENT, OTHER, PROXY, PEER], rosters={"main": set(EVERYBODY)}) == ""
    assert disagreement([], rosters=None) == ""


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([CLIENT, but(OTHER, session="joining")], "ue2 is in state joining"),
        ([CLIENT, but(OTHER, roster=frozenset({"ue2"}))], "ue2 sees 1 of 2 joined; missing: ue1"),
        ([CLIENT, but(OTHER, waiting=3)], "ue2 waits for the ack of 3 updates"),
        ([CLIENT, but(OTHER, fetching=2)], "ue2 fetches 2 objects"),
        ([CLIENT, OTHER, PROXY, but(PEER, digest="q")], "another state of main"),
        ([CLIENT, but(OTHER, digest="e"), PROXY], "another state of main"),
        ([CLIENT, but(OTHER, away=frozenset({"ue1"})), PROXY], "another state of main"),
        ([CLIENT, but(PROXY, heads=frozenset({("ue2", 1, 1)}))], "ue1 has not got update 1 of ue2 yet"),
        (
            [but(CLIENT, heads=frozenset({("ue2", 1, 4)})), but(PROXY, heads=frozenset({("ue2", 1, 5)}))],
            "ue1 has not got update 5 of ue2 yet",
        ),
    ],
)
def test_what_differs_is_said(states: list[ConferenceState], said: str) -> None:
    assert said in disagreement(states, rosters={"main": set(EVERYBODY)})


def test_client_may_be_ahead_of_its_proxies_for_what_was_only_accepted_can_be_lost() -> None:
    ahead = but(CLIENT, heads=frozenset({("ue2", 1, 5), ("ue3", 1, 1)}))
    assert disagreement([ahead, but(PROXY, heads=frozenset({("ue2", 1, 4)}))], rosters=None) == ""


def test_who_has_left_has_no_say() -> None:
    behind = but(CLIENT, session="closed")
    assert disagreement([behind, but(PROXY, heads=frozenset({("ue2", 1, 4)}))], rosters=None) == ""
    assert disagreement([CLIENT, but(OTHER, session="closed", digest="e")], rosters=None) == ""


def test_states_are_taken_from_status_replies() -> None:
    client = {
        "state": "joined", "proxy": "csr1", "conference": "main", "state_digest": "d", "roster": ["ue1", "ue2"],
        "standings": {"ue1": "joined", "ue2": "away", "ue3": "left"}, "unacked": 1, "queued": 2, "fetching": 4, "vector": [], "heads": [["ue2", 1, 3]],
    }  # fmt: skip
    assert list(ConferenceState.all_of("ue1.forwarder", {"client": client, "forwarder": {}})) == [
        but(CLIENT, waiting=3, fetching=4, away=frozenset({"ue2"}), heads=frozenset({("ue2", 1, 3)}))
    ]
    proxy = {"conferences": {"main": {"state_digest": "p", "roster": ["ue1", "ue2"], "heads": [], "clients": []}}}
    assert list(ConferenceState.all_of("csr1.proxy", {"proxy": proxy})) == [PROXY]
    assert list(ConferenceState.all_of("core1.forwarder", {"forwarder": {}})) == []
