"""Times with units, as Mininet and tc write them."""

from __future__ import annotations

import re
from typing import Final

from topologies.errors import InputError

_MS: Final = {
    "s": 1e3, "sec": 1e3, "secs": 1e3, "ms": 1.0, "msec": 1.0, "msecs": 1.0, "us": 1e-3, "usec": 1e-3, "usecs": 1e-3
}  # fmt: skip
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]*)", re.IGNORECASE)


def duration_ms(text: str, *, bare: str, where: str, key: str) -> float:
    """Return a time in milliseconds; a number without a unit is in the unit *bare*.

    Raises: InputError.

    >>> duration_ms("10ms", bare="us", where="", key=""), duration_ms("2500", bare="us", where="", key="")
    (10.0, 2.5)
    """
    match = _DURATION.fullmatch(text.strip())
    factor = match and _MS.get(match[2].casefold() or bare)
    if match is None or factor is None:
        raise InputError(
            where=where, problem=f"{key} = {text[:40]!r} is no time", remedy=f"write for example {key}=10ms"
        )
    return float(match[1]) * factor
