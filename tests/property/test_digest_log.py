"""Whatever a digest log took in, in whatever order: what its journal makes of a disk gives the same log back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.core.digest_log import DigestLog
from proxy.core.events import Persist
from proxy.wire.messages import EMPTY_DIGEST, FpUpdate, SignedUpdate, StreamEntry
from proxy.wire.payload import encode
from testbed.simulation.disk import SimulatedDisk

PROXIES = ("csr1", "csr2", "csr3")
DEVICES = ("ue1", "ue2")


def update(device: str, seq: int) -> SignedUpdate:
    fp_update = FpUpdate("main", device, 1, seq, "message", "", b"", 0.0, EMPTY_DIGEST, EMPTY_DIGEST, b"")
    return SignedUpdate(encode(fp_update), bytes(64))


class AnyLog(RuleBasedStateMachine):
    """Updates of two devices that change their proxy at will; entries reach the log under test in any order."""

    @initialize(history_max_entries=st.sampled_from([1, 3, 10, 1_000]))
    def begin(self, history_max_entries: int) -> None:
        self.history_max_entries = history_max_entries
        self.log = DigestLog(history_max_entries=history_max_entries)
        self.origins = {proxy: DigestLog(history_max_entries=10_000) for proxy in PROXIES}
        self.seqs = dict.fromkeys(DEVICES, 0)
        self.under_way: list[StreamEntry] = []
        self.disk = SimulatedDisk(lambda _delay_s, action: action())
        self.tokens = 0

    @rule(device=st.sampled_from(DEVICES), proxy=st.sampled_from(PROXIES))
    def publish(self, device: str, proxy: str) -> None:
        self.seqs[device] += 1
        signed, origin = update(device, self.seqs[device]), self.origins[proxy]
        origin.view.offer(signed, "push")
        self.under_way.append(origin.append_own(origin.stream(proxy, 1), (signed,)))

    @rule(which=st.integers(0, 1_000))
    def arrive(self, which: int) -> None:
        if self.under_way:
            self.log.add(self.under_way.pop(which % len(self.under_way)))

    @rule()
    def write(self) -> None:
        changes = self.log.take_journal("main")
        if changes:
            self.tokens += 1
            self.disk.put(Persist(self.tokens, tuple(changes)), lambda _: None)

    @rule()
    def take_over_a_snapshot(self) -> None:
        """Of somebody who has everything."""
        ahead = DigestLog(history_max_entries=1)
        for origin in self.origins.values():
            for stream in origin.streams.values():
                for seq in range(1, stream.seq + 1):
                    entry = origin.get(stream.key, seq)
                    assert entry is not None
                    ahead.add(entry)
        self.log.install(ahead.snapshot())

    @rule()
    def crash(self) -> None:
        self.write()
        before = self.log
        self.log = DigestLog(history_max_entries=self.history_max_entries)
        for stored in self.disk.stored():
            assert len(stored.entries) <= self.history_max_entries
            assert self.log.restore(stored) == 0
        assert self.log.vector() == before.vector()
        assert self.log.state_digest() == before.state_digest()
        for head in self.log.view.heads():  # of what came early, only what no entry is missing before is logged
            assert head.seq <= before.view.seq(head.device, head.boot)
        self.under_way += [entry for stream in before.streams.values() for entry in stream.early.values()]

    @invariant()
    def holds_together(self) -> None:
        if hasattr(self, "log"):
            assert self.log.history_entries <= self.history_max_entries

    def teardown(self) -> None:
        """Everything arrives in the end: then everybody has everything, crashes or not."""
        if not hasattr(self, "log"):
            return
        self.crash()
        while self.under_way:
            self.log.add(self.under_way.pop())
        assert {device: self.log.view.seq(device, 1) for device in DEVICES} == self.seqs


TestAnyLog = AnyLog.TestCase
TestAnyLog.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
