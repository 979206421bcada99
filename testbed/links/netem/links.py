"""All `netem` links of a run: made, changed, read back, counted and removed by netlink, without a process of their own.

Interfaces and qdiscs are in a namespace that belongs to the links alone (veth.py), which ends with the process that holds it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from testbed.links.linux import enter_netns, new_netns, returning_to_own_netns
from testbed.links.model import DIRECTIONS, Direction, Impairment, LinkCounters, LinkEnd, LinkPlan
from testbed.links.netem import qdisc, veth
from testbed.links.netem.filters import FilterState, filters_of_root
from testbed.links.netem.flows import Flow, Qdiscs, Requests, Way
from testbed.links.netem.match import Match
from testbed.links.netem.qdisc import Netem, QdiscState
from testbed.links.netem.translation import stages_of
from testbed.links.rtnetlink import RouteSocket
from topologies.errors import CapabilityError, HconfError, InputError, pick_one_of

#: What a kernel says where a name or an address is taken, or an interface's namespace is gone.
_TAKEN: Final = (errno.EEXIST, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EBADF)
#: The kernel looks after carriers within a second (link watch).
RUNNING_LIMIT_S: Final = 10.0
RUNNING_PERIOD_S: Final = 0.002
MODULES: Final = "veth, sch_netem, sch_prio, sch_ingress, cls_matchall and act_mirred (cls_flower for targets)"


class _Link:
    """A link that was made: its two directions."""

    __slots__ = ("plan", "up", "ways")

    def __init__(self, plan: LinkPlan, ways: dict[Direction, Way]) -> None:
        self.plan, self.ways, self.up = plan, ways, True


class NetemLinks:
    """The links of a run whose back end is `netem`. Make it with `start`.

    Every method blocks for some milliseconds at most (`start` and `stop` longer) and may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._links: dict[str, _Link] = {}
        self._hosts: dict[str, RouteSocket] = {}
        self._netns_fd = new_netns()
        with self._inside():
            self._route = RouteSocket()
            # a kernel without IPv6 has no such file; with it, its discovery of neighbours would pass the qdiscs
            with suppress(FileNotFoundError):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_bytes(b"1")

    @classmethod
    def start(cls, plans: Sequence[LinkPlan], *, netns_fds: Mapping[str, int], seed: int) -> Self:
        """Make all links; they are up and carry frames when this returns.

        Args:
            plans: names must be unique, and the ends' hosts keys of *netns_fds*.
            netns_fds: open descriptors of the hosts' network namespaces; the caller keeps and closes its own.
            seed: of the run; kernels since 6.6 draw by it.
        Raises: InputError or CapabilityError, naming the link, if one cannot be made; nothing is left of the others then.
        """
        for plan in plans:
            check_plan(plan)
        links = cls()
        try:
            with links._lock:
                links._make(plans, netns_fds, seed)
        except BaseException:
            links.stop()
            raise
        return links

    def impairments(self, link: str) -> dict[Direction, Impairment]:
        """Return what each direction of *link* does now. Raises: InputError if there is no such link."""
        return {direction: way.impairment for direction, way in self._known(link).ways.items()}

    def change(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401  checked as JSON is
    ) -> dict[Direction, Impairment]:
        """Change properties of *link* (fields of `Impairment`); what is on its way is not disturbed.

        Returns: both directions; the kernel does them, as read back.
        Raises: InputError for an unknown link or a value out of range, CapabilityError for what netem cannot do (nothing is
            changed then), or if it did not take.
        """
        found, wanted = self._known(link), self.impairments(link)
        try:
            for changed in wanted if direction is None else (direction,):
                # through the decoder, so that types are checked too
                wanted[changed] = msgspec.convert(msgspec.to_builtins(wanted[changed]) | properties, Impairment)
        except msgspec.ValidationError as error:
            raise InputError(
                where=f"link {link}", problem=str(error), remedy="give a value within the range"
            ) from error
        check_plan(msgspec.structs.replace(found.plan, **wanted))
        with self._lock:
            qdiscs = self._qdiscs()
            for one, way in found.ways.items():
                way.settle(qdiscs)
                way.flows[0].impairment = wanted[one]
            self._carry_out([request for way in found.ways.values() for request in way.update()])
            self._set_mtu(found)
            self._verify([found])
        return self.impairments(link)

    def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        """Make *link* a black hole in these *directions*, and in no other; neither end sees it.

        What is on its way arrives; what enters from now on is gone (`blocked`). Raises: InputError for an unknown link;
        CapabilityError if it did not take.
        """
        found = self._known(link)
        with self._lock:
            qdiscs = self._qdiscs()
            for direction, way in found.ways.items():
                way.settle(qdiscs)
                way.is_blocked = direction in directions
            self._carry_out([request for way in found.ways.values() for request in way.update()])
            self._verify([found])

    def read_blocked(self, link: str) -> frozenset[Direction]:
        """Return the directions in which *link* is a black hole, as the kernel has it. Raises: InputError."""
        found, qdiscs = self._known(link), self._qdiscs()
        closed = Netem().closed().limit_packets
        return frozenset(
            direction
            for direction, way in found.ways.items()
            if all(Netem.decode(state.options).limit_packets == closed for state in way.delays(qdiscs))
        )

    def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001  as the other back end has it
        """Take *link* down or up at both ends; what is on its way on a link that goes down is gone (`carrier`).

        Raises: InputError for an unknown link; CapabilityError if the carrier, read back, did not change.
        """
        found = self._known(link)
        ways = list(found.ways.values())
        with self._lock:
            if found.up and not up:
                qdiscs = self._qdiscs()
                for way in ways:
                    way.settle(qdiscs)
                    way.lose_carrier(qdiscs)
            self._carry_out([(f"link {link}: its carrier", veth.set_up(way.out_index, up=up)) for way in ways])
            found.up = up
            for end in (found.plan.a, found.plan.b):
                _carry_out(self._hosts[end.host], [(f"link {link}: to tell of it", veth.tell_listeners(end.intf))])
            if up:
                self._wait_running([found])
            interfaces = self._interfaces()
        carriers = [interfaces[way.out_index].carrier for way in ways]
        if carriers != [up, up]:
            raise CapabilityError(
                where=f"link {link}",
                problem=f"set its carrier to {up}, read back {carriers}",
                remedy="see whether something else changes these interfaces",
            )

    def set_targets(
        self, link: str, direction: Direction, targets: Mapping[Match, Impairment]
    ) -> dict[Match, Impairment]:
        """Have what fits each match impaired by its own impairment instead, and everything else go as before.

        Where a frame fits several, the strictest has it. What is on its way in a target that is gone arrives.

        Returns: what the kernel has, as read back. Raises: InputError for an unknown link or too many targets;
            CapabilityError for what netem cannot do (nothing is changed then), or if it did not take.
        """
        found = self._known(link)
        way = found.ways[direction]
        for impairment in targets.values():
            stages_of(impairment, where=f"{way.where}: target")
        with self._lock:
            way.settle(self._qdiscs())
            requests = way.set_targets(targets)
            try:
                self._carry_out(requests)
            except HconfError:
                way.take_stock(self._qdiscs(), self._filters(way))
                raise
            self._verify([found])
        return way.targets

    def counters(self) -> list[LinkCounters]:
        """Return the counters of every link and direction, in the order of the plans; what netem does not tell is None."""
        with self._lock:
            qdiscs, interfaces = self._qdiscs(), self._interfaces()
            ways = [(link, link.ways[direction]) for link in self._links.values() for direction in DIRECTIONS]
            for _, way in ways:
                way.settle(qdiscs)
            return [_counters(link, way, qdiscs, interfaces) for link, way in ways]

    @property
    def is_seeded(self) -> bool:
        """Tell whether the kernel draws by the run's seed."""
        return any(
            Netem.decode(state.options).seed is not None for state in self._qdiscs().values() if state.kind == "netem"
        )

    def stop(self) -> None:
        """Remove all links; safe to call again. Returns when the interfaces are gone."""
        with self._lock:
            if self._netns_fd < 0:
                return
            indices = [way.out_index for link in self._links.values() for way in link.ways.values()]
            self._route.carry_out([veth.delete(index) for index in indices])  # what somebody else removed is gone, too
            self._route.close()
            for route in self._hosts.values():
                route.close()
            os.close(self._netns_fd)
            self._netns_fd = -1

    # How

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with returning_to_own_netns():
            enter_netns(self._netns_fd)
            yield

    def _known(self, link: str) -> _Link:
        try:
            return self._links[link]
        except KeyError:
            raise InputError(
                where=f"link {link}", problem="there is no such link", remedy=pick_one_of(link, self._links)
            ) from None

    def _make(self, plans: Sequence[LinkPlan], netns_fds: Mapping[str, int], seed: int) -> None:
        pairs: Requests = []
        for number, plan in enumerate(plans):
            for letter, end, impairment in (("a", plan.a, plan.a_to_b), ("b", plan.b, plan.b_to_a)):
                pair = veth.make_pair(
                    f"x{number}{letter}", outer=end, netns_fd=netns_fds[end.host], mtu_bytes=impairment.mtu_bytes
                )
                pairs.append((f"link {plan.name}: {end.host}'s interface {end.intf} (veth)", pair))
        self._carry_out(pairs)
        with self._inside():
            index = {name: number for number, name in socket.if_nameindex()}
        for number, plan in enumerate(plans):
            a, b = index[f"x{number}a"], index[f"x{number}b"]
            ways = {direction: Way.of(plan, direction, a=a, b=b, seed=seed) for direction in DIRECTIONS}
            self._links[plan.name] = _Link(plan, ways)
        ways_made = [way for link in self._links.values() for way in link.ways.values()]
        self._carry_out([request for way in ways_made for request in way.make()])
        self._configure_hosts(netns_fds)
        self._carry_out([(f"{way.where}: to bring it up", veth.set_up(way.out_index, up=True)) for way in ways_made])
        self._verify(self._links.values())
        self._wait_running(self._links.values())

    def _configure_hosts(self, netns_fds: Mapping[str, int]) -> None:
        ends: dict[str, list[LinkEnd]] = {}
        for link in self._links.values():
            for end in (link.plan.a, link.plan.b):
                ends.setdefault(end.host, []).append(end)
        with returning_to_own_netns():
            for host, its_ends in ends.items():
                enter_netns(netns_fds[host])
                self._hosts[host] = RouteSocket()
                requests = [
                    (f"host {host}: interface {end.intf}: {what}", request)
                    for end in its_ends
                    for what, request in veth.configure_outer(end)
                ]
                _carry_out(self._hosts[host], requests)

    def _wait_running(self, links: Collection[_Link]) -> None:
        """Wait until the kernel has noticed all carriers: it does so by and by. Raises: CapabilityError if it does not."""
        deadline_s = time.monotonic() + RUNNING_LIMIT_S
        inner = {way.out_index: way.where for link in links for way in link.ways.values()}
        outer: dict[str, dict[str, str]] = {}
        for link in links:
            for end in (link.plan.a, link.plan.b):
                outer.setdefault(end.host, {})[end.intf] = f"host {end.host}: interface {end.intf}"
        while True:
            waiting = [
                inner[index] for index, one in self._interfaces().items() if index in inner and not one.is_running
            ]
            for host, names in outer.items():
                states = (veth.InterfaceState(message) for message in self._hosts[host].dump(*veth.all_links()))
                waiting += [names[one.name] for one in states if one.name in names and not one.is_running]
            if not waiting:
                return
            if time.monotonic() > deadline_s:
                raise CapabilityError(
                    where=waiting[0],
                    problem=f"has no carrier after {RUNNING_LIMIT_S:g} s",
                    remedy="see whether something else changes these interfaces, or the machine is very busy",
                )
            time.sleep(RUNNING_PERIOD_S)

    def _set_mtu(self, link: _Link) -> None:
        mtu_bytes = link.ways["a_to_b"].impairment.mtu_bytes
        if mtu_bytes == link.plan.a_to_b.mtu_bytes:
            return
        for end in (link.plan.a, link.plan.b):
            state = self._hosts[end.host]
            _carry_out(state, [(f"link {link.plan.name}: its MTU", veth.set_mtu_by_name(end.intf, mtu_bytes))])
        impairments = {direction: way.impairment for direction, way in link.ways.items()}
        link.plan = msgspec.structs.replace(link.plan, **impairments)

    def _carry_out(self, requests: Requests) -> None:
        _carry_out(self._route, requests)

    def _qdiscs(self) -> Qdiscs:
        with self._lock:
            messages = self._route.dump(qdisc.RTM_GETQDISC, qdisc.all_qdiscs())
        states = (QdiscState.decode(message) for message in messages)
        return {(state.index, state.handle): state for state in states}

    def _filters(self, way: Way) -> dict[int, Match]:
        """Return what the filters of a direction pick, by the class of the band that carries it."""
        if len(way.flows) == 1:  # there was never a target
            return {}
        with self._lock:
            messages = self._route.dump(*filters_of_root(way.out_index))
        states = (FilterState.decode(message) for message in messages)
        return {one.classid: one.match for one in states if one is not None and one.index == way.out_index}

    def _interfaces(self) -> dict[int, veth.InterfaceState]:
        with self._lock:
            states = (veth.InterfaceState(message) for message in self._route.dump(*veth.all_links()))
            return {state.index: state for state in states}

    def _verify(self, links: Iterable[_Link]) -> None:
        """Read back what the kernel has. Raises: CapabilityError, naming the first difference."""
        qdiscs = self._qdiscs()
        for link in links:
            for way in link.ways.values():
                for difference in way.differences(qdiscs, self._filters(way)):
                    where, _, problem = difference.partition(": ")
                    raise CapabilityError(
                        where=where,
                        problem=problem,
                        remedy="see whether something else changes these qdiscs; or use the back end wire",
                    )


