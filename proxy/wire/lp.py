"""NDNLPv2 link packets: what travels in one datagram between the two ends of a link.

Source: NDNLPv2 specification (NFD wiki). Bare Interests and Data are link packets without header fields.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from proxy.wire.packet import DATA, INTEREST
from proxy.wire.tlv import MalformedError, non_negative_integer, read_element, read_non_negative_integer, tlv
from proxy.wire.value import Value

LP_PACKET: Final = 0x64
#: Fragments of one packet; NFD's limit, too.
FRAGMENTS_MAX: Final = 400
#: Acks in one packet.
ACKS_MAX: Final = 16
PIT_TOKEN_MAX_BYTES: Final = 32
_FRAGMENT: Final = 0x50
_SEQUENCE: Final = 0x51
_NACK: Final = 0x0320
_NACK_REASON: Final = 0x0321
_FRAG_INDEX: Final = 0x52
_FRAG_COUNT: Final = 0x53
_PIT_TOKEN: Final = 0x62
_ACK: Final = 0x0344
_TX_SEQUENCE: Final = 0x0348
# Our own header fields, in the range that a receiver which does not know them must ignore ([800:959], two low bits zero).
#: The sender's interval between heartbeats, in ms, while it is longer than configured (RFC 5880's Desired Min TX Interval).
_MIN_TX: Final = 928
#: A link that this Interest has crossed is lossy, so that what is sent the other way had better go twice.
_LOSSY_PATH: Final = 932
#: How many links this Data has crossed since a store, or its producer, gave it out.
_HOP_COUNT: Final = 936
#: The sender has not heard us for a while and wants a heartbeat now (RFC 5880's Poll).
_POLL: Final = 940
#: How many packets the sender has sent so far, in an IDLE packet: shows the loss of the last ones.
_SENT_COUNT: Final = 944
#: How many gaps the sender has seen in what it received.
_GAPS_SEEN: Final = 948
#: The sender's face session state, RFC 5880 section 4.1 "Sta".
_SESSION_STATE: Final = 952
#: This Interest is off its best way because of a failure (see ``Forwarder``).
_DETOUR: Final = 956


class NackReason(IntEnum):
    """Why an Interest cannot be answered (NDNLPv2, "Network Nack")."""

    NONE = 0
    CONGESTION = 50
    DUPLICATE = 100
    NO_ROUTE = 150


class LinkPacket(Value):
    """One datagram between the ends of a link."""

    def __init__(  # noqa: PLR0913 - the header fields that there are
        self,
        fragment: bytes,
        nack_reason: int | None = None,
        session_state: int | None = None,
        *,
        is_detour: bool = False,
        sequence: int | None = None,
        tx_sequence: int | None = None,
        acks: tuple[int, ...] = (),
        gaps_seen: int | None = None,
        sent_count: int | None = None,
        is_poll: bool = False,
        hop_count: int | None = None,
        frag_index: int = 0,
        frag_count: int = 1,
        min_tx_ms: int | None = None,
        pit_token: bytes = b"",
        is_lossy_path: bool = False,
    ) -> None:
        self.fragment: Final = (
            fragment  #: the network-layer packet; empty in an IDLE packet, which carries header fields only
        )
        self.nack_reason: Final = nack_reason
        self.session_state: Final = session_state
        self.is_detour: Final = (
            is_detour  #: an Interest off its best way: not to be aggregated without a look for loops
        )
        self.sequence: Final = sequence  #: of the packet; a repetition has the same
        self.tx_sequence: Final = tx_sequence  #: of this transmission; asks for an ack
        self.acks: Final = acks  #: TxSequences received
        self.gaps_seen: Final = gaps_seen
        self.sent_count: Final = sent_count
        self.is_poll: Final = is_poll
        self.hop_count: Final = (
            hop_count  #: of a Data of the data plane: links crossed since a store or its producer gave it out
        )
        self.frag_index: Final = frag_index  #: which part of a network packet this is
        self.frag_count: Final = frag_count  #: of so many
        self.min_tx_ms: Final = (
            min_tx_ms  #: in an IDLE packet: the sender's interval, while it is longer than configured
        )
        self.pit_token: Final = pit_token  #: of an Interest: its sender wants it back with the answer; nothing: none
        self.is_lossy_path: Final = is_lossy_path  #: an Interest that has crossed a lossy link

    def fields(self) -> tuple[object, ...]:
        """As of `Value`."""
        return (
            self.fragment,
            self.nack_reason,
            self.session_state,
            self.is_detour,
            self.sequence,
            self.tx_sequence,
            self.acks,
            self.gaps_seen,
            self.sent_count,
            self.is_poll,
            self.hop_count,
            self.frag_index,
            self.frag_count,
            self.min_tx_ms,
            self.pit_token,
            self.is_lossy_path,
        )

    def as_fragment(self, fragment: bytes, *, index: int, count: int) -> LinkPacket:
        """Return the same header over *fragment*, which is one part of so many of a network packet."""
        return LinkPacket(
            fragment, self.nack_reason, self.session_state, is_detour=self.is_detour, sequence=self.sequence,
            tx_sequence=self.tx_sequence, acks=self.acks, gaps_seen=self.gaps_seen, sent_count=self.sent_count,
            is_poll=self.is_poll, hop_count=self.hop_count, frag_index=index, frag_count=count,
            min_tx_ms=self.min_tx_ms, pit_token=self.pit_token, is_lossy_path=self.is_lossy_path,
        )  # fmt: skip

    def as_transmission(
        self,
        sequence: int | None,
        tx_sequence: int | None = None,
        acks: tuple[int, ...] = (),
        gaps_seen: int | None = None,
    ) -> LinkPacket:
        """Return the same packet as it goes over the link, with what its reliability says there."""
        return LinkPacket(
            self.fragment, self.nack_reason, self.session_state, is_detour=self.is_detour, sequence=sequence,
            tx_sequence=tx_sequence, acks=acks, gaps_seen=gaps_seen, sent_count=self.sent_count,
            is_poll=self.is_poll, hop_count=self.hop_count, frag_index=self.frag_index, frag_count=self.frag_count,
            min_tx_ms=self.min_tx_ms, pit_token=self.pit_token, is_lossy_path=self.is_lossy_path,
        )  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Nothing in the header is for link reliability but the sequence; nearly always."""
        return not self.acks and self.tx_sequence is None and self.gaps_seen is None and self.sent_count is None


