"""Packets made by hand, to be sent over a link: from a Python file, an expression, hexadecimal text, or a capture.

What comes out is text again, so that a run folder says exactly what was sent: the octets of a datagram in hexadecimal, or of a
whole Ethernet frame behind ``frame:``. A datagram is sent as the forwarder at that end of the link would send it.
"""

# ruff: noqa: PLC0415  # scapy is loaded where packets need it, and only then: it takes 0.7 s

from __future__ import annotations

import fnmatch
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from testbed.faults.packets.frames import datagram_in
from testbed.faults.packets.interceptor import uri_of
from testbed.faults.packets.view import view_of
from topologies.errors import InputError

FRAME: Final = "frame:"
#: Of one injection; a capture may hold more.
PACKETS_MAX: Final = 1_000
FRAME_MAX_BYTES: Final = 9_000
FRAME_MIN_BYTES: Final = 14
_CAPTURES: Final = (".pcap", ".pcapng", ".cap")
_TEXTS: Final = (".hex", ".txt")


def packets_in_file(path: Path, *, messages: Iterable[str] = (), name: str = "") -> list[str]:
    """Return the packets of a file, as text: a capture, ``.py`` that sets ``packets``, or ``.hex`` with a packet a line.

    Args:
        path: of the file; a Python file is run.
        messages: take only packets of these types; none: any.
        name: take only packets whose name matches, with ``*`` and ``?``; empty: any.
    Raises: InputError.
    """
    where = str(path)
    if not path.is_file():
        raise InputError(
            where=where, problem="there is no such file", remedy="name it as seen from the experiment file"
        )
    if path.suffix in _CAPTURES:
        found = _captured(path)
    elif path.suffix == ".py":
        found = _from_python(path)
    elif path.suffix in _TEXTS:
        found = packets_in_text(_read(path), where=where)
    else:
        known = ", ".join((*_CAPTURES, ".py", *_TEXTS))
        raise InputError(
            where=where, problem=f"what {path.suffix or 'it'} holds is not known", remedy=f"name it {known}"
        )
    wanted = tuple(messages)
    return checked([each for each in found if _is_wanted(each, wanted, name)], where=where)


def packets_in_text(text: str, *, where: str) -> list[str]:
    """Return the packets in hexadecimal text, one a line; ``#`` begins a comment. Raises: InputError."""
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = "".join(line.partition("#")[0].split())
        if not word:
            continue
        try:
            bytes.fromhex(word.removeprefix(FRAME))
        except ValueError:
            raise InputError(
                where=f"{where}: line {number}",
                problem=f"`{word[:40]}` is not hexadecimal",
                remedy=f"write two digits an octet, behind `{FRAME}` if it is a whole Ethernet frame",
            ) from None
        found.append(word)
    return checked(found, where=where)


def packets_from_expression(text: str, *, where: str) -> list[str]:
    """Return the packets that a Python expression makes, with the layers of `testbed.capture.layers` by name.

    Raises: InputError.
    """
    from testbed.faults.packets.expressions import LAYERS, compiled  # imports scapy, which takes 0.7 s

    code = compiled(text, "eval", key=where)
    try:
        made = eval(code, dict(LAYERS))  # noqa: S307  the user's own code, on the user's own machine
    except Exception as error:
        raise InputError(
            where=where,
            problem=f"`{text}` raises {type(error).__name__}: {error}",
            remedy='write an expression such as Interest(value=[Name.from_uri("/a/b"), Nonce(value=7)])',
        ) from error
    return checked(_spelled(made, where), where=where)


def checked(packets: list[str], *, where: str) -> list[str]:
    """Return *packets* if they can be sent. Raises: InputError."""
    if not packets:
        raise InputError(
            where=where, problem="it holds no packet that is wanted", remedy="see what it holds, with scapy"
        )
    if len(packets) > PACKETS_MAX:
        raise InputError(
            where=where,
            problem=f"it holds {len(packets)} packets, more than {PACKETS_MAX}",
            remedy="choose some with message or name",
        )
    for text in packets:
        size_bytes = len(text.removeprefix(FRAME)) // 2
        if size_bytes > FRAME_MAX_BYTES or size_bytes < (FRAME_MIN_BYTES if text.startswith(FRAME) else 1):
            raise InputError(
                where=where,
                problem=f"a packet of {size_bytes} octets is too {'long' if size_bytes > 100 else 'short'}",
                remedy=f"a frame has {FRAME_MIN_BYTES} to {FRAME_MAX_BYTES} octets",
            )
    return packets


def datagram_and_frame(text: str) -> tuple[bytes | None, bytes | None]:
    """Return the datagram that *text* stands for, else None, and the whole frame, else None."""
    if text.startswith(FRAME):
        frame = bytes.fromhex(text.removeprefix(FRAME))
        return datagram_in(frame), frame
    return bytes.fromhex(text), None


def _is_wanted(text: str, messages: tuple[str, ...], name: str) -> bool:
    if not messages and not name:
        return True
    datagram, _ = datagram_and_frame(text)
    view = view_of(datagram or b"")
    return (not messages or view.message in messages) and (not name or fnmatch.fnmatchcase(uri_of(view.name), name))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(where=str(path), problem=f"it cannot be read: {error}", remedy="save it as text") from error


def _captured(path: Path) -> list[str]:
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapReader

    try:
        with path.open("rb") as file, RawPcapReader(cast("Any", file)) as reader:
            frames = [bytes(octets) for octets, _ in reader]
    except (OSError, Scapy_Exception, EOFError) as error:
        raise InputError(
            where=str(path), problem=f"it is no capture: {error}", remedy="name a pcap or pcapng"
        ) from error
    found: list[str] = []
    for frame in frames:
        datagram = datagram_in(frame)
        found.append(FRAME + frame.hex() if datagram is None else datagram.hex())
    return found


def _from_python(path: Path) -> list[str]:
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise InputError(
            where=str(path), problem=f"it raises {type(error).__name__}: {error}", remedy="run it with Python by itself"
        ) from error
    if "packets" not in names:
        raise InputError(where=str(path), problem="it sets no `packets`", remedy="set packets = [...]")
    return list(_spelled(names["packets"], str(path)))


def _spelled(made: Any, where: str) -> list[str]:  # noqa: ANN401  whatever the user's code made
    items: Iterator[Any] = iter(made if isinstance(made, list | tuple) else [made])
    return [_spell(item, where) for item in items]


def _spell(item: object, where: str) -> str:
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet

    from testbed.faults.packets.expressions import datagram_of

    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, Packet):
        try:
            return FRAME + bytes(item).hex() if item.haslayer(Ether) else datagram_of(item).hex()
        except Exception as error:
            raise InputError(
                where=where, problem=f"a packet cannot be built: {type(error).__name__}: {error}", remedy="mend it"
            ) from error
    raise InputError(
        where=where, problem=f"it makes a {type(item).__name__}, not a packet", remedy="make scapy packets, or bytes"
    )
