import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from testbed.faults.injector import FaultInjector
from testbed.faults.model import Fault, FaultApplied
from testbed.faults.targets import ProcessState
from testbed.links.model import Impairment
from topologies.errors import CapabilityError, InputError
from topologies.model import Link, LinkProperties, Node, Topology

NODES = (Node("a", "core"), Node("b", "core"), Node("c", "core"), Node("d", "csr"))
LINKS = (
    Link.between("a", "b", "core", LinkProperties(delay_ms=4.0)),
    Link.between("b", "c", "core", LinkProperties(delay_ms=1.0)),
    Link.between("c", "d", "core", LinkProperties(delay_ms=1.0)),
)
TOPOLOGY = Topology("line", NODES, LINKS)


class FakeNetwork:
    """Links that do what they are told, or not, and a log of what they were told when."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, Any]] = []
        self.carrier = {link.name: True for link in LINKS}
        self.states: dict[str, ProcessState] = dict.fromkeys(
            ("a.forwarder", "b.forwarder", "c.forwarder", "d.forwarder", "d.proxy"), "running"
        )
        self.lies = False  #: says yes and does nothing
        self.refuses = False

    def _tell(self, link: str, what: object) -> None:
        if self.refuses:
            raise CapabilityError(where=link, problem="will not", remedy="none")
        self.log.append((trio.current_time(), link, what))

    async def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001
        await trio.lowlevel.checkpoint()
        self._tell(link, up)
        if not self.lies:
            self.carrier[link] = up

    async def read_carrier(self, link: str) -> tuple[bool, bool]:
        await trio.lowlevel.checkpoint()
        return self.carrier[link], self.carrier[link]

    async def change_link(self, link: str, **properties: Any) -> Mapping[str, Impairment]:
        await trio.lowlevel.checkpoint()
        self._tell(link, properties)
        done = Impairment(**properties)
        return {"a_to_b": done, "b_to_a": Impairment() if self.lies else done}

    async def _bring(self, process: str, what: str, state: ProcessState) -> None:
        await trio.lowlevel.checkpoint()
        self._tell(process, what)
        if not self.lies:
            self.states[process] = state

    async def kill_process(self, process: str) -> None:
        await self._bring(process, "kill", "dead")

    async def restart_process(self, process: str) -> None:
        assert self.states[process] == "dead" or self.lies
        await self._bring(process, "restart", "running")

    async def freeze_process(self, process: str) -> None:
        assert self.states[process] == "running"
        await self._bring(process, "freeze", "frozen")

    async def thaw_process(self, process: str) -> None:
        await self._bring(process, "thaw", "running")

    def lose_disk(self, process: str) -> None:
        assert self.states[process] == "dead" or self.lies
        self._tell(process, "lose disk")

    def process_state(self, process: str) -> ProcessState:
        return self.states[process]


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def injector(network: FakeNetwork, tmp_path: Path) -> FaultInjector:
    return FaultInjector(network, TOPOLOGY, tmp_path / "faults.jsonl", clock=trio.current_time)


def rows_in(path: Path) -> list[FaultApplied]:
    return [msgspec.json.decode(line, type=FaultApplied) for line in path.read_bytes().splitlines()]


async def test_the_schedule_is_kept_to_the_moment(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock, tmp_path: Path
) -> None:
    del autojump_clock
    faults = [
        Fault("late", "impair", "b-c", at_s=9.0, parameters={"loss_ratio": 0.5}),
        Fault("cut", "link-down", "b-a", at_s=2.0, for_s=4.0),
    ]
    await injector.run(faults, epoch_s=100.0)
    lossy = dataclasses.asdict(dataclasses.replace(LINKS[1].properties, loss_ratio=0.5))
    assert network.log == [(102.0, "a-b", False), (106.0, "a-b", True), (109.0, "b-c", lossy)]
    assert rows_in(tmp_path / "faults.jsonl") == [
        row("cut", "link-down", "a-b", {"for_s": 4.0}, 102.0, None),
        row("cut", "link-down", "a-b", {"for_s": 4.0}, 102.0, 106.0),
        row("late", "impair", "b-c", {"loss_ratio": 0.5}, 109.0, None),
    ]


def row(
    fault_id: str, kind: Any, target: str, parameters: dict[str, float], applied_s: float, healed_s: float | None
) -> FaultApplied:
    return FaultApplied(
        fault_id=fault_id,
        kind=kind,
        target=target,
        parameters=parameters,
        intended_s=applied_s,
        applied_s=applied_s,
        verified=True,
        healed_s=healed_s,
        source="schedule",
    )


async def test_a_link_stays_down_over_the_seam_of_two_faults(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    faults = [Fault("1", "link-down", "a-b", at_s=1.0, for_s=1.0), Fault("2", "link-down", "a-b", at_s=2.0, for_s=1.0)]
    await injector.run(faults, epoch_s=0.0)
    assert network.log == [(1.0, "a-b", False), (3.0, "a-b", True)]
    assert [injector.rows[fault_id].healed_s for fault_id in "12"] == [2.0, 3.0]


async def test_link_up_heals_early_and_the_timer_does_not_mind(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    faults = [Fault("1", "link-down", "a-b", at_s=1.0, for_s=10.0), Fault("2", "link-up", "a-b", at_s=3.0)]
    await injector.run(faults, epoch_s=0.0)
    assert network.log == [(1.0, "a-b", False), (3.0, "a-b", True)]
    assert injector.rows["1"].healed_s == 3.0
    assert injector.rows["2"].healed_s is None


async def test_what_is_late_is_applied_at_once(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    autojump_clock.jump(50.0)
    await injector.run([Fault("1", "link-down", "a-b", at_s=1.0)], epoch_s=10.0)
    assert [entry[0] for entry in network.log] == [50.0]
    assert (injector.rows["1"].intended_s, injector.rows["1"].applied_s) == (11.0, 50.0)


@pytest.mark.parametrize("parameters", [{}, {"delay_ms": 9.0}])
@pytest.mark.parametrize("flaw", ["lies", "refuses"])
async def test_a_fault_that_did_not_take_is_not_verified(
    injector: FaultInjector, network: FakeNetwork, flaw: str, parameters: dict[str, float]
) -> None:
    setattr(network, flaw, True)
    kind: Any = "impair" if parameters else "link-down"
    assert not (await injector.apply(Fault("1", kind, "a-b", parameters=parameters))).verified
    setattr(network, flaw, False)
    assert not (await injector.heal("1")).verified  # the healing took, but the fault never did


async def test_a_heal_that_did_not_take_is_not_verified(injector: FaultInjector, network: FakeNetwork) -> None:
    assert (await injector.apply(Fault("1", "link-down", "a-b"))).verified
    network.lies = True
    assert not (await injector.heal("1")).verified


async def test_wrong_hands_change_nothing(injector: FaultInjector, network: FakeNetwork, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no link `a-c`"):
        await injector.apply(Fault("1", "link-down", "a-c"))
    with pytest.raises(InputError, match="is not active"):
        await injector.heal("1")
    assert network.log == []
    assert not (tmp_path / "faults.jsonl").exists()
    await injector.apply(Fault("1", "link-down", "a-b", source="hand"))
    with pytest.raises(InputError, match="that ID is taken"):
        await injector.apply(Fault("1", "link-down", "b-c"))
    await injector.heal("1")
    with pytest.raises(InputError, match="is not active"):
        await injector.heal("1")
    with pytest.raises(InputError, match="that ID is taken"):  # rows are told apart by it
        await injector.apply(Fault("1", "link-down", "b-c"))


async def test_processes_are_killed_and_started_again(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock, tmp_path: Path
) -> None:
    del autojump_clock
    faults = [
        Fault("1", "crash", "d.proxy", at_s=1.0, for_s=2.0),
        Fault("2", "freeze", "a", at_s=2.0, for_s=2.0),
        Fault("3", "disk-loss", "d.proxy", at_s=5.0, for_s=1.0),
        Fault("4", "crash", "d", at_s=7.0),
    ]
    await injector.run(faults, epoch_s=0.0)
    assert network.log == [
        (1.0, "d.proxy", "kill"),
        (2.0, "a.forwarder", "freeze"),
        (3.0, "d.proxy", "restart"),
        (4.0, "a.forwarder", "thaw"),
        (5.0, "d.proxy", "kill"),
        (5.0, "d.proxy", "lose disk"),
        (6.0, "d.proxy", "restart"),
        (7.0, "d.forwarder", "kill"),
        (7.0, "d.proxy", "kill"),
    ]
    assert all(each.verified for each in injector.rows.values())
    assert [injector.rows[fault_id].healed_s for fault_id in "1234"] == [3.0, 4.0, 6.0, None]
    assert rows_in(tmp_path / "faults.jsonl")[0] == row("1", "crash", "d.proxy", {"for_s": 2.0}, 1.0, None)


@pytest.mark.parametrize("flaw", ["lies", "refuses"])
@pytest.mark.parametrize("kind", ["crash", "freeze", "disk-loss"])
async def test_a_process_fault_that_did_not_take_is_not_verified(
    injector: FaultInjector, network: FakeNetwork, flaw: str, kind: Any
) -> None:
    setattr(network, flaw, True)
    assert not (await injector.apply(Fault("1", kind, "d.proxy"))).verified


@pytest.mark.parametrize(
    ("kind", "target", "problem"),
    [
        ("crash", "d.proxi", "has no such node or process"),
        ("freeze", "a-b", "has no such node or process"),
        ("disk-loss", "a", "stores nothing"),
    ],
)
async def test_what_cannot_be_struck_is_refused(
    injector: FaultInjector, network: FakeNetwork, kind: Any, target: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        await injector.apply(Fault("1", kind, target))
    assert network.log == []
    assert "1" not in injector.rows
