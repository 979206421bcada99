"""The emulator process without links, which needs no root: how it starts, answers and ends."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.links.model import LinkEnd, LinkPlan
from testbed.links.wire import EmulatorDied, WireEmulator
from topologies.errors import InputError

ROOT = Path(__file__).parents[4]


def plan(name: str = "a-b", host_b: str = "b") -> LinkPlan:
    def end(host: str) -> LinkEnd:
        mac = "02:00:00:00:00:01"
        return LinkEnd(host=host, intf="eth0", address="10.0.0.0/31", mac=mac, peer_address="10.0.0.1", peer_mac=mac)

    return LinkPlan(name=name, a=end("a"), b=end(host_b))


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[WireEmulator]:
    made = WireEmulator.start([], netns_fds={}, seed=7, ledger_path=tmp_path / "ledger.jsonl", hold_cpus_awake=False)
    yield made
    made.stop()


def test_it_answers_and_ends_when_told(emulator: WireEmulator, tmp_path: Path) -> None:
    assert emulator.counters() == []
    stats = emulator.stats()
    assert stats.pid == emulator.pid
    assert not stats.cpus_held_awake
    assert os.getsid(emulator.pid) == emulator.pid  # Ctrl-C at our terminal does not reach it
    emulator.stop()
    assert emulator.poll() == 0
    emulator.stop()
    assert (tmp_path / "ledger.jsonl").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_death_is_told_with_status(emulator: WireEmulator, number: signal.Signals) -> None:
    os.kill(emulator.pid, number)
    emulator._process.wait(10.0)
    with pytest.raises(EmulatorDied, match=f"ended with status {0 if number == signal.SIGTERM else -9}"):
        emulator.stats()


def test_the_terminals_interrupt_does_not_end_it(emulator: WireEmulator) -> None:
    os.kill(emulator.pid, signal.SIGINT)
    assert emulator.stats().pid == emulator.pid


def test_a_wrong_request_is_our_bug_and_its_log_says_so(emulator: WireEmulator) -> None:
    emulator._control.sendall(b"{}\n")
    with pytest.raises(EmulatorDied, match="ValidationError"):
        emulator.stats()


def test_it_ends_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = f"""
import pathlib, sys, threading
from testbed.links.wire import WireEmulator
def start():
    made = WireEmulator.start([], netns_fds={{}}, seed=7, ledger_path=pathlib.Path({str(tmp_path / "ledger.jsonl")!r}))
    print(made.pid, flush=True)
    kept.append(made)
kept = []
thread = threading.Thread(target=start)  # and not when the thread that started it ends
thread.start()
thread.join()
print(kept[0].stats().pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as supervisor:
        assert supervisor.stdout is not None
        pid, alive_after_thread = int(supervisor.stdout.readline()), int(supervisor.stdout.readline())
        assert pid == alive_after_thread
        emulator_pidfd = os.pidfd_open(pid)
        supervisor.kill()
    assert select.select([emulator_pidfd], [], [], 10.0)[0], "the emulator outlives its supervisor"
    os.close(emulator_pidfd)


def test_wrong_plans_start_nothing(tmp_path: Path) -> None:
    for plans, problem in (
        ([plan(), plan()], "link a-b: the name is used twice"),
        ([plan("a-c", "c")], "link a-c: there is no namespace for host c"),
    ):
        with pytest.raises(InputError, match=problem):
            WireEmulator.start(plans, netns_fds={"a": 0, "b": 0}, seed=7, ledger_path=tmp_path / "ledger.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ledger.jsonl"
    with pytest.raises(InputError, match="cannot write it"):
        WireEmulator.start([], netns_fds={}, seed=7, ledger_path=path, hold_cpus_awake=False)


def test_an_unknown_link_is_refused_with_the_nearest(emulator: WireEmulator) -> None:
    for request in (lambda: emulator.change("x-y", delay_ms=1.0), lambda: emulator.set_carrier("x-y", False)):
        with pytest.raises(InputError, match="link x-y: there is no such link"):
            request()
