import dataclasses
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from testbed.faults.injector import FaultInjector
from testbed.faults.model import Fault, FaultApplied
from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.faults.targets import ProcessState
from testbed.links.model import Direction, Impairment
from testbed.links.netem.match import Match
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
        self.blocked = {link.name: frozenset[Direction]() for link in LINKS}
        self.starved: dict[str, float] = {}
        self.ran_ratio = 0.5  #: of what is starved, however it was to be
        self.rules: dict[str, RuleReport] = {}
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

    async def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        await trio.lowlevel.checkpoint()
        self._tell(link, sorted(directions))
        if not self.lies:
            self.blocked[link] = frozenset(directions)

    async def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> Mapping[Match, Impairment]:
        await trio.lowlevel.checkpoint()
        self._tell(link, (direction, dict(targets)))
        return {} if self.lies else targets

    async def read_blocked(self, link: str) -> frozenset[Direction]:
        await trio.lowlevel.checkpoint()
        return self.blocked[link]

    async def starve_process(self, process: str, cpu_ratio: float, period_ms: float) -> None:
        await trio.lowlevel.checkpoint()
        self._tell(process, (cpu_ratio, period_ms))
        self.starved[process] = cpu_ratio

    async def feed_process(self, process: str) -> float:
        await trio.lowlevel.checkpoint()
        self._tell(process, "feed")
        del self.starved[process]
        return self.ran_ratio

    async def add_message_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        await trio.lowlevel.checkpoint()
        self._tell(rule.fault_id, (rule.action, list(lanes)))
        report = RuleReport(fault_id=rule.fault_id, lanes=0 if self.lies else len(lanes))
        self.rules[rule.fault_id] = report
        return report

    async def report_message_rule(self, fault_id: str) -> RuleReport:
        await trio.lowlevel.checkpoint()
        return self.rules[fault_id]

    async def remove_message_rule(self, fault_id: str) -> RuleReport:
        await trio.lowlevel.checkpoint()
        self._tell(fault_id, "remove")
        return self.rules.pop(fault_id)

    async def inject_packet(self, link: str, direction: Direction, packet: str) -> bool:
        await trio.lowlevel.checkpoint()
        self._tell(link, (direction, packet))
        return self.carrier[link]

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
        healed_by="" if healed_s is None else "schedule",
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
    assert injector.rows["1"].healed_by == "2"
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


