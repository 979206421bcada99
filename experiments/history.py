"""What a run left behind, read back: the raw records of all nodes as one `History`, and who was a member when.

Neither pandas nor anything that needs root: the checker and the analysis both start here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct

from experiments.applied import AppliedCollector
from experiments.counter_totals import CounterTotals
from experiments.typed import SHELL_FILE
from proxy.records import (
    Acked,
    Applied,
    CountersReported,
    FaceChanged,
    Granted,
    ObjectFetched,
    ObjectPublished,
    PeerChanged,
    ProcessingMeasured,
    Published,
    Record,
    Revoked,
    ServiceChanged,
    SessionChanged,
    SnapshotApplied,
    StateReported,
)
from topologies.errors import InputError
from topologies.model import mean_loss_ratio

#: Raw files that nodes do not write; everything else in raw/*.jsonl is a node's.
FAULTS_FILE: Final = "faults.jsonl"
LINKS_FILE: Final = "links.jsonl"
NODES_FILE: Final = "nodes.jsonl"
LEDGER_FILE: Final = "wire-ledger.jsonl"
TOPOLOGY_FILE: Final = "topology.json"
_NOT_NODES: Final = frozenset({FAULTS_FILE, LINKS_FILE, NODES_FILE, LEDGER_FILE, SHELL_FILE})

#: A session in one of these states has ended; `joined` begins it; the others leave it as it is.
_ENDED: Final = frozenset({"closing", "closed", "refused"})

Device = tuple[str, str]  #: (conference, device ID)
Stream = tuple[str, str]  #: (conference, publisher)

#: Raw files are read in parts of about so many octets.
_PART_BYTES: Final = 1 << 22


class FaultRecord(Struct, frozen=True):
    """One injected fault, as the injector wrote it down; times on CLOCK_MONOTONIC."""

    fault_id: str
    kind: str
    target: str
    parameters: dict[str, Any] = {}
    intended_s: float | None = None
    applied_s: float | None = None
    verified: bool = False
    healed_s: float | None = None
    source: Literal["schedule", "hand"] = "schedule"
    healed_by: str = ""
    packets_matched: int | None = None
    packets_hit: int | None = None
    detail: str = ""


class Configured(Struct, frozen=True):
    """What was asked of one direction of a link."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    jitter_distribution: str = "uniform"
    loss_ratio: float = 0.0
    good_to_bad_ratio: float = 0.0
    bad_to_good_ratio: float = 0.0
    bad_loss_ratio: float = 1.0
    rate_mbps: float | None = None
    duplicate_ratio: float = 0.0
    reorder_ratio: float = 0.0
    corrupt_ratio: float = 0.0
    mtu_bytes: int = 1500

    @property
    def mean_loss_ratio(self) -> float:
        """Loss in the long run, bursts included."""
        return mean_loss_ratio(self)


class LinkRecord(Struct, frozen=True):
    """What one direction of a link did, as the link back end counted it (testbed/links/model.py, LinkCounters)."""

    link: str
    sender: str
    receiver: str
    configured: Configured
    packets: int
    carried_bytes: int
    dropped_packets: dict[str, int]  #: by cause
    delay_error_p50_ms: float | None = None
    delay_error_p99_ms: float | None = None
    delay_error_max_ms: float | None = None
    delay_error_histogram: list[tuple[float, int]] = []  #: (upper bound of the bin in ms, frames)
    measured_delay_mean_ms: float | None = None
    measured_loss_ratio: float | None = None
    measured_rate_mbps: float | None = None
    expected_lost_packets: float = 0.0
    expected_lost_variance: float | None = None  #: None: of independent losses
    drawn_packets: int | None = None  #: frames that loss was decided for; None: those lost and carried
    altered_packets: dict[str, int] = {}  #: by kind
    expected_altered_packets: dict[str, float] = {}  #: by kind; a kind left out: the back end does not tell
    passed_packets: int | None = None  #: frames that the alterations were drawn for; None: unknown


