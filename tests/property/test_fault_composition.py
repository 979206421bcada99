"""Whatever is applied and healed in whatever order: what the effects make of a link is what its active faults ask for."""

import dataclasses
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.faults.composition import ActiveFaults, Change, SetCarrier
from testbed.faults.model import Fault
from topologies.model import LinkProperties

BUILT_AS = {"a-b": LinkProperties(delay_ms=4.0), "b-c": LinkProperties(delay_ms=1.0, loss_ratio=0.1)}

links = st.sampled_from(sorted(BUILT_AS))
parameters = st.dictionaries(
    st.sampled_from(["delay_ms", "loss_ratio", "jitter_ms"]), st.sampled_from([0.0, 0.5, 1.0]), min_size=1
)


class AnyFaults(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.faults = ActiveFaults(BUILT_AS)
        self.carrier = dict.fromkeys(BUILT_AS, True)  # what the effects have made of the network
        self.properties = dict(BUILT_AS)
        self.model: list[Fault] = []  # what is in force, in the order applied
        self.applied = 0

    def carry_out(self, change: Change) -> None:
        for effect in change.effects:
            if isinstance(effect, SetCarrier):
                assert self.carrier[effect.link] is not effect.up  # an effect changes something
                self.carrier[effect.link] = effect.up
            else:
                assert self.properties[effect.link] != effect.properties
                self.properties[effect.link] = effect.properties

    def fault(self, **arguments: Any) -> Fault:
        self.applied += 1
        return Fault(str(self.applied), **arguments)

    @rule(link=links)
    def take_down(self, link: str) -> None:
        fault = self.fault(kind="link-down", target=link)
        self.model.append(fault)
        self.carry_out(self.faults.apply(fault))

    @rule(link=links, changed=parameters)
    def impair(self, link: str, changed: dict[str, float]) -> None:
        fault = self.fault(kind="impair", target=link, parameters=changed)
        self.model.append(fault)
        self.carry_out(self.faults.apply(fault))

    @rule(link=links)
    def take_up(self, link: str) -> None:
        over = [fault for fault in self.model if fault.kind == "link-down" and fault.target == link]
        self.model = [fault for fault in self.model if fault not in over]
        change = self.faults.apply(self.fault(kind="link-up", target=link))
        assert change.healed == tuple(fault.fault_id for fault in over)
        self.carry_out(change)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def heal(self, data: st.DataObject) -> None:
        fault = data.draw(st.sampled_from(self.model))
        self.model.remove(fault)
        self.carry_out(self.faults.heal(fault.fault_id))

    @invariant()
    def the_network_is_what_the_faults_ask_for(self) -> None:
        for link, built_as in BUILT_AS.items():
            here = [fault for fault in self.model if fault.target == link]
            assert self.carrier[link] is all(fault.kind != "link-down" for fault in here)
            wanted = dataclasses.asdict(built_as)
            for fault in here:
                wanted |= fault.parameters
            assert dataclasses.asdict(self.properties[link]) == wanted


TestAnyFaults = AnyFaults.TestCase
TestAnyFaults.settings = settings(max_examples=200, stateful_step_count=30)
