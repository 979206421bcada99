import dataclasses

import pytest

from testbed.faults.composition import ActiveFaults, SetBlocked, SetCarrier, SetProperties, SetTargets
from testbed.faults.model import Fault
from testbed.links.model import Direction
from testbed.links.netem.match import Match
from topologies.errors import InputError
from topologies.model import Link, LinkProperties, Node, Topology

BUILT_AS = LinkProperties(delay_ms=4.0, loss_ratio=0.02)
TOPOLOGY = Topology(
    "line",
    (Node("a", "core"), Node("b", "core"), Node("c", "core")),
    (Link.between("a", "b", "core", BUILT_AS), Link.between("b", "c", "core", LinkProperties())),
)
BOTH: frozenset[Direction] = frozenset({"a_to_b", "b_to_a"})


@pytest.fixture
def active() -> ActiveFaults:
    return ActiveFaults(TOPOLOGY)


def down(fault_id: str, target: str = "a-b") -> Fault:
    return Fault(fault_id, "link-down", target)


def impair(fault_id: str, **parameters: float) -> Fault:
    return Fault(fault_id, "impair", "a-b", parameters=parameters)


def test_a_link_is_down_while_any_fault_says_so(active: ActiveFaults) -> None:
    assert active.apply(down("1")).effects == (SetCarrier("a-b", up=False),)
    assert active.apply(down("2")).effects == ()
    assert active.heal("1").effects == ()
    assert not active.state("a-b").carrier
    assert active.state("b-c").carrier
    assert active.heal("2").effects == (SetCarrier("a-b", up=True),)
    assert active.state("a-b").carrier


def test_link_up_ends_every_link_down_on_its_link(active: ActiveFaults) -> None:
    for fault in (down("1"), down("2"), down("3", "b-c")):
        active.apply(fault)
    change = active.apply(Fault("4", "link-up", "a-b"))
    assert change.effects == (SetCarrier("a-b", up=True),)
    assert change.healed == ("1", "2")
    assert "3" in active
    assert "4" not in active  # it is done, there is nothing to heal


def test_link_up_on_a_link_that_is_up_is_refused(active: ActiveFaults) -> None:
    with pytest.raises(InputError, match="a-b is not down by a link-down"):
        active.apply(Fault("1", "link-up", "a-b"))
    active.apply(Fault("2", "isolate", "a"))
    with pytest.raises(InputError, match="ends a fault of another kind"):
        active.apply(Fault("1", "link-up", "a-b"))


def test_impairments_are_laid_over_the_built_properties(active: ActiveFaults) -> None:
    slow = dataclasses.replace(BUILT_AS, delay_ms=50.0)
    assert active.apply(impair("1", delay_ms=50.0)).effects == (SetProperties("a-b", slow),)
    slow_and_lossy = dataclasses.replace(slow, loss_ratio=0.5)
    assert active.apply(impair("2", loss_ratio=0.5)).effects == (SetProperties("a-b", slow_and_lossy),)
    assert active.heal("1").effects == (SetProperties("a-b", dataclasses.replace(BUILT_AS, loss_ratio=0.5)),)
    assert active.heal("2").effects == (SetProperties("a-b", BUILT_AS),)


def chosen(fault_id: str, match: str, **parameters: float) -> Fault:
    return Fault(fault_id, "impair", "a-b", parameters={"match": match, **parameters}, sender="a")


def test_an_impairment_of_some_frames_leaves_all_others_as_they_were(active: ActiveFaults) -> None:
    slow = dataclasses.replace(BUILT_AS, delay_ms=50.0)
    assert active.apply(chosen("1", "udp", delay_ms=50.0)).effects == (
        SetTargets("a-b", "a_to_b", {Match("udp"): slow}),
    )
    assert active.state("a-b").properties["a_to_b"] == BUILT_AS
    assert active.apply(Fault("2", "impair", "a-b", parameters={"loss_ratio": 0.5})).effects == (
        SetProperties("a-b", dataclasses.replace(BUILT_AS, loss_ratio=0.5)),
        SetTargets("a-b", "a_to_b", {Match("udp"): dataclasses.replace(slow, loss_ratio=0.5)}),
    )
    assert active.heal("1").effects == (SetTargets("a-b", "a_to_b", {}),)
    assert active.heal("2").effects == (SetProperties("a-b", BUILT_AS),)


