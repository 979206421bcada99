"""Faults of a file that cannot be together, or not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from experiments.spec import (
    Experiment,
    Impair,
    LinkUp,
)
from tests.unit.experiments.spec_files import GOOD, Refusal


def second(kind: str, at_s: float, more: str = "") -> str:
    return f'[[fault]]\nkind = "{kind}"\ntarget = "Chicago-NewYork"\nat_s = {at_s}\n{more}\n'


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (second("link-down", 9), "already down at 9 s, since [[fault]] 1 (link-down from 8 s to 12 s)"),
        (second("link-down", 8), "already down at 8 s"),
        (second("link-down", 3), "already down at 8 s, since [[fault]] 2 (link-down from 3 s on)"),
        (second("link-down", 3, "for_s = 6"), "already down at 8 s"),
        (second("link-up", 10), "[[fault]] 1 already brings Chicago-NewYork up, at 12 s"),
        (second("link-up", 13), "Chicago-NewYork is not down at 13 s"),
        (second("link-up", 2), "Chicago-NewYork is not down at 2 s"),
        (
            second("impair", 1, "delay_ms = 9\nfor_s = 3") + second("impair", 2, "delay_ms = 7"),
            "[[fault]] 2 also sets delay_ms of Chicago-NewYork then (impair from 1 s to 4 s)",
        ),
        (second("impair", 1, "loss_ratio = 1") + second("impair", 5, "loss_ratio = 0"), "also sets loss_ratio"),
    ],
)
def test_contradictory_faults_are_refused(refusal: Refusal, added: str, problem: str) -> None:
    error = refusal(text=GOOD + added)
    assert problem in error.problem


def test_faults_that_follow_each_other_are_accepted(load: Callable[..., Experiment]) -> None:
    added = (
        second("link-down", 1)
        + second("link-up", 2)
        + second("link-down", 12)  # the first ends just then
        + second("link-up", 13.5)
        + second("impair", 9, "delay_ms = 9\nfor_s = 3")
        + second("impair", 10, "loss_ratio = 0.5")
        + second("impair", 12, "delay_ms = 7")
    )
    experiment = load(GOOD + added)
    assert [type(fault) for fault in experiment.faults].count(LinkUp) == 2
    assert [fault.changes() for fault in experiment.faults if isinstance(fault, Impair)] == [
        {"delay_ms": 9.0},
        {"loss_ratio": 0.5},
        {"delay_ms": 7.0},
    ]


def strike(kind: str, target: str, at_s: float, more: str = "") -> str:
    return f'[[fault]]\nkind = "{kind}"\ntarget = "{target}"\nat_s = {at_s}\n{more}\n'


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (strike("crash", "NewYork.prox", 1), "has no node or process `NewYork.prox`"),
        (strike("crash", "Chicago-NewYork", 1), "has no node or process `Chicago-NewYork`"),
        (strike("crash", "Denver.proxy", 1), "has no node or process `Denver.proxy`"),
        (strike("disk-loss", "NewYork.forwarder", 1), "has no disk"),
        (strike("disk-loss", "Denver", 1), "has no disk"),
        (strike("crash", "ue1", 1), "is a UE"),
        (strike("crash", "NewYork", 1) + strike("freeze", "NewYork.proxy", 5, "for_s = 1"), "does not run at 5 s"),
        (strike("freeze", "NewYork.proxy", 1, "for_s = 5") + strike("crash", "NewYork.proxy", 5), "does not run at 5"),
    ],
)
def test_process_faults_that_cannot_be_are_refused(refusal: Refusal, added: str, problem: str) -> None:
    assert problem in refusal(text=GOOD + added).problem


def test_process_faults_are_accepted(load: Callable[..., Experiment]) -> None:
    added = (
        strike("crash", "NewYork.proxy", 1, "for_s = 1")
        + strike("disk-loss", "NewYork.proxy", 2, "for_s = 1")
        + strike("freeze", "ue1", 1, "for_s = 1")
        + strike("crash", "login", 1)
        + strike("crash", "Chicago", 1, "for_s = 5.5")
    )
    assert len(load(GOOD + added).faults) == 6


CSR_NODES = 'csr_nodes = ["NewYork", "Chicago"]'
#: ue7 to ue9 are behind Denver, where ue8 serves.
EDGE = GOOD.replace(CSR_NODES, CSR_NODES + '\nedge_nodes = ["Denver"]\nproxy_ues = ["ue8"]')


@pytest.mark.parametrize(
    ("added", "problem", "remedy"),
    [
        (strike("crash", "ue8", 1, "for_s = 1"), "its client keeps nothing", "crash ue8.proxy"),
        (strike("crash", "ue8.forwarder", 1, "for_s = 1"), "its client keeps nothing", "leave for_s out"),
        (strike("crash", "ue7", 1), "is a UE", "freeze it"),
        (strike("crash", "ue7.proxy", 1), "has no node or process `ue7.proxy`", "ue"),
        (strike("disk-loss", "ue7", 1), "has no disk", "such as NewYork.proxy"),
    ],
)
def test_of_a_proxy_ue_only_the_proxy_comes_back(refusal: Refusal, added: str, problem: str, remedy: str) -> None:
    error = refusal(text=EDGE + added)
    assert problem in error.problem
    assert remedy in error.remedy


def test_faults_of_a_proxy_ue_are_accepted(load: Callable[..., Experiment]) -> None:
    added = (
        strike("crash", "ue8.proxy", 1, "for_s = 1")
        + strike("disk-loss", "ue8.proxy", 3, "for_s = 1")
        + strike("freeze", "ue8.proxy", 5, "for_s = 1")
        + strike("crash", "ue8", 7)
    )
    assert len(load(EDGE + added).faults) == 5


@pytest.mark.parametrize(
    ("key", "wrong", "problem"),
    [
        ("proxy_ues", 'proxy_ues = ["ue1"]', "`ue1` is no UE of a network without a CSR"),
        ("proxy_ues", "proxy_ues = []", "proxy_ues = [] is empty"),
        ("edge_nodes", 'edge_nodes = ["Denvre"]', "there is no node `Denvre`"),
    ],
)
def test_wrong_edge_networks_are_refused_in_their_place(refusal: Refusal, key: str, wrong: str, problem: str) -> None:
    lines = [wrong if line.startswith(f"{key} =") else line for line in EDGE.splitlines()]
    error = refusal(text="\n".join(lines))
    assert key in error.where
    assert problem in error.problem


def test_decimal_fractions_do_not_make_an_overlap(load: Callable[..., Experiment]) -> None:
    first = GOOD.replace("at_s = 8.0", "at_s = 1.1").replace("for_s = 4.0", "for_s = 2.2")
    assert len(load(first + second("link-down", 3.3, "for_s = 1")).faults) == 2  # 1.1 + 2.2 > 3.3 in binary
