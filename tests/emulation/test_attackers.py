"""Attacks over a real link, one after the other: each is refused and counted, and the conference does not notice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from experiments.checker import check_invariants
from experiments.history import read_history
from proxy.core.admission import JOIN_REPEAT_S
from proxy.core.signing import Signer
from proxy.core.trust import entry_statement, place_of, seal
from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, PUSH, SYNC, message_name, node_prefix
from proxy.wire.messages import ConferenceState, ProxyHeartbeat, StreamEntry, SyncUpdate
from proxy.wire.name import component, from_uri
from proxy.wire.payload import encode
from testbed.emulation.network import EmulatedNetwork, emulated_network
from testbed.node_config import device_key_seed
from testbed.plan import NetworkPlan
from tests.emulation.attack import Attacker, grant, socket_in_namespace
from tests.simulated.attacker import OWN_KEY
from topologies.model import Link, LinkProperties, Node, Topology

SEED: Final = 7
LIMIT_S: Final = 5.0
_LINK: Final = LinkProperties(delay_ms=2.0)

#: The attacker sits at ue4, whose own program is dead.
TOPOLOGY: Final = Topology(
    "attacked",
    (
        *(Node("core1", "core"), Node("csr1", "csr"), Node("csr2", "csr")),
        *(Node(f"ue{n}", "ue") for n in (1, 2, 3, 4)),
        Node("login", "login"),
    ),
    (
        Link.between("core1", "csr1", "core", _LINK),
        Link.between("core1", "csr2", "core", _LINK),
        Link.between("csr1", "ue1", "access", _LINK),
        Link.between("csr1", "ue2", "access", _LINK),
        Link.between("csr2", "ue3", "access", _LINK),
        Link.between("csr1", "ue4", "access", _LINK),
        Link.between("core1", "login", "login", _LINK),
    ),
)


def key_of(device: str) -> Signer:
    return Signer(device_key_seed(SEED, device))


class Conference:
    """ue1 to ue3, joined, over a real network."""

    def __init__(self, network: EmulatedNetwork) -> None:
        self.network = network

    async def counter(self, process: str, name: str) -> int:
        counters = (await self.network.request(process, "counters"))["counters"]["counters"]
        return int(counters.get(name, 0))

    async def wait_for(self, what: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
        until_s = time.monotonic() + LIMIT_S
        while not wanted(value := await what()):
            assert time.monotonic() < until_s, value
            await trio.sleep(0.02)
        return value

    async def client(self, device: str) -> dict[str, Any]:
        status: dict[str, Any] = (await self.network.request(f"{device}.forwarder", "status"))["status"]["client"]
        return status

    async def join(self, devices: list[str]) -> None:
        for device in devices:
            await self.network.request(f"{device}.forwarder", "join")
        for device in devices:
            await self.wait_for(partial(self.client, device), lambda client: len(client["roster"]) == 3)

    async def goes_on(self) -> None:
        """Assert that an update of ue1 is acked, and that ue3, at the other proxy, sees it."""
        sent = await self.network.request("ue1.forwarder", "publish", event="message", size_bytes=10)
        await self.wait_for(
            lambda: self.client("ue3"), lambda client: ["ue1", 1, sent["seq"]] in [list(h) for h in client["heads"]]
        )
        await self.wait_for(lambda: self.client("ue1"), lambda client: client["unacked"] == 0)


@asynccontextmanager
async def attacked(tmp_path: Path, name: str) -> AsyncIterator[tuple[Conference, Attacker]]:
    plan = NetworkPlan(f"test-{name}-{time.monotonic_ns() % 10**9}", TOPOLOGY, SEED, tmp_path / "run")
    async with emulated_network(plan) as network:
        conference = Conference(network)
        await conference.join(["ue1", "ue2", "ue3"])
        await network.kill_process("ue4.forwarder")
        end = network.addresses.end("csr1-ue4", "ue4")
        with closing(socket_in_namespace(network.host_pid("ue4"), end.address, end.peer_address)) as sock:
            yield conference, Attacker(sock)
        await conference.goes_on()
        quiesced_s = time.monotonic()
        for process in ("csr1.proxy", "csr2.proxy", "ue1.forwarder", "ue2.forwarder", "ue3.forwarder"):
            await network.request(process, "status")
    checks = check_invariants(read_history(plan.raw_dir, crashed=frozenset({"ue4"}), quiesced_s=quiesced_s))
    assert [check for check in checks if check.verdict == "fail"] == []


async def test_forgeries_and_replays(tmp_path: Path) -> None:
    async with attacked(tmp_path, "forge") as (conference, attacker):

        async def refused(reason: str, process: str = "csr1.proxy") -> None:
            await conference.wait_for(lambda: conference.counter(process, reason), lambda count: count >= 1)

        login, ue1, ue4 = key_of("login"), key_of("ue1"), key_of("ue4")
        # updates
        attacker.send_update("csr1", "ue1", OWN_KEY, seq=2)
        await refused("refused_fingerprint_of_other_key")
        attacker.send_update("csr1", "ue1", OWN_KEY, seq=2, claimed_key=ue1.public_key)
        await refused("refused_update_forged")
        attacker.send_update("csr1", "ue1", ue1, seq=1)  # said before, under another text even
        await refused("updates_repeated")
        attacker.send_update("csr1", "ue1", ue1, seq=1_000_000)
        await refused("refused_sequence_jump")
        attacker.send_update("csr1", "ue4", ue4, seq=1)
        await refused("refused_not_joined")
        # joins
        attacker.send_join("csr1", "ue1", grant(login, "ue1", ue1), OWN_KEY, number=90)
        await refused("refused_join_without_key")
        attacker.send_join("csr1", "ue4", grant(login, "ue1", ue1), ue4, number=1)
        await refused("refused_token_of_other_device")
        attacker.send_join("csr1", "ue4", grant(OWN_KEY, "ue4", ue4), ue4, number=2)
        await refused("refused_token_forged")
        attacker.send_join("csr1", "ue4", grant(login, "ue4", ue4, for_s=-1.0), ue4, number=3)
        await refused("refused_token_expired")
        attacker.send_join("csr1", "ue4", grant(login, "ue4", ue4, conference="other"), ue4, number=4)
        await refused("refused_token_of_other_conference")
        # proxies
        entry = StreamEntry("csr2", 1, 100, "push", b"")
        unsigned = SyncUpdate(bytes(range(16)), ())
        signature = OWN_KEY.sign(entry_statement("main", entry, unsigned))
        content = encode(SyncUpdate(bytes(range(16)), (), signature=signature))
        name = message_name(node_prefix("csr1"), PUSH, "main", "csr2", boot=1, seq=100)
        attacker.send(name, StreamEntry("csr2", 1, 100, "push", content))
        await refused("refused_sync_update_forged")
        beat = ProxyHeartbeat((ConferenceState("main", bytes(16), (("csr2", 1, 10**9),)),))
        place = place_of(HEARTBEAT, "csr2", boot=1, seq=10**6)
        attacker.send(message_name(ALL_PROXIES, HEARTBEAT, "csr2", boot=1, seq=10**6), seal(OWN_KEY, beat, place))
        await refused("refused_seal_forged")
        # packets
        attacker.send(from_uri("/hconf/csr1") + component("x") * 2_500, None)
        await refused("malformed", "csr1.forwarder")
        await trio.sleep(JOIN_REPEAT_S)  # until then it counts as the same join, once more
        attacker.send_join("csr1", "ue2", grant(login, "ue2", key_of("ue2")), key_of("ue2"), number=1)
        await refused("refused_join_replayed")


async def test_a_revoked_device_is_out_and_stays_out(tmp_path: Path) -> None:
    async with attacked(tmp_path, "revoke") as (conference, attacker):
        stolen = grant(key_of("login"), "ue2", key_of("ue2"))
        await conference.network.request("login.forwarder", "revoke", device="ue2")
        await conference.wait_for(lambda: conference.client("ue2"), lambda client: client["state"] == "refused")
        attacker.send_join("csr1", "ue2", stolen, key_of("ue2"), number=50)
        await conference.wait_for(lambda: conference.counter("csr1.proxy", "refused_revoked"), lambda count: count >= 1)


async def test_floods_leave_room_for_others(tmp_path: Path) -> None:
    async with attacked(tmp_path, "flood") as (conference, attacker):
        token = grant(key_of("login"), "ue4", key_of("ue4"))
        for number in range(1_000):
            attacker.send_join("csr1", "ue4", token, key_of("ue4"), number=100 + number)
            if number % 100 == 50:
                await conference.goes_on()
        await conference.wait_for(
            lambda: conference.counter("csr1.proxy", "refused_join_flood"), lambda count: count >= 500
        )
        for number in range(20_000):
            name = message_name(node_prefix("csr1"), SYNC, "nowhere", boot=1, seq=number)
            attacker.send(name, None, lifetime_ms=30_000)
            if number % 200 == 0:
                await trio.sleep(0.01)
            if number % 4_000 == 2_000:
                await conference.goes_on()
        await conference.wait_for(
            lambda: conference.counter("csr1.forwarder", "refused_pit_share"), lambda count: count >= 1_000
        )
