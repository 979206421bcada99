"""The schema of every CSV file of a run folder: the one place where a column is named and defined.

``COLUMNS.md`` is made from this module and from the metrics of ``experiments/metrics.py`` (``python -m experiments.columns``), the analysis writes these columns in this order,
and a test compares all three. Times are seconds since the run's start (t = 0: all participants joined, workload starts) on
``CLOCK_MONOTONIC``, so joining has negative times.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

from experiments.metrics import METRICS

#: How a column is written: text as it is, ``number`` with a fraction, ``count`` as an integer, ``flag`` as true or false.
Kind = Literal["text", "count", "number", "flag"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    file: str
    row: str  #: what one row is
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


UPDATES: Final = Table(
    "updates.csv",
    "one FP update that a client published",
    (
        Column("update_id", "text", "`conference/publisher/boot/seq`: the identity of the update"),
        Column("conference", "text", "conference it belongs to"),
        Column("publisher", "text", "device ID of the publishing client"),
        Column(
            "proxy",
            "text",
            "service proxy that acked it; without an ack, the one its publisher had a session with; in modes without proxies "
            "its publisher, which keeps it for all others to fetch",
        ),
        Column("boot", "count", "boot number of the publisher; grows at each of its starts"),
        Column("seq", "count", "sequence number within the boot"),
        Column("event", "text", "event type: `join`, `leave`, `message`, `stroke`, `object`, …"),
        Column("size_bytes", "count", "size of the update's body"),
        Column("object_name", "text", "name of the data object it announces, where there is one"),
        Column("published_s", "number", "when the client first handed it to the network"),
        Column("acked_s", "number", "when the publisher received the first ack; empty: never"),
        Column("ack_level", "text", "highest level acked: `accepted`, `durable`, `replicated`; empty: none"),
        Column(
            "expected_receivers",
            "count",
            "devices other than the publisher that had joined the conference at `published_s` and did not leave it, or crash "
            "for good, before the end",
        ),
        Column("delivered_receivers", "count", "how many of those applied it, snapshots included"),
    ),
)

DELIVERIES: Final = Table(
    "deliveries.csv",
    "one update applied by one receiver (an update that never arrived has no row here: compare the receivers in `updates.csv`)",
    (
        Column("update_id", "text", "as in `updates.csv`"),
        Column("publisher", "text", "device ID of the publisher"),
        Column("receiver", "text", "device ID of the client that applied it"),
        Column("published_s", "number", "when it was published"),
        Column("delivered_s", "number", "when the receiver applied it"),
        Column("latency_ms", "number", "`delivered_s` minus `published_s`"),
        Column(
            "path_delay_ms",
            "number",
            "sum of the configured one-way link delays on the shortest path of the unbroken network: the physical floor",
        ),
        Column("ratio", "number", "`latency_ms` / `path_delay_ms`; empty where the path has no delay"),
        Column(
            "via",
            "text",
            "how it reached the receiver's proxy: `armed` (a waiting sync interest), `push`, `recovery`, or `snapshot`; "
            "without proxies: `fetch`, by name",
        ),
        Column(
            "during_fault",
            "flag",
            "whether a fault was in force at any moment between `published_s` and `delivered_s`",
        ),
        Column(
            "was_joined",
            "flag",
            "whether the receiver had joined when the update was published; `false`: it caught up when it joined later, "
            "which says nothing about the speed of the network, so the summary leaves these out",
        ),
    ),
)

FAULTS: Final = Table(
    "faults.csv",
    "one injected fault",
    (
        Column("fault_id", "text", "identity of the fault in this run"),
        Column("kind", "text", "as in the experiment file: `link-down`, `impair`, `crash`, `drop`, …"),
        Column(
            "target",
            "text",
            "what it was applied to: a link, a process such as `csr1.proxy`, a node with all its processes or links, groups of "
            "nodes such as `csr1,core1/csr2`, or `*`, all links",
        ),
        Column("parameters", "text", "its other parameters, as JSON"),
        Column("intended_s", "number", "when the schedule wanted it"),
        Column("applied_s", "number", "when it had taken hold; empty: it could not be applied"),
        Column(
            "verified",
            "flag",
            "whether reading the state back, or observing it, showed that it had taken, and that its healing had. A message fault "
            "has taken if it was in force on its links and at least one packet came by that it was meant for; a starved process, if "
            "it could run about as much of the time as it was to",
        ),
        Column("healed_s", "number", "when it was undone; empty: in force until the end, or over at once"),
        Column("source", "text", "`schedule` or `hand`"),
        Column(
            "healed_by",
            "text",
            "`schedule`, `hand`, the `fault_id` of the `link-up`, `thaw` or `restart` that did, or `count`: it had hit as many "
            "packets as it was to",
        ),
        Column(
            "packets_matched",
            "count",
            "message faults: packets that it was meant for, before `ratio`; empty: no message fault",
        ),
        Column("packets_hit", "count", "message faults: packets that it changed; injections: packets sent"),
        Column("detail", "text", "what was in its way, where something was"),
    ),
)

RECOVERY: Final = Table(
    "recovery.csv",
    "one fault as seen by one affected node: a client some of whose updates come over a shortest path with the failed link, "
    "a router at an end of the link, or, where a service proxy failed, a client that gets updates by way of it",
    (
        Column("fault_id", "text", "as in `faults.csv`"),
        Column("node", "text", "the affected node"),
        Column("role", "text", "`core`, `csr`, `ue` or `login`"),
        Column(
            "detected_s",
            "number",
            "when the node itself noticed: its face on the link changed, its session became suspect, or it moved",
        ),
        Column("detection_ms", "number", "`detected_s` minus `applied_s`"),
        Column(
            "recovered_s",
            "number",
            "client: when it had applied everything published since the fault; router: when its face on the link was up again",
        ),
        Column(
            "outage_ms",
            "number",
            "clients: from `applied_s` to `recovered_s`; 0 where nothing was late; up to the end of the run where an "
            "update never came. An update is late if its latency exceeds 1.15 times the path delay that the fault leaves "
            "+ 10 ms; in modes without proxies, where it is fetched, 1.15 times three times that. The outage is over when what comes from every CSR affected is on time again and everything "
            "published until then is there; where no link loses packets at random, an update that is another 100 ms later, "
            "published while the fault is in force, extends it",
        ),
        Column("updates_missed", "count", "clients: updates that were late in the outage, whether they came or not"),
        Column("updates_recovered", "count", "of those, the ones applied in the end"),
        Column("updates_lost", "count", "of those, the ones never applied"),
        Column(
            "floor_ms",
            "number",
            "clients: the longest path delay from a publisher affected, while the fault is in force: no outage can be "
            "shorter for an update published at `applied_s`; empty where the fault leaves no path",
        ),
    ),
)

MESSAGES: Final = Table(
    "messages.csv",
    "one message type on one link in one direction, over the whole run, joining included",
    (
        Column("link", "text", "name of the link"),
        Column("from", "text", "sending node"),
        Column("to", "text", "node at the other end"),
        Column("message", "text", "message type, as the sending forwarder classifies it"),
        Column("packets", "count", "link packets sent: fragments count one by one, link-layer retransmissions too"),
        Column("bytes", "count", "their size as UDP payload"),
    ),
)

LINKS: Final = Table(
    "links.csv",
    "one link in one direction, over the whole run",
    (
        Column("link", "text", "name of the link"),
        Column("from", "text", "sending node"),
        Column("to", "text", "receiving node"),
        Column("configured_delay_ms", "number", "one-way delay asked for, at the end of the run"),
        Column(
            "measured_delay_ms",
            "number",
            "mean one-way delay of the frames carried: queue, line, delay and jitter; the back end netem does not tell",
        ),
        Column("configured_jitter_ms", "number", "jitter asked for, at the end of the run"),
        Column(
            "configured_loss_ratio",
            "number",
            "random loss asked for, at the end of the run, 0 to 1; with bursts, what they come to in the mean",
        ),
        Column("measured_loss_ratio", "number", "`dropped_loss` / frames that got past the queue, over the whole run"),
        Column("configured_rate_bps", "number", "rate limit asked for; empty: none"),
        Column("measured_rate_bps", "number", "bits carried a second, from the first frame to the last"),
        Column("configured_duplicate_ratio", "number", "duplication asked for, at the end of the run, 0 to 1"),
        Column("configured_reorder_ratio", "number", "reordering asked for, at the end of the run, 0 to 1"),
        Column("configured_corrupt_ratio", "number", "corruption asked for, at the end of the run, 0 to 1"),
        Column("mtu_bytes", "count", "largest IP packet that the sending interface sends"),
        Column("packets", "count", "frames carried to the other end; a duplicate counts again"),
        Column("bytes", "count", "their size, Ethernet header included"),
        Column("dropped_loss", "count", "frames dropped by random loss"),
        Column("dropped_queue", "count", "frames dropped because the queue was full"),
        Column("dropped_carrier", "count", "frames dropped because the link was down"),
        Column("dropped_blocked", "count", "frames that a black hole swallowed"),
        Column(
            "dropped_corrupt",
            "count",
            "corrupted frames that the receiver's checksum found; only in a simulation: in an emulated network the link carries "
            "them, and the receiver's kernel drops them",
        ),
        Column("dropped_fault", "count", "frames dropped by a message fault"),
        Column(
            "dropped_overrun",
            "count",
            "frames dropped because this machine could not keep up; the run is not faithful then",
        ),
        Column("duplicated", "count", "frames that arrived twice"),
        Column(
            "reordered",
            "count",
            "frames that were held back so that others overtook them; the back end netem does not tell",
        ),
        Column("corrupted", "count", "frames with a bit changed; the back end netem does not tell"),
        Column(
            "delay_error_p50_ms",
            "number",
            "how much later than asked for a frame left the link, median; the back end netem does not tell",
        ),
        Column("delay_error_p99_ms", "number", "same, 99th percentile"),
        Column("delay_error_max_ms", "number", "same, maximum"),
    ),
)

NODES: Final = Table(
    "nodes.csv",
    "one node of the topology, all its processes together",
    (
        Column("node", "text", "name"),
        Column(
            "role", "text", "`core`, `csr`, `ue`, `proxy-ue` (a UE that serves its network as sync proxy) or `login`"
        ),
        Column("cpu_s", "number", "CPU time used, user and system; empty where it is simulated"),
        Column(
            "max_rss_bytes",
            "count",
            "peak resident memory, summed over the node's processes (shared pages count in each); empty where it is simulated",
        ),
        Column("start_s", "number", "when the last of its processes was ready"),
        Column("exits", "text", "`ok`, or how each process ended: `proxy: signal 9; forwarder: ok`"),
        Column("cs_hits", "count", "Interests that its content store answered, of all planes"),
        Column("cs_misses", "count", "Interests that it could not answer, and that were not pending already"),
        Column("cs_hit_ratio", "number", "`cs_hits` over the sum of both"),
        Column("malformed", "count", "datagrams that were not valid packets"),
        Column("refused", "count", "well-formed messages that it did not allow or believe"),
        Column("refusals", "text", "the same by reason: `join_replayed: 2; update_forged: 1`"),
        Column(
            "applications", "count", "connections of NDN applications, and senders of datagrams to its loopback address"
        ),
        Column("unread", "count", "packets dropped because an application did not read"),
        Column(
            "timer_lag_p99_ms",
            "number",
            "how late its timers fired while the workload ran, 99th percentile, worst process",
        ),
        Column("timer_lag_max_ms", "number", "same, maximum"),
        Column(
            "processing_p50_ms",
            "number",
            "how long its processes took to handle a packet while the workload ran, from when they began until the last packet that "
            "followed was sent, median; within 25 %; empty: not measured, which only runs with a simulated twin (`--mode both`) are",
        ),
        Column("processing_p99_ms", "number", "same, 99th percentile"),
        Column(
            "wake_up_p50_ms",
            "number",
            "from the arrival of a packet in the kernel, at a process that was idle, until that began to handle it, median; as above",
        ),
        Column("wake_up_p99_ms", "number", "same, 99th percentile"),
    ),
)

OBJECTS: Final = Table(
    "objects.csv",
    "one object or live stream at one receiver that was to have it: who had joined when it was announced and did not leave, or "
    "crash for good, before the end, and whoever else fetched it",
    (
        Column("object_name", "text", "NDN URI, as in `updates.csv`"),
        Column("conference", "text", "conference it was announced in"),
        Column("publisher", "text", "device ID of the publisher"),
        Column("receiver", "text", "device ID of the receiver"),
        Column("kind", "text", "`object` or `stream`"),
        Column("size_bytes", "count", "size of the object; of a stream, of all its frames"),
        Column("published_s", "number", "when it was made, to be announced at once"),
        Column(
            "begun_s", "number", "when the receiver asked for the first segment; empty: it did not, or not to the end"
        ),
        Column("ended_s", "number", "when it had the last segment or frame, gave up, or left"),
        Column("outcome", "text", "`complete`, `given-up`, `left`, or `missing`: nothing was heard of it"),
        Column("fetch_ms", "number", "objects that are complete: `ended_s` minus `begun_s`"),
        Column("goodput_bps", "number", "objects that are complete: bits of content over that time"),
        Column("received_bytes", "count", "content that came"),
        Column("segments", "count", "segments or frames that came"),
        Column(
            "segments_asked",
            "count",
            "all of an object; of a stream, the frames that were to come when it was announced",
        ),
        Column("retransmissions", "count", "Interests sent again because of a timeout or a Nack"),
        Column(
            "bytes_by_hops",
            "text",
            "content by the links that it crossed from whoever had it, a content store or the publisher: `2: 16000; 6: 984000`; "
            "`-1`: not known",
        ),
        Column(
            "path_hops", "count", "links on the shortest path from the publisher: what comes over fewer is from a store"
        ),
        Column("deadline_misses", "count", "streams: frames that came too late, or never, of those asked for"),
    ),
)

CAPTURES: Final = Table(
    "captures.csv",
    "one update that a user equipment published or applied from t = 0 on, whose only link was captured: the time in the records beside "
    "that in the capture",
    (
        Column("link", "text", "name of the captured link"),
        Column("node", "text", "the user equipment"),
        Column("what", "text", "`published` or `delivered`"),
        Column("update_id", "text", "as in `updates.csv`"),
        Column("recorded_s", "number", "when the node wrote that it did so; empty: it did not"),
        Column(
            "captured_s",
            "number",
            "when the first packet with the update was whole at the node's end of the link, for `delivered` not before those in front of it "
            "in its publisher's order; access links are captured there (by earlier versions at the other end: then it is moved by the "
            "configured delay); empty: it is in no packet",
        ),
        Column("difference_ms", "number", "`recorded_s` minus `captured_s`"),
    ),
)

CHECKS: Final = Table(
    "checks.csv",
    "one invariant, expectation or fidelity check",
    (
        Column(
            "name", "text", "`invariant.…`, `expect.<metric>`, `run.complete`, `run.settled`, `run.twin`, `fidelity.…`"
        ),
        Column(
            "verdict",
            "text",
            "`pass`, `fail`, or `inconclusive` (the records do not decide). Whatever does not pass fails the run, but for "
            "fidelity checks other than `fidelity.faults`, `fidelity.nodes` and `fidelity.twin.…`: they say how far its figures can "
            "be trusted",
        ),
        Column("measured", "text", "what was found"),
        Column("required", "text", "what must hold"),
        Column("detail", "text", "where, and the first examples"),
    ),
)

SUMMARY: Final = Table(
    "summary.csv",
    "one metric of the run",
    (
        Column("metric", "text", "name; see below"),
        Column("value", "number", "empty: there was nothing to measure"),
        Column("unit", "text", "`ms`, `s`, `1` (a ratio), `count`, `bytes`"),
    ),
)

COMPARISON: Final = Table(
    "comparison.csv",
    "one metric of one group of runs: those with the same settings but for the seed. Written by `hconf report RUN RUN ...` and "
    "`hconf sweep`, not into a run folder. Every interval is a bootstrap interval of a median with 95 % confidence, and at least as wide "
    "as the order statistics that hold the median with 95 %; of fewer than six runs it is narrower than it says, of one run it is empty",
    (
        Column("group", "text", "the settings by which its runs differ from the others"),
        Column("metric", "text", "as in `summary.csv`"),
        Column("unit", "text", "as in `summary.csv`"),
        Column("runs", "count", "runs of the group that have a value of the metric"),
        Column("median_value", "number", "median over those runs"),
        Column("median_low_value", "number", "lower bound of the interval of that median"),
        Column("median_high_value", "number", "upper bound"),
        Column(
            "reference",
            "text",
            "the group that it is compared with, the first; empty: it is that itself, or shares no seed",
        ),
        Column("pairs", "count", "runs with the same seed in both groups that have a value of the metric"),
        Column("difference_value", "number", "median over pairs of the run's value minus the reference's"),
        Column("difference_low_value", "number", "lower bound of the interval of that median"),
        Column("difference_high_value", "number", "upper bound"),
        Column(
            "ratio_pairs", "count", "those of the pairs in which the reference's value is not 0: a ratio to 0 is none"
        ),
        Column("reference_ratio", "number", "median over those pairs of the run's value over the reference's"),
        Column("reference_low_ratio", "number", "lower bound of the interval of that median"),
        Column("reference_high_ratio", "number", "upper bound"),
    ),
)

#: Stands for one column a swept key, in the order of the command line.
SWEPT_KEY: Final = "<key>"

SWEEP: Final = Table(
    "sweep.csv",
    "one metric of one point of `hconf sweep`: the run with one combination of settings and one seed. It is written into the "
    "folder of the sweep",
    (
        Column("point", "count", "number of the point, from 1; its run folder is `points/<point>`"),
        Column("seed", "count", "its seed"),
        Column(SWEPT_KEY, "text", "one column for each swept key, such as `conference.mode`: its value"),
        Column("verdict", "text", "of the run: `pass` or `fail`"),
        Column("metric", "text", "as in `summary.csv`"),
        Column("value", "number", "as in `summary.csv`"),
        Column("unit", "text", "as in `summary.csv`"),
    ),
)

#: Files that are over several runs.
TABLES_OF_RUNS: Final = (COMPARISON, SWEEP)

TABLES: Final = (UPDATES, DELIVERIES, FAULTS, RECOVERY, MESSAGES, LINKS, NODES, OBJECTS, CAPTURES, CHECKS, SUMMARY)


def markdown() -> str:
    """Return the text of COLUMNS.md."""
    lines = [
        "# Columns of the CSV files",
        "",
        "Made from `experiments/columns.py` by `python -m experiments.columns`; do not edit by hand.",
        "",
        "UTF-8, comma, one header line, one fact a row. `true`/`false`; empty = not applicable. Units are in the column's",
        "name. Times (`…_s`) are seconds since the run's start, t = 0, when all participants had joined and the workload",
        "began; joining has negative times. All namespaces share one clock, so one-way figures are exact.",
    ]
    for table in (*TABLES, *TABLES_OF_RUNS):
        lines += [
            "",
            f"## {table.file}",
            "",
            f"A row is {table.row}.",
            "",
            "| column | kind | meaning |",
            "|---|---|---|",
        ]
        lines += [f"| `{column.name}` | {column.kind} | {column.meaning} |" for column in table.columns]
    lines += ["", "## Metrics of summary.csv", "", "An `[[expect]]` of an experiment file names one of these.", ""]
    lines += ["| metric | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{metric.name}` | {metric.unit} | {metric.meaning} |" for metric in METRICS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
