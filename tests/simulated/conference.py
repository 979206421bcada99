"""A conference over a simulated network, and the judge: the same checker that judges emulated runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from experiments.checker import check_invariants
from experiments.history import History
from proxy.config import Announce
from proxy.core.events import LOCAL_FACE, CarrierChanged, CloseRequested, JoinRequested, PublishRequested
from proxy.driver.status import reported_state
from proxy.records import (
    Acked,
    Applied,
    CountersReported,
    FaceChanged,
    Granted,
    PeerChanged,
    Published,
    Revoked,
    ServiceChanged,
    SessionChanged,
    SnapshotApplied,
    StateReported,
)
from testbed.plan import PROXYLESS_MODES, Mode, NetworkPlan
from testbed.routing import path_delays_ms
from testbed.simulation.network import SimulatedNetwork
from topologies.catalogue import build
from topologies.model import Topology

R = TypeVar("R")

#: Everybody is given so long to join, and to agree after the last event.
JOIN_LIMIT_S = 10.0
QUIESCE_LIMIT_S = 30.0

ABILENE = ("topozoo/Abilene", {"csrs": 4, "ues_per_csr": 3})
SMALL_ABILENE = ("topozoo/Abilene", {"csrs": 4, "ues_per_csr": 1})
TIERS = ("tiers", {"cores": 4, "csrs": 4, "ues_per_csr": 2})
#: ue1 to ue4 behind two CSRs; ue5 to ue7 in a network that ue5 serves.
EDGE = ("tiers", {"cores": 4, "csrs": 2, "ues_per_csr": 2, "edge_networks": 1, "ues_per_edge_network": 3})


class Conference:
    """One simulated network with its devices; times are in seconds, virtual."""

    def __init__(
        self,
        topology: tuple[str, Mapping[str, Any]] | Topology = TIERS,
        *,
        mode: Mode = "hybrid",
        seed: int = 7,
        proxy_settings: Mapping[str, Any] | None = None,
        client_settings: Mapping[str, Any] | None = None,
        forwarder_settings: Mapping[str, Any] | None = None,
        login_settings: Mapping[str, Any] | None = None,
        conferences: Mapping[str, str] | None = None,
        sync_settings: Mapping[str, Any] | None = None,
        focus: str = "csr1",
        announce: Announce = "at-join",
    ) -> None:
        self.announce = announce
        self.topology = topology if isinstance(topology, Topology) else build(*topology)
        if mode in PROXYLESS_MODES:
            self.topology = self.topology.served_by(())
        elif mode == "central":
            self.topology = self.topology.served_by([focus])
        self.network = SimulatedNetwork(
            NetworkPlan(
                "simulated",
                self.topology,
                seed,
                Path("nowhere"),
                mode=mode,
                proxy_settings={"announce": announce, **(proxy_settings or {})},
                client_settings={"announce": announce, **(client_settings or {})},
                forwarder_settings=forwarder_settings or {},
                login_settings=login_settings or {},
                conferences=conferences or {},
                sync_settings=sync_settings or {},
            )
        )
        self.ues = self.topology.ues
        self.csrs = self.topology.csrs
        self.proxies = self.topology.proxies  #: the CSRs, then the UEs that serve networks without one
        self.members: set[str] = set()

    # ------------------------------------------------------------------ what happens

    @property
    def now_s(self) -> float:
        return self.network.now_s

    def run_for(self, duration_s: float) -> None:
        self.network.run_until(self.network.now_s + duration_s)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        self.network.at(self.network.now_s + delay_s, action)

    def join(self, ues: Iterable[str] | None = None, *, warm_up_s: float = 1.0, limit_s: float = JOIN_LIMIT_S) -> None:
        """Let devices join and wait until all that have joined so far agree."""
        if not self.members:
            self.run_for(warm_up_s)  # faces come up
        for ue in self.ues if ues is None else ues:
            self.members.add(ue)
            self.network.send(ue, JoinRequested())
        self.wait_for_agreement(limit_s)

    def publish(self, ue: str, *, count: int = 1, size_bytes: int = 100) -> None:
        for _ in range(count):
            self.network.send(ue, PublishRequested("message", bytes(size_bytes)))

    def publish_everywhere(self, *, rounds: int, interval_s: float, jitter: bool = True) -> None:
        """Let every member publish once a round, not all of them at the same instant."""
        for round_ in range(rounds):
            for index, ue in enumerate(sorted(self.members)):
                offset_s = interval_s * index / len(self.members) if jitter else 0.0
                self.at(round_ * interval_s + offset_s, partial(self.publish, ue))
        self.run_for(rounds * interval_s)

    def close(self, ue: str) -> None:
        self.members.discard(ue)
        self.network.send(ue, CloseRequested())

    def cut(self, side: Iterable[str], *, up: bool = False) -> None:
        """Take all links between *side* and the rest down, or up again."""
        inside = set(side)
        for link in self.topology.links:
            if len({link.a, link.b} & inside) == 1:
                self.network.set_carrier(link.name, up=up)

    def stop_proxy(self, csr: str) -> None:
        """End the service proxy's process; its forwarder lives on."""
        self.network.processes[f"{csr}.proxy"].running = False
        self.network.send(csr, CarrierChanged(LOCAL_FACE, up=False))
        self.csrs = tuple(each for each in self.csrs if each != csr)
        self.proxies = tuple(each for each in self.proxies if each != csr)

    # ------------------------------------------------------------------ how it stands

    def disagreement(self) -> str:
        """Return what keeps the members from agreeing, empty where nothing does."""
        clients = {ue: self.network.participant(ue) for ue in sorted(self.members)}
        for ue, client in clients.items():
            if client.state != "joined":
                return f"{ue} is {client.state}"
            if client.unacked or client.queued:
                return f"{ue} has {client.unacked} updates unacked and {client.queued} queued"
        digests = defaultdict(list)
        for ue, client in clients.items():
            digests[client.view.digest(), tuple(client.view.roster()), tuple(client.view.away())].append(ue)
        if len(digests) > 1:
            return f"clients differ: {sorted(digests.values(), key=len)}"
        for _, roster, away in digests:
            is_complete = set(roster) == self.members if self.announce == "at-join" else set(roster) <= self.members
            if not is_complete or away:
                return f"roster is {roster}, of these away {away}"
        logs = {
            proxy: conference.log.state_digest()
            for proxy in self.proxies
            if self.network.proxy(proxy).hand_over.takes_part
            if (conference := self.network.proxy(proxy).conferences.get("main")) is not None
        }
        if len(set(logs.values())) > 1:
            return f"proxies differ: { {proxy: digest.hex()[:8] for proxy, digest in logs.items()} }"
        return ""

    def wait_for_agreement(self, limit_s: float = QUIESCE_LIMIT_S) -> float:
        """Let time pass until everybody agrees; return how long it took."""
        start_s, step_s = self.now_s, 0.05
        while self.disagreement():
            assert self.now_s - start_s < limit_s, f"after {limit_s} s: {self.disagreement()}"
            self.run_for(step_s)
        return self.now_s - start_s

    def history(self) -> History:
        """Return everything that happened, final states and counters included, as an emulated run would record it."""
        network = self.network
        by_type: dict[type, list[Any]] = defaultdict(list)
        last_s, count = 0.0, 0
        for record in network.records:  # in virtual time many things happen at one instant: keep them in their order
            last_s, count = record.t_s, (count + 1 if record.t_s == last_s else 0)
            by_type[type(record)].append(msgspec.structs.replace(record, t_s=record.t_s + count * 1e-9))
        states = [
            state
            for process in network.processes.values()
            for state in reported_state(process.core, process.config.node, network.now_s)
        ]
        return History(
            published=by_type[Published],
            acked=by_type[Acked],
            applied=by_type[Applied],
            snapshots=by_type[SnapshotApplied],
            sessions=by_type[SessionChanged],
            granted=by_type[Granted],
            revoked=by_type[Revoked],
            faces=by_type[FaceChanged],
            peers=by_type[PeerChanged],
            services=by_type[ServiceChanged],
            states=[*by_type[StateReported], *states],
            counters=[self._counters_of(name) for name in network.processes],
            quiesced_s=network.now_s,
        )

    def _counters_of(self, name: str) -> CountersReported:
        process = self.network.processes[name]
        counters, bounds = self.network.counters(name), {}
        if process.config.forwarder is not None:
            limits = process.config.forwarder
            bounds = {
                "pit_entries": limits.pit_max_entries,
                "pit_peak": limits.pit_max_entries,
                "cs_entries": limits.cs_max_entries,
                "cs_bytes": limits.cs_max_bytes,
            }
        if process.config.proxy is not None:
            conferences = self.network.proxy(process.config.node).conferences.values()
            counters["history_entries"] = max((each.log.history_entries for each in conferences), default=0)
            bounds["history_entries"] = process.config.proxy.history_max_entries
        return CountersReported(
            self.now_s, process.config.node, process.config.process, 0.0, 0, self.now_s, [], 0.0, [], counters, bounds
        )

    def assert_invariants(self) -> None:
        """Quiesce, then hold the run against design.md section 6; nothing may stay undecided."""
        self.wait_for_agreement()
        checks = check_invariants(self.history())
        assert not [check for check in checks if check.verdict != "pass"], checks
        self.assert_complete()
        for name in self.network.processes:
            assert not self.network.counters(name).get("malformed"), f"{name} counted malformed packets"

    def assert_complete(self) -> None:
        """Every member has everything that was ever published by anybody, from the network or in a snapshot."""
        published = {(update.publisher, update.boot, update.seq) for update in self._records(Published)}
        for ue in sorted(self.members):
            have = {(head.device, head.boot): head.seq for head in self.network.participant(ue).view.heads()}
            missing = {each for each in published if have.get(each[:2], 0) < each[2]}
            assert not missing, f"{ue} lacks {sorted(missing)[:5]}"

    # ------------------------------------------------------------------ figures

    def _records(self, kind: type[R]) -> list[R]:
        return [record for record in self.network.records if isinstance(record, kind)]

    def deliveries(self, *, since_s: float = -math.inf) -> list[Delivery]:
        """Return each applied update that was published from then on, with its latency and path delay, in ms."""
        published = {(update.publisher, update.boot, update.seq): update for update in self._records(Published)}
        delays_ms = path_delays_ms(self.topology)
        return [
            Delivery(
                source.publisher,
                applied.receiver,
                applied.via,
                source.t_s,
                (applied.t_s - source.t_s) * 1e3,
                delays_ms[source.publisher][applied.receiver],
            )
            for applied in self._records(Applied)
            if (source := published[applied.publisher, applied.boot, applied.seq]).t_s >= since_s
        ]

    def encoded_records(self) -> bytes:
        """Return the records as they would be written."""
        return b"\n".join(msgspec.json.encode(record) for record in self.network.records)


class Delivery(msgspec.Struct, frozen=True):
    """One update at one receiver."""

    publisher: str
    receiver: str
    via: str
    published_s: float
    latency_ms: float
    path_delay_ms: float


def impair_everywhere(conference: Conference, names: Sequence[str] | None = None, **properties: float) -> None:
    """Change what links do in both directions, keeping the rest of their properties."""
    network = conference.network
    for name in network.links if names is None else names:
        impairment = network.links[name].channels["a_to_b"].impairment
        network.impair(name, msgspec.structs.replace(impairment, **properties))
