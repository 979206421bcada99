"""The names of the messages of the conference protocol (design.md section 5).

A name says who is addressed, what kind of message it is (a keyword component, NDN-0022) and which one of them; the rest
is in the payload, see ``proxy.wire.messages``. A forwarder tells kinds apart to count them, and looks at no payload.
"""

from __future__ import annotations

from typing import Final

from proxy.wire.name import GENERIC, SEGMENT, SEQUENCE, VERSION, boundaries, component, keyword, number, read_number
from proxy.wire.tlv import MalformedError, elements
from proxy.wire.value import Value

ROOT: Final = component("hconf")
#: Every service proxy: forwarders fan an Interest under this name out to all of them.
ALL_PROXIES: Final = ROOT + keyword("all")
#: The data plane, see ``proxy.wire.objects``.
OBJECT_ROOT: Final = component("hconf-data")

LOGIN: Final = keyword("login")
JOIN: Final = keyword("join")
UPDATE: Final = keyword("update")
NOTIFY: Final = keyword("notify")
SYNC: Final = keyword("sync")
PUSH: Final = keyword("push")
HEARTBEAT: Final = keyword("heartbeat")
RECOVER: Final = keyword("recover")
CLOSE: Final = keyword("close")
KEYS: Final = keyword("keys")
REVOKE: Final = keyword("revoke")
SNAPSHOT: Final = keyword("snapshot")
#: A client's heartbeat. It has a kind of its own since a proxy's heartbeat may go to a device that is a proxy, too.
PRESENCE: Final = keyword("presence")
#: A device to its own service proxy, on a UE that is one: serve, or hand over.
SERVE: Final = keyword("serve")
#: Where there are no proxies (modes ``svs`` and ``psync``): one published update, and the token of its publisher.
PUBLICATION: Final = keyword("publication")
CERTIFICATE: Final = keyword("certificate")
#: In the place of an addressee: everybody who takes part in the sync group that the name goes on with.
GROUP: Final = ROOT + keyword("group")
SVS: Final = keyword("svs")
PSYNC: Final = keyword("psync")
#: What a proxy sends to clients; everything else under a device's name is for the service proxy of that name.
TO_CLIENTS: Final = (NOTIFY, HEARTBEAT)

#: keyword component -> (message type of the Interest, message type of the Data), as in messages.csv
MESSAGE_TYPES: Final[dict[bytes, tuple[str, str]]] = {
    LOGIN: ("login", "login-reply"),
    JOIN: ("join", "join-reply"),
    UPDATE: ("update", "update-ack"),
    NOTIFY: ("notification", "notification-ack"),
    SYNC: ("sync-interest", "sync-update"),
    PUSH: ("push", "push-reply"),
    HEARTBEAT: ("heartbeat", "heartbeat-reply"),
    RECOVER: ("recovery-request", "recovery-reply"),
    CLOSE: ("close", "close-reply"),
    KEYS: ("keys-request", "keys-reply"),
    REVOKE: ("revocation", "revocation-reply"),
    SNAPSHOT: ("snapshot-interest", "snapshot-segment"),
    PRESENCE: ("heartbeat", "heartbeat-reply"),
    SERVE: ("serve-request", "serve-reply"),
    PUBLICATION: ("publication-interest", "publication"),
    CERTIFICATE: ("certificate-interest", "certificate"),
    SVS: ("svs-sync-interest", "svs-sync-data"),
    PSYNC: ("psync-sync-interest", "psync-sync-data"),
}

#: Identifiers are components of names, so it is octets that count there.
IDENTIFIER_MAX_OCTETS: Final = 64
NUMBER_MAX: Final = 2**63 - 1


def node_prefix(device: str) -> bytes:
    """Return the prefix under which a client, service proxy or login server is reached."""
    return ROOT + component(device)


