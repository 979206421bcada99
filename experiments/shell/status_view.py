"""``status`` and ``watch``: what all nodes say of the conference at one moment, as lines of text. No I/O."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from experiments.conference_state import ConferenceState, disagreement
from experiments.shell.columns import in_columns

#: So many clients are listed one by one; of more, only those that something is to be said of.
CLIENTS_LISTED_MAX: Final = 24
_DIGEST_SHOWN: Final = 8

Statuses = Mapping[str, Mapping[str, Any] | None]  #: by process; None: it does not answer


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that a view shows."""

    now_s: float  #: since the run's start
    statuses: Statuses
    faults: Sequence[str] = ()  #: those active, a line each
    phase: str = ""  #: where the experiment is


def status_lines(moment: Moment, *, width: int = 120, everybody: bool = False) -> list[str]:
    """Return the view: agreement, roster, proxies, clients, faces that are down, faults."""
    states = [
        state for process, status in moment.statuses.items() for state in ConferenceState.all_of(process, status or {})
    ]
    lines = [f"t = {moment.now_s:.1f} s{', ' + moment.phase if moment.phase else ''}"]
    silent = [process for process, status in moment.statuses.items() if status is None]
    apart = disagreement(states, rosters=None)
    lines.append(f"not in sync: {apart}" if apart else "in sync: all have the same state")
    if silent:
        lines += textwrap.wrap(f"no answer from {', '.join(silent)}", width)
    for conference in sorted({state.conference for state in states}):
        lines += _roster([state for state in states if state.conference == conference], conference, width)
    behind = _behind(states)
    lines += ["", *_proxies(moment.statuses, behind), "", *_clients(moment.statuses, behind, everybody=everybody)]
    faces = list(_faces_down(moment.statuses))
    up = sum(face["state"] == "up" for status in moment.statuses.values() for face in _faces(status))
    lines += ["", f"faces: {up} up" + (f", {len(faces)} down: {', '.join(faces)}" if faces else ", none down")]
    lines += [f"faults: {moment.faults[0]}" if moment.faults else "faults: none active", *moment.faults[1:]]
    return lines


def node_lines(node: str, moment: Moment) -> list[str]:
    """Return everything that the processes of one node say."""
    lines = [f"t = {moment.now_s:.1f} s"]
    behind = _behind(
        [
            state
            for process, status in moment.statuses.items()
            for state in ConferenceState.all_of(process, status or {})
        ]
    )
    for process, status in moment.statuses.items():
        if process.rpartition(".")[0] != node:
            continue
        if status is None:
            lines.append(f"{process}: no answer")
            continue
        lines.append(f"{process}:")
        lines += [
            f"  face {face['face_id']}: {face['peer']} over {face['link']}, {face['state']}" for face in _faces(status)
        ]
        if (client := status.get("client")) is not None:
            lines += [f"  {name}: {_spell(value)}" for name, value in client.items() if name != "heads"]
            lines.append(f"  updates missing: {behind[node, 'client', client['conference']]}")
        for name, view in (status.get("proxy") or {}).get("conferences", {}).items():
            lines.append(f"  conference {name}:")
            lines += [f"    {key}: {_spell(value)}" for key, value in view.items() if key != "heads"]
            lines.append(f"    updates missing: {behind[node, 'proxy', name]}")
    return lines


def _roster(states: Sequence[ConferenceState], conference: str, width: int) -> Iterator[str]:
    rosters = Counter((state.roster, state.away) for state in states if state.session == "joined")
    for place, ((roster, away), seen_by) in enumerate(rosters.most_common(3)):
        names = [f"{name}{' (away)' if name in away else ''}" for name in sorted(roster, key=_in_order)]
        who = f"conference {conference}: {len(roster)} joined" if place == 0 else f"  but {seen_by} see {len(roster)}"
        yield from textwrap.wrap(f"{who}: {' '.join(names) or 'nobody'}", width, subsequent_indent="  ")


