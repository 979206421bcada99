"""Python of the user's, over packets as scapy sees them: the predicate that chooses them, the edit that forges them.

``packet`` is the whole frame: ``packet["FpUpdate"].seq``, ``packet.haslayer("Nack")``, ``packet["IP"].src``. Also there are ``link``,
``sender``, ``receiver``, ``message``, ``name`` (its URI), and every layer of `testbed.capture.layers` by its name. Importing this
imports scapy, which takes 0.7 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import Any, Final

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from proxy.wire.message_names import ALL_PROXIES, HEARTBEAT, MESSAGE_TYPES, PUSH, message_name, node_prefix
from proxy.wire.name import to_uri
from testbed.capture.layers import (
    MESSAGE_LAYERS,
    Data,
    Interest,
    LpPacket,
    Name,
    NdnPacket,
    Nonce,
    opened,
    with_lengths,
)
from testbed.capture.layers import link as link_layers
from testbed.capture.layers import ndn as ndn_layers
from testbed.capture.layers.messages import sample_message
from testbed.capture.layers.tlv import Element
from testbed.faults.packets.frames import LaneEnds
from testbed.faults.packets.view import PacketView, view_of
from topologies.errors import InputError, pick_one_of

#: What code of the user's may call by name.
LAYERS: Final[Mapping[str, type[Packet]]] = {
    "Ether": Ether,
    "IP": IP,
    "UDP": UDP,
    "Raw": Raw,
    "NdnPacket": NdnPacket,
    **{
        name: layer
        for module in (link_layers, ndn_layers)
        for name, layer in vars(module).items()
        if isinstance(layer, type) and issubclass(layer, Element)
    },
    **MESSAGE_LAYERS,
}
_WORDS: Final = ("packet", "link", "sender", "receiver", "message", "name")
_SAMPLE_ENDS: Final = LaneEnds("a-b", "a", "b", "02:00:00:00:00:01", "02:00:00:00:00:02", "10.0.0.0", "10.0.0.1")


class Predicate:
    """A Python expression that says whether a packet is meant. Raises: InputError where it does not parse."""

    def __init__(self, text: str) -> None:
        self._code = compiled(text, "eval", key="predicate")

    def __call__(self, datagram: bytes, view: PacketView, ends: LaneEnds) -> bool:
        """Return what it says of a packet. Raises: whatever it raises."""
        return bool(eval(self._code, _names(datagram, view, ends)))  # noqa: S307  the user's own code, on the user's own machine


class Edit:
    """Python statements that change a packet. Raises: InputError where they do not parse."""

    def __init__(self, text: str) -> None:
        self._code = compiled(text, "exec", key="edit")

    def __call__(self, datagram: bytes, view: PacketView, ends: LaneEnds) -> bytes:
        """Return the datagram that comes out. Raises: whatever the code raises; ValueError if no datagram is left."""
        names = _names(datagram, view, ends)
        exec(self._code, names)  # noqa: S102  as above
        edited = names["packet"]
        if not isinstance(edited, Packet):
            raise TypeError(f"`packet` has become {type(edited).__name__}")
        return datagram_of(with_digests(edited))


def compiled(text: str, mode: str, *, key: str) -> CodeType:
    """Return the code of *text*. Raises: InputError where it does not parse."""
    try:
        return compile(text.strip(), f"<{key}>", mode)
    except (SyntaxError, ValueError) as error:
        at = f" at column {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        example = '`packet["FpUpdate"].seq > 3`' if mode == "eval" else '`packet["FpUpdate"].seq += 1`'
        raise InputError(
            where=key, problem=f"`{text}` is no Python ({reason}{at})", remedy=f"write Python such as {example}"
        ) from error


def tried(text: str, *, key: str, messages: Sequence[str] = ()) -> None:
    """Try code on a sample of each message type that it may meet.

    Raises: InputError if it does not parse, names something that is not there, or fails on every sample.
    """
    code: Predicate | Edit = Predicate(text) if key == "predicate" else Edit(text)
    failures: list[Exception] = []
    tries = 0
    for datagram in samples():
        view = view_of(datagram)
        if messages and view.message not in messages:
            continue
        tries += 1
        try:
            code(datagram, view, _SAMPLE_ENDS)
        except Exception as error:  # noqa: BLE001  whatever the user's code raises
            failures.append(error)
    unknown = next((failure for failure in failures if isinstance(failure, NameError)), None)
    if unknown is None and (not failures or len(failures) < tries):
        return
    failure = unknown or failures[0]
    remedy = 'ask first: packet.haslayer("FpUpdate") and …; the layers are those that a capture of the link shows'
    if unknown is not None:
        remedy = pick_one_of(unknown.name or "", [*_WORDS, *LAYERS])
    said = f"{type(failure).__name__}: {failure}"
    raise InputError(
        where=key, problem=f"`{text}` fails on every {' or '.join(messages) or 'packet'}: {said}", remedy=remedy
    )


def samples() -> Iterator[bytes]:
    """Yield a datagram of each message type, as small as can be."""
    for kind in MESSAGE_TYPES:
        to = ALL_PROXIES if kind in (HEARTBEAT, PUSH) else node_prefix("csr1")
        uri = to_uri(message_name(to, kind, "main", boot=1, seq=1))
        for is_data in (False, True):
            message = sample_message(kind, is_data=is_data)
            if is_data:
                yield _on_link(Data(value=[Name.from_uri(uri), ndn_layers.Content(value=message or Raw(load=b""))]))
            elif message is not None:
                parameters = ndn_layers.ApplicationParameters(value=message)
                digest = f"/params-sha256={bytes(32).hex()}"
                yield _on_link(Interest(value=[Name.from_uri(uri + digest), Nonce(value=1), parameters]))
            else:
                yield _on_link(Interest(value=[Name.from_uri(uri), Nonce(value=1)]))
    segment = "/hconf-data/ue1/main/seq=1/v=1/seg=0"
    for other in ("/example/app", segment):
        yield _on_link(Interest(value=[Name.from_uri(other), Nonce(value=1)]))
        yield _on_link(Data(value=[Name.from_uri(other), ndn_layers.Content(value=Raw(load=b"x"))]))
    nacked = Interest(value=[Name.from_uri("/example/app"), Nonce(value=1)])
    nack = link_layers.Nack(value=[link_layers.NackReason(value=150)])
    yield bytes(LpPacket(value=[nack, link_layers.Fragment(value=nacked)]))
    yield bytes(LpPacket(value=[link_layers.SessionState(value=3)]))


def with_digests(packet: Packet) -> Packet:
    """Return *packet*, whose digests (of parameters in a name, DigestSha256 of a Data) are computed anew when it is built."""
    for layer in (ndn_layers.ParametersSha256DigestComponent, ndn_layers.SignatureValue):
        found = packet.getlayer(layer)
        if found is not None and (layer is not ndn_layers.SignatureValue or _is_digest_sha256(packet)):
            found.value = None
    return packet


def _is_digest_sha256(packet: Packet) -> bool:
    data = packet.getlayer(Data)
    kind = None if data is None else data.getlayer(ndn_layers.SignatureType)
    return kind is not None and bool(kind.value == 0)


def datagram_of(packet: Packet) -> bytes:
    """Return what the forwarder at the other end gets: the payload of UDP, where there is UDP, else all octets.

    Raises: ValueError if there are none, or more than a datagram holds.
    """
    udp = with_lengths(packet).getlayer(UDP)
    datagram = bytes(packet) if udp is None else bytes(udp.payload)
    if not 0 < len(datagram) < 65_500:
        raise ValueError(f"a datagram of {len(datagram)} octets")
    return datagram


def _on_link(packet: Packet) -> bytes:
    return bytes(LpPacket(value=[link_layers.Sequence(value=1), link_layers.Fragment(value=packet)]))


def _names(datagram: bytes, view: PacketView, ends: LaneEnds) -> dict[str, Any]:
    packet = opened(Ether(ends.frame(datagram)))
    return {
        **LAYERS,
        "packet": packet,
        "link": ends.link,
        "sender": ends.sender,
        "receiver": ends.receiver,
        "message": view.message,
        "name": to_uri(view.name) if view.name else "",
    }