def message_name(to: bytes, kind: bytes, *parts: str, boot: int, seq: int) -> bytes:
    """Return the name of one message: addressee, kind, identifiers, then boot and sequence number (of segments: theirs).

    *to* is a node prefix or ALL_PROXIES, *kind* one of the keyword components above.
    """
    return to + kind + b"".join(map(component, parts)) + number(boot, VERSION) + number(seq, _number_kind(kind))


def _number_kind(kind: bytes) -> int:
    return SEGMENT if kind == SNAPSHOT else SEQUENCE


def sync_group(protocol: bytes, conference: str) -> bytes:
    """Return the prefix of what a sync protocol (its keyword component) says to all who take part in a conference."""
    return GROUP + protocol + component(conference)


class MessageName(Value):
    """A name taken apart again."""

    def __init__(self, kind: bytes, parts: tuple[str, ...], boot: int, seq: int) -> None:
        self.kind: Final = kind  #: keyword component
        self.parts: Final = parts
        self.boot: Final = boot
        self.seq: Final = seq

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (self.kind, self.parts, self.boot, self.seq)


def parse_message_name(name: bytes) -> MessageName:
    """Take a message's name apart; a trailing parameters digest is left out.

    Raises: MalformedError where it is no name of ours.
    """
    ends = boundaries(name)
    if len(ends) < 5:
        raise MalformedError("name too short for a message")
    components = [name[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if components[0] != ROOT:
        raise MalformedError("name outside /hconf")
    if components[-1][0] == 2:
        components.pop()
    kind = components[2]
    if len(components[1]) > 2 + IDENTIFIER_MAX_OCTETS:
        raise MalformedError("addressee of more than 64 octets")
    if kind not in MESSAGE_TYPES:
        raise MalformedError("unknown kind of message")
    parts: list[str] = []
    boot, seq = components[-2], components[-1]
    if boot[0] != VERSION or seq[0] != _number_kind(kind):
        raise MalformedError("name without boot and sequence number")
    for part in components[3:-2]:
        if part[0] != GENERIC or not 1 <= part[1] <= IDENTIFIER_MAX_OCTETS:
            raise MalformedError("identifier in a name is no generic component of 1 to 64 octets")
        try:
            parts.append(part[2:].decode())
        except UnicodeDecodeError:
            raise MalformedError("identifier in a name is not UTF-8") from None
    return MessageName(kind, tuple(parts), _number_in(boot), _number_in(seq))


def without_parameters_digest(name: bytes) -> bytes:
    """Return the name of an Interest with parameters as it was before they were put in."""
    return name[: -(2 + 32)]


def _number_in(encoded: bytes) -> int:
    value = read_number(encoded[2:])
    if value > NUMBER_MAX:
        raise MalformedError(f"number {value} in a name is beyond {NUMBER_MAX}")
    return value


def component_text(name: bytes, index: int) -> str:
    """Return one component of a name as text.

    Raises: MalformedError where there is none or it is not UTF-8.
    """
    ends = [0, *boundaries(name)]
    if index + 1 >= len(ends):
        raise MalformedError(f"name without component {index}")
    kind, start, end = next(elements(name, ends[index], ends[index + 1]))
    try:
        return name[start:end].decode()
    except UnicodeDecodeError:
        raise MalformedError(f"component {index} of type {kind} is not UTF-8") from None


def message_type(name: bytes, *, data: bool) -> str:
    """Return the message type of a packet for counting: the third component of its name decides."""
    # /hconf is 7 octets; then one component with the addressee; then the keyword.
    if not name.startswith(ROOT) or len(name) < 10:
        if name.startswith(OBJECT_ROOT):
            return "object-segment" if data else "object-interest"
        return "data" if data else "interest"
    at = 7 + 2 + name[8]
    kinds = MESSAGE_TYPES.get(name[at : at + 2 + name[at + 1]]) if at + 1 < len(name) else None
    if kinds is None:
        return "data" if data else "interest"
    return kinds[1] if data else kinds[0]
