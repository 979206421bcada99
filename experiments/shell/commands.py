"""The commands that the shell has besides Mininet's, over one live run."""

from __future__ import annotations

import dataclasses
import io
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from experiments.shell import ndn_view, status_view
from experiments.shell.fault_line import complete_fault, kinds_help, processes
from experiments.shell.live import LiveRun
from experiments.shell.log_view import NodeLog
from experiments.typed import CaptureTyped, FaultTyped, HealTyped, LineTyped, Marked, PublishTyped, ShellEnded, Typed
from testbed.faults.model import FaultApplied
from testbed.node_config import application_socket
from testbed.shell.cli import Shell
from testbed.shell.command import Command, only
from testbed.shell.live_view import show_live
from topologies.errors import InputError, pick_one_of

WATCH_EVERY_S: Final = 1.0
FOLLOW_EVERY_S: Final = 0.3
LOG_LINES: Final = 20
#: What `publish` may say; as in an experiment file.
EVENTS: Final = ("message", "stroke", "object")
INTEREST_LIFETIME_S: Final = 4.0
#: Of what was noted lately, so much is shown below the view of `watch`.
NOTES_SHOWN: Final = 6


class Commands:
    """All of them; `table` is what the shell takes."""

    def __init__(self, live: LiveRun, notes: deque[str]) -> None:
        self._live, self._notes = live, notes
        self._nodes = [node.name for node in live.topology.nodes]
        self._links = [link.name for link in live.topology.links]

    def table(self) -> list[Command]:
        """Return the commands, in the order in which help shows them."""
        ue, node, link = self._live.topology.ues[0], self._live.topology.proxies[0], self._links[0]
        nodes = _first_word(self._nodes)
        return [
            Command(
                "status", "[NODE|all]", "rosters, state digests, who lags, faces, armed interests, faults", self.status,
                _first_word(["all", *self._nodes]), ("status", f"status {node}"),
            ),
            Command("watch", "[NODE]", "the same, drawn anew every second until q or Ctrl-C", self.watch, nodes, ("watch",)),
            Command(
                "publish", "UE TEXT [event=KIND]", "a UE publishes an update", self.publish, self._complete_publish,
                (f'publish {ue} "good morning"', f"publish {ue} x event=stroke"),
            ),
            Command(
                "fault", "KIND TARGET [key=value ...]", "breaks something, at once or on schedule", self.fault,
                lambda before, word: complete_fault(before, word, self._live.topology),
                (f"fault link-down {link} for_s=5", f"fault impair {link} loss_ratio=0.2", f"fault crash {node}.proxy for_s=3"),
                kinds_help,
            ),
            Command("heal", "ID|TARGET|all", "ends a fault", self.heal, self._complete_heal, ("heal h1", f"heal {link}", "heal all")),
            Command("faults", "", "lists the faults that are active, past and still to come", self.list_faults),
            Command(
                "link", "NODE NODE up|down", "takes the link between two nodes down or up, as a fault by hand", self.link,
                self._complete_link, (f"link {link.replace('-', ' ')} down",),
            ),
            Command("links", "", "lists the links, their properties and whether they have a carrier", self.list_links),
            Command("pingall", "", "pings every neighbour of every node, once", self.pingall),
            Command(
                "capture", "[start|stop LINK]", "captures a link as pcapng; alone: says what is captured", self.capture,
                self._complete_capture, (f"capture start {link}", f"capture stop {link}"),
            ),
            Command(
                "log", "NODE [-n LINES] [-f] [KIND ...]", "the last records and messages of a node; -f follows", self.log,
                self._complete_log, (f"log {node}", f"log {node}.proxy -f", f"log {ue} session applied"),
                "KIND is a kind of record, such as session, face, peer, published, applied, counters.",
            ),
            Command(
                "ndn", "[NODE [get NAME]]", "faces, routes, PIT and content store; `get` expresses an Interest", self.ndn,
                self._complete_ndn, ("ndn", f"ndn {node}", f"ndn {ue} get /localhost/nfd/status/general"),
            ),
            Command(
                "record", "[mark TEXT]", "what was typed, for `hconf replay`; `mark` adds a remark", self.record,
                lambda before, _word: () if before else ("mark",), ("record", 'record mark "now it is overloaded"'),
            ),
            Command("report", "", "writes the CSV files of the run so far, and prints the summary", self.report),
        ]  # fmt: skip

    # ------------------------------------------------------------------ seeing

    def status(self, words: Sequence[str]) -> str:
        only(words, 1, "status")
        return "\n".join(self._view(words)(120))

    def watch(self, words: Sequence[str]) -> str:
        only(words, 1, "watch")
        view = self._view(words)

        def draw(width: int) -> list[str]:
            return [*view(width), *(["", *list(self._notes)[-NOTES_SHOWN:]] if self._notes else [])]

        show_live(draw, every_s=WATCH_EVERY_S)
        return ""

    def _view(self, words: Sequence[str]) -> Callable[[int], list[str]]:
        if words and words[0] != "all":
            node = self._live.require_node(words[0], "status")
            return lambda _width: status_view.node_lines(node, self._live.moment())
        return lambda width: status_view.status_lines(self._live.moment(), width=width, everybody=bool(words))

    def list_links(self, words: Sequence[str]) -> str:
        only(words, 0, "links")
        lines, carriers, plan = list[str](), self._live.carriers(), self._live.network.addresses
        for link in self._live.topology.links:
            a_up, b_up = carriers[link.name]
            ends = "<->".join(plan.end(link.name, node).intf for node in (link.a, link.b))
            state = " ".join("OK" if up else "DOWN" for up in (a_up, b_up))
            spelt = [f"{link.properties.delay_ms:g} ms"]
            spelt += [f"loss {link.properties.loss_ratio:g}"] if link.properties.loss_ratio else []
            spelt += [f"{link.properties.rate_mbps:g} Mbit/s"] if link.properties.rate_mbps else []
            lines.append(f"{ends} ({state})  {link.name}, {link.tier}, {', '.join(spelt)}")
        return "\n".join(lines)

    def pingall(self, words: Sequence[str]) -> str:
        only(words, 0, "pingall")
        net = self._live.network.net
        lines = ["*** Ping: every neighbour once (hosts forward no IP: the others are reached by name)"]
        lost = sent = 0
        for node in self._nodes:
            row = []
            for link in self._live.topology.links_of(node):
                peer = link.other_end(node)
                output, _, status = net[node].pexec("ping", "-c", "1", "-W", "1", net[peer].plan.node_address)
                sent, lost = sent + 1, lost + (status != 0)
                row.append(f"{peer} {_round_trip(output)}" if status == 0 else "X")
            lines.append(f"{node} -> {', '.join(row)}")
        return "\n".join([*lines, f"*** Results: {lost / max(1, sent):.0%} lost ({sent - lost}/{sent} received)"])

    def log(self, words: Sequence[str]) -> str:
        follow, lines, rest = False, LOG_LINES, list(words)
        if not rest:
            raise InputError(where="log", problem="no node is named", remedy=f"for example: log {self._nodes[0]}")
        node, wanted = rest.pop(0), list[str]()
        while rest:
            word = rest.pop(0)
            if word == "-f":
                follow = True
            elif word == "-n":
                number = rest.pop(0) if rest else ""
                if not number.isdecimal() or not int(number):
                    raise InputError(where="log -n", problem=f"`{number}` is no number of lines", remedy="write -n 50")
                lines = int(number)
            elif word.startswith("-"):
                raise InputError(where="log", problem=f"there is no option {word}", remedy="use -n LINES or -f")
            else:
                wanted.append(word)
        every = processes(self._live.topology)
        chosen = [process for process in every if node in (process, process.rpartition(".")[0])]
        if not chosen:
            raise InputError(
                where="log", problem=f"there is no node or process `{node}`",
                remedy=pick_one_of(node, [*self._nodes, *every]),
            )  # fmt: skip
        source = NodeLog(self._live.folder / "raw", chosen, self._live.epoch_s, frozenset(wanted))
        text = "\n".join(source.read()[-lines:])
        if not follow:
            return text or f"nothing yet{' of ' + ', '.join(wanted) if wanted else ''}; nodes write once a second"
        if text:
            print(text, flush=True)  # noqa: T201  it goes on
        try:
            while True:
                time.sleep(FOLLOW_EVERY_S)
                for line in source.read():
                    print(line, flush=True)  # noqa: T201
        except KeyboardInterrupt:
            return "\n"

    def ndn(self, words: Sequence[str]) -> str:
        if not words:
            return "\n".join(ndn_view.table_lines(self._live.tables(self._nodes)))
        node = self._live.require_node(words[0], "ndn")
        if len(words) == 1:
            told = self._live.tables([node])[node]
            if told is None:
                raise InputError(
                    where=f"ndn {node}", problem="it does not answer", remedy="see `faults`, and `heal` it"
                )
            return "\n".join(ndn_view.node_lines(node, told))
        if words[1] != "get" or len(words) != 3:
            raise InputError(
                where=f"ndn {node}", problem=f"`{' '.join(words[1:])}` is not understood",
                remedy=f"write: ndn {node} get /a/name",
            )  # fmt: skip
        name = ndn_view.checked_name(words[2])
        socket_path = application_socket(self._live.run_id, node)
        return "\n".join(ndn_view.express(socket_path, name, lifetime_s=INTEREST_LIFETIME_S))

    # ------------------------------------------------------------------ doing

    def publish(self, words: Sequence[str]) -> str:
        options = [word for word in words if word.startswith("event=")]
        rest = [word for word in words if word not in options]
        ue = self._live.topology.ues[0]
        if len(rest) < 2:
            missing = "no text is given" if rest else "no UE is named"
            raise InputError(where="publish", problem=missing, remedy=f'for example: publish {ue} "good morning"')
        device, text = self._live.require_ue(rest[0], "publish"), " ".join(rest[1:])
        event = options[-1].partition("=")[2] if options else EVENTS[0]
        if event not in EVENTS:
            raise InputError(
                where="publish: event", problem=f"there is no `{event}`", remedy=pick_one_of(event, EVENTS)
            )
        _, seq = self._live.publish(device, text, event)
        return f"t = {self._live.now_s():.3f} s: {device} publishes its update {seq}"

    def fault(self, words: Sequence[str]) -> str:
        fault_id, row = self._live.inject(words)
        if row is None:
            fault = self._live.faults[fault_id]
            return f"{fault_id} is on the schedule for t = {fault.at_s:g} s"
        return self._spell_applied(row)

    def _spell_applied(self, row: FaultApplied) -> str:
        at = f"t = {row.applied_s - self._live.epoch_s:.3f} s"
        what = f"{row.fault_id}: {row.kind} {row.target}"
        if not row.verified:
            return f"{at}: {what} DID NOT TAKE: it was asked for, but what was read back is something else"
        until = row.parameters.get("for_s")
        after = f"; healed after {until:g} s" if isinstance(until, int | float) else ""
        return f"{at}: {what}, read back as it should be{after}"

    def heal(self, words: Sequence[str]) -> str:
        if not words:
            active = self._live.active()
            remedy = f"active are: {', '.join(active)}; or `heal all`" if active else "nothing is broken"
            raise InputError(where="heal", problem="no fault is named", remedy=remedy)
        only(words, 1, "heal")
        lines = []
        for row in self._live.heal(words[0]):
            took = "" if row.verified else ", but what was read back is something else"
            at_s = (row.healed_s or 0.0) - self._live.epoch_s
            lines.append(f"t = {at_s:.3f} s: {row.fault_id}: end of {row.kind} {row.target}{took}")
        return "\n".join(lines)

    def list_faults(self, words: Sequence[str]) -> str:
        only(words, 0, "faults")
        rows, active = self._live.rows(), set(self._live.active())
        past = [self._live.spell_fault(fault_id) for fault_id in rows if fault_id not in active]
        now_s = self._live.now_s()
        coming = [
            f"{fault_id}  {fault.__struct_config__.tag} {getattr(fault, 'target', '')}, at {fault.at_s:g} s"
            for fault_id, fault in self._live.faults.items()
            if fault_id not in rows and fault.at_s > now_s
        ]
        lines = (
            ["active:", *(f"  {self._live.spell_fault(one)}" for one in rows if one in active)]
            if active
            else ["none is active"]
        )
        lines += ["past:", *(f"  {line}" for line in past)] if past else []
        lines += ["to come:", *(f"  {line}" for line in coming)] if coming else []
        return "\n".join(lines)

    def link(self, words: Sequence[str]) -> str:
        usage = f"write: link {self._links[0].replace('-', ' ')} down"
        if len(words) != 3 or words[2] not in ("up", "down"):
            raise InputError(where="link", problem="two nodes and up or down are wanted", remedy=usage)
        name = self._live.require_link(f"{words[0]}-{words[1]}", "link")
        if words[2] == "down":
            return self.fault(["link-down", name])
        down = [one for one in self._live.active() if self._live.rows()[one].kind == "link-down"]
        mine = [one for one in down if self._live.rows()[one].target == name]
        if not mine:
            raise InputError(where=f"link {name}", problem="it is not down", remedy="`links` shows the state of each")
        return "\n".join(self.heal([one]) for one in mine)

    def capture(self, words: Sequence[str]) -> str:
        if not words:
            going = [f"  {link}: {self._shown(path)}" for link, path in self._live.captures.items()]
            return "\n".join(["captured are:", *going]) if going else "nothing is captured"
        if words[0] not in ("start", "stop") or len(words) != 2:
            raise InputError(
                where="capture",
                problem="start or stop and a link are wanted",
                remedy=f"write: capture start {self._links[0]}",
            )
        link = self._live.require_link(words[1], "capture")
        if words[0] == "start":
            return f"capturing {link} into {self._shown(self._live.start_capture(link))}"
        path = self._live.stop_capture(link)
        return f"{self._shown(path)}: {path.stat().st_size} bytes"

    def _shown(self, path: Path) -> str:
        try:
            return str(path.relative_to(Path.cwd()))
        except ValueError:
            return str(path)

    # ------------------------------------------------------------------ keeping

    def record(self, words: Sequence[str]) -> str:
        if words:
            text = " ".join(words[1:])
            if words[0] != "mark" or not text:
                raise InputError(where="record", problem="it is not understood", remedy='write: record mark "a remark"')
            self._live.mark(text)
            return f"t = {self._live.now_s():.3f} s: {text}"
        typed = self._live.typed.records
        lines = [
            f"  {record.t_s - self._live.epoch_s:9.3f} s  {spelt}" for record in typed if (spelt := spell_typed(record))
        ]
        if not lines:
            return "nothing yet that `hconf replay` would do again"
        return "\n".join([*lines, f"hconf replay {self._shown(self._live.folder)} does the faults and updates again"])

    def report(self, words: Sequence[str]) -> str:
        only(words, 0, "report")
        from rich.console import Console  # noqa: PLC0415  only here

        from experiments.report import print_summary  # noqa: PLC0415  the same

        analysis, manifest = self._live.report()
        certain = tuple(check for check in analysis.checks if check.verdict != "inconclusive")  # others say: it goes on
        text = io.StringIO()
        print_summary(
            Console(file=text, width=100),
            Path(self._shown(self._live.folder)),
            dataclasses.replace(analysis, checks=certain),
            {**manifest, "verdict": "still running"},
        )
        return f"{text.getvalue().strip()}\nof the run so far, to t = {self._live.now_s():.1f} s; `exit` makes the whole report"

    # ------------------------------------------------------------------ completion

    def _complete_publish(self, before: Sequence[str], word: str) -> list[str]:
        if not before:
            return list(self._live.topology.ues)
        return [f"event={event}" for event in EVENTS] if word.startswith("e") else []

    def _complete_heal(self, before: Sequence[str], _word: str) -> list[str]:
        rows = self._live.rows()
        return [] if before else ["all", *(name for one in self._live.active() for name in (one, rows[one].target))]

    def _complete_link(self, before: Sequence[str], _word: str) -> list[str]:
        match len(before):
            case 0:
                return self._nodes
            case 1 if before[0] in self._nodes:
                return [link.other_end(before[0]) for link in self._live.topology.links_of(before[0])]
            case 2:
                return ["down", "up"]
            case _:
                return []

    def _complete_capture(self, before: Sequence[str], _word: str) -> list[str]:
        match list(before):
            case []:
                return ["start", "stop"]
            case ["start"]:
                return [link for link in self._links if link not in self._live.captures]
            case ["stop"]:
                return list(self._live.captures)
            case _:
                return []

    def _complete_log(self, before: Sequence[str], _word: str) -> list[str]:
        if not before:
            return [*self._nodes, *processes(self._live.topology)]
        return ["-f", "-n", *_RECORD_KINDS]

    def _complete_ndn(self, before: Sequence[str], _word: str) -> list[str]:
        return self._nodes if not before else ["get"] if len(before) == 1 else []