def _behind(states: Sequence[ConferenceState]) -> Mapping[tuple[str, str, str], int]:
    """Return how many updates each view lacks of those that any view of its conference has."""
    newest: dict[tuple[str, str, int], int] = {}
    for state in states:
        for device, boot, seq in state.heads:
            key = (state.conference, device, boot)
            newest[key] = max(seq, newest.get(key, 0))
    behind: Counter[tuple[str, str, str]] = Counter()
    for state in states:
        seen = {(device, boot): seq for device, boot, seq in state.heads}
        behind[state.node, state.component, state.conference] = sum(
            seq - seen.get((device, boot), 0)
            for (conference, device, boot), seq in newest.items()
            if conference == state.conference
        )
    return behind


def _proxies(statuses: Statuses, behind: Mapping[tuple[str, str, str], int]) -> list[str]:
    rows: list[list[object]] = []
    for process, status in sorted(statuses.items(), key=lambda entry: _in_order(entry[0].rpartition(".")[0])):
        node, _, kind = process.rpartition(".")
        if kind != "proxy":
            continue
        if status is None:
            rows.append([node, "-", "no answer", "-", "-", "-", "-", "-"])
            continue
        for name, view in status["proxy"]["conferences"].items():
            digest, lag = view["state_digest"][:_DIGEST_SHOWN], behind[node, "proxy", name]
            rows.append(
                [
                    node,
                    name,
                    status["proxy"]["service"],
                    digest,
                    len(view["clients"]),
                    len(view["peers"]),
                    view["armed"],
                    lag,
                ]
            )
    head = ["proxy", "conference", "service", "digest", "clients", "peers", "armed", "missing"]
    return in_columns(head, rows) if rows else ["no service proxy serves a conference"]


def _clients(statuses: Statuses, behind: Mapping[tuple[str, str, str], int], *, everybody: bool) -> list[str]:
    rows: list[list[object]] = []
    good = 0
    clients = {
        process.rpartition(".")[0]: status and status["client"]
        for process, status in statuses.items()
        if status is None or "client" in status
        if process.endswith(".forwarder")
    }
    asked = [node for node, client in clients.items() if client is not None]
    for node in sorted(asked, key=_in_order):
        client = clients[node]
        assert client is not None, "asked"
        lag, waiting = behind[node, "client", client["conference"]], client["unacked"] + client["queued"]
        if client["state"] == "joined" and not (lag or waiting or client["fetching"]):
            good += 1
            if len(asked) > CLIENTS_LISTED_MAX and not everybody:
                continue
        digest = client["state_digest"][:_DIGEST_SHOWN]
        rows.append([node, client["state"], client["proxy"] or "-", digest, waiting, client["fetching"], lag])
    lines = in_columns(["client", "session", "proxy", "digest", "unacked", "fetching", "missing"], rows) if rows else []
    if len(asked) > CLIENTS_LISTED_MAX and not everybody:
        lines.append(f"{good} of {len(asked)} clients are joined and have everything (`status all` lists them)")
    return lines


def _faces(status: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [face for face in ((status or {}).get("forwarder") or {}).get("faces", []) if face["link"]]


def _faces_down(statuses: Statuses) -> Iterator[str]:
    for process, status in statuses.items():
        for face in _faces(status):
            if face["state"] != "up":
                yield f"{process.rpartition('.')[0]} to {face['peer']}"


def _spell(value: Any) -> str:  # noqa: ANN401  plain data of any shape
    match value:
        case dict():
            return ", ".join(f"{name} {one}" for name, one in value.items()) or "none"
        case list():
            return ", ".join(":".join(map(str, one)) if isinstance(one, list) else str(one) for one in value) or "none"
        case _:
            return str(value) or "none"


def _in_order(name: str) -> tuple[str, int]:
    """Sort ue2 before ue10."""
    digits = len(name) - len(name.rstrip("0123456789"))
    return (name[: len(name) - digits], int(name[-digits:])) if digits else (name, 0)
