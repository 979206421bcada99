"""The supervisor's handle on the emulator process that carries the frames of all `wire` links.

Every method blocks for a fraction of a millisecond (`start` and `stop` longer) and may be called from any thread: under
trio, through `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

import msgspec

import testbed
from testbed.faults.packets.rules import MessageRule, RuleReport
from testbed.links.messages import (
    COUNTERS_PER_MESSAGE,
    MAX_FDS_PER_MESSAGE,
    AddHosts,
    AddRule,
    Build,
    Change,
    Inject,
    ReadCounters,
    ReadStats,
    RemoveRule,
    Reply,
    ReportRule,
    Request,
    SetBlocked,
    SetCarrier,
    Stop,
    encoder,
    reply_decoder,
)
from testbed.links.model import Direction, EmulatorStats, Impairment, LinkCounters, LinkPlan
from topologies.errors import CapabilityError, HconfError, InputError, pick_one_of

_REPLY_TIMEOUT_S: Final = 10.0
_BUILD_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_RECEIVE_BYTES: Final = 1 << 18
_LOG_TAIL_BYTES: Final = 2_000


class EmulatorDied(Exception):
    """The emulator process ended or fell silent, and with it every link; the message has the end of its log."""


class WireEmulator:
    """All links of a run, carried by one process. Make it with `start`, or with `begin` and `build`."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, log: IO[bytes]) -> None:
        self._process, self._control, self._log = process, control, log
        self._lock = threading.Lock()
        self._received = bytearray()
        self._impairments: dict[str, dict[Direction, Impairment]] = {}

    @classmethod
    def begin(cls, *, log_path: Path | None = None, environment: Mapping[str, str] | None = None) -> Self:
        """Start the process, which is a tenth of a second about it; hosts are wanted only by `build`.

        Args:
            log_path: what the process prints, which is nothing unless it fails; None keeps it for error messages.
            environment: added to that of the process.
        """
        log = tempfile.TemporaryFile() if log_path is None else log_path.open("a+b")  # noqa: SIM115  closed by stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        arguments = ("--socket-fd", str(theirs.fileno()), "--parent-pid", str(os.getpid()))
        with theirs:
            process = subprocess.Popen(
                (sys.executable, "-m", "testbed.links.emulator", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C at the terminal is the supervisor's to handle
                env={**os.environ, **(environment or {}), "PYTHONPATH": _import_path()},
            )
        return cls(process, ours, log)

    def build(
        self,
        plans: Sequence[LinkPlan],
        *,
        netns_fds: Mapping[str, int],
        seed: int,
        ledger_path: Path,
        hold_cpus_awake: bool = True,
        packet_code: bool = False,
    ) -> None:
        """Make all links; they are up and carry frames when this returns.

        Args:
            plans: at least the ends' hosts must be keys of *netns_fds*; names of links must be unique.
            netns_fds: open descriptors of the hosts' network namespaces; the caller keeps and closes its own.
            seed: of the run; with the link's name and direction it decides every random draw.
            ledger_path: JSON lines, one for each dropped or altered frame (`ledger.LedgerRecord`); appended to.
            hold_cpus_awake: forbid deep idle states while the links exist, where the kernel lets us: without it every hop
                of a quiet network takes 0.1 to 0.3 ms longer. `stats().cpus_held_awake` says whether it worked.
            packet_code: message faults may have code over packets: load what runs it, which takes 0.7 s.
        Raises: InputError or CapabilityError if a link cannot be made; nothing is left of the others then, but the process
            is there until `stop`. EmulatorDied if it ends.
        """
        _check_plans(plans, netns_fds)
        self._send_hosts(plans, netns_fds)
        build = Build(list(plans), seed, str(ledger_path.absolute()), hold_cpus_awake, packet_code)
        self._request(build, timeout_s=_BUILD_TIMEOUT_S)
        self._impairments = {plan.name: {"a_to_b": plan.a_to_b, "b_to_a": plan.b_to_a} for plan in plans}

    @classmethod
    def start(cls, plans: Sequence[LinkPlan], *, log_path: Path | None = None, **build: Any) -> Self:  # noqa: ANN401
        """Start the process and make all links: `begin` and `build`, whose arguments and errors it has.

        Nothing is left if it raises.
        """
        emulator = cls.begin(log_path=log_path)
        try:
            emulator.build(plans, **build)
        except BaseException:
            emulator.stop()
            raise
        return emulator

    def _send_hosts(self, plans: Sequence[LinkPlan], netns_fds: Mapping[str, int]) -> None:
        hosts = sorted({end.host for plan in plans for end in (plan.a, plan.b)})
        for start in range(0, len(hosts), MAX_FDS_PER_MESSAGE):
            batch = hosts[start : start + MAX_FDS_PER_MESSAGE]
            # the first answer comes when the program has loaded: on an emulated processor that takes its time
            self._request(AddHosts(batch), fds=[netns_fds[host] for host in batch], timeout_s=_BUILD_TIMEOUT_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status of the process (negative: the signal that ended it), None while it runs."""
        return self._process.poll()

    def impairments(self, link: str) -> dict[Direction, Impairment]:
        """Return what each direction of *link* does now. Raises: InputError if there is no such link."""
        return dict(self._known(link))

    def change(
        self,
        link: str,
        *,
        direction: Direction | None = None,
        **properties: Any,  # noqa: ANN401  checked as JSON is
    ) -> dict[Direction, Impairment]:
        """Change properties of *link* (fields of `Impairment`) from the next frame on; frames in flight are not disturbed.

        What is not given stays. *direction* None changes both; ``rate_mbps=None`` removes the limit.
        Returns: both directions as read back from the emulator, the MTU from the kernel.
        Raises: InputError for an unknown link or a value out of range (nothing is changed); EmulatorDied.
        """
        wanted = self.impairments(link)
        try:
            for changed in wanted if direction is None else (direction,):
                # through the decoder, so that types are checked too
                wanted[changed] = msgspec.convert(msgspec.to_builtins(wanted[changed]) | properties, Impairment)
        except msgspec.ValidationError as error:
            raise InputError(
                where=f"link {link}", problem=str(error), remedy="give a value within the range"
            ) from error
        reply = self._request(Change(link, wanted["a_to_b"], wanted["b_to_a"]))
        assert reply.a_to_b is not None
        assert reply.b_to_a is not None
        is_now: dict[Direction, Impairment] = {"a_to_b": reply.a_to_b, "b_to_a": reply.b_to_a}
        self._impairments[link] = is_now
        if is_now != wanted:
            raise CapabilityError(
                where=f"link {link}",
                problem=f"asked for {wanted}, read back {is_now}",
                remedy="see whether something else changes these interfaces",
            )
        return dict(is_now)

    def set_blocked(self, link: str, directions: Collection[Direction]) -> None:
        """Make *link* a black hole in these *directions*, and in no other; neither end sees it.

        What is in flight arrives; what enters from now on is gone (`blocked`). Raises: InputError for an unknown link;
        CapabilityError if it did not take; EmulatorDied.
        """
        self._known(link)
        reply = self._request(SetBlocked(link, sorted(directions)))
        if reply.blocked is None or set(reply.blocked) != set(directions):
            raise CapabilityError(
                where=f"link {link}",
                problem=f"was to be blocked {sorted(directions)}, read back {reply.blocked}",
                remedy="this is a bug of the link emulator: report it",
            )

    def read_blocked(self, link: str) -> frozenset[Direction]:
        """Return the directions in which *link* is a black hole. Raises: InputError for an unknown link; EmulatorDied."""
        self._known(link)
        counters = self._request(ReadCounters([link])).counters or []
        return frozenset(row.direction for row in counters if row.blocked)

    def set_carrier(self, link: str, up: bool) -> None:  # noqa: FBT001  callable from trio.to_thread.run_sync
        """Take *link* down or up at both ends; frames in flight on a link that goes down are dropped (`carrier`).

        Raises: InputError for an unknown link; CapabilityError if the carrier, read back, did not change.
        """
        self._known(link)
        reply = self._request(SetCarrier(link, up))
        if reply.carriers != [up, up]:
            raise CapabilityError(
                where=f"link {link}",
                problem=f"set its carrier to {up}, read back {reply.carriers}",
                remedy="see whether something else changes these interfaces",
            )

    def add_rule(self, rule: MessageRule, lanes: Sequence[tuple[str, Direction]]) -> RuleReport:
        """Put a message fault into force on these directions of links, from the next frame on.

        Returns: how it stands, read back. Raises: InputError for an unknown link or where its code is wrong;
            CapabilityError if it has code and the links were made without `packet_code`.
        """
        for link, _ in lanes:
            self._known(link)
        return self._report(self._request(AddRule(rule, list(lanes))))

    def report_rule(self, fault_id: str) -> RuleReport:
        """Return what came of a message fault that is in force."""
        return self._report(self._request(ReportRule(fault_id)))

    def remove_rule(self, fault_id: str) -> RuleReport:
        """End a message fault. Frames that it has delayed arrive all the same. Returns: what came of it."""
        return self._report(self._request(RemoveRule(fault_id)))

    def inject(self, link: str, direction: Direction, packet: str) -> bool:
        """Send a packet made by hand (testbed/faults/packets/crafting.py) from one end of *link*.

        Returns: whether the link was up to take it. Raises: InputError for an unknown link.
        """
        self._known(link)
        return bool(self._request(Inject(link, direction, packet)).injected)

    @staticmethod
    def _report(reply: Reply) -> RuleReport:
        assert reply.report is not None
        return reply.report

    def counters(self) -> list[LinkCounters]:
        """Return the counters of every link and direction, in the order of the plans."""
        names, counters = list(self._impairments), list[LinkCounters]()
        for start in range(0, len(names), COUNTERS_PER_MESSAGE):
            counters += self._request(ReadCounters(names[start : start + COUNTERS_PER_MESSAGE])).counters or []
        return counters

    def stats(self) -> EmulatorStats:
        """Return how the emulator process is doing."""
        stats = self._request(ReadStats()).stats
        assert stats is not None
        return stats

    def stop(self) -> None:
        """Remove all links and end the process; safe to call again. Returns when the interfaces are gone."""
        with self._lock:
            if self._control.fileno() >= 0:
                with contextlib.suppress(OSError):
                    self._control.sendall(encoder.encode(Stop()) + b"\n")
                self._control.close()
            if not _ended_within(self._process, _STOP_TIMEOUT_S):
                self._process.send_signal(signal.SIGKILL)  # the kernel removes the interfaces, slowly
                self._process.wait()
            self._log.close()

    def _known(self, link: str) -> dict[Direction, Impairment]:
        try:
            return self._impairments[link]
        except KeyError:
            raise InputError(
                where=f"link {link}", problem="there is no such link", remedy=pick_one_of(link, self._impairments)
            ) from None

    def _request(self, request: Request, *, fds: Sequence[int] = (), timeout_s: float = _REPLY_TIMEOUT_S) -> Reply:
        line = encoder.encode(request) + b"\n"
        with self._lock:
            try:
                self._control.settimeout(timeout_s)
                if fds:
                    sent = socket.send_fds(self._control, [line], fds)
                    line = line[sent:]
                self._control.sendall(line)
                reply = reply_decoder.decode(self._receive_line())
            except OSError as error:
                raise EmulatorDied(self._obituary(error)) from error
        if reply.failure is not None:
            failure = reply.failure
            kind: type[HconfError] = CapabilityError if failure.capability else InputError
            raise kind(where=failure.where, problem=failure.problem, remedy=failure.remedy)
        return reply

    def _receive_line(self) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            data = self._control.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the control socket")
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _obituary(self, error: OSError) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        state = "is running but silent" if status is None else f"ended with status {status}"
        try:
            size_bytes = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size_bytes - _LOG_TAIL_BYTES))
            tail = self._log.read().decode(errors="replace").strip()
        except ValueError:
            tail = "it was stopped"
        return f"the link emulator {state} ({error}){': ' + tail if tail else ''}"


def _ended_within(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait for the end of a child; return whether it came. `Popen.wait` with a limit looks every 50 ms only."""
    if process.poll() is None:
        pidfd = os.pidfd_open(process.pid)
        try:
            ended = select.poll()  # select(2) takes no descriptor above 1023
            ended.register(pidfd, select.POLLIN)
            ended.poll(limit_s * 1_000)
        finally:
            os.close(pidfd)
    return process.poll() is not None


def _check_plans(plans: Sequence[LinkPlan], netns_fds: Mapping[str, int]) -> None:
    seen: set[str] = set()
    for plan in plans:
        if plan.name in seen:
            raise InputError(where=f"link {plan.name}", problem="the name is used twice", remedy="rename one")
        seen.add(plan.name)
        for end in (plan.a, plan.b):
            if end.host not in netns_fds:
                raise InputError(
                    where=f"link {plan.name}",
                    problem=f"there is no namespace for host {end.host}",
                    remedy="add it to netns_fds",
                )


def _import_path() -> str:
    """Return a PYTHONPATH with which the process finds the same `testbed` package as we did."""
    root = str(Path(testbed.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return root if not inherited else os.pathsep.join((root, inherited))
