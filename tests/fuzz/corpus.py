"""What cores really receive, recorded from a simulated conference; cores brought back to the middle of it; broken packets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from proxy.core.build import build_core
from proxy.core.events import (
    CloseRequested,
    Core,
    Effect,
    Event,
    JoinRequested,
    PacketReceived,
    PublishRequested,
    TimerExpired,
)
from proxy.core.host import Host
from proxy.wire import message_names, messages
from proxy.wire.message_names import ALL_PROXIES, MESSAGE_TYPES, message_name, node_prefix
from proxy.wire.packet import encode_data, encode_interest
from proxy.wire.payload import encode
from testbed.plan import PROXYLESS_MODES, Mode, NetworkPlan
from testbed.simulation.network import SimulatedNetwork
from tests.simulated.interception import Handler, intercept
from topologies.catalogue import build

#: Which cores are fuzzed: process, and whether it is the application in it.
TARGETS = {
    "forwarder of a core router": ("core1.forwarder", False),
    "forwarder of a CSR": ("csr1.forwarder", False),
    "service proxy": ("csr1.proxy", False),
    "forwarder of a UE": ("ue1.forwarder", False),
    "service client": ("ue1.forwarder", True),
    "login server": ("login.forwarder", True),
    "participant of svs": ("ue1.forwarder", True),
    "participant of psync": ("ue1.forwarder", True),
}
#: The mode in which a target is found, where that is not the usual one.
MODES: dict[str, Mode] = {"participant of svs": "svs", "participant of psync": "psync"}


@dataclass
class Recording:
    """Everything that one core was told, in order, and where the middle of it is."""

    config: Any
    is_application: bool
    events: list[tuple[float, Event]] = field(default_factory=list)
    middle: int = 0

    @property
    def packets(self) -> list[bytes]:
        return [event.packet for _, event in self.events if isinstance(event, PacketReceived)]

    def core_in_the_middle(self) -> tuple[Core, float]:
        """Return a fresh core that has seen the first half, and the time."""
        core: Any = build_core(self.config)
        if isinstance(core, Host):
            core = core.application if self.is_application else core.forwarder
        now_s = 0.0
        for now_s, event in self.events[: self.middle]:
            core.handle(event, now_s=now_s)
        return core, now_s


@cache
def recordings() -> dict[str, Recording]:
    """Return one recording per target; everybody joins, publishes across a lossy network, and two leave."""
    found: dict[str, Recording] = {}
    for mode in dict.fromkeys(MODES.get(title, "hybrid") for title in TARGETS):
        found |= _recordings_in(mode)
    return found


def _recordings_in(mode: Mode) -> dict[str, Recording]:
    topology = build("tiers", {"cores": 3, "csrs": 2, "ues_per_csr": 2})
    if mode in PROXYLESS_MODES:
        topology = topology.served_by(())
    network = SimulatedNetwork(NetworkPlan("corpus", topology, 3, Path("nowhere"), mode=mode))
    found = {}
    for title, (process, is_application) in TARGETS.items():
        if MODES.get(title, "hybrid") != mode:
            continue
        simulated: Any = network.processes[process]
        recording = found[title] = Recording(simulated.config, is_application)
        intercept(simulated, _noting(recording), application=is_application)
    network.run_until(network.now_s + 0.4)
    for ue in topology.ues:
        network.send(ue, JoinRequested())
    network.run_until(network.now_s + 1.0)
    for recording in found.values():
        recording.middle = len(recording.events)
    for _ in range(3):
        for ue in topology.ues:
            network.send(ue, PublishRequested("message", b"hello, world"))
        network.run_until(network.now_s + 0.1)
    for channel in network.links["core1-csr1"].channels.values():
        channel.change(msgspec.structs.replace(channel.impairment, loss_ratio=0.3))
    for _ in range(12):
        network.send("ue3", PublishRequested("message", b"hello, world"))
    network.run_until(network.now_s + 1.0)
    network.send("ue2", CloseRequested())
    network.run_until(network.now_s + 0.5)
    return found


def _noting(recording: Recording) -> Handler:
    def note(handle: Callable[..., list[Effect]], event: Event, now_s: float) -> list[Effect]:
        recording.events.append((now_s, event))
        return handle(event, now_s=now_s)

    return note


def live_on(core: Core, now_s: float, *, steps: int = 12) -> None:
    """Let *core* do what it has set itself to do."""
    for _ in range(steps):
        deadline_s = core.deadline_s
        if deadline_s is None:
            return
        now_s = max(now_s, deadline_s)
        core.handle(TimerExpired(), now_s=now_s)


# ---------------------------------------------------------------------- broken packets


@st.composite
def mutations(draw: st.DrawFn, packets: list[bytes]) -> bytes:
    """Take a real packet and damage it: octets changed, cut out, put in, two packets spliced."""
    packet = bytearray(draw(st.sampled_from(packets)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(packet) - 1)))
        match draw(st.sampled_from(["change", "cut", "insert", "splice", "truncate"])):
            case "change" if packet:
                packet[at] = draw(st.integers(0, 255))
            case "cut":
                del packet[at : at + draw(st.integers(1, 8))]
            case "insert":
                packet[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "splice":
                other = draw(st.sampled_from(packets))
                packet[at:] = other[draw(st.integers(0, len(other))) :]
            case "truncate":
                del packet[at:]
    return bytes(packet)


# ---------------------------------------------------------------------- well-formed packets that say anything

IDENTIFIERS = ["main", "csr1", "csr2", "ue1", "ue2", "ue3", "login", "elsewhere"]
MESSAGES = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
MESSAGES.remove(msgspec.Struct)
#: Fields that carry another message in encoded form.
ENCODED = {
    ("SignedUpdate", "update"): messages.FpUpdate,
    ("StreamEntry", "content"): messages.SyncUpdate,
    ("SignedToken", "token"): messages.Token,
    ("Sealed", "content"): messages.ClientHeartbeat,
}
#: What the parameters of an Interest, and the content of a Data, hold.
PARAMETERS = {
    message_names.LOGIN: messages.LoginRequest,
    message_names.JOIN: messages.JoinRequest,
    message_names.UPDATE: messages.SignedUpdate,
    message_names.NOTIFY: messages.Notification,
    message_names.PUSH: messages.StreamEntry,
    message_names.HEARTBEAT: messages.Sealed,
    message_names.PRESENCE: messages.ClientHeartbeat,
    message_names.RECOVER: messages.RecoveryRequest,
    message_names.CLOSE: messages.CloseRequest,
    message_names.KEYS: messages.KeysRequest,
    message_names.REVOKE: messages.Sealed,
    message_names.SERVE: messages.Sealed,
}
CONTENTS = {
    message_names.LOGIN: messages.Sealed,
    message_names.JOIN: messages.Sealed,
    message_names.UPDATE: messages.UpdateAck,
    message_names.SYNC: messages.SyncUpdate,
    message_names.RECOVER: messages.Sealed,
    message_names.CLOSE: messages.UpdateAck,
    message_names.KEYS: messages.KeysReply,
    message_names.SERVE: messages.ServeReply,
    message_names.PUBLICATION: messages.SignedUpdate,
    message_names.CERTIFICATE: messages.SignedToken,
}
numbers = st.integers(0, 12) | st.integers(0, 2**63 - 1)


@cache
def message_values(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return every valid value of a message, more often than chance would have it one that concerns the conference."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = {}
    for each in info.fields:
        carried = ENCODED.get((kind.__name__, each.name))
        values = _values(each.type)
        fields[each.encode_name] = values if carried is None else values | message_values(carried).map(encode)
    return st.builds(kind, **fields)


def _values(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each type
    inspect = msgspec.inspect
    match info:
        case inspect.IntType():
            return numbers.map(lambda value: min(max(value, info.ge or 0), info.le or value))
        case inspect.StrType():
            longest = min(info.max_length or 70, 70)
            return st.sampled_from(IDENTIFIERS) | st.text(min_size=info.min_length or 0, max_size=longest)
        case inspect.BytesType():
            return st.binary(min_size=info.min_length or 0, max_size=min(info.max_length or 40, 40))
        case inspect.FloatType(ge=lowest, le=highest):
            return st.floats(lowest, highest)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(list(info.values))
        case inspect.TupleType():
            return st.tuples(*map(_values, info.item_types))
        case inspect.VarTupleType():
            return st.lists(_values(info.item_type), max_size=3).map(tuple)
        case inspect.UnionType():
            return st.one_of(*map(_values, info.types))
        case inspect.StructType():
            return message_values(info.cls)
    raise TypeError(f"no values for {info}")


@st.composite
def well_formed_packets(draw: st.DrawFn, to: str) -> bytes:
    """Return a packet to *to* that decodes in every layer; what it says is anything."""
    kind = draw(st.sampled_from(list(MESSAGE_TYPES)))
    to_prefix = draw(st.sampled_from([node_prefix(to), ALL_PROXIES]))
    parts = draw(st.lists(st.sampled_from(IDENTIFIERS) | st.text(min_size=1, max_size=8), max_size=3))
    name = message_name(to_prefix, kind, *parts, boot=draw(numbers), seq=draw(numbers))
    is_data = draw(st.booleans())
    inside = (CONTENTS if is_data else PARAMETERS).get(kind)
    options = [] if inside is None else [message_values(inside).map(encode)]
    payload = draw(st.one_of(st.binary(max_size=30), *options))
    if is_data:
        return encode_data(name, payload, freshness_ms=draw(numbers))
    parameters = draw(st.just(payload) | st.none())
    lifetime_ms = draw(numbers)
    return encode_interest(name, nonce=draw(st.integers(0, 2**32 - 1)), lifetime_ms=lifetime_ms, parameters=parameters)[
        1
    ]