def check_plan(plan: LinkPlan) -> None:
    """Refuse a link that netem cannot make, before anything is made. Raises: CapabilityError."""
    for direction, impairment in (("a_to_b", plan.a_to_b), ("b_to_a", plan.b_to_a)):
        stages_of(impairment, where=f"link {plan.name}, {direction.replace('_', ' ')}")
    if plan.a_to_b.mtu_bytes != plan.b_to_a.mtu_bytes:
        raise CapabilityError(
            where=f"link {plan.name}",
            problem="the link back end netem cannot do an MTU that differs by direction",
            remedy='give both the same, or use the back end that can: link_backend = "wire"',
        )


def _carry_out(route: RouteSocket, requests: Requests) -> None:
    """Carry out *requests*. Raises: CapabilityError or InputError for the first that the kernel refuses."""
    errors = route.carry_out([request for _, request in requests])
    for (what, _), number in zip(requests, errors, strict=True):
        if number and number not in _TAKEN:
            raise CapabilityError(
                where=what,
                problem=f"the kernel refuses it ({os.strerror(number)})",
                remedy=f"modprobe {MODULES}; or use the link back end wire, which needs none of them",
            )
        if number:
            raise InputError(
                where=what,
                problem=f"the kernel refuses it ({os.strerror(number)})",
                remedy="give every interface a name, a MAC and an address of its own, unused in that namespace",
            )