_RECORD_KINDS: Final = (
    *("published", "acked", "applied", "snapshot-applied", "session", "granted", "revoked", "face", "prefix", "peer"),
    *("service", "object-published", "object-fetched", "state", "counters"),
)


def make_commands(live: LiveRun, notes: deque[str]) -> list[Command]:
    """Return the commands over a live run; *notes* is what was said meanwhile."""
    return Commands(live, notes).table()


def spell_typed(record: Typed) -> str:
    """Return what was done; nothing for a line that has done nothing to the conference."""
    match record:
        case FaultTyped(_, fault_id, fault):
            fields = " ".join(
                f"{name}={value}" for name, value in fault.items() if name not in ("kind", "at_s", "target")
            )
            return f"{fault_id}  fault {fault['kind']} {fault.get('target', '')} {fields}".rstrip()
        case HealTyped(_, fault_id):
            return f"heal {fault_id}"
        case PublishTyped(_, device, event, text, _, seq):
            return (
                f'publish {device} "{text}"'
                + (f" event={event}" if event != "message" else "")
                + (f" (update {seq})" if seq else "")
            )
        case CaptureTyped(_, link, state, file):
            return f"capture {state} {link}: {file}"
        case Marked(_, text):
            return f"# {text}"
        case ShellEnded():
            return "exit"
        case LineTyped():
            return ""


def _first_word(names: Sequence[str]) -> Callable[[Sequence[str], str], Sequence[str]]:
    return lambda before, _word: () if before else names


def _round_trip(output: str) -> str:
    _, found, rest = output.partition("time=")
    return f"{rest.split(' ')[0]} ms" if found else ""


__all__ = ["Commands", "Shell", "make_commands", "spell_typed"]
