"""What ``[forwarding]`` must satisfy beyond the form of each key: its names are names."""

from __future__ import annotations

from experiments.spec_places import KeyPath, Source
from experiments.spec_schema import ForwardingSection
from proxy.wire.name import boundaries, from_uri
from proxy.wire.tlv import MalformedError


def check_forwarding(forwarding: ForwardingSection, source: Source) -> None:
    """Check name prefixes, and that the longest hold-down is not shorter than the first."""
    for position, prefix in enumerate(forwarding.unreliable):
        _check_prefix(prefix, ("forwarding", "unreliable", position), source)
    for prefix in forwarding.strategies:
        _check_prefix(prefix, ("forwarding", "strategies", prefix), source)
    first_s, max_s = forwarding.return_hold_down_s, forwarding.return_hold_down_max_s
    if first_s > max_s:
        raise source.error(
            ("forwarding", "return_hold_down_s"),
            problem=f"return_hold_down_s = {first_s:g} is above return_hold_down_max_s = {max_s:g}",
            remedy=f"use at most {max_s:g}, or a longer maximum",
        )


def _check_prefix(prefix: str, place: KeyPath, source: Source) -> None:
    try:
        boundaries(from_uri(prefix))
    except (ValueError, MalformedError) as error:
        raise source.error(
            place, problem=f"it is no name prefix: {error}", remedy="write it like `/hconf/media` or `/hconf/32=all`"
        ) from None
