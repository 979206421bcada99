"""All links of a run, whichever back end makes each; which one that is, is decided before anything is made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import msgspec

from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.links.linux import new_netns
from testbed.links.model import (
    Direction,
    EmulatorStats,
    Impairment,
    LinkCounters,
    LinkEnd,
    LinkPlan,
    impairments_of,
)
from testbed.links.netem.links import NetemLinks
from testbed.links.netem.match import Match
from testbed.links.wire import WireEmulator
from topologies.errors import CapabilityError, InputError, pick_one_of
from topologies.model import LinkBackend, Topology

TUN_DEVICE: Final = Path("/dev/net/tun")


class LinkEmulator(Protocol):
    """What a back end does with the links that it has made."""

    def impairments(self, link: str) -> dict[Direction, Impairment]:
        """Return what each direction of *link* does now."""

    def change(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401
    ) -> dict[Direction, Impairment]:
        """Change properties of *link*; return both directions, read back."""

    def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        """Make *link* a black hole in these *directions*, and in no other."""

    def read_blocked(self, link: str) -> frozenset[Direction]:
        """Return the directions in which *link* is a black hole."""

    def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001
        """Take *link* down or up at both ends."""

    def counters(self) -> list[LinkCounters]:
        """Return the counters of every link and direction."""

    def stop(self) -> None:
        """Remove all links; safe to call again."""


class Links:
    """The links of a run. Make it with `begin`, then `build`; every method blocks and may be called from any thread."""

    def __init__(self, backends: Mapping[str, LinkBackend]) -> None:
        self._backends = backends
        self._order = {name: number for number, name in enumerate(backends)}
        self._by_link: dict[str, LinkEmulator] = {}
        self.wire: WireEmulator | None = None  #: None: no link is of that back end
        self.netem: NetemLinks | None = None

    @classmethod
    def begin(
        cls,
        backends: Mapping[str, LinkBackend],
        *,
        log_path: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start what can be before there are hosts: the process of `wire` links, as `WireEmulator.begin`.

        *backends* says of each link which back end it is of.
        """
        links = cls(backends)
        if any(backend != "netem" for backend in backends.values()):
            links.wire = WireEmulator.begin(log_path=log_path, environment=environment)
        return links

    def build(
        self,
        plans: Sequence[LinkPlan],
        *,
        netns_fds: Mapping[str, int],
        seed: int,
        ledger_path: Path,
        packet_code: bool = False,
    ) -> None:
        """Make all links, those of *backends*. The arguments are as those of `WireEmulator.build`.

        Raises: InputError or CapabilityError if a link cannot be made; what was made goes with `stop`. EmulatorDied.
        """
        by_netem = [plan for plan in plans if self._backends[plan.name] == "netem"]
        by_wire = [plan for plan in plans if self._backends[plan.name] != "netem"]
        if by_netem:
            self.netem = NetemLinks.start(by_netem, netns_fds=netns_fds, seed=seed)
            self._by_link |= dict.fromkeys((plan.name for plan in by_netem), self.netem)
        if self.wire is not None:
            self.wire.build(by_wire, netns_fds=netns_fds, seed=seed, ledger_path=ledger_path, packet_code=packet_code)
            self._by_link |= dict.fromkeys((plan.name for plan in by_wire), self.wire)

    @property
    def pid(self) -> int | None:
        """The process of the `wire` links; None if there are none: `netem` takes no process."""
        return self.wire.pid if self.wire else None

    def of(self, link: str) -> LinkEmulator:
        """Return the back end of *link*. Raises: InputError if there is no such link."""
        try:
            return self._by_link[link]
        except KeyError:
            raise InputError(
                where=f"link {link}", problem="there is no such link", remedy=pick_one_of(link, self._by_link)
            ) from None

    def impairments(self, link: str) -> dict[Direction, Impairment]:
        return self.of(link).impairments(link)

    def change(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401
    ) -> dict[Direction, Impairment]:
        return self.of(link).change(link, direction=direction, **properties)

    def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> dict[Match, Impairment]:
        """Impair kinds of frames, as `NetemLinks.set_targets`. Raises: CapabilityError if the link is of the other back end."""
        if self.netem is None or self.of(link) is not self.netem:
            raise CapabilityError(
                where=f"link {link}",
                problem="is a wire link, which does not choose frames by their addresses and ports",
                remedy='make it a netem link: backend = "netem" in [links]; or use message faults, which look into packets',
            )
        return self.netem.set_targets(link, direction, targets)

    def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        self.of(link).set_blocked(link, directions)

    def read_blocked(self, link: str) -> frozenset[Direction]:
        return self.of(link).read_blocked(link)

    def add_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        """Put a message fault into force, as `WireEmulator.add_rule`. Raises: CapabilityError if a link is of the other back end."""
        return self._looking_into(f"fault {rule.fault_id}", [link for link, _ in lanes]).add_rule(rule, lanes)

    def report_rule(self, fault_id: str) -> RuleReport:
        return self._looking_into(f"fault {fault_id}").report_rule(fault_id)

    def remove_rule(self, fault_id: str) -> RuleReport:
        return self._looking_into(f"fault {fault_id}").remove_rule(fault_id)

    def inject(self, link: str, direction: Direction, packet: str) -> bool:
        """Send a packet made by hand, as `WireEmulator.inject`. Raises: CapabilityError if the link is of the other back end."""
        return self._looking_into(f"link {link}", [link]).inject(link, direction, packet)

    def _looking_into(self, where: str, links: Sequence[str] = ()) -> WireEmulator:
        """Return the back end that looks into packets, if all of *links* are of it."""
        other = next((link for link in links if self.of(link) is not self.wire), "")
        if self.wire is None or other:
            raise CapabilityError(
                where=where,
                problem=f"{other or 'every link'} is a netem link, whose kernel does not look into packets",
                remedy='make it a wire link: backend = "wire" in [links]',
            )
        return self.wire

    def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001  as the back ends have it
        self.of(link).set_carrier(link, up)

    def counters(self) -> list[LinkCounters]:
        """Return the counters of every link and direction, in the order of the plans."""
        rows = [row for emulator in (self.wire, self.netem) if emulator is not None for row in emulator.counters()]
        return sorted(rows, key=lambda row: self._order[row.link])

    def stats(self) -> EmulatorStats | None:
        """Return how the process of the `wire` links is doing; None if there is none."""
        return self.wire.stats() if self.wire else None

    def stop(self) -> None:
        """Remove all links; safe to call again."""
        with contextlib.ExitStack() as both:
            if self.netem is not None:
                both.callback(self.netem.stop)
            if self.wire is not None:
                both.callback(self.wire.stop)


