"""Every kind of fault on a small network of real hosts and links, each seen from inside the hosts that it strikes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import trio

from proxy.wire.lp import encode_sequenced
from proxy.wire.message_names import PUSH, SYNC, message_name, node_prefix
from proxy.wire.tlv import tlv
from testbed.emulation.hosts import read_process_state
from testbed.emulation.network import EmulatedNetwork, emulated_network
from testbed.faults.injector import FaultInjector
from testbed.faults.model import Fault, FaultApplied
from testbed.faults.packets.rules import MessageHit
from testbed.links.linux import enter_netns
from testbed.node_config import log_files
from testbed.plan import NetworkPlan
from tests.emulation.machine import STAND_IN

LINK = "core1-csr1"
WAIT_S = 0.15  #: longer than anything takes that is to arrive


def packet(seq: int, kind: bytes = SYNC) -> bytes:
    name = message_name(node_prefix("csr1"), kind, "main", boot=1, seq=seq)
    return encode_sequenced(seq, tlv(6, tlv(7, name) + tlv(0x15, b"content")))


def socket_in(pid: int, address: str) -> socket.socket:
    """Return a forwarder's socket in the network namespace of process *pid*."""
    made: list[socket.socket] = []

    def make() -> None:
        netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        enter_netns(netns_fd)
        os.close(netns_fd)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[0].bind((address, 6363))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Ends:
    """Who sends at one end of the link, and who listens at the other."""

    def __init__(self, network: EmulatedNetwork) -> None:
        self.core, self.csr = (network.addresses.end(LINK, node) for node in ("core1", "csr1"))
        sockets = (socket_in(network.host_pid(n), end.address) for n, end in (("core1", self.core), ("csr1", self.csr)))
        self.at_core, self.at_csr = (trio.socket.from_stdlib_socket(each) for each in sockets)

    async def across(self, *datagrams: bytes, back: bool = False) -> list[tuple[bytes, float]]:
        """Send from core1 to csr1, or back. Returns: what has arrived a while later, and after how many ms."""
        sender, receiver = (self.at_csr, self.at_core) if back else (self.at_core, self.at_csr)
        address = self.csr.peer_address if back else self.core.peer_address
        sent_s, arrived = time.monotonic(), list[tuple[bytes, float]]()
        for datagram in datagrams:
            try:
                await sender.sendto(datagram, (address, 6363))
            except OSError:  # the link is down
                return []
        with trio.move_on_after(WAIT_S):
            while True:
                arrived.append((await receiver.recv(4_096), (time.monotonic() - sent_s) * 1e3))
        return arrived

    async def alive(self, *, back: bool = False) -> bool:
        return bool(await self.across(packet(1, PUSH), back=back))

    def close(self) -> None:
        self.at_core.close()
        self.at_csr.close()


class Breaker:
    """Applies faults one after the other."""

    def __init__(self, injector: FaultInjector) -> None:
        self.injector, self._number = injector, 0

    def fault(self, kind: Any, target: str, *, sender: str | None = None, **parameters: Any) -> Fault:
        self._number += 1
        return Fault(f"f{self._number}", kind, target, sender=sender, parameters=parameters, source="hand")

    @asynccontextmanager
    async def broken(self, kind: str, target: str, **parameters: Any) -> AsyncIterator[None]:
        fault = self.fault(kind, target, **parameters)
        row = await self.injector.apply(fault)
        assert row.verified, row
        yield
        if self.injector.is_active(fault.fault_id):
            row = await self.injector.heal(fault.fault_id)
        assert row.verified, row

    async def scheduled(self, fault: Fault, look: Callable[[], Any]) -> tuple[list[Any], FaultApplied]:
        """Let a fault that changes while it is in force take its course; return what *look* saw every 10 ms."""
        seen: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while True:
                    seen.append(await look())
                    await trio.sleep(0.01)

            nursery.start_soon(watch)
            await self.injector.run([fault], epoch_s=time.monotonic())
            nursery.cancel_scope.cancel()
        return seen, self.injector.rows[fault.fault_id]


