"""A forwarder in any history: whatever comes in whatever order, its books agree and nothing is left in the end."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core.liveness import State
from proxy.wire.lp import LinkPacket, NackReason, encode_link_packet, encode_nack
from proxy.wire.name import component, from_uri, to_uri
from proxy.wire.packet import decode_data, encode_data, full_name
from proxy.wire.tlv import PACKET_MAX_BYTES
from tests.unit.proxy.core.bench import Bench, Sent, idle, interest_wire

LINKS = (1, 2, 3, 4)
#: 1 is the best way to /p, 2 and 3 are others; /all goes everywhere; /p/1/9 is answered by Data named /p/1/9/x.
ROUTES = {"/p": [(1, 1.0), (2, 2.0), (3, 3.0)], "/all": [(face, 1.0) for face in LINKS], "/": [(2, 9.0)]}
PIT_MAX, CS_MAX, CS_MAX_BYTES = 12, 6, 2_000

uris = st.sampled_from(["/p/1", "/p/1/9", "/p/2", "/all/1", "/elsewhere", "/app/1", "/localhost/x"])
answers = [encode_data(from_uri(uri), bytes(size), freshness_ms=fresh)
           for uri in ("/p/1", "/p/1/9/x", "/p/2", "/all/1", "/elsewhere", "/app/1")
           for size, fresh in ((0, 0), (100, 1_000), (1_900, 5_000))]  # fmt: skip
links = st.sampled_from(LINKS)


class AnyForwarding(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            ROUTES, pit_max_entries=PIT_MAX, cs_max_entries=CS_MAX, cs_max_bytes=CS_MAX_BYTES, pit_share_ratio=0.5
        )
        self.applications: list[int] = []
        self.nonce = 0

    def faces(self) -> list[int]:
        return [*LINKS, 0, *self.applications]

    def note(self, sent: list[Sent], *, came_from: int | None = None, at_once: bool = True) -> None:
        """No Interest goes to a face that is not there or not up, straight back, or off the node where it must not."""
        for face, what, uri in sent:
            assert face in self.bench.forwarder.faces
            if what in ("interest", "detour"):
                assert self.bench.forwarder.faces[face].is_up or not at_once
                assert face != came_from
                assert not uri.startswith("/localhost") or self.bench.forwarder.faces[face].is_local

    @rule(
        uri=uris,
        at=st.integers(0, 9),
        same=st.booleans(),
        flags=st.integers(0, 7),
        lifetime_ms=st.sampled_from([100, 4_000]),
    )
    def interest(self, uri: str, at: int, same: bool, flags: int, lifetime_ms: int) -> None:  # noqa: FBT001
        face = self.faces()[at % len(self.faces())]
        self.nonce += not same
        properties: dict[str, Any] = {"can_be_prefix": bool(flags & 1), "must_be_fresh": bool(flags & 2)}
        if flags & 4 and not uri.startswith("/localhost"):
            digest = full_name(decode_data(answers[flags % len(answers)]))
            uri = to_uri(from_uri(uri) + digest[-34:])
        self.note(
            self.bench.interest(face, uri, self.nonce, lifetime_ms=lifetime_ms, hop_limit=3, **properties),
            came_from=face,
        )

    @rule(data=st.sampled_from(answers), at=st.integers(0, 9), pieces=st.booleans())
    def data(self, data: bytes, at: int, pieces: bool) -> None:  # noqa: FBT001
        face = self.faces()[at % len(self.faces())]
        waiting = {
            asker
            for entry in self.bench.forwarder.pit.matches(decode_data(data))
            for asker, record in entry.in_records.items()
            if record.expiry_s > self.bench.now_s and asker != face
        }
        sent = self.bench.packet(face, data)
        assert {to for to, what, _ in sent if what in ("data", "fragment")} <= waiting
        if pieces and face in LINKS:  # a fragment that stays alone
            piece = LinkPacket(data, sequence=self.nonce * 3, frag_index=0, frag_count=2)
            self.note(self.bench.packet(face, encode_link_packet(piece)))

    @rule(face=links, reason=st.sampled_from(NackReason), uri=uris, back=st.integers(0, 3))
    def nack(self, face: int, reason: NackReason, uri: str, back: int) -> None:
        sent = [fragment for at, fragment in self.bench.sent_fragments() if at == face and fragment[0] == 5]
        of = sent[-1 - back] if len(sent) > back and len(sent[-1 - back]) < 1_000 else interest_wire(uri, self.nonce)
        self.note(self.bench.packet(face, encode_nack(of, reason)))

    @rule(face=links, up=st.booleans())
    def carrier(self, face: int, up: bool) -> None:  # noqa: FBT001
        self.note(self.bench.carrier(face, up=up))
        if up:
            self.note(self.bench.packet(face, idle(State.INIT)))
            self.note(self.bench.packet(face, idle(State.UP)))

    @precondition(lambda self: len(self.applications) < 3)
    @rule()
    def attach(self) -> None:
        face = self.bench.forwarder.add_local_face()
        assert self.bench.forwarder.fib.register(component("app"), face, 0.0)
        self.applications.append(face)

    @precondition(lambda self: self.applications)
    @rule(which=st.integers(0, 2))
    def detach(self, which: int) -> None:
        face = self.applications.pop(which % len(self.applications))
        self.note(self.bench.remove(face))

    @rule(tenths=st.integers(1, 30), hearing=st.sets(links))
    def let_time_pass(self, tenths: int, hearing: set[int]) -> None:
        self.note(self.bench.live(tenths / 10, hearing=sorted(hearing)), at_once=False)

    @invariant()
    def bounded(self) -> None:
        counters = self.bench.counters
        assert counters["pit_entries"] <= PIT_MAX
        assert counters["cs_entries"] <= CS_MAX
        assert counters["cs_bytes"] <= CS_MAX_BYTES
        assert counters.get("malformed", 0) == 0
        assert all(len(packet) <= PACKET_MAX_BYTES for _, packet in self.bench.sent_packets)

    @invariant()
    def books_agree(self) -> None:
        pit = self.bench.forwarder.pit
        entries = list(pit)
        assert pit._prefix_entries == sum(entry.key[1] for entry in entries)
        assert pit._digest_entries == sum(entry.has_digest for entry in entries)
        assert sum(pit._held.values()) == len(entries)
        for entry in entries:
            assert entry.key in pit.timers
            assert {*entry.in_records, *entry.out_records} <= {*self.bench.forwarder.faces}
            assert {hop.face_id for hop in entry.next_hops} <= {*self.bench.forwarder.faces}

    def teardown(self) -> None:
        """Whatever happened: when nobody asks any more, nothing is pending; and a new Interest finds its way."""
        for face in self.applications:
            self.bench.remove(face)
        for face in LINKS:
            self.carrier(face, True)
        self.bench.live(61.0)
        assert self.bench.counters["pit_entries"] == 0
        assert self.bench.forwarder.pit._held == {}
        assert self.bench.forwarder.deadline_s > self.bench.now_s - 0.2
        assert self.bench.interest(4, "/p/new", 2**31) == [(1, "interest", "/p/new")]


TestForwarding = AnyForwarding.TestCase
TestForwarding.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
