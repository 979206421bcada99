"""The checker: what must always hold (design.md section 6), judged from the records alone.

Pure functions from a `History` to `Check`s; the emulated and the simulated run use the same. They go through what was applied
receiver by receiver, so what they have in memory at a time is of one of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.applied import AppliedUpdates, UpdateId
from experiments.history import Device, History, Stream, members_at_end
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


@dataclass(slots=True)
class Problems:
    """What was wrong: of however many the first few in words, and their number."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, problem: str) -> None:
        self.count += 1
        if len(self.first) < _EXAMPLES_MAX:
            self.first.append(problem)

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return "; ".join(self.first) + (f"; and {more} more" if more > 0 else "")


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
    heads = _snapshot_heads(history.snapshots)
    members = members_at_end(history.sessions)
    lost = Problems()
    for (conference, device), updates in _missing(AppliedUpdates.of(history.applied), wanted, sorted(members)):
        if device in (history.cut_off | history.crashed) - history.proxy_only:
            continue
        for update in updates:
            _, publisher, boot, seq = update
            if publisher != device and heads.get((conference, device, publisher), _NEVER) < (boot, seq):
                lost.add(f"{_spell(update)} never reached {device}")
    acked = sum(map(len, wanted.values()))
    verdict: Verdict = "fail" if lost else "pass"
    if history.quiesced_s is None or (history.published and not history.acked):
        verdict = "inconclusive"  # a run that was cut short did not give what was on its way the time to arrive
    return Check(
        "invariant.nothing-lost",
        verdict,
        f"{len(lost)} of {acked} acked updates x {len(members)} participants lost",
        "0 lost",
        str(lost) if lost or acked else f"{len(history.published)} updates published, none acked",
    )


def _missing(
    applied: AppliedUpdates, wanted: Mapping[str, set[UpdateId]], members: Sequence[Device]
) -> Iterator[tuple[Device, Iterator[UpdateId]]]:
    """Yield for each of *members* what of *wanted* it never applied, in order."""
    by_reader = dict(applied.by_reader())
    for conference in dict.fromkeys(conference for conference, _ in members):
        updates = sorted(wanted.get(conference, ()))
        codes = np.array([applied.updates.get(update, -1) for update in updates], dtype=np.int32)
        for member in members:
            if member[0] != conference:
                continue
            got = np.zeros(len(applied.updates) + 1, dtype=np.bool_)  # the last: what nobody applied
            if member in by_reader:
                got[applied.update_codes(by_reader[member])] = True
            yield member, (updates[place] for place in np.flatnonzero(~got[codes]).tolist())


def check_nothing_twice(history: History) -> Check:
    """Invariant 2: each participant applies each update once, only what was published, byte for byte, and not earlier."""
    published: dict[UpdateId, Published] = {}
    wrong = Problems()
    for update in history.published:
        if (earlier := published.setdefault(_identity(update), update)) is not update:
            again = "again" if earlier.sha256 == update.sha256 else "with other bytes"
            wrong.add(f"{_spell(_identity(update))} was published {again} at {update.t_s:.6f}")
    applied = AppliedUpdates.of(history.applied)
    sources = [published.get(version[:4]) for version in applied.versions]
    unknown = 0
    for reader, places in applied.by_reader():
        unknown += _mistakes_of_reader(history, applied, sources, (reader, places), wrong)
    for text in _invented_by_snapshot(history, published):
        wrong.add(text)
    verdict: Verdict = "fail" if wrong else "inconclusive" if unknown else "pass"
    return Check(
        "invariant.nothing-twice",
        verdict,
        f"{len(wrong)} twice, invented or altered of {len(history.applied)} applied",
        "0",
        str(wrong) or (f"{unknown} applied from a publisher whose records are incomplete" if unknown else ""),
    )