#: Header fields by the field of LinkPacket that they fill: of 8 octets; NonNegativeIntegers; those that say all by being there.
_SEQUENCE_FIELDS: Final = {_SEQUENCE: "sequence", _TX_SEQUENCE: "tx_sequence"}
_NUMBER_FIELDS: Final = {
    _FRAG_INDEX: "frag_index",
    _FRAG_COUNT: "frag_count",
    _MIN_TX: "min_tx_ms",
    _HOP_COUNT: "hop_count",
    _SENT_COUNT: "sent_count",
    _GAPS_SEEN: "gaps_seen",
    _SESSION_STATE: "session_state",
}
_FLAG_FIELDS: Final = {_POLL: "is_poll", _DETOUR: "is_detour", _LOSSY_PATH: "is_lossy_path"}

_SEQUENCE_START: Final = b"\x51\x08"
_POLL_FIELD: Final = tlv(_POLL, b"")
_DETOUR_FIELD: Final = tlv(_DETOUR, b"")
_LOSSY_PATH_FIELD: Final = tlv(_LOSSY_PATH, b"")
_NACKS: Final = {reason: tlv(_NACK, tlv(_NACK_REASON, bytes((reason,)))) for reason in NackReason}


def encode_link_packet(packet: LinkPacket) -> bytes:
    """Return the datagram; header fields in ascending order of type, the fragment last."""
    fields = b""
    if packet.sequence is not None:
        fields = b"\x51\x08" + packet.sequence.to_bytes(8, "big")
    if packet.frag_count > 1:
        fields += tlv(_FRAG_INDEX, non_negative_integer(packet.frag_index))
        fields += tlv(_FRAG_COUNT, non_negative_integer(packet.frag_count))
    if packet.pit_token:
        fields += tlv(_PIT_TOKEN, packet.pit_token)
    if packet.nack_reason is not None:
        fields += _NACKS[NackReason(packet.nack_reason)]
    for ack in packet.acks:
        fields += b"\xfd\x03\x44\x08" + ack.to_bytes(8, "big")
    if packet.tx_sequence is not None:
        fields += b"\xfd\x03\x48\x08" + packet.tx_sequence.to_bytes(8, "big")
    if packet.min_tx_ms is not None:
        fields += tlv(_MIN_TX, non_negative_integer(packet.min_tx_ms))
    if packet.is_lossy_path:
        fields += _LOSSY_PATH_FIELD
    if packet.hop_count is not None:
        fields += tlv(_HOP_COUNT, non_negative_integer(packet.hop_count))
    if packet.is_poll:
        fields += _POLL_FIELD
    if packet.sent_count is not None:
        fields += tlv(_SENT_COUNT, non_negative_integer(packet.sent_count))
    if packet.gaps_seen is not None:
        fields += tlv(_GAPS_SEEN, non_negative_integer(packet.gaps_seen))
    if packet.session_state is not None:
        fields += tlv(_SESSION_STATE, bytes((packet.session_state,)))
    if packet.is_detour:
        fields += _DETOUR_FIELD
    if packet.fragment:
        fields += tlv(_FRAGMENT, packet.fragment)
    return tlv(LP_PACKET, fields)