async def test_every_kind_of_fault_is_seen_where_it_strikes(
    plan: NetworkPlan, assert_no_residue: Callable[[], None]
) -> None:
    plan = replace(plan, packet_code=True)
    async with emulated_network(plan, node_program=STAND_IN) as network:
        rows = plan.raw_dir / "faults.jsonl"
        breaker, ends = Breaker(FaultInjector(network, plan.topology, rows, seed=7)), Ends(network)
        try:
            await strike_links(breaker, network, ends)
            await strike_packets(breaker, ends)
            await strike_processes(breaker, network, plan)
            assert await ends.alive()
            assert await ends.alive(back=True)
        finally:
            ends.close()
        counters = await network.link_counters()
        assert all(
            each.carrier and each.configured.delay_ms == 2.0 and not each.configured.loss_ratio for each in counters
        )
        assert all(
            row.healed_s is not None or row.kind in ("thaw", "restart", "link-up")
            for row in breaker.injector.rows.values()
        )
    lines = (plan.raw_dir / "wire-ledger.jsonl").read_bytes().splitlines()
    hits = [msgspec.json.decode(line, type=MessageHit) for line in lines if b'"message_hit"' in line]
    assert {hit.action for hit in hits} == {"drop", "delay", "duplicate", "corrupt", "replay", "forge"}
    assert {(hit.link, hit.sender, hit.message) for hit in hits} == {(LINK, "core1", "sync-update")}
    assert_no_residue()


async def strike_links(breaker: Breaker, network: EmulatedNetwork, ends: Ends) -> None:
    carrier = partial(network.read_carrier, LINK)
    await breaker.injector.apply(breaker.fault("link-down", LINK))
    assert (await carrier(), await ends.alive()) == ((False, False), False)
    async with breaker.broken("link-up", LINK):
        assert await ends.alive()
    for kind, target in (("isolate", "csr1"), ("partition", "core1")):
        async with breaker.broken(kind, target):
            assert (await carrier(), await ends.alive()) == ((False, False), False)
            assert (await network.read_carrier("csr1-ue1"))[0] is (kind == "partition")
        async with breaker.broken(kind, target, silent=True):
            assert (await carrier(), await ends.alive()) == ((True, True), False)
            assert not await ends.alive(back=True)
    async with breaker.broken("black-hole", LINK, sender="core1"):
        assert (await carrier(), await ends.alive(), await ends.alive(back=True)) == ((True, True), False, True)
    flap = breaker.fault("flap", LINK, period_s=0.2, down_ratio=0.5, count=2)
    seen, row = await breaker.scheduled(flap, carrier)
    changes = [state for state, before in zip(seen, [None, *seen], strict=False) if state != before]
    assert row.verified
    assert [state for state in changes if state[0] is state[1]] in (  # the ends are not read at the same moment
        [(False, False), (True, True)] * 2,
        [(True, True), *[(False, False), (True, True)] * 2],
    )
    async with breaker.broken("impair", LINK, delay_ms=30.0):
        assert [delay_ms >= 30.0 for _, delay_ms in await ends.across(packet(1, PUSH))] == [True]
    ramp = breaker.fault("impair", LINK, delay_ms=42.0, ramp_s=0.4)

    async def delay_now_ms() -> float:
        return next(each.configured.delay_ms for each in await network.link_counters() if each.link == LINK)

    seen, row = await breaker.scheduled(ramp, delay_now_ms)
    assert row.verified
    assert sorted({*seen, await delay_now_ms()}) in ([2.0, 12.0, 22.0, 32.0, 42.0], [12.0, 22.0, 32.0, 42.0])
    assert (await breaker.injector.heal(ramp.fault_id)).verified


