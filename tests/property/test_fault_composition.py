"""Whatever is applied and healed in whatever order: what the effects make of a link is what its active faults ask for."""

import dataclasses
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.faults.composition import ActiveFaults, Change, SetBlocked, SetCarrier, SetTargets
from testbed.faults.model import Fault
from testbed.links.model import DIRECTIONS, Direction
from testbed.links.netem.match import Match
from topologies.model import Link, LinkProperties, Node, Topology

TOPOLOGY = Topology(
    "ring",
    tuple(Node(name, "core") for name in "abc"),
    (
        Link.between("a", "b", "core", LinkProperties(delay_ms=4.0)),
        Link.between("b", "c", "core", LinkProperties(delay_ms=1.0, loss_ratio=0.1)),
        Link.between("a", "c", "core", LinkProperties(jitter_ms=2.0)),
    ),
)
LINKS = {link.name: link for link in TOPOLOGY.links}
#: target of a partition -> the links that it cuts
CUTS = {"a": {"a-b", "a-c"}, "a,b": {"b-c", "a-c"}, "a/b/c": {"a-b", "b-c", "a-c"}, "c,a/b": {"a-b", "b-c"}}

#: the last is what fits the first two
MATCHES = ["udp", "src 10.0.0.0/24", "icmp", "udp src 10.0.0.0/24"]

links = st.sampled_from(sorted(LINKS))
parameters = st.dictionaries(
    st.sampled_from(["delay_ms", "loss_ratio", "jitter_ms"]), st.sampled_from([0.0, 0.5, 1.0]), min_size=1
)


