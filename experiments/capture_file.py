"""Reading pcapng files as `hconf` and tcpdump write them: one pass, a block at a time, what is torn off left out and said.

Source: draft-ietf-opsawg-pcapng, sections 3.1 (blocks), 4.1 to 4.3. Nothing here needs root or scapy (which takes 100 µs a packet).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

_SECTION_HEADER, _INTERFACE, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_MAGIC: Final = 0x1A2B3C4D
_ETHERNET: Final = 1
_FLAGS, _DESCRIPTION, _TIME_RESOLUTION = 2, 3, 9
#: No block of a capture is longer: a frame is at most 65,535 octets.
_BLOCK_MAX_BYTES: Final = 1 << 20
#: Ethernet, IPv4 without options, UDP.
_IPV4, _UDP, _HEADERS_BYTES = 0x0800, 17, 14 + 20 + 8
PORT: Final = 6363


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram to port 6363."""

    t_s: float  #: UTC, since 1970
    is_outbound: bool  #: sent by the host that was captured at
    payload: bytes


@dataclass(slots=True)
class CaptureReader:
    """The datagrams of one file. `damage` says what could not be read, once all has been read that could be."""

    path: Path
    damage: list[str] = field(default_factory=list)
    frames: int = 0
    node: str = ""  #: that was captured at, as the file says; empty: it has not said so yet, or does not

    def __iter__(self) -> Iterator[Datagram]:
        try:
            with self.path.open("rb") as file:
                yield from self._blocks(file)
        except OSError as error:
            self.damage.append(f"{self.path.name}: cannot be read: {error.strerror}")

    def _blocks(self, file: BinaryIO) -> Iterator[Datagram]:
        order, resolutions_s = "", list[float]()
        while True:
            at = file.tell()
            header = file.read(8)
            if not header:
                if at == 0:
                    self.damage.append(f"{self.path.name}: is empty")
                return
            if len(header) < 8:
                self._torn(at)
                return
            if header[:4] == b"\x0a\x0d\x0d\x0a":
                magic = file.read(4)
                order = (
                    "<" if magic == _MAGIC.to_bytes(4, "little") else ">" if magic == _MAGIC.to_bytes(4, "big") else ""
                )
                file.seek(at + 8)
                resolutions_s = []
            if not order:
                self.damage.append(f"{self.path.name}: octet {at}: this is no pcapng file")
                return
            kind, length = struct.unpack(f"{order}II", header)
            if not 12 <= length <= _BLOCK_MAX_BYTES or length % 4:
                self.damage.append(
                    f"{self.path.name}: octet {at}: a block of {length} octets; nothing after it was read"
                )
                return
            body = file.read(length - 8)
            if len(body) < length - 8:
                self._torn(at)
                return
            if kind == _INTERFACE:
                resolutions_s.append(_resolution_s(body, order))
                description = (_option(body, 8, order, _DESCRIPTION) or b"").decode(errors="replace")
                self.node = description.partition(" at ")[2].rstrip("\0") or self.node
            elif kind == _ENHANCED_PACKET:
                self.frames += 1
                try:
                    datagram = _datagram(body, order, resolutions_s)
                except (struct.error, IndexError):
                    self.damage.append(f"{self.path.name}: octet {at}: a packet block that is none")
                    continue
                if datagram is not None:
                    yield datagram

    def _torn(self, at: int) -> None:
        self.damage.append(
            f"{self.path.name}: octet {at}: cut off in the middle of a block; everything before it was read"
        )


def _datagram(body: bytes, order: str, resolutions_s: list[float]) -> Datagram | None:
    """Return the datagram of an Enhanced Packet Block; None where it holds something else. Raises: struct.error, IndexError."""
    intf, high, low, captured, original = struct.unpack_from(f"{order}IIIII", body)
    frame = body[20 : 20 + captured]
    resolution_s = resolutions_s[intf]
    if captured < original or len(frame) < _HEADERS_BYTES or frame[14] != 0x45 or frame[23] != _UDP:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    port, length = struct.unpack_from("!2xHH", frame, 34)
    if ethertype != _IPV4 or port != PORT or not 8 <= length <= len(frame) - 34:
        return None
    flags = _option(body, 20 + captured + -captured % 4, order, _FLAGS)
    outbound = flags is not None and struct.unpack(f"{order}I", flags)[0] & 3 == 2
    return Datagram(((high << 32) | low) * resolution_s, outbound, frame[42 : 34 + length])


def _resolution_s(body: bytes, order: str) -> float:
    """Return the unit of the time stamps of an interface; that of one which is not Ethernet does not matter."""
    value = _option(body, 8, order, _TIME_RESOLUTION)
    exponent = value[0] if value else 6
    return float(2.0 ** -(exponent & 0x7F) if exponent & 0x80 else 10.0**-exponent)


def _option(body: bytes, at: int, order: str, wanted: int) -> bytes | None:
    """Return the value of an option of a block without its header; the last four octets repeat the length."""
    while at + 4 <= len(body) - 4:
        code, length = struct.unpack_from(f"{order}HH", body, at)
        if code == 0:
            return None
        if code == wanted:
            return body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return None
