"""A random experiment as plain data, in the shape of an experiment file, and its text."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from topologies.catalogue import build
from topologies.model import Link, Node, Topology

#: How many of the networks have parts without a CSR.
EDGE_RATIO: Final = 0.25
#: In how many of the conferences there are objects and live streams.
DATA_RATIO: Final = 0.4
LINK_TRAIT_RATIO: Final = 0.2

#: In the shape of an experiment file (experiments/spec_schema.py), with a list for every table that may stand repeatedly.
Case = dict[str, Any]

SETTLE_S: Final = 30.0  #: after everything has been healed
HEALED_BEFORE_END_S: Final = 0.2
#: A fault shorter than this is left out.
SHORTEST_S: Final = 0.05
_ABILENE_CITIES: Final = (
    *("Seattle", "Sunnyvale", "LosAngeles", "Denver", "KansasCity", "Houston"),
    *("Chicago", "Indianapolis", "Atlanta", "WashingtonDC", "NewYork"),
)


def draw_case(seed: int) -> Case:
    """Return the random experiment that *seed* stands for: the same on every machine and in every process."""
    return _Draw(seed).case()


class _Draw:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(f"hconf fuzz-schedules {seed}")
        #: Apart, so that the other seeds still stand for what they stood for before there were edge networks.
        self.edge_chance = random.Random(f"hconf fuzz-schedules edge {seed}")
        self.link_chance = random.Random(f"hconf fuzz-schedules links {seed}")  # and what links do all the time
        self.data_chance = random.Random(f"hconf fuzz-schedules data {seed}")  # the same of the data plane
        #: And of kinds of faults that came later.
        self.fault_chance = random.Random(f"hconf fuzz-schedules faults {seed}")
        self.duration_s = self.seconds(3.0, 8.0)
        self.topology_table = self.draw_topology()
        if self.edge_chance.random() < EDGE_RATIO:
            self.topology_table |= self.draw_edge_networks()
        self.topology = build(
            self.topology_table["name"], {key: item for key, item in self.topology_table.items() if key != "name"}
        )
        self.faults: list[dict[str, Any]] = []
        self.taken: list[tuple[str, str, str | None, float, float]] = []  # link or node, property, sender, from, to

    def case(self) -> Case:
        case: Case = {
            "experiment": {
                "name": f"fuzz-{self.seed}",
                "duration_s": self.duration_s,
                "seed": self.seed,
                "settle_s": SETTLE_S,
            },
            "topology": self.topology_table,
            "links": {},
            "conference": self.draw_conference(),
        }
        for tier in ("core", "access"):
            if self.chance.random() < 0.5:
                case["links"][tier] = {"delay_ms": self.number(0.5, 30.0)}
                if self.chance.random() < 0.3:
                    case["links"][tier]["jitter_ms"] = self.number(0.1, 10.0)
        if self.chance.random() < 0.5:
            names = [node.name for node in self.topology.nodes]
            case["clocks"] = {"skew_ppm": {name: float(self.chance.randint(-500, 500)) for name in names}}
        case["attendance"] = list(self.draw_attendance())
        case["workload"] = [self.draw_workload() for _ in range(self.chance.randint(1, 3))]
        for _ in range(self.chance.randint(1, 5)):
            self.chance.choice(FAULT_DRAWS)(self)
        if self.data_chance.random() < DATA_RATIO:
            case["workload"] += [self.draw_data() for _ in range(self.data_chance.randint(1, 2))]
        self.draw_homes(case)  # after everything else, so that what a seed drew before there was this it draws still
        self.draw_links(case)
        for _ in range(self.fault_chance.choice((0, 0, 1, 2, 3))):
            self.fault_chance.choice(LATER_FAULT_DRAWS)(self)
        case["fault"] = self.survivable(case["attendance"])
        return case

    def survivable(self, attendance: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the faults that lose nothing by design.

        A proxy UE that has left has handed over what it acked, maybe to one other proxy: `durable` means one disk, and there
        it is that one. Nor has anybody else what the only proxy of a network has acked.
        """
        leaving = {device for section in attendance if "leave_at_s" in section for device in section["devices"]}
        hands_over = not leaving.isdisjoint(self.topology.proxy_ues)
        is_only_disk = hands_over or len(self.topology.proxies) == 1
        return [fault for fault in self.faults if not (is_only_disk and fault["kind"] == "disk-loss")]

    # ------------------------------------------------------------------ what there is

    def draw_topology(self) -> dict[str, Any]:
        kind = self.chance.random()
        if kind < 0.3:
            cities = self.chance.sample(_ABILENE_CITIES, self.chance.randint(2, 4))
            return {"name": "topozoo/Abilene", "csr_nodes": cities, "ues_per_csr": self.chance.randint(1, 2)}
        cores = self.chance.randint(3, 6 if kind < 0.6 else 4)  # a ring, larger or smaller
        return {
            "name": "tiers",
            "cores": cores,
            "csrs": self.chance.randint(1, 4),
            "ues_per_csr": self.chance.randint(1, 3),
        }

    def draw_edge_networks(self) -> dict[str, Any]:
        """Return parameters of networks that one of their UEs serves as sync proxy."""
        chance, table = self.edge_chance, self.topology_table
        count, ues = chance.randint(1, 2), chance.randint(1, 3)
        cities = [city for city in _ABILENE_CITIES if city not in table.get("csr_nodes", ())]
        where = {"edge_networks": count} if table["name"] == "tiers" else {"edge_nodes": chance.sample(cities, count)}
        first = table["ues_per_csr"] * (table["csrs"] if "csrs" in table else len(table["csr_nodes"])) + 1
        proxy_ues = [f"ue{first + index * ues + chance.randrange(ues)}" for index in range(count)]
        return {**where, "ues_per_edge_network": ues, "proxy_ues": proxy_ues}

    def draw_conference(self) -> dict[str, Any]:
        conference: dict[str, Any] = {"mode": self.chance.choice(("hybrid", "hybrid", "push", "pull"))}
        for key, choices in (
            ("history_max_entries", (5, 20, 100)),
            ("armed_max", (1, 4, 32)),
            ("cs_max_entries", (0, 10, 4096)),
            ("window_max", (1, 8, 64)),
            ("sync_interest_lifetime_s", (0.5, 2.0)),
            ("announce", ("at-first-update",)),
        ):
            if self.chance.random() < 0.25:
                conference[key] = self.chance.choice(choices)
        return conference

    def draw_attendance(self) -> Iterator[dict[str, Any]]:
        for ue in self.topology.ues:
            if self.chance.random() < 0.2:
                section: dict[str, Any] = {"devices": [ue]}
                if self.chance.random() < 0.6:
                    section["join_at_s"] = self.seconds(0.0, self.duration_s - 1.0)
                if "join_at_s" not in section or self.chance.random() < 0.3:
                    section["leave_at_s"] = self.seconds(section.get("join_at_s", 0.0) + 0.3, self.duration_s - 0.2)
                yield section
            elif ue in self.topology.proxy_ues and self.edge_chance.random() < 0.5:
                yield {"devices": [ue], "leave_at_s": round(self.edge_chance.uniform(0.5, self.duration_s - 0.2), 2)}

    def draw_workload(self) -> dict[str, Any]:
        workload: dict[str, Any] = {
            "kind": self.chance.choice(("poisson", "constant")),
            "rate_per_s": round(10 ** self.chance.uniform(-0.3, 1.2), 1),
            "size_bytes": self.chance.choice((0, 50, 200, 1_000)),
        }
        if self.chance.random() < 0.6:
            ues = self.topology.ues
            workload["publishers"] = self.chance.sample(ues, self.chance.randint(1, len(ues)))
        return workload

    def draw_data(self) -> dict[str, Any]:
        """Return a workload of the data plane."""
        chance = self.data_chance
        workload: dict[str, Any] = {"kind": "media", "frames_per_s": chance.choice((5.0, 20.0)), "frame_bytes": 200}
        if chance.random() < 0.6:
            size_bytes = chance.choice((1, 4_000, 50_000, 600_000))
            workload = {"kind": "objects", "size_bytes": size_bytes}
            if size_bytes < 100_000 and chance.random() < 0.5:
                workload["every_s"] = round(chance.uniform(0.3, 2.0), 2)
        workload["start_s"] = round(chance.uniform(0.0, self.duration_s / 2), 2)
        workload["publishers"] = [chance.choice(self.topology.ues)]
        return workload

    def draw_links(self, case: Case) -> None:
        """Give links of a tier what they have all the time beside delay and jitter, sometimes in one direction only."""
        chance = self.link_chance
        for tier, sender in (("core", None), ("access", chance.choice((None, "ue", "csr")))):
            if chance.random() > LINK_TRAIT_RATIO:
                continue
            traits = [
                {"jitter_ms": 3.0, "jitter_distribution": "normal"},
                {"jitter_ms": round(chance.uniform(1.0, 10.0), 3), "jitter_keeps_order": False},
                {
                    "good_to_bad_ratio": round(chance.uniform(0.001, 0.02), 4),
                    "bad_to_good_ratio": round(chance.uniform(0.1, 0.5), 3),
                    "bad_loss_ratio": round(chance.uniform(0.5, 1.0), 3),
                },
                {"duplicate_ratio": 0.05, "reorder_ratio": 0.05, "late_max_ms": round(chance.uniform(0.0, 30.0), 1)},
                {"corrupt_ratio": round(chance.uniform(0.001, 0.03), 4)},
                {"rate_mbps": 20.0, "queue_bytes": chance.randint(10_000, 100_000)},
                {"mtu_bytes": chance.choice((576, 1_280, 9_000))},
            ]
            table = case["links"].setdefault(tier, {})
            for trait in chance.sample(traits, chance.randint(1, 2)):
                if sender is None:
                    table |= trait
                else:
                    table.setdefault("from", {}).setdefault(sender, {}).update(trait)

    def draw_homes(self, case: Case) -> None:
        """Give UEs further links, some of which fail, and let clients that had to move return soon."""
        csrs, several, soon = len(self.topology.csrs), self.chance.random() < 0.3, self.chance.random() < 0.4
        if soon:
            case["conference"]["return_hold_down_s"] = self.chance.choice((0.05, 0.5, 2.0))
            case["conference"]["return_hold_down_max_s"] = self.chance.choice((2.0, 10.0))
        if several and csrs > 1:
            self.topology_table["ue_links"] = self.chance.randint(2, min(3, csrs))
            self.topology = topology_of(case)
            for _ in range(self.chance.randint(0, 2)):
                self.chance.choice((_Draw.access_down, _Draw.csr_crash))(self)

    # ------------------------------------------------------------------ what breaks

    def link_down(self) -> None:
        self.add("link-down", self.link(), *self.span())

    def flap(self) -> None:
        """A link goes down and comes back, several times."""
        link, at_s = self.link(), self.seconds(0.1, self.duration_s / 2)
        for _ in range(self.chance.randint(2, 5)):
            for_s = self.seconds(0.05, 0.6)
            self.add("link-down", link, at_s, for_s)
            at_s = round(at_s + for_s + self.seconds(0.05, 0.6), 3)

    def black_hole(self) -> None:
        """A link silently loses everything, in one direction or both."""
        link = self.link()
        self.impair(link, *self.span(), sender=self.chance.choice((None, link.a, link.b)), loss_ratio=1.0)

    def partition(self) -> None:
        """All links between two parts of the routers go down or silent, for the same time."""
        routers = {node.name for node in self.topology.nodes if node.role in ("core", "csr")}
        some = set(self.chance.sample(sorted(routers), self.chance.randint(1, len(routers) - 1)))
        at_s, for_s = self.span()
        silent, one_way = self.chance.random() < 0.4, self.chance.random() < 0.3
        for link in self.topology.links:
            if {link.a, link.b} <= routers and (link.a in some) != (link.b in some):
                if silent:
                    inside = link.a if link.a in some else link.b
                    self.impair(link, at_s, for_s, sender=inside if one_way else None, loss_ratio=1.0)
                else:
                    self.add("link-down", link, at_s, for_s)

    def loss(self) -> None:
        self.somewhere(loss_ratio=self.number(0.01, 0.2))

    def jitter(self) -> None:
        self.somewhere(jitter_ms=self.number(1.0, 30.0))

    def duplication(self) -> None:
        self.somewhere(duplicate_ratio=self.number(0.01, 0.3))

    def reordering(self) -> None:
        self.somewhere(reorder_ratio=self.number(0.01, 0.3))

    def corruption(self) -> None:
        self.somewhere(corrupt_ratio=self.number(0.01, 0.2))

    def delay(self) -> None:
        """A link becomes slower, or faster."""
        self.impair(self.link(), *self.span(), delay_ms=self.number(0.1, 80.0))

    def crash(self) -> None:
        """A process ends without warning and is started again: a service proxy, a router, or the login server.

        Of a UE only the service proxy, if it has one: its client does not come back.
        """
        node = self.chance.choice([node for node in self.topology.nodes if node.role != "ue" or node.is_proxy])
        process = self.chance.choice(("", ".forwarder", ".proxy")) if node.role == "csr" else ""
        self.strike("crash", node, ".proxy" if node.is_proxy else process)

    def access_down(self) -> None:
        """An access link of some UE goes down."""
        links = [link for link in self.topology.links if link.tier == "access"]
        self.add("link-down", self.chance.choice(links), *self.span())

    def csr_crash(self) -> None:
        """All processes of a CSR end without warning and are started again."""
        self.strike("crash", self.topology.node(self.chance.choice(self.topology.csrs)), "")

    def disk_loss(self) -> None:
        """A service proxy crashes, and comes back with nothing."""
        self.strike("disk-loss", self.topology.node(self.chance.choice(self.topology.proxies)), ".proxy")

    def freeze(self) -> None:
        """A process, of whatever node, does nothing for a while."""
        node = self.chance.choice(self.topology.nodes)
        self.strike("freeze", node, self.chance.choice(("", ".forwarder", ".proxy")) if node.runs_proxy else "")

    # ------------------------------------------------------------------ what breaks, of later kinds

    def flapping(self) -> None:
        chance, at_s, for_s = self.fault_chance, *self.later_span()
        period_s = round(chance.uniform(0.1, 1.0), 2)
        self.cut(
            "flap",
            chance.choice(self.topology.links).name,
            at_s,
            for_s,
            period_s=period_s,
            down_ratio=chance.choice((0.25, 0.5, 0.8)),
        )

    def swallowing(self) -> None:
        link = self.fault_chance.choice(self.topology.links)
        sender = self.fault_chance.choice((None, link.a, link.b))
        one_way: dict[str, Any] = {} if sender is None else {"sender": sender}
        self.cut("black-hole", link.name, *self.later_span(), **one_way)

    def parting(self) -> None:
        routers = [node.name for node in self.topology.nodes if node.role in ("core", "csr")]
        groups = self.fault_chance.sample(routers, self.fault_chance.randint(1, len(routers) - 1))
        self.cut("partition", ",".join(groups), *self.later_span(), silent=self.fault_chance.random() < 0.5)

    def isolation(self) -> None:
        node = self.fault_chance.choice(self.topology.nodes).name
        self.cut("isolate", node, *self.later_span(), silent=self.fault_chance.random() < 0.5)

    def ramp(self) -> None:
        link, (at_s, for_s) = self.fault_chance.choice(self.topology.links), self.later_span()
        delay_ms = round(self.fault_chance.uniform(1.0, 60.0), 1)
        self.impair(link, at_s, for_s, delay_ms=delay_ms, ramp_s=round(for_s * 0.8, 3))

    def starvation(self) -> None:
        node = self.fault_chance.choice(self.topology.nodes)
        at_s, for_s = self.later_span()
        ratio = self.fault_chance.choice((0.05, 0.2, 0.6))
        self.cut("starve", node.name, at_s, for_s, cpu_ratio=ratio, period_ms=self.fault_chance.choice((20.0, 100.0)))

    def message_fault(self) -> None:
        """Packets are dropped, delayed, duplicated, corrupted or replayed, of some type or any, on some links or all."""
        chance, at_s, for_s = self.fault_chance, *self.later_span()
        kind, more = chance.choice(_MESSAGE_DRAWS)
        target = chance.choice(("*", chance.choice(self.topology.links).name, chance.choice(self.topology.nodes).name))
        message = chance.choice(
            (None, None, "sync-update", "push", "heartbeat,face-heartbeat", "update,update-ack", "notification")
        )
        fault = {"at_s": at_s, "for_s": for_s, "kind": kind, "target": target, **more}
        fault["ratio"] = round(
            chance.choice((0.02, 0.1, 0.5)) if message is None else chance.choice((0.1, 0.5, 1.0)), 2
        )
        if message is not None:
            fault["message"] = message
        if chance.random() < 0.3:
            fault["count"] = chance.randint(1, 10)
        if for_s >= SHORTEST_S:
            self.faults.append(fault)

    def later_span(self) -> tuple[float, float]:
        """Return a moment, and how long from then on, as `span` does."""
        at_s = round(self.fault_chance.uniform(0.1, self.duration_s - 1.0), 2)
        most_s = self.duration_s - HEALED_BEFORE_END_S - at_s
        return at_s, round(min(10 ** self.fault_chance.uniform(-1.0, 0.6), most_s), 3)

    def cut(self, kind: str, target: str, at_s: float, for_s: float, **parameters: Any) -> None:  # noqa: ANN401
        """Add a fault, unless the same is done to its target then."""
        for taken, what, _, from_s, to_s in self.taken:
            if (taken, what) == (target, kind) and at_s <= to_s and at_s + for_s >= from_s:
                return
        if for_s >= SHORTEST_S:
            self.taken.append((target, kind, None, at_s, at_s + for_s))
            self.faults.append({"at_s": at_s, "for_s": for_s, "kind": kind, "target": target, **parameters})

    # ------------------------------------------------------------------ helpers

    def strike(self, kind: str, node: Node, process: str) -> None:
        """Add a fault of one process, or of all of a node, unless the node suffers from another at that time."""
        at_s, for_s = self.span()
        if for_s >= 0.01 and not any(
            taken == node.name and at_s <= to_s and at_s + for_s >= from_s for taken, _, _, from_s, to_s in self.taken
        ):
            self.taken.append((node.name, "process", None, at_s, at_s + for_s))
            self.faults.append({"at_s": at_s, "for_s": for_s, "kind": kind, "target": node.name + process})

    def somewhere(self, **parameters: Any) -> None:  # noqa: ANN401
        """Impair one link, or all of them."""
        at_s, for_s = self.span()
        for link in self.topology.links if self.chance.random() < 0.4 else (self.link(),):
            self.impair(link, at_s, for_s, **parameters)

    def impair(self, link: Link, at_s: float, for_s: float, *, sender: str | None = None, **parameters: float) -> None:
        self.add("impair", link, at_s, for_s, **parameters, **({} if sender is None else {"sender": sender}))

    def add(self, kind: str, link: Link, at_s: float, for_s: float, **parameters: Any) -> None:  # noqa: ANN401
        """Add a fault, unless one of the same kind is in its way or it would last too long."""
        sender = parameters.get("sender")
        properties = [name for name in parameters if name != "sender"] or [kind]
        for_s = round(min(for_s, self.duration_s - HEALED_BEFORE_END_S - at_s), 3)
        if for_s < 0.01:
            return
        for taken_link, taken, taken_sender, from_s, to_s in self.taken:
            same_way = sender is None or taken_sender in (None, sender)
            if taken_link == link.name and taken in properties and same_way and at_s <= to_s and at_s + for_s >= from_s:
                return
        self.taken += [(link.name, name, sender, at_s, at_s + for_s) for name in properties]
        self.faults.append({"at_s": at_s, "for_s": for_s, "kind": kind, "target": link.name, **parameters})

    def link(self) -> Link:
        return self.chance.choice(self.topology.links)

    def span(self) -> tuple[float, float]:
        """Return a moment, and how long from then on; short ones are as likely as long ones."""
        at_s = self.seconds(0.1, self.duration_s - 1.0)
        return at_s, round(min(10 ** self.chance.uniform(-1.3, 0.8), self.duration_s - HEALED_BEFORE_END_S - at_s), 3)

    def seconds(self, low: float, high: float) -> float:
        return round(self.chance.uniform(low, high), 2)

    def number(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform."""
        return round(math.exp(self.chance.uniform(math.log(low), math.log(high))), 3)


FAULT_DRAWS: Final[tuple[Callable[[_Draw], None], ...]] = (
    *(_Draw.link_down, _Draw.flap, _Draw.black_hole, _Draw.partition, _Draw.loss, _Draw.jitter),
    *(_Draw.duplication, _Draw.reordering, _Draw.corruption, _Draw.delay),
    *(_Draw.crash, _Draw.crash, _Draw.disk_loss, _Draw.freeze, _Draw.freeze),
)


#: Kinds of message faults, with what each needs. Nothing is forged: what is let in by a forger who has keys is no matter of faults.
_MESSAGE_DRAWS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("drop", {}),
    ("delay", {"delay_ms": 40.0}),
    ("delay", {"delay_ms": 700.0}),
    ("duplicate", {"times": 2}),
    ("corrupt", {"bits": 1}),
    ("corrupt", {"bits": 20}),
    ("corrupt", {"checksum": "wrong"}),
    ("replay", {"after_ms": 150.0}),
    ("replay", {"after_ms": 1_500.0, "times": 2, "every_ms": 100.0}),
)

LATER_FAULT_DRAWS: Final[tuple[Callable[[_Draw], None], ...]] = (
    *(_Draw.flapping, _Draw.swallowing, _Draw.parting, _Draw.isolation, _Draw.ramp, _Draw.starvation),
    *(_Draw.message_fault, _Draw.message_fault, _Draw.message_fault),
)


def topology_of(case: Case) -> Topology:
    """Return the network of a case. Raises: InputError where its parameters do not fit together."""
    table = case["topology"]
    return build(table["name"], {key: item for key, item in table.items() if key != "name"})
