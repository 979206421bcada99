"""Each invariant against one good history, and against bad ones made by hand: the checker has to catch every one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from experiments.checker import (
    check_admission,
    check_agreement,
    check_bounded,
    check_in_order,
    check_invariants,
    check_nothing_lost,
    check_nothing_twice,
)
from experiments.history import History
from proxy.records import (
    Acked,
    Applied,
    CountersReported,
    Granted,
    Published,
    Revoked,
    ServiceChanged,
    SessionChanged,
    SnapshotApplied,
    StateReported,
)

DEVICES = ("ue1", "ue2", "ue3")
QUIESCED_S = 20.0


def joined(device: str, t_s: float = 1.0) -> SessionChanged:
    return SessionChanged(t_s, "main", device, "csr1", "joined")


def published(publisher: str, seq: int, t_s: float) -> Published:
    return Published(t_s, "main", publisher, 1, seq, "message", 100, "", f"{publisher}{seq}")


def acked(update: Published, level: Any = "accepted") -> Acked:
    return Acked(update.t_s + 0.01, "main", update.publisher, update.boot, update.seq, level, "csr1")


def applied(update: Published, receiver: str, delay_s: float = 0.02) -> Applied:
    return Applied(
        update.t_s + delay_s, "main", receiver, update.publisher, update.boot, update.seq, "armed", update.sha256
    )


def state(node: str, digest: str = "d1", component: Any = "client", t_s: float = QUIESCED_S + 0.1) -> StateReported:
    return StateReported(t_s, "main", node, component, digest, [], [("ue1", 1, 2), ("ue2", 1, 1)], list(DEVICES))


def granted(device: str, t_s: float = 0.5, expires_s: float = 30.0, role: Any = "participant") -> Granted:
    return Granted(t_s, "main", device, role, t_s, expires_s)


def counters(**values: int) -> CountersReported:
    bounds = {"pit_entries": 100, "cs_entries": 50}
    used = {"pit_entries": 10, "cs_entries": 50} | values
    return CountersReported(20.0, "csr1", "forwarder", 1.0, 1000, 19.0, [], 0.2, [], used, bounds)


UPDATES = (published("ue1", 1, 10.0), published("ue2", 1, 10.5), published("ue1", 2, 11.0))

GOOD = History(
    published=UPDATES,
    acked=[acked(update) for update in UPDATES],
    applied=[applied(update, device) for update in UPDATES for device in DEVICES if device != update.publisher],
    sessions=[joined(device) for device in DEVICES],
    granted=[granted(device) for device in DEVICES],
    states=[*map(state, DEVICES), state("csr1", "p", "proxy"), state("csr2", "p", "proxy")],
    counters=[counters()],
    quiesced_s=QUIESCED_S,
)


def but(**changes: Any) -> History:
    return dataclasses.replace(GOOD, **changes)


def test_a_good_history_passes_every_invariant() -> None:
    assert [(check.name, check.verdict) for check in check_invariants(GOOD)] == [
        ("invariant.nothing-lost", "pass"),
        ("invariant.nothing-twice", "pass"),
        ("invariant.in-order", "pass"),
        ("invariant.agreement", "pass"),
        ("invariant.admission", "pass"),
        ("invariant.bounded", "pass"),
    ]


# 1. Nothing lost


@pytest.mark.parametrize(
    ("history", "named"),
    [
        (but(applied=GOOD.applied[:-1]), "main/ue1/1/2 never reached ue3"),
        (but(applied=[one for one in GOOD.applied if one.receiver != "ue2"]), "main/ue1/1/1 never reached ue2"),
        # A client that logged in again and never came back still had a right to it.
        (
            but(
                applied=GOOD.applied[:-1],
                sessions=[*GOOD.sessions, SessionChanged(10.9, "main", "ue3", "", "suspect")],
            ),
            "main/ue1/1/2 never reached ue3",
        ),
        # A snapshot brings only what its heads say.
        (
            but(applied=GOOD.applied[:-1], snapshots=[SnapshotApplied(12.0, "main", "ue3", [("ue1", 1, 1)])]),
            "main/ue1/1/2 never reached ue3",
        ),
        # A durable ack holds even where the proxy that gave it crashed.
        (
            but(
                acked=[acked(update, "durable") for update in UPDATES],
                applied=GOOD.applied[:-1],
                crashed=frozenset({"csr1"}),
            ),
            "main/ue1/1/2 never reached ue3",
        ),
        # Only the service proxy of a UE broke down, not its client.
        (
            but(
                acked=[acked(update, "durable") for update in UPDATES],
                applied=GOOD.applied[:-1],
                crashed=frozenset({"ue3"}),
                cut_off=frozenset({"ue3"}),
                proxy_only=frozenset({"ue3"}),
            ),
            "main/ue1/1/2 never reached ue3",
        ),
        # The proxy that acked it is gone, but its publisher is there and can say it again.
        (
            but(
                acked=[acked(update, "durable") for update in UPDATES],
                applied=GOOD.applied[:-1],
                cut_off=frozenset({"csr1"}),
            ),
            "main/ue1/1/2 never reached ue3",
        ),
    ],
)
def test_a_lost_update_is_found(history: History, named: str) -> None:
    check = check_nothing_lost(history)
    assert check.verdict == "fail"
    assert named in check.detail


@pytest.mark.parametrize(
    "history",
    [
        # Not acked: nobody promised anything.
        but(acked=GOOD.acked[:-1], applied=GOOD.applied[:-2]),
        # Left before the end.
        but(applied=GOOD.applied[:-1], sessions=[*GOOD.sessions, SessionChanged(12, "main", "ue3", "csr1", "closed")]),
        # A snapshot brought it.
        but(applied=GOOD.applied[:-1], snapshots=[SnapshotApplied(12.0, "main", "ue3", [("ue1", 1, 2)])]),
        # Accepted in the memory of a proxy that crashed.
        but(applied=GOOD.applied[:-1], crashed=frozenset({"csr1"})),
        # Cut off by a fault that was still in force at the end.
        but(applied=GOOD.applied[:-1], cut_off=frozenset({"ue3"})),
        # Gone to the end together with the proxy that acked it: a proxy UE that vanished.
        but(
            acked=[acked(update, "durable") for update in UPDATES],
            applied=GOOD.applied[:-1],
            cut_off=frozenset({"ue1", "csr1"}),
        ),
        but(published=[], acked=[], applied=[]),
    ],
)
def test_what_nobody_promised_is_not_lost(history: History) -> None:
    assert check_nothing_lost(history).verdict == "pass"


def test_a_run_cut_short_does_not_decide_about_losses() -> None:
    assert check_nothing_lost(but(applied=GOOD.applied[:-1], quiesced_s=None)).verdict == "inconclusive"
    assert check_nothing_lost(but(acked=[])).verdict == "inconclusive"


# 2. Nothing twice, nothing invented, nothing altered


def with_last(change: Callable[[Applied], Applied]) -> History:
    return but(applied=[*GOOD.applied[:-1], change(GOOD.applied[-1])])


@pytest.mark.parametrize(
    ("history", "named"),
    [
        (but(applied=[*GOOD.applied, GOOD.applied[-1]]), "ue3 applied main/ue1/1/2 twice"),
        (
            but(snapshots=[SnapshotApplied(11.01, "main", "ue3", [("ue1", 1, 2)])]),
            "ue3 applied main/ue1/1/2 twice",
        ),
        (with_last(lambda one: msgspec.structs.replace(one, seq=9)), "main/ue1/1/9, which nobody published"),
        (with_last(lambda one: msgspec.structs.replace(one, conference="other")), "other/ue1/1/2, which nobody"),
        (with_last(lambda one: msgspec.structs.replace(one, sha256="x")), "altered: x instead of ue12"),
        (with_last(lambda one: msgspec.structs.replace(one, t_s=10.9)), "0.100000 s before it was published"),
        (with_last(lambda one: msgspec.structs.replace(one, receiver="ue1")), "its own update, from the network"),
        (but(snapshots=[SnapshotApplied(12.0, "main", "ue3", [("ue1", 1, 7)])]), "main/ue1/1/7, which nobody"),
        (
            but(published=[*UPDATES, msgspec.structs.replace(UPDATES[-1], sha256="other")]),
            "was published with other bytes",
        ),
    ],
)
def test_twice_invented_or_altered_is_found(history: History, named: str) -> None:
    check = check_nothing_twice(history)
    assert check.verdict == "fail"
    assert named in check.detail


def test_an_update_of_a_crashed_publisher_may_be_missing_from_its_records() -> None:
    history = but(published=UPDATES[:-1], crashed=frozenset({"ue1"}))
    assert check_nothing_twice(history).verdict == "inconclusive"


# 3. In order


@pytest.mark.parametrize(
    "applications",
    [
        [applied(UPDATES[2], "ue2"), applied(UPDATES[0], "ue2", 5.0)],  # a lower number after a higher
        [  # a higher number of an earlier boot after the first of the next
            applied(msgspec.structs.replace(UPDATES[0], boot=2), "ue2"),
            applied(msgspec.structs.replace(UPDATES[2], boot=1), "ue2"),
        ],
    ],
)
def test_wrong_order_is_found(applications: list[Applied]) -> None:
    check = check_in_order(but(applied=applications))
    assert check.verdict == "fail"
    assert "ue2 applied main/ue1/1/" in check.detail


def test_order_is_per_publisher_and_receiver() -> None:
    applications = [applied(UPDATES[2], "ue2"), applied(UPDATES[0], "ue3", 5.0), applied(UPDATES[1], "ue3", 5.0)]
    assert check_in_order(but(applied=applications)).verdict == "pass"


# 4. Agreement


@pytest.mark.parametrize(
    ("states", "named"),
    [
        ([*GOOD.states[:3], state("csr1", "p", "proxy"), state("csr2", "q", "proxy")], "digest"),
        ([state("ue1"), state("ue2"), state("ue3", "d2"), *GOOD.states[3:]], "client ue3 in main reports digest d2"),
        (
            [state("ue1"), state("ue2"), msgspec.structs.replace(state("ue3"), heads=[]), *GOOD.states[3:]],
            "client ue3",
        ),
        (
            [state("ue1"), state("ue2"), msgspec.structs.replace(state("ue3"), roster=["ue1"]), *GOOD.states[3:]],
            "client ue3",
        ),
    ],
)
def test_disagreement_is_found(states: list[StateReported], named: str) -> None:
    check = check_agreement(but(states=states))
    assert check.verdict == "fail"
    assert named in check.detail


@pytest.mark.parametrize(
    "history",
    [
        but(states=[one for one in GOOD.states if one.node != "ue2"]),
        but(states=[one for one in GOOD.states if one.node != "csr1"]),
        but(states=[state(one.node, one.state_digest, one.component, QUIESCED_S - 5) for one in GOOD.states]),
        but(states=[]),
    ],
)
def test_a_missing_final_state_does_not_decide(history: History) -> None:
    assert check_agreement(history).verdict == "inconclusive"


def test_who_has_handed_over_has_no_state_to_report() -> None:
    sessions = [*GOOD.sessions, SessionChanged(5.0, "main", "ue2", "ue1", "joined")]
    services = [ServiceChanged(6.0, "ue1", "handing-over"), ServiceChanged(6.5, "ue1", "handed-over")]
    assert check_agreement(but(sessions=sessions)).verdict == "inconclusive"
    assert check_agreement(but(sessions=sessions, services=services[:1])).verdict == "inconclusive"
    assert check_agreement(but(sessions=sessions, services=services)).verdict == "pass"
    again = [*services, ServiceChanged(7.0, "ue1", "serving")]
    assert check_agreement(but(sessions=sessions, services=again)).verdict == "inconclusive"


def test_without_proxies_the_clients_alone_have_to_agree() -> None:
    sessions = [msgspec.structs.replace(session, proxy="") for session in GOOD.sessions]
    clients = [one for one in GOOD.states if one.component == "client"]
    assert check_agreement(but(sessions=sessions, states=clients)).verdict == "pass"
    assert check_agreement(but(sessions=sessions, states=clients[:-1])).verdict == "inconclusive"
    apart = [*clients[:-1], msgspec.structs.replace(clients[-1], state_digest="d2")]
    assert check_agreement(but(sessions=sessions, states=apart)).verdict == "fail"


def test_a_client_beside_a_broken_proxy_has_to_agree() -> None:
    apart = {
        "cut_off": frozenset({"ue3"}),
        "crashed": frozenset({"ue3"}),
        "states": [*GOOD.states[:2], *GOOD.states[3:]],
    }
    assert check_agreement(but(**apart)).verdict == "pass"
    assert check_agreement(but(**apart, proxy_only=frozenset({"ue3"}))).verdict == "inconclusive"


def test_only_the_final_state_counts() -> None:
    early = [state("ue1", "older", t_s=QUIESCED_S + 0.05), state("csr1", "older", "proxy", QUIESCED_S - 1)]
    assert check_agreement(but(states=[*early, *GOOD.states])).verdict == "pass"


# 5. Admission


def others_and(*grants: Granted) -> list[Granted]:
    return [each for each in GOOD.granted if each.device not in {grant.device for grant in grants}] + list(grants)


@pytest.mark.parametrize(
    ("history", "named"),
    [
        # ue1 published at 10.0 and 11.0; its only token ran out between.
        (but(granted=others_and(granted("ue1", expires_s=10.9))), "ue2 applied main/ue1/1/2, published at 11.0"),
        (but(granted=others_and(granted("ue1", t_s=10.2))), "ue2 applied main/ue1/1/1, published at 10.0"),
        (but(granted=others_and(granted("ue1", role="observer"))), "the message of an observer"),
        (but(granted=[each for each in GOOD.granted if each.device != "ue1"]), "main/ue1/1/1, published at 10.0"),
        (but(revoked=[Revoked(9.5, "ue1")]), "main/ue1/1/2, published at 11.0"),
        (but(granted=[msgspec.structs.replace(each, conference="other") for each in GOOD.granted]), "without a valid"),
        (but(sessions=[joined("ue1"), joined("ue2")]), "ue3 read main at 10.02"),
        (but(sessions=[joined("ue1"), joined("ue2"), joined("ue3", 10.6)]), "ue3 read main at 10.02"),
        (
            but(sessions=[*GOOD.sessions, SessionChanged(10.4, "main", "ue3", "", "refused", "revoked")]),
            "ue3 read main at 10.52",
        ),
        (but(snapshots=[SnapshotApplied(0.9, "main", "ue3", [("ue1", 1, 0)])]), "ue3 read main at 0.9"),
        (but(granted=others_and(granted("ue3", expires_s=10.1))), "ue3 read main at 10.52"),
    ],
)
def test_breach_of_admission_is_found(history: History, named: str) -> None:
    check = check_admission(history)
    assert check.verdict == "fail"
    assert named in check.detail


@pytest.mark.parametrize(
    "history",
    [
        but(granted=others_and(granted("ue1", expires_s=10.5), granted("ue1", t_s=10.3))),  # renewed
        but(revoked=[Revoked(10.9, "ue1")]),  # not heard everywhere yet
        but(sessions=[*GOOD.sessions, SessionChanged(10.4, "main", "ue3", "csr1", "suspect")]),
        # fuzz-schedules 292: it left at the instant at which it had read the last one, and wrote that down after it.
        but(sessions=[*GOOD.sessions, SessionChanged(GOOD.applied[-1].t_s, "main", "ue3", "csr1", "closed")]),
    ],
)
def test_what_is_admitted_is_no_breach(history: History) -> None:
    assert check_admission(history).verdict == "pass"


def test_lost_records_of_the_login_server_do_not_decide() -> None:
    assert check_admission(but(granted=[])).verdict == "inconclusive"
    lost = [each for each in GOOD.granted if each.device != "ue1"]
    assert check_admission(but(granted=lost, crashed=frozenset({"login"}))).verdict == "inconclusive"


# 6. Bounded


@pytest.mark.parametrize(
    ("reports", "named"),
    [
        ([counters(pit_entries=101)], "csr1.forwarder: pit_entries = 101 exceeds 100"),
        ([counters(cs_entries=51), counters()], "csr1.forwarder: cs_entries = 51 exceeds 50"),  # once is enough
    ],
)
def test_an_exceeded_bound_is_found(reports: list[CountersReported], named: str) -> None:
    check = check_bounded(but(counters=reports))
    assert check.verdict == "fail"
    assert named in check.detail


def test_a_bound_that_nobody_measured_does_not_decide() -> None:
    assert check_bounded(but(counters=[msgspec.structs.replace(counters(), counters={})])).verdict == "inconclusive"
    assert check_bounded(but(counters=[])).verdict == "inconclusive"