def test_frames_that_fit_two_matches_get_both_impairments(active: ActiveFaults) -> None:
    active.apply(chosen("1", "udp dst-port 6363", delay_ms=50.0))
    active.apply(chosen("2", "src 10.0.0.0", loss_ratio=0.5))
    active.apply(chosen("3", "icmp", delay_ms=9.0))
    ours, theirs = Match.parse("udp dst-port 6363", where="x"), Match.parse("src 10.0.0.0", where="x")
    both, icmp_of_theirs = (Match.parse(f"{said} src 10.0.0.0", where="x") for said in ("udp", "icmp"))
    both = dataclasses.replace(both, dst_port=6363)
    found = active.state("a-b").targets["a_to_b"]
    assert {match: (one.delay_ms, one.loss_ratio) for match, one in found.items()} == {
        ours: (50.0, 0.02),
        theirs: (4.0, 0.5),
        both: (50.0, 0.5),
        Match("icmp"): (9.0, 0.02),
        icmp_of_theirs: (9.0, 0.5),
    }
    assert active.state("a-b").targets["b_to_a"] == {}
    active.heal("1")
    assert set(active.state("a-b").targets["a_to_b"]) == {theirs, Match("icmp"), icmp_of_theirs}


def test_the_latest_of_two_impairments_of_one_property_wins(active: ActiveFaults) -> None:
    active.apply(impair("1", delay_ms=50.0))
    active.apply(impair("2", delay_ms=80.0))
    assert active.state("a-b").properties["a_to_b"].delay_ms == 80.0
    assert active.heal("1").effects == ()
    assert active.state("a-b").properties["a_to_b"].delay_ms == 80.0


def test_zero_is_a_value(active: ActiveFaults) -> None:
    active.apply(impair("1", delay_ms=0.0, loss_ratio=0.0))
    assert active.state("a-b").properties["a_to_b"] == LinkProperties()


def test_down_and_impaired_do_not_mix(active: ActiveFaults) -> None:
    active.apply(down("1"))
    assert active.apply(impair("2", delay_ms=9.0)).effects == (
        SetProperties("a-b", dataclasses.replace(BUILT_AS, delay_ms=9.0)),
    )
    assert active.heal("1").effects == (SetCarrier("a-b", up=True),)


def test_bugs_are_not_swallowed(active: ActiveFaults) -> None:
    active.apply(down("1"))
    with pytest.raises(ValueError, match="active already"):
        active.apply(down("1"))
    with pytest.raises(KeyError):
        active.heal("2")
    with pytest.raises(InputError, match="there is no link `x-y`"):
        active.apply(down("3", "x-y"))


def test_a_flap_goes_down_in_even_phases(active: ActiveFaults) -> None:
    flap = Fault("1", "flap", "a-b", for_s=9.0, parameters={"period_s": 2.0, "down_ratio": 0.5})
    assert active.apply(flap).effects == (SetCarrier("a-b", up=False),)
    assert active.advance("1", 1).effects == (SetCarrier("a-b", up=True),)
    active.apply(down("2"))
    assert active.advance("1", 2).effects == ()  # it is down anyway
    assert active.heal("2").effects == ()
    assert active.heal("1").effects == (SetCarrier("a-b", up=True),)


def test_a_ramp_goes_from_what_there_was(active: ActiveFaults) -> None:
    parameters = {"delay_ms": 24.0, "loss_ratio": 0.0, "ramp_s": 0.4}
    assert active.apply(Fault("1", "impair", "a-b", parameters=parameters)).effects == ()
    seen = []
    for phase in range(1, 5):
        (effect,) = active.advance("1", phase).effects
        assert isinstance(effect, SetProperties)
        seen.append((effect.properties.delay_ms, effect.properties.loss_ratio))
    assert seen == [(9.0, 0.015), (14.0, 0.01), (19.0, pytest.approx(0.005)), (24.0, 0.0)]
    assert active.heal("1").effects == (SetProperties("a-b", BUILT_AS),)


def test_a_ramp_needs_something_to_begin_at(active: ActiveFaults) -> None:
    with pytest.raises(InputError, match="rate_mbps of a-b has no value that a ramp could begin at"):
        active.apply(Fault("1", "impair", "a-b", parameters={"rate_mbps": 5.0, "ramp_s": 1.0}))
    assert "1" not in active


def test_a_black_hole_may_be_one_way_and_does_not_mind_another(active: ActiveFaults) -> None:
    assert active.apply(Fault("1", "black-hole", "a-b", sender="b")).effects == (
        SetBlocked("a-b", frozenset({"b_to_a"})),
    )
    assert active.apply(Fault("2", "isolate", "b", parameters={"silent": True})).effects == (
        SetBlocked("a-b", BOTH),
        SetBlocked("b-c", BOTH),
    )
    assert active.heal("1").effects == ()
    assert active.heal("2").effects == (SetBlocked("a-b", frozenset()), SetBlocked("b-c", frozenset()))


def test_a_partition_cuts_what_is_between_its_groups(active: ActiveFaults) -> None:
    change = active.apply(Fault("1", "partition", "a,b"))
    assert change.effects == (SetCarrier("b-c", up=False),)
    assert change.links == ("b-c",)
    assert active.apply(Fault("2", "partition", "a/c")).effects == (SetCarrier("a-b", up=False),)
    assert active.heal("1").effects == ()
    assert active.heal("2").effects == (SetCarrier("a-b", up=True), SetCarrier("b-c", up=True))