def with_backends(topology: Topology) -> Topology:
    """Return *topology* with the back end of each link decided: `wire` or `netem`, no longer `auto`.

    `auto` is `wire` wherever there is a /dev/net/tun: the same frames are lost whatever the kernel, and it measures its own
    delays; else `netem`. Whatever is to be a `netem` link was tried for real when this returns, in namespaces of its own.

    Raises: CapabilityError, naming the link, if the kernel cannot make one as it is wanted.
    """
    automatic: LinkBackend = "wire" if why_no_wire() is None else "netem"
    chosen = {link.name: automatic if link.backend == "auto" else link.backend for link in topology.links}
    plans = [
        rehearsal_plan(link.name, *impairments_of(link)) for link in topology.links if chosen[link.name] == "netem"
    ]
    try:
        rehearse(plans)
    except CapabilityError as error:
        if automatic == "wire":
            raise
        raise CapabilityError(
            where=error.where,
            problem=f"neither link back end can make it: {why_no_wire()}; {error.problem}",
            remedy=f"modprobe tun, or give the container {TUN_DEVICE}",
        ) from error
    return topology.with_backends(chosen)


def why_no_wire() -> str | None:
    """Return what keeps this machine from `wire` links; None if nothing does."""
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{TUN_DEVICE} cannot be opened ({error.strerror})"
    return None


def rehearsal_plan(name: str, a_to_b: Impairment, b_to_a: Impairment) -> LinkPlan:
    """Return a link to try, between two hosts that are not there."""

    def end(host: str, number: int) -> LinkEnd:
        return LinkEnd(
            host=host,
            intf=f"try-{host}",
            address=f"10.0.0.{number}/31",
            mac=f"02:00:00:00:00:0{number}",
            peer_address=f"10.0.0.{1 - number}",
            peer_mac=f"02:00:00:00:00:0{1 - number}",
        )

    return LinkPlan(name=name, a=end("a", 0), b=end("b", 1), a_to_b=a_to_b, b_to_a=b_to_a)


def rehearse(plans: Iterable[LinkPlan]) -> None:
    """Make each of these `netem` links, one after another and those that are alike once, and remove it again.

    Raises: CapabilityError, naming the link, for the first that the kernel cannot do.
    """
    tried: set[bytes] = set()
    netns_fds: dict[str, int] = {}
    try:
        for plan in plans:
            alike = msgspec.json.encode((plan.a_to_b, plan.b_to_a))
            if alike in tried:
                continue
            tried.add(alike)
            for host in ("a", "b"):
                if host not in netns_fds:
                    netns_fds[host] = new_netns()
            NetemLinks.start([plan], netns_fds=netns_fds, seed=0).stop()
    except PermissionError as error:
        raise CapabilityError(
            where="this user", problem=f"may not make network namespaces ({error.strerror})", remedy="run it with sudo"
        ) from error
    finally:
        for fd in netns_fds.values():
            os.close(fd)


def require_targets() -> None:
    """Try that `netem` links can choose frames by their addresses and ports. Raises: CapabilityError if this kernel cannot."""
    netns_fds = {host: new_netns() for host in ("a", "b")}
    try:
        links = NetemLinks.start([rehearsal_plan("try", Impairment(), Impairment())], netns_fds=netns_fds, seed=0)
        try:
            links.set_targets("try", "a_to_b", {Match("udp", dst_port=6363): Impairment(delay_ms=1)})
        finally:
            links.stop()
    finally:
        for fd in netns_fds.values():
            os.close(fd)


def why_no_netem() -> str | None:
    """Return what keeps this kernel from `netem` links; None if nothing does. Makes one, and removes it."""
    impairment = Impairment(delay_ms=1, rate_mbps=1)
    try:
        rehearse([rehearsal_plan("try", impairment, impairment)])
    except CapabilityError as error:
        return f"{error.where}: {error.problem}"
    return None
