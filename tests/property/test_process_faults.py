"""Whatever strikes processes and is healed in whatever order: the effects bring each to where its active faults want it."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.faults.model import Fault, FaultKind
from testbed.faults.processes import ActiveProcessFaults, CpuShare, LoseDisk, ProcessEffect, SetCpu, SetProcess, way_of
from testbed.faults.targets import ProcessState, processes_of
from topologies.errors import InputError
from topologies.model import Link, LinkProperties, Node, Topology

TOPOLOGY = Topology(
    "pair",
    (Node("csr1", "csr"), Node("core1", "core"), Node("login", "login")),
    (
        Link.between("core1", "csr1", "core", LinkProperties()),
        Link.between("core1", "login", "login", LinkProperties()),
    ),
)
PROCESSES = ("csr1.forwarder", "csr1.proxy", "core1.forwarder", "login.forwarder")
#: What can become of a process at once.
STEPS = {("running", "dead"), ("frozen", "dead"), ("dead", "running"), ("running", "frozen"), ("frozen", "running")}


class AnyProcessFaults(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.faults = ActiveProcessFaults(TOPOLOGY)
        self.states: dict[str, ProcessState] = dict.fromkeys(PROCESSES, "running")
        self.shares: dict[str, CpuShare | None] = dict.fromkeys(PROCESSES)
        self.model: list[Fault] = []
        self.applied = 0

    def carry_out(self, effects: tuple[ProcessEffect, ...]) -> None:
        for effect in effects:
            match effect:
                case LoseDisk(process):
                    assert self.states[process] == "dead"
                case SetCpu(process, share):
                    assert self.states[process] == "running"
                    assert (self.shares[process] is None) is not (
                        share is None
                    )  # it is fed before it is starved otherwise
                    self.shares[process] = share
                case _:
                    assert (self.states[effect.process], effect.state) in STEPS
                    assert self.shares[effect.process] is None  # what is stopped otherwise must not be continued
                    self.states[effect.process] = effect.state

    @rule(
        kind=st.sampled_from(["crash", "freeze", "disk-loss", "starve", "login-outage"]),
        struck=st.sampled_from(["csr1", "csr1.proxy", "core1", "login"]),
        cpu_ratio=st.sampled_from([0.1, 0.5]),
        how=st.sampled_from(["crash", "freeze"]),
    )
    def strike(self, kind: FaultKind, struck: str, cpu_ratio: float, how: str) -> None:
        if (kind == "disk-loss" and not struck.startswith("csr1")) or (kind == "login-outage" and struck != "login"):
            return
        parameters: dict[str, Any] = {}
        if kind == "starve":
            parameters = {"cpu_ratio": cpu_ratio, "period_ms": 20.0}
        elif kind == "login-outage":
            parameters = {"how": how}
        self.applied += 1
        fault = Fault(str(self.applied), kind, struck, parameters=parameters)
        self.model.append(fault)
        self.carry_out(self.faults.apply(fault).effects)

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 100))
    def heal(self, which: int) -> None:
        fault = self.model.pop(which % len(self.model))
        self.carry_out(self.faults.heal(fault.fault_id).effects)
        assert fault.fault_id not in self.faults

    @rule(kind=st.sampled_from(["thaw", "restart"]), struck=st.sampled_from(["csr1", "csr1.proxy", "core1", "login"]))
    def let_go_on(self, kind: FaultKind, struck: str) -> None:
        processes = set(processes_of(TOPOLOGY, struck))
        ends = {"frozen"} if kind == "thaw" else {"frozen", "dead"}
        over = [fault for fault in self.model if way_of(fault) in ends and processes & set(processes_struck(fault))]
        self.applied += 1
        try:
            change = self.faults.apply(Fault(str(self.applied), kind, struck))
        except InputError:
            is_wider = any(not set(processes_struck(fault)) <= processes for fault in over)
            assert is_wider or (kind == "thaw" and not over)
            return
        assert change.healed == tuple(fault.fault_id for fault in over)
        if kind == "restart":
            ended = {effect.process for effect in change.effects if effect == SetProcess(effect.process, "dead")}
            assert ended == {name for name in processes if self.states[name] != "dead"}
        self.model = [fault for fault in self.model if fault not in over]
        self.carry_out(change.effects)

    @invariant()
    def every_process_is_where_it_should_be(self) -> None:
        for process in PROCESSES:
            here = [fault for fault in self.model if process in processes_struck(fault)]
            kinds = {"freeze" if fault.parameters.get("how") == "freeze" else fault.kind for fault in here}
            state: ProcessState = "running"
            if kinds & {"crash", "disk-loss", "login-outage"}:
                state = "dead"
            elif "freeze" in kinds:
                state = "frozen"
            assert self.states[process] == state
            ratios = [fault.parameters["cpu_ratio"] for fault in here if fault.kind == "starve"]
            is_starved = state == "running" and ratios
            assert self.shares[process] == (CpuShare(min(ratios), 20.0) if is_starved else None)


def processes_struck(fault: Fault) -> tuple[str, ...]:
    processes = processes_of(TOPOLOGY, fault.target)
    return tuple(name for name in processes if name.endswith(".proxy")) if fault.kind == "disk-loss" else processes


TestAnyProcessFaults = AnyProcessFaults.TestCase
TestAnyProcessFaults.settings = settings(max_examples=200, stateful_step_count=20, deadline=None)
