"""`hconf shell` at a terminal: typed at, interrupted, hung up, killed; and what it leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.spec import load_experiment
from experiments.spec_schema import Impair, LinkDown
from experiments.spec_workloads import OnceWorkload
from testbed.emulation.ownership import clean, processes_marked, read_record
from testbed.plan import RUNTIME_ROOT
from tests.emulation.terminal import Terminal

ROOT = Path(__file__).parents[2]
HCONF = (sys.executable, "-m", "experiments.cli")
#: The supervisor's death takes the whole run down within so many seconds (issue 5); a machine that is busy takes longer.
DEATH_LIMIT_S = 10.0

SMALL = """
[experiment]
name = "typed"
duration_s = 600
seed = 5
settle_s = 5

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 1

[[workload]]
kind = "constant"
rate_per_s = 4.0
publishers = ["ue1"]

[[fault]]
kind = "impair"
target = "csr2-ue2"
at_s = 0.5
loss_ratio = 0.01
"""


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "typed.toml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def shell(folder: Path) -> Iterator[Terminal]:
    command = [*HCONF, "shell", "typed.toml", "--out", "run"]
    with Terminal(command, cwd=folder, env=environment(folder)) as terminal:
        yield terminal


def at_prompt(shell: Terminal) -> None:
    shell.expect("hconf> ")


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "manifest.json").read_text())
    return found


def assert_gone(folder: Path) -> None:
    run_id = manifest_of(folder)["run_id"]
    until_s = time.monotonic() + DEATH_LIMIT_S
    while processes_marked(run_id) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert processes_marked(run_id) == []
    assert not (RUNTIME_ROOT / run_id).exists()


def ask(shell: Terminal, line: str, answer: str) -> str:
    shell.line(line)
    found = shell.expect(answer)[0]
    at_prompt(shell)
    return found


@pytest.mark.timeout(180)
def test_a_session(shell: Terminal, folder: Path) -> None:
    shell.expect("10 links; 2 UEs")
    at_prompt(shell)
    shell.expect("t = 0.5.. s: impair csr2-ue2")  # said while nothing is typed, with a new prompt below
    at_prompt(shell)
    see_the_network(shell)
    break_and_heal(shell)
    run_in_hosts(shell)
    watch_and_keep(shell)
    shell.line("exit")
    assert shell.wait() == 0, shell.all
    assert shell.modes_now() == shell.modes
    assert_gone(folder)
    assert "ue1 ping csr1" in (folder / ".hconf_history").read_text()
    assert "Traceback" not in shell.all
    with (folder / "run" / "faults.csv").open() as file:
        rows = {row["fault_id"]: row for row in csv.DictReader(file)}
    assert [(row["source"], row["verified"]) for row in rows.values()] == [("schedule", "true"), ("hand", "true")]
    assert all(row["healed_s"] for row in rows.values())
    assert manifest_of(folder)["verdict"] == "pass"
    assert_replayed(folder, rows["h1"])


def see_the_network(shell: Terminal) -> None:
    ask(shell, "nodes", "core1 core2 core3 csr1 csr2 login ue1 ue2")
    ask(shell, "links", r"csr1-eth\d<->ue1-eth0 \(OK OK\)")
    ask(shell, "py net.get('ue1').name + '!'", "ue1!")
    shell.press("sta\t")
    shell.expect("status ")
    shell.line("")
    shell.expect(r"in sync[^$]*csr2 +main +serving +[0-9a-f]{8} +1 +1 +[1-9]\d* +\d")
    shell.expect("faults: f1  impair csr2-ue2")
    at_prompt(shell)


def break_and_heal(shell: Terminal) -> None:
    ask(shell, 'publish ue2 "good morning"', "ue2 publishes its update 2")
    ask(shell, "publsh ue2 x", "did you mean `publish`")
    ask(shell, "publish csr1 x", "`csr1` is a csr, which publishes nothing")
    ask(shell, "publish ue2 'x", "close the quote")
    ask(shell, "fault link-dwn core2-csr2", "did you mean `link-down`")
    ask(shell, "fault link-down core2-csr9", "did you mean")
    ask(shell, "fault impair core2-csr2 loss=0.1", "did you mean `loss_ratio`")
    ask(shell, "fault impair csr2-ue2 loss_ratio=0.5", "f1 also sets loss_ratio of csr2-ue2")
    ask(shell, "heal h1", "no such fault")
    shell.press("fault link-down core2-csr2 fo\t")
    shell.expect("for_s=")
    shell.line("60")
    shell.expect("h1: link-down core2-csr2, read back as it should be; healed after 60 s")
    at_prompt(shell)
    ask(shell, "fault link-down core2-csr2", "core2-csr2 is already down .* since h1")
    ask(shell, "links", r"core2-eth\d<->csr2-eth0 \(DOWN DOWN\)")
    ask(shell, "heal core2-csr2", "end of link-down core2-csr2")
    ask(shell, "heal f1", "f1: end of impair csr2-ue2")


def run_in_hosts(shell: Terminal) -> None:
    shell.line("ue1 ping csr1")  # names become addresses, Ctrl-C is the program's
    shell.expect("icmp_seq=2")
    shell.press("\x03")
    shell.expect("packet loss")
    at_prompt(shell)
    ask(shell, "ue1 ping -c 1 ue2", "ue2 is no neighbour of ue1")

    shell.line("ue1 echo ready; cat")  # an interactive program: what is typed is shown once, and answered
    shell.expect("\nready\n")
    shell.line("twice")
    shell.expect("^twice\ntwice\n")
    shell.press("\x04")
    at_prompt(shell)
    ask(shell, "ue1 cd /usr; X=7", "\n")
    ask(shell, "ue1 echo $PWD$X", "\n/usr7\n")
    ask(shell, "ue1 exit", "\n")
    ask(shell, "ue1 echo $PWD", "\n/.*\n")  # another shell


def watch_and_keep(shell: Terminal) -> None:
    shell.line("watch")
    shell.expect("q ends this view")
    shell.press("q")
    at_prompt(shell)
    shell.line("log ue1 -f published")
    shell.expect("published .*publisher=ue1.*\n")
    shell.press("\x03")
    at_prompt(shell)
    shell.press("never mind\x03")
    at_prompt(shell)
    ask(shell, "capture start csr1-ue1", "captures/csr1-ue1.pcapng")
    ask(shell, "ndn ue1", r"/hconf +csr1 \(2 ms\)")
    ask(shell, "ndn ue1 get /no/such/name", "Nack after .*: no route")
    ask(shell, "ndn ue1 get /localhost/nfd/status/general", "Data after .* ms: /localhost/nfd/status/general")
    ask(shell, "capture stop ue1-csr1", "[1-9][0-9]+ bytes")
    ask(shell, 'record mark "half time"', "half time")
    ask(shell, "record", 'publish ue2 "good morning"')
    ask(shell, "report", "still running")


def assert_replayed(folder: Path, by_hand: dict[str, str]) -> None:
    """The file that is exported has what was typed, at its time, and runs."""

    def hconf(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HCONF, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
        )

    done = hconf("replay", "run", "--export", "again.toml")
    assert done.returncode == 0, done.stderr
    assert hconf("check", "again.toml").returncode == 0
    again = load_experiment(folder / "again.toml")
    impair, down = again.faults
    assert isinstance(impair, Impair)
    assert isinstance(down, LinkDown)
    assert impair.for_s is not None
    assert down.at_s == pytest.approx(float(by_hand["applied_s"]), abs=0.05)
    assert down.for_s == pytest.approx(float(by_hand["healed_s"]) - float(by_hand["applied_s"]), abs=0.05)
    once = again.workloads[1]
    assert isinstance(once, OnceWorkload)
    assert (once.text, once.publishers) == ("good morning", ("ue2",))
    assert again.captures == ("csr1-ue1",)
    text = (folder / "again.toml").read_text()
    assert "half time" in text
    assert "ue1 ping csr1" in text
    assert again.settings.duration_s < 120
    done = hconf("replay", "run", "--mode", "simulated", "--out", "second")
    assert done.returncode == 2  # it has a capture
    assert "[capture]" in done.stderr


def test_end_of_file_ends_it_and_the_next_shell_knows_the_history(shell: Terminal, folder: Path) -> None:
    (folder / ".hconf_history").write_text("nodes\n")
    at_prompt(shell)
    shell.press("\x1b[A")  # the last line
    shell.expect("nodes")
    shell.line("")
    shell.expect("ue1 ue2")
    at_prompt(shell)
    shell.press("\x04")
    assert shell.wait() == 0, shell.all
    assert_gone(folder)


def test_an_interrupt_while_the_network_is_built(shell: Terminal, folder: Path) -> None:
    shell.expect("building the network|joining|network built")
    shell.press("\x03")
    assert shell.wait() == 130, shell.all
    assert shell.modes_now() == shell.modes
    assert manifest_of(folder)["verdict"] == "interrupted"
    assert_gone(folder)


@pytest.mark.parametrize("doing", ["ue1 sleep 1000", "watch"])
def test_a_terminal_that_is_closed_ends_it(shell: Terminal, folder: Path, doing: str) -> None:
    at_prompt(shell)
    shell.line(doing)
    shell.expect("q ends this view" if doing == "watch" else doing)
    time.sleep(0.3)  # for the program to be there; without it the test is as good
    shell.hang_up()
    assert shell.process.wait(DEATH_LIMIT_S * 2) == 130
    assert manifest_of(folder)["verdict"] == "interrupted"
    assert_gone(folder)


def test_a_network_that_breaks_down_under_it_ends_it(shell: Terminal, folder: Path) -> None:
    at_prompt(shell)
    run_id = manifest_of(folder)["run_id"]
    record = read_record(RUNTIME_ROOT / run_id)
    assert record is not None
    os.kill(record["processes"]["link emulator"][0], signal.SIGKILL)
    assert shell.wait() == 1, shell.all
    assert "the link emulator ended" in shell.all
    assert "Traceback" not in shell.all
    assert_gone(folder)


def test_killed_it_leaves_the_records_and_a_terminal_that_is_sane(shell: Terminal, folder: Path) -> None:
    at_prompt(shell)
    ask(shell, "publish ue2 hello", "update 2")
    shell.line("ue1 echo ready; cat")
    shell.expect("\nready\n")
    assert shell.modes_now() != shell.modes
    os.kill(shell.process.pid, signal.SIGKILL)
    shell.process.wait()
    until_s = time.monotonic() + DEATH_LIMIT_S
    while shell.modes_now() != shell.modes and time.monotonic() < until_s:
        time.sleep(0.05)
    assert shell.modes_now() == shell.modes
    run_id = manifest_of(folder)["run_id"]
    while processes_marked(run_id) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert processes_marked(run_id) == []
    clean()
    assert_gone(folder)
    assert "publish" in (folder / "run" / "raw" / "shell.jsonl").read_text()
    assert "publish ue2 hello" in (folder / ".hconf_history").read_text()


def test_a_script_as_standard_input(folder: Path) -> None:
    script = "status\n# a remark\nfault link-down core1-csr1 for_s=0.3  # short\nue1 echo from $((3 + 4))\nlnks\n"
    done = subprocess.run(
        [*HCONF, "shell", "typed.toml", "--out", "run"],
        cwd=folder, env=environment(folder), input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hconf> status\nt = " in done.stdout
    assert "h1: link-down core1-csr1, read back" in done.stdout
    assert "from 7\n" in done.stdout
    assert "did you mean `links`" in done.stdout
    assert_gone(folder)
