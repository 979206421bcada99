"""What a forwarder does for the applications of its node that ask it: the NFD Management protocol, no more than they need.

``rib/register``, ``rib/unregister`` and ``strategy-choice/set`` are commands and must be signed; ``faces/list`` and
``status/general`` are datasets that anybody on the node may read. All of it is under ``/localhost/nfd`` and answered to
local faces only. Sources: the wiki of the protocol, and NFD 24.07 where that says nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

from proxy.config import ROOT, FaceConfig
from proxy.core.events import Effect, Log, Send
from proxy.core.rate_limit import RateLimit
from proxy.core.table.fib import ORIGIN_APPLICATION, Fib, StrategyName
from proxy.core.timers import Timers
from proxy.records import PrefixChanged
from proxy.wire.lp import LinkPacket, NackReason, encode_link_packet, encode_nack
from proxy.wire.management import (
    LOCALHOST,
    PREFIX,
    Command,
    CommandError,
    ControlParameters,
    FaceStatus,
    GeneralStatus,
    PacketCounts,
    decode_command,
    encode_faces,
    encode_general,
    encode_response,
)
from proxy.wire.name import (
    COMPONENTS_MAX,
    GENERIC,
    SEGMENT,
    VERSION,
    boundaries,
    component,
    from_uri,
    number,
    read_number,
    split,
    to_uri,
)
from proxy.wire.packet import Interest, encode_data

VERSION_TEXT: Final = "hconf"
#: Routes that all applications of a node may have at a time.
ROUTES_MAX: Final = 4_096
#: Commands remembered, so that none is carried out twice; by then a repeated one is too old anyway, or others' were many.
COMMANDS_MAX: Final = 4_096
#: Commands of one application: so many at once, and in the long run; each may be told to every other node.
COMMANDS_BURST: Final = 5_000
COMMANDS_PER_S: Final = 100.0
#: How much older than the newest command of its face a command may be (ndn-cxx: 120 s each way, by its own clock).
COMMAND_AGE_MAX_MS: Final = 120_000
#: Bytes of a dataset in one segment; its name and signature need room as well.
SEGMENT_BYTES: Final = 8_000
#: Segmented answers kept for whoever has seen their first segment.
DATASETS_MAX: Final = 8
FRESHNESS_MS: Final = 1_000

#: Flag of a route: longer prefixes inherit it.
CHILD_INHERIT: Final = 1

_STRATEGY_PREFIX: Final = from_uri("/localhost/nfd/strategy")
_STRATEGIES: Final[dict[bytes, StrategyName]] = {
    component("best-route"): "best-route",
    component("multicast"): "multicast",
}


class ManagedFace(Protocol):
    """What management tells of a face."""

    @property
    def is_local(self) -> bool: ...
    @property
    def counts(self) -> PacketCounts: ...


class ManagedForwarder(Protocol):
    """What management needs of the forwarder that it is part of."""

    @property
    def node(self) -> str: ...
    @property
    def fib(self) -> Fib: ...
    @property
    def faces(self) -> Mapping[int, ManagedFace]: ...
    def counters_now(self) -> dict[str, int]: ...


class Management:
    """Answers to applications; *counters* are the forwarder's."""

    def __init__(self, forwarder: ManagedForwarder, links: Iterable[FaceConfig], counters: dict[str, int]) -> None:
        self._forwarder, self._counters = forwarder, counters
        #: seconds from the clock of ``now_s`` to the time since the epoch; the driver knows
        self.unix_offset_s = 0.0
        self.started_s = 0.0  #: by the clock of ``now_s``; the driver knows
        self._uris = {
            link.face_id: (f"udp4://{link.remote_address}:{link.port}", f"udp4://{link.local_address}:{link.port}")
            for link in links
        }
        self._links = frozenset(self._uris)
        self._routes: dict[bytes, dict[int, None]] = {}  #: prefix -> faces that registered it
        self._expiry: Timers[tuple[bytes, int]] = Timers()  #: of routes that are to be refreshed
        self._seen: OrderedDict[bytes, None] = OrderedDict()  #: signatures of commands
        self._limit = RateLimit(per_s=COMMANDS_PER_S, burst=COMMANDS_BURST)
        self._newest_ms: dict[int, int] = {}  #: face -> time of its newest command
        self._datasets: OrderedDict[bytes, list[bytes]] = OrderedDict()  #: versioned name -> segments
        self._own_prefix = from_uri(f"/{ROOT}/") + component(forwarder.node)
        self._commands: dict[tuple[bytes, bytes], Callable[[int, ControlParameters, float], ControlParameters]] = {
            (b"rib", b"register"): self._register,
            (b"rib", b"unregister"): self._unregister,
            (b"strategy-choice", b"set"): self._set_strategy,
        }
        self._encoders: dict[bytes, Callable[[float], bytes]] = {
            PREFIX + component("faces") + component("list"): self._faces,
            PREFIX + component("status") + component("general"): self._general,
        }
        self._effects: list[Effect] = []
        self._pit_token = b""  #: of the Interest that is being answered

    @property
    def deadline_s(self) -> float | None:
        """When the next route runs out."""
        return self._expiry.next_s

    def on_timer(self, *, now_s: float) -> list[Effect]:
        """Take away the routes that nobody has refreshed in time."""
        self._effects = []
        for prefix, face_id in self._expiry.pop_due(now_s):
            self._counters["routes_expired"] += 1
            self._remove_route(prefix, face_id, now_s)
        return self._effects

    # ------------------------------------------------------------------ faces of applications

    def face_added(self, face_id: int, *, remote_uri: str, local_uri: str) -> None:
        """An application has connected; the URIs say how, see ``faces/list``."""
        self._uris[face_id] = (remote_uri, local_uri)

    def face_removed(self, face_id: int, *, now_s: float) -> list[Effect]:
        """An application has gone: what it registered goes with it."""
        self._effects = []
        self._uris.pop(face_id, None)
        self._newest_ms.pop(face_id, None)
        for prefix in [prefix for prefix, faces in self._routes.items() if face_id in faces]:
            self._remove_route(prefix, face_id, now_s)
        return self._effects

    # ------------------------------------------------------------------ Interests

    @staticmethod
    def is_for_it(interest: Interest) -> bool:
        """Tell whether an Interest is to be handed to ``handle``, if it comes from an application of this node."""
        return interest.name.startswith(PREFIX)

    def handle(self, face_id: int, interest: Interest, *, now_s: float, pit_token: bytes = b"") -> list[Effect]:
        """Take in an Interest of an application, return what is to be done. Raises: MalformedError for a broken name."""
        self._effects, self._pit_token = [], pit_token
        if not self._answer_dataset(face_id, interest, now_s):
            parts = split(interest.name)[2:4]
            perform = self._commands.get((parts[0][1], parts[1][1])) if len(parts) == 2 else None
            if perform is None:
                self._counters["refused_command_unknown"] += 1
                nack = encode_nack(interest.wire, NackReason.NO_ROUTE, pit_token=self._pit_token)
                self._effects.append(Send(face_id, nack))
            else:
                self._answer_command(face_id, interest, perform, now_s)
        return self._effects

    def _answer_command(
        self,
        face_id: int,
        interest: Interest,
        perform: Callable[[int, ControlParameters, float], ControlParameters],
        now_s: float,
    ) -> None:
        asked = ControlParameters()
        try:
            command = decode_command(interest)
            asked = command.parameters
            if not self._limit.admits(str(face_id), now_s=now_s):
                raise CommandError("too_many", 503, f"more than {COMMANDS_PER_S:g} commands a second")
            self._check_new(face_id, command)
            response = encode_response(200, "OK", perform(face_id, asked, now_s))
        except CommandError as error:
            self._counters[f"refused_command_{error.reason}"] += 1
            response = encode_response(error.code, error.text, asked)
        else:
            self._counters["commands"] += 1
        self._reply(face_id, interest.name, response)

    def _check_new(self, face_id: int, command: Command) -> None:
        newest_ms = self._newest_ms.get(face_id, 0)
        too_old = command.time_ms is not None and command.time_ms < newest_ms - COMMAND_AGE_MAX_MS
        if too_old or command.signature in self._seen:
            raise CommandError("replayed", 403, "this command was sent before")
        self._seen[command.signature] = None
        if len(self._seen) > COMMANDS_MAX:
            self._seen.popitem(last=False)
        if command.time_ms is not None:
            self._newest_ms[face_id] = max(newest_ms, command.time_ms)

    def _reply(self, face_id: int, name: bytes, content: bytes) -> None:
        try:
            self._send_data(face_id, encode_data(name, content, freshness_ms=FRESHNESS_MS))
        except ValueError:
            self._counters["refused_command_too_long"] += 1  # its name alone fills a packet

    def _send_data(self, face_id: int, data: bytes) -> None:
        token = self._pit_token
        packet = encode_link_packet(LinkPacket(data, pit_token=token)) if token else data
        self._effects.append(Send(face_id, packet))

    # ------------------------------------------------------------------ commands

    def _register(self, asking: int, parameters: ControlParameters, now_s: float) -> ControlParameters:
        prefix, face_id = self._route_of(asking, parameters)
        faces = self._routes.get(prefix)
        if (faces is None or face_id not in faces) and sum(map(len, self._routes.values())) >= ROUTES_MAX:
            raise CommandError("too_many_routes", 403, f"{ROUTES_MAX} routes are registered at this node already")
        cost = parameters.cost or 0
        if not self._forwarder.fib.register(prefix, face_id, float(cost)):
            raise CommandError("too_many_routes", 403, "the forwarding table is full")
        if faces is None:
            faces = self._routes[prefix] = {}
            self._announce(prefix, "registered", now_s)
        faces[face_id] = None
        period_ms = parameters.expiration_period_ms
        if period_ms is None:
            self._expiry.cancel((prefix, face_id))
        else:
            self._expiry.set((prefix, face_id), now_s + period_ms / 1e3)
        return ControlParameters(
            name=prefix,
            face_id=face_id,
            origin=parameters.origin or ORIGIN_APPLICATION,
            cost=cost,
            flags=CHILD_INHERIT if parameters.flags is None else parameters.flags,
            expiration_period_ms=period_ms,
        )

    def _unregister(self, asking: int, parameters: ControlParameters, now_s: float) -> ControlParameters:
        prefix, face_id = self._route_of(asking, parameters)
        self._remove_route(prefix, face_id, now_s)  # of one that is not there, too, says NFD that it is gone
        return ControlParameters(name=prefix, face_id=face_id, origin=parameters.origin or ORIGIN_APPLICATION)

    def _route_of(self, asking: int, parameters: ControlParameters) -> tuple[bytes, int]:
        prefix = parameters.name
        if prefix is None:
            raise CommandError("malformed", 400, "Name is missing")
        depth = len(boundaries(prefix))
        if depth >= COMPONENTS_MAX:
            raise CommandError("name_too_long", 414, f"a prefix has at most {COMPONENTS_MAX - 1} components")
        if prefix.startswith(LOCALHOST):
            raise CommandError("reserved_name", 403, "names under /localhost are for the management of the node")
        if not self._is_free(prefix):
            raise CommandError(
                "reserved_name", 403, f"of names under /{ROOT}, applications have {to_uri(self._own_prefix)}/<name>"
            )
        face_id = parameters.face_id or asking  # 0: whoever asks
        if face_id not in self._uris:
            raise CommandError("no_such_face", 410, "no such face")
        return prefix, face_id

    def _is_free(self, prefix: bytes) -> bool:
        """Tell whether applications may serve a prefix: the conference's control plane needs its names for itself."""
        if not prefix.startswith(component(ROOT)):
            return True
        rest = prefix.removeprefix(self._own_prefix)
        return rest != prefix and bool(rest) and split(rest)[0][0] == GENERIC

    def _remove_route(self, prefix: bytes, face_id: int, now_s: float) -> None:
        faces = self._routes.get(prefix)
        if faces is None or face_id not in faces:
            return
        self._forwarder.fib.unregister(prefix, face_id)
        self._expiry.cancel((prefix, face_id))
        del faces[face_id]
        if not faces:
            del self._routes[prefix]
            self._announce(prefix, "unregistered", now_s)

    def _announce(self, prefix: bytes, state: Literal["registered", "unregistered"], now_s: float) -> None:
        self._effects.append(Log(PrefixChanged(now_s, self._forwarder.node, to_uri(prefix), state)))

    def _set_strategy(self, _asking: int, parameters: ControlParameters, _now_s: float) -> ControlParameters:
        if parameters.name is None or parameters.strategy is None:
            raise CommandError("malformed", 400, "Name or Strategy is missing")
        wanted = parameters.strategy.removeprefix(_STRATEGY_PREFIX)
        ends = boundaries(wanted)
        strategy = _STRATEGIES.get(wanted[: ends[0]]) if ends and wanted != parameters.strategy else None
        if strategy is None:
            raise CommandError("unknown_strategy", 404, "this forwarder has the strategies best-route and multicast")
        if not self._is_free(parameters.name) or parameters.name.startswith(LOCALHOST):
            raise CommandError("reserved_name", 403, f"names under /{ROOT} have the strategies that they need")
        if not self._forwarder.fib.set_strategy(parameters.name, strategy):
            raise CommandError("too_many_strategies", 403, "too many prefixes have a strategy already")
        return ControlParameters(name=parameters.name, strategy=_STRATEGY_PREFIX + wanted[: ends[0]])

    # ------------------------------------------------------------------ datasets

    def _answer_dataset(self, face_id: int, interest: Interest, now_s: float) -> bool:
        encode = self._encoders.get(interest.name)
        if encode is not None:
            if interest.can_be_prefix:  # else no answer could bear its name
                self._send_data(face_id, self._publish(interest.name, encode(now_s), now_s)[0])
            return True
        ends = boundaries(interest.name)
        if len(ends) < 2:
            return False
        segments = self._datasets.get(interest.name[: ends[-2]])
        kind, value = split(interest.name)[-1]
        if segments is None or kind != SEGMENT or (at := read_number(value)) >= len(segments):
            return False
        self._send_data(face_id, segments[at])
        return True

    def _publish(self, name: bytes, content: bytes, now_s: float) -> list[bytes]:
        """Return the Data packets of a dataset; they can be asked for by name until others have taken their place."""
        versioned = name + number(int((now_s + self.unix_offset_s) * 1e6), VERSION)
        pieces = [content[at : at + SEGMENT_BYTES] for at in range(0, len(content), SEGMENT_BYTES)] or [b""]
        last = number(len(pieces) - 1, SEGMENT)
        segments = [
            encode_data(versioned + number(at, SEGMENT), piece, freshness_ms=FRESHNESS_MS, final_block=last)
            for at, piece in enumerate(pieces)
        ]
        self._datasets[versioned] = segments
        while len(self._datasets) > DATASETS_MAX:
            self._datasets.popitem(last=False)
        return segments

    def _faces(self, _now_s: float) -> bytes:
        return encode_faces(
            FaceStatus(
                face_id=face_id,
                remote_uri=uris[0],
                local_uri=uris[1],
                is_local=face.is_local,
                is_on_demand=face_id not in self._links,
                counts=face.counts,
            )
            for face_id, uris in sorted(self._uris.items())
            if (face := self._forwarder.faces.get(face_id)) is not None
        )

    def _general(self, now_s: float) -> bytes:
        counters, total = self._forwarder.counters_now(), PacketCounts()
        for face in self._forwarder.faces.values():
            total.add(face.counts)
        return encode_general(
            GeneralStatus(
                version=VERSION_TEXT,
                start_ms=self._unix_ms(self.started_s),
                current_ms=self._unix_ms(now_s),
                fib_entries=len(self._forwarder.fib),
                pit_entries=counters["pit_entries"],
                cs_entries=counters["cs_entries"],
                counts=total,
                satisfied=counters.get("satisfied", 0),
                unsatisfied=counters.get("unsatisfied", 0),
            )
        )

    def _unix_ms(self, at_s: float) -> int:
        return max(0, int((at_s + self.unix_offset_s) * 1e3))