def encode_sequenced(sequence: int, fragment: bytes) -> bytes:
    """Return what ``encode_link_packet`` does for a packet with nothing but a sequence: nearly all of them, so fast.

    >>> encode_sequenced(7, b"x") == encode_link_packet(LinkPacket(b"x", sequence=7))
    True
    """
    return tlv(LP_PACKET, b"\x51\x08" + sequence.to_bytes(8, "big") + tlv(_FRAGMENT, fragment))


def encode_nack(interest_wire: bytes, reason: NackReason, *, pit_token: bytes = b"") -> bytes:
    """Return the Nack of an Interest."""
    return encode_link_packet(LinkPacket(interest_wire, nack_reason=reason, pit_token=pit_token))


def decode_link_packet(datagram: bytes) -> LinkPacket:
    """Decode a datagram; a bare Interest or Data is its own fragment and is not looked into.

    Raises: MalformedError.
    """
    if not datagram:
        raise MalformedError("empty datagram")
    if datagram[0] in (INTEREST, DATA):
        return LinkPacket(datagram)
    if (sequenced := _decode_sequenced(datagram)) is not None:
        return sequenced
    kind, at, end = read_element(datagram, 0, len(datagram))
    if kind != LP_PACKET or end != len(datagram):
        raise MalformedError(f"neither Interest, Data nor link packet: type {kind}")
    fragment, nack_reason = b"", None
    acks: tuple[int, ...] = ()
    others: dict[str, Any] = {}
    while at < end:
        kind, start, at = read_element(datagram, at, end)
        if kind == _FRAGMENT:
            fragment = datagram[start:at]
        elif (field := _SEQUENCE_FIELDS.get(kind)) is not None:
            others[field] = _fixed_number(datagram, start, at)
        elif kind == _ACK:
            acks += (_fixed_number(datagram, start, at),)
            if len(acks) > ACKS_MAX:
                raise MalformedError(f"more than {ACKS_MAX} acks")
        elif (field := _NUMBER_FIELDS.get(kind)) is not None:
            others[field] = read_non_negative_integer(datagram, start, at)
        elif (field := _FLAG_FIELDS.get(kind)) is not None:
            others[field] = True
        elif kind == _PIT_TOKEN:
            if not 1 <= at - start <= PIT_TOKEN_MAX_BYTES:
                raise MalformedError(f"PIT token of {at - start} octets")
            others["pit_token"] = datagram[start:at]
        elif kind == _NACK:
            nack_reason = _nack_reason(datagram, start, at)
        elif not _may_be_ignored(kind):
            raise MalformedError(f"unknown link header field {kind}")
    packet = LinkPacket(fragment, nack_reason, acks=acks, **others)
    if packet.session_state is not None and packet.session_state > 3:
        raise MalformedError(f"session state {packet.session_state}")
    if packet.frag_index or packet.frag_count != 1:
        _check_fragment(packet)
    return packet


def _check_fragment(packet: LinkPacket) -> None:
    """Raise MalformedError for what can be no part of a packet."""
    if packet.frag_index >= packet.frag_count or packet.frag_count > FRAGMENTS_MAX:
        raise MalformedError(f"fragment {packet.frag_index} of {packet.frag_count}")
    if not packet.fragment or packet.sequence is None or packet.sequence < packet.frag_index:
        raise MalformedError("fragment without content, or without the number that places it")


def _decode_sequenced(datagram: bytes) -> LinkPacket | None:
    """Return what ``encode_sequenced`` makes of a sequence and a fragment; None for everything else, right or wrong."""
    size = len(datagram)
    if size < 14:
        return None
    if datagram[0] == LP_PACKET and datagram[1] == size - 2 < 253:  # lengths of one octet
        if datagram[2:4] == _SEQUENCE_START and datagram[12] == _FRAGMENT and datagram[13] == size - 14:
            return LinkPacket(datagram[14:], sequence=int.from_bytes(datagram[4:12], "big"))
    elif (
        273 <= size < 0x1_0000  # both lengths of three octets
        and datagram[:6] == b"\x64\xfd" + (size - 4).to_bytes(2, "big") + _SEQUENCE_START
        and datagram[14:18] == b"\x50\xfd" + (size - 18).to_bytes(2, "big")
    ):
        return LinkPacket(datagram[18:], sequence=int.from_bytes(datagram[6:14], "big"))
    return None


def _fixed_number(datagram: bytes, start: int, end: int) -> int:
    if end - start != 8:
        raise MalformedError(f"sequence number of {end - start} octets")
    return int.from_bytes(datagram[start:end], "big")


def _nack_reason(datagram: bytes, at: int, end: int) -> int:
    while at < end:
        kind, start, at = read_element(datagram, at, end)
        if kind == _NACK_REASON:
            return read_non_negative_integer(datagram, start, at)
    return NackReason.NONE


def _may_be_ignored(kind: int) -> bool:
    """Tell whether a header field that we do not use may be skipped: one of the ignorable range."""
    return 800 <= kind <= 959 and kind % 4 == 0
