"""What a forwarder grants to applications that ask by the NFD Management protocol, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from msgspec import Struct

from proxy.config import FaceConfig, ForwarderConfig, NextHopConfig, RouteConfig
from proxy.core.events import ApplicationLeft, Effect, Log, PacketReceived, Send, TimerExpired
from proxy.core.forwarder import Forwarder
from proxy.core.liveness import State
from proxy.core.management import COMMAND_AGE_MAX_MS, COMMANDS_BURST, COMMANDS_MAX, DATASETS_MAX, ROUTES_MAX
from proxy.records import PrefixChanged
from proxy.wire.lp import LinkPacket, NackReason, decode_link_packet, encode_link_packet
from proxy.wire.management import PREFIX, ControlParameters, decode_parameters, encode_parameters
from proxy.wire.name import SEGMENT, component, from_uri, number, split, to_uri
from proxy.wire.packet import INTEREST, decode_data, peek_interest
from proxy.wire.tlv import elements, tlv
from tests.unit.proxy.core.bench import idle, interest_wire

LINK = 1
NOW_S = 100.0
TIME_MS = 1_700_000_000_000


class Answer(Struct):
    code: int
    text: str
    body: ControlParameters


class Node:
    """A forwarder with one link; applications attach to it and command."""

    def __init__(self) -> None:
        config = ForwarderConfig(
            faces=(FaceConfig(LINK, "a-b", "a-eth0", "10.0.0.0", "10.0.0.1", "b"),),
            routes=(RouteConfig("/far", (NextHopConfig(LINK, 1.0),)),),
        )
        self.forwarder = Forwarder(config, node="a", seed=1, local_attached=True)
        self.now_s = NOW_S
        self.records: list[PrefixChanged] = []
        self._numbers = iter(range(1, 100_000))
        self.forwarder.handle(TimerExpired(), now_s=NOW_S)
        self.forwarder.handle(PacketReceived(LINK, idle(State.INIT)), now_s=NOW_S)

    @property
    def counters(self) -> dict[str, int]:
        return self.forwarder.counters_now()

    def attach(self) -> int:
        face_id = self.forwarder.add_local_face()
        self.forwarder.management.face_added(face_id, remote_uri=f"fd://{face_id}", local_uri="unix:///nfd.sock")
        return face_id

    def leave(self, face_id: int) -> None:
        self._sent(self.forwarder.handle(ApplicationLeft(face_id), now_s=self.now_s))

    def pass_time(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.packet(LINK, idle(State.UP))  # the link must not be missed
        self._sent(self.forwarder.handle(TimerExpired(), now_s=self.now_s))

    def packet(self, face_id: int, wire: bytes) -> list[tuple[int, bytes]]:
        return list(self._sent(self.forwarder.handle(PacketReceived(face_id, wire), now_s=self.now_s)))

    def _sent(self, effects: list[Effect]) -> Iterator[tuple[int, bytes]]:
        packets = []
        for effect in effects:
            if isinstance(effect, Send):
                packets.append((effect.face_id, effect.packet))
            elif isinstance(effect, Log) and isinstance(effect.record, PrefixChanged):
                self.records.append(effect.record)
        return iter(packets)

    def command_wire(self, verb: str, parameters: ControlParameters, *, time_ms: int = TIME_MS) -> bytes:
        name = from_uri(f"/localhost/nfd/{verb}") + component(encode_parameters(parameters))
        name += component(time_ms.to_bytes(8, "big")) + component(next(self._numbers).to_bytes(8, "big"))
        name += component(tlv(0x16, b"\x1b\x01\x00"))
        name += component(tlv(0x17, hashlib.sha256(name).digest()))
        return tlv(INTEREST, tlv(7, name) + b"\x0a\x04" + next(self._numbers).to_bytes(4, "big"))

    def ask(self, face_id: int, wire: bytes) -> Answer:
        """Send a command; return what its answer says."""
        ((to, packet),) = self.packet(face_id, wire)
        data = decode_data(packet)
        assert (to, data.name) == (face_id, peek_interest(wire).name)
        ((kind, start, end),) = elements(data.content, 0, len(data.content))
        assert kind == 0x65
        code, text, body = [(at, stop) for _, at, stop in elements(data.content, start, end)]
        return Answer(
            int.from_bytes(data.content[slice(*code)], "big"),
            data.content[slice(*text)].decode(),
            decode_parameters(tlv(0x68, data.content[slice(*body)])),
        )

    def command(self, asking: int, verb: str, **fields: object) -> Answer:
        return self.ask(asking, self.command_wire(verb, ControlParameters(**fields)))  # type: ignore[arg-type]

    def register(self, asking: int, prefix: str, **fields: object) -> Answer:
        return self.command(asking, "rib/register", name=from_uri(prefix), **fields)

    def asked(self, uri: str) -> list[int]:
        """Return whom an Interest from the link is passed on to."""
        sent = self.packet(LINK, interest_wire(uri, next(self._numbers)))
        return [to for to, packet in sent if to != LINK and packet[0] == INTEREST]


def test_a_registered_prefix_leads_to_who_registered_it_until_it_leaves() -> None:
    node = Node()
    first, second = node.attach(), node.attach()
    answer = node.register(first, "/demo", cost=10)
    assert (answer.code, answer.text) == (200, "OK")
    assert answer.body == ControlParameters(name=from_uri("/demo"), face_id=first, origin=0, cost=10, flags=1)
    assert node.asked("/demo/1") == [first]
    assert node.register(second, "/demo", cost=5).code == 200
    assert node.asked("/demo/2") == [second]
    node.leave(second)
    assert node.asked("/demo/3") == [first]
    assert node.command(first, "rib/unregister", name=from_uri("/demo")).code == 200
    assert node.asked("/demo/4") == []
    assert [(record.prefix, record.state) for record in node.records] == [
        ("/demo", "registered"),
        ("/demo", "unregistered"),
    ]


def test_a_route_runs_out_unless_it_is_refreshed_in_time() -> None:
    """``rib/register`` with ExpirationPeriod, as NDNts registers."""
    node = Node()
    first, second = node.attach(), node.attach()
    assert node.register(first, "/demo", cost=10, expiration_period_ms=2_000).body.expiration_period_ms == 2_000
    node.register(second, "/demo", cost=5, expiration_period_ms=1_000)
    assert node.forwarder.management.deadline_s == NOW_S + 1.0
    assert node.forwarder.deadline_s <= NOW_S + 1.0
    node.pass_time(0.9)
    assert node.asked("/demo/1") == [second]
    node.pass_time(0.2)
    assert node.asked("/demo/2") == [first]
    node.register(first, "/demo", expiration_period_ms=2_000)
    node.pass_time(1.5)
    assert node.asked("/demo/3") == [first]
    node.register(first, "/demo")  # for good
    node.pass_time(10.0)
    assert node.asked("/demo/4") == [first]
    assert node.counters["routes_expired"] == 1
    assert [record.state for record in node.records] == ["registered"]


def test_a_route_that_ran_out_is_withdrawn_everywhere() -> None:
    node = Node()
    node.register(node.attach(), "/demo", expiration_period_ms=1_000)
    leaving = node.attach()
    node.register(leaving, "/other", expiration_period_ms=1_000)
    node.leave(leaving)
    node.pass_time(5.0)
    assert node.asked("/demo/1") == []
    assert [(record.prefix, record.state) for record in node.records] == [
        ("/demo", "registered"),
        ("/other", "registered"),
        ("/other", "unregistered"),
        ("/demo", "unregistered"),
    ]
    assert node.forwarder.management.deadline_s is None


@pytest.mark.parametrize("uri", ["/localhost/nfd/rib/register", "/localhost/nfd/nothing", "/localhost/nfd/faces/list"])
def test_answers_of_the_management_bring_back_the_pit_token(uri: str) -> None:
    node = Node()
    face = node.attach()
    wire = interest_wire(uri, 1, can_be_prefix=True)
    if uri.endswith("register"):
        wire = node.command_wire("rib/register", ControlParameters(name=from_uri("/demo")))
    ((to, packet),) = node.packet(face, encode_link_packet(LinkPacket(wire, pit_token=b"token")))
    assert (to, decode_link_packet(packet).pit_token) == (face, b"token")


def test_what_an_application_that_leaves_had_registered_is_withdrawn() -> None:
    node = Node()
    face = node.attach()
    for prefix in ("/one", "/two"):
        node.register(face, prefix)
    node.leave(face)
    assert [(record.prefix, record.state) for record in node.records[2:]] == [
        ("/one", "unregistered"),
        ("/two", "unregistered"),
    ]
    assert len(node.forwarder.fib) == 1


def test_a_route_can_lead_to_another_face() -> None:
    node = Node()
    face = node.attach()
    assert node.register(face, "/elsewhere", face_id=LINK).body.face_id == LINK
    assert node.register(face, "/elsewhere", face_id=77).code == 410
    assert [to for to, _ in node.packet(face, interest_wire("/elsewhere/1", 1))] == [LINK]
    node.leave(face)
    assert [to for to, _ in node.packet(node.attach(), interest_wire("/elsewhere/2", 2))] == [LINK]


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        ("/localhost/demo", 403),
        ("/hconf", 403),
        ("/hconf/b/demo", 403),
        ("/hconf/a", 403),
        ("/hconf/a/32=notify", 403),
        ("/hconf/32=all", 403),
        ("/hconf/a/demo", 200),
        ("/hconfx", 200),
        ("/", 200),
        ("/" + "/".join("abcdefghijklmnopqrstuvwxyz012345"), 414),
        ("/" + "/".join("abcdefghijklmnopqrstuvwxyz01234"), 200),
    ],
)
def test_names_of_the_control_plane_are_not_an_applications_to_serve(prefix: str, code: int) -> None:
    node = Node()
    face = node.attach()
    assert node.register(face, prefix).code == code
    assert node.counters.get("commands", 0) == (code == 200)
    if code == 403:
        assert node.counters["refused_command_reserved_name"] == 1
        strategy = from_uri("/localhost/nfd/strategy/multicast")
        assert node.command(face, "strategy-choice/set", name=from_uri(prefix), strategy=strategy).code == 403


def test_commands_that_lack_something_are_refused() -> None:
    node = Node()
    face = node.attach()
    assert node.command(face, "rib/register").code == 400
    assert node.command(face, "strategy-choice/set", name=from_uri("/demo")).code == 400
    unsigned = from_uri("/localhost/nfd/rib/register") + component(
        encode_parameters(ControlParameters(name=from_uri("/demo")))
    )
    assert node.ask(face, tlv(INTEREST, tlv(7, unsigned) + b"\x0a\x04abcd")).code == 401
    assert node.asked("/demo/1") == []
    assert node.counters["refused_command_unsigned"] == 1


def test_a_repeated_command_is_refused_whoever_repeats_it() -> None:
    node = Node()
    face, other = node.attach(), node.attach()
    wire = node.command_wire("rib/register", ControlParameters(name=from_uri("/demo")))
    assert node.ask(face, wire).code == 200
    again = wire[:-4] + b"\0\0\0\7"  # as another Interest
    assert node.ask(other, again).code == 403
    assert node.asked("/demo/1") == [face]
    old = node.command_wire(
        "rib/register", ControlParameters(name=from_uri("/old")), time_ms=TIME_MS - COMMAND_AGE_MAX_MS - 1
    )
    assert node.ask(face, old).code == 403
    assert node.counters["refused_command_replayed"] == 2


def test_commands_from_a_neighbour_are_dropped_and_counted() -> None:
    node = Node()
    wire = node.command_wire("rib/register", ControlParameters(name=from_uri("/demo")))
    assert node.packet(LINK, wire) == []
    assert node.counters["refused_scope"] == 1
    assert node.counters.get("commands", 0) == 0


def test_what_there_is_not_is_refused_at_once() -> None:
    node = Node()
    face = node.attach()
    for uri in (
        "/localhost/nfd/faces/events",
        "/localhost/nfd/faces/list/v=1/seg=0",
        "/localhost/nfd",
        "/localhost/nfd/x",
    ):
        ((to, packet),) = node.packet(face, interest_wire(uri, 7))
        assert (to, decode_link_packet(packet).nack_reason) == (face, NackReason.NO_ROUTE)
    assert node.counters["refused_command_unknown"] == 4


def test_routes_are_limited_and_those_that_are_there_can_be_changed() -> None:
    node = Node()
    face = node.attach()
    for at in range(ROUTES_MAX):
        assert node.register(face, f"/{at}").code == 200
    assert node.register(face, "/more").code == 403
    assert node.register(face, "/7", cost=3).code == 200
    assert node.command(face, "rib/unregister", name=from_uri("/7")).code == 200
    assert node.register(face, "/more").code == 200


def test_who_commands_without_end_is_refused_and_others_are_not() -> None:
    node = Node()
    face, other = node.attach(), node.attach()
    codes = [node.register(face, "/demo").code for _ in range(COMMANDS_BURST + 10)]
    assert codes == [200] * COMMANDS_BURST + [503] * 10
    assert node.counters["refused_command_too_many"] == 10
    assert node.register(other, "/demo").code == 200


def test_what_is_remembered_of_applications_is_bounded() -> None:
    node = Node()
    for _ in range(COMMANDS_MAX + 10):
        face = node.attach()
        assert node.register(face, "/demo").code == 200
        node.leave(face)
    management = node.forwarder.management
    assert len(management._seen) == COMMANDS_MAX
    assert (management._newest_ms, management._routes) == ({}, {})
    assert list(management._uris) == [LINK]


def test_a_strategy_is_chosen_by_its_name_of_whatever_version() -> None:
    node = Node()
    face, other = node.attach(), node.attach()
    for each in (face, other):
        node.register(each, "/demo")
    assert node.asked("/demo/1") == [face]
    multicast = from_uri("/localhost/nfd/strategy/multicast/v=4")
    answer = node.command(face, "strategy-choice/set", name=from_uri("/demo"), strategy=multicast)
    assert (answer.code, to_uri(answer.body.strategy or b"")) == (200, "/localhost/nfd/strategy/multicast")
    assert node.asked("/demo/2") == [face, other]
    for unknown in ("/localhost/nfd/strategy/access", "/localhost/nfd/strategy", "/multicast"):
        assert node.command(face, "strategy-choice/set", name=from_uri("/x"), strategy=from_uri(unknown)).code == 404


# ---------------------------------------------------------------------- datasets


def ask_dataset(node: Node, face_id: int, name: str, *, can_be_prefix: bool = True) -> list[bytes]:
    wire = interest_wire(name, 7, can_be_prefix=can_be_prefix, must_be_fresh=True)
    return [packet for to, packet in node.packet(face_id, wire) if to == face_id]


def test_a_long_dataset_comes_in_segments_that_can_be_asked_for() -> None:
    node = Node()
    faces = [node.attach() for _ in range(300)]
    (first,) = ask_dataset(node, faces[0], "/localhost/nfd/faces/list")
    data = decode_data(first)
    last = split(data.name)[-1]
    assert last == (SEGMENT, b"\0")
    contents, at = [data.content], 1
    while True:
        name = data.name[: -len(number(0, SEGMENT))] + number(at, SEGMENT)
        found = ask_dataset(node, faces[0], to_uri(name), can_be_prefix=False)
        if decode_link_packet(found[0]).nack_reason is not None:
            break
        contents.append(decode_data(found[0]).content)
        at += 1
    whole = b"".join(contents)
    assert len(contents) > 2
    assert len([kind for kind, _, _ in elements(whole, 0, len(whole)) if kind == 0x80]) == 301
    assert first.count(b"\x1a\x03" + number(at - 1, SEGMENT)) == 1  # FinalBlockId


def test_datasets_kept_are_few() -> None:
    node = Node()
    face = node.attach()
    names = [decode_data(ask_dataset(node, face, "/localhost/nfd/status/general")[0]).name]
    for at in range(DATASETS_MAX):
        node.forwarder.management.unix_offset_s = float(at + 1)
        names.append(decode_data(ask_dataset(node, face, "/localhost/nfd/status/general")[0]).name)
    assert decode_link_packet(ask_dataset(node, face, to_uri(names[0]))[0]).nack_reason is not None
    assert ask_dataset(node, face, to_uri(names[-1]))[0][0] == 6


def test_a_dataset_asked_for_by_its_bare_name_alone_is_not_answered() -> None:
    node = Node()
    assert ask_dataset(node, node.attach(), "/localhost/nfd/faces/list", can_be_prefix=False) == []


def test_malformed_names_under_the_prefix_are_counted() -> None:
    node = Node()
    face = node.attach()
    name = PREFIX + b"\x08\x09a"
    assert node.packet(face, tlv(INTEREST, tlv(7, name) + b"\x0a\x04abcd")) == []
    assert node.counters["malformed"] == 1
