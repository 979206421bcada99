"""The checker: what must always hold (design.md section 6), judged from the records alone.

Pure functions from a `History` to `Check`s; the emulated and the simulated run use the same.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal

from experiments.history import Device, History, Stream, UpdateId, members_at_end
from proxy.records import Applied, Published, SnapshotApplied, StateReported

Verdict = Literal["pass", "fail", "inconclusive"]
Position = tuple[int, int]  #: (boot, seq)

#: An update that a revoked device published so soon may be accepted yet: its proxy hears of it within one heartbeat.
_REVOCATION_HEARD_S: Final = 1.0
#: A timer that ends a session may fire so late.
_TIMER_LAG_S: Final = 0.25
#: What an observer may publish; the rest is for participants.
_OBSERVER_EVENTS: Final = frozenset({"join", "renew", "leave"})
#: Session states in which a device reads its conference.
_READING: Final = frozenset({"joined", "suspect", "closing"})
_EXAMPLES_MAX: Final = 3
_NEVER: Final[Position] = (-1, -1)


@dataclass(frozen=True, slots=True)
class Check:
    """One row of checks.csv."""

    name: str
    verdict: Verdict
    measured: str
    required: str
    detail: str = ""


def check_invariants(history: History) -> tuple[Check, ...]:
    """Judge every invariant that applies, in the order of design.md section 6."""
    return (
        check_nothing_lost(history),
        check_nothing_twice(history),
        check_in_order(history),
        check_agreement(history),
        check_admission(history),
        check_bounded(history),
    )


def check_nothing_lost(history: History) -> Check:
    """Invariant 1: an acked update is in the view of every participant that belongs to the conference at the end.

    An update that was acked only as `accepted` is excused if the node of the proxy that accepted it crashed, one that was
    acked as `durable` if that proxy lost its disk, or if it and the publisher are both gone to the end. A participant that
    an unhealed fault cut off is not expected to have anything.
    """
    wanted: dict[str, set[UpdateId]] = defaultdict(set)
    for ack in history.acked:
        lost_with = history.crashed if ack.level == "accepted" else history.disks_lost
        if ack.publisher in history.cut_off:
            lost_with |= history.cut_off
        if ack.level == "replicated" or ack.proxy not in lost_with:
            wanted[ack.conference].add((ack.conference, ack.publisher, ack.boot, ack.seq))
    applied_at: dict[Device, list[Applied]] = defaultdict(list)
    for applied in history.applied:
        applied_at[applied.conference, applied.receiver].append(applied)
    heads = _snapshot_heads(history.snapshots)
    members = members_at_end(history.sessions)
    lost: list[str] = []
    for (conference, device), _since_s in sorted(members.items()):
        if device in (history.cut_off | history.crashed) - history.proxy_only:
            continue
        got = set(
            map(_identity, applied_at[conference, device])
        )  # of one device at a time: of a long run they are many
        for update in sorted(wanted[conference] - got):
            _, publisher, boot, seq = update
            if publisher != device and heads.get((conference, device, publisher), _NEVER) < (boot, seq):
                lost.append(f"{_spell(update)} never reached {device}")
    acked = sum(map(len, wanted.values()))
    verdict: Verdict = "fail" if lost else "pass"
    if history.quiesced_s is None or (history.published and not history.acked):
        verdict = "inconclusive"  # a run that was cut short did not give what was on its way the time to arrive
    return Check(
        "invariant.nothing-lost",
        verdict,
        f"{len(lost)} of {acked} acked updates x {len(members)} participants lost",
        "0 lost",
        examples(lost) if lost or acked else f"{len(history.published)} updates published, none acked",
    )


def check_nothing_twice(history: History) -> Check:
    """Invariant 2: each participant applies each update once, only what was published, byte for byte, and not earlier."""
    published: dict[UpdateId, Published] = {}
    wrong: list[str] = []
    for update in history.published:
        if (earlier := published.setdefault(_identity(update), update)) is not update:
            again = "again" if earlier.sha256 == update.sha256 else "with other bytes"
            wrong.append(f"{_spell(_identity(update))} was published {again} at {update.t_s:.6f}")
    unknown = 0
    for views in _views_by_receiver(history):
        mistakes, unheard_of = _mistakes_of_receiver(history, views, published)
        wrong += mistakes
        unknown += unheard_of
    wrong += _invented_by_snapshot(history, published)
    verdict: Verdict = "fail" if wrong else "inconclusive" if unknown else "pass"
    return Check(
        "invariant.nothing-twice",
        verdict,
        f"{len(wrong)} twice, invented or altered of {len(history.applied)} applied",
        "0",
        examples(wrong) or (f"{unknown} applied from a publisher whose records are incomplete" if unknown else ""),
    )


def _views_by_receiver(history: History) -> Iterable[list[Applied | SnapshotApplied]]:
    """Return what each receiver took into its view, in the order in which it did.

    Where that is not known, a snapshot comes before what is applied at the same instant.
    """
    views = history.views or sorted([*history.snapshots, *history.applied], key=lambda record: record.t_s)
    by_receiver: dict[str, list[Applied | SnapshotApplied]] = defaultdict(list)
    for view in views:
        by_receiver[view.receiver].append(view)
    return by_receiver.values()


def _mistakes_of_receiver(
    history: History, views: Iterable[Applied | SnapshotApplied], published: Mapping[UpdateId, Published]
) -> tuple[list[str], int]:
    """Return what one receiver applied and should not have, and how much nobody can tell."""
    covered: dict[tuple[str, str, str], Position] = {}
    seen: set[UpdateId] = set()
    wrong: list[str] = []
    unknown = 0
    for applied in views:
        if isinstance(applied, SnapshotApplied):
            _cover(covered, applied)
            continue
        identity = _identity(applied)
        position = (applied.boot, applied.seq)
        if (
            identity in seen
            or covered.get((applied.conference, applied.receiver, applied.publisher), _NEVER) >= position
        ):
            wrong.append(f"{_what(applied)} twice")
        seen.add(identity)
        source = published.get(identity)
        if applied.receiver == applied.publisher:
            wrong.append(f"{_what(applied)}, its own update, from the network")
        elif source is None and applied.publisher in history.crashed - history.proxy_only:
            unknown += 1  # the publisher's last records may have died with it
        elif source is None:
            wrong.append(f"{_what(applied)}, which nobody published")
        elif source.sha256 != applied.sha256:
            wrong.append(f"{_what(applied)} altered: {applied.sha256} instead of {source.sha256}")
        elif applied.t_s < source.t_s:
            wrong.append(f"{_what(applied)} {source.t_s - applied.t_s:.6f} s before it was published")
    return wrong, unknown


def check_in_order(history: History) -> Check:
    """Invariant 3: a participant applies the updates of one publisher in the order of their numbers."""
    last: dict[tuple[str, str, str], Position] = {}
    wrong: list[str] = []
    for applied in history.applied:
        key = (applied.conference, applied.receiver, applied.publisher)
        position = (applied.boot, applied.seq)
        before = last.get(key, _NEVER)
        if position < before:
            wrong.append(f"{_what(applied)} after boot {before[0]} seq {before[1]}")
        else:
            last[key] = position
    return Check("invariant.in-order", "fail" if wrong else "pass", f"{len(wrong)} out of order", "0", examples(wrong))


def check_agreement(history: History) -> Check:
    """Invariant 4: at the end all proxies of a conference report one state digest, and all clients one view."""
    members = members_at_end(history.sessions)
    final: dict[tuple[str, str, str], StateReported] = {}
    for state in history.states:
        if history.quiesced_s is not None and state.t_s >= history.quiesced_s:
            final[state.conference, state.component, state.node] = state
    wrong: list[str] = []
    missing: list[str] = []
    conferences = {conference for conference, _ in members} | {conference for conference, _, _ in final}
    for conference in sorted(conferences):
        devices = {device for of, device in members if of == conference} - (history.cut_off - history.proxy_only)
        proxies = {
            session.proxy
            for session in history.sessions
            if session.conference == conference
            and session.proxy  # in modes without proxies there is none
            and session.state == "joined"  # one that was only asked may know nothing
        } - (history.cut_off | history.handed_over())
        for component, expected in (("proxy", proxies), ("client", devices)):
            reports = {
                node: state for (of, what, node), state in final.items() if (of, what) == (conference, component)
            }
            missing += [f"no final state of {component} {node} in {conference}" for node in expected - reports.keys()]
            in_view = [state for node, state in sorted(reports.items()) if component == "proxy" or node in expected]
            wrong += _disagreements(in_view)
    verdict: Verdict = "fail" if wrong else "inconclusive" if missing or not final else "pass"
    return Check(
        "invariant.agreement",
        verdict,
        f"{len(wrong)} of {len(final)} final states differ",
        "all proxies one state digest, all clients one view",
        examples(wrong or sorted(missing)) or ("" if final else "no final states: the run was cut short"),
    )


def check_admission(history: History) -> Check:
    """Invariant 5: who published an applied update held a token for it, and who applied one had joined and held one."""
    windows = _token_windows(history)
    published = {_identity(update): update for update in history.published}
    wrong: list[str] = []
    unknown: list[str] = []  #: where the login server's records may be incomplete
    judged: set[UpdateId] = set()
    for applied in history.applied:
        source = published.get(_identity(applied))
        if source is None or _identity(applied) in judged:
            continue  # an update that nobody published is another invariant's
        judged.add(_identity(applied))
        tokens = windows.get((source.conference, source.publisher), ())
        valid = [token for token in tokens if token.issued_s <= source.t_s <= token.until_s]
        if not tokens and (history.crashed or not history.granted):
            unknown.append(f"no token of {source.publisher} is recorded")
        elif not valid:
            wrong.append(f"{_what(applied)}, published at {source.t_s:.6f} without a valid token")
        elif source.event not in _OBSERVER_EVENTS and all(token.role == "observer" for token in valid):
            wrong.append(f"{_what(applied)}, the {source.event} of an observer")
    wrong += _uninvited_readers(history, windows)
    verdict: Verdict = "fail" if wrong else "inconclusive" if unknown or not history.granted else "pass"
    return Check(
        "invariant.admission",
        verdict,
        f"{len(wrong)} breaches; {len(judged)} updates applied under {len(history.granted)} tokens",
        "0 breaches",
        examples(wrong or unknown) or ("" if history.granted else "the login server recorded no tokens"),
    )


@dataclass(frozen=True, slots=True)
class _TokenWindow:
    issued_s: float
    until_s: float
    role: str


def _token_windows(history: History) -> dict[Device, list[_TokenWindow]]:
    """Return when each device held a token, up to its expiry or what ends it before."""
    windows: dict[Device, list[_TokenWindow]] = defaultdict(list)
    for grant in history.granted:
        ends_s = [
            revoked.t_s + _REVOCATION_HEARD_S
            for revoked in history.revoked
            if revoked.device == grant.device and grant.issued_s <= revoked.t_s
        ]
        until_s = min([grant.expires_s, *ends_s])
        windows[grant.conference, grant.device].append(_TokenWindow(grant.issued_s, until_s, grant.role))
    return windows


def _uninvited_readers(history: History, windows: Mapping[Device, Sequence[_TokenWindow]]) -> list[str]:
    states: dict[Device, list[tuple[float, str]]] = defaultdict(list)
    for session in history.sessions:
        states[session.conference, session.device].append((session.t_s, session.state))
    wrong: dict[Device, str] = {}
    readings: Iterable[Applied | SnapshotApplied] = itertools.chain(history.applied, history.snapshots)
    for each in readings:
        t_s, reader = each.t_s, (each.conference, each.receiver)
        timeline = states[reader]
        before, after = (cut(timeline, t_s, key=itemgetter(0)) for cut in (bisect_left, bisect_right))
        # Of several changes at one instant any may be the one that counts, or none of them yet.
        states_then = [state for _, state in timeline[max(0, before - 1) : after]] or ["not joined"]
        if not _READING.intersection(states_then):
            wrong.setdefault(reader, f"{reader[1]} read {reader[0]} at {t_s:.6f}, {states_then[-1]}")
        elif reader in windows and not any(
            token.issued_s <= t_s <= token.until_s + _TIMER_LAG_S for token in windows[reader]
        ):
            wrong.setdefault(reader, f"{reader[1]} read {reader[0]} at {t_s:.6f} without a valid token")
    return list(wrong.values())


def check_bounded(history: History) -> Check:
    """Invariant 6: whatever has a configured bound stayed within it."""
    wrong: dict[tuple[str, str, str], str] = {}
    unmeasured: set[str] = set()
    fullest, fullest_what = 0.0, ""
    for report in history.counters:
        for name, bound in report.bounds.items():
            where = f"{report.node}.{report.process}"
            value = report.counters.get(name)
            if value is None:
                unmeasured.add(f"{where} reports no {name}, which has a bound")
                continue
            if value > bound:
                wrong[report.node, report.process, name] = f"{where}: {name} = {value} exceeds {bound}"
            if bound > 0 and value / bound > fullest:
                fullest, fullest_what = value / bound, f"{where} {name} {value} of {bound}"
    verdict: Verdict = "fail" if wrong else "inconclusive" if unmeasured or not history.counters else "pass"
    return Check(
        "invariant.bounded",
        verdict,
        f"{len(wrong)} over their bound; fullest {fullest:.1%}",
        "0 over their bound",
        examples(list(wrong.values()) or sorted(unmeasured)) or fullest_what or "no counters were reported",
    )


def _identity(record: Published | Applied) -> UpdateId:
    return (record.conference, record.publisher, record.boot, record.seq)


def _spell(update: UpdateId) -> str:
    return "/".join(map(str, update))


def _what(applied: Applied) -> str:
    return f"{applied.receiver} applied {_spell(_identity(applied))}"


def examples(problems: Sequence[str]) -> str:
    """Return the first few problems, and how many more there are."""
    more = len(problems) - _EXAMPLES_MAX
    return "; ".join(problems[:_EXAMPLES_MAX]) + (f"; and {more} more" if more > 0 else "")


def _cover(covered: dict[tuple[str, str, str], Position], snapshot: SnapshotApplied) -> None:
    for publisher, boot, seq in snapshot.heads:
        key = (snapshot.conference, snapshot.receiver, publisher)
        covered[key] = max(covered.get(key, _NEVER), (boot, seq))


def _snapshot_heads(snapshots: Iterable[SnapshotApplied]) -> dict[tuple[str, str, str], Position]:
    """Return per (conference, receiver, publisher) up to where snapshots brought the receiver."""
    covered: dict[tuple[str, str, str], Position] = {}
    for snapshot in snapshots:
        _cover(covered, snapshot)
    return covered


def _invented_by_snapshot(history: History, published: Iterable[UpdateId]) -> list[str]:
    last: dict[Stream, Position] = {}
    for conference, publisher, boot, seq in published:
        last[conference, publisher] = max(last.get((conference, publisher), _NEVER), (boot, seq))
    return [
        f"{receiver} took over a snapshot that holds {conference}/{publisher}/{head[0]}/{head[1]}, which nobody published"
        for (conference, receiver, publisher), head in sorted(_snapshot_heads(history.snapshots).items())
        if head > last.get((conference, publisher), _NEVER) and publisher not in history.crashed
    ]


def _disagreements(states: Sequence[StateReported]) -> list[str]:
    """Return who differs from the most common state. Proxies serve different devices, so only their digest is compared."""
    views = [
        (
            state.state_digest,
            *((tuple(state.heads), tuple(state.roster), tuple(state.away)) if state.component == "client" else ()),
        )
        for state in states
    ]
    if len(set(views)) < 2:
        return []
    usual = Counter(views).most_common(1)[0][0]
    example = states[views.index(usual)]
    return [
        f"{state.component} {state.node} in {state.conference} reports {_outline(state)}; {example.node} reports "
        f"{_outline(example)}"
        for state, view in zip(states, views, strict=True)
        if view != usual
    ]


def _outline(state: StateReported) -> str:
    updates = sum(seq for _, _, seq in state.heads)
    return f"digest {state.state_digest[:16]} ({updates} updates of {len(state.heads)} devices, {len(state.roster)} joined)"