async def strike_packets(breaker: Breaker, ends: Ends) -> None:
    aimed = {"target": LINK, "sender": "core1", "message": "sync-update"}
    both = packet(1), packet(1, PUSH)
    async with breaker.broken("drop", **aimed, count=1):
        assert [datagram for datagram, _ in await ends.across(*both)] == [both[1]]
        assert [datagram for datagram, _ in await ends.across(packet(1))] == [packet(1)]  # one was enough
    async with breaker.broken("drop", **aimed, predicate='packet["SequenceNumNameComponent"].value == 2'):
        assert [datagram for datagram, _ in await ends.across(packet(1), packet(2), packet(3))] == [
            packet(1),
            packet(3),
        ]
    async with breaker.broken("delay", **aimed, delay_ms=60.0):
        first, second = await ends.across(*both)
        assert (first[0], second[0], second[1] >= 62.0) == (both[1], both[0], True)
    async with breaker.broken("duplicate", **aimed, times=2):
        assert [datagram for datagram, _ in await ends.across(*both)] == [both[0]] * 3 + [both[1]]
    async with breaker.broken("replay", **aimed, after_ms=50.0, every_ms=50.0):
        (_, early), (replayed, late) = await ends.across(both[0])
        assert (replayed, early < late, late >= 50.0) == (both[0], True, True)
    async with breaker.broken("corrupt", **aimed, bits=3):
        (corrupted, _), _ = await ends.across(*both)
        flipped = int.from_bytes(corrupted, "big") ^ int.from_bytes(both[0], "big")
        assert flipped.bit_count() == 3
    async with breaker.broken("corrupt", **aimed, checksum="wrong"):
        assert [datagram for datagram, _ in await ends.across(*both)] == [both[1]]  # the kernel took it for broken
    async with breaker.broken("forge", **aimed, edit='packet["Content"].value = Raw(load=b"never said")'):
        (forged, _), _ = await ends.across(*both)
        assert b"never said" in forged
    crafted = [packet(9).hex()]
    inject = breaker.fault("inject", LINK, sender="csr1", hex=crafted, times=2, every_ms=20.0)
    await breaker.injector.run([inject], epoch_s=time.monotonic())
    row = breaker.injector.rows[inject.fault_id]
    assert (row.verified, row.packets_hit) == (True, 2)
    assert [datagram for datagram, _ in await ends.across(back=True)] == [packet(9)] * 2
    missed = breaker.fault("drop", LINK, message="login")
    await breaker.injector.apply(missed)
    row = await breaker.injector.heal(missed.fault_id)
    assert (row.verified, row.packets_matched, row.detail) == (False, 0, "no packet that it was meant for came by")


async def strike_processes(breaker: Breaker, network: EmulatedNetwork, plan: NetworkPlan) -> None:
    def state(process: str) -> str:
        return read_process_state(network.processes[process].pid)

    async with breaker.broken("crash", "csr1.proxy"):
        assert state("csr1.proxy") == "dead"
    async with breaker.broken("login-outage", "login", how="freeze"):
        assert state("login.forwarder") == "frozen"
    await breaker.injector.apply(breaker.fault("freeze", "ue1"))
    async with breaker.broken("thaw", "ue1"):
        assert state("ue1.forwarder") == "running"
    before = network.processes["csr1.proxy"].pid
    async with breaker.broken("restart", "csr1.proxy"):
        assert (state("csr1.proxy"), network.processes["csr1.proxy"].pid != before) == ("running", True)
    for path in log_files(plan, "csr1")[:1]:
        path.write_bytes(b"a digest log")
        async with breaker.broken("disk-loss", "csr1.proxy"):
            assert (state("csr1.proxy"), path.exists()) == ("dead", False)
    async with breaker.broken("starve", "core1", cpu_ratio=0.2, period_ms=20.0):
        seen = []
        for _ in range(150):
            seen.append(state("core1.forwarder"))
            await trio.sleep(0.002)
        assert 0.6 < seen.count("frozen") / len(seen) < 0.95
        assert network.process_state("core1.forwarder") == "running"  # as far as faults go
    assert (await network.request("core1.forwarder", "ping"))["ok"]