async def test_a_flap_a_ramp_and_an_injection_take_their_steps(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    faults = [
        Fault("1", "flap", "a-b", at_s=1.0, parameters={"period_s": 0.5, "down_ratio": 0.2, "count": 2}),
        Fault("2", "impair", "b-c", at_s=3.0, for_s=1.0, parameters={"delay_ms": 5.0, "ramp_s": 0.2}),
        Fault(
            "3", "inject", "c-b", at_s=5.0, sender="c", parameters={"hex": ["05", "06"], "times": 2, "every_ms": 100.0}
        ),
    ]
    await injector.run(faults, epoch_s=0.0)
    told = [
        (at_s, link, what if isinstance(what, bool | tuple) else what["delay_ms"]) for at_s, link, what in network.log
    ]
    assert told == [
        (1.0, "a-b", False),
        (1.1, "a-b", True),
        (1.5, "a-b", False),
        (pytest.approx(1.6), "a-b", True),
        (3.1, "b-c", 3.0),
        (3.2, "b-c", 5.0),
        (4.0, "b-c", 1.0),
        *((at_s, "b-c", ("b_to_a", packet)) for at_s in (5.0, 5.1) for packet in ("05", "06")),
    ]
    assert all(each.verified for each in injector.rows.values())
    assert [injector.rows[fault_id].healed_s for fault_id in "123"] == [2.0, 4.0, 5.1]
    assert injector.rows["3"].packets_hit == 4


async def test_a_flap_that_a_hand_ends_flaps_no_more(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    flap = Fault("1", "flap", "a-b", parameters={"period_s": 1.0, "down_ratio": 0.5, "count": 9})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(injector.run, [flap], epoch_s=0.0))
        await trio.sleep(1.2)
        assert (await injector.heal("1")).healed_by == "hand"
    assert network.log[-1] == (1.2, "a-b", True)
    assert injector.rows["1"].verified


async def test_a_flap_that_sticks_is_not_verified(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    steps = injector.timeline(
        [Fault("1", "flap", "a-b", parameters={"period_s": 1.0, "down_ratio": 0.5, "count": 1})], epoch_s=0.0
    )
    await injector.take(steps[0])
    network.lies = True
    await injector.take(steps[1])
    network.lies = False
    await injector.take(steps[2])
    assert not injector.rows["1"].verified
    assert injector.rows["1"].detail == "the carrier of a-b is not up at both ends"


async def test_a_black_hole_is_read_back(injector: FaultInjector, network: FakeNetwork) -> None:
    assert (await injector.apply(Fault("1", "black-hole", "b-a", sender="b"))).verified
    assert network.blocked["a-b"] == {"b_to_a"}
    network.lies = True
    assert not (await injector.apply(Fault("2", "isolate", "b", parameters={"silent": True}))).verified
    assert injector.rows["2"].detail == "a-b does not swallow what it should"


async def test_an_impairment_of_some_frames_is_read_back(injector: FaultInjector, network: FakeNetwork) -> None:
    chosen = {"delay_ms": 80.0, "match": "udp dst-port 6363"}
    row = await injector.apply(Fault("1", "impair", "b-a", parameters=chosen, sender="b"))
    assert row.verified
    assert row.parameters == {**chosen, "sender": "b"}
    wanted = {Match("udp", dst_port=6363): Impairment(delay_ms=80.0)}
    assert network.log[-1][1:] == ("a-b", ("b_to_a", wanted))
    assert (await injector.heal("1")).verified
    assert network.log[-1][1:] == ("a-b", ("b_to_a", {}))
    network.lies = True
    assert not (await injector.apply(Fault("2", "impair", "a-b", parameters=chosen))).verified
    assert injector.rows["2"].detail == "a-b does not impair the frames that it should"


async def test_who_was_starved_must_have_been(injector: FaultInjector, network: FakeNetwork) -> None:
    starve = {"cpu_ratio": 0.5, "period_ms": 20.0}
    assert (await injector.apply(Fault("1", "starve", "d", parameters=starve))).verified
    assert network.starved == {"d.forwarder": 0.5, "d.proxy": 0.5}
    assert (await injector.heal("1")).verified
    await injector.apply(Fault("2", "starve", "a", parameters=starve))
    network.ran_ratio = 0.9
    assert not (await injector.heal("2")).verified
    assert injector.rows["2"].detail == "a.forwarder could run 90% of the time, not 50%"


@pytest.mark.parametrize(
    ("report", "verified", "detail"),
    [
        ({"matched": 5, "hit": 2}, True, ""),
        ({"matched": 5}, True, ""),  # a ratio may spare all of them
        ({}, False, "no packet that it was meant for came by"),
        (
            {"errors": 3, "last_error": "KeyError: 'x'"},
            False,
            "the predicate failed on 3 packets, the last time with KeyError: 'x'",
        ),
    ],
)
async def test_a_message_fault_that_met_nothing_did_not_take(
    injector: FaultInjector,
    network: FakeNetwork,
    report: dict[str, Any],
    verified: bool,  # noqa: FBT001
    detail: str,
) -> None:
    fault = Fault("1", "drop", "b", sender="b", parameters={"message": "push, heartbeat"})
    assert (await injector.apply(fault)).verified
    assert network.log[-1][2] == ("drop", [("a-b", "b_to_a"), ("b-c", "a_to_b")])
    network.rules["1"] = RuleReport(fault_id="1", lanes=2, **report)
    await injector.finish()
    assert (injector.rows["1"].verified, injector.rows["1"].healed_s) == (verified, None)
    row = await injector.heal("1")
    assert (row.verified, row.detail) == (verified, detail)
    assert (row.packets_matched, row.packets_hit) == (report.get("matched", 0), report.get("hit", 0))


async def test_a_message_fault_is_over_when_it_has_hit_as_many_as_it_was_to(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    await injector.apply(Fault("1", "drop", "*", parameters={"count": 2}))
    network.rules["1"] = RuleReport(fault_id="1", matched=2, hit=2, exhausted_s=7.0)
    await injector.finish()
    assert (injector.rows["1"].healed_s, injector.rows["1"].healed_by) == (7.0, "count")


@pytest.mark.parametrize("kind", ["black-hole", "isolate", "partition", "drop", "starve", "restart"])
async def test_no_kind_of_fault_is_verified_where_the_network_refuses(
    injector: FaultInjector, network: FakeNetwork, kind: Any
) -> None:
    network.refuses = True
    target = {"black-hole": "a-b", "drop": "*"}.get(kind, "d")
    parameters = {"cpu_ratio": 0.5, "period_ms": 20.0} if kind == "starve" else {}
    row = await injector.apply(Fault("1", kind, target, parameters=parameters))
    assert not row.verified
    assert "will not" in row.detail


async def test_what_a_schedule_finds_done_already_is_no_failure(
    injector: FaultInjector, network: FakeNetwork, autojump_clock: MockClock
) -> None:
    del autojump_clock
    faults = [Fault("1", "link-up", "a-b", at_s=1.0), Fault("2", "thaw", "a", at_s=1.0)]
    await injector.run(faults, epoch_s=0.0)
    assert network.log == []
    assert [row.verified for row in injector.rows.values()] == [True, True]
    assert injector.rows["1"].detail == "a-b is not down by a link-down"


async def test_thaw_and_restart_end_what_they_are_for(injector: FaultInjector, network: FakeNetwork) -> None:
    await injector.apply(Fault("1", "freeze", "a"))
    assert (await injector.apply(Fault("2", "thaw", "a"))).verified
    await injector.apply(Fault("3", "crash", "d.proxy"))
    assert (await injector.apply(Fault("4", "restart", "d"))).verified
    assert [what for _, _, what in network.log] == ["freeze", "thaw", "kill", "kill", "restart", "restart"]
    assert [injector.rows[fault_id].healed_by for fault_id in "13"] == ["2", "4"]
    await injector.apply(Fault("5", "freeze", "d"))
    with pytest.raises(InputError, match="5 has struck all of d"):
        await injector.apply(Fault("6", "thaw", "d.proxy"))
