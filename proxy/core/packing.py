"""What of a state fits into one packet. A vector grows with proxies and their boots, a packet does not.

Where a vector is cut, whoever needs the rest learns it from heartbeats: these say all of it, in several packets if need be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec.structs import replace

from proxy.wire.messages import ConferenceState, Position
from proxy.wire.payload import encoded_size_bytes

#: What a request may spend on the asker's state.
KNOWN_MAX_BYTES: Final = 6_000
#: What one heartbeat may spend on states.
STATES_MAX_BYTES: Final = 7_500
#: Of a ``ConferenceState`` without its positions and its conference's name: array, digest, lengths.
STATE_OVERHEAD_BYTES: Final = 32

T = TypeVar("T")


def cut(items: Sequence[T], max_bytes: int) -> tuple[T, ...]:
    """Return as many of *items*, from the first, as fit.

    >>> cut((("csr1", 1, 1), ("csr2", 1, 1)), 10)
    (('csr1', 1, 1),)
    """
    fitting: list[T] = []
    for item in items:
        max_bytes -= encoded_size_bytes(item)
        if max_bytes < 0:
            break
        fitting.append(item)
    return tuple(fitting)


def pieces(vector: Sequence[Position], max_bytes: int) -> list[tuple[Position, ...]]:
    """Return a vector in as few pieces as fit, at least one; each has a position if there are any."""
    found: list[tuple[Position, ...]] = []
    rest = tuple(vector)
    while rest or not found:
        piece = cut(rest, max_bytes) or rest[:1]
        found.append(piece)
        rest = rest[len(piece) :]
    return found


def lacking_first(vector: Iterable[Position], known: Iterable[Position]) -> list[Position]:
    """Return the positions of *vector*, those beyond *known* in front."""
    after = {(proxy, boot): seq for proxy, boot, seq in known}
    return sorted(vector, key=lambda position: position[2] <= after.get(position[:2], 0))


def known_for_request(
    vector: tuple[Position, ...], behind: Callable[[], Iterable[Position]]
) -> tuple[tuple[Position, ...], bool]:
    """Return what an asker says of its state, and whether that is only a part of it.

    *behind* gives its positions in the streams that have more for it; they are what matters where not all fit.
    """
    if sum(map(encoded_size_bytes, vector)) <= KNOWN_MAX_BYTES:
        return vector, False
    return cut(tuple(behind()), KNOWN_MAX_BYTES), True


def heartbeats(states: Iterable[ConferenceState]) -> Iterator[tuple[ConferenceState, ...]]:
    """Yield what to put into one heartbeat each, as few as will do; all of them together say everything."""
    batch: list[ConferenceState] = []
    room_bytes = STATES_MAX_BYTES
    for state in states:
        overhead_bytes = STATE_OVERHEAD_BYTES + len(state.conference.encode())
        for piece in pieces(state.current, STATES_MAX_BYTES - overhead_bytes):
            size_bytes = overhead_bytes + sum(map(encoded_size_bytes, piece))
            if batch and size_bytes > room_bytes:
                yield tuple(batch)
                batch, room_bytes = [], STATES_MAX_BYTES
            batch.append(replace(state, current=piece))
            room_bytes -= size_bytes
    if batch:
        yield tuple(batch)