class NodeExit(Struct, frozen=True):
    """How one process of a node ended."""

    name: str  #: "csr1.proxy"
    status: int | None = None  #: exit code, or minus the signal; None: nobody saw it end
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    ready_s: float | None = None  #: CLOCK_MONOTONIC

    @property
    def node(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def process(self) -> str:
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that happened in a run, as written down by those it happened to, each list in the order of time."""

    published: Sequence[Published] = ()
    acked: Sequence[Acked] = ()
    applied: Sequence[Applied] = ()  #: as columns, where they were read from files (experiments/applied.py)
    snapshots: Sequence[SnapshotApplied] = ()
    #: How many of `applied` come before each snapshot, which times do not tell that are equal. Empty: those that are earlier.
    snapshot_places: Sequence[int] = ()
    sessions: Sequence[SessionChanged] = ()
    granted: Sequence[Granted] = ()
    revoked: Sequence[Revoked] = ()
    faces: Sequence[FaceChanged] = ()
    peers: Sequence[PeerChanged] = ()
    services: Sequence[ServiceChanged] = ()
    objects: Sequence[ObjectPublished] = ()
    fetches: Sequence[ObjectFetched] = ()
    states: Sequence[StateReported] = ()
    counters: Sequence[
        CountersReported
    ] = ()  #: where they were read from files, boiled down (experiments/counter_totals.py)
    processing: Sequence[ProcessingMeasured] = ()
    #: Nodes one of whose processes did not end in an orderly way; their last second of records may be missing.
    crashed: frozenset[str] = frozenset()
    #: Nodes whose service proxy has lost all that it had stored.
    disks_lost: frozenset[str] = frozenset()
    #: Nodes that a fault still in force at the end separated from the others, or kept from running.
    cut_off: frozenset[str] = frozenset()
    #: Of those crashed or cut off, the UEs of which it was only the service proxy: their clients are there as ever.
    proxy_only: frozenset[str] = frozenset()
    #: When the final states were asked for, the workload over and the network given time; None: the run was cut short.
    quiesced_s: float | None = None
    #: What could not be read, each as "file:line: problem".
    damage: Sequence[str] = ()

    def handed_over(self) -> frozenset[str]:
        """Return the proxy UEs that served nobody any more at the end."""
        last = {change.proxy: change.state for change in self.services}
        return frozenset(proxy for proxy, state in last.items() if state == "handed-over")


@dataclass(frozen=True, slots=True)
class Membership:
    start_s: float
    end_s: float | None  #: None: still a member at the end


@dataclass(slots=True)
class RawFile:
    """The records of one file, and what could not be read of it."""

    records: list[Any] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def read_lines(path: Path, type_: Any) -> RawFile:  # noqa: ANN401 - what msgspec takes as a type has no name
    """Read a JSON Lines file as values of *type_*.

    A line that is not valid is left out and named in `damage`; the last line of a killed program is often torn.
    Raises: InputError if the file cannot be opened.
    """
    raw = RawFile()
    for records in read_parts(path, type_, raw.damage):
        raw.records += records
    return raw


def read_parts(path: Path, type_: Any, damage: list[str]) -> Iterator[list[Any]]:  # noqa: ANN401 - as above
    """Yield the values of a JSON Lines file part by part, as `read_lines`; what cannot be read is added to *damage*."""
    decoder = msgspec.json.Decoder(type_)
    number = 0  # of lines before
    try:
        with path.open("rb") as file:
            while lines := file.readlines(_PART_BYTES):
                try:
                    yield decoder.decode_lines(b"".join(lines))
                except (msgspec.DecodeError, UnicodeDecodeError):  # something is damaged: find out which lines
                    yield list(_decoded(decoder, lines, f"{path.name}:{{}}", number, damage))
                number += len(lines)
    except OSError as error:
        raise InputError(
            where=str(path), problem=f"cannot be read: {error.strerror}", remedy="give the folder of an hconf run"
        ) from error


def _decoded(
    decoder: msgspec.json.Decoder[Any], lines: Sequence[bytes], where: str, before: int, damage: list[str]
) -> Iterator[Any]:
    for number, line in enumerate(lines, start=before + 1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line.rstrip(b"\n"))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            torn = "" if line.endswith(b"\n") else " (the last line, torn off)"
            damage.append(f"{where.format(number)}: {error}{torn}")


def read_history(
    raw_dir: Path,
    *,
    crashed: frozenset[str] = frozenset(),
    disks_lost: frozenset[str] = frozenset(),
    cut_off: frozenset[str] = frozenset(),
    proxy_only: frozenset[str] = frozenset(),
    epoch_s: float = math.inf,
    quiesced_s: float | None = None,
    damage: Sequence[str] = (),
) -> History:
    """Read the records of all nodes in *raw_dir*; the other arguments are fields of the `History`.

    *epoch_s*: CLOCK_MONOTONIC at t = 0; before it, and after *quiesced_s*, timer lag does not count.
    Raises: InputError if there are none, or one cannot be opened.
    """
    paths = sorted(path for path in raw_dir.glob("*.jsonl") if path.name not in _NOT_NODES)
    if not paths:
        raise InputError(
            where=str(raw_dir), problem="holds no records of nodes (*.jsonl)", remedy="give the folder of an hconf run"
        )
    damaged = list(damage)
    collected = _Collected(CounterTotals(epoch_s, math.inf if quiesced_s is None else quiesced_s))
    for path in paths:
        for records in read_parts(path, Record, damaged):
            collected.add(records)
    return collected.history(
        crashed=crashed,
        disks_lost=disks_lost,
        cut_off=cut_off,
        proxy_only=proxy_only,
        quiesced_s=quiesced_s,
        damage=damaged,
    )


def history_of(
    all_records: Iterable[Record],
    *,
    crashed: frozenset[str] = frozenset(),
    disks_lost: frozenset[str] = frozenset(),
    proxy_only: frozenset[str] = frozenset(),
    quiesced_s: float | None = None,
) -> History:
    """Return the history that *all_records* tell, those of each process in the order in which it wrote them."""
    collected = _Collected(None)
    collected.add(all_records)
    return collected.history(crashed=crashed, disks_lost=disks_lost, proxy_only=proxy_only, quiesced_s=quiesced_s)


class _Collected:
    """Records on their way into a `History`. What a long run has millions of is kept in columns and totals."""

    def __init__(self, totals: CounterTotals | None) -> None:
        self._totals = totals
        self._applied = AppliedCollector()
        self._by_type: dict[type, list[Any]] = {type_: [] for type_ in get_args(Record)}
        self._words: dict[str, str] = {}

    def add(self, records: Iterable[Record]) -> None:
        for record in self._applied.add(records):
            if self._totals is not None and type(record) is CountersReported:
                self._totals.add(record)
                continue
            if isinstance(record, Published | Acked):
                self._share_words(record)
            self._by_type[type(record)].append(record)

    def _share_words(self, record: Published | Acked) -> None:
        """Have equal texts be one object: there are as many of these records as updates."""
        shared = (
            ("conference", "publisher", "event")
            if isinstance(record, Published)
            else ("conference", "publisher", "proxy")
        )
        for field_name in shared:
            text = getattr(record, field_name)
            msgspec.structs.force_setattr(record, field_name, self._words.setdefault(text, text))

    def history(self, *, quiesced_s: float | None = None, **known: Any) -> History:  # noqa: ANN401 - fields of any type
        """Return all that was added, in the order of time; *known*: the other fields."""
        by_type = self._by_type
        for records in by_type.values():
            records.sort(key=_time_s)  # stable, so the order within a file stays
        applied, snapshots, places = self._applied.sorted()
        return History(
            published=by_type[Published],
            acked=by_type[Acked],
            applied=applied,
            snapshots=snapshots,
            snapshot_places=places,
            sessions=[  # what the run's own tearing down does to sessions is no part of it
                session for session in by_type[SessionChanged] if quiesced_s is None or session.t_s <= quiesced_s
            ],
            granted=by_type[Granted],
            revoked=by_type[Revoked],
            faces=by_type[FaceChanged],
            peers=by_type[PeerChanged],
            services=by_type[ServiceChanged],
            objects=by_type[ObjectPublished],
            fetches=by_type[ObjectFetched],
            states=by_type[StateReported],
            counters=by_type[CountersReported] if self._totals is None else self._totals.reports(),
            processing=by_type[ProcessingMeasured],
            quiesced_s=quiesced_s,
            **known,
        )


def memberships(sessions: Iterable[SessionChanged]) -> dict[Device, list[Membership]]:
    """Return for each device when it belonged to a conference: from `joined` until it closes or is refused.

    A device that is suspected, or logs in again, still belongs: it has a right to everything published meanwhile.

    >>> joined = SessionChanged(1.0, "main", "ue1", "csr1", "joined")
    >>> suspect = SessionChanged(2.0, "main", "ue1", "csr1", "suspect")
    >>> memberships([joined, suspect])
    {('main', 'ue1'): [Membership(start_s=1.0, end_s=None)]}
    """
    result: dict[Device, list[Membership]] = {}
    for session in sessions:
        spans = result.setdefault((session.conference, session.device), [])
        inside = bool(spans) and spans[-1].end_s is None
        if session.state == "joined" and not inside:
            spans.append(Membership(session.t_s, None))
        elif session.state in _ENDED and inside:
            spans[-1] = Membership(spans[-1].start_s, session.t_s)
    return {device: spans for device, spans in result.items() if spans}


def members_at_end(sessions: Iterable[SessionChanged]) -> dict[Device, float]:
    """Return who belongs to a conference at the end of the records, and since when."""
    return {device: spans[-1].start_s for device, spans in memberships(sessions).items() if spans[-1].end_s is None}


def _time_s(record: Any) -> float:  # noqa: ANN401 - any record
    return float(record.t_s)