def _counters(link: _Link, way: Way, qdiscs: Qdiscs, interfaces: Mapping[int, veth.InterfaceState]) -> LinkCounters:
    delays = list(way.delays(qdiscs))
    dropped = way.dropped(qdiscs)
    dropped["overrun"] = interfaces[way.out_index].unsent_packets
    flows: list[Flow] = way.flows
    drawn = sum(flow.drawn for flow in flows)
    passed = drawn + sum(flow.blocked for flow in flows)
    offered = interfaces[way.in_index].received_packets
    return LinkCounters(
        link=link.plan.name,
        direction=way.direction,
        sender=way.sender,
        receiver=way.receiver,
        configured=way.impairment,
        carrier=link.up,
        blocked=way.is_blocked,
        packets=sum(state.packets for state in delays),
        carried_bytes=sum(state.carried_bytes for state in delays),
        dropped_packets=dropped,
        altered_packets={"duplicate": max(0, passed - offered)},
        in_flight_packets=sum(state.waiting for state in delays),
        drawn_packets=drawn,
        delay_error_p50_ms=None,
        delay_error_p99_ms=None,
        delay_error_max_ms=None,
        delay_error_histogram=[],
        measured_delay_mean_ms=None,
        measured_loss_ratio=dropped["loss"] / drawn if drawn else None,
        measured_rate_mbps=None,
        expected_lost_packets=sum(flow.expected_lost for flow in flows),
        expected_lost_variance=sum(flow.expected_variance for flow in flows),
    )