class AnyFaults(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.faults = ActiveFaults(TOPOLOGY)
        self.carrier = dict.fromkeys(LINKS, True)  # what the effects have made of the network
        self.blocked = dict.fromkeys(LINKS, frozenset[Direction]())
        self.properties = {(name, way): link.properties for name, link in LINKS.items() for way in DIRECTIONS}
        self.targets: dict[tuple[str, Direction], dict[Match, LinkProperties]] = {
            (name, way): {} for name in LINKS for way in DIRECTIONS
        }
        self.model: list[Fault] = []  # what is in force, in the order applied
        self.phase: dict[str, int] = {}
        self.start: dict[tuple[str, Direction], LinkProperties] = {}  # of a ramp
        self.applied = 0

    def carry_out(self, change: Change) -> None:
        for effect in change.effects:
            assert effect.link in change.links
            match effect:
                case SetCarrier(link, up):
                    assert self.carrier[link] is not up  # an effect changes something
                    self.carrier[link] = up
                case SetBlocked(link, directions):
                    assert self.blocked[link] != directions
                    self.blocked[link] = directions
                case SetTargets(link, way, targets):
                    assert self.targets[link, way] != targets
                    self.targets[link, way] = dict(targets)
                case _:
                    ways = DIRECTIONS if effect.direction is None else (effect.direction,)
                    assert any(self.properties[effect.link, way] != effect.properties for way in ways)
                    self.properties |= {(effect.link, way): effect.properties for way in ways}

    def apply(self, **arguments: Any) -> None:
        self.applied += 1
        fault = Fault(str(self.applied), **arguments)
        self.start |= {
            (fault.fault_id, way): self.properties.get((fault.target, way), LinkProperties()) for way in DIRECTIONS
        }
        self.model.append(fault)
        self.phase[fault.fault_id] = 0
        self.carry_out(self.faults.apply(fault))

    @rule(link=links)
    def take_down(self, link: str) -> None:
        self.apply(kind="link-down", target=link)

    @rule(link=links)
    def flap(self, link: str) -> None:
        self.apply(kind="flap", target=link, for_s=60.0, parameters={"period_s": 1.0, "down_ratio": 0.5})

    @rule(link=links, one_way=st.sampled_from([None, 0, 1]))
    def swallow(self, link: str, one_way: int | None) -> None:
        self.apply(kind="black-hole", target=link, sender=None if one_way is None else link.split("-")[one_way])

    @rule(groups=st.sampled_from(sorted(CUTS)), silent=st.booleans())
    def part(self, groups: str, *, silent: bool) -> None:
        self.apply(kind="partition", target=groups, parameters={"silent": silent})

    @rule(node=st.sampled_from("abc"), silent=st.booleans())
    def isolate(self, node: str, *, silent: bool) -> None:
        self.apply(kind="isolate", target=node, parameters={"silent": silent})

    @rule(link=links, changed=parameters, one_way=st.sampled_from([None, 0, 1]), ramp_s=st.sampled_from([None, 0.2]))
    def impair(self, link: str, changed: dict[str, float], one_way: int | None, ramp_s: float | None) -> None:
        ramp = {} if ramp_s is None else {"ramp_s": ramp_s}
        sender = None if one_way is None else link.split("-")[one_way]
        self.apply(kind="impair", target=link, parameters=changed | ramp, sender=sender)

    @rule(link=links, changed=parameters, one_way=st.sampled_from([None, 0, 1]), match=st.sampled_from(MATCHES))
    def impair_some(self, link: str, changed: dict[str, float], one_way: int | None, match: str) -> None:
        sender = None if one_way is None else link.split("-")[one_way]
        self.apply(kind="impair", target=link, parameters={**changed, "match": match}, sender=sender)

    @precondition(lambda self: any(fault.kind == "flap" or fault.ramp_steps for fault in self.model))
    @rule(data=st.data())
    def advance(self, data: st.DataObject) -> None:
        changing = [fault for fault in self.model if fault.kind == "flap" or fault.ramp_steps]
        fault_id = data.draw(st.sampled_from(changing)).fault_id
        self.phase[fault_id] += 1
        self.carry_out(self.faults.advance(fault_id, self.phase[fault_id]))

    @precondition(lambda self: any(fault.kind == "link-down" for fault in self.model))
    @rule(data=st.data())
    def take_up(self, data: st.DataObject) -> None:
        link = data.draw(st.sampled_from([fault.target for fault in self.model if fault.kind == "link-down"]))
        over = [fault for fault in self.model if fault.kind == "link-down" and fault.target == link]
        self.model = [fault for fault in self.model if fault not in over]
        self.applied += 1
        change = self.faults.apply(Fault(str(self.applied), "link-up", link))
        assert change.healed == tuple(fault.fault_id for fault in over)
        self.carry_out(change)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def heal(self, data: st.DataObject) -> None:
        fault = data.draw(st.sampled_from(self.model))
        self.model.remove(fault)
        self.carry_out(self.faults.heal(fault.fault_id))

    @precondition(lambda self: len(self.model) > 2)
    @rule(data=st.data())
    def heal_all(self, data: st.DataObject) -> None:
        for fault in data.draw(st.permutations(self.model)):
            self.carry_out(self.faults.heal(fault.fault_id))
        self.model.clear()
        assert all(self.carrier.values())
        assert not any(self.blocked.values())
        assert not any(self.targets.values())
        assert all(self.properties[name, way] == link.properties for name, link in LINKS.items() for way in DIRECTIONS)

    @invariant()
    def the_network_is_what_the_faults_ask_for(self) -> None:
        for name, link in LINKS.items():
            here = [fault for fault in self.model if name in struck(fault)]
            assert self.carrier[name] is not any(
                fault.kind == "link-down"
                or (fault.kind == "flap" and self.phase[fault.fault_id] % 2 == 0)
                or (fault.kind in ("partition", "isolate") and not fault.parameters["silent"])
                for fault in here
            )
            for way, sender in zip(DIRECTIONS, (link.a, link.b), strict=True):
                assert (way in self.blocked[name]) is any(
                    (fault.kind == "black-hole" and fault.sender in (None, sender)) or fault.parameters.get("silent")
                    for fault in here
                )
                assert self.properties[name, way] == self.wanted(link, way, sender, here)
                for match, found in self.targets[name, way].items():
                    assert found == self.wanted(link, way, sender, here, of=match)
                asked = {fault.match for fault in here if fault.match and fault.sender in (None, sender)}
                assert asked <= set(self.targets[name, way])
                assert bool(asked) is bool(self.targets[name, way])

    def wanted(
        self, link: Link, way: Direction, sender: str, here: list[Fault], *, of: Match | None = None
    ) -> LinkProperties:
        wanted = link.properties
        for fault in here:
            if fault.kind != "impair" or fault.sender not in (None, sender):
                continue
            if fault.match is not None and (of is None or fault.match.both(of) != of):
                continue
            changed = {name: value for name, value in fault.parameters.items() if name not in ("ramp_s", "match")}
            done, steps = self.phase[fault.fault_id], fault.ramp_steps
            if done < steps:
                begun_at = self.start[fault.fault_id, way]
                changed = {
                    name: getattr(begun_at, name) + (value - getattr(begun_at, name)) * done / steps
                    for name, value in changed.items()
                }
            wanted = dataclasses.replace(wanted, **changed)
        return wanted


def struck(fault: Fault) -> set[str]:
    if fault.kind == "partition":
        return CUTS[fault.target]
    if fault.kind == "isolate":
        return {name for name in LINKS if fault.target in name.split("-")}
    return {fault.target}


TestAnyFaults = AnyFaults.TestCase
TestAnyFaults.settings = settings(max_examples=200, stateful_step_count=30)