def _mistakes_of_reader(
    history: History,
    applied: AppliedUpdates,
    sources: Sequence[Published | None],
    read: tuple[Device, NDArray[np.int32]],
    wrong: Problems,
) -> int:
    """Add to *wrong* what one reader applied and should not have; return how much nobody can tell.

    *sources*: who published each version. *read*: the reader, and the places of what it applied.
    """
    (conference, receiver), places = read
    snapshots = _snapshots_of(history, applied, conference, receiver)
    covered: dict[tuple[str, str, str], Position] = {}
    seen = bytearray(len(applied.updates))
    unknown, taken = 0, 0
    columns = (places, applied.at_s[places], applied.version[places], applied.update_codes(places))
    for place, at_s, version, update in zip(*(column.tolist() for column in columns), strict=True):
        while taken < len(snapshots) and snapshots[taken][0] <= place:
            _cover(covered, snapshots[taken][1])
            taken += 1
        source = sources[version]
        is_again = seen[update]
        seen[update] = 1
        if source is not None and not is_again and not covered:
            _, publisher, _, _, sha256 = applied.versions[version]
            if source.sha256 == sha256 and source.t_s <= at_s and publisher != receiver:
                continue  # nearly all of them; in full below
        one = applied[place]
        if is_again or covered.get((conference, receiver, one.publisher), _NEVER) >= (one.boot, one.seq):
            wrong.add(f"{_what(one)} twice")
        if receiver == one.publisher:
            wrong.add(f"{_what(one)}, its own update, from the network")
        elif source is None and one.publisher in history.crashed - history.proxy_only:
            unknown += 1  # the publisher's last records may have died with it
        elif source is None:
            wrong.add(f"{_what(one)}, which nobody published")
        elif source.sha256 != one.sha256:
            wrong.add(f"{_what(one)} altered: {one.sha256} instead of {source.sha256}")
        elif at_s < source.t_s:
            wrong.add(f"{_what(one)} {source.t_s - at_s:.6f} s before it was published")
    return unknown


def _snapshots_of(
    history: History, applied: AppliedUpdates, conference: str, receiver: str
) -> list[tuple[int, SnapshotApplied]]:
    """Return the snapshots of a reader, each with how many of the applied updates precede it.

    Where that is not known, a snapshot comes before what is applied at the same instant.
    """
    mine = [
        (index, snapshot)
        for index, snapshot in enumerate(history.snapshots)
        if (snapshot.conference, snapshot.receiver) == (conference, receiver)
    ]
    if history.snapshot_places:
        return [(history.snapshot_places[index], snapshot) for index, snapshot in mine]
    return [(int(np.searchsorted(applied.at_s, snapshot.t_s)), snapshot) for _, snapshot in mine]


def check_in_order(history: History) -> Check:
    """Invariant 3: a participant applies the updates of one publisher in the order of their numbers."""
    applied = AppliedUpdates.of(history.applied)
    ids = list(applied.updates)
    streams: dict[Stream, int] = {}
    stream_of = [streams.setdefault(update[:2], len(streams)) for update in ids]
    position_of = [update[2:] for update in ids]
    count, firsts = 0, list[tuple[int, Position]]()
    for _, places in applied.by_reader():
        last, mine = [_NEVER] * len(streams), list[tuple[int, Position]]()
        for index, update in enumerate(applied.update_codes(places).tolist()):
            position, stream = position_of[update], stream_of[update]
            if position < last[stream]:
                count += 1
                if len(mine) < _EXAMPLES_MAX:
                    mine.append((int(places[index]), last[stream]))
            else:
                last[stream] = position
        firsts += mine
    told = [f"{_what(applied[place])} after boot {before[0]} seq {before[1]}" for place, before in sorted(firsts)]
    wrong = Problems(told[:_EXAMPLES_MAX], count)
    return Check("invariant.in-order", "fail" if wrong else "pass", f"{count} out of order", "0", str(wrong))


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
    applied = AppliedUpdates.of(history.applied)
    wrong: list[str] = []
    unknown: list[str] = []  #: where the login server's records may be incomplete
    judged = 0
    for identity, place in _first_of_each(applied):
        source = published.get(identity)
        if source is None:
            continue  # an update that nobody published is another invariant's
        judged += 1
        tokens = windows.get((source.conference, source.publisher), ())
        valid = [token for token in tokens if token.issued_s <= source.t_s <= token.until_s]
        if not tokens and (history.crashed or not history.granted):
            unknown.append(f"no token of {source.publisher} is recorded")
        elif not valid:
            wrong.append(f"{_what(applied[place])}, published at {source.t_s:.6f} without a valid token")
        elif source.event not in _OBSERVER_EVENTS and all(token.role == "observer" for token in valid):
            wrong.append(f"{_what(applied[place])}, the {source.event} of an observer")
    wrong += _uninvited_readers(history, windows)
    verdict: Verdict = "fail" if wrong else "inconclusive" if unknown or not history.granted else "pass"
    return Check(
        "invariant.admission",
        verdict,
        f"{len(wrong)} breaches; {judged} updates applied under {len(history.granted)} tokens",
        "0 breaches",
        examples(wrong or unknown) or ("" if history.granted else "the login server recorded no tokens"),
    )


