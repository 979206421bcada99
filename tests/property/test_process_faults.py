"""Whatever strikes processes and is healed in whatever order: the effects bring each to where its active faults want it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.faults.model import Fault, FaultKind
from testbed.faults.processes import ActiveProcessFaults, LoseDisk, ProcessEffect
from testbed.faults.targets import ProcessState, processes_of
from topologies.model import Link, LinkProperties, Node, Topology

TOPOLOGY = Topology(
    "pair", (Node("csr1", "csr"), Node("core1", "core")), (Link.between("core1", "csr1", "core", LinkProperties()),)
)
PROCESSES = ("csr1.forwarder", "csr1.proxy", "core1.forwarder")
#: What can become of a process at once.
STEPS = {("running", "dead"), ("frozen", "dead"), ("dead", "running"), ("running", "frozen"), ("frozen", "running")}


class AnyProcessFaults(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.faults = ActiveProcessFaults(TOPOLOGY)
        self.states: dict[str, ProcessState] = dict.fromkeys(PROCESSES, "running")
        self.model: list[Fault] = []
        self.applied = 0

    def carry_out(self, effects: tuple[ProcessEffect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, LoseDisk):
                assert self.states[effect.process] == "dead"
            else:
                assert (self.states[effect.process], effect.state) in STEPS
                self.states[effect.process] = effect.state

    @rule(
        kind=st.sampled_from(["crash", "freeze", "disk-loss"]), struck=st.sampled_from(["csr1", "csr1.proxy", "core1"])
    )
    def strike(self, kind: FaultKind, struck: str) -> None:
        if kind == "disk-loss" and struck == "core1":
            return
        self.applied += 1
        fault = Fault(str(self.applied), kind, struck)
        self.model.append(fault)
        self.carry_out(self.faults.apply(fault))

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 100))
    def heal(self, which: int) -> None:
        fault = self.model.pop(which % len(self.model))
        self.carry_out(self.faults.heal(fault.fault_id))
        assert fault.fault_id not in self.faults

    @invariant()
    def every_process_is_where_it_should_be(self) -> None:
        for process in PROCESSES:
            kinds = {
                fault.kind
                for fault in self.model
                if process in processes_of(TOPOLOGY, fault.target)
                and (fault.kind != "disk-loss" or process.endswith(".proxy"))
            }
            wanted = "dead" if kinds & {"crash", "disk-loss"} else "frozen" if kinds else "running"
            assert self.states[process] == self.faults.state(process) == wanted


TestAnyProcessFaults = AnyProcessFaults.TestCase
TestAnyProcessFaults.settings = settings(max_examples=200, stateful_step_count=20, deadline=None)
