import dataclasses

import pytest

from testbed.faults.composition import ActiveFaults, SetCarrier, SetProperties
from testbed.faults.model import Fault
from topologies.model import LinkProperties

BUILT_AS = LinkProperties(delay_ms=4.0, loss_ratio=0.02)


@pytest.fixture
def active() -> ActiveFaults:
    return ActiveFaults({"a-b": BUILT_AS, "b-c": LinkProperties()})


def down(fault_id: str, target: str = "a-b") -> Fault:
    return Fault(fault_id, "link-down", target)


def impair(fault_id: str, **parameters: float) -> Fault:
    return Fault(fault_id, "impair", "a-b", parameters=parameters)


def test_a_link_is_down_while_any_fault_says_so(active: ActiveFaults) -> None:
    assert active.apply(down("1")).effects == (SetCarrier("a-b", up=False),)
    assert active.apply(down("2")).effects == ()
    assert active.heal("1").effects == ()
    assert not active.carrier("a-b")
    assert active.carrier("b-c")
    assert active.heal("2").effects == (SetCarrier("a-b", up=True),)
    assert active.carrier("a-b")


def test_link_up_ends_every_link_down_on_its_link(active: ActiveFaults) -> None:
    for fault in (down("1"), down("2"), down("3", "b-c")):
        active.apply(fault)
    change = active.apply(Fault("4", "link-up", "a-b"))
    assert change.effects == (SetCarrier("a-b", up=True),)
    assert change.healed == ("1", "2")
    assert "3" in active
    assert "4" not in active  # it is done, there is nothing to heal


def test_link_up_on_a_link_that_is_up_changes_nothing(active: ActiveFaults) -> None:
    assert active.apply(Fault("1", "link-up", "a-b")).effects == ()


def test_impairments_are_laid_over_the_built_properties(active: ActiveFaults) -> None:
    slow = dataclasses.replace(BUILT_AS, delay_ms=50.0)
    assert active.apply(impair("1", delay_ms=50.0)).effects == (SetProperties("a-b", slow),)
    slow_and_lossy = dataclasses.replace(slow, loss_ratio=0.5)
    assert active.apply(impair("2", loss_ratio=0.5)).effects == (SetProperties("a-b", slow_and_lossy),)
    assert active.heal("1").effects == (SetProperties("a-b", dataclasses.replace(BUILT_AS, loss_ratio=0.5)),)
    assert active.heal("2").effects == (SetProperties("a-b", BUILT_AS),)


def test_the_latest_of_two_impairments_of_one_property_wins(active: ActiveFaults) -> None:
    active.apply(impair("1", delay_ms=50.0))
    active.apply(impair("2", delay_ms=80.0))
    assert active.properties("a-b").delay_ms == 80.0
    assert active.heal("1").effects == ()
    assert active.properties("a-b").delay_ms == 80.0


def test_zero_is_a_value(active: ActiveFaults) -> None:
    active.apply(impair("1", delay_ms=0.0, loss_ratio=0.0))
    assert active.properties("a-b") == LinkProperties()


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
    with pytest.raises(KeyError):
        active.apply(down("3", "x-y"))