def _first_of_each(applied: AppliedUpdates) -> list[tuple[UpdateId, int]]:
    """Return every update that was applied anywhere, and the place where it first was, in the order of these places."""
    first = np.empty(len(applied.updates), dtype=np.intp)
    first[applied.update_codes()[::-1]] = np.arange(len(applied) - 1, -1, -1)  # of equal indices the last one counts
    ids = list(applied.updates)
    return [(ids[code], int(first[code])) for code in np.argsort(first).tolist()]


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
    applied = AppliedUpdates.of(history.applied)
    wrong: dict[Device, tuple[int, str]] = {}
    for reader, places in applied.by_reader():
        if (found := _first_uninvited(reader, applied.at_s[places], states[reader], windows.get(reader))) is not None:
            wrong[reader] = int(places[found[0]]), found[1]
    for index, snapshot in enumerate(history.snapshots, start=len(applied)):
        reader = (snapshot.conference, snapshot.receiver)
        if (
            found := _first_uninvited(reader, np.array([snapshot.t_s]), states[reader], windows.get(reader))
        ) is not None:
            wrong.setdefault(reader, (index, found[1]))
    return [text for _, text in sorted(wrong.values())]


def _first_uninvited(
    reader: Device,
    at_s: NDArray[np.float64],
    timeline: Sequence[tuple[float, str]],
    tokens: Sequence[_TokenWindow] | None,
) -> tuple[int, str] | None:
    """Return the first of the times *at_s* at which *reader* should not have read, by its index, and why; None: at none.

    *timeline*: changes of its session's state. *tokens*: None if nothing is known of them.
    """
    changes_s = np.array([t_s for t_s, _ in timeline])
    before, after = (np.searchsorted(changes_s, at_s, side) for side in ("left", "right"))
    spans, which = np.unique(before * (len(timeline) + 1) + after, return_inverse=True)
    # Of several changes at one instant any may be the one that counts, or none of them yet.
    states_then = [
        [state for _, state in timeline[max(0, first - 1) : last]] or ["not joined"]
        for first, last in (divmod(span, len(timeline) + 1) for span in spans.tolist())
    ]
    reads = np.array([not _READING.isdisjoint(states) for states in states_then])[which]
    holds = np.full(len(at_s), fill_value=tokens is None)
    for token in tokens or ():
        holds |= (token.issued_s <= at_s) & (at_s <= token.until_s + _TIMER_LAG_S)
    wrong = np.flatnonzero(~(reads & holds))
    if not len(wrong):
        return None
    index = int(wrong[0])
    why = " without a valid token" if reads[index] else f", {states_then[which[index]][-1]}"
    return index, f"{reader[1]} read {reader[0]} at {at_s[index]:.6f}{why}"


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


def examples(problems: Sequence[str], count: int | None = None) -> str:
    """Return the first few problems, and how many more there are; *count*: all there are, where not all are in *problems*."""
    return str(Problems(list(problems[:_EXAMPLES_MAX]), len(problems) if count is None else count))


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
