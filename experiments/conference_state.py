"""What nodes say of their conference when asked, and whether they agree: how the runner knows that all is in sync."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

#: Sessions in these states have no view to agree on.
_OUTSIDE: Final = frozenset({"idle", "closing", "closed", "refused"})


@dataclass(frozen=True, slots=True)
class ConferenceState:
    """One client's or proxy's view of one conference."""

    node: str
    component: Literal["client", "proxy"]
    conference: str
    session: str  #: a client's; "joined" for a proxy
    digest: str
    roster: frozenset[str]
    waiting: int  #: updates that a client has not got acked yet
    fetching: int = 0  #: objects of others that a client has not got yet
    away: frozenset[str] = frozenset()  #: of the roster, as a client sees it
    heads: frozenset[tuple[str, int, int]] = frozenset()  #: (device, boot, seq) of every publisher's last update

    @classmethod
    def all_of(cls, process: str, status: Mapping[str, Any]) -> Iterator[ConferenceState]:
        """Yield the states in a reply to the control channel's ``status``."""
        node = process.rpartition(".")[0]
        if (client := status.get("client")) is not None:
            yield cls(
                node,
                "client",
                client["conference"],
                client["state"],
                client["state_digest"],
                frozenset(client["roster"]),
                client["unacked"] + client["queued"],
                client["fetching"],
                frozenset(device for device, standing in client["standings"].items() if standing == "away"),
                _heads(client),
            )
        for name, view in (status.get("proxy") or {}).get("conferences", {}).items():
            yield cls(
                node, "proxy", name, "joined", view["state_digest"], frozenset(view["roster"]), 0, heads=_heads(view)
            )


def _heads(view: Mapping[str, Any]) -> frozenset[tuple[str, int, int]]:
    return frozenset((device, boot, seq) for device, boot, seq in view["heads"])


def disagreement(
    states: Sequence[ConferenceState], *, rosters: Mapping[str, set[str]] | None, announced: bool = True
) -> str:
    """Return what keeps the states from being one; nothing where all agree and nothing is on its way.

    Args:
        states: of all clients and proxies.
        rosters: per conference who have to be joined, and see each other as joined; None: whoever that is.
        announced: that somebody has joined is told to all, be there anything to say or not.
    """
    for state in states:
        if state.waiting and (state.session not in _OUTSIDE or state.session == "closing"):
            return f"{state.node} waits for the ack of {state.waiting} updates"
        if state.fetching and state.session not in _OUTSIDE:
            return f"{state.node} fetches {state.fetching} objects"
        if rosters is None:
            continue
        roster = rosters.get(state.conference, set())
        if state.component == "client" and state.node not in roster:
            continue
        if state.session != "joined":
            return f"{state.node} is in state {state.session}"
        if announced and state.component == "client" and state.roster != roster:
            missing = ", ".join(sorted(roster - state.roster)[:3])
            return f"{state.node} sees {len(state.roster)} of {len(roster)} joined; missing: {missing or 'none'}"
    groups: dict[tuple[str, str], list[ConferenceState]] = {}
    for state in states:
        if state.session not in _OUTSIDE:
            groups.setdefault((state.conference, state.component), []).append(state)
    for (conference, component), members in groups.items():
        digests = Counter((state.digest, state.away) for state in members)
        if len(digests) > 1:
            usual = digests.most_common(1)[0][0]
            odd = [state.node for state in members if (state.digest, state.away) != usual]
            return f"{component} {odd[0]} and {len(odd) - 1} others see another state of {conference}"
    for (conference, component), members in groups.items():
        if component == "client" and (behind := _behind(members[0], groups.get((conference, "proxy"), []))):
            return behind
    return ""


def _behind(client: ConferenceState, proxies: Sequence[ConferenceState]) -> str:
    """Return what a client has not been told of yet that its proxies know; all clients see the same, and so do all proxies.

    That a client is ahead is no reason to wait: what was only `accepted` may have been lost with a proxy.
    """
    if not proxies:
        return ""
    seen = {(device, boot): seq for device, boot, seq in client.heads}
    for device, boot, seq in sorted(proxies[0].heads):
        if seen.get((device, boot), 0) < seq:
            return f"{client.node} has not got update {seq} of {device} yet"
    return ""
